//! What must be true at any time, in the middle of it all: nobody ever sees more votes than were cast.

use std::{net::SocketAddr, time::Duration};

use redis::Commands;
use serde_json::Value;

use super::{
    snapshot::{self, PREFIX},
    told::{ONCE, OPEN},
};
use crate::stack::Urls;

/// Looks at the tallies and at the results while they are tossed about. Servers that don't answer show nothing.
pub struct Watch {
    urls: Urls,
    results: SocketAddr,
    agent: ureq::Agent,
}

impl Watch {
    pub fn start(urls: &Urls, results: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into();
        Self { urls: urls.clone(), results, agent }
    }

    /// What is wrong now. `sent` says how many votes of a contest can have come in at most.
    pub fn look(&self, sent: &dyn Fn(&str) -> usize) -> Vec<String> {
        let mut violations = Vec::new();
        for contest in [OPEN, ONCE] {
            for (who, shown) in [("the tallies", self.tallied(contest)), ("the results", self.shown(contest))] {
                // Asked after the votes were counted, so that it can't be too few.
                let sent = sent(contest) as u64;
                if let Some(shown) = shown
                    && shown > sent
                {
                    violations.push(format!("{who} show {shown} votes for {contest}, and {sent} were cast"));
                }
            }
        }
        violations
    }

    fn tallied(&self, contest: &str) -> Option<u64> {
        let mut redis = snapshot::tallies(&self.urls).ok()?;
        redis.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let votes: Vec<u64> = redis.hvals(format!("{PREFIX}tally:{contest}")).ok()?;
        Some(votes.iter().sum())
    }

    /// The total that the results show.
    pub fn shown(&self, contest: &str) -> Option<u64> {
        let url = format!("http://{}/v1/contests/{contest}/tally", self.results);
        let tally: Value = self.agent.get(&url).call().ok()?.body_mut().read_json().ok()?;
        tally["total"].as_u64()
    }
}
