//! The contest of a request.

use std::sync::Arc;

use votes::{ContestId, Contests, Reason, Refusal};

/// The configured contests, by the names that requests use.
#[derive(Clone)]
pub(crate) struct ContestNames(Arc<Contests>);

impl ContestNames {
    pub(crate) fn new(contests: Arc<Contests>) -> Self {
        Self(contests)
    }

    /// Returns the ids of all contests, sorted.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ContestId> {
        self.0.ids()
    }

    /// Returns the contest with this name, or the default contest if there is no name.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<&ContestId, Refusal> {
        self.0.find(name).map(|(contest, _)| contest)
    }

    /// Returns the contest of a path segment. Any other segment is an unknown contest (404), even if it can't be a
    /// slug.
    pub(crate) fn in_path(&self, segment: &str) -> Result<&ContestId, Refusal> {
        self.named(Some(segment)).map_err(|refusal| Refusal { reason: Reason::UnknownContest, field: None, ..refusal })
    }
}
