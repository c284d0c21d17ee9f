//! A valid vote, and the only code that decides whether a vote is valid.

use std::{fmt, str::FromStr};

use crate::{
    contest::Contests,
    ids::{BallotKey, ContestId, LogPosition, Partition, TraceParent, UnixMillis, VoteId, VoterHash, VoterSecret},
    refusal::Refusal,
    request::VoteRequest,
    text::{band_name, bounded_text, trimmed_text},
};

/// A valid vote. After [`Vote::admit`], a vote is not validated again.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The client's retry key, or an id that the producer created.
    pub vote_id: VoteId,
    /// The ballot key of this vote and of all its duplicates.
    pub key: BallotKey,
    /// The contest.
    pub contest: ContestId,
    /// The band: 1 to 100 characters, NFC, trimmed, no control characters.
    pub name: String,
    /// The album: 1 to 200 characters.
    pub album: Option<String>,
    /// The album's year: 1900 to 2100.
    pub year: Option<u16>,
    /// The rank that the voter gives the band: 0 to 100. It does not change how the vote is counted.
    pub rank: Option<f64>,
    /// The hash of the voter.
    pub voter: Option<VoterHash>,
    /// The time at which the producer accepted the vote.
    pub accepted_at: UnixMillis,
    /// The kind of the producer that published the vote.
    pub producer: ProducerKind,
    /// The client's trace, if the client sent one.
    pub traceparent: Option<TraceParent>,
}

/// A vote with its position on the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedVote {
    /// The position.
    pub position: LogPosition,
    /// The vote.
    pub vote: Vote,
}

/// The kind of producer that published a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProducerKind {
    /// The gRPC producer.
    Grpc,
    /// The REST producer.
    Rest,
    /// An import of a file.
    Import,
}

impl ProducerKind {
    /// Returns the name that is used on the log, in the stores and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
            Self::Import => "import",
        }
    }
}

impl fmt::Display for ProducerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProducerKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Grpc, Self::Rest, Self::Import]
            .into_iter()
            .find(|producer| producer.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not a producer"))
    }
}

impl Vote {
    /// Turns a request into a vote. `now` becomes the time of acceptance.
    ///
    /// # Errors
    /// The [reasons](crate::Reason) are those of an invalid field and of the contest's rules. The refusal has the
    /// `vote_id`, unless the id itself is invalid.
    pub fn admit(
        request: VoteRequest,
        contests: &Contests,
        secret: Option<&VoterSecret>,
        producer: ProducerKind,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let vote_id = request.resolve_vote_id()?;
        Self::admit_as(vote_id, request, contests, secret, producer, now)
            .map_err(|refusal| Refusal { vote_id: Some(vote_id), ..refusal })
    }

    fn admit_as(
        vote_id: VoteId,
        request: VoteRequest,
        contests: &Contests,
        secret: Option<&VoterSecret>,
        producer: ProducerKind,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let name = band_name(request.name.ok_or_else(|| Refusal::field("name", "required"))?)?;
        let album =
            request.album.map(|album| trimmed_text("album", album, 200)).transpose()?.filter(|album| !album.is_empty());
        let year = request.year.map(check_year).transpose()?;
        let rank = request.rank.map(check_rank).transpose()?;
        let (contest_id, contest) = contests.find(request.contest.as_deref())?;
        let voter = request.voter.map(|voter| hash_voter(contest_id, voter, secret)).transpose()?;
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
            producer,
            traceparent: request.traceparent.as_deref().and_then(TraceParent::parse),
        })
    }

    /// Replaces the id by a new one whose ballot is in `partition`, if one is found soon. Call this only if the client sent
    /// no id. If the ballot does not follow from the id, but from the voter, the id stays.
    pub fn draw_id(&mut self, partition: Partition, partitions: u16) {
        if self.key.is_of_vote(self.vote_id) {
            self.vote_id = VoteId::draw(&self.contest, self.accepted_at, partition, partitions);
            self.key = BallotKey::of_vote(&self.contest, self.vote_id);
        }
    }
}

fn check_year(year: i64) -> Result<u16, Refusal> {
    u16::try_from(year)
        .ok()
        .filter(|year| (1900..=2100).contains(year))
        .ok_or_else(|| Refusal::field("year", "must be 1900 to 2100"))
}

fn check_rank(rank: f64) -> Result<f64, Refusal> {
    // NaN is in no range.
    if (0.0..=100.0).contains(&rank) { Ok(rank) } else { Err(Refusal::field("rank", "must be 0 to 100")) }
}

fn hash_voter(contest: &ContestId, voter: String, secret: Option<&VoterSecret>) -> Result<VoterHash, Refusal> {
    let voter = bounded_text("voter", voter, 256)?;
    if voter.is_empty() {
        return Err(Refusal::field("voter", "must not be empty; leave it out to vote without a voter"));
    }
    let secret = secret.ok_or_else(|| {
        Refusal::field(
            "voter",
            "this producer has no secret to hash voters, so it accepts only votes without the field voter",
        )
    })?;
    Ok(secret.hash(contest, &voter))
}
