//! The port `QueryStore`: queries about the ledger's votes and about datasets.
//!
//! A query becomes a filter. The field names of the filter come from the slots of the plan, never from the text of a
//! query. The values of the query become BSON values: a text that looks like an operator stays a text.

use std::time::Duration;

use async_trait::async_trait;
use mongodb::{
    Client, Collection, Database,
    bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
};
use query::{
    Dataset, Direction, Filter, Found, Index, Kind, MAX_EXACT_TOTAL, Page, Plan, Query, QueryStore, Row, Schema,
    StoredField, Table, Total, VOTE_COLUMNS, Value, Votes,
};
use uuid::Uuid;
use votes::{HealthDetails, Store, StoreError, UnixMillis};

use crate::{
    call::{error_text, with_timeout},
    databases::{Databases, Server},
};

/// The name of the port in errors.
const STORE: &str = "query store";

/// The maximum number of rows that a query may scan.
const MAX_SCANNED_ROWS: usize = 100_000;

/// The longest time that a server may take to count or to find the rows of a query. It is shorter than
/// [`MONGO_OPERATION_TIMEOUT`](crate::call::MONGO_OPERATION_TIMEOUT), so that the server stops before the caller does.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of rows in a reply. In any case a reply has at most 16 MB.
const MAX_REPLY_ROWS: u32 = 10_000;

/// A query store on the connection pool of one client.
pub struct MongoQueryStore {
    databases: Databases,
    max_scanned_rows: usize,
}

impl MongoQueryStore {
    /// Creates a query store on these databases.
    pub fn new(databases: Databases) -> Self {
        Self { databases, max_scanned_rows: MAX_SCANNED_ROWS }
    }

    /// Does the same as [`new`](Self::new), with another maximum of scanned rows.
    #[cfg(all(test, feature = "servers"))]
    pub(super) fn with_max_scanned_rows(max_scanned_rows: usize, databases: Databases) -> Self {
        Self { databases, max_scanned_rows }
    }
}

#[async_trait]
impl Store for MongoQueryStore {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        with_timeout(STORE, async {
            self.databases.ledger.run_command(doc! { "ping": 1 }).await.map_err(|error| failed(error_text(&error)))?;
            Ok(HealthDetails::new())
        })
        .await
    }
}

#[async_trait]
impl QueryStore for MongoQueryStore {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        with_timeout(STORE, TableReader::of(&self.databases, table, self.max_scanned_rows).find(query)).await
    }
}

/// A query store that creates a client with new connections for each query, and closes them afterwards.
pub struct DirectQueryStore(Server);

impl DirectQueryStore {
    /// Creates a query store on a server. Does not connect yet.
    pub fn new(server: Server) -> Self {
        Self(server)
    }

    fn connect(&self) -> Result<(Client, MongoQueryStore), StoreError> {
        let client = self.0.client().map_err(|error| failed(error_text(&error)))?;
        let query_store = MongoQueryStore::new(self.0.databases(&client));
        Ok((client, query_store))
    }
}

#[async_trait]
impl Store for DirectQueryStore {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let (client, query_store) = self.connect()?;
        let checked = query_store.check().await;
        client.shutdown().immediate(true).await;
        checked
    }
}

#[async_trait]
impl QueryStore for DirectQueryStore {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let (client, query_store) = self.connect()?;
        let found = query_store.find(table, query).await;
        client.shutdown().immediate(true).await;
        found
    }
}

/// Returns whether the query finds votes by their position on the log.
fn is_by_position(index_filters: &[Filter]) -> bool {
    index_filters.iter().any(|filter| matches!(filter, Filter::OneOf(StoredField::Column(Votes::PARTITION), _)))
}

/// Returns the collection with the rows of a dataset.
pub(super) fn rows_of(datasets: &Database, dataset: &Dataset) -> Collection<RawDocumentBuf> {
    datasets.collection(dataset.id.as_str())
}

/// Returns the field in the document of a row: `c1`, `c2`, ... for the text of each column, and `n1`, `n2`, ... for the
/// number that the text represents, if it does.
pub(super) fn dataset_field(slot: StoredField) -> String {
    match slot {
        StoredField::Column(column) => format!("c{}", column + 1),
        StoredField::Number(column) => format!("n{}", column + 1),
        StoredField::Row => "_id".to_owned(),
    }
}

/// Reads a collection of votes or rows.
struct TableReader {
    schema: Schema,
    collection: Collection<RawDocumentBuf>,
    indexes: Vec<Index>,
    /// The maximum number of rows that a query may scan.
    max_scanned: usize,
}

