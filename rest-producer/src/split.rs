//! Splits the body of a batch into votes while it arrives: a JSON array into its elements, or NDJSON into its lines.
//!
//! Only the framing is read here: where an element begins and ends. What is within is for the reader of a vote, so a
//! vote that is wrong in itself does not break the batch.

use votes::{MAX_VOTE_BYTES, Reason, Refusal};

/// How votes are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Elements of one JSON array (RFC 8259).
    Array,
    /// One JSON text a line; blank lines are skipped (<https://github.com/ndjson/ndjson-spec>).
    Lines,
}

/// One vote's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// At most [`MAX_VOTE_BYTES`].
    Vote(&'a [u8]),
    /// More than that; they are skipped, not kept.
    Oversized,
}

/// Takes a body in chunks of any size and gives its elements. It keeps one unfinished element and the latest chunk.
#[derive(Debug)]
pub struct Splitter {
    framing: Framing,
    state: State,
    buffer: Vec<u8>,
    /// Where the unfinished element begins in the buffer. It is moved along while an oversized element is skipped.
    begin: usize,
    /// Up to where the buffer was scanned.
    scanned: usize,
    is_oversized: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the array's `[`.
    Start,
    /// After `[`: an element or `]`.
    First,
    /// After a comma: an element.
    Next,
    /// In an element.
    Within(Within),
    /// After an element: a comma or `]`.
    After,
    /// After the array.
    End,
    /// In a line.
    Line,
}

impl Splitter {
    /// A splitter at the beginning of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Array => State::Start,
            Framing::Lines => State::Line,
        };
        Self { framing, state, buffer: Vec::new(), begin: 0, scanned: 0, is_oversized: false }
    }

    /// The end of the buffer, to append the next chunk to. Take all elements out first.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.is_oversized {
            self.begin = self.scanned;
        }
        self.buffer.drain(..self.begin);
        self.scanned -= self.begin;
        self.begin = 0;
        &mut self.buffer
    }

    /// The next whole element, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if the body is not framed as promised. Nothing after that can be read.
    pub fn next_element(&mut self) -> Result<Option<Element<'_>>, Refusal> {
        let range = match self.framing {
            Framing::Array => self.scan_array()?,
            Framing::Lines => self.scan_line(),
        };
        Ok(range.map(|(begin, end)| self.take(begin, end)))
    }

    /// What is left when the body has ended: a last line may lack its line feed.
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if the array has not ended.
    pub fn finish(&mut self) -> Result<Option<Element<'_>>, Refusal> {
        match self.state {
            State::End => Ok(None),
            State::Line => {
                let (begin, end) = (self.begin, self.buffer.len());
                (self.begin, self.scanned) = (end, end);
                let is_blank = self.buffer[begin..].trim_ascii().is_empty() && !self.is_oversized;
                Ok(if is_blank { None } else { Some(self.take(begin, end)) })
            }
            State::Start => Err(broken("the body is empty; a batch is a JSON array of votes")),
            _ => Err(broken("the array ends in the middle")),
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
            if let State::Within(within) = &mut self.state {
                let Some(length) = within.end(ahead) else {
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
            if !matches!(self.state, State::Within(_)) {
                self.scanned += 1;
            }
        }
    }
}

impl State {
    /// The state after a byte between elements that is no white space.
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        match (self, byte) {
            (Self::Start, b'[') => Ok(Self::First),
            (Self::Start, _) => Err(broken("a batch is a JSON array of votes, and this does not begin with '['")),
            (Self::First | Self::After, b']') => Ok(Self::End),
            (Self::After, b',') => Ok(Self::Next),
            (Self::After, _) => Err(broken("a comma or ']' is missing after a vote")),
            (Self::End, _) => Err(broken("something follows the array")),
            (_, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z') => Ok(Self::Within(Within::default())),
            _ => Err(broken("no JSON value is where a vote should be")),
        }
    }
}

/// How far an element was read.
#[derive(Clone, Copy, Debug, Default)]
struct Within {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

impl Within {
    /// How many of these next bytes belong to the element, if it ends in them.
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
                // A number or a literal ends before what follows it.
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

fn broken(detail: &str) -> Refusal {
    Refusal::new(Reason::MalformedBody, detail)
}
