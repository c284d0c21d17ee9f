//! What importing needs of datasets.

use std::sync::Arc;

use crate::{
    Archive, Dataset, DatasetId, DatasetRow, Datasets, Found, Table,
    query::{Query, Row, Schema},
};

/// Tries every promise against the datasets that `$open` opens, and the archive that reads them.
#[macro_export]
macro_rules! datasets_conformance {
    ($open:path) => {
        $crate::datasets_conformance!($open:
            a_dataset_is_made_once
            rows_are_loaded_once_however_often
            chunks_may_come_in_any_order_and_side_by_side
            a_version_is_raised_by_rows_and_told_once
            another_dataset_of_the_name_takes_no_rows
            any_column_and_any_text_is_kept_and_found
            a_finished_dataset_still_takes_late_rows
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (datasets, archive, _kept) = $open().await;
            $crate::conformance::datasets::$promise(datasets, archive).await;
        }
    )*};
}

type TheDatasets = Arc<dyn Datasets>;
type TheArchive = Arc<dyn Archive>;

fn id(name: &str) -> DatasetId {
    name.parse().unwrap()
}

pub(super) fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn rows(numbers: impl IntoIterator<Item = u64>) -> Vec<DatasetRow> {
    let row =
        |number: u64| DatasetRow { number, cells: vec![format!("Band {}", number % 7), (number * 3).to_string()] };
    numbers.into_iter().map(row).collect()
}

async fn all(archive: &TheArchive, dataset: &Dataset) -> Vec<Row> {
    let schema = Schema::dataset(&dataset.columns);
    let query = Query::parse(&schema, [("limit", "50000"), ("allow_scan", "true")]).unwrap();
    match archive.find(&Table::Dataset(Arc::new(dataset.clone())), &query).await.unwrap() {
        Found::Page(page) => page.rows,
        Found::TooMuch(most) => panic!("{most} are too many"),
    }
}

pub async fn a_dataset_is_made_once(datasets: TheDatasets, _: TheArchive) {
    assert_eq!(datasets.describe(&id("bands-2026")).await.unwrap(), None);
    let made = datasets.create(&id("bands-2026"), columns(&["name", "votes"])).await.unwrap().unwrap();
    assert_eq!((&made.columns, made.rows, made.is_finished), (&columns(&["name", "votes"]), 0, false));
    assert_eq!(datasets.create(&id("bands-2026"), columns(&["other"])).await.unwrap(), None);
    assert_eq!(datasets.describe(&id("bands-2026")).await.unwrap(), Some(made.clone()));
    let second = datasets.create(&id("a"), columns(&["x"])).await.unwrap().unwrap();
    assert_eq!(datasets.list().await.unwrap(), vec![second, made]);
    assert!(datasets.remove(&id("a")).await.unwrap());
    assert!(!datasets.remove(&id("a")).await.unwrap());
    assert_eq!(datasets.list().await.unwrap().len(), 1);
}

pub async fn rows_are_loaded_once_however_often(datasets: TheDatasets, archive: TheArchive) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    for numbers in [0..50, 0..50, 40..120, 0..0] {
        assert!(datasets.load(&dataset, rows(numbers)).await.unwrap());
    }
    let expected: Vec<Row> = rows(0..120).into_iter().map(|row| Row::of_dataset(row.number, row.cells)).collect();
    assert_eq!(all(&archive, &dataset).await, expected);
    assert!(datasets.finish(&dataset).await.unwrap());
    assert!(datasets.finish(&dataset).await.unwrap());
    let finished = datasets.describe(&id("d")).await.unwrap().unwrap();
    assert_eq!((finished.rows, finished.is_finished), (120, true));
    assert_eq!(all(&archive, &finished).await, expected);
}

