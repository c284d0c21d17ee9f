//! Writes receipts as JSON.

use std::io::Write;

use service::{http::Problem, ingest::Outcome};
use votes::{Accepted, UnixMillis};

/// The typical size of a receipt as JSON, in bytes.
pub(crate) const TYPICAL_BYTES: usize = 160;

/// Appends an [`api::Receipt`] as JSON. It does not use serde, because a batch has thousands of receipts and no value
/// needs escaping.
pub(crate) fn write(json: &mut Vec<u8>, accepted: &Accepted) {
    write_at(json, accepted, accepted.receipt.accepted_at);
}

fn write_at(json: &mut Vec<u8>, accepted: &Accepted, accepted_at: impl std::fmt::Display) {
    let Accepted { vote_id, contest, receipt } = accepted;
    let position = receipt.position;
    let _ = write!(
        json,
        r#"{{"vote_id":"{vote_id}","contest":"{contest}","partition":{},"offset":{},"accepted_at":"{accepted_at}"}}"#,
        position.partition, position.offset,
    );
}

/// A JSON array of receipts and problems, which is the response to a batch. It grows while the outcomes arrive.
pub(crate) struct Receipts {
    json: Vec<u8>,
    /// The number of accepted votes.
    pub(crate) accepted: usize,
    /// The time of the latest receipt, also as text. It is cached because most receipts have the same time as the
    /// previous receipt.
    time: (UnixMillis, String),
}

impl Receipts {
    /// Creates an empty array.
    pub(crate) fn new() -> Self {
        Self { json: b"[".to_vec(), accepted: 0, time: (UnixMillis(i64::MIN), String::new()) }
    }

    /// Appends the outcome of one vote.
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
                let _ = serde_json::to_writer(&mut self.json, &Problem::from(refusal).document);
            }
        }
    }

    /// Closes the array and returns it. Do not append outcomes afterwards.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.json.push(b']');
        std::mem::take(&mut self.json)
    }
}

#[cfg(test)]
mod tests {
    use votes::{LogPosition, Offset, Partition, Receipt, VoteId};

    use super::*;

    #[test]
    fn a_receipt_is_the_same_json_as_serde_writes() {
        let position = LogPosition { partition: Partition(7), offset: Offset(12) };
        let receipt = Receipt { position, accepted_at: UnixMillis(1_795_262_400_123) };
        let accepted = Accepted { vote_id: VoteId::new(), contest: "bands".parse().unwrap(), receipt };
        let mut written = Vec::new();
        write(&mut written, &accepted);
        let read: api::Receipt = serde_json::from_slice(&written).unwrap();
        assert_eq!(read.vote_id, accepted.vote_id.0);
        assert_eq!(read.accepted_at, "2026-11-21T12:00:00.123Z");
        assert_eq!(serde_json::to_string(&read).unwrap().as_bytes(), written);
    }
}
