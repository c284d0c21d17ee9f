//! This module splits a file into chunks during the upload.

use csv_core::{ReadRecordResult, Reader};
use sha2::{Digest, Sha256};

use super::{
    chunk::{Chunk, Contents, ImportId, count_newlines},
    rows::split_fields,
};
use crate::dataset::Dataset;

/// The default size of a chunk, in bytes. A chunk ends with the record that reaches this size.
const CHUNK_BYTES: u64 = 2 << 20;

/// The longest record, in bytes.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// The byte order mark of UTF-8, which some programs write at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why a file can't be imported, and how to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(String);

/// Reads a file piece by piece. The splitter has only the current record and the ranges of the chunks in memory.
pub struct Splitter {
    reader: Reader,
    record: Record,
    digest: Sha256,
    /// The position of the next byte in the file.
    at: u64,
    /// The line of the next byte, counted from 1.
    line: u64,
    /// How many bytes of the byte order mark were read. At the first byte that is no part of the mark, this becomes the length
    /// of the mark, even if the file has no mark.
    mark_length: usize,
    columns: Option<Vec<String>>,
    rows: u64,
    chunk_bytes: u64,
    chunks: Vec<ChunkRange>,
}

/// The range of a chunk.
struct ChunkRange {
    begin: u64,
    end: u64,
    first_row: u64,
    first_line: u64,
}

/// The record that is being read: the text of its fields, and the ends of the fields in this text.
struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    text_length: usize,
    fields: usize,
    /// The number of bytes of the file that belong to the record so far.
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
    /// Creates a splitter. A chunk ends with the record that reaches this number of bytes.
    pub fn with_chunks_of(bytes: u64) -> Self {
        let record =
            Record { text: vec![0; 4_096], ends: vec![0; 64], text_length: 0, fields: 0, length: 0, begin: 0, line: 1 };
        Self {
            reader: Reader::new(),
            record,
            digest: Sha256::new(),
            at: 0,
            line: 1,
            mark_length: 0,
            columns: None,
            rows: 0,
            chunk_bytes: bytes,
            chunks: Vec::new(),
        }
    }

    /// Reads the next bytes of the file.
    ///
    /// # Errors
    /// If the file can't be imported.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), BadFile> {
        self.digest.update(bytes);
        while self.mark_length < BYTE_ORDER_MARK.len() && bytes.first() == BYTE_ORDER_MARK.get(self.mark_length) {
            self.mark_length += 1;
            self.advance(&bytes[..1]);
            bytes = &bytes[1..];
        }
        if !bytes.is_empty() {
            self.mark_length = BYTE_ORDER_MARK.len();
        }
        while !bytes.is_empty() {
            bytes = self.read_some(bytes)?;
        }
        Ok(())
    }

    /// Call this at the end of the file. Returns the description of the file (digest, size, columns, number of rows) and
    /// its chunks.
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read).
    pub fn finish(mut self, import: ImportId) -> Result<(Contents, Vec<Chunk>), BadFile> {
        // The last record may have no line end.
        self.parse(&[], true)?;
        let columns = self.columns.ok_or_else(|| {
            BadFile("the file is empty; it needs a header line with the names of the columns, and then rows".to_owned())
        })?;
        let numbered = (0_u32..).zip(self.chunks);
        let chunks: Vec<Chunk> = numbered
            .map(|(number, ChunkRange { begin, end, first_row, first_line })| Chunk {
                import,
                number,
                bytes: begin..end,
                first_row,
                first_line,
            })
            .collect();
        let digest = hex::encode(self.digest.finalize());
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        Ok((Contents { digest, bytes: self.at, columns, rows: self.rows, chunks: count }, chunks))
    }

    /// Reads up to the end of a record, or all bytes. Returns the unread bytes.
    fn read_some<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], BadFile> {
        if self.record.length == 0 {
            // Empty lines, and the newline after a carriage return, belong to no record.
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.advance(&bytes[..blank]);
            bytes = &bytes[blank..];
            (self.record.begin, self.record.line) = (self.at, self.line);
            if bytes.is_empty() {
                return Ok(bytes);
            }
        }
        self.parse(bytes, false)
    }

    /// Reads up to the end of a record. For the CSV reader, an empty slice is the end of the file, so the caller passes
    /// empty `bytes` only at the end.
    fn parse<'a>(&mut self, mut bytes: &'a [u8], is_end: bool) -> Result<&'a [u8], BadFile> {
        loop {
            let Record { text, ends, text_length, fields, .. } = &mut self.record;
            let (result, read, written, new_fields) =
                self.reader.read_record(bytes, &mut text[*text_length..], &mut ends[*fields..]);
            *text_length += written;
            *fields += new_fields;
            self.record.length += read;
            self.advance(&bytes[..read]);
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
        if self.record.length <= MAX_RECORD_BYTES {
            return Ok(());
        }
        Err(BadFile(format!(
            "the row that begins on line {} has more than {MAX_RECORD_BYTES} bytes; is a quote missing at the end of a field?",
            self.record.line
        )))
    }

    /// Takes the complete record, and begins the next one. The first record has the names of the columns; each later one is
    /// added to a chunk.
    fn take_record(&mut self) -> Result<(), BadFile> {
        let Record { text, ends, text_length, fields, line, begin, .. } = &mut self.record;
        let text = str::from_utf8(&text[..*text_length]).map_err(|error| not_utf8(text, error.valid_up_to(), *line))?;
        if self.columns.is_none() {
            self.columns = Some(read_column_names(text, &ends[..*fields])?);
        } else {
            match self.chunks.last_mut() {
                Some(range) if range.end - range.begin < self.chunk_bytes => range.end = self.at,
                _ => self.chunks.push(ChunkRange {
                    begin: *begin,
                    end: self.at,
                    first_row: self.rows,
                    first_line: *line,
                }),
            }
            self.rows += 1;
        }
        (*text_length, *fields, self.record.length) = (0, 0, 0);
        Ok(())
    }

    /// Advances the position in the file past these bytes.
    fn advance(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.line += count_newlines(bytes);
    }
}

fn read_column_names(text: &str, ends: &[usize]) -> Result<Vec<String>, BadFile> {
    if ends.len() > Dataset::MAX_COLUMNS {
        let max = Dataset::MAX_COLUMNS;
        return Err(BadFile(format!("the header line has {} columns; at most {max} are allowed", ends.len())));
    }
    let names = split_fields(text, ends).ok_or_else(|| not_utf8(text.as_bytes(), 0, 1))?;
    match names.iter().find(|name| name.contains('\0')) {
        Some(_) => Err(BadFile("the name of a column has the character U+0000".to_owned())),
        None => Ok(names),
    }
}

fn not_utf8(text: &[u8], at: usize, line: u64) -> BadFile {
    let byte = text.get(at).copied().unwrap_or_default();
    BadFile(format!(
        "the row that begins on line {line} is not in UTF-8: it has the byte 0x{byte:02X}, which is {:?} in Latin-1; if the file is in \
         Latin-1, convert it first: iconv --from-code=latin1 --to-code=utf-8 FILE",
        char::from(byte)
    ))
}
