//! This suite tests the promises of an object store to imports.

use std::sync::Arc;

use crate::Objects;

/// Tests every promise with the object store that `$open` opens.
#[macro_export]
macro_rules! objects_conformance {
    ($open:path) => {
        $crate::objects_conformance!($open:
            an_object_is_read_in_any_range
            an_object_of_many_parts_is_whole
            an_object_may_be_empty
            an_object_exists_only_after_it_is_finished
            a_dropped_writer_leaves_no_object
            a_missing_object_or_range_is_not_read
            an_object_is_replaced_as_a_whole
            an_object_may_be_removed_twice
            objects_are_written_concurrently
            a_name_that_leaves_the_folder_is_refused
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (objects, _guard) = $open().await;
            $crate::conformance::objects::$promise(objects).await;
        }
    )*};
}

type TheObjects = Arc<dyn Objects>;

const MEBIBYTE: usize = 1 << 20;

/// Returns bytes that repeat after 251 bytes. This is a prime number, so a part at a wrong position differs.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (seed..seed + len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn write(objects: &TheObjects, name: &str, pieces: &[Vec<u8>]) {
    let mut writer = objects.create(name).await.unwrap();
    for piece in pieces {
        writer.write(piece.clone()).await.unwrap();
    }
    writer.finish().await.unwrap();
}

async fn exists(objects: &TheObjects, name: &str) -> bool {
    objects.read(name, 0..0).await.unwrap().is_some()
}

async fn read(objects: &TheObjects, name: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    objects.read(name, range).await.unwrap().unwrap()
}

pub async fn an_object_is_read_in_any_range(objects: TheObjects) {
    write(&objects, "imports/0199/file.csv", &[b"name,votes\n".to_vec(), Vec::new(), b"Abba,3\n".to_vec()]).await;
    let all = b"name,votes\nAbba,3\n";
    for (from, to) in [(0, 18), (0, 1), (5, 12), (17, 18), (7, 7), (18, 18)] {
        let read = read(&objects, "imports/0199/file.csv", from as u64..to as u64).await;
        assert_eq!(read, all[from..to], "{from}..{to}");
    }
}

pub async fn an_object_of_many_parts_is_whole(objects: TheObjects) {
    let all = bytes(0, 20 * MEBIBYTE + 7);
    // One piece is larger than a part. The other pieces do not end where a part ends.
    let (first, second) = all.split_at(17 * MEBIBYTE + 3);
    let pieces: Vec<Vec<u8>> = [first].into_iter().chain(second.chunks(70_001)).map(<[u8]>::to_vec).collect();
    write(&objects, "many/parts", &pieces).await;
    let end = all.len() as u64;
    let mut whole = Vec::new();
    for from in (0..end).step_by(3_000_000) {
        whole.extend(read(&objects, "many/parts", from..end.min(from + 3_000_000)).await);
    }
    assert!(whole == all, "{} bytes were read, which differ from the {} that were written", whole.len(), all.len());
    assert!(objects.read("many/parts", end - 1..end + 1).await.is_err());
}

pub async fn an_object_may_be_empty(objects: TheObjects) {
    write(&objects, "empty", &[]).await;
    assert_eq!(read(&objects, "empty", 0..0).await, b"");
    assert!(objects.read("empty", 0..1).await.is_err());
}

pub async fn an_object_exists_only_after_it_is_finished(objects: TheObjects) {
    let mut writer = objects.create("a/b").await.unwrap();
    for _ in 0..10 {
        writer.write(bytes(1, MEBIBYTE)).await.unwrap();
        assert!(!exists(&objects, "a/b").await);
    }
    writer.finish().await.unwrap();
    assert_eq!(read(&objects, "a/b", 0..3).await, [1, 2, 3]);
}

pub async fn a_dropped_writer_leaves_no_object(objects: TheObjects) {
    for mebibytes in [0, 1, 20] {
        let mut writer = objects.create("a/b").await.unwrap();
        for _ in 0..mebibytes {
            writer.write(bytes(0, MEBIBYTE)).await.unwrap();
        }
        drop(writer);
    }
    assert!(!exists(&objects, "a/b").await);
    // A dropped writer does not change an existing object either.
    write(&objects, "a/b", &[b"old".to_vec()]).await;
    objects.create("a/b").await.unwrap().write(bytes(0, 9 * MEBIBYTE)).await.unwrap();
    assert_eq!(read(&objects, "a/b", 0..3).await, b"old");
}

pub async fn a_missing_object_or_range_is_not_read(objects: TheObjects) {
    for range in [0..0, 0..1] {
        assert_eq!(objects.read("never/written", range).await.unwrap(), None);
    }
    write(&objects, "ten", &[bytes(0, 10)]).await;
    for range in [0..11, 9..11, 10..11, 11..11, 50..60] {
        assert!(objects.read("ten", range.clone()).await.is_err(), "{range:?}");
    }
}

pub async fn an_object_is_replaced_as_a_whole(objects: TheObjects) {
    write(&objects, "a", &[bytes(0, 100)]).await;
    write(&objects, "a", &[b"new".to_vec()]).await;
    assert_eq!(read(&objects, "a", 0..3).await, b"new");
    assert!(objects.read("a", 0..4).await.is_err());
}

pub async fn an_object_may_be_removed_twice(objects: TheObjects) {
    objects.remove("never/there").await.unwrap();
    write(&objects, "a/b", &[b"x".to_vec()]).await;
    write(&objects, "a/bc", &[b"y".to_vec()]).await;
    for _ in 0..2 {
        objects.remove("a/b").await.unwrap();
        assert!(!exists(&objects, "a/b").await);
    }
    assert!(exists(&objects, "a/bc").await);
}

pub async fn objects_are_written_concurrently(objects: TheObjects) {
    let name = |n: usize| format!("side/by/side-{n}");
    let write_one = async |n: usize| write(&objects, &name(n), &[bytes(n, 9 * MEBIBYTE)]).await;
    futures::future::join_all((0..4).map(write_one)).await;
    for n in 0..4 {
        assert_eq!(read(&objects, &name(n), 0..1_000).await, bytes(n, 1_000));
    }
}

pub async fn a_name_that_leaves_the_folder_is_refused(objects: TheObjects) {
    for name in ["../a", "a/../../b", "a//b"] {
        assert!(objects.create(name).await.is_err(), "{name}");
        assert!(objects.read(name, 0..1).await.is_err(), "{name}");
        assert!(objects.remove(name).await.is_err(), "{name}");
    }
}