pub async fn chunks_may_come_in_any_order_and_side_by_side(datasets: TheDatasets, archive: TheArchive) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    let load = |chunk: u64| {
        let (datasets, dataset) = (Arc::clone(&datasets), dataset.clone());
        // Each is loaded by two.
        let chunk = chunk % 6;
        async move { datasets.load(&dataset, rows(chunk * 300..(chunk + 1) * 300)).await.unwrap() }
    };
    let loaded = futures::future::join_all((0..12).rev().map(load)).await;
    assert!(loaded.into_iter().all(|was_there| was_there));
    let numbers: Vec<u64> = all(&archive, &dataset).await.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (0..1_800).collect::<Vec<_>>());
}

pub async fn a_version_is_raised_by_rows_and_told_once(datasets: TheDatasets, _: TheArchive) {
    let version = async |dataset: &Dataset| datasets.describe(&dataset.id).await.unwrap().unwrap().version;
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    let empty = version(&dataset).await;
    assert_eq!((empty, dataset.generation), (dataset.version, dataset.version));
    datasets.load(&dataset, rows(0..3)).await.unwrap();
    let loaded = version(&dataset).await;
    assert!(loaded > empty);
    datasets.remove(&dataset.id).await.unwrap();
    let again = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    assert!(again.version > loaded, "{} after {loaded}", again.version);
}

pub async fn another_dataset_of_the_name_takes_no_rows(datasets: TheDatasets, archive: TheArchive) {
    let first = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    datasets.load(&first, rows(0..3)).await.unwrap();
    datasets.remove(&first.id).await.unwrap();
    assert!(!datasets.load(&first, rows(3..6)).await.unwrap());
    assert!(!datasets.finish(&first).await.unwrap());
    let second = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    assert!(!datasets.load(&first, rows(3..6)).await.unwrap());
    assert_eq!(all(&archive, &second).await, Vec::new());
}

/// Names and texts that mean something to one store or another.
pub const HOSTILE: [&str; 18] = [
    "limit",
    "_id",
    "$where",
    "a.b",
    "",
    "Name",
    "name",
    "sort",
    "column.1",
    "c1",
    "n1",
    "row",
    "\"; DROP TABLE x; --",
    "{\"$gt\": \"\"}",
    "a,b:c",
    "Motörhead",
    "\u{1F3B8}",
    "%_*?[]^\\",
];

pub async fn any_column_and_any_text_is_kept_and_found(datasets: TheDatasets, archive: TheArchive) {
    let dataset = datasets.create(&id("d"), columns(&HOSTILE)).await.unwrap().unwrap();
    let row = |number: u64| {
        let shift = usize::try_from(number).unwrap();
        DatasetRow {
            number,
            cells: (0..HOSTILE.len()).map(|at| HOSTILE[(at + shift) % HOSTILE.len()].to_owned()).collect(),
        }
    };
    let rows: Vec<DatasetRow> = (0..HOSTILE.len() as u64).map(row).collect();
    datasets.load(&dataset, rows.clone()).await.unwrap();
    datasets.finish(&dataset).await.unwrap();
    let dataset = datasets.describe(&dataset.id).await.unwrap().unwrap();
    assert_eq!(dataset.columns, columns(&HOSTILE));
    let (table, schema) = (Table::Dataset(Arc::new(dataset.clone())), Schema::dataset(&dataset.columns));
    for (column, row) in (0..HOSTILE.len()).zip(&rows) {
        let name = format!("column.{}", column + 1);
        let text = &row.cells[column];
        let query = Query::parse(&schema, [(name.as_str(), format!("eq:{text}").as_str())]).unwrap();
        let Found::Page(page) = archive.find(&table, &query).await.unwrap() else { panic!("too much") };
        assert_eq!(page.rows, [Row::of_dataset(row.number, row.cells.clone())], "{name}={text}");
    }
}

pub async fn a_finished_dataset_still_takes_late_rows(datasets: TheDatasets, archive: TheArchive) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    datasets.load(&dataset, rows(0..10)).await.unwrap();
    datasets.finish(&dataset).await.unwrap();
    // A worker that was slow, and does what was done.
    assert!(datasets.load(&dataset, rows(5..12)).await.unwrap());
    assert_eq!(all(&archive, &dataset).await.len(), 12);
}
