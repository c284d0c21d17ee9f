//! Imports that other processes loaded.

use std::time::Duration;

use results::Limits;
use tokio::time::sleep;
use votes::{
    Imports, UnixMillis,
    import::{Chunk, Contents, Import, ImportId, ImportState, Loaded, Target},
};

use crate::{
    memory::Memory,
    server::{serve, soon},
};

/// Notes an import of which all was loaded so long ago.
async fn loaded_before(imports: &dyn Imports, milliseconds: i64) -> ImportId {
    let (id, at) = (ImportId::new(), UnixMillis(UnixMillis::now().0 - milliseconds));
    let contents = Contents { digest: String::new(), bytes: 9, columns: vec!["name".to_owned()], rows: 1, chunks: 1 };
    let target = Target::Votes { contest: "bands".parse().unwrap() };
    let import =
        Import { id, file: "votes.csv".to_owned(), begun_at: at, target, contents, state: ImportState::Loading };
    let chunk = Chunk { import: id, number: 0, bytes: 5..9, first_row: 0, first_line: 2 };
    imports.begin(&import, std::slice::from_ref(&chunk)).await.unwrap();
    imports.done(&chunk, at, &Loaded { rows: 1, ..Loaded::default() }).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_finished_for_another_process_only_once_that_may_be_gone() {
    let memory = Memory::new();
    let sources = memory.sources(&["bands"], None).await;
    let abandoned = loaded_before(&*sources.importing.imports, 30_000).await;
    let at_work = loaded_before(&*sources.importing.imports, 0).await;
    let server = serve(memory, sources, Limits::default()).await;
    let state = async |id| server.get(&format!("/v1/imports/{id}")).await.json()["state"].clone();
    let finished = async {
        while state(abandoned).await != "done" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon(finished).await;
    assert_eq!(state(at_work).await, "loading");
}
