//! People's questions, of votes in `count.db` and of datasets in `datasets.db`.
//!
//! Statements are put together from the plan's slots alone, which are numbers; every value is bound.

use std::{fmt::Write, sync::Arc};

use async_trait::async_trait;
use rusqlite::{Connection, Row as SqlRow, params_from_iter, types::Value as SqlValue};
use uuid::Uuid;
use votes::{
    Archive, Dataset, Facts, Found, Page, Store, StoreError, Table, UnixMillis, VoterHash,
    query::{Direction, Filter, Index, Kind, MAX_TOTAL, Plan, Query, Row, Schema, Slot, Total, Value, Votes},
};

use super::database::Readers;

/// A question may look at so many rows. `SQLite` has them on this machine's disk, and looks at a million in about a second.
const MOST_ROWS: usize = 1_000_000;

/// A vote's columns as the file has them.
const VOTE_COLUMNS: [&str; 11] =
    ["vote_id", "contest", "name", "album", "year", "rank", "voter", "accepted_at", "door", "partition", "\"offset\""];

pub(super) struct EmbeddedArchive {
    votes: Arc<Readers>,
    datasets: Arc<Readers>,
    is_direct: bool,
    most_rows: usize,
}

impl EmbeddedArchive {
    /// Reads on connections that are kept, or with `is_direct` on one of its own for each question.
    pub(super) fn new(votes: Arc<Readers>, datasets: Arc<Readers>, is_direct: bool) -> Self {
        Self { votes, datasets, is_direct, most_rows: MOST_ROWS }
    }

    /// As [`new`](Self::new), where a question may look at so many rows.
    #[cfg(test)]
    pub(super) fn bounded_to(most_rows: usize, votes: Arc<Readers>, datasets: Arc<Readers>) -> Self {
        Self { votes, datasets, is_direct: false, most_rows }
    }
}

#[async_trait]
impl Store for EmbeddedArchive {
    async fn check(&self) -> Result<Facts, StoreError> {
        for readers in [&self.votes, &self.datasets] {
            readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await?;
        }
        Ok(Facts::new())
    }
}

#[async_trait]
impl Archive for EmbeddedArchive {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let (readers, rows) = match table {
            Table::Votes => (&self.votes, Rows::votes(self.most_rows)),
            Table::Dataset(dataset) => (&self.datasets, Rows::dataset(dataset, self.most_rows)),
        };
        let query = query.clone();
        let answer = move |db: &Connection| rows.find(db, &query);
        if self.is_direct { readers.read_directly(answer).await } else { readers.read(answer).await }
    }
}

/// A table of a file.
struct Rows {
    schema: Schema,
    table: String,
    indexes: Vec<Index>,
    /// A question may look at so many.
    most: usize,
}

impl Rows {
    fn votes(most: usize) -> Self {
        // The table itself is in the order of places.
        let indexes = vec![Plan::newest(&[Votes::CONTEST]), Plan::place()];
        Self { schema: Schema::votes(), table: "votes".to_owned(), indexes, most }
    }

    fn dataset(dataset: &Dataset, most: usize) -> Self {
        Self {
            schema: Schema::dataset(&dataset.columns),
            table: rows_table(dataset.generation),
            indexes: Plan::dataset_indexes(dataset.indexed()),
            most,
        }
    }

    fn column(&self, slot: Slot) -> String {
        match slot {
            Slot::Column(column) if self.schema.is_votes() => VOTE_COLUMNS[column].to_owned(),
            slot => dataset_column(slot),
        }
    }

    fn find(&self, db: &Connection, query: &Query) -> rusqlite::Result<Found> {
        let plan = Plan::of(query, &self.schema, &self.indexes);
        if !query.allow_scan && !plan.is_walk && self.count(db, &plan.narrowed, self.most + 1)? > self.most {
            return Ok(Found::TooMuch(self.most));
        }
        let mut rows = self.read(db, &plan, query)?;
        let has_more = rows.len() > query.count;
        rows.truncate(query.count);
        let is_all = query.after.is_none() && !has_more && (query.skip == 0 || !rows.is_empty());
        let total = match query.with_total {
            false => None,
            true if is_all => Some(Total::Exactly(query.skip + rows.len())),
            true => Some(Total::counted(self.count(db, &plan.filters, MAX_TOTAL + 1)?)),
        };
        Ok(Found::Page(Page { rows, total, has_more }))
    }

