//! A batch in lines. For any size of chunks, the splitter finds the lines that are not blank.

#![no_main]

#[path = "../../rest-producer/src/split.rs"]
#[allow(dead_code)]
mod split;
#[path = "chunks.rs"]
mod chunks;

use libfuzzer_sys::fuzz_target;
use split::Framing;

fuzz_target!(|input: &[u8]| {
    let Some((&chunk, body)) = input.split_first() else { return };
    let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).map(<[u8]>::to_vec);
    assert_eq!(chunks::split(Framing::Lines, body, usize::from(chunk) + 1), (lines.collect(), true));
});
