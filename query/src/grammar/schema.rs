//! The columns of a table, their names and types, and the order of its rows.

use std::sync::Arc;

use votes::Refusal;

use super::{
    limits::PARAMETERS,
    row::{Direction, Key},
    value::Kind,
};

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name of the column. In a dataset, a name may be empty, and may occur more than once.
    pub name: String,
    /// The type of the values.
    pub kind: Kind,
    /// Whether the value may be absent.
    pub is_optional: bool,
}

/// The indexes of the columns of a vote.
pub struct Votes;

#[expect(missing_docs, reason = "each is the field of this name")]
impl Votes {
    pub const VOTE_ID: usize = 0;
    pub const CONTEST: usize = 1;
    pub const NAME: usize = 2;
    pub const ALBUM: usize = 3;
    pub const YEAR: usize = 4;
    pub const RANK: usize = 5;
    pub const VOTER: usize = 6;
    pub const ACCEPTED_AT: usize = 7;
    pub const PRODUCER: usize = 8;
    pub const PARTITION: usize = 9;
    pub const OFFSET: usize = 10;
}

/// The columns of a vote: name, type, and whether the value may be absent.
pub const VOTE_COLUMNS: [(&str, Kind, bool); 11] = [
    ("vote_id", Kind::Uuid, false),
    ("contest", Kind::Text, false),
    ("name", Kind::Text, false),
    ("album", Kind::Text, true),
    ("year", Kind::Integer, true),
    ("rank", Kind::Decimal, true),
    ("voter", Kind::Hash, true),
    ("accepted_at", Kind::Time, false),
    ("producer", Kind::Text, false),
    ("partition", Kind::Integer, false),
    ("offset", Kind::Integer, false),
];

/// The columns of a table, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    columns: Arc<[Column]>,
    is_votes: bool,
}

impl Schema {
    /// Returns the columns of the table of votes.
    pub fn votes() -> Self {
        let column =
            |(name, kind, is_optional): (&str, Kind, bool)| Column { name: name.to_owned(), kind, is_optional };
        Self { columns: VOTE_COLUMNS.into_iter().map(column).collect(), is_votes: true }
    }

    /// Returns the columns of a dataset. The type of every column is text.
    pub fn dataset(columns: &[String]) -> Self {
        let column = |name: &String| Column { name: name.clone(), kind: Kind::Cell, is_optional: false };
        Self { columns: columns.iter().map(column).collect(), is_votes: false }
    }

    /// Returns the columns, in the order of the table.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns whether this is the table of votes.
    pub fn is_votes(&self) -> bool {
        self.is_votes
    }

    /// Returns the index of the column with this name, in any case, or with this number: `column.N`, counted from 1.
    pub(crate) fn find(&self, name: &str) -> Result<usize, Refusal> {
        if let Some(number) = name.strip_prefix(BY_NUMBER) {
            let number = number.parse().ok().filter(|number| (1..=self.columns.len()).contains(number));
            let refusal =
                || Refusal::field(name, format_args!("does not exist; the columns are 1 to {}", self.columns.len()));
            return number.map(|number: usize| number - 1).ok_or_else(refusal);
        }
        let wanted = name.to_lowercase();
        let mut named = self.columns.iter().enumerate().filter(|(_, column)| column.name.to_lowercase() == wanted);
        let found = named.next().map(|(index, _)| index);
        if PARAMETERS.contains(&wanted.as_str()) {
            let column = found.map(|index| format!("; the column of this name is column.{}", index + 1));
            let detail =
                format!("is a parameter and not a column here; write it as {wanted}{}", column.unwrap_or_default());
            return Err(Refusal::field(name, detail));
        }
        match (found, named.next()) {
            (Some(first), Some((second, _))) => Err(Refusal::field(
                name,
                format_args!(
                    "is the name of more than one column, because case is ignored; write column.{} or column.{}",
                    first + 1,
                    second + 1
                ),
            )),
            (Some(found), None) => Ok(found),
            (None, _) => Err(Refusal::field(
                shortened(name),
                format_args!("there is no such field; the fields are {}", self.names()),
            )),
        }
    }

    /// Returns the name of a column in queries: its name, or `column.N` if a query could not find the column by its
    /// name.
    pub fn field(&self, index: usize) -> String {
        let name = &self.columns[index].name;
        // In the lists of `sort` and `fields`, commas and colons end a name.
        let is_plain =
            !name.is_empty() && !name.contains([',', ':']) && self.find(name).is_ok_and(|found| found == index);
        if is_plain { name.clone() } else { format!("{BY_NUMBER}{}", index + 1) }
    }

    /// Returns the name of a column in the objects of a response: its name, or `column.N` if its name is empty, is not
    /// unique or begins with `column.`.
    pub fn label(&self, index: usize) -> String {
        let name = &self.columns[index].name;
        let is_unique = self.columns.iter().filter(|column| column.name == *name).count() == 1;
        if is_unique && !name.is_empty() && !name.starts_with(BY_NUMBER) {
            name.clone()
        } else {
            format!("{BY_NUMBER}{}", index + 1)
        }
    }

    /// Completes the requested order with more columns. In the complete order, no two rows are equal.
    pub fn order(&self, sort: &[(usize, Direction)]) -> Vec<(Key, Direction)> {
        let mut order: Vec<(Key, Direction)> =
            sort.iter().map(|(column, direction)| (Key::Column(*column), *direction)).collect();
        let requested =
            |column: usize| sort.iter().find(|(sorted, _)| *sorted == column).map(|(_, direction)| *direction);
        if self.is_votes {
            // The order of the index, or the exact reverse: newest first, and votes of the same millisecond by
            // position.
            let time = requested(Votes::ACCEPTED_AT).unwrap_or(Direction::Descending);
            for (column, direction) in
                [(Votes::ACCEPTED_AT, time), (Votes::PARTITION, time.reversed()), (Votes::OFFSET, time)]
            {
                if requested(column).is_none() {
                    order.push((Key::Column(column), direction));
                }
            }
        } else {
            order.push((Key::Row, sort.last().map_or(Direction::Ascending, |(_, direction)| *direction)));
        }
        order
    }

    fn names(&self) -> String {
        const MAX_SHOWN: usize = 20;
        let names: Vec<String> = (0..self.columns.len().min(MAX_SHOWN)).map(|index| self.field(index)).collect();
        let more = if self.columns.len() > MAX_SHOWN { ", ..." } else { "" };
        format!("{}{more}", names.join(", "))
    }
}

/// The prefix of a column's number where the number is used instead of the name.
const BY_NUMBER: &str = "column.";

/// Shortens a name from a request for an error message.
pub(super) fn shortened(name: &str) -> &str {
    name.char_indices().nth(64).map_or(name, |(end, _)| &name[..end])
}
