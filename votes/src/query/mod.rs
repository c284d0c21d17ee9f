//! What people ask of votes and of datasets: one grammar, and what it means, without any store.
//!
//! | idea | file |
//! |---|---|
//! | which columns there are, how they are named, and in which order rows come | [`schema`] |
//! | from parameters to a question | [`parse`] |
//! | values by their column's type, and when a text looks like a number | [`value`] |
//! | `like` | [`like`] |
//! | the one text of a question: what it is cached under, and where its next page begins | [`normal`] |
//! | what a store is asked: conditions on what it has, which index serves them | [`plan`] |
//! | what the answer has to be | [`evaluate`] |
//!
//! A store translates a [`Plan`], never a parameter: names become places in a list, and values stay values.

mod evaluate;
mod like;
mod normal;
mod parse;
mod plan;
mod schema;
mod value;

pub use evaluate::{Evaluated, evaluate};
pub use like::Pattern;
pub use normal::pairs;
pub use plan::{Filter, Index, Plan, Slot};
pub use schema::{Column, Kind, Schema, VOTE_COLUMNS, Votes};
pub use value::{Value, number_of};

/// The parameters that are no columns. A column of such a name is asked for by its place, `column.N`.
pub const PARAMETERS: [&str; 8] = ["sort", "limit", "cursor", "fields", "allow_scan", "via", "format", "max_age"];

/// The most rows of one page.
pub const MAX_COUNT: usize = 50_000;

/// The rows of a page if nothing is said.
pub const DEFAULT_COUNT: usize = 100;

/// How deep a page may end. What is skipped is read; a cursor skips nothing.
pub const MAX_DEPTH: usize = 100_000;

/// Totals are exact up to this; beyond it they are told as "at least".
pub const MAX_TOTAL: usize = 10_000;

/// The most conditions of a question.
pub const MAX_CONDITIONS: usize = 32;

/// The most values of an `in`.
pub const MAX_VALUES: usize = 1_000;

/// The longest value, in characters.
pub const MAX_VALUE: usize = 2_000;

/// A question: which rows, in which order, and which of those.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// All of them hold. At most one of each operator and column, in one order.
    pub(crate) conditions: Vec<Condition>,
    /// What was asked; [`Schema::order`] completes it.
    pub(crate) sort: Vec<(usize, Direction)>,
    /// The columns of the answer, in order; all if nothing is said.
    pub fields: Option<Vec<usize>>,
    /// So many rows come before the page.
    pub skip: usize,
    /// The most rows of the page.
    pub count: usize,
    /// The page begins after the row with these values, one for each part of the order.
    pub after: Option<Vec<Option<Value>>>,
    /// A store may look at any number of rows.
    pub allow_scan: bool,
    /// Whether it is to be said how many rows there are in all.
    pub with_total: bool,
}

/// What has to be true of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) column: usize,
    pub(crate) test: Test,
}

/// An operator with its value. `None` is a vote's field that is not there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Eq(Option<Value>),
    /// Whatever `Eq` is not: also rows without the field.
    Neq(Option<Value>),
    Lt(Value),
    Lte(Value),
    Gt(Value),
    Gte(Value),
    In(Vec<Option<Value>>),
    Like(Pattern),
}

impl Test {
    pub(crate) fn operator(&self) -> &'static str {
        match self {
            Self::Eq(_) => "eq",
            Self::Neq(_) => "neq",
            Self::Lt(_) => "lt",
            Self::Lte(_) => "lte",
            Self::Gt(_) => "gt",
            Self::Gte(_) => "gte",
            Self::In(_) => "in",
            Self::Like(_) => "like",
        }
    }
}

/// Which way rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

impl Direction {
    /// The other one.
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
    /// A column's value.
    Column(usize),
    /// A dataset's row number.
    Row,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its number, in a dataset.
    pub number: u64,
    /// A value for each column of the table. Those that were not asked for may be absent.
    pub cells: Vec<Option<Value>>,
}

/// How many rows match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// So many.
    Exactly(usize),
    /// Those, and maybe more.
    AtLeast(usize),
}

impl Total {
    /// The total of so many rows, counted up to one beyond [`MAX_TOTAL`].
    pub fn counted(rows: usize) -> Self {
        if rows > MAX_TOTAL { Self::AtLeast(MAX_TOTAL) } else { Self::Exactly(rows) }
    }
}

impl Query {
    /// Whether something is asked of a column.
    pub fn asks_of(&self, column: usize) -> bool {
        self.conditions.iter().any(|condition| condition.column == column)
    }

    /// What a column has to be one of, if the question says so: the values of its `eq` and `in`.
    pub fn named(&self, column: usize) -> Option<Vec<&Value>> {
        let mut named = None;
        for condition in self.conditions.iter().filter(|condition| condition.column == column) {
            let values = match &condition.test {
                Test::Eq(value) => std::slice::from_ref(value),
                Test::In(values) => values,
                _ => continue,
            };
            named.get_or_insert_with(Vec::new).extend(values.iter().flatten());
        }
        named
    }
}
