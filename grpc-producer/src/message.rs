//! Parses a vote from the protobuf encoding of `ovation.v1.CastVoteRequest`
//! (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! Generated code would skip unknown fields, use the last value of a field that occurs twice, and not report which text
//! is not UTF-8. This parser refuses a vote for the same reasons as the parser of JSON does, and names the field.

use votes::{Reason, Refusal, VoteRequest};

/// The names of the fields in the order of their numbers, which start at 1.
const FIELDS: [&str; 7] = ["name", "album", "year", "rank", "contest", "voter", "vote_id"];

/// Parses one vote.
///
/// # Errors
/// [`Reason::MalformedBody`] if the bytes are not a protobuf message. [`Reason::InvalidField`] with the first field
/// that is invalid.
pub(crate) fn parse(message: &[u8]) -> Result<VoteRequest, Refusal> {
    let mut request = VoteRequest::default();
    let mut seen = [false; FIELDS.len()];
    let mut first_refusal = None;
    let mut reader = Reader(message);
    while !reader.0.is_empty() {
        let key = reader.varint()?;
        let number = key >> 3;
        if number == 0 || number > MAX_FIELD_NUMBER {
            return Err(malformed("a field's number is out of range"));
        }
        let value = reader.value(key & 7)?;
        let index = usize::try_from(number - 1).ok().filter(|index| *index < FIELDS.len());
        let outcome = match index {
            None => Err(Refusal::field(&number.to_string(), "unknown field")),
            Some(index) if seen[index] => Err(Refusal::field(FIELDS[index], "given twice")),
            Some(index) => {
                seen[index] = true;
                set(&mut request, index, value).map_err(|problem| Refusal::field(FIELDS[index], problem))
            }
        };
        if let Err(refusal) = outcome {
            first_refusal.get_or_insert(refusal);
        }
    }
    match first_refusal {
        None => Ok(request),
        Some(refusal) => Err(Refusal { vote_id: request.given_vote_id(), ..refusal }),
    }
}

/// The largest field number in protobuf.
const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;

fn set(request: &mut VoteRequest, index: usize, value: Value<'_>) -> Result<(), &'static str> {
    match FIELDS[index] {
        "name" => request.name = Some(value.text()?),
        "album" => request.album = Some(value.text()?),
        "year" => request.year = Some(value.int32()?.into()),
        "rank" => request.rank = Some(value.double()?),
        "contest" => request.contest = Some(value.text()?),
        "voter" => request.voter = Some(value.text()?),
        _ => request.vote_id = Some(value.text()?),
    }
    Ok(())
}

/// The value of a field, by its wire type.
enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32,
}

impl Value<'_> {
    fn text(self) -> Result<String, &'static str> {
        match self {
            Self::Bytes(bytes) => str::from_utf8(bytes).map(str::to_owned).map_err(|_| "must be UTF-8"),
            _ => Err("must be a string"),
        }
    }

    fn int32(self) -> Result<i32, &'static str> {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "the encoding defines that the lower 32 bits count")]
            Self::Varint(value) => Ok(value as i32),
            _ => Err("must be an int32"),
        }
    }

    fn double(self) -> Result<f64, &'static str> {
        match self {
            Self::Fixed64(bytes) => Ok(f64::from_le_bytes(bytes)),
            _ => Err("must be a double"),
        }
    }
}

/// The bytes of a message that are not parsed yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            // The tenth byte has only one of the 64 bits.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number has more than 64 bits"))
    }

    fn value(&mut self, wire_type: u64) -> Result<Value<'a>, Refusal> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take().map(Value::Fixed64),
            2 => {
                let length = self.varint()?;
                let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
                let (bytes, rest) = split.ok_or_else(cut_off)?;
                self.0 = rest;
                Ok(Value::Bytes(bytes))
            }
            5 => self.take::<4>().map(|_| Value::Fixed32),
            _ => Err(malformed("a field has an unknown wire type")),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

fn cut_off() -> Refusal {
    malformed("it is incomplete")
}

fn malformed(problem: &str) -> Refusal {
    Refusal::new(Reason::MalformedBody, format!("not a CastVoteRequest: {problem}"))
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};
    use prost::Message;
    use proto::v1::CastVoteRequest;

    use super::*;

    prop_compose! {
        fn message()(
            name in any::<String>(),
            album in option::of(any::<String>()),
            year in option::of(any::<i32>()),
            rank in option::of(any::<f64>()),
            contest in option::of(any::<String>()),
            voter in option::of(any::<String>()),
            vote_id in option::of(any::<String>()),
        ) -> CastVoteRequest {
            CastVoteRequest { name, album, year, rank, contest, voter, vote_id }
        }
    }

    /// Converts a generated message. The pattern names every field. So after a new field is added to the protocol, this
    /// does not compile until the parser is extended.
    fn expected(message: CastVoteRequest) -> VoteRequest {
        let CastVoteRequest { name, album, year, rank, contest, voter, vote_id } = message;
        let name = Some(name).filter(|name| !name.is_empty());
        VoteRequest { name, album, year: year.map(i64::from), rank, contest, voter, vote_id, ..VoteRequest::default() }
    }

    proptest! {
        #[test]
        fn the_parser_and_generated_code_agree_on_a_valid_message(message in message()) {
            prop_assert_eq!(parse(&message.encode_to_vec()), Ok(expected(message)));
        }

        #[test]
        fn the_parser_refuses_each_message_that_generated_code_refuses(
            message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message.encode_to_vec();
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for bytes in [bytes.as_slice(), &bytes[..cut.index(bytes.len())]] {
                let Ok(ours) = parse(bytes) else { continue };
                let theirs = CastVoteRequest::decode(bytes);
                prop_assert!(theirs.is_ok());
                // In a generated message, an empty name is the same as no name.
                let ours = VoteRequest { name: ours.name.filter(|name| !name.is_empty()), ..ours };
                let theirs = expected(theirs.unwrap_or_default());
                prop_assert_eq!(ours.rank.map(f64::to_bits), theirs.rank.map(f64::to_bits));
                prop_assert_eq!(VoteRequest { rank: None, ..ours }, VoteRequest { rank: None, ..theirs });
            }
        }

        #[test]
        fn the_parser_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_field_given_twice_is_refused_by_name(message in message(), again in message()) {
            let first = CastVoteRequest { name: "X".into(), ..message }.encode_to_vec();
            let again = CastVoteRequest { name: "Y".into(), ..again }.encode_to_vec();
            let refusal = parse(&[first, again].concat()).expect_err("twice");
            prop_assert_eq!(refusal.field.as_deref(), Some("name"));
        }
    }
}
