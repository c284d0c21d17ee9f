//! This suite tests the promises of a store of datasets to imports.

use std::sync::Arc;

use crate::{Dataset, DatasetId, DatasetRow, Datasets, Found, Query, QueryStore, Row, Schema, Table};

/// Tests every promise with the store of datasets and the query store that `$open` opens.
#[macro_export]
macro_rules! datasets_conformance {
    ($open:path) => {
        $crate::datasets_conformance!($open:
            a_dataset_is_created_once
            loading_rows_again_changes_nothing
            chunks_are_loaded_in_any_order_and_concurrently
            rows_raise_the_version_and_no_version_is_reused
            a_new_dataset_has_no_rows_of_a_removed_one_of_the_same_name
            any_column_name_and_any_text_is_stored_and_found
            a_finished_dataset_accepts_late_rows
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (datasets, query_store, _guard) = $open().await;
            $crate::conformance::datasets::$promise(datasets, query_store).await;
        }
    )*};
}

type TheDatasets = Arc<dyn Datasets>;
type TheQueryStore = Arc<dyn QueryStore>;

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

async fn all_rows(query_store: &TheQueryStore, dataset: &Dataset) -> Vec<Row> {
    let schema = Schema::dataset(&dataset.columns);
    let query = Query::parse(&schema, [("limit", "50000"), ("allow_scan", "true")]).unwrap();
    match query_store.find(&Table::Dataset(Arc::new(dataset.clone())), &query).await.unwrap() {
        Found::Page(page) => page.rows,
        Found::TooManyRows(max) => panic!("the query was refused: more than {max} rows"),
    }
}

pub async fn a_dataset_is_created_once(datasets: TheDatasets, _: TheQueryStore) {
    assert_eq!(datasets.describe(&id("bands-2026")).await.unwrap(), None);
    let created = datasets.create(&id("bands-2026"), columns(&["name", "votes"])).await.unwrap().unwrap();
    assert_eq!((&created.columns, created.rows, created.is_finished), (&columns(&["name", "votes"]), 0, false));
    assert_eq!(datasets.create(&id("bands-2026"), columns(&["other"])).await.unwrap(), None);
    assert_eq!(datasets.describe(&id("bands-2026")).await.unwrap(), Some(created.clone()));
    let second = datasets.create(&id("a"), columns(&["x"])).await.unwrap().unwrap();
    assert_eq!(datasets.list().await.unwrap(), vec![second, created]);
    assert!(datasets.remove(&id("a")).await.unwrap());
    assert!(!datasets.remove(&id("a")).await.unwrap());
    assert_eq!(datasets.list().await.unwrap().len(), 1);
}

pub async fn loading_rows_again_changes_nothing(datasets: TheDatasets, query_store: TheQueryStore) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    for numbers in [0..50, 0..50, 40..120, 0..0] {
        assert!(datasets.load(&dataset, rows(numbers)).await.unwrap());
    }
    let expected: Vec<Row> = rows(0..120).into_iter().map(|row| Row::of_dataset(row.number, row.cells)).collect();
    assert_eq!(all_rows(&query_store, &dataset).await, expected);
    assert!(datasets.finish(&dataset).await.unwrap());
    assert!(datasets.finish(&dataset).await.unwrap());
    let finished = datasets.describe(&id("d")).await.unwrap().unwrap();
    assert_eq!((finished.rows, finished.is_finished), (120, true));
    assert_eq!(all_rows(&query_store, &finished).await, expected);
}

pub async fn chunks_are_loaded_in_any_order_and_concurrently(datasets: TheDatasets, query_store: TheQueryStore) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    let load = |chunk: u64| {
        let (datasets, dataset) = (Arc::clone(&datasets), dataset.clone());
        // Each chunk is loaded twice.
        let chunk = chunk % 6;
        async move { datasets.load(&dataset, rows(chunk * 300..(chunk + 1) * 300)).await.unwrap() }
    };
    let loaded = futures::future::join_all((0..12).rev().map(load)).await;
    assert!(loaded.into_iter().all(|exists| exists));
    let numbers: Vec<u64> = all_rows(&query_store, &dataset).await.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (0..1_800).collect::<Vec<_>>());
}

pub async fn rows_raise_the_version_and_no_version_is_reused(datasets: TheDatasets, _: TheQueryStore) {
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

pub async fn a_new_dataset_has_no_rows_of_a_removed_one_of_the_same_name(
    datasets: TheDatasets,
    query_store: TheQueryStore,
) {
    let first = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    datasets.load(&first, rows(0..3)).await.unwrap();
    datasets.remove(&first.id).await.unwrap();
    assert!(!datasets.load(&first, rows(3..6)).await.unwrap());
    assert!(!datasets.finish(&first).await.unwrap());
    let second = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    assert!(!datasets.load(&first, rows(3..6)).await.unwrap());
    assert_eq!(all_rows(&query_store, &second).await, Vec::new());
}

/// Names and texts that have a special meaning in a store or in the grammar.
pub const SPECIAL_TEXTS: [&str; 18] = [
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

pub async fn any_column_name_and_any_text_is_stored_and_found(datasets: TheDatasets, query_store: TheQueryStore) {
    let dataset = datasets.create(&id("d"), columns(&SPECIAL_TEXTS)).await.unwrap().unwrap();
    let row = |number: u64| {
        let shift = usize::try_from(number).unwrap();
        DatasetRow {
            number,
            cells: (0..SPECIAL_TEXTS.len())
                .map(|at| SPECIAL_TEXTS[(at + shift) % SPECIAL_TEXTS.len()].to_owned())
                .collect(),
        }
    };
    let rows: Vec<DatasetRow> = (0..SPECIAL_TEXTS.len() as u64).map(row).collect();
    datasets.load(&dataset, rows.clone()).await.unwrap();
    datasets.finish(&dataset).await.unwrap();
    let dataset = datasets.describe(&dataset.id).await.unwrap().unwrap();
    assert_eq!(dataset.columns, columns(&SPECIAL_TEXTS));
    let (table, schema) = (Table::Dataset(Arc::new(dataset.clone())), Schema::dataset(&dataset.columns));
    for (column, row) in (0..SPECIAL_TEXTS.len()).zip(&rows) {
        let name = format!("column.{}", column + 1);
        let text = &row.cells[column];
        let query = Query::parse(&schema, [(name.as_str(), format!("eq:{text}").as_str())]).unwrap();
        let Found::Page(page) = query_store.find(&table, &query).await.unwrap() else {
            panic!("the query was refused")
        };
        assert_eq!(page.rows, [Row::of_dataset(row.number, row.cells.clone())], "{name}={text}");
    }
}

pub async fn a_finished_dataset_accepts_late_rows(datasets: TheDatasets, query_store: TheQueryStore) {
    let dataset = datasets.create(&id("d"), columns(&["name", "n"])).await.unwrap().unwrap();
    datasets.load(&dataset, rows(0..10)).await.unwrap();
    datasets.finish(&dataset).await.unwrap();
    // A slow worker loads a chunk that another worker has loaded.
    assert!(datasets.load(&dataset, rows(5..12)).await.unwrap());
    assert_eq!(all_rows(&query_store, &dataset).await.len(), 12);
}
