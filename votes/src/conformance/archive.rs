//! What people's questions need of an archive: it answers like a look at every row.

use std::sync::Arc;

use super::{NOON, datasets::HOSTILE, logged};
use crate::{
    Archive, Book, ContestId, Dataset, DatasetRow, Datasets, Found, LoggedVote, Page, Partition, Table, UnixMillis,
    query::{self, Query, Row, Schema, Total, Value, evaluate},
};

/// Tries every promise against the book, the datasets and the archive that `$open` opens.
#[macro_export]
macro_rules! archive_conformance {
    ($open:path) => {
        $crate::archive_conformance!($open:
            votes_come_newest_first
            votes_of_one_millisecond_are_in_one_order
            any_name_is_found
            random_questions_of_votes_are_answered_as_by_a_look_at_every_vote
            random_questions_of_a_dataset_are_answered_as_by_a_look_at_every_row
            pages_by_cursor_are_the_whole_answer
            totals_are_bounded
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (book, datasets, archive, _kept) = $open().await;
            $crate::conformance::archive::$promise(book, datasets, archive).await;
        }
    )*};
}

type TheBook = Arc<dyn Book>;
type TheDatasets = Arc<dyn Datasets>;
type TheArchive = Arc<dyn Archive>;

const P: Partition = Partition(4);

fn ask(schema: &Schema, parameters: &[(&str, &str)]) -> Query {
    Query::parse(schema, parameters.iter().copied()).unwrap_or_else(|refusal| panic!("{parameters:?}: {refusal}"))
}

async fn page(archive: &TheArchive, table: &Table, query: &Query) -> Page {
    match archive.find(table, query).await.unwrap() {
        Found::Page(page) => page,
        Found::TooMuch(most) => panic!("more than {most} for {query:?}"),
    }
}

async fn offsets(archive: &TheArchive, parameters: &[(&str, &str)]) -> Vec<i64> {
    let schema = Schema::votes();
    let page = page(archive, &Table::Votes, &ask(&schema, parameters)).await;
    let offset = |row: &Row| match row.cells[query::Votes::OFFSET] {
        Some(Value::Integer(offset)) => offset,
        _ => panic!("{row:?} has no offset"),
    };
    page.rows.iter().map(offset).collect()
}