impl TableReader {
    fn of(databases: &Databases, table: &Table, max_scanned: usize) -> Self {
        match table {
            Table::Votes => Self {
                schema: Schema::votes(),
                collection: databases.ledger.collection("votes"),
                indexes: vec![
                    Plan::newest_index(&[Votes::CONTEST]),
                    Plan::newest_index(&[Votes::CONTEST, Votes::NAME]),
                    Plan::position_index(),
                ],
                max_scanned,
            },
            Table::Dataset(dataset) => Self {
                schema: Schema::dataset(&dataset.columns),
                collection: rows_of(&databases.datasets, dataset),
                indexes: Plan::dataset_indexes(dataset.indexed()),
                max_scanned,
            },
        }
    }

    async fn find(&self, query: &Query) -> Result<Found, StoreError> {
        let plan = Plan::of(query, &self.schema, &self.indexes);
        if !query.allow_scan && !plan.is_index_order && self.scans_too_many(&plan).await? {
            return Ok(Found::TooManyRows(self.max_scanned));
        }
        let mut rows = self.read(&plan, query).await?;
        let has_more = rows.len() > query.count;
        rows.truncate(query.count);
        let is_all = query.after.is_none() && !has_more && (query.skip == 0 || !rows.is_empty());
        let total = match query.with_total {
            false => None,
            true if is_all => Some(Total::Exactly(query.skip + rows.len())),
            true => Some(Total::counted(self.count(&plan.filters, MAX_EXACT_TOTAL + 1).await?)),
        };
        Ok(Found::Page(Page { rows, total, has_more }))
    }

    /// Returns whether the query would scan more than `max_scanned` rows.
    async fn scans_too_many(&self, plan: &Plan) -> Result<bool, StoreError> {
        if !plan.index_filters.is_empty() {
            return Ok(self.count(&plan.index_filters, self.max_scanned + 1).await? > self.max_scanned);
        }
        let documents = self.collection.estimated_document_count().await.map_err(driver_error)?;
        Ok(usize::try_from(documents).unwrap_or(usize::MAX) > self.max_scanned)
    }

    /// Counts the documents that match the filters, up to `max`.
    async fn count(&self, filters: &[Filter], max: usize) -> Result<usize, StoreError> {
        let count = self.collection.count_documents(self.filter(filters)).limit(max as u64).max_time(QUERY_TIMEOUT);
        Ok(usize::try_from(count.await.map_err(driver_error)?).unwrap_or(usize::MAX))
    }

    /// Reads the rows of the page, and one further row if there is one.
    async fn read(&self, plan: &Plan, query: &Query) -> Result<Vec<Row>, StoreError> {
        let mut filter = self.filter(plan.filters.iter().chain(&plan.page_filters));
        if self.schema.is_votes() && !is_by_position(&plan.index_filters) {
            // These conditions are true for every vote. With them FerretDB, with the patches of `dev/stack`, reads the
            // votes in the order of an index: it does so only if the filter bounds every field of the order. If the
            // query finds votes by their position, they are few, and the conditions would make FerretDB scan all votes.
            let lowest = [
                ("accepted_at", Bson::from(DateTime::from_millis(0))),
                ("partition", 0.into()),
                ("offset", 0_i64.into()),
            ];
            for (field, min) in lowest {
                if !filter.contains_key(field) {
                    filter.insert(field, doc! { "$gte": min });
                }
            }
        }
        let direction = |direction: Direction| if direction == Direction::Ascending { 1 } else { -1 };
        let sort: Document =
            plan.order.iter().map(|(slot, order)| (self.field(*slot), Bson::from(direction(*order)))).collect();
        let mut projection: Document =
            plan.columns.iter().map(|column| (self.field(StoredField::Column(*column)), Bson::from(1))).collect();
        if self.schema.is_votes() {
            projection.insert("_id", 0);
        }
        let rows = query.count + 1;
        let mut cursor = self
            .collection
            .find(filter)
            .sort(sort)
            .projection(projection)
            .skip(query.skip as u64)
            .limit(i64::try_from(rows).unwrap_or(i64::MAX))
            .batch_size(u32::try_from(rows).unwrap_or(u32::MAX).min(MAX_REPLY_ROWS))
            .max_time(QUERY_TIMEOUT)
            .await
            .map_err(driver_error)?;
        let fields: Vec<(usize, String)> =
            plan.columns.iter().map(|column| (*column, self.field(StoredField::Column(*column)))).collect();
        let mut read = Vec::new();
        while cursor.advance().await.map_err(driver_error)? {
            read.push(self.read_row(cursor.current(), &fields)?);
        }
        Ok(read)
    }

    fn field(&self, slot: StoredField) -> String {
        match slot {
            StoredField::Column(column) if self.schema.is_votes() => VOTE_COLUMNS[column].0.to_owned(),
            slot => dataset_field(slot),
        }
    }

