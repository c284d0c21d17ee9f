//! The port `QueryStore`: queries about votes in `count.db` and about datasets in `datasets.db`.
//!
//! The column names in a statement come from the slots of the plan, which are numbers, never from the text of a query.
//! Every value of a query is bound.

use std::{fmt::Write, sync::Arc};

use async_trait::async_trait;
use query::{
    Dataset, Direction, Filter, Found, Index, Kind, MAX_EXACT_TOTAL, Page, Plan, Query, QueryStore, Row, Schema,
    StoredField, Table, Total, Value, Votes,
};
use rusqlite::{Connection, Row as SqlRow, params_from_iter, types::Value as SqlValue};
use uuid::Uuid;
use votes::{HealthDetails, Store, StoreError, UnixMillis, VoterHash};

use crate::database::Readers;

/// The maximum number of rows that a query may scan. `SQLite` scans a million rows on a local disk in about a second.
const MAX_SCANNED_ROWS: usize = 1_000_000;

/// The columns of the table `votes`, in the order of [`Schema::votes`].
const VOTE_COLUMNS: [&str; 11] = [
    "vote_id",
    "contest",
    "name",
    "album",
    "year",
    "rank",
    "voter",
    "accepted_at",
    "producer",
    "partition",
    "\"offset\"",
];

pub(super) struct EmbeddedQueryStore {
    votes: Arc<Readers>,
    datasets: Arc<Readers>,
    is_direct: bool,
    max_scanned_rows: usize,
}

impl EmbeddedQueryStore {
    /// Creates a query store. With `is_direct` the store opens a new connection for each query, otherwise it uses a
    /// pool of connections.
    pub(super) fn new(votes: Arc<Readers>, datasets: Arc<Readers>, is_direct: bool) -> Self {
        Self { votes, datasets, is_direct, max_scanned_rows: MAX_SCANNED_ROWS }
    }

    /// Does the same as [`new`](Self::new), with another maximum of scanned rows.
    #[cfg(test)]
    pub(super) fn with_max_scanned_rows(max_scanned_rows: usize, votes: Arc<Readers>, datasets: Arc<Readers>) -> Self {
        Self { votes, datasets, is_direct: false, max_scanned_rows }
    }
}

#[async_trait]
impl Store for EmbeddedQueryStore {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        for readers in [&self.votes, &self.datasets] {
            readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await?;
        }
        Ok(HealthDetails::new())
    }
}

#[async_trait]
impl QueryStore for EmbeddedQueryStore {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let (readers, reader) = match table {
            Table::Votes => (&self.votes, TableReader::votes(self.max_scanned_rows)),
            Table::Dataset(dataset) => (&self.datasets, TableReader::dataset(dataset, self.max_scanned_rows)),
        };
        let query = query.clone();
        let find = move |db: &Connection| reader.find(db, &query);
        if self.is_direct { readers.read_directly(find).await } else { readers.read(find).await }
    }
}

/// Reads a table of votes or rows.
struct TableReader {
    schema: Schema,
    table: String,
    indexes: Vec<Index>,
    /// The maximum number of rows that a query may scan.
    max_scanned: usize,
}

impl TableReader {
    fn votes(max_scanned: usize) -> Self {
        // The table itself is ordered by position.
        let indexes = vec![Plan::newest_index(&[Votes::CONTEST]), Plan::position_index()];
        Self { schema: Schema::votes(), table: "votes".to_owned(), indexes, max_scanned }
    }

    fn dataset(dataset: &Dataset, max_scanned: usize) -> Self {
        Self {
            schema: Schema::dataset(&dataset.columns),
            table: rows_table(dataset.generation),
            indexes: Plan::dataset_indexes(dataset.indexed()),
            max_scanned,
        }
    }

    fn column(&self, slot: StoredField) -> String {
        match slot {
            StoredField::Column(column) if self.schema.is_votes() => VOTE_COLUMNS[column].to_owned(),
            slot => dataset_column(slot),
        }
    }

    fn find(&self, db: &Connection, query: &Query) -> rusqlite::Result<Found> {
        let plan = Plan::of(query, &self.schema, &self.indexes);
        if !query.allow_scan
            && !plan.is_index_order
            && self.count(db, &plan.index_filters, self.max_scanned + 1)? > self.max_scanned
        {
            return Ok(Found::TooManyRows(self.max_scanned));
        }
        let mut rows = self.read(db, &plan, query)?;
        let has_more = rows.len() > query.count;
        rows.truncate(query.count);
        let is_all = query.after.is_none() && !has_more && (query.skip == 0 || !rows.is_empty());
        let total = match query.with_total {
            false => None,
            true if is_all => Some(Total::Exactly(query.skip + rows.len())),
            true => Some(Total::counted(self.count(db, &plan.filters, MAX_EXACT_TOTAL + 1)?)),
        };
        Ok(Found::Page(Page { rows, total, has_more }))
    }

