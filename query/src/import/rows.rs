//! This module reads the rows of a chunk.

use csv_core::{ReadRecordResult, Reader};

use super::chunk::{Chunk, count_newlines};

/// A row of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRow {
    /// The number of the row in the file, from 0.
    pub number: u64,
    /// The line on which the row begins, counted from 1.
    pub line: u64,
    /// The cells, one for each column, without the character U+0000; or what is wrong with the row.
    pub cells: Result<Vec<String>, String>,
}

/// Reads the rows of a chunk from its bytes.
pub fn read_rows<'a>(chunk: &Chunk, bytes: &'a [u8], columns: usize) -> impl Iterator<Item = CsvRow> + 'a {
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
        self.advance(blank);
        let line = self.line;
        let (mut length, mut fields) = (0, 0);
        loop {
            let (result, read, written, new_fields) =
                self.reader.read_record(self.bytes, &mut self.text[length..], &mut self.ends[fields..]);
            length += written;
            fields += new_fields;
            self.advance(read);
            match result {
                // The next call gets no bytes, which ends the last record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::End => return None,
                ReadRecordResult::Record => break,
            }
        }
        let number = self.number;
        self.number += 1;
        Some(CsvRow { number, line, cells: self.read_cells(length, fields) })
    }
}

impl Rows<'_> {
    /// Advances the position in the chunk by this number of bytes.
    fn advance(&mut self, length: usize) {
        let (passed, rest) = self.bytes.split_at(length);
        self.line += count_newlines(passed);
        self.bytes = rest;
    }

    /// Returns the cells of the record that was read, or what is wrong with the record.
    fn read_cells(&self, length: usize, fields: usize) -> Result<Vec<String>, String> {
        if fields != self.columns {
            return Err(format!("wrong number of cells: expected {}, found {fields}", self.columns));
        }
        let text = str::from_utf8(&self.text[..length]).ok();
        let cells = text.and_then(|text| split_fields(text, &self.ends[..fields])).ok_or("the row is not in UTF-8")?;
        if cells.iter().any(|cell| cell.contains('\0')) {
            return Err("a cell has the character U+0000".to_owned());
        }
        Ok(cells)
    }
}

/// Returns the fields of a record, or `None` if a field ends inside a character.
pub(super) fn split_fields(text: &str, ends: &[usize]) -> Option<Vec<String>> {
    let begins = std::iter::once(&0).chain(ends);
    begins.zip(ends).map(|(begin, end)| text.get(*begin..*end).map(str::to_owned)).collect()
}
