//! The columns of a table: their names, their types, and the order of its rows.

use std::sync::Arc;

use super::{Direction, Key, PARAMETERS, Row, Value};
use crate::{LoggedVote, Refusal};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A vote's text: NFC, trimmed, without control characters.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Decimal,
    /// A moment, to the millisecond.
    Time,
    /// A vote's id.
    Uuid,
    /// A voter's HMAC.
    Hash,
    /// A dataset's text, compared as a number with what looks like one, too.
    Cell,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As it is stored. Two may have one name, and a name may be empty.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether a row may have none.
    pub is_optional: bool,
}

/// The places of a vote's columns.
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
    pub const DOOR: usize = 8;
    pub const PARTITION: usize = 9;
    pub const OFFSET: usize = 10;
}

/// A vote's columns: name, type, and whether a vote may have none.
pub const VOTE_COLUMNS: [(&str, Kind, bool); 11] = [
    ("vote_id", Kind::Uuid, false),
    ("contest", Kind::Text, false),
    ("name", Kind::Text, false),
    ("album", Kind::Text, true),
    ("year", Kind::Integer, true),
    ("rank", Kind::Decimal, true),
    ("voter", Kind::Hash, true),
    ("accepted_at", Kind::Time, false),
    ("door", Kind::Text, false),
    ("partition", Kind::Integer, false),
    ("offset", Kind::Integer, false),
];

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    columns: Arc<[Column]>,
    is_votes: bool,
}

impl Schema {
    /// Of the votes.
    pub fn votes() -> Self {
        let column =
            |(name, kind, is_optional): (&str, Kind, bool)| Column { name: name.to_owned(), kind, is_optional };
        Self { columns: VOTE_COLUMNS.into_iter().map(column).collect(), is_votes: true }
    }

    /// Of a dataset, whose columns are text.
    pub fn dataset(columns: &[String]) -> Self {
        let column = |name: &String| Column { name: name.clone(), kind: Kind::Cell, is_optional: false };
        Self { columns: columns.iter().map(column).collect(), is_votes: false }
    }

    /// The columns, in the table's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether this is the table of votes.
    pub fn is_votes(&self) -> bool {
        self.is_votes
    }

    /// The column of this name, in any case, or of this place: `column.N`, counted from 1.
    pub(crate) fn find(&self, name: &str) -> Result<usize, Refusal> {
        if let Some(place) = name.strip_prefix(BY_PLACE) {
            let place = place.parse().ok().filter(|place| (1..=self.columns.len()).contains(place));
            let refusal = || Refusal::field(name, format_args!("there are the columns 1 to {}", self.columns.len()));
            return place.map(|place: usize| place - 1).ok_or_else(refusal);
        }
        let wanted = name.to_lowercase();
        let mut named = self.columns.iter().enumerate().filter(|(_, column)| column.name.to_lowercase() == wanted);
        let found = named.next().map(|(index, _)| index);
        if PARAMETERS.contains(&wanted.as_str()) {
            let column = found.map(|index| format!("; the column of this name is column.{}", index + 1));
            let detail = format!("is no column here but a parameter, written {wanted}{}", column.unwrap_or_default());
            return Err(Refusal::field(name, detail));
        }
        match (found, named.next()) {
            (Some(first), Some((second, _))) => Err(Refusal::field(
                name,
                format_args!(
                    "names more than one column, as names are the same in any case; say column.{} or column.{}",
                    first + 1,
                    second + 1
                ),
            )),
            (Some(found), None) => Ok(found),
            (None, _) => {
                Err(Refusal::field(shown(name), format_args!("there is no such field; there are {}", self.names())))
            }
        }
    }

    /// What a column is asked for by: its name, or its place where the name would not find it.
    pub fn field(&self, index: usize) -> String {
        let name = &self.columns[index].name;
        // In lists names end at commas and colons.
        let is_plain =
            !name.is_empty() && !name.contains([',', ':']) && self.find(name).is_ok_and(|found| found == index);
        if is_plain { name.clone() } else { format!("{BY_PLACE}{}", index + 1) }
    }

    /// What a column is called in an answer's objects: its name, or its place where that is empty, twice or looks like a place.
    pub fn label(&self, index: usize) -> String {
        let name = &self.columns[index].name;
        let is_own = self.columns.iter().filter(|column| column.name == *name).count() == 1;
        if is_own && !name.is_empty() && !name.starts_with(BY_PLACE) {
            name.clone()
        } else {
            format!("{BY_PLACE}{}", index + 1)
        }
    }

    /// The whole order of rows, in which no two are equal.
    pub fn order(&self, sort: &[(usize, Direction)]) -> Vec<(Key, Direction)> {
        let mut order: Vec<(Key, Direction)> =
            sort.iter().map(|(column, direction)| (Key::Column(*column), *direction)).collect();
        let asked = |column: usize| sort.iter().find(|(asked, _)| *asked == column).map(|(_, direction)| *direction);
        if self.is_votes {
            // As the index has it, or its exact reverse: newest first, and in one millisecond by place.
            let time = asked(Votes::ACCEPTED_AT).unwrap_or(Direction::Descending);
            for (column, direction) in
                [(Votes::ACCEPTED_AT, time), (Votes::PARTITION, time.reversed()), (Votes::OFFSET, time)]
            {
                if asked(column).is_none() {
                    order.push((Key::Column(column), direction));
                }
            }
        } else {
            order.push((Key::Row, sort.last().map_or(Direction::Ascending, |(_, direction)| *direction)));
        }
        order
    }

    fn names(&self) -> String {
        const MOST: usize = 20;
        let names: Vec<String> = (0..self.columns.len().min(MOST)).map(|index| self.field(index)).collect();
        let more = if self.columns.len() > MOST { ", ..." } else { "" };
        format!("{}{more}", names.join(", "))
    }
}

const BY_PLACE: &str = "column.";

/// A name that somebody gave, short enough to be told.
pub(super) fn shown(name: &str) -> &str {
    name.char_indices().nth(64).map_or(name, |(end, _)| &name[..end])
}

impl From<&LoggedVote> for Row {
    /// A vote as a row of the table of votes.
    fn from(LoggedVote { place, vote }: &LoggedVote) -> Self {
        let whole = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let cells = vec![
            Some(Value::Uuid(vote.vote_id.0)),
            Some(Value::Text(vote.contest.to_string())),
            Some(Value::Text(vote.name.clone())),
            vote.album.clone().map(Value::Text),
            vote.year.map(|year| Value::Integer(year.into())),
            vote.rank.map(Value::Decimal),
            vote.voter.map(Value::Hash),
            Some(Value::Time(vote.accepted_at)),
            Some(Value::Text(vote.door.as_str().to_owned())),
            Some(whole(place.partition.0.into())),
            Some(whole(place.offset.0)),
        ];
        Self { number: 0, cells }
    }
}

impl Row {
    /// A dataset's row.
    pub fn of_dataset(number: u64, cells: Vec<String>) -> Self {
        Self { number, cells: cells.into_iter().map(|cell| Some(Value::Text(cell))).collect() }
    }
}