pub async fn votes_come_newest_first(book: TheBook, _: TheDatasets, archive: TheArchive) {
    book.insert((0..21).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let bands = ("contest", ContestId::DEFAULT);
    assert_eq!(offsets(&archive, &[bands]).await, (0..21).rev().collect::<Vec<_>>());
    assert_eq!(offsets(&archive, &[bands, ("name", "Band 3")]).await, [17, 10, 3]);
    let time = |millis: i64| UnixMillis(NOON.0 + millis).to_string();
    let (from, to) = (format!("gte:{}", time(14)), format!("lt:{}", time(35)));
    assert_eq!(offsets(&archive, &[bands, ("accepted_at", &from), ("accepted_at", &to), ("limit", "2")]).await, [4, 3]);
    assert_eq!(offsets(&archive, &[bands, ("limit", "3,2")]).await, [17, 16]);
    assert_eq!(offsets(&archive, &[("contest", "other")]).await, [0_i64; 0]);
    assert_eq!(offsets(&archive, &[("partition", "4"), ("offset", "17")]).await, [17]);
}

pub async fn votes_of_one_millisecond_are_in_one_order(book: TheBook, _: TheDatasets, archive: TheArchive) {
    let places = [(1, 4), (0, 9), (1, 5), (0, 8), (2, 0)];
    let votes = (0..).zip(places).map(|(n, (partition, offset))| {
        let mut vote = logged(n, Partition(partition), offset);
        vote.vote.accepted_at = NOON;
        vote
    });
    book.insert(votes.collect()).await.unwrap();
    assert_eq!(offsets(&archive, &[("contest", "bands"), ("limit", "4")]).await, [9, 8, 5, 4]);
    assert_eq!(offsets(&archive, &[("contest", "bands"), ("sort", "accepted_at:asc")]).await, [0, 4, 5, 8, 9]);
}

pub async fn any_name_is_found(book: TheBook, _: TheDatasets, archive: TheArchive) {
    let names: Vec<&str> = HOSTILE.into_iter().filter(|name| !name.is_empty()).collect();
    let votes: Arc<[LoggedVote]> = (0..)
        .zip(&names)
        .map(|(n, name)| {
            let mut vote = logged(n, P, n);
            (*name).clone_into(&mut vote.vote.name);
            vote.vote.album = Some(format!("{name}.$"));
            vote
        })
        .collect();
    book.insert(votes).await.unwrap();
    for (n, name) in (0..).zip(&names) {
        let is = format!("eq:{name}");
        assert_eq!(offsets(&archive, &[("contest", "bands"), ("name", &is)]).await, [n], "{name}");
    }
}

/// Of an archive whose bound is that low.
pub async fn questions_that_look_at_more_than_a_hundred_rows_are_refused(
    book: TheBook,
    datasets: TheDatasets,
    archive: TheArchive,
) {
    book.insert((0..300).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let is_refused = async |table: &Table, parameters: &[(&str, &str)]| {
        let query = ask(&table.schema(), parameters);
        let allowed = Query { allow_scan: true, ..query.clone() };
        assert!(matches!(archive.find(table, &allowed).await.unwrap(), Found::Page(_)), "{parameters:?}");
        archive.find(table, &query).await.unwrap() == Found::TooMuch(100)
    };
    let bands = ("contest", "bands");
    let (from, to) = (format!("gte:{}", UnixMillis(NOON.0 + 70)), format!("lt:{}", UnixMillis(NOON.0 + 140)));
    for served in [
        [bands].as_slice(),
        &[bands, ("limit", "250,10")],
        &[bands, ("sort", "accepted_at:asc")],
        &[bands, ("accepted_at", &from)],
        &[bands, ("accepted_at", &from), ("accepted_at", &to), ("album", "Album 1"), ("sort", "rank")],
        &[("partition", "4"), ("offset", "17")],
        &[("partition", "4"), ("offset", "lt:17"), ("door", "rest"), bands],
    ] {
        assert!(!is_refused(&Table::Votes, served).await, "{served:?}");
    }
    for too_much in [
        [bands, ("album", "Album 1")].as_slice(),
        &[bands, ("sort", "rank")],
        &[bands, ("name", "like:band")],
        &[bands, ("accepted_at", &from), ("year", "1980")],
        &[("door", "rest")],
    ] {
        assert!(is_refused(&Table::Votes, too_much).await, "{too_much:?}");
    }

    let columns = super::datasets::columns(&["name", "n"]);
    let dataset = datasets.create(&"many".parse().unwrap(), columns).await.unwrap().unwrap();
    datasets.load(&dataset, super::datasets::rows(0..300)).await.unwrap();
    let loading = Table::Dataset(Arc::new(dataset.clone()));
    assert!(!is_refused(&loading, &[]).await);
    assert!(is_refused(&loading, &[("n", "9")]).await, "there is no index yet");
    datasets.finish(&dataset).await.unwrap();
    let finished = Table::Dataset(Arc::new(datasets.describe(&dataset.id).await.unwrap().unwrap()));
    for served in [
        [("limit", "200,10")].as_slice(),
        &[("n", "9")],
        &[("name", "Band 3")],
        &[("n", "lt:60"), ("name", "like:3"), ("sort", "name,n")],
        &[("sort", "n:desc")],
        &[("n", "gt:9"), ("sort", "n")],
    ] {
        assert!(!is_refused(&finished, served).await, "{served:?}");
    }
    for too_much in [
        [("name", "like:band")].as_slice(),
        &[("n", "neq:5")],
        &[("sort", "name,n")],
        &[("n", "gt:9"), ("sort", "name")],
    ] {
        assert!(is_refused(&finished, too_much).await, "{too_much:?}");
    }
}

/// Numbers from a seed (`SplitMix64`), so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % most as u64).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

const OPERATORS: [&str; 9] = ["eq:", "neq:", "lt:", "lte:", "gt:", "gte:", "in:", "like:", "eq:"];

/// Texts that are cells and values alike: numbers, almost numbers, text in every case, and what means something somewhere.
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

/// A condition's value of one of these texts.
fn condition(dice: &mut Dice, texts: &[&str]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,");
    match dice.one(&OPERATORS) {
        "in:" => {
            let values: Vec<String> = (0..=dice.below(3)).map(|_| escape(dice.one(texts))).collect();
            format!("in:{}", values.join(","))
        }
        "like:" => {
            let part = |dice: &mut Dice| {
                let text: Vec<char> = dice.one(texts).chars().collect();
                let (from, to) = (dice.below(text.len() + 1), dice.below(text.len() + 1));
                let part: String = text[from.min(to)..from.max(to)].iter().collect();
                part.replace('\\', "\\\\").replace('*', "\\*")
            };
            let (first, second) = (part(dice), part(dice));
            format!("like:{first}{}{second}", if dice.below(2) == 0 { "*" } else { "" })
        }
        operator => format!("{operator}{}", dice.one(texts)),
    }
}

/// A question of these columns, each with the texts that its conditions may have.
fn question(dice: &mut Dice, columns: &[(String, Vec<&str>)]) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    for _ in 0..dice.below(4) {
        let (name, texts) = &columns[dice.below(columns.len())];
        parameters.push((name.clone(), condition(dice, texts)));
    }
    if dice.below(2) == 0 {
        let key = |dice: &mut Dice| {
            let name = &columns[dice.below(columns.len())].0;
            format!("{name}{}", dice.one(&["", ":asc", ":desc"]))
        };
        let keys: Vec<String> = (0..=dice.below(2)).map(|_| key(dice)).collect();
        parameters.push(("sort".to_owned(), keys.join(",")));
    }
    parameters.push(("limit".to_owned(), format!("{},{}", dice.below(12), dice.below(40) + 1)));
    parameters.push(("allow_scan".to_owned(), "true".to_owned()));
    parameters
}

/// Asks random questions, each page after page, and compares.
async fn compare(archive: &TheArchive, table: &Table, rows: &[Row], columns: &[(String, Vec<&str>)], questions: usize) {
    let schema = table.schema();
    let (mut asked, mut shown) = (0, 0);
    for seed in 0..questions as u64 {
        let parameters = question(&mut Dice(seed), columns);
        let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let Ok(query) = Query::parse(&schema, pairs) else { continue };
        asked += 1;
        let (mut query, mut pages) = (query, 0);
        loop {
            let told = format!("seed {seed}, page {pages}: {parameters:?}");
            let expected = evaluate(&query, &schema, rows);
            let found = page(archive, table, &query).await;
            assert_eq!(found.rows, expected.rows, "{told}");
            assert_eq!(found.has_more, expected.has_more, "{told}");
            assert_eq!(found.total, Some(Total::counted(expected.total)), "{told}");
            // The normal form asks the same.
            let normal = query.normal_form(&schema);
            let pairs: Vec<_> = query::pairs(&normal);
            let again = Query::parse(&schema, pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let again = again.unwrap_or_else(|refusal| panic!("{told}: {normal}: {refusal}"));
            assert_eq!(again.normal_form(&schema), normal, "{told}");
            assert_eq!(Query { allow_scan: true, ..again }, query, "{told}");
            shown += found.rows.len();
            pages += 1;
            let Some(last) = found.rows.last().filter(|_| found.has_more && pages < 4) else { break };
            query = query.from_after(&schema, last);
        }
    }
    assert!(asked > questions / 3, "only {asked} of {questions} questions were any");
    assert!(shown > questions, "only {shown} rows were shown");
}

/// Votes with everything that a vote may have or lack.
fn random_votes(count: u64) -> Vec<LoggedVote> {
    let mut dice = Dice(7);
    let names: Vec<&str> = TEXTS.into_iter().filter(|text| !text.is_empty() && !text.contains('\n')).collect();
    let vote = |n: u64| {
        let partition = Partition(u16::try_from(dice.below(3)).unwrap());
        let mut logged = logged(n, partition, n);
        let vote = &mut logged.vote;
        dice.one(&names).clone_into(&mut vote.name);
        vote.album = (dice.below(3) > 0).then(|| dice.one(&names).to_owned());
        vote.year = (dice.below(3) > 0).then(|| 1_990 + u16::try_from(dice.below(5)).unwrap());
        vote.rank = (dice.below(3) > 0).then(|| dice.below(8) as f64 / 2.0);
        vote.accepted_at = UnixMillis(NOON.0 + i64::try_from(dice.below(20)).unwrap());
        if dice.below(4) == 0 {
            vote.contest = "other".parse().unwrap();
        }
        logged
    };
    (0..count).map(vote).collect()
}

pub async fn random_questions_of_votes_are_answered_as_by_a_look_at_every_vote(
    book: TheBook,
    _: TheDatasets,
    archive: TheArchive,
) {
    let votes = random_votes(150);
    book.insert(votes.clone().into()).await.unwrap();
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
        ("door", texts(&["rest", "grpc", "import", "re"])),
        ("partition", texts(&["0", "1", "2", "7"])),
        ("OFFSET", texts(&["0", "40", "100", "149", "9223372036854775807"])),
    ];
    let columns: Vec<(String, Vec<&str>)> = columns.into_iter().map(|(name, texts)| (name.to_owned(), texts)).collect();
    compare(&archive, &Table::Votes, &rows, &columns, 500).await;
}

async fn random_dataset(datasets: &TheDatasets, count: u64) -> (Table, Vec<Row>, Dataset) {
    let mut dice = Dice(11);
    let names = ["plain", "limit", "_id", "$where", "a.b", "", "twice", "Twice"];
    let columns: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let dataset = datasets.create(&"random".parse().unwrap(), columns).await.unwrap().unwrap();
    let row = |number| DatasetRow { number, cells: names.iter().map(|_| dice.one(&TEXTS).to_owned()).collect() };
    let rows: Vec<DatasetRow> = (0..count).map(row).collect();
    assert!(datasets.load(&dataset, rows.clone()).await.unwrap());
    assert!(datasets.finish(&dataset).await.unwrap());
    let dataset = datasets.describe(&dataset.id).await.unwrap().unwrap();
    let rows = rows.into_iter().map(|row| Row::of_dataset(row.number, row.cells)).collect();
    (Table::Dataset(Arc::new(dataset.clone())), rows, dataset)
}

pub async fn random_questions_of_a_dataset_are_answered_as_by_a_look_at_every_row(
    _: TheBook,
    datasets: TheDatasets,
    archive: TheArchive,
) {
    let (table, rows, dataset) = random_dataset(&datasets, 150).await;
    let schema = Schema::dataset(&dataset.columns);
    let columns: Vec<_> = (0..dataset.columns.len()).map(|column| (schema.field(column), TEXTS.to_vec())).collect();
    compare(&archive, &table, &rows, &columns, 500).await;
}

pub async fn pages_by_cursor_are_the_whole_answer(_: TheBook, datasets: TheDatasets, archive: TheArchive) {
    let (table, rows, dataset) = random_dataset(&datasets, 100).await;
    let schema = Schema::dataset(&dataset.columns);
    for sort in ["plain:desc", "$where,plain", "column.2:desc,a.b:asc"] {
        let mut shown: Vec<Row> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut parameters = vec![("sort", sort), ("limit", "7"), ("allow_scan", "true")];
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let query = ask(&schema, &parameters);
            let page = page(&archive, &table, &query).await;
            cursor = page.rows.last().filter(|_| page.has_more).map(|last| query.cursor_after(&schema, last).unwrap());
            shown.extend(page.rows);
            if cursor.is_none() {
                break;
            }
        }
        let whole = ask(&schema, &[("sort", sort), ("limit", "50000")]);
        assert_eq!(shown, evaluate(&whole, &schema, &rows).rows, "{sort}");
    }
}

