//! A batch in a JSON array. The splitter finds the same elements for any size of chunks, and for a valid array they are
//! the elements that `serde_json` finds.

#![no_main]

#[path = "../../rest-producer/src/split.rs"]
#[allow(dead_code)]
mod split;
#[path = "chunks.rs"]
mod chunks;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use split::Framing;

fuzz_target!(|input: &[u8]| {
    let Some((&chunk, body)) = input.split_first() else { return };
    let whole = chunks::split(Framing::Array, body, usize::MAX);
    assert_eq!(chunks::split(Framing::Array, body, usize::from(chunk) + 1), whole);
    let is_json = |element: &Vec<u8>| serde_json::from_slice::<&RawValue>(element).is_ok();
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(elements) => {
            let elements = elements.iter().map(|element| element.get().as_bytes().to_vec()).collect();
            assert_eq!(whole, (elements, true));
        }
        Err(error) => assert!(!(whole.1 && whole.0.iter().all(is_json)), "{error}"),
    }
});
