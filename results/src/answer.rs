//! The forms of an answer.

use bytes::{BufMut, Bytes};
use futures::{Stream, stream::BoxStream};
use rocket::{
    Request, Response,
    http::{ContentType, Header},
    response::{Responder, stream::stream},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio_util::io::StreamReader;
use votes::{
    Found, Page, Table,
    query::{MAX_COUNT, Query, Row, Schema, Total, Value},
};

use crate::{
    question::{Format, Via},
    stores::Stores,
};

/// Rows that are read at a time for an answer without end.
pub(crate) const STREAM_ROWS: usize = 2_000;

/// Bytes of an answer that are handed to the connection at a time. Answers may have some MB, of which Rocket's own 4 KiB would make
/// hundreds of pieces.
const CHUNK: usize = 64 << 10;

/// An answer, in its form.
pub(crate) enum Answer {
    /// One JSON object.
    Json(Vec<u8>),
    /// Rows as they are read.
    Rows { format: Format, via: Via, total: Option<Total>, rows: BoxStream<'static, std::io::Result<Bytes>> },
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        match self {
            Self::Json(body) => {
                let mut response = (ContentType::JSON, body).respond_to(request)?;
                response.set_max_chunk_size(CHUNK);
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

/// The columns of an answer.
pub(crate) struct Columns {
    shown: Vec<usize>,
    labels: Vec<String>,
}

impl Columns {
    pub(crate) fn of(schema: &Schema, query: &Query) -> Self {
        let shown = query.fields.clone().unwrap_or_else(|| (0..schema.columns().len()).collect());
        Self { labels: shown.iter().map(|column| schema.label(*column)).collect(), shown }
    }

    fn cells<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let labelled = self.labels.iter().zip(&self.shown);
        labelled.filter_map(|(label, column)| Some((label.as_str(), row.cells[*column].as_ref()?)))
    }
}

/// A row as a JSON object, without what it does not have.
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

/// A page as the members of a JSON object: what is kept of an answer, without how it came to be.
pub(crate) fn members(table: &Table, schema: &Schema, query: &Query, page: &Page) -> Vec<u8> {
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
        let (total, is) = match total {
            Total::Exactly(rows) => (rows, "exact"),
            Total::AtLeast(rows) => (rows, "at_least"),
        };
        body.extend_from_slice(format!(",\"total\":{total},\"total_is\":\"{is}\"").as_bytes());
    }
    let last = page.rows.last().filter(|_| page.has_more);
    if let Some(next) = last.and_then(|last| query.cursor_after(schema, last)) {
        body.extend_from_slice(format!(",\"next\":\"{next}\"").as_bytes());
    }
    body
}

fn write_json(body: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(body, value).expect("rows have only text keys, and memory takes all");
}

/// All rows that match, page after page: only one is in memory.
pub(crate) struct Rows {
    pub(crate) stores: std::sync::Arc<Stores>,
    pub(crate) table: Table,
    pub(crate) schema: Schema,
    pub(crate) query: Query,
    pub(crate) via: Via,
    pub(crate) format: Format,
    /// The most rows.
    pub(crate) most: usize,
}

impl Rows {
    /// The rows from a first page on, which was read already.
    pub(crate) fn from(self, first: Page) -> impl Stream<Item = std::io::Result<Bytes>> {
        let columns = Columns::of(&self.schema, &self.query);
        let Self { stores, table, schema, mut query, via, format, most } = self;
        let mut left = most;
        stream! {
            let mut page = first;
            if format == Format::Csv {
                yield Ok(csv_head(&schema, &columns));
            }
            loop {
                left = left.saturating_sub(page.rows.len());
                yield Ok(lines(format, &columns, &page.rows));
                let Some(last) = page.rows.last().filter(|_| page.has_more && left > 0) else { break };
                query = query.from_after(&schema, last);
                query.count = left.min(STREAM_ROWS);
                query.with_total = false;
                // An answer that breaks off without its end is seen to be one.
                page = match stores.find(via == Via::Direct, &table, &query).await {
                    Ok(Found::Page(page)) => page,
                    Ok(Found::TooMuch(_)) => {
                        yield Err(std::io::Error::other("more rows than may be looked at"));
                        break;
                    }
                    Err(error) => {
                        yield Err(std::io::Error::other(error));
                        break;
                    }
                };
            }
        }
    }
}

/// How many rows the first page of an answer without end has.
pub(crate) fn first_count(most: Option<usize>) -> usize {
    most.unwrap_or(MAX_COUNT).min(STREAM_ROWS)
}

fn lines(format: Format, columns: &Columns, rows: &[Row]) -> Bytes {
    let mut body = Vec::with_capacity(rows.len() * 128);
    for row in rows {
        if format == Format::Csv {
            for (index, column) in columns.shown.iter().enumerate() {
                let text = row.cells[*column].as_ref().map(ToString::to_string).unwrap_or_default();
                write_cell(&mut body, index, &text);
            }
            body.extend_from_slice(b"\r\n");
        } else {
            write_json(&mut body, &Object(columns, row));
            body.put_u8(b'\n');
        }
    }
    body.into()
}

fn csv_head(schema: &Schema, columns: &Columns) -> Bytes {
    let mut body = Vec::new();
    for (index, column) in columns.shown.iter().enumerate() {
        write_cell(&mut body, index, &schema.columns()[*column].name);
    }
    body.extend_from_slice(b"\r\n");
    body.into()
}

fn write_cell(body: &mut Vec<u8>, index: usize, text: &str) {
    if index > 0 {
        body.put_u8(b',');
    }
    if text.contains([',', '"', '\r', '\n']) {
        body.put_u8(b'"');
        body.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        body.put_u8(b'"');
    } else {
        body.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_has_to_be() {
        let mut body = Vec::new();
        for (index, cell) in ["plain", "a,b", "say \"x\"", "two\nlines", ""].into_iter().enumerate() {
            write_cell(&mut body, index, cell);
        }
        assert_eq!(String::from_utf8(body).unwrap(), "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",");
    }
}
