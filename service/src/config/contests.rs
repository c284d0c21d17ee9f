//! The contests in the configuration.

use std::{collections::BTreeMap, fs, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use votes::{Contest, ContestId, Contests, Retention, UnixMillis, VotesPerVoter};

use super::error::ConfigError;

/// The configuration of one contest: `[contests.NAME]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContestSection {
    /// The names that voters can vote for. If absent, voters can vote for any name.
    pub candidates: Option<Candidates>,
    /// How many votes a voter has: `one` or `many`.
    pub votes_per_voter: VotesPerVoter,
    /// When voting begins (RFC 3339).
    pub opens: Option<Timestamp>,
    /// When voting ends (RFC 3339). Votes at or after this time are refused.
    pub closes: Option<Timestamp>,
}

/// The candidates of a contest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Candidates {
    /// The names themselves.
    List(Vec<String>),
    /// A text file with one name per line. Empty lines are skipped.
    File(PathBuf),
}

/// Creates the contests and their rules, and reads the files with candidates.
///
/// # Errors
/// If a contest is invalid, its candidates can't be read, or its rules do not allow this retention of the ledger. The
/// error names the key.
pub(super) fn read(
    sections: &BTreeMap<ContestId, ContestSection>,
    ledger_retention: Option<Retention>,
) -> Result<Contests, ConfigError> {
    let mut contests = BTreeMap::new();
    for (id, section) in sections {
        let at = |key| format!("contests.{id}.{key}");
        let candidates = match &section.candidates {
            None => None,
            Some(Candidates::List(names)) => Some(names.clone()),
            Some(Candidates::File(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| ConfigError::new(at("candidates"), format!("{}: {error}", path.display())))?;
                Some(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
            }
        };
        let millis = |time: Option<Timestamp>| time.map(|time| UnixMillis(time.as_millisecond()));
        let contest = Contest::new(candidates, section.votes_per_voter, millis(section.opens), millis(section.closes))
            .map_err(|error| ConfigError::new(at(error.key), error.problem))?;
        if let Some(retention) = ledger_retention
            && !contest.can_expire(retention)
        {
            let problem = format!(
                "the contest {id} allows one vote per voter, and a second vote is detected only while the first is in the \
                 ledger: give a time that is at least as long as the contest is open, and set `opens` and `closes`"
            );
            return Err(ConfigError::new("ledger_retention", problem));
        }
        contests.insert(id.clone(), contest);
    }
    Ok(Contests::new(contests))
}
