//! This suite tests the promise of a query store: it returns what [`evaluate()`] returns for all rows.

use std::sync::Arc;

use super::datasets::SPECIAL_TEXTS;
use crate::{
    Dataset, DatasetRow, Datasets, Found, Page, Query, QueryStore, Row, Schema, Table, Total, Value, evaluate,
};
use votes::conformance::{NOON, logged};
use votes::{ContestId, Ledger, LoggedVote, Partition, UnixMillis};

/// Tests every promise with the ledger, the store of datasets and the query store that `$open` opens.
#[macro_export]
macro_rules! query_store_conformance {
    ($open:path) => {
        $crate::query_store_conformance!($open:
            votes_come_newest_first
            votes_of_the_same_millisecond_have_a_fixed_order
            any_name_is_found
            random_queries_about_votes_return_what_evaluate_returns
            random_queries_about_a_dataset_return_what_evaluate_returns
            pages_by_cursor_return_every_row
            totals_are_bounded
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (ledger, datasets, query_store, _guard) = $open().await;
            $crate::conformance::query_store::$promise(ledger, datasets, query_store).await;
        }
    )*};
}

type TheLedger = Arc<dyn Ledger>;
type TheDatasets = Arc<dyn Datasets>;
type TheQueryStore = Arc<dyn QueryStore>;

/// The partition of most tests.
const P: Partition = Partition(4);

fn parse(schema: &Schema, parameters: &[(&str, &str)]) -> Query {
    Query::parse(schema, parameters.iter().copied()).unwrap_or_else(|refusal| panic!("{parameters:?}: {refusal}"))
}

async fn page(query_store: &TheQueryStore, table: &Table, query: &Query) -> Page {
    match query_store.find(table, query).await.unwrap() {
        Found::Page(page) => page,
        Found::TooManyRows(max) => panic!("{query:?} was refused: more than {max} rows"),
    }
}

async fn offsets(query_store: &TheQueryStore, parameters: &[(&str, &str)]) -> Vec<i64> {
    let schema = Schema::votes();
    let page = page(query_store, &Table::Votes, &parse(&schema, parameters)).await;
    let offset = |row: &Row| match row.cells[crate::Votes::OFFSET] {
        Some(Value::Integer(offset)) => offset,
        _ => panic!("{row:?} has no offset"),
    };
    page.rows.iter().map(offset).collect()
}

