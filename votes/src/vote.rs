//! A valid vote, and the one meaning of "valid".

use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization;

use crate::{
    BallotKey, ContestId, Contests, Refusal, TraceParent, UnixMillis, VoteId, VoteRequest, VoterHash, VoterSecret,
};

/// A vote that passed the door. It is not validated again.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The client's retry key, or one made at the door.
    pub vote_id: VoteId,
    /// Which votes are the same as this one.
    pub key: BallotKey,
    /// The contest.
    pub contest: ContestId,
    /// The band: 1 to 100 characters, NFC, trimmed, no control characters.
    pub name: String,
    /// The album: 1 to 200 characters.
    pub album: Option<String>,
    /// The album's year: 1900 to 2100.
    pub year: Option<u16>,
    /// 0 to 100.
    pub rank: Option<f64>,
    /// Who voted.
    pub voter: Option<VoterHash>,
    /// When the door took it.
    pub accepted_at: UnixMillis,
    /// Who put it on the log.
    pub door: DoorKind,
    /// The client's trace, if it sent one.
    pub traceparent: Option<TraceParent>,
}

/// Who put a vote on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DoorKind {
    /// The gRPC producer.
    Grpc,
    /// The REST producer.
    Rest,
    /// An import of a file.
    Import,
}

impl DoorKind {
    /// The name on the log, in the stores and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
            Self::Import => "import",
        }
    }
}

impl fmt::Display for DoorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DoorKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Grpc, Self::Rest, Self::Import]
            .into_iter()
            .find(|door| door.as_str() == name)
            .ok_or_else(|| format!("{name:?} is no door"))
    }
}

impl Vote {
    /// Makes a vote of a request, or says which field or rule is against it. A refusal carries the `vote_id` as soon as
    /// there is one.
    ///
    /// # Errors
    /// The [reasons](crate::Reason) from `InvalidField` to `Closed`.
    pub fn admit(
        request: VoteRequest,
        contests: &Contests,
        secret: Option<&VoterSecret>,
        door: DoorKind,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let vote_id = request.resolve_vote_id()?;
        Self::admit_as(vote_id, request, contests, secret, door, now)
            .map_err(|refusal| Refusal { vote_id: Some(vote_id), ..refusal })
    }

    fn admit_as(
        vote_id: VoteId,
        request: VoteRequest,
        contests: &Contests,
        secret: Option<&VoterSecret>,
        door: DoorKind,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let name = band_name(request.name.ok_or_else(|| Refusal::field("name", "required"))?)?;
        let album = request.album.map(|album| text("album", album, 200)).transpose()?.filter(|album| !album.is_empty());
        let year = request.year.map(year).transpose()?;
        let rank = request.rank.map(rank).transpose()?;
        let (contest_id, contest) = contests.find(request.contest.as_deref())?;
        let voter = request.voter.map(|voter| voter_hash(contest_id, voter, secret)).transpose()?;
        contest.admit(&name, voter.is_some(), now)?;
        let key = match &voter {
            Some(voter) if contest.has_one_vote_per_voter() => BallotKey::of_voter(contest_id, voter),
            _ => BallotKey::of_vote(contest_id, vote_id),
        };
        Ok(Self {
            vote_id,
            key,
            contest: contest_id.clone(),
            name,
            album,
            year,
            rank,
            voter,
            accepted_at: now,
            door,
            traceparent: request.traceparent.as_deref().and_then(TraceParent::parse),
        })
    }
}

/// A band's name in the one form in which it is a key: NFC, trimmed.
///
/// # Errors
/// [`Reason::InvalidField`](crate::Reason::InvalidField), of the field `name`, if it is no name.
pub fn band_name(name: String) -> Result<String, Refusal> {
    let name = text("name", name, 100)?;
    if name.is_empty() { Err(Refusal::field("name", "must have at least 1 character")) } else { Ok(name) }
}

/// Text in NFC and trimmed, of at most `most` characters.
fn text(field: &str, value: String, most: usize) -> Result<String, Refusal> {
    let value = opaque(field, value, usize::MAX)?;
    let trimmed = value.trim();
    check_length(field, trimmed, most)?;
    Ok(if trimmed.len() == value.len() { value } else { trimmed.to_owned() })
}

/// Text in NFC, of at most `most` characters, without control characters.
fn opaque(field: &str, value: String, most: usize) -> Result<String, Refusal> {
    let value = composed(value).map_err(|problem| Refusal::field(field, problem))?;
    check_length(field, &value, most)?;
    Ok(value)
}

/// Text in NFC, without control characters.
pub(crate) fn composed(value: String) -> Result<String, String> {
    if let Some(control) = value.chars().find(|c| c.is_control()) {
        return Err(format!("has the control character U+{:04X}", u32::from(control)));
    }
    Ok(if value.is_ascii() { value } else { value.nfc().collect() })
}

fn check_length(field: &str, value: &str, most: usize) -> Result<(), Refusal> {
    // No text has more characters than bytes, so most need no counting.
    if value.len() <= most {
        return Ok(());
    }
    match value.chars().count() {
        length if length > most => Err(Refusal::field(field, format!("has {length} characters; {most} are allowed"))),
        _ => Ok(()),
    }
}

fn year(year: i64) -> Result<u16, Refusal> {
    u16::try_from(year)
        .ok()
        .filter(|year| (1900..=2100).contains(year))
        .ok_or_else(|| Refusal::field("year", "must be 1900 to 2100"))
}

fn rank(rank: f64) -> Result<f64, Refusal> {
    // Not-a-number is in no range.
    if (0.0..=100.0).contains(&rank) { Ok(rank) } else { Err(Refusal::field("rank", "must be 0 to 100")) }
}

fn voter_hash(contest: &ContestId, voter: String, secret: Option<&VoterSecret>) -> Result<VoterHash, Refusal> {
    let voter = opaque("voter", voter, 256)?;
    if voter.is_empty() {
        return Err(Refusal::field("voter", "must not be empty; leave it out for no voter"));
    }
    let secret = secret
        .ok_or_else(|| Refusal::field("voter", "this door has no secret to hash voters with, so it takes none"))?;
    Ok(secret.hash(contest, &voter))
}
