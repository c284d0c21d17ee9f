//! Cuts a file into chunks while it comes.

use csv_core::{ReadRecordResult, Reader};
use sha2::{Digest, Sha256};

use super::{Chunk, Contents, ImportId, newlines};
use crate::Dataset;

/// A chunk ends with the record that reaches this many bytes, if nothing else is said.
const CHUNK_BYTES: u64 = 2 << 20;

/// The longest record, in bytes.
const MAX_RECORD: usize = 1 << 20;

/// Some programs put this before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A file that can't be imported: why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(String);

/// Reads a file as it comes. What it keeps of it is one record, and where the chunks begin.
pub struct Splitter {
    reader: Reader,
    record: Record,
    digest: Sha256,
    /// Where the next byte is in the file, and on which line.
    at: u64,
    line: u64,
    /// Of a file that begins: what has come of the mark that may stand there.
    mark: usize,
    columns: Option<Vec<String>>,
    rows: u64,
    chunk_bytes: u64,
    chunks: Vec<Cut>,
}

/// Where a chunk is.
struct Cut {
    begin: u64,
    end: u64,
    first_row: u64,
    first_line: u64,
}

/// A record that is being read: its fields one after the other, and where they end.
struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    text_length: usize,
    fields: usize,
    /// How much of the file it takes so far.
    length: usize,
    begin: u64,
    line: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::with_chunks_of(CHUNK_BYTES)
    }
}

impl Splitter {
    /// Cuts a file into chunks that end with the record that reaches this many bytes.
    pub fn with_chunks_of(bytes: u64) -> Self {
        let record =
            Record { text: vec![0; 4_096], ends: vec![0; 64], text_length: 0, fields: 0, length: 0, begin: 0, line: 1 };
        Self {
            reader: Reader::new(),
            record,
            digest: Sha256::new(),
            at: 0,
            line: 1,
            mark: 0,
            columns: None,
            rows: 0,
            chunk_bytes: bytes,
            chunks: Vec::new(),
        }
    }

    /// Reads the next bytes of the file.
    ///
    /// # Errors
    /// If it is no file that can be imported.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), BadFile> {
        self.digest.update(bytes);
        while self.mark < BYTE_ORDER_MARK.len() && bytes.first() == BYTE_ORDER_MARK.get(self.mark) {
            self.mark += 1;
            self.pass(&bytes[..1]);
            bytes = &bytes[1..];
        }
        if !bytes.is_empty() {
            self.mark = BYTE_ORDER_MARK.len();
        }
        while !bytes.is_empty() {
            bytes = self.read_some(bytes)?;
        }
        Ok(())
    }

    /// Ends the file: what is in it, and its chunks.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn finish(mut self, import: ImportId) -> Result<(Contents, Vec<Chunk>), BadFile> {
        // What stands at the end without an end of its line is a record.
        self.parse(&[], true)?;
        let columns = self.columns.ok_or_else(|| {
            BadFile("the file is empty; it needs a line with the names of its columns, and then rows".to_owned())
        })?;
        let numbered = (0_u32..).zip(self.chunks);
        let chunks: Vec<Chunk> = numbered
            .map(|(number, Cut { begin, end, first_row, first_line })| Chunk {
                import,
                number,
                bytes: begin..end,
                first_row,
                first_line,
            })
            .collect();
        let digest = self.digest.finalize().iter().fold(String::new(), |digest, byte| digest + &format!("{byte:02x}"));
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        Ok((Contents { digest, bytes: self.at, columns, rows: self.rows, chunks: count }, chunks))
    }

    /// Reads up to the end of a record, or all there is. Returns what is left.
    fn read_some<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], BadFile> {
        if self.record.length == 0 {
            // Empty lines, and what follows a carriage return, belong to no record.
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.pass(&bytes[..blank]);
            bytes = &bytes[blank..];
            (self.record.begin, self.record.line) = (self.at, self.line);
            if bytes.is_empty() {
                return Ok(bytes);
            }
        }
        self.parse(bytes, false)
    }

    /// The reader takes no bytes for the end of the file.
    fn parse<'a>(&mut self, mut bytes: &'a [u8], is_end: bool) -> Result<&'a [u8], BadFile> {
        loop {
            let Record { text, ends, text_length, fields, .. } = &mut self.record;
            let (result, read, written, ended) =
                self.reader.read_record(bytes, &mut text[*text_length..], &mut ends[*fields..]);
            *text_length += written;
            *fields += ended;
            self.record.length += read;
            self.pass(&bytes[..read]);
            bytes = &bytes[read..];
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return self.check_length().map(|()| bytes),
                ReadRecordResult::OutputFull => self.record.text.resize(self.record.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.record.ends.resize(self.record.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.check_length()?;
                    self.take_record()?;
                    return Ok(bytes);
                }
            }
            self.check_length()?;
            if bytes.is_empty() && !is_end {
                return Ok(bytes);
            }
        }
    }

    fn check_length(&self) -> Result<(), BadFile> {
        if self.record.length <= MAX_RECORD {
            return Ok(());
        }
        Err(BadFile(format!(
            "the row that begins on line {} has more than {MAX_RECORD} bytes; is a quote missing at a field's end?",
            self.record.line
        )))
    }

    fn take_record(&mut self) -> Result<(), BadFile> {
        let Record { text, ends, text_length, fields, line, begin, .. } = &mut self.record;
        let text = str::from_utf8(&text[..*text_length]).map_err(|error| not_utf8(text, error.valid_up_to(), *line))?;
        if self.columns.is_none() {
            self.columns = Some(names(text, &ends[..*fields])?);
        } else {
            match self.chunks.last_mut() {
                Some(cut) if cut.end - cut.begin < self.chunk_bytes => cut.end = self.at,
                _ => self.chunks.push(Cut { begin: *begin, end: self.at, first_row: self.rows, first_line: *line }),
            }
            self.rows += 1;
        }
        (*text_length, *fields, self.record.length) = (0, 0, 0);
        Ok(())
    }

    /// Goes over bytes of the file.
    fn pass(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.line += newlines(bytes);
    }
}

fn names(text: &str, ends: &[usize]) -> Result<Vec<String>, BadFile> {
    if ends.len() > Dataset::MAX_COLUMNS {
        let most = Dataset::MAX_COLUMNS;
        return Err(BadFile(format!("the first line names {} columns; there may be {most}", ends.len())));
    }
    let cells = super::rows::cells(text, ends).ok_or_else(|| not_utf8(text.as_bytes(), 0, 1))?;
    match cells.iter().find(|name| name.contains('\0')) {
        Some(_) => Err(BadFile("the name of a column has the character U+0000".to_owned())),
        None => Ok(cells),
    }
}

fn not_utf8(text: &[u8], at: usize, line: u64) -> BadFile {
    let byte = text.get(at).copied().unwrap_or_default();
    BadFile(format!(
        "the row that begins on line {line} is not in UTF-8: it has the byte 0x{byte:02X}, which is {:?} in Latin-1; if that is what it is \
         in, make it UTF-8 before: iconv --from-code=latin1 --to-code=utf-8 FILE",
        char::from(byte)
    ))
}