    fn filter<'f>(&self, filters: impl IntoIterator<Item = &'f Filter>) -> Document {
        let mut document = Document::new();
        filters.into_iter().for_each(|filter| self.add_filter(&mut document, filter));
        document
    }

    /// Adds a filter to the conditions in `document`.
    fn add_filter(&self, document: &mut Document, filter: &Filter) {
        let (slot, operator, value) = match filter {
            Filter::All(filters) => return filters.iter().for_each(|filter| self.add_filter(document, filter)),
            Filter::Any(filters) => {
                // This condition is never true, because every document has an `_id`.
                let never = || vec![Bson::from(doc! { "_id": { "$exists": false } })];
                let filters: Vec<Bson> = filters.iter().map(|filter| Bson::from(self.filter([filter]))).collect();
                return add_condition(document, doc! { "$or": if filters.is_empty() { never() } else { filters } });
            }
            Filter::OneOf(slot, values) => match values.as_slice() {
                [value] => (slot, "$eq", bson(value)),
                values => (slot, "$in", values.iter().map(bson).collect::<Vec<_>>().into()),
            },
            Filter::NotEqual(slot, value) => (slot, "$ne", bson(value)),
            Filter::Below(slot, value, false) => (slot, "$lt", bson(value)),
            Filter::Below(slot, value, true) => (slot, "$lte", bson(value)),
            Filter::Above(slot, value, false) => (slot, "$gt", bson(value)),
            Filter::Above(slot, value, true) => (slot, "$gte", bson(value)),
            Filter::Like(slot, pattern) => (slot, "$regex", pattern.regex().into()),
            Filter::Present(slot) => (slot, "$ne", Bson::Null),
            Filter::Absent(slot) => (slot, "$eq", Bson::Null),
        };
        let field = self.field(*slot);
        match document.get_mut(&field) {
            Some(Bson::Document(known)) if !known.contains_key(operator) => _ = known.insert(operator, value),
            Some(_) => add_condition(document, doc! { field: { operator: value } }),
            None => _ = document.insert(field, doc! { operator: value }),
        }
    }

    /// Reads a row. `fields` has the index and the field of each column to read.
    fn read_row(&self, document: &RawDocument, fields: &[(usize, String)]) -> Result<Row, StoreError> {
        let mut cells = vec![None; self.schema.columns().len()];
        for (column, field) in fields {
            let value = document.get(field).map_err(|error| failed(error.to_string()))?;
            let kind = self.schema.columns()[*column].kind;
            let unreadable = |value: RawBsonRef<'_>| failed(format!("a document's {field} can't be {value:?}"));
            cells[*column] = value.map(|value| read_value(kind, value).ok_or_else(|| unreadable(value))).transpose()?;
        }
        let number = match document.get("_id") {
            Ok(Some(number)) if !self.schema.is_votes() => {
                integer(number).and_then(|number| u64::try_from(number).ok())
            }
            _ => Some(0),
        };
        Ok(Row { number: number.ok_or_else(|| failed("a row has no number".to_owned()))?, cells })
    }
}

/// Adds a condition to those in `document`, which must all be true.
fn add_condition(document: &mut Document, condition: Document) {
    match document.get_mut("$and") {
        Some(Bson::Array(conditions)) => conditions.push(condition.into()),
        _ => _ = document.insert("$and", vec![Bson::from(condition)]),
    }
}

fn bson(value: &Value) -> Bson {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Decimal(number) => (*number).into(),
        Value::Time(time) => DateTime::from_millis(time.0).into(),
        Value::Uuid(id) => id.to_string().into(),
        Value::Hash(hash) => hash.to_string().into(),
    }
}

fn read_value(kind: Kind, value: RawBsonRef<'_>) -> Option<Value> {
    Some(match kind {
        Kind::Text | Kind::Cell => Value::Text(value.as_str()?.to_owned()),
        Kind::Integer => Value::Integer(integer(value)?),
        Kind::Decimal => Value::Decimal(value.as_f64().or_else(|| integer(value).map(|whole| whole as f64))?),
        Kind::Time => Value::Time(UnixMillis(value.as_datetime()?.timestamp_millis())),
        Kind::Uuid => Value::Uuid(Uuid::try_parse(value.as_str()?).ok()?),
        Kind::Hash => Value::Hash(value.as_str()?.parse().ok()?),
    })
}

/// Reads a whole number of 32 or 64 bits.
fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver_error(error: mongodb::error::Error) -> StoreError {
    failed(error_text(&error))
}

fn failed(problem: String) -> StoreError {
    StoreError::new(STORE, problem)
}
