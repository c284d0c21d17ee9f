//! Splits the body of a batch into votes while the body arrives: a JSON array into its elements, or NDJSON into its
//! lines.
//!
//! This file parses only the framing: where each element begins and ends. The content of an element is parsed later, so
//! an invalid vote does not break the batch.

use votes::{MAX_VOTE_BYTES, Reason, Refusal};

/// The framing of the votes in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Elements of one JSON array (RFC 8259).
    Array,
    /// One JSON text per line. Blank lines are skipped (<https://github.com/ndjson/ndjson-spec>).
    Lines,
}

/// The bytes of one vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// A vote of at most [`MAX_VOTE_BYTES`].
    Vote(&'a [u8]),
    /// A larger vote, whose bytes were skipped.
    Oversized,
}

/// Splits a body into its elements. The body arrives in chunks of any size. The buffer holds at most one unfinished
/// element and the latest chunk.
#[derive(Debug)]
pub(crate) struct Splitter {
    framing: Framing,
    state: State,
    buffer: Vec<u8>,
    /// The position in the buffer at which the unfinished element begins. While an oversized element is skipped, this
    /// position moves forward.
    begin: usize,
    /// The position up to which the buffer was scanned.
    scanned: usize,
    is_oversized: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the `[` of the array.
    Start,
    /// After `[`: an element or `]` must follow.
    First,
    /// After a comma: an element must follow.
    Next,
    /// In an element.
    InElement(ElementState),
    /// After an element: a comma or `]` must follow.
    After,
    /// After the array.
    End,
    /// In a line.
    Line,
}

impl Splitter {
    /// Creates a splitter at the beginning of a body.
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Array => State::Start,
            Framing::Lines => State::Line,
        };
        Self { framing, state, buffer: Vec::new(), begin: 0, scanned: 0, is_oversized: false }
    }

    /// Returns the buffer, to which the caller must append the next chunk. Call [`next_element`](Self::next_element)
    /// until it returns `None` first: bytes of earlier elements are removed from the buffer.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.is_oversized {
            self.begin = self.scanned;
        }
        self.buffer.drain(..self.begin);
        self.scanned -= self.begin;
        self.begin = 0;
        &mut self.buffer
    }

    /// Returns the next complete element, or `None` if the buffer has no complete element.
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if the framing is invalid. The rest of the body can't be read.
    pub(crate) fn next_element(&mut self) -> Result<Option<Element<'_>>, Refusal> {
        let range = match self.framing {
            Framing::Array => self.scan_array()?,
            Framing::Lines => self.scan_line(),
        };
        Ok(range.map(|(begin, end)| self.take(begin, end)))
    }

    /// Returns the last element at the end of the body, if there is one: a line without a line feed.
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if the array is incomplete.
    pub(crate) fn finish(&mut self) -> Result<Option<Element<'_>>, Refusal> {
        match self.state {
            State::End => Ok(None),
            State::Line => {
                let (begin, end) = (self.begin, self.buffer.len());
                (self.begin, self.scanned) = (end, end);
                let is_blank = self.buffer[begin..].trim_ascii().is_empty() && !self.is_oversized;
                Ok(if is_blank { None } else { Some(self.take(begin, end)) })
            }
            State::Start => Err(malformed("the body is empty; a batch is a JSON array of votes")),
            _ => Err(malformed("the array is incomplete")),
        }
    }

    fn take(&mut self, begin: usize, end: usize) -> Element<'_> {
        let is_oversized = std::mem::take(&mut self.is_oversized);
        let bytes = &self.buffer[begin..end];
        if is_oversized || bytes.len() > MAX_VOTE_BYTES { Element::Oversized } else { Element::Vote(bytes) }
    }

    fn scan_line(&mut self) -> Option<(usize, usize)> {
        loop {
            let Some(length) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') else {
                self.scanned = self.buffer.len();
                self.is_oversized |= self.scanned - self.begin > MAX_VOTE_BYTES;
                return None;
            };
            let (begin, end) = (self.begin, self.scanned + length);
            (self.begin, self.scanned) = (end + 1, end + 1);
            if self.is_oversized || !self.buffer[begin..end].trim_ascii().is_empty() {
                return Some((begin, end));
            }
        }
    }

    fn scan_array(&mut self) -> Result<Option<(usize, usize)>, Refusal> {
        loop {
            let ahead = &self.buffer[self.scanned..];
            if let State::InElement(element) = &mut self.state {
                let Some(length) = element.end(ahead) else {
                    self.scanned = self.buffer.len();
                    self.is_oversized |= self.scanned - self.begin > MAX_VOTE_BYTES;
                    return Ok(None);
                };
                self.scanned += length;
                self.state = State::After;
                return Ok(Some((std::mem::replace(&mut self.begin, self.scanned), self.scanned)));
            }
            let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            let spaces = ahead.iter().take_while(|byte| is_space(byte)).count();
            self.begin = self.scanned + spaces;
            self.scanned = self.begin;
            let Some(&byte) = ahead.get(spaces) else { return Ok(None) };
            self.state = self.state.after(byte)?;
            if !matches!(self.state, State::InElement(_)) {
                self.scanned += 1;
            }
        }
    }
}

