//! People's questions, of the book's votes and of datasets.
//!
//! A question becomes a filter of the plan's slots, whose names are ours, and of BSON values: a text that looks like an operator is a
//! text. What a vote or a row says is never a field's name.

use std::time::Duration;

use async_trait::async_trait;
use mongodb::{
    Client, Collection, Database,
    bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    options::ClientOptions,
};
use uuid::Uuid;
use votes::{
    Archive, Dataset, Facts, Found, Page, Store, StoreError, Table, UnixMillis,
    query::{
        Direction, Filter, Index, Kind, MAX_TOTAL, Plan, Query, Row, Schema, Slot, Total, VOTE_COLUMNS, Value, Votes,
    },
};

use super::{PATIENCE, bounded, connect, document::unhex, problem};
use crate::open::NotOpen;

/// What the port is called in errors.
const STORE: &str = "archive";

/// A question may look at so many rows.
const MOST_ROWS: usize = 100_000;

/// How long a server may work on a question: shorter than [`PATIENCE`], so that it stops when nobody waits any more.
const WORK: Duration = Duration::from_secs(5);

/// Rows that a reply may have. Replies end at 16 MB in any case.
const REPLY_ROWS: u32 = 10_000;

/// The database of datasets is called like that of the book, and this.
const DATASETS: &str = "_datasets";

/// Where votes and datasets are.
#[derive(Clone)]
pub(crate) struct Place {
    options: ClientOptions,
    book: String,
}

impl Place {
    /// What a URL names, with at most so many connections to a server.
    pub(crate) async fn of(url: &str, connections: u32) -> Result<Self, NotOpen> {
        let mut options = connect::read_url(url).await?;
        options.max_pool_size = Some(connections);
        options.min_pool_size = options.min_pool_size.map(|least| least.min(connections));
        let book = options.default_database.clone().unwrap_or_else(|| connect::DATABASE.to_owned());
        Ok(Self { options, book })
    }

    fn client(&self) -> mongodb::error::Result<Client> {
        Client::with_options(self.options.clone())
    }

