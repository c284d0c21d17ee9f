//! Contests and their rules.

use std::collections::{BTreeMap, HashSet};

use crate::{
    ids::{ContestId, UnixMillis},
    refusal::{Reason, Refusal},
    retention::Retention,
    text::band_name,
};

/// How many votes one voter has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VotesPerVoter {
    /// One vote per voter: the first vote on the log counts.
    One,
    /// Every vote counts.
    #[default]
    Many,
}

/// One contest.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    candidates: Option<HashSet<String>>,
    votes_per_voter: VotesPerVoter,
    opens: Option<UnixMillis>,
    closes: Option<UnixMillis>,
}

/// An invalid rule of a contest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ContestError {
    /// The key in the contest's section of the configuration.
    pub key: &'static str,
    /// What is wrong with the rule.
    pub problem: String,
}

impl Contest {
    /// Creates a contest. Without `candidates`, any name is valid. The contest is open in `[opens, closes)`.
    ///
    /// # Errors
    /// If a candidate is not a valid name, if the list of candidates is empty, or if the contest does not close after
    /// it opens.
    pub fn new(
        candidates: Option<Vec<String>>,
        votes_per_voter: VotesPerVoter,
        opens: Option<UnixMillis>,
        closes: Option<UnixMillis>,
    ) -> Result<Self, ContestError> {
        let error = |key, problem| ContestError { key, problem };
        let candidates = candidates
            .map(|names| names.into_iter().map(band_name).collect::<Result<HashSet<_>, _>>())
            .transpose()
            .map_err(|refusal| error("candidates", refusal.detail))?;
        if candidates.as_ref().is_some_and(HashSet::is_empty) {
            return Err(error(
                "candidates",
                "the list is empty; leave it out for a contest open to any name".to_owned(),
            ));
        }
        if let (Some(opens), Some(closes)) = (opens, closes)
            && closes <= opens
        {
            return Err(error("closes", format!("{closes} is not after the time at which the contest opens, {opens}")));
        }
        Ok(Self { candidates, votes_per_voter, opens, closes })
    }

    /// Returns whether each voter has one vote.
    pub fn has_one_vote_per_voter(&self) -> bool {
        self.votes_per_voter == VotesPerVoter::One
    }

    /// Returns whether votes may expire by this retention. In a contest with one vote per voter, the retention must be
    /// an age that is at least as long as the contest is open: otherwise a voter whose vote has expired could vote
    /// again.
    pub fn can_expire(&self, retention: Retention) -> bool {
        let open_millis = self.opens.zip(self.closes).map(|(opens, closes)| u128::from(closes.0.abs_diff(opens.0)));
        match (self.votes_per_voter, retention, open_millis) {
            (VotesPerVoter::Many, _, _) => true,
            (VotesPerVoter::One, Retention::Age(age), Some(open_millis)) => age.as_millis() >= open_millis,
            (VotesPerVoter::One, _, _) => false,
        }
    }

    /// Checks the rules that a producer can check. Only the consumer can check that a voter votes once.
    pub(crate) fn admit(&self, band: &str, has_voter: bool, now: UnixMillis) -> Result<(), Refusal> {
        if let Some(opens) = self.opens.filter(|opens| now < *opens) {
            return Err(Refusal::new(Reason::NotOpenYet, format!("the contest opens at {opens}")));
        }
        if let Some(closes) = self.closes.filter(|closes| now >= *closes) {
            return Err(Refusal::new(Reason::Closed, format!("the contest closed at {closes}")));
        }
        if self.candidates.as_ref().is_some_and(|candidates| !candidates.contains(band)) {
            return Err(Refusal::new(Reason::NotACandidate, format!("{band:?} is not a candidate of this contest")));
        }
        if self.has_one_vote_per_voter() && !has_voter {
            let detail = "voter: required, because each voter has one vote in this contest";
            return Err(Refusal { field: Some("voter".into()), ..Refusal::new(Reason::VoterRequired, detail) });
        }
        Ok(())
    }
}

/// All contests of a configuration.
#[derive(Clone, Debug)]
pub struct Contests(BTreeMap<ContestId, Contest>);

impl Default for Contests {
    /// Returns the contest `bands`, which is open to any name.
    fn default() -> Self {
        Self(BTreeMap::from([(ContestId::default(), Contest::default())]))
    }
}

impl Contests {
    /// Creates the contests of a configuration. Without contests, returns the [default](Self::default).
    pub fn new(contests: BTreeMap<ContestId, Contest>) -> Self {
        if contests.is_empty() { Self::default() } else { Self(contests) }
    }

    /// Returns the ids, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &ContestId> {
        self.0.keys()
    }

    /// Finds a contest by the text that a client sent. Without text, finds the contest with the default id.
    ///
    /// # Errors
    /// [`Reason::UnknownContest`], or [`Reason::InvalidField`] if the text is not a slug.
    pub fn find(&self, contest: Option<&str>) -> Result<(&ContestId, &Contest), Refusal> {
        let id = match contest {
            None => ContestId::default(),
            Some(text) => text.parse().map_err(|problem: String| Refusal::field("contest", problem))?,
        };
        self.0.get_key_value(&id).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().take(20).map(ContestId::as_str).collect();
            Refusal::new(
                Reason::UnknownContest,
                format!("there is no contest {id}; the contests are {}", known.join(", ")),
            )
        })
    }

    /// Returns whether any contest needs the secret with which voters are hashed.
    pub fn require_secret(&self) -> bool {
        self.0.values().any(Contest::has_one_vote_per_voter)
    }
}
