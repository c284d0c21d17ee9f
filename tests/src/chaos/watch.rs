//! This module checks repeatedly during the run that the tallies and the results do not show more votes than were cast.

use std::{net::SocketAddr, time::Duration};

use redis::Commands;
use serde_json::Value;

use super::{
    history::{ONCE, OPEN},
    snapshot::{self, PREFIX},
};
use crate::stack::Urls;

/// Reads the totals of the tallies and of the results during the faults. A server that does not respond is skipped.
pub struct Watcher {
    urls: Urls,
    results: SocketAddr,
    agent: ureq::Agent,
}

impl Watcher {
    pub fn new(urls: &Urls, results: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into();
        Self { urls: urls.clone(), results, agent }
    }

    /// Returns the current violations. `cast_count` returns how many votes the clients have cast in a contest.
    pub fn violations(&self, cast_count: &dyn Fn(&str) -> usize) -> Vec<String> {
        let mut violations = Vec::new();
        for contest in [OPEN, ONCE] {
            for (source, total) in
                [("the tallies", self.tallies_total(contest)), ("the results", self.results_total(contest))]
            {
                // The number of cast votes is read after the total, so it includes every vote of the total.
                let cast = cast_count(contest) as u64;
                if let Some(total) = total
                    && total > cast
                {
                    violations.push(format!("{source} show {total} votes for {contest}, and {cast} were cast"));
                }
            }
        }
        violations
    }

    fn tallies_total(&self, contest: &str) -> Option<u64> {
        let mut redis = snapshot::connect_to_tallies(&self.urls).ok()?;
        redis.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let votes: Vec<u64> = redis.hvals(format!("{PREFIX}tally:{contest}")).ok()?;
        Some(votes.iter().sum())
    }

    /// Returns the total of the results, if the service responds.
    pub fn results_total(&self, contest: &str) -> Option<u64> {
        let url = format!("http://{}/v1/contests/{contest}/tally", self.results);
        let tally: Value = self.agent.get(&url).call().ok()?.body_mut().read_json().ok()?;
        tally["total"].as_u64()
    }
}
