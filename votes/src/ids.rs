//! The types that identify a contest, a vote, a voter, a ballot, a position on the log, a time and a trace.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

/// A contest's slug: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContestId(Arc<str>);

impl ContestId {
    /// The contest of a vote that does not name one.
    pub const DEFAULT: &str = "bands";

    /// Returns the slug.
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
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let is_slug = (1..=63).contains(&bytes.len())
            && is_alphanumeric(bytes[0])
            && bytes.iter().all(|&byte| is_alphanumeric(byte) || byte == b'-');
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

/// A vote's id: the client's retry key, or a `UUIDv7` that the producer created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VoteId(pub Uuid);

/// The maximum number of ids that [`VoteId::draw`] tries. At the default of 12 partitions, one of a thousand million draws
/// fails. Each doubling of the number makes an id predictable by one more bit of its 74 random bits.
const MAX_DRAWS: usize = 256;

impl VoteId {
    /// Creates a random id (UUID version 7). Its 74 random bits can't be predicted.
    pub fn new() -> Self {
        Self::at(UnixMillis::now(), &rand::random())
    }

    fn at(time: UnixMillis, random: &[u8; 10]) -> Self {
        let millis = u64::try_from(time.0).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
    }

    /// Draws random ids (UUID version 7) until the ballot of a vote with the id is in `partition`, but at most
    /// [`MAX_DRAWS`]. Returns the last id.
    pub(crate) fn draw(contest: &ContestId, now: UnixMillis, partition: Partition, partitions: u16) -> Self {
        let (mut rng, mut random) = (rand::rng(), [0; 10]);
        rng.fill(&mut random);
        // Only the last two bytes are drawn again, so the checksum of what is before them is computed once.
        let mut text = Uuid::encode_buffer();
        let text = Self::at(now, &random).0.hyphenated().encode_lower(&mut text);
        let mut start = crc32fast::Hasher::new();
        for part in [contest.as_str(), "|", &text[..32]] {
            start.update(part.as_bytes());
        }
        for _ in 0..MAX_DRAWS {
            let (drawn, mut digits): ([u8; 2], _) = (rng.random(), [0; 4]);
            random[8..].copy_from_slice(&drawn);
            let mut checksum = start.clone();
            if hex::encode_to_slice(drawn, &mut digits).is_ok() {
                checksum.update(&digits);
            }
            if partition_of(checksum.finalize(), partitions) == partition {
                break;
            }
        }
        Self::at(now, &random)
    }

    /// Returns the id for an `Idempotency-Key`. If the key is a UUID, the key is the id. Other text is hashed to a
    /// `UUIDv5` in the OID namespace.
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

/// The secret key with which voters are hashed. All producers of one vote log must have the same secret.
#[derive(Clone)]
pub struct VoterSecret(Arc<[u8]>);

impl VoterSecret {
    /// The minimum length of a secret, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// Creates a secret from its bytes.
    ///
    /// # Errors
    /// If there are fewer bytes than [`Self::MIN_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < Self::MIN_BYTES {
            return Err(format!(
                "the voters' secret has {} bytes; at least {} are required",
                bytes.len(),
                Self::MIN_BYTES
            ));
        }
        Ok(Self(bytes.into()))
    }

    /// Computes HMAC-SHA-256 over the contest, a zero byte and the voter.
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

/// The HMAC-SHA-256 of a voter. Only this form of a voter is ever stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VoterHash(pub [u8; 32]);

impl fmt::Display for VoterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for VoterHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| "must be 64 hexadecimal digits")?;
        Ok(Self(hash))
    }
}

impl fmt::Debug for VoterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VoterHash({self})")
    }
}

/// The key that decides which votes are the same: `contest|vote_id`, or `contest|HMAC of the voter` in a contest with
/// one vote per voter.
///
/// The producer computes the key once, and stores it in the record on the log. So a later change of the rules or of the
/// secret can't turn one vote into two ballots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BallotKey(Box<str>);

impl BallotKey {
    pub(crate) fn of_vote(contest: &ContestId, vote: VoteId) -> Self {
        Self(format!("{contest}|{vote}").into())
    }

    pub(crate) fn of_voter(contest: &ContestId, voter: &VoterHash) -> Self {
        Self(format!("{contest}|{voter}").into())
    }

    /// Creates a key from the text that the log or the ledger has.
    pub fn stored(key: &str) -> Self {
        Self(key.into())
    }

    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the partition of this ballot: the CRC-32 of the key modulo `partitions`. All records of a ballot are
    /// thus in the same partition.
    pub fn partition(&self, partitions: u16) -> Partition {
        partition_of(crc32fast::hash(self.0.as_bytes()), partitions)
    }

    /// Returns whether this is the key of a vote with this id, and not that of a voter.
    pub(crate) fn is_of_vote(&self, vote: VoteId) -> bool {
        self.0.ends_with(&*vote.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

fn partition_of(checksum: u32, partitions: u16) -> Partition {
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u16 is one")]
    Partition((checksum % u32::from(partitions)) as u16)
}

/// A partition of the vote log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a record in its partition. The position B or T of a store is the first offset that the store does not
/// have yet. Ranges are half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset after this one.
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

/// The position of a record on the vote log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The partition.
    pub partition: Partition,
    /// The offset in the partition.
    pub offset: Offset,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

/// Unix time in milliseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Returns the current time of the system clock.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns the time that was this long before.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_millis(duration)))
    }

    /// Returns the time that is this long after.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(duration)))
    }

    /// Returns the time that has passed since `earlier`: zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for UnixMillis {
    /// Writes RFC 3339, in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// The `traceparent` of a W3C trace context, version 00. The vote carries it from the producer to the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Parses the value of the header. Returns `None` if the value is malformed.
    /// The format is <https://www.w3.org/TR/trace-context/#traceparent-header>.
    pub fn parse(header: &str) -> Option<Self> {
        let is_lower_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_valid = parts.next().is_none()
            && version == "00"
            && is_lower_hex(trace, 32)
            && is_lower_hex(span, 16)
            && is_lower_hex(flags, 2);
        is_valid.then(|| Self(header.into()))
    }

    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
