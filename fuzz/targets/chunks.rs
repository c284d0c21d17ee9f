//! Runs the splitter on a batch that arrives in chunks.

use crate::split::{Element, Framing, Splitter};

/// Returns the elements, and whether the framing of the batch is valid. `chunk_size` is in bytes. The inputs of the
/// fuzzer are too short for oversized elements.
pub fn split(framing: Framing, body: &[u8], chunk_size: usize) -> (Vec<Vec<u8>>, bool) {
    let mut splitter = Splitter::new(framing);
    let mut elements = Vec::new();
    for chunk in body.chunks(chunk_size) {
        splitter.buffer().extend_from_slice(chunk);
        loop {
            match splitter.next_element() {
                Ok(Some(Element::Vote(bytes))) => elements.push(bytes.to_vec()),
                Ok(Some(Element::Oversized)) => unreachable!("an input has at most 4096 bytes"),
                Ok(None) => break,
                Err(_) => return (elements, false),
            }
        }
    }
    match splitter.finish() {
        Ok(Some(Element::Vote(bytes))) => elements.push(bytes.to_vec()),
        Ok(_) => {}
        Err(_) => return (elements, false),
    }
    (elements, true)
}
