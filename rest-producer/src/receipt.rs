//! What a client gets for its votes.

use std::io::Write;

use serde::Serialize;
use service::{door::Outcome, http::Problem};
use utoipa::ToSchema;
use votes::{Accepted, UnixMillis};

/// About the bytes of one receipt in JSON.
pub(crate) const TYPICAL_BYTES: usize = 160;

/// The log's word that it has the vote for good.
// The schema of what `write` writes; a test compares them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Receipt {
    /// The vote's id, as it was given or made.
    #[schema(format = Uuid)]
    vote_id: String,
    /// The contest.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "bands")]
    contest: String,
    /// The partition of the log.
    #[schema(minimum = 0, maximum = 65535)]
    partition: u16,
    /// The offset in the partition.
    #[schema(minimum = 0)]
    offset: u64,
    /// When the door took the vote: RFC 3339, UTC, in milliseconds.
    #[schema(format = DateTime, example = "2026-11-21T12:00:00.123Z")]
    accepted_at: String,
}

/// Writes a receipt as JSON. By hand, since a batch has thousands, and nothing in it needs escaping.
pub(crate) fn write(json: &mut Vec<u8>, accepted: &Accepted) {
    write_at(json, accepted, accepted.receipt.accepted_at);
}

fn write_at(json: &mut Vec<u8>, accepted: &Accepted, accepted_at: impl std::fmt::Display) {
    let Accepted { vote_id, contest, receipt } = accepted;
    let place = receipt.place;
    let _ = write!(
        json,
        r#"{{"vote_id":"{vote_id}","contest":"{contest}","partition":{},"offset":{},"accepted_at":"{accepted_at}"}}"#,
        place.partition, place.offset,
    );
}

/// The answer to a batch while it grows: a JSON array of receipts and problems.
pub(crate) struct Receipts {
    json: Vec<u8>,
    /// How many votes the log has.
    pub(crate) accepted: usize,
    /// The time of the latest receipt, since those that follow mostly share it.
    time: (UnixMillis, String),
}

impl Receipts {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { json: b"[".to_vec(), accepted: 0, time: (UnixMillis(i64::MIN), String::new()) }
    }

    /// Appends what became of one vote.
    pub(crate) fn push(&mut self, outcome: Outcome) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        match outcome {
            Ok(accepted) => {
                let accepted_at = accepted.receipt.accepted_at;
                if self.time.0 != accepted_at {
                    self.time = (accepted_at, accepted_at.to_string());
                }
                write_at(&mut self.json, &accepted, &self.time.1);
                self.accepted += 1;
            }
            Err(refusal) => {
                let _ = serde_json::to_writer(&mut self.json, &Problem::from(refusal));
            }
        }
    }

    /// The whole array. Nothing can be appended afterwards.
    pub(crate) fn json(&mut self) -> Vec<u8> {
        self.json.push(b']');
        std::mem::take(&mut self.json)
    }
}
