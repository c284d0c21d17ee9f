//! What clients did and what they were told: the checker's measure of truth.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The contest in which everyone may vote as often as they like.
pub const OPEN: &str = "bands";
/// The contest in which each voter has one vote.
pub const ONCE: &str = "finals";

/// A vote, as its client wants it to be counted, and what became of it.
#[derive(Clone, Debug)]
pub struct Cast {
    pub id: Uuid,
    pub contest: &'static str,
    pub name: String,
    pub album: Option<String>,
    pub year: Option<u32>,
    /// Only in [`ONCE`].
    pub voter: Option<String>,
    /// How often it was sent, whatever came of it. The log can't have more copies.
    pub attempts: usize,
    /// Every acknowledgement.
    pub receipts: Vec<Receipt>,
    /// Why a door did not want it, for good.
    pub refused: Option<String>,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub door: &'static str,
    pub partition: i32,
    pub offset: i64,
    /// Unix time in milliseconds.
    pub accepted_at: i64,
}

/// All casts, and the secret under which voters are hashed.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub casts: Vec<Cast>,
    pub secret: Vec<u8>,
}

impl Told {
    /// The ballot key, which says which votes are the same. Computed here from the definition, not by the system's code.
    pub fn ballot(&self, cast: &Cast) -> String {
        match &cast.voter {
            None => format!("{}|{}", cast.contest, cast.id),
            Some(voter) => format!("{}|{}", cast.contest, self.hash(cast.contest, voter)),
        }
    }

    /// HMAC-SHA-256 over the contest, a zero byte and the voter, as hexadecimal digits.
    pub fn hash(&self, contest: &str, voter: &str) -> String {
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

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