    /// One row more than the page has, if there is one.
    fn read(&self, db: &Connection, plan: &Plan, query: &Query) -> rusqlite::Result<Vec<Row>> {
        let mut statement = Statement::new(self);
        statement.sql.push_str("SELECT ");
        let number = if self.schema.is_votes() { "0" } else { "row" };
        statement.sql.push_str(number);
        for column in &plan.columns {
            let _ = write!(statement.sql, ", {}", self.column(Slot::Column(*column)));
        }
        let _ = write!(statement.sql, " FROM {}", self.table);
        statement.filter(plan.filters.iter().chain(&plan.after));
        statement.sql.push_str(" ORDER BY ");
        for (index, (slot, direction)) in plan.order.iter().enumerate() {
            let direction = if *direction == Direction::Ascending { "ASC" } else { "DESC" };
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(statement.sql, "{comma}{} {direction}", self.column(*slot));
        }
        statement.sql.push_str(" LIMIT ");
        statement.bind(number_value(query.count + 1));
        statement.sql.push_str(" OFFSET ");
        statement.bind(number_value(query.skip));
        let Statement { sql, values, .. } = statement;
        let read = |row: &SqlRow<'_>| {
            let mut cells = vec![None; self.schema.columns().len()];
            for (index, column) in plan.columns.iter().enumerate() {
                cells[*column] = read_value(row, index + 1, self.schema.columns()[*column].kind)?;
            }
            Ok(Row { number: row.get(0)?, cells })
        };
        db.prepare(&sql)?.query_map(params_from_iter(values), read)?.collect()
    }

    /// How many rows these filters leave, counted up to `most`.
    fn count(&self, db: &Connection, filters: &[Filter], most: usize) -> rusqlite::Result<usize> {
        let mut statement = Statement::new(self);
        let _ = write!(statement.sql, "SELECT count(*) FROM (SELECT 1 FROM {}", self.table);
        statement.filter(filters);
        statement.sql.push_str(" LIMIT ");
        statement.bind(number_value(most));
        statement.sql.push(')');
        db.query_row(&statement.sql, params_from_iter(statement.values), |row| row.get(0))
    }
}

/// The table with a dataset's rows.
pub(super) fn rows_table(generation: u64) -> String {
    format!("rows_{generation}")
}

/// The column of a dataset's table: texts are `c1`, `c2` and so on, the numbers that they look like `n1`, `n2` and so on.
pub(super) fn dataset_column(slot: Slot) -> String {
    match slot {
        Slot::Column(column) => format!("c{}", column + 1),
        Slot::Number(column) => format!("n{}", column + 1),
        Slot::Row => "row".to_owned(),
    }
}

/// A statement and its values.
struct Statement<'a> {
    rows: &'a Rows,
    sql: String,
    values: Vec<SqlValue>,
}

impl<'a> Statement<'a> {
    fn new(rows: &'a Rows) -> Self {
        Self { rows, sql: String::new(), values: Vec::new() }
    }

    fn bind(&mut self, value: SqlValue) {
        self.values.push(value);
        let _ = write!(self.sql, "?{}", self.values.len());
    }

