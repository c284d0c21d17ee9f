//! Rows of a table, and their order.

use votes::LoggedVote;

use super::{limits::MAX_EXACT_TOTAL, value::Value};

/// The direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The lowest value comes first.
    Ascending,
    /// The highest value comes first.
    Descending,
}

impl Direction {
    /// Returns the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

/// A part of the order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The value of a column.
    Column(usize),
    /// The row number of a dataset.
    Row,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The number of the row in a dataset. For a vote, 0.
    pub number: u64,
    /// The value of each column. Columns that the query does not need may be absent.
    pub cells: Vec<Option<Value>>,
}

/// The number of matching rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Exactly this number.
    Exactly(usize),
    /// This number or more.
    AtLeast(usize),
}

impl Total {
    /// Returns the total for a count that stopped at [`MAX_EXACT_TOTAL`] + 1 rows.
    pub fn counted(rows: usize) -> Self {
        if rows > MAX_EXACT_TOTAL { Self::AtLeast(MAX_EXACT_TOTAL) } else { Self::Exactly(rows) }
    }
}

impl From<&LoggedVote> for Row {
    /// Returns the vote as a row of the table of votes.
    fn from(LoggedVote { position, vote }: &LoggedVote) -> Self {
        let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let cells = vec![
            Some(Value::Uuid(vote.vote_id.0)),
            Some(Value::Text(vote.contest.to_string())),
            Some(Value::Text(vote.name.clone())),
            vote.album.clone().map(Value::Text),
            vote.year.map(|year| Value::Integer(year.into())),
            vote.rank.map(Value::Decimal),
            vote.voter.map(Value::Hash),
            Some(Value::Time(vote.accepted_at)),
            Some(Value::Text(vote.producer.as_str().to_owned())),
            Some(integer(position.partition.0.into())),
            Some(integer(position.offset.0)),
        ];
        Self { number: 0, cells }
    }
}

impl Row {
    /// Returns a row of a dataset.
    pub fn of_dataset(number: u64, cells: Vec<String>) -> Self {
        Self { number, cells: cells.into_iter().map(|cell| Some(Value::Text(cell))).collect() }
    }
}
