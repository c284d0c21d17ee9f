//! The formats of a response: a page as JSON, or a stream of rows as NDJSON or CSV.

use std::{io, sync::Arc};

use bytes::{BufMut, Bytes};
use futures::{Stream, stream::BoxStream};
use query::{Found, MAX_PAGE_ROWS, Page, Query, Row, Schema, Table, Total, Value};
use rocket::{
    Request, Response,
    http::{ContentType, Header},
    response::{Responder, stream::stream},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio_util::io::StreamReader;

use super::{
    request::{Format, ReadPath},
    stores::QueryStores,
};

/// The maximum number of rows that a stream reads at a time.
pub(crate) const STREAM_ROWS: usize = 2_000;

/// The size of the chunks in which the server writes a JSON response, in bytes. With Rocket's default of 4 KiB, a
/// response of some MB would be hundreds of chunks.
const CHUNK_BYTES: usize = 64 << 10;

/// The response to a query, in its format.
pub(crate) enum QueryResponse {
    /// A page as one JSON object.
    Json(Vec<u8>),
    /// A stream of rows.
    Rows { format: Format, via: ReadPath, total: Option<Total>, rows: BoxStream<'static, io::Result<Bytes>> },
}

impl<'r> Responder<'r, 'static> for QueryResponse {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        match self {
            Self::Json(body) => {
                let mut response = (ContentType::JSON, body).respond_to(request)?;
                response.set_max_chunk_size(CHUNK_BYTES);
                Ok(response)
            }
            Self::Rows { format, via, total, rows } => {
                let content_type = match format {
                    Format::Csv => ContentType::CSV,
                    _ => ContentType::new("application", "x-ndjson"),
                };
                let mut response = Response::build();
                response.header(content_type);
                response.header(Header::new("X-Served", format!("via={}; cache=bypassed", via.as_str())));
                if let Some(total) = total {
                    let total = match total {
                        Total::Exactly(rows) => rows.to_string(),
                        Total::AtLeast(rows) => format!("{rows}+"),
                    };
                    response.header(Header::new("X-Total", total));
                }
                response.streamed_body(StreamReader::new(rows)).ok()
            }
        }
    }
}

/// The columns of a response: their indexes in the table, and their labels.
struct Columns {
    indexes: Vec<usize>,
    labels: Vec<String>,
}

impl Columns {
    fn of(schema: &Schema, query: &Query) -> Self {
        let indexes = query.fields.clone().unwrap_or_else(|| (0..schema.columns().len()).collect());
        Self { labels: indexes.iter().map(|column| schema.label(*column)).collect(), indexes }
    }

    /// Returns the labels and values of a row, without absent values.
    fn cells<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let labelled = self.labels.iter().zip(&self.indexes);
        labelled.filter_map(|(label, column)| Some((label.as_str(), row.cells[*column].as_ref()?)))
    }
}

/// A row as a JSON object, without absent values.
struct Object<'a>(&'a Columns, &'a Row);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (label, value) in self.0.cells(self.1) {
            match value {
                Value::Integer(number) => object.serialize_entry(label, number)?,
                Value::Decimal(number) => object.serialize_entry(label, number)?,
                Value::Text(text) => object.serialize_entry(label, text)?,
                other => object.serialize_entry(label, &other.to_string())?,
            }
        }
        object.end()
    }
}

/// Writes a page as the members of a JSON object, without braces. The cache stores these members. The member `served`
/// is added to each response.
pub(crate) fn write_members(table: &Table, schema: &Schema, query: &Query, page: &Page) -> Vec<u8> {
    let columns = Columns::of(schema, query);
    let mut body = Vec::with_capacity(64 + page.rows.len() * 128);
    let name = if matches!(table, Table::Votes) { "votes" } else { "rows" };
    body.extend_from_slice(format!("\"{name}\":[").as_bytes());
    for (index, row) in page.rows.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        write_json(&mut body, &Object(&columns, row));
    }
    body.put_u8(b']');
    if let Some(total) = page.total {
        let (total, precision) = match total {
            Total::Exactly(rows) => (rows, "exact"),
            Total::AtLeast(rows) => (rows, "at_least"),
        };
        body.extend_from_slice(format!(",\"total\":{total},\"total_is\":\"{precision}\"").as_bytes());
    }
    let last = page.rows.last().filter(|_| page.has_more);
    if let Some(next) = last.and_then(|last| query.cursor_after(schema, last)) {
        body.extend_from_slice(format!(",\"next\":\"{next}\"").as_bytes());
    }
    body
}

