//! Queries: conditions on columns, an order, and a page of the matching rows.

use super::{like::Pattern, row::Direction, value::Value};

/// A query: conditions, an order and a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The conditions, sorted by column and operator. A row matches if all conditions are true. Each operator occurs at
    /// most once for a column.
    pub(crate) conditions: Vec<Condition>,
    /// The requested order. [`Schema::order`](super::schema::Schema::order) completes this order: then no two rows are
    /// equal.
    pub(crate) sort: Vec<(usize, Direction)>,
    /// The columns of the response, in order; `None` for all columns.
    pub fields: Option<Vec<usize>>,
    /// The number of rows before the page.
    pub skip: usize,
    /// The maximum number of rows on the page.
    pub count: usize,
    /// If present, the page begins after the row with these sort values, one for each part of the order.
    pub after: Option<Vec<Option<Value>>>,
    /// Whether the store may examine any number of rows.
    pub allow_scan: bool,
    /// Whether the response has the total number of matching rows.
    pub with_total: bool,
}

/// A condition on a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) column: usize,
    pub(crate) test: Test,
}

/// An operator with its value. `None` stands for an absent field of a vote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Eq(Option<Value>),
    /// The opposite of `Eq`. Unless the value is `None`, this is also true for rows without the field.
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

impl Query {
    /// Returns whether the query has a condition on this column.
    pub fn has_condition(&self, column: usize) -> bool {
        self.conditions.iter().any(|condition| condition.column == column)
    }

    /// Returns the values of the conditions `eq` and `in` on this column, or `None` if the query has no such condition.
    pub fn required_values(&self, column: usize) -> Option<Vec<&Value>> {
        let mut required = None;
        for condition in self.conditions.iter().filter(|condition| condition.column == column) {
            let values = match &condition.test {
                Test::Eq(value) => std::slice::from_ref(value),
                Test::In(values) => values,
                _ => continue,
            };
            required.get_or_insert_with(Vec::new).extend(values.iter().flatten());
        }
        required
    }
}
