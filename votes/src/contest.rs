//! Contests and their rules.

use std::collections::{BTreeMap, HashSet};

use crate::{ContestId, Reason, Refusal, Retention, UnixMillis, vote};

/// How many votes one voter has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VotesPerVoter {
    /// One; the first on the log stands.
    One,
    /// As many as they cast.
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

/// A contest's rule that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ContestError {
    /// The key within the contest's section.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Contest {
    /// Makes a contest. `candidates: None` means any name. It is open for votes from `opens` up to, not including,
    /// `closes`.
    ///
    /// # Errors
    /// If a candidate is no valid name, if there are none, or if the contest closes before it opens.
    pub fn new(
        candidates: Option<Vec<String>>,
        votes_per_voter: VotesPerVoter,
        opens: Option<UnixMillis>,
        closes: Option<UnixMillis>,
    ) -> Result<Self, ContestError> {
        let error = |key, problem| ContestError { key, problem };
        let candidates = candidates
            .map(|names| names.into_iter().map(vote::band_name).collect::<Result<HashSet<_>, _>>())
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
            return Err(error("closes", format!("closes at {closes}, which is not after it opens at {opens}")));
        }
        Ok(Self { candidates, votes_per_voter, opens, closes })
    }

    /// Whether one voter has one vote.
    pub fn has_one_vote_per_voter(&self) -> bool {
        self.votes_per_voter == VotesPerVoter::One
    }

    /// Whether votes may expire like this and each voter still have no more votes than the contest gives.
    pub fn can_expire(&self, retention: Retention) -> bool {
        let window = self.opens.zip(self.closes).map(|(opens, closes)| u128::from(closes.0.abs_diff(opens.0)));
        match (self.votes_per_voter, retention, window) {
            (VotesPerVoter::Many, _, _) => true,
            (VotesPerVoter::One, Retention::Age(age), Some(window)) => age.as_millis() >= window,
            (VotesPerVoter::One, _, _) => false,
        }
    }

    /// Asks the rules that a door can decide.
    pub(crate) fn admit(&self, band: &str, has_voter: bool, now: UnixMillis) -> Result<(), Refusal> {
        if let Some(opens) = self.opens.filter(|opens| now < *opens) {
            return Err(Refusal::new(Reason::NotOpenYet, format!("the contest opens at {opens}")));
        }
        if let Some(closes) = self.closes.filter(|closes| now >= *closes) {
            return Err(Refusal::new(Reason::Closed, format!("the contest closed at {closes}")));
        }
        if self.candidates.as_ref().is_some_and(|candidates| !candidates.contains(band)) {
            return Err(Refusal::new(Reason::NotACandidate, format!("{band:?} is no candidate of this contest")));
        }
        if self.has_one_vote_per_voter() && !has_voter {
            let detail = "voter: required, since each voter has one vote in this contest";
            return Err(Refusal { field: Some("voter".into()), ..Refusal::new(Reason::VoterRequired, detail) });
        }
        Ok(())
    }
}

/// All contests of a configuration.
#[derive(Clone, Debug)]
pub struct Contests(BTreeMap<ContestId, Contest>);

impl Default for Contests {
    /// `bands`, open to any name.
    fn default() -> Self {
        Self(BTreeMap::from([(ContestId::default(), Contest::default())]))
    }
}

impl Contests {
    /// The contests of a configuration; the [default](Self::default) if it has none.
    pub fn new(contests: BTreeMap<ContestId, Contest>) -> Self {
        if contests.is_empty() { Self::default() } else { Self(contests) }
    }

    /// The ids, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &ContestId> {
        self.0.keys()
    }

    /// Finds a contest by the text a client gave, if any.
    ///
    /// # Errors
    /// [`Reason::UnknownContest`]; [`Reason::InvalidField`] if the text is no slug.
    pub fn find(&self, contest: Option<&str>) -> Result<(&ContestId, &Contest), Refusal> {
        let id = match contest {
            None => ContestId::default(),
            Some(text) => text.parse().map_err(|problem: String| Refusal::field("contest", problem))?,
        };
        self.0.get_key_value(&id).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().take(20).map(ContestId::as_str).collect();
            Refusal::new(Reason::UnknownContest, format!("there is no contest {id}; there is {}", known.join(", ")))
        })
    }

    /// Whether some contest can't do without the voters' secret.
    pub fn need_secret(&self) -> bool {
        self.0.values().any(Contest::has_one_vote_per_voter)
    }
}