impl State {
    /// Returns the state after a byte between elements. The byte is not white space.
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        match (self, byte) {
            (Self::Start, b'[') => Ok(Self::First),
            (Self::Start, _) => {
                Err(malformed("a batch is a JSON array of votes, but the body does not begin with '['"))
            }
            (Self::First | Self::After, b']') => Ok(Self::End),
            (Self::After, b',') => Ok(Self::Next),
            (Self::After, _) => Err(malformed("a comma or ']' is missing after a vote")),
            (Self::End, _) => Err(malformed("there are bytes after the array")),
            (_, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z') => Ok(Self::InElement(ElementState::default())),
            _ => Err(malformed("a vote is expected, but there is no JSON value")),
        }
    }
}

/// The state of the scan within an element.
#[derive(Clone, Copy, Debug, Default)]
struct ElementState {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

impl ElementState {
    /// Returns how many of these bytes belong to the element, or `None` if the element does not end within them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => continue,
                }
            } else if self.is_scalar {
                // A number or a literal ends before the next separator.
                if matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                    return Some(index);
                }
                continue;
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ if self.depth == 0 => self.is_scalar = true,
                    _ => continue,
                }
            }
            if self.depth == 0 && !self.in_string && !self.is_scalar {
                return Some(index + 1);
            }
        }
        None
    }
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Reason::MalformedBody, detail)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serde_json::value::RawValue;

    use super::*;

    /// The elements, with `None` for an oversized element, and whether the framing is complete.
    type Split = (Vec<Option<Vec<u8>>>, bool);

    fn split<'a>(framing: Framing, chunks: impl IntoIterator<Item = &'a [u8]>) -> Split {
        let to_vec = |element: Element<'_>| match element {
            Element::Vote(bytes) => Some(bytes.to_vec()),
            Element::Oversized => None,
        };
        let mut splitter = Splitter::new(framing);
        let mut elements = Vec::new();
        for chunk in chunks {
            let buffer = splitter.buffer();
            assert!(buffer.len() <= MAX_VOTE_BYTES, "the buffer has more than an unfinished element");
            buffer.extend_from_slice(chunk);
            loop {
                match splitter.next_element() {
                    Ok(Some(element)) => elements.push(to_vec(element)),
                    Ok(None) => break,
                    Err(_) => return (elements, false),
                }
            }
        }
        let end = splitter.finish().map(|element| elements.extend(element.map(to_vec)));
        (elements, end.is_ok())
    }

    fn chunked<'a>(body: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = body;
        let cuts = lengths.iter().cycle().map_while(move |length| {
            let (chunk, left) = rest.split_at_checked(*length).unwrap_or((rest, &[]));
            rest = left;
            (!chunk.is_empty()).then_some(chunk)
        });
        cuts.fuse()
    }

    fn small(bytes: &[u8]) -> Option<Vec<u8>> {
        (bytes.len() <= MAX_VOTE_BYTES).then(|| bytes.to_vec())
    }

    /// Splits the whole array with `serde_json`.
    fn whole(body: &[u8]) -> Option<Split> {
        let elements: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
        Some((elements.iter().map(|element| small(element.get().as_bytes())).collect(), true))
    }

    fn json() -> impl Strategy<Value = String> {
        let text = "(\\PC|[\"\\\\\\[\\]{},:\n])*".prop_map(|text: String| serde_json::Value::from(text).to_string());
        let number = "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?";
        let literal = select(vec!["true", "false", "null"]).prop_map(str::to_owned);
        let leaf = prop_oneof![text.clone(), number, literal];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..5), space()).prop_map(|(items, space)| array(&items, &space)),
                (prop::collection::vec((text.clone(), inner), 0..5), space()).prop_map(|(fields, space)| {
                    let fields: Vec<_> =
                        fields.iter().map(|(key, value)| format!("{key}{space}:{space}{value}")).collect();
                    format!("{{{space}{}{space}}}", fields.join(","))
                }),
            ]
        })
    }

    fn space() -> impl Strategy<Value = String> {
        "[ \t\r\n]{0,2}"
    }

    fn array(items: &[String], space: &str) -> String {
        format!("{space}[{space}{}{space}]{space}", items.join(&format!("{space},{space}")))
    }

    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(1..40_usize, 1..10)
    }

    proptest! {
        #[test]
        fn an_array_has_the_same_elements_in_any_chunks(
            items in prop::collection::vec(json(), 0..8), space in space(), lengths in lengths(),
        ) {
            let body = array(&items, &space);
            let split = split(Framing::Array, chunked(body.as_bytes(), &lengths));
            prop_assert_eq!(Some(split), whole(body.as_bytes()));
        }

        #[test]
        fn an_array_with_a_changed_byte_is_split_equally_in_any_chunks_and_is_never_valid_if_it_is_not_json(
            items in prop::collection::vec(json(), 0..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
            lengths in lengths(),
        ) {
            let mut body = array(&items, "").into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            let at_once = split(Framing::Array, [body.as_slice()]);
            prop_assert_eq!(&split(Framing::Array, chunked(&body, &lengths)), &at_once);
            let is_json = |element: &Option<Vec<u8>>| element.as_ref().is_some_and(|json| serde_json::from_slice::<&RawValue>(json).is_ok());
            match whole(&body) {
                Some(whole) => prop_assert_eq!(at_once, whole),
                None => prop_assert!(!(at_once.1 && at_once.0.iter().all(is_json))),
            }
        }

        #[test]
        fn the_lines_that_are_not_blank_are_the_same_in_any_chunks(
            lines in prop::collection::vec("[ x{}\r\"]{0,6}", 0..10), lengths in lengths(),
        ) {
            let body = lines.join("\n");
            let expected = lines.iter().filter(|line| !line.trim_ascii().is_empty()).map(|line| small(line.as_bytes()));
            let split = split(Framing::Lines, chunked(body.as_bytes(), &lengths));
            prop_assert_eq!(split, (expected.collect(), true));
        }

        #[test]
        fn only_oversized_elements_are_skipped(
            sizes in prop::collection::vec(select(vec![1, 100, MAX_VOTE_BYTES, MAX_VOTE_BYTES + 1, 3 * MAX_VOTE_BYTES]), 1..6),
            chunk in select(vec![1, 1_000, MAX_VOTE_BYTES, 100_000]),
        ) {
            let items: Vec<_> = sizes.iter().map(|size| "7".repeat(*size)).collect();
            let expected: Vec<_> = items.iter().map(|item| small(item.as_bytes())).collect();
            let (array, lines) = (array(&items, " "), items.join("\n"));
            prop_assert_eq!(split(Framing::Array, array.as_bytes().chunks(chunk)), (expected.clone(), true));
            prop_assert_eq!(split(Framing::Lines, lines.as_bytes().chunks(chunk)), (expected, true));
        }
    }
}