    /// A client for the life of the process, once the server answers.
    pub(crate) async fn connect(&self) -> Result<Databases, NotOpen> {
        let client = self.client().map_err(|error| NotOpen::BadUrl(problem(&error)))?;
        // As the book's: it says goodbye to nobody.
        std::mem::forget(client.clone());
        let databases = self.databases(&client);
        let hello = databases.book.run_command(doc! { "ping": 1 });
        match tokio::time::timeout(PATIENCE, hello).await {
            Ok(Ok(_)) => Ok(databases),
            Ok(Err(error)) => Err(connect::not_open(&self.book, &error)),
            Err(_) => Err(NotOpen::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    fn databases(&self, client: &Client) -> Databases {
        let datasets = client.database(&format!("{}{DATASETS}", self.book));
        Databases { book: client.database(&self.book), datasets }
    }
}

/// The database of the book, and that of datasets.
#[derive(Clone)]
pub(crate) struct Databases {
    book: Database,
    pub(super) datasets: Database,
}

/// An archive on the connections of one client.
pub(crate) struct MongoArchive {
    databases: Databases,
    most_rows: usize,
}

impl MongoArchive {
    pub(crate) fn new(databases: Databases) -> Self {
        Self { databases, most_rows: MOST_ROWS }
    }

    /// As [`new`](Self::new), where a question may look at so many rows.
    #[cfg(test)]
    pub(super) fn bounded_to(most_rows: usize, databases: Databases) -> Self {
        Self { databases, most_rows }
    }
}

#[async_trait]
impl Store for MongoArchive {
    async fn check(&self) -> Result<Facts, StoreError> {
        bounded(STORE, async {
            self.databases.book.run_command(doc! { "ping": 1 }).await.map_err(|error| failed(problem(&error)))?;
            Ok(Facts::new())
        })
        .await
    }
}

#[async_trait]
impl Archive for MongoArchive {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        bounded(STORE, Rows::of(&self.databases, table, self.most_rows).find(query)).await
    }
}

/// An archive that connects anew for each question, and hangs up after it.
pub(crate) struct DirectArchive(Place);

impl DirectArchive {
    pub(crate) fn new(place: Place) -> Self {
        Self(place)
    }

    fn connect(&self) -> Result<(Client, MongoArchive), StoreError> {
        let client = self.0.client().map_err(|error| failed(problem(&error)))?;
        let archive = MongoArchive::new(self.0.databases(&client));
        Ok((client, archive))
    }
}

#[async_trait]
impl Store for DirectArchive {
    async fn check(&self) -> Result<Facts, StoreError> {
        let (client, archive) = self.connect()?;
        let checked = archive.check().await;
        client.shutdown().immediate(true).await;
        checked
    }
}

#[async_trait]
impl Archive for DirectArchive {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let (client, archive) = self.connect()?;
        let found = archive.find(table, query).await;
        client.shutdown().immediate(true).await;
        found
    }
}

/// Whether votes are found by their place on the log.
fn is_by_place(narrowed: &[Filter]) -> bool {
    narrowed.iter().any(|filter| matches!(filter, Filter::Is(Slot::Column(Votes::PARTITION), _)))
}

/// The collection with a dataset's rows.
pub(super) fn rows_of(datasets: &Database, dataset: &Dataset) -> Collection<RawDocumentBuf> {
    datasets.collection(dataset.id.as_str())
}

/// The field of a dataset's document: texts are `c1`, `c2` and so on, the numbers that they look like `n1`, `n2` and so on.
pub(super) fn dataset_field(slot: Slot) -> String {
    match slot {
        Slot::Column(column) => format!("c{}", column + 1),
        Slot::Number(column) => format!("n{}", column + 1),
        Slot::Row => "_id".to_owned(),
    }
}

/// A collection.
struct Rows {
    schema: Schema,
    collection: Collection<RawDocumentBuf>,
    indexes: Vec<Index>,
    /// A question may look at so many.
    most: usize,
}

impl Rows {
    fn of(databases: &Databases, table: &Table, most: usize) -> Self {
        match table {
            Table::Votes => Self {
                schema: Schema::votes(),
                collection: databases.book.collection("votes"),
                indexes: vec![
                    Plan::newest(&[Votes::CONTEST]),
                    Plan::newest(&[Votes::CONTEST, Votes::NAME]),
                    Plan::place(),
                ],
                most,
            },
            Table::Dataset(dataset) => Self {
                schema: Schema::dataset(&dataset.columns),
                collection: rows_of(&databases.datasets, dataset),
                indexes: Plan::dataset_indexes(dataset.indexed()),
                most,
            },
        }
    }

    async fn find(&self, query: &Query) -> Result<Found, StoreError> {
        let plan = Plan::of(query, &self.schema, &self.indexes);
        if !query.allow_scan && !plan.is_walk && self.is_too_much(&plan).await? {
            return Ok(Found::TooMuch(self.most));
        }
        let mut rows = self.read(&plan, query).await?;
        let has_more = rows.len() > query.count;
        rows.truncate(query.count);
        let is_all = query.after.is_none() && !has_more && (query.skip == 0 || !rows.is_empty());
        let total = match query.with_total {
            false => None,
            true if is_all => Some(Total::Exactly(query.skip + rows.len())),
            true => Some(Total::counted(self.count(&plan.filters, MAX_TOTAL + 1).await?)),
        };
        Ok(Found::Page(Page { rows, total, has_more }))
    }

    async fn is_too_much(&self, plan: &Plan) -> Result<bool, StoreError> {
        if !plan.narrowed.is_empty() {
            return Ok(self.count(&plan.narrowed, self.most + 1).await? > self.most);
        }
        let all = self.collection.estimated_document_count().await.map_err(driver)?;
        Ok(usize::try_from(all).unwrap_or(usize::MAX) > self.most)
    }

    /// How many documents these filters leave, counted up to `most`.
    async fn count(&self, filters: &[Filter], most: usize) -> Result<usize, StoreError> {
        let count = self.collection.count_documents(self.filter(filters)).limit(most as u64).max_time(WORK);
        Ok(usize::try_from(count.await.map_err(driver)?).unwrap_or(usize::MAX))
    }