    /// Reads the rows of the page, and one further row if there is one.
    fn read(&self, db: &Connection, plan: &Plan, query: &Query) -> rusqlite::Result<Vec<Row>> {
        let mut statement = Statement::new(self);
        statement.sql.push_str("SELECT ");
        let number = if self.schema.is_votes() { "0" } else { "row" };
        statement.sql.push_str(number);
        for column in &plan.columns {
            let _ = write!(statement.sql, ", {}", self.column(StoredField::Column(*column)));
        }
        let _ = write!(statement.sql, " FROM {}", self.table);
        statement.add_where(plan.filters.iter().chain(&plan.page_filters));
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

    /// Counts the rows that match the filters, up to `max`.
    fn count(&self, db: &Connection, filters: &[Filter], max: usize) -> rusqlite::Result<usize> {
        let mut statement = Statement::new(self);
        let _ = write!(statement.sql, "SELECT count(*) FROM (SELECT 1 FROM {}", self.table);
        statement.add_where(filters);
        statement.sql.push_str(" LIMIT ");
        statement.bind(number_value(max));
        statement.sql.push(')');
        db.query_row(&statement.sql, params_from_iter(statement.values), |row| row.get(0))
    }
}

/// Returns the table with the rows of a dataset.
pub(super) fn rows_table(generation: u64) -> String {
    format!("rows_{generation}")
}

/// Returns the column in the table of a dataset: `c1`, `c2`, ... for the text of each column, and `n1`, `n2`, ... for
/// the number that the text represents, if it does.
pub(super) fn dataset_column(slot: StoredField) -> String {
    match slot {
        StoredField::Column(column) => format!("c{}", column + 1),
        StoredField::Number(column) => format!("n{}", column + 1),
        StoredField::Row => "row".to_owned(),
    }
}

/// A statement and its bound values.
struct Statement<'a> {
    reader: &'a TableReader,
    sql: String,
    values: Vec<SqlValue>,
}

impl<'a> Statement<'a> {
    fn new(reader: &'a TableReader) -> Self {
        Self { reader, sql: String::new(), values: Vec::new() }
    }

    /// Adds a placeholder for a value.
    fn bind(&mut self, value: SqlValue) {
        self.values.push(value);
        let _ = write!(self.sql, "?{}", self.values.len());
    }

    fn add_where<'f>(&mut self, filters: impl IntoIterator<Item = &'f Filter>) {
        for (index, filter) in filters.into_iter().enumerate() {
            self.sql.push_str(if index == 0 { " WHERE " } else { " AND " });
            self.add_filter(filter);
        }
    }

    fn add_filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(filters) => self.add_joined(filters, " AND ", "1"),
            Filter::Any(filters) => self.add_joined(filters, " OR ", "0"),
            Filter::OneOf(slot, values) => {
                let _ = write!(self.sql, "{} IN (", self.reader.column(*slot));
                for (index, value) in values.iter().enumerate() {
                    self.sql.push_str(if index == 0 { "" } else { ", " });
                    self.bind(sql_value(value));
                }
                self.sql.push(')');
            }
            Filter::NotEqual(slot, value) => self.compare(*slot, "IS NOT", sql_value(value)),
            Filter::Below(slot, value, false) => self.compare(*slot, "<", sql_value(value)),
            Filter::Below(slot, value, true) => self.compare(*slot, "<=", sql_value(value)),
            Filter::Above(slot, value, false) => self.compare(*slot, ">", sql_value(value)),
            Filter::Above(slot, value, true) => self.compare(*slot, ">=", sql_value(value)),
            Filter::Like(slot, pattern) => self.compare(*slot, "GLOB", SqlValue::Text(pattern.glob())),
            Filter::Present(slot) => _ = write!(self.sql, "{} IS NOT NULL", self.reader.column(*slot)),
            Filter::Absent(slot) => _ = write!(self.sql, "{} IS NULL", self.reader.column(*slot)),
        }
    }

    fn compare(&mut self, slot: StoredField, operator: &str, value: SqlValue) {
        let _ = write!(self.sql, "{} {operator} ", self.reader.column(slot));
        self.bind(value);
    }

    /// Adds filters with an operator between them, or `if_empty` if there are none.
    fn add_joined(&mut self, filters: &[Filter], operator: &str, if_empty: &str) {
        self.sql.push('(');
        if filters.is_empty() {
            self.sql.push_str(if_empty);
        }
        for (index, filter) in filters.iter().enumerate() {
            self.sql.push_str(if index == 0 { "" } else { operator });
            self.add_filter(filter);
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
    use query::Datasets;
    use votes::Ledger;

    use super::*;
    use crate::{Embedded, OwnerStores};

    #[expect(clippy::unused_async, reason = "the conformance suite awaits it")]
    async fn open() -> (Arc<dyn Ledger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, impl Sized) {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(&folder.path().join("data"), 100, metrics::Gauge::noop()).unwrap();
        let OwnerStores { count, datasets, .. } = embedded.owner_stores.clone().unwrap();
        let query_store = EmbeddedQueryStore::with_max_scanned_rows(100, count, datasets);
        (embedded.ledger.clone(), embedded.datasets().unwrap(), Arc::new(query_store), (embedded, folder))
    }

    query::query_store_conformance!(open: queries_that_examine_more_than_a_hundred_rows_are_refused);
}
