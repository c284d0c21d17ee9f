//! The small types that carry the rules of identity: which contest, which vote, which ballot, which place on the log.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

/// A contest's slug: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContestId(Arc<str>);

impl ContestId {
    /// The contest of a vote that names none.
    pub const DEFAULT: &str = "bands";

    /// The slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ContestId {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for ContestId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let is_slug =
            (1..=63).contains(&bytes.len()) && slug(bytes[0]) && bytes.iter().all(|&byte| slug(byte) || byte == b'-');
        if is_slug {
            Ok(Self(text.into()))
        } else {
            Err("a contest is 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'".to_owned())
        }
    }
}

impl TryFrom<String> for ContestId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ContestId> for String {
    fn from(contest: ContestId) -> Self {
        contest.as_str().to_owned()
    }
}

impl fmt::Display for ContestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A vote's id: a UUID. The client's retry key, or a `UUIDv7` made at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VoteId(pub Uuid);

impl VoteId {
    /// A new id (UUID version 7).
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that an `Idempotency-Key` stands for: a UUID as it is, other text as its `UUIDv5` in the OID namespace.
    pub fn from_idempotency_key(key: &str) -> Self {
        Self(Uuid::try_parse(key).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes())))
    }
}

impl Default for VoteId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for VoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secret under which voters are hashed. All doors of one vote log share it.
#[derive(Clone)]
pub struct VoterSecret(Arc<[u8]>);

impl VoterSecret {
    /// The fewest bytes a secret may have.
    pub const MIN_BYTES: usize = 16;

    /// Takes the secret's bytes.
    ///
    /// # Errors
    /// If there are fewer than [`Self::MIN_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < Self::MIN_BYTES {
            return Err(format!("the voters' secret has {} bytes; it needs at least {}", bytes.len(), Self::MIN_BYTES));
        }
        Ok(Self(bytes.into()))
    }

    /// HMAC-SHA-256 over the contest, a zero byte and the voter.
    pub(crate) fn hash(&self, contest: &ContestId, voter: &str) -> VoterHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(contest.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(voter.as_bytes());
        VoterHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for VoterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VoterSecret(..)")
    }
}

/// Who voted, as the only form of it that is ever stored: HMAC-SHA-256(secret, contest, voter).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VoterHash(pub [u8; 32]);

impl fmt::Display for VoterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VoterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VoterHash({self})")
    }
}

/// Which votes are the same: `contest|vote_id`, or `contest|voter's HMAC` where a voter has one vote.
///
/// The door computes it and the log carries it; nobody derives it again, so a change of rules or of the secret can't
/// make two ballots of one vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BallotKey(Box<str>);

impl BallotKey {
    pub(crate) fn of_vote(contest: &ContestId, vote: VoteId) -> Self {
        Self(format!("{contest}|{vote}").into())
    }

    pub(crate) fn of_voter(contest: &ContestId, voter: &VoterHash) -> Self {
        Self(format!("{contest}|{voter}").into())
    }

    /// Takes a key back from the log or the book.
    pub fn stored(key: &str) -> Self {
        Self(key.into())
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition, of `partitions`, on which all copies of this ballot meet: CRC-32 of the key, modulo their number.
    pub fn partition(&self, partitions: u16) -> Partition {
        let checksum = crc32fast::hash(self.0.as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u16 is one")]
        Partition((checksum % u32::from(partitions)) as u16)
    }
}

/// A partition of the vote log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An offset in a partition. As a position it is the first offset not yet counted; ranges are half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place on the vote log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The partition.
    pub partition: Partition,
    /// The offset in it.
    pub offset: Offset,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

/// Unix time in milliseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The clock's time.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339, in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A W3C trace context's `traceparent`, version 00, carried along with the vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Takes the header's value; anything else than a well-formed one is nobody's trace.
    /// Format: <https://www.w3.org/TR/trace-context/#traceparent-header>.
    pub fn parse(header: &str) -> Option<Self> {
        let lower_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_valid = parts.next().is_none()
            && version == "00"
            && lower_hex(trace, 32)
            && lower_hex(span, 16)
            && lower_hex(flags, 2);
        is_valid.then(|| Self(header.into()))
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
