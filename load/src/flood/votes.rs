//! Generates the votes of a flood, and encodes them for each protocol.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, BytesMut};
use proto::v1::CastVoteRequest;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;
use votes::ContestId;

use crate::{bands::BUILT_IN, zipf::Zipf};

/// The bands to vote for. Each is encoded in advance for every protocol, so that encoding a vote only adds its id and
/// its voter.
pub(super) struct Bands {
    bands: Vec<Band>,
    popularity: Zipf,
}

struct Band {
    /// The JSON object up to the value of the field `vote_id`.
    json: Vec<u8>,
    message: CastVoteRequest,
}

/// A band in the file of `--votes`. The year and the rank are numbers, or texts that contain numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    album: Option<String>,
    year: Option<Value>,
    rank: Option<Value>,
}

impl Bands {
    /// Returns the bands that are part of the program.
    pub(super) fn built_in(contest: Option<&ContestId>) -> Self {
        Self::from_json(BUILT_IN.as_bytes(), contest).expect("the built-in bands are well-formed")
    }

    /// Reads a JSON array of bands, or JSON lines.
    ///
    /// # Errors
    /// A text that names the invalid entry.
    pub(super) fn from_json(json: &[u8], contest: Option<&ContestId>) -> Result<Self, String> {
        let mut entries = Vec::new();
        for value in serde_json::Deserializer::from_slice(json).into_iter::<Value>() {
            match value.map_err(|error| format!("not JSON: {error}"))? {
                Value::Array(values) => entries.extend(values),
                value => entries.push(value),
            }
        }
        if entries.is_empty() {
            return Err("has no votes".to_owned());
        }
        let band = |(index, entry)| {
            serde_json::from_value(entry)
                .map_err(|error| error.to_string())
                .and_then(|entry| Band::new(&entry, contest))
                .map_err(|problem| format!("entry {}: {problem}", index + 1))
        };
        let bands = entries.into_iter().enumerate().map(band).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { popularity: Zipf::new(bands.len(), 1.0), bands })
    }

    /// Appends the vote to `body`, as a JSON object.
    pub(super) fn write_json(&self, vote: &DueVote, body: &mut BytesMut) {
        body.put_slice(&self.bands[vote.band].json);
        body.put_slice(vote.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        if let Some(voter) = &vote.voter {
            body.put_slice(br#"","voter":""#);
            body.put_slice(voter_name(*voter).as_bytes());
        }
        body.put_slice(br#""}"#);
    }

    /// Returns the vote as a protobuf message.
    pub(super) fn message(&self, vote: &DueVote) -> CastVoteRequest {
        CastVoteRequest {
            vote_id: Some(vote.id.hyphenated().to_string()),
            voter: vote.voter.map(voter_name),
            ..self.bands[vote.band].message.clone()
        }
    }
}

impl Band {
    fn new(entry: &Entry, contest: Option<&ContestId>) -> Result<Self, String> {
        let message = CastVoteRequest {
            name: entry.name.clone(),
            album: entry.album.clone(),
            year: number(entry.year.as_ref(), "year")?,
            rank: number(entry.rank.as_ref(), "rank")?,
            contest: contest.map(ToString::to_string),
            voter: None,
            vote_id: None,
        };
        let text = |text: &str| Some(Value::from(text));
        let fields = [
            ("name", text(&entry.name)),
            ("album", entry.album.as_deref().and_then(text)),
            ("year", entry.year.clone()),
            ("rank", entry.rank.clone()),
            ("contest", contest.and_then(|contest| text(contest.as_str()))),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some(format!(r#""{name}":{},"#, value?)));
        let json = format!(r#"{{{}"vote_id":""#, fields.collect::<String>());
        Ok(Self { json: json.into_bytes(), message })
    }
}

/// Parses a JSON number, or a text that contains a number, for protobuf. In the JSON form of a vote, the value is
/// unchanged.
fn number<N: std::str::FromStr>(value: Option<&Value>, field: &str) -> Result<Option<N>, String> {
    let text = match value {
        None => return Ok(None),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(value) => value.to_string(),
    };
    text.parse().map(Some).map_err(|_| format!("{field} {text} is not a valid number"))
}

fn voter_name(voter: u64) -> String {
    format!("voter-{voter:x}")
}

/// The voters of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voters {
    /// Votes have no voter.
    None,
    /// Each vote has a new voter.
    Random,
    /// Each vote has one of this number of voters.
    Count(u64),
}

impl FromStr for Voters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "random" => Ok(Self::Random),
            _ => match text.parse() {
                Ok(voters) if voters > 0 => Ok(Self::Count(voters)),
                _ => Err("voters are `none`, `random` or a whole number above 0".to_owned()),
            },
        }
    }
}

/// A vote and the time at which it is due.
#[derive(Clone, Debug)]
pub(super) struct DueVote {
    pub(super) id: Uuid,
    pub(super) due: Instant,
    band: usize,
    voter: Option<u64>,
}

/// Generates random votes. Each worker has a generator of its own.
pub(super) struct VoteGenerator {
    bands: Arc<Bands>,
    voters: Voters,
    choices: SmallRng,
    /// Separate from `choices`, so that a repeated seed does not repeat ids.
    ids: SmallRng,
}

impl VoteGenerator {
    /// Creates a generator. The same seed and worker choose the same bands and voters.
    pub(super) fn new(bands: Arc<Bands>, voters: Voters, seed: u64, worker: usize) -> Self {
        let choices = SmallRng::seed_from_u64(seed.wrapping_add((worker as u64) << 32));
        Self { bands, voters, choices, ids: rand::make_rng() }
    }

    pub(super) fn generate(&mut self, due: Instant) -> DueVote {
        let band = self.bands.popularity.draw(&mut self.choices);
        let voter = match self.voters {
            Voters::None => None,
            Voters::Random => Some(self.choices.random()),
            Voters::Count(voters) => Some(self.choices.random_range(0..voters)),
        };
        DueVote { id: self.vote_id(), due, band, voter }
    }

    /// Returns a new `UUIDv7`. Its random bits are from `ids`.
    fn vote_id(&mut self) -> Uuid {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.ids.random()).into_uuid()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use votes::{Contests, ProducerKind, UnixMillis, Vote, VoteRequest, VoterSecret};

    use super::*;

    #[test]
    fn voters_are_none_random_or_a_number() {
        assert_eq!("none".parse(), Ok(Voters::None));
        assert_eq!("random".parse(), Ok(Voters::Random));
        assert_eq!("12".parse(), Ok(Voters::Count(12)));
        assert!("0".parse::<Voters>().is_err());
        assert!("some".parse::<Voters>().is_err());
    }

    fn generate_many(bands: &Arc<Bands>, voters: Voters, seed: u64, count: usize) -> Vec<DueVote> {
        let mut generator = VoteGenerator::new(Arc::clone(bands), voters, seed, 0);
        (0..count).map(|_| generator.generate(Instant::now())).collect()
    }

    #[test]
    fn earlier_bands_are_more_popular() {
        let bands = Arc::new(Bands::built_in(None));
        let mut counts = vec![0_u32; bands.bands.len()];
        for vote in generate_many(&bands, Voters::None, 7, 1_000_000) {
            counts[vote.band] += 1;
        }
        for rank in [1, 2, 4, 8, 16, 32, 64] {
            assert!(counts[rank - 1] > counts[2 * rank - 1], "rank {rank}");
        }
        assert!(counts.iter().all(|&count| count > 0), "every band gets votes");
        let first_to_tenth = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((9.0..11.0).contains(&first_to_tenth), "{first_to_tenth}");
    }

    #[test]
    fn a_seed_repeats_the_choices_but_never_an_id() {
        let bands = Arc::new(Bands::built_in(None));
        let choices = |votes: &[DueVote]| votes.iter().map(|vote| (vote.band, vote.voter)).collect::<Vec<_>>();
        let one = generate_many(&bands, Voters::Random, 1, 1000);
        let again = generate_many(&bands, Voters::Random, 1, 1000);
        let other = generate_many(&bands, Voters::Random, 2, 1000);
        assert_eq!(choices(&one), choices(&again));
        assert_ne!(choices(&one), choices(&other));
        let ids: HashSet<Uuid> = [&one, &again, &other].into_iter().flatten().map(|vote| vote.id).collect();
        assert_eq!(ids.len(), 3000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn the_number_of_voters_is_the_requested_one() {
        let bands = Arc::new(Bands::built_in(None));
        let voters: HashSet<_> =
            generate_many(&bands, Voters::Count(5), 1, 1000).into_iter().map(|vote| vote.voter.unwrap()).collect();
        assert_eq!(voters.len(), 5);
        assert!(generate_many(&bands, Voters::None, 1, 10).iter().all(|vote| vote.voter.is_none()));
    }

    #[test]
    fn every_built_in_band_is_admitted_and_its_two_forms_are_the_same_vote() {
        let contest: ContestId = "bands".parse().unwrap();
        let bands = Bands::built_in(Some(&contest));
        let secret = VoterSecret::new(&[7; 32]).unwrap();
        let contests = Contests::default();
        for band in 0..bands.bands.len() {
            let vote = DueVote { id: Uuid::now_v7(), due: Instant::now(), band, voter: Some(3) };
            let mut json = BytesMut::new();
            bands.write_json(&vote, &mut json);
            let message = bands.message(&vote);
            let from_message = VoteRequest {
                name: Some(message.name),
                album: message.album,
                year: message.year.map(i64::from),
                rank: message.rank,
                contest: message.contest,
                voter: message.voter,
                vote_id: message.vote_id,
                ..VoteRequest::default()
            };
            let from_json = VoteRequest::from_json(&json).unwrap();
            assert_eq!(from_json, from_message);
            let admitted =
                Vote::admit(from_json, &contests, Some(&secret), ProducerKind::Rest, UnixMillis::now()).unwrap();
            assert_eq!(admitted.vote_id.0, vote.id);
        }
    }

    #[test]
    fn texts_and_numbers_of_a_file_of_votes_are_sent_unchanged() {
        let json = br#"{"name":"A \"B\"","year":1979,"rank":"5"}
                       {"name":"C"}"#;
        let bands = Bands::from_json(json, None).unwrap();
        assert_eq!(bands.bands.len(), 2);
        assert_eq!(bands.bands[0].json, br#"{"name":"A \"B\"","year":1979,"rank":"5","vote_id":""#);
        assert_eq!(bands.bands[0].message.year, Some(1979));
        assert_eq!(bands.bands[1].json, br#"{"name":"C","vote_id":""#);
    }

    #[test]
    fn the_error_for_a_wrong_file_of_votes_names_the_entry() {
        let problem = |json: &[u8]| Bands::from_json(json, None).err().unwrap();
        assert!(problem(b"[]").contains("no votes"));
        assert!(problem(br#"[{"name":"A"},{"album":"B"}]"#).starts_with("entry 2: missing field `name`"));
        assert!(problem(br#"[{"name":"A","year":"soon"}]"#).starts_with("entry 1: year soon"));
        assert!(problem(br#"[{"name":"A","label":"x"}]"#).contains("label"));
        assert!(problem(b"name,album").starts_with("not JSON"));
    }
}
