//! What is in a chunk.

use csv_core::{ReadRecordResult, Reader};

use super::{Chunk, newlines};

/// A row of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRow {
    /// Its number in the file, from 0.
    pub number: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Its cells: as many as there are columns, and without the character U+0000. Else what is wrong.
    pub cells: Result<Vec<String>, String>,
}

/// The rows of a chunk, of which these are the bytes.
pub fn rows<'a>(chunk: &Chunk, bytes: &'a [u8], columns: usize) -> impl Iterator<Item = CsvRow> + 'a {
    Rows {
        reader: Reader::new(),
        bytes,
        columns,
        number: chunk.first_row,
        line: chunk.first_line,
        text: vec![0; 4_096],
        ends: vec![0; 64],
    }
}

struct Rows<'a> {
    reader: Reader,
    bytes: &'a [u8],
    columns: usize,
    number: u64,
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Iterator for Rows<'_> {
    type Item = CsvRow;

    fn next(&mut self) -> Option<CsvRow> {
        let blank = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.pass(blank);
        let line = self.line;
        let (mut length, mut fields) = (0, 0);
        loop {
            let (result, read, written, ended) =
                self.reader.read_record(self.bytes, &mut self.text[length..], &mut self.ends[fields..]);
            length += written;
            fields += ended;
            self.pass(read);
            match result {
                // Once more, without bytes: that ends the last record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::End => return None,
                ReadRecordResult::Record => break,
            }
        }
        let number = self.number;
        self.number += 1;
        Some(CsvRow { number, line, cells: self.cells(length, fields) })
    }
}

impl Rows<'_> {
    fn pass(&mut self, length: usize) {
        let (passed, rest) = self.bytes.split_at(length);
        self.line += newlines(passed);
        self.bytes = rest;
    }

    fn cells(&self, length: usize, fields: usize) -> Result<Vec<String>, String> {
        if fields != self.columns {
            return Err(format!("it has not as many cells as there are columns: {fields}, not {}", self.columns));
        }
        let text = str::from_utf8(&self.text[..length]).ok();
        let cells = text.and_then(|text| cells(text, &self.ends[..fields])).ok_or("it is not in UTF-8")?;
        if cells.iter().any(|cell| cell.contains('\0')) {
            return Err("a cell has the character U+0000".to_owned());
        }
        Ok(cells)
    }
}

/// The fields of a record. `None` if one ends within a character.
pub(super) fn cells(text: &str, ends: &[usize]) -> Option<Vec<String>> {
    let begins = std::iter::once(&0).chain(ends);
    begins.zip(ends).map(|(begin, end)| text.get(*begin..*end).map(str::to_owned)).collect()
}
