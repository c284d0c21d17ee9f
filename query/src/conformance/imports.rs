//! This suite tests the promises of a store of imports and of a queue of chunks to the workers.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ChunkQueue, ImportProgress, Imports,
    import::{BadRow, Chunk, Contents, Import, ImportId, ImportState, Loaded, Target},
};
use votes::{ContestId, UnixMillis};

/// Tests every promise of the store of imports that `$open` opens.
#[macro_export]
macro_rules! imports_conformance {
    ($open:path) => {
        $crate::imports_conformance!($open:
            an_import_is_stored_with_all_its_chunks
            the_first_result_of_a_chunk_is_final
            progress_is_in_the_order_of_the_file
            an_import_ends_once
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (imports, _guard) = $open().await;
            $crate::conformance::imports::$promise(imports).await;
        }
    )*};
}

/// Tests every promise of a queue of chunks. `$open` opens two handles of the queue, which may be the same handle, and
/// the store of imports, if the queue depends on this store.
#[macro_export]
macro_rules! chunks_conformance {
    ($open:path) => {
        $crate::chunks_conformance!($open: a_chunk_is_delivered_until_it_is_acknowledged every_chunk_is_delivered);
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (queues, imports, _guard) = $open().await;
            $crate::conformance::imports::$promise(queues, imports).await;
        }
    )*};
}

type TheImports = Arc<dyn Imports>;

/// The store of imports, if the queue of chunks depends on this store.
type OptionalImports = Option<TheImports>;

/// Returns an import with this number of chunks.
pub fn import(chunks: u32) -> (Import, Vec<Chunk>) {
    let id = ImportId::new();
    let contents = Contents {
        digest: "00".repeat(32),
        bytes: 10 + u64::from(chunks) * 100,
        columns: vec!["name".to_owned(), "$where".to_owned(), String::new()],
        rows: u64::from(chunks) * 7,
        chunks,
    };
    let chunk = |number: u32| {
        let n = u64::from(number);
        Chunk { import: id, number, bytes: 10 + n * 100..110 + n * 100, first_row: n * 7, first_line: n * 8 + 2 }
    };
    let target = Target::Votes { contest: ContestId::default() };
    let (file, begun_at) = ("B\u{e4}nds 2026.csv".to_owned(), UnixMillis(1_795_262_400_000));
    let import = Import { id, file, begun_at, target, contents, state: ImportState::Loading };
    (import, (0..chunks).map(chunk).collect())
}

fn loaded(rows: u64, bad_lines: &[u64]) -> Loaded {
    let bad_rows = bad_lines.iter().map(|line| BadRow { line: *line, problem: "$bad".to_owned() }).collect();
    Loaded { rows, bad: bad_lines.len() as u64, bad_rows }
}

pub async fn an_import_is_stored_with_all_its_chunks(imports: TheImports) {
    let (import, chunks) = import(2_500);
    assert_eq!(imports.find(import.id).await.unwrap(), None);
    imports.create(&import, &chunks).await.unwrap();
    assert_eq!(imports.find(import.id).await.unwrap(), Some(import.clone()));
    assert_eq!(imports.loading().await.unwrap(), std::slice::from_ref(&import));
    assert_eq!(imports.pending_chunks(import.id, 10_000).await.unwrap(), chunks);
    assert_eq!(imports.pending_chunks(import.id, 3).await.unwrap(), chunks[..3]);
    assert_eq!(imports.progress(import.id).await.unwrap(), ImportProgress::default());
}

pub async fn the_first_result_of_a_chunk_is_final(imports: TheImports) {
    let (import, chunks) = import(3);
    imports.create(&import, &chunks).await.unwrap();
    assert!(!imports.is_done(&chunks[1]).await.unwrap());
    imports.record_done(&chunks[1], UnixMillis(5), &loaded(7, &[])).await.unwrap();
    imports.record_done(&chunks[1], UnixMillis(9), &loaded(0, &[1, 2])).await.unwrap();
    assert!(imports.is_done(&chunks[1]).await.unwrap());
    assert_eq!(imports.pending_chunks(import.id, 10).await.unwrap(), [chunks[0].clone(), chunks[2].clone()]);
    let expected = ImportProgress { chunks: 1, last_done_at: Some(UnixMillis(5)), loaded: loaded(7, &[]) };
    assert_eq!(imports.progress(import.id).await.unwrap(), expected);
}