pub async fn votes_come_newest_first(ledger: TheLedger, _: TheDatasets, query_store: TheQueryStore) {
    ledger.insert((0..21).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let bands = ("contest", ContestId::DEFAULT);
    assert_eq!(offsets(&query_store, &[bands]).await, (0..21).rev().collect::<Vec<_>>());
    assert_eq!(offsets(&query_store, &[bands, ("name", "Band 3")]).await, [17, 10, 3]);
    let time = |millis: i64| UnixMillis(NOON.0 + millis).to_string();
    let (from, to) = (format!("gte:{}", time(14)), format!("lt:{}", time(35)));
    assert_eq!(
        offsets(&query_store, &[bands, ("accepted_at", &from), ("accepted_at", &to), ("limit", "2")]).await,
        [4, 3]
    );
    assert_eq!(offsets(&query_store, &[bands, ("limit", "3,2")]).await, [17, 16]);
    assert_eq!(offsets(&query_store, &[("contest", "other")]).await, [0_i64; 0]);
    assert_eq!(offsets(&query_store, &[("partition", "4"), ("offset", "17")]).await, [17]);
}

pub async fn votes_of_the_same_millisecond_have_a_fixed_order(
    ledger: TheLedger,
    _: TheDatasets,
    query_store: TheQueryStore,
) {
    let positions = [(1, 4), (0, 9), (1, 5), (0, 8), (2, 0)];
    let votes = (0..).zip(positions).map(|(n, (partition, offset))| {
        let mut vote = logged(n, Partition(partition), offset);
        vote.vote.accepted_at = NOON;
        vote
    });
    ledger.insert(votes.collect()).await.unwrap();
    assert_eq!(offsets(&query_store, &[("contest", "bands"), ("limit", "4")]).await, [9, 8, 5, 4]);
    assert_eq!(offsets(&query_store, &[("contest", "bands"), ("sort", "accepted_at:asc")]).await, [0, 4, 5, 8, 9]);
}

pub async fn any_name_is_found(ledger: TheLedger, _: TheDatasets, query_store: TheQueryStore) {
    let names: Vec<&str> = SPECIAL_TEXTS.into_iter().filter(|name| !name.is_empty()).collect();
    let votes: Arc<[LoggedVote]> = (0..)
        .zip(&names)
        .map(|(n, name)| {
            let mut vote = logged(n, P, n);
            (*name).clone_into(&mut vote.vote.name);
            vote.vote.album = Some(format!("{name}.$"));
            vote
        })
        .collect();
    ledger.insert(votes).await.unwrap();
    for (n, name) in (0..).zip(&names) {
        let condition = format!("eq:{name}");
        assert_eq!(offsets(&query_store, &[("contest", "bands"), ("name", &condition)]).await, [n], "{name}");
    }
}

/// This promise needs a query store that examines at most 100 rows.
pub async fn queries_that_examine_more_than_a_hundred_rows_are_refused(
    ledger: TheLedger,
    datasets: TheDatasets,
    query_store: TheQueryStore,
) {
    ledger.insert((0..300).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let is_refused = async |table: &Table, parameters: &[(&str, &str)]| {
        let query = parse(&table.schema(), parameters);
        let allowed = Query { allow_scan: true, ..query.clone() };
        assert!(matches!(query_store.find(table, &allowed).await.unwrap(), Found::Page(_)), "{parameters:?}");
        query_store.find(table, &query).await.unwrap() == Found::TooManyRows(100)
    };
    let bands = ("contest", "bands");
    let (from, to) = (format!("gte:{}", UnixMillis(NOON.0 + 70)), format!("lt:{}", UnixMillis(NOON.0 + 140)));
    for allowed in [
        [bands].as_slice(),
        &[bands, ("limit", "250,10")],
        &[bands, ("sort", "accepted_at:asc")],
        &[bands, ("accepted_at", &from)],
        &[bands, ("accepted_at", &from), ("accepted_at", &to), ("album", "Album 1"), ("sort", "rank")],
        &[("partition", "4"), ("offset", "17")],
        &[("partition", "4"), ("offset", "lt:17"), ("producer", "rest"), bands],
    ] {
        assert!(!is_refused(&Table::Votes, allowed).await, "{allowed:?}");
    }
    for refused in [
        [bands, ("album", "Album 1")].as_slice(),
        &[bands, ("sort", "rank")],
        &[bands, ("name", "like:band")],
        &[bands, ("accepted_at", &from), ("year", "1980")],
        &[("producer", "rest")],
    ] {
        assert!(is_refused(&Table::Votes, refused).await, "{refused:?}");
    }

    let columns = super::datasets::columns(&["name", "n"]);
    let dataset = datasets.create(&"many".parse().unwrap(), columns).await.unwrap().unwrap();
    datasets.load(&dataset, super::datasets::rows(0..300)).await.unwrap();
    let loading = Table::Dataset(Arc::new(dataset.clone()));
    assert!(!is_refused(&loading, &[]).await);
    assert!(is_refused(&loading, &[("n", "9")]).await, "there is no index yet");
    datasets.finish(&dataset).await.unwrap();
    let finished = Table::Dataset(Arc::new(datasets.describe(&dataset.id).await.unwrap().unwrap()));
    for allowed in [
        [("limit", "200,10")].as_slice(),
        &[("n", "9")],
        &[("name", "Band 3")],
        &[("n", "lt:60"), ("name", "like:3"), ("sort", "name,n")],
        &[("sort", "n:desc")],
        &[("n", "gt:9"), ("sort", "n")],
    ] {
        assert!(!is_refused(&finished, allowed).await, "{allowed:?}");
    }
    for refused in [
        [("name", "like:band")].as_slice(),
        &[("n", "neq:5")],
        &[("sort", "name,n")],
        &[("n", "gt:9"), ("sort", "name")],
    ] {
        assert!(is_refused(&finished, refused).await, "{refused:?}");
    }
}

/// Random numbers from a seed (`SplitMix64`). A failure can be reproduced with the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

const OPERATORS: [&str; 9] = ["eq:", "neq:", "lt:", "lte:", "gt:", "gte:", "in:", "like:", "eq:"];

/// Texts for cells and for values: numbers, texts that are almost numbers, letters in both cases, and characters that
/// are special in a store.
const TEXTS: [&str; 30] = [
    "",
    "0",
    "-0",
    "1",
    "1.0",
    "01",
    "2",
    "10",
    "-3.5",
    "1e2",
    "100",
    "999999999999999",
    "1234567890123456",
    "1.",
    "abc",
    "ABC",
    "Abc def",
    "bJÖrk",
    "Björk",
    "ß",
    "SS",
    "a*c",
    "a\\c",
    "[a]",
    "a%b_c",
    "$where",
    "\u{1F3B8} rock",
    "x\ny",
    "\u{212A}",
    "k",
];

/// Returns a random condition with some of these texts.
fn condition(random: &mut Random, texts: &[&str]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,");
    match random.pick(&OPERATORS) {
        "in:" => {
            let values: Vec<String> = (0..=random.below(3)).map(|_| escape(random.pick(texts))).collect();
            format!("in:{}", values.join(","))
        }
        "like:" => {
            let part = |random: &mut Random| {
                let text: Vec<char> = random.pick(texts).chars().collect();
                let (from, to) = (random.below(text.len() + 1), random.below(text.len() + 1));
                let part: String = text[from.min(to)..from.max(to)].iter().collect();
                part.replace('\\', "\\\\").replace('*', "\\*")
            };
            let (first, second) = (part(random), part(random));
            format!("like:{first}{}{second}", if random.below(2) == 0 { "*" } else { "" })
        }
        operator => format!("{operator}{}", random.pick(texts)),
    }
}

/// Returns the parameters of a random query on these columns. The texts of a column are for the column's conditions.
fn query(random: &mut Random, columns: &[(String, Vec<&str>)]) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    for _ in 0..random.below(4) {
        let (name, texts) = &columns[random.below(columns.len())];
        parameters.push((name.clone(), condition(random, texts)));
    }
    if random.below(2) == 0 {
        let key = |random: &mut Random| {
            let name = &columns[random.below(columns.len())].0;
            format!("{name}{}", random.pick(&["", ":asc", ":desc"]))
        };
        let keys: Vec<String> = (0..=random.below(2)).map(|_| key(random)).collect();
        parameters.push(("sort".to_owned(), keys.join(",")));
    }
    parameters.push(("limit".to_owned(), format!("{},{}", random.below(12), random.below(40) + 1)));
    parameters.push(("allow_scan".to_owned(), "true".to_owned()));
    parameters
}

/// Runs random queries, up to four pages of each, and compares the pages with the pages of [`evaluate()`].
async fn compare(
    query_store: &TheQueryStore,
    table: &Table,
    rows: &[Row],
    columns: &[(String, Vec<&str>)],
    queries: usize,
) {
    let schema = table.schema();
    let (mut valid, mut returned) = (0, 0);
    for seed in 0..queries as u64 {
        let parameters = query(&mut Random(seed), columns);
        let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let Ok(query) = Query::parse(&schema, pairs) else { continue };
        valid += 1;
        let (mut query, mut pages) = (query, 0);
        loop {
            let context = format!("seed {seed}, page {pages}: {parameters:?}");
            let expected = evaluate(&query, &schema, rows);
            let found = page(query_store, table, &query).await;
            assert_eq!(found.rows, expected.rows, "{context}");
            assert_eq!(found.has_more, expected.has_more, "{context}");
            assert_eq!(found.total, Some(Total::counted(expected.total)), "{context}");
            // The normal form is parsed to the same query.
            let normal = query.normal_form(&schema);
            let decoded = crate::decode_normal_form(&normal);
            let again = Query::parse(&schema, decoded.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let again = again.unwrap_or_else(|refusal| panic!("{context}: {normal}: {refusal}"));
            assert_eq!(again.normal_form(&schema), normal, "{context}");
            assert_eq!(Query { allow_scan: true, ..again }, query, "{context}");
            returned += found.rows.len();
            pages += 1;
            let Some(last) = found.rows.last().filter(|_| found.has_more && pages < 4) else { break };
            query = query.page_after(&schema, last);
        }
    }
    assert!(valid > queries / 3, "only {valid} of {queries} queries were valid");
    assert!(returned > queries, "only {returned} rows were returned");
}

/// Returns random votes. Each optional field is present in some of the votes.
fn random_votes(count: u64) -> Vec<LoggedVote> {
    let mut random = Random(7);
    let names: Vec<&str> = TEXTS.into_iter().filter(|text| !text.is_empty() && !text.contains('\n')).collect();
    let vote = |n: u64| {
        let partition = Partition(u16::try_from(random.below(3)).unwrap());
        let mut logged = logged(n, partition, n);
        let vote = &mut logged.vote;
        random.pick(&names).clone_into(&mut vote.name);
        vote.album = (random.below(3) > 0).then(|| random.pick(&names).to_owned());
        vote.year = (random.below(3) > 0).then(|| 1_990 + u16::try_from(random.below(5)).unwrap());
        vote.rank = (random.below(3) > 0).then(|| random.below(8) as f64 / 2.0);
        vote.accepted_at = UnixMillis(NOON.0 + i64::try_from(random.below(20)).unwrap());
        if random.below(4) == 0 {
            vote.contest = "other".parse().unwrap();
        }
        logged
    };
    (0..count).map(vote).collect()
}

pub async fn random_queries_about_votes_return_what_evaluate_returns(
    ledger: TheLedger,
    _: TheDatasets,
    query_store: TheQueryStore,
) {
    let votes = random_votes(150);
    ledger.insert(votes.clone().into()).await.unwrap();
    let rows: Vec<Row> = votes.iter().map(Row::from).collect();
    let times: Vec<String> = (0..21).map(|millis| UnixMillis(NOON.0 + millis).to_string()).collect();
    let ids: Vec<String> = votes.iter().take(5).map(|logged| logged.vote.vote_id.to_string()).collect();
    let hashes: Vec<String> =
        votes.iter().filter_map(|logged| logged.vote.voter).map(|hash| hash.to_string()).take(4).collect();
    let texts = |texts: &'static [&'static str]| texts.to_vec();
    let columns = [
        ("vote_id", ids.iter().map(String::as_str).collect()),
        ("contest", texts(&["bands", "other", "none"])),
        ("name", TEXTS.to_vec()),
        ("album", TEXTS.to_vec()),
        ("year", texts(&["", "1990", "1992", "1994", "2000"])),
        ("rank", texts(&["", "0", "1.5", "3.5", "1e9", "-1"])),
        ("voter", hashes.iter().map(String::as_str).collect()),
        ("accepted_at", times.iter().map(String::as_str).collect()),
        ("producer", texts(&["rest", "grpc", "import", "re"])),
        ("partition", texts(&["0", "1", "2", "7"])),
        ("OFFSET", texts(&["0", "40", "100", "149", "9223372036854775807"])),
    ];
    let columns: Vec<(String, Vec<&str>)> = columns.into_iter().map(|(name, texts)| (name.to_owned(), texts)).collect();
    compare(&query_store, &Table::Votes, &rows, &columns, 500).await;
}

async fn random_dataset(datasets: &TheDatasets, count: u64) -> (Table, Vec<Row>, Dataset) {
    let mut random = Random(11);
    let names = ["plain", "limit", "_id", "$where", "a.b", "", "twice", "Twice"];
    let columns: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let dataset = datasets.create(&"random".parse().unwrap(), columns).await.unwrap().unwrap();
    let row = |number| DatasetRow { number, cells: names.iter().map(|_| random.pick(&TEXTS).to_owned()).collect() };
    let rows: Vec<DatasetRow> = (0..count).map(row).collect();
    assert!(datasets.load(&dataset, rows.clone()).await.unwrap());
    assert!(datasets.finish(&dataset).await.unwrap());
    let dataset = datasets.describe(&dataset.id).await.unwrap().unwrap();
    let rows = rows.into_iter().map(|row| Row::of_dataset(row.number, row.cells)).collect();
    (Table::Dataset(Arc::new(dataset.clone())), rows, dataset)
}

pub async fn random_queries_about_a_dataset_return_what_evaluate_returns(
    _: TheLedger,
    datasets: TheDatasets,
    query_store: TheQueryStore,
) {
    let (table, rows, dataset) = random_dataset(&datasets, 150).await;
    let schema = Schema::dataset(&dataset.columns);
    let columns: Vec<_> = (0..dataset.columns.len()).map(|column| (schema.field(column), TEXTS.to_vec())).collect();
    compare(&query_store, &table, &rows, &columns, 500).await;
}

pub async fn pages_by_cursor_return_every_row(_: TheLedger, datasets: TheDatasets, query_store: TheQueryStore) {
    let (table, rows, dataset) = random_dataset(&datasets, 100).await;
    let schema = Schema::dataset(&dataset.columns);
    for sort in ["plain:desc", "$where,plain", "column.2:desc,a.b:asc"] {
        let mut returned: Vec<Row> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut parameters = vec![("sort", sort), ("limit", "7"), ("allow_scan", "true")];
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let query = parse(&schema, &parameters);
            let page = page(&query_store, &table, &query).await;
            cursor = page.rows.last().filter(|_| page.has_more).map(|last| query.cursor_after(&schema, last).unwrap());
            returned.extend(page.rows);
            if cursor.is_none() {
                break;
            }
        }
        let whole = parse(&schema, &[("sort", sort), ("limit", "50000")]);
        assert_eq!(returned, evaluate(&whole, &schema, &rows).rows, "{sort}");
    }
}