    fn filter<'f>(&mut self, filters: impl IntoIterator<Item = &'f Filter>) {
        for (index, filter) in filters.into_iter().enumerate() {
            self.sql.push_str(if index == 0 { " WHERE " } else { " AND " });
            self.add(filter);
        }
    }

    fn add(&mut self, filter: &Filter) {
        match filter {
            Filter::All(filters) => self.join(filters, " AND ", "1"),
            Filter::Any(filters) => self.join(filters, " OR ", "0"),
            Filter::Is(slot, values) => {
                let _ = write!(self.sql, "{} IN (", self.rows.column(*slot));
                for (index, value) in values.iter().enumerate() {
                    self.sql.push_str(if index == 0 { "" } else { ", " });
                    self.bind(sql_value(value));
                }
                self.sql.push(')');
            }
            Filter::IsNot(slot, value) => self.compare(*slot, "IS NOT", sql_value(value)),
            Filter::Below(slot, value, false) => self.compare(*slot, "<", sql_value(value)),
            Filter::Below(slot, value, true) => self.compare(*slot, "<=", sql_value(value)),
            Filter::Above(slot, value, false) => self.compare(*slot, ">", sql_value(value)),
            Filter::Above(slot, value, true) => self.compare(*slot, ">=", sql_value(value)),
            Filter::Like(slot, pattern) => self.compare(*slot, "GLOB", SqlValue::Text(pattern.glob())),
            Filter::Present(slot) => _ = write!(self.sql, "{} IS NOT NULL", self.rows.column(*slot)),
            Filter::Absent(slot) => _ = write!(self.sql, "{} IS NULL", self.rows.column(*slot)),
        }
    }

    fn compare(&mut self, slot: Slot, operator: &str, value: SqlValue) {
        let _ = write!(self.sql, "{} {operator} ", self.rows.column(slot));
        self.bind(value);
    }

    fn join(&mut self, filters: &[Filter], word: &str, nothing: &str) {
        self.sql.push('(');
        if filters.is_empty() {
            self.sql.push_str(nothing);
        }
        for (index, filter) in filters.iter().enumerate() {
            self.sql.push_str(if index == 0 { "" } else { word });
            self.add(filter);
        }
        self.sql.push(')');
    }
}

fn number_value(number: usize) -> SqlValue {
    SqlValue::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Text(text) => SqlValue::Text(text.clone()),
        Value::Integer(number) => SqlValue::Integer(*number),
        Value::Decimal(number) => SqlValue::Real(*number),
        Value::Time(time) => SqlValue::Integer(time.0),
        Value::Uuid(id) => SqlValue::Blob(id.as_bytes().to_vec()),
        Value::Hash(hash) => SqlValue::Blob(hash.0.to_vec()),
    }
}

fn read_value(row: &SqlRow<'_>, index: usize, kind: Kind) -> rusqlite::Result<Option<Value>> {
    Ok(match kind {
        Kind::Text | Kind::Cell => row.get::<_, Option<String>>(index)?.map(Value::Text),
        Kind::Integer => row.get::<_, Option<i64>>(index)?.map(Value::Integer),
        Kind::Decimal => row.get::<_, Option<f64>>(index)?.map(Value::Decimal),
        Kind::Time => row.get::<_, Option<i64>>(index)?.map(|millis| Value::Time(UnixMillis(millis))),
        Kind::Uuid => row.get::<_, Option<[u8; 16]>>(index)?.map(|bytes| Value::Uuid(Uuid::from_bytes(bytes))),
        Kind::Hash => row.get::<_, Option<[u8; 32]>>(index)?.map(|bytes| Value::Hash(VoterHash(bytes))),
    })
}

#[cfg(test)]
mod tests {
    use votes::{Book, Datasets};

    use super::*;
    use crate::embedded::{Archives, Embedded};

    #[expect(clippy::unused_async, reason = "as the suite opens stores")]
    async fn open() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, impl Sized) {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(&folder.path().join("data"), 100).unwrap();
        let Archives { count, datasets, .. } = embedded.archives.clone().unwrap();
        let archive = EmbeddedArchive::bounded_to(100, count, datasets);
        (Arc::clone(&embedded.book), embedded.datasets().unwrap(), Arc::new(archive), (embedded, folder))
    }

    votes::archive_conformance!(open: questions_that_look_at_more_than_a_hundred_rows_are_refused);
}