pub async fn totals_are_bounded(_: TheBook, datasets: TheDatasets, archive: TheArchive) {
    let columns = super::datasets::columns(&["name", "n"]);
    let dataset = datasets.create(&"many".parse().unwrap(), columns).await.unwrap().unwrap();
    for chunk in 0..5 {
        datasets.load(&dataset, super::datasets::rows(chunk * 2_500..(chunk + 1) * 2_500)).await.unwrap();
    }
    datasets.finish(&dataset).await.unwrap();
    let dataset = Arc::new(datasets.describe(&dataset.id).await.unwrap().unwrap());
    let (table, schema) = (Table::Dataset(Arc::clone(&dataset)), Schema::dataset(&dataset.columns));
    let total = async |parameters: &[(&str, &str)]| page(&archive, &table, &ask(&schema, parameters)).await.total;
    assert_eq!(total(&[("limit", "5")]).await, Some(Total::AtLeast(query::MAX_TOTAL)));
    assert_eq!(total(&[("n", "lt:15000"), ("limit", "5")]).await, Some(Total::Exactly(5_000)));
    assert_eq!(total(&[("name", "Band 3"), ("limit", "5")]).await, Some(Total::Exactly(1_786)));
    // A page that is the last one tells all.
    assert_eq!(total(&[("limit", "50000")]).await, Some(Total::Exactly(12_500)));
}