pub async fn totals_are_bounded(_: TheLedger, datasets: TheDatasets, query_store: TheQueryStore) {
    let columns = super::datasets::columns(&["name", "n"]);
    let dataset = datasets.create(&"many".parse().unwrap(), columns).await.unwrap().unwrap();
    for chunk in 0..5 {
        datasets.load(&dataset, super::datasets::rows(chunk * 2_500..(chunk + 1) * 2_500)).await.unwrap();
    }
    datasets.finish(&dataset).await.unwrap();
    let dataset = Arc::new(datasets.describe(&dataset.id).await.unwrap().unwrap());
    let (table, schema) = (Table::Dataset(Arc::clone(&dataset)), Schema::dataset(&dataset.columns));
    let total = async |parameters: &[(&str, &str)]| page(&query_store, &table, &parse(&schema, parameters)).await.total;
    assert_eq!(total(&[("limit", "5")]).await, Some(Total::AtLeast(crate::MAX_EXACT_TOTAL)));
    assert_eq!(total(&[("n", "lt:15000"), ("limit", "5")]).await, Some(Total::Exactly(5_000)));
    assert_eq!(total(&[("name", "Band 3"), ("limit", "5")]).await, Some(Total::Exactly(1_786)));
    // The total is exact if the page is the last page.
    assert_eq!(total(&[("limit", "50000")]).await, Some(Total::Exactly(12_500)));
}
