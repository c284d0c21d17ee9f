//! The definition of the correct response to a query: [`evaluate`] examines every row.
//!
//! The conformance suite compares the query stores with this function. A test's store in memory uses it.

use std::cmp::Ordering;

use super::{
    query::{Condition, Query, Test},
    row::{Direction, Key, Row},
    schema::Schema,
    value::{Kind, Value, number_of},
};

/// The correct response to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The rows of the page.
    pub rows: Vec<Row>,
    /// The number of matching rows on all pages.
    pub total: usize,
    /// Whether more rows follow the page.
    pub has_more: bool,
}

/// Runs a query on these rows.
pub fn evaluate(query: &Query, schema: &Schema, rows: &[Row]) -> Evaluated {
    let mut matching: Vec<&Row> = rows.iter().filter(|row| matches(query, schema, row)).collect();
    let order = schema.order(&query.sort);
    matching.sort_by(|a, b| compare(schema, &order, &sort_values(&order, a), &sort_values(&order, b)));
    let total = matching.len();
    if let Some(after) = &query.after {
        matching.retain(|row| compare(schema, &order, &sort_values(&order, row), after) == Ordering::Greater);
    }
    let rest = matching.get(query.skip..).unwrap_or_default();
    let page = &rest[..rest.len().min(query.count)];
    Evaluated { rows: page.iter().map(|row| (*row).clone()).collect(), total, has_more: rest.len() > page.len() }
}

fn matches(query: &Query, schema: &Schema, row: &Row) -> bool {
    query.conditions.iter().all(|Condition { column, test }| {
        let (kind, cell) = (schema.columns()[*column].kind, row.cells[*column].as_ref());
        let equals = |value: &Option<Value>| match (cell, value) {
            (Some(cell), Some(value)) => compare_with(kind, cell, value) == Some(Ordering::Equal),
            (cell, value) => cell.is_none() && value.is_none(),
        };
        let order = |value: &Value| cell.and_then(|cell| compare_with(kind, cell, value));
        match test {
            Test::Eq(value) => equals(value),
            Test::Neq(value) => !equals(value),
            Test::Lt(value) => order(value).is_some_and(Ordering::is_lt),
            Test::Lte(value) => order(value).is_some_and(Ordering::is_le),
            Test::Gt(value) => order(value).is_some_and(Ordering::is_gt),
            Test::Gte(value) => order(value).is_some_and(Ordering::is_ge),
            Test::In(values) => values.iter().any(equals),
            Test::Like(pattern) => matches!(cell, Some(Value::Text(text)) if pattern.matches(text)),
        }
    })
}

/// Compares the value of a row with the value of a condition. In a dataset, a value that looks like a number is
/// compared only with cells that look like numbers, and any other value only with the other cells. Returns `None` if
/// the two values can't be compared.
fn compare_with(kind: Kind, cell: &Value, value: &Value) -> Option<Ordering> {
    match (kind, cell, value) {
        (Kind::Cell, Value::Text(cell), Value::Text(value)) => match (number_of(cell), number_of(value)) {
            (Some(cell), Some(value)) => cell.partial_cmp(&value),
            (None, None) => Some(cell.cmp(value)),
            _ => None,
        },
        _ => Some(kind.compare(Some(cell), Some(value))),
    }
}

fn sort_values(order: &[(Key, Direction)], row: &Row) -> Vec<Option<Value>> {
    let value = |(key, _): &(Key, Direction)| match key {
        Key::Column(column) => row.cells[*column].clone(),
        Key::Row => Some(Value::Integer(i64::try_from(row.number).unwrap_or(i64::MAX))),
    };
    order.iter().map(value).collect()
}

fn compare(schema: &Schema, order: &[(Key, Direction)], a: &[Option<Value>], b: &[Option<Value>]) -> Ordering {
    let parts = order.iter().zip(a.iter().zip(b)).map(|((key, direction), (a, b))| {
        let kind = match key {
            Key::Column(column) => schema.columns()[*column].kind,
            Key::Row => Kind::Integer,
        };
        let ascending = kind.compare(a.as_ref(), b.as_ref());
        if *direction == Direction::Ascending { ascending } else { ascending.reverse() }
    });
    parts.fold(Ordering::Equal, Ordering::then)
}
