//! The tally of a contest, and its JSON.

use bytes::Bytes;
use votes::Tally;

/// The tally of a contest, with the number of accepted votes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContestTally {
    pub(crate) tally: Tally,
    /// The number of records on the vote log, for all contests. This number is never below `processed` of the tally.
    pub(crate) accepted: u64,
}

impl ContestTally {
    /// Returns whether both tallies have the same votes of the contest. The version and the totals of all contests may
    /// differ.
    pub(crate) fn has_the_same_votes(&self, other: &Self) -> bool {
        let votes = |contest_tally: &Self| (contest_tally.tally.total, contest_tally.tally.others);
        votes(self) == votes(other)
            && self.tally.producers == other.tally.producers
            && self.tally.bands == other.tally.bands
    }

    /// Returns the tally as clients read it.
    pub(crate) fn to_api(&self) -> api::Tally {
        let Self { tally, accepted } = self;
        let band =
            |band: &votes::BandVotes| api::BandVotes { name: band.name.clone(), votes: band.votes, share: band.share };
        api::Tally {
            contest: tally.contest.to_string(),
            total: tally.total,
            version: tally.version,
            bands: tally.bands.iter().map(band).collect(),
            others: api::Others { bands: tally.others.bands, votes: tally.others.votes },
            producers: tally.producers.clone(),
            processed: tally.processed,
            accepted: *accepted,
            recounting: tally.recounting,
        }
    }

    /// Returns the tally as a server-sent event.
    pub(crate) fn to_event(&self) -> Bytes {
        let data = serde_json::to_string(&self.to_api()).expect("all keys of a tally are text");
        format!("id: {}\nevent: tally\ndata: {data}\n\n", self.tally.version).into()
    }
}