fn write_json(body: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(body, value).expect("all keys are text, and writing to memory does not fail");
}

/// Streams all matching rows, page by page. Only one page is in memory.
pub(crate) struct RowStream {
    pub(crate) stores: Arc<QueryStores>,
    pub(crate) table: Table,
    pub(crate) schema: Schema,
    pub(crate) query: Query,
    pub(crate) via: ReadPath,
    pub(crate) format: Format,
    /// The maximum number of rows.
    pub(crate) max_rows: usize,
}

impl RowStream {
    /// Starts the stream with the first page, which the caller has read.
    pub(crate) fn start(self, first: Page) -> impl Stream<Item = io::Result<Bytes>> {
        let columns = Columns::of(&self.schema, &self.query);
        let Self { stores, table, schema, mut query, via, format, max_rows } = self;
        let mut remaining = max_rows;
        stream! {
            let mut page = first;
            if format == Format::Csv {
                yield Ok(csv_header(&schema, &columns));
            }
            loop {
                remaining = remaining.saturating_sub(page.rows.len());
                yield Ok(lines(format, &columns, &page.rows));
                let Some(last) = page.rows.last().filter(|_| page.has_more && remaining > 0) else { break };
                query = query.page_after(&schema, last);
                query.count = remaining.min(STREAM_ROWS);
                query.with_total = false;
                // An error ends the response without the end mark of HTTP, so the client can detect that rows are
                // missing.
                page = match stores.find(via == ReadPath::Direct, &table, &query).await {
                    Ok(Found::Page(page)) => page,
                    Ok(Found::TooManyRows(_)) => {
                        yield Err(io::Error::other("the query would examine too many rows"));
                        break;
                    }
                    Err(error) => {
                        yield Err(io::Error::other(error));
                        break;
                    }
                };
            }
        }
    }
}

/// Returns the number of rows on the first page of a stream.
pub(crate) fn first_count(limit: Option<usize>) -> usize {
    limit.unwrap_or(MAX_PAGE_ROWS).min(STREAM_ROWS)
}

fn lines(format: Format, columns: &Columns, rows: &[Row]) -> Bytes {
    if format == Format::Csv {
        let cell = |cell: &Option<Value>| cell.as_ref().map(ToString::to_string).unwrap_or_default();
        return csv(rows.iter().map(|row| columns.indexes.iter().map(move |column| cell(&row.cells[*column]))));
    }
    let mut body = Vec::with_capacity(rows.len() * 128);
    for row in rows {
        write_json(&mut body, &Object(columns, row));
        body.put_u8(b'\n');
    }
    body.into()
}

fn csv_header(schema: &Schema, columns: &Columns) -> Bytes {
    csv([columns.indexes.iter().map(|column| &schema.columns()[*column].name)])
}

/// Writes records as comma-separated values (RFC 4180).
fn csv<C: AsRef<[u8]>>(records: impl IntoIterator<Item = impl IntoIterator<Item = C>>) -> Bytes {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for record in records {
        writer
            .write_record(record)
            .expect("all records have the same number of cells, and writing to memory does not fail");
    }
    writer.into_inner().expect("writing to memory does not fail").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const N: usize, const M: usize>(records: [[&str; N]; M]) -> String {
        String::from_utf8(csv(records).to_vec()).unwrap()
    }

    #[test]
    fn cells_with_special_characters_are_quoted() {
        let cells = ["plain", "a,b", "say \"x\"", "two\nlines", "", " # "];
        assert_eq!(text([cells]), "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",, # \r\n");
        assert_eq!(text([["a\rb", ""], ["", "c"]]), "\"a\rb\",\r\n,c\r\n");
    }

    #[test]
    fn a_row_with_one_empty_cell_is_not_an_empty_line() {
        assert_eq!(text([["note"], [""], ["x"]]), "note\r\n\"\"\r\nx\r\n");
    }
}