    /// One row more than the page has, if there is one.
    async fn read(&self, plan: &Plan, query: &Query) -> Result<Vec<Row>, StoreError> {
        let mut filter = self.filter(plan.filters.iter().chain(&plan.after));
        if self.schema.is_votes() && !is_by_place(&plan.narrowed) {
            // Every vote has these. FerretDB, patched as `dev/stack` has it, takes the order from its index only if the filter
            // bounds all that is sorted by. Where another index finds the few votes, it would look through all of them for their order.
            let least = [
                ("accepted_at", Bson::from(DateTime::from_millis(0))),
                ("partition", 0.into()),
                ("offset", 0_i64.into()),
            ];
            for (field, least) in least {
                if !filter.contains_key(field) {
                    filter.insert(field, doc! { "$gte": least });
                }
            }
        }
        let direction = |direction: Direction| if direction == Direction::Ascending { 1 } else { -1 };
        let sort: Document =
            plan.order.iter().map(|(slot, way)| (self.field(*slot), Bson::from(direction(*way)))).collect();
        let mut projection: Document =
            plan.columns.iter().map(|column| (self.field(Slot::Column(*column)), Bson::from(1))).collect();
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
            .batch_size(u32::try_from(rows).unwrap_or(u32::MAX).min(REPLY_ROWS))
            .max_time(WORK)
            .await
            .map_err(driver)?;
        let fields: Vec<(usize, String)> =
            plan.columns.iter().map(|column| (*column, self.field(Slot::Column(*column)))).collect();
        let mut read = Vec::new();
        while cursor.advance().await.map_err(driver)? {
            read.push(self.row(cursor.current(), &fields)?);
        }
        Ok(read)
    }

    fn field(&self, slot: Slot) -> String {
        match slot {
            Slot::Column(column) if self.schema.is_votes() => VOTE_COLUMNS[column].0.to_owned(),
            slot => dataset_field(slot),
        }
    }

    fn filter<'f>(&self, filters: impl IntoIterator<Item = &'f Filter>) -> Document {
        let mut document = Document::new();
        filters.into_iter().for_each(|filter| self.add(&mut document, filter));
        document
    }

    /// Adds a filter that has to hold with what is there already.
    fn add(&self, document: &mut Document, filter: &Filter) {
        let (slot, operator, value) = match filter {
            Filter::All(filters) => return filters.iter().for_each(|filter| self.add(document, filter)),
            Filter::Any(ways) => {
                // Nothing has no `_id`.
                let never = || vec![Bson::from(doc! { "_id": { "$exists": false } })];
                let ways: Vec<Bson> = ways.iter().map(|way| Bson::from(self.filter([way]))).collect();
                return add_and(document, doc! { "$or": if ways.is_empty() { never() } else { ways } });
            }
            Filter::Is(slot, values) => match values.as_slice() {
                [value] => (slot, "$eq", bson(value)),
                values => (slot, "$in", values.iter().map(bson).collect::<Vec<_>>().into()),
            },
            Filter::IsNot(slot, value) => (slot, "$ne", bson(value)),
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
            Some(_) => add_and(document, doc! { field: { operator: value } }),
            None => _ = document.insert(field, doc! { operator: value }),
        }
    }

    /// `fields` are the columns that are read, each with the field that has it.
    fn row(&self, document: &RawDocument, fields: &[(usize, String)]) -> Result<Row, StoreError> {
        let mut cells = vec![None; self.schema.columns().len()];
        for (column, field) in fields {
            let value = document.get(field).map_err(|error| failed(error.to_string()))?;
            let kind = self.schema.columns()[*column].kind;
            let unreadable = |value: RawBsonRef<'_>| failed(format!("a document's {field} can't be {value:?}"));
            cells[*column] = value.map(|value| read(kind, value).ok_or_else(|| unreadable(value))).transpose()?;
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

fn add_and(document: &mut Document, condition: Document) {
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

fn read(kind: Kind, value: RawBsonRef<'_>) -> Option<Value> {
    Some(match kind {
        Kind::Text | Kind::Cell => Value::Text(value.as_str()?.to_owned()),
        Kind::Integer => Value::Integer(integer(value)?),
        Kind::Decimal => Value::Decimal(value.as_f64().or_else(|| integer(value).map(|whole| whole as f64))?),
        Kind::Time => Value::Time(UnixMillis(value.as_datetime()?.timestamp_millis())),
        Kind::Uuid => Value::Uuid(Uuid::try_parse(value.as_str()?).ok()?),
        Kind::Hash => Value::Hash(unhex(value.as_str()?)?),
    })
}

/// A whole number of either size.
fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver(error: mongodb::error::Error) -> StoreError {
    failed(problem(&error))
}

fn failed(problem: String) -> StoreError {
    StoreError::new(STORE, problem)
}