pub async fn progress_is_in_the_order_of_the_file(imports: TheImports) {
    let (import, chunks) = import(12);
    let (other, _) = self::import(1);
    imports.create(&import, &chunks).await.unwrap();
    imports.create(&other, &[Chunk { import: other.id, ..chunks[0].clone() }]).await.unwrap();
    for chunk in chunks.iter().rev() {
        let line = chunk.first_line;
        imports.record_done(chunk, UnixMillis(100 - i64::from(chunk.number)), &loaded(6, &[line])).await.unwrap();
    }
    let lines: Vec<u64> = chunks.iter().map(|chunk| chunk.first_line).collect();
    let expected = ImportProgress { chunks: 12, last_done_at: Some(UnixMillis(100)), loaded: loaded(72, &lines) };
    assert_eq!(imports.progress(import.id).await.unwrap(), expected);
    assert_eq!(imports.pending_chunks(import.id, 1).await.unwrap(), []);
    assert_eq!(imports.pending_chunks(other.id, 9).await.unwrap().len(), 1);
}

pub async fn an_import_ends_once(imports: TheImports) {
    let (first, chunks) = import(1);
    let (second, others) = import(1);
    imports.create(&first, &chunks).await.unwrap();
    imports.create(&second, &others).await.unwrap();
    let failed = ImportState::Failed { problem: "gone".to_owned() };
    imports.end(first.id, &failed).await.unwrap();
    imports.end(first.id, &ImportState::Done).await.unwrap();
    imports.end(ImportId::new(), &ImportState::Done).await.unwrap();
    assert_eq!(imports.loading().await.unwrap(), [second]);
    assert_eq!(imports.find(first.id).await.unwrap(), Some(Import { state: failed, ..first }));
}

pub async fn a_chunk_is_delivered_until_it_is_acknowledged(
    [queue, _]: [Arc<dyn ChunkQueue>; 2],
    imports: OptionalImports,
) {
    let (import, chunks) = import(1);
    create(&imports, &import, &chunks).await;
    queue.publish(&chunks).await.unwrap();
    assert_eq!(queue.next().await.unwrap(), chunks[0]);
    assert_eq!(queue.next().await.unwrap(), chunks[0]);
    record_done(&imports, &chunks[0]).await;
    queue.acknowledge().await.unwrap();
    let (second, others) = self::import(1);
    create(&imports, &second, &others).await;
    queue.publish(&others).await.unwrap();
    assert_eq!(queue.next().await.unwrap(), others[0]);
}

pub async fn every_chunk_is_delivered(queues: [Arc<dyn ChunkQueue>; 2], imports: OptionalImports) {
    let (import, chunks) = import(40);
    create(&imports, &import, &chunks).await;
    let sender = Arc::clone(&queues[0]);
    let published = chunks.clone();
    let mut delivered = BTreeSet::new();
    let [first, second] = queues;
    let (publish, ()) = futures::join!(async move { sender.publish(&published).await }, async {
        while delivered.len() < chunks.len() {
            // Both handles wait at the same time, because all chunks may be delivered to one of them.
            let (chunk, queue) = match futures::future::select(first.next(), second.next()).await {
                futures::future::Either::Left((chunk, _)) => (chunk.unwrap(), &first),
                futures::future::Either::Right((chunk, _)) => (chunk.unwrap(), &second),
            };
            record_done(&imports, &chunk).await;
            queue.acknowledge().await.unwrap();
            delivered.insert(chunk.number);
        }
    });
    publish.unwrap();
    assert!(delivered.into_iter().eq(0..40));
}

async fn create(imports: &OptionalImports, import: &Import, chunks: &[Chunk]) {
    if let Some(imports) = imports {
        imports.create(import, chunks).await.unwrap();
    }
}

async fn record_done(imports: &OptionalImports, chunk: &Chunk) {
    if let Some(imports) = imports {
        imports.record_done(chunk, UnixMillis::now(), &Loaded::default()).await.unwrap();
    }
}
