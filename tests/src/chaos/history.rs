//! The history of the clients: the votes that the clients sent, and the receipts that they received. The checker
//! compares the stores with this history.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The contest without a limit of votes per voter.
pub const OPEN: &str = "bands";
/// The contest in which each voter has one vote.
pub const ONCE: &str = "finals";

/// A vote that a client cast, and its receipts.
#[derive(Clone, Debug)]
pub struct Cast {
    pub id: Uuid,
    pub contest: &'static str,
    pub name: String,
    pub album: Option<String>,
    pub year: Option<u32>,
    /// `Some` only in [`ONCE`].
    pub voter: Option<String>,
    /// The number of times that the vote was sent. The vote must not be accepted more often.
    pub attempts: usize,
    /// The receipt of every acknowledgement.
    pub receipts: Vec<Receipt>,
    /// The reason why a producer refused the vote permanently.
    pub refusal: Option<String>,
}

/// The receipt of an acknowledged vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub producer: &'static str,
    pub partition: i32,
    pub offset: i64,
    /// Unix time in milliseconds.
    pub accepted_at: i64,
}

/// All casts, and the secret of the voters' HMACs.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory {
    pub casts: Vec<Cast>,
    pub secret: Vec<u8>,
}

impl ClientHistory {
    /// Returns the ballot key: votes with the same ballot key are duplicates. This implements the definition, without
    /// the code of the system.
    pub fn ballot(&self, cast: &Cast) -> String {
        match &cast.voter {
            None => format!("{}|{}", cast.contest, cast.id),
            Some(voter) => format!("{}|{}", cast.contest, self.voter_hmac(cast.contest, voter)),
        }
    }

    /// Returns the HMAC-SHA-256 of the contest, a zero byte and the voter, in hexadecimal.
    pub fn voter_hmac(&self, contest: &str, voter: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).unwrap();
        mac.update(contest.as_bytes());
        mac.update(&[0]);
        mac.update(voter.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    pub fn by_id(&self) -> HashMap<Uuid, &Cast> {
        self.casts.iter().map(|cast| (cast.id, cast)).collect()
    }
}

/// Returns bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
