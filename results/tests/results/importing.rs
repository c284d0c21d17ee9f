//! Imports whose chunks another process has loaded.

use std::time::Duration;

use query::{
    Imports,
    import::{Chunk, Contents, Import, ImportId, ImportState, Loaded, Target},
};
use results::Limits;
use tokio::time::sleep;
use votes::UnixMillis;

use crate::{
    memory::Memory,
    server::{serve, with_timeout},
};

/// Stores an import whose last chunk was loaded `millis_ago` milliseconds ago.
async fn store_loaded_import(imports: &dyn Imports, millis_ago: i64) -> ImportId {
    let (id, at) = (ImportId::new(), UnixMillis(UnixMillis::now().0 - millis_ago));
    let contents = Contents { digest: String::new(), bytes: 9, columns: vec!["name".to_owned()], rows: 1, chunks: 1 };
    let target = Target::Votes { contest: "bands".parse().unwrap() };
    let import =
        Import { id, file: "votes.csv".to_owned(), begun_at: at, target, contents, state: ImportState::Loading };
    let chunk = Chunk { import: id, number: 0, bytes: 5..9, first_row: 0, first_line: 2 };
    imports.create(&import, std::slice::from_ref(&chunk)).await.unwrap();
    imports.record_done(&chunk, at, &Loaded { rows: 1, ..Loaded::default() }).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_another_process_is_finished_only_after_the_stall_timeout() {
    let memory = Memory::new();
    let sources = memory.sources(&["bands"], None).await;
    let abandoned = store_loaded_import(&*sources.import_ports.imports, 30_000).await;
    let recent = store_loaded_import(&*sources.import_ports.imports, 0).await;
    let server = serve(memory, sources, Limits::default()).await;
    let state = async |id| server.get(&format!("/v1/imports/{id}")).await.json()["state"].clone();
    let finished = async {
        while state(abandoned).await != "done" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    with_timeout(finished).await;
    assert_eq!(state(recent).await, "loading");
}
