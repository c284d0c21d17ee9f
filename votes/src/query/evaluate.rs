//! What the answer has to be, by looking at every row: what stores are compared with, and how tables in memory are asked.

use std::cmp::Ordering;

use super::{Condition, Direction, Key, Kind, Query, Row, Schema, Test, Value, number_of};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The page.
    pub rows: Vec<Row>,
    /// How many rows match, on all pages.
    pub total: usize,
    /// Whether rows come after the page.
    pub has_more: bool,
}

/// Answers a question of these rows.
pub fn evaluate(query: &Query, schema: &Schema, rows: &[Row]) -> Evaluated {
    let mut matching: Vec<&Row> = rows.iter().filter(|row| matches(query, schema, row)).collect();
    let order = schema.order(&query.sort);
    matching.sort_by(|a, b| compare(schema, &order, &place(&order, a), &place(&order, b)));
    let total = matching.len();
    if let Some(after) = &query.after {
        matching.retain(|row| compare(schema, &order, &place(&order, row), after) == Ordering::Greater);
    }
    let rest = matching.get(query.skip..).unwrap_or_default();
    let page = &rest[..rest.len().min(query.count)];
    Evaluated { rows: page.iter().map(|row| (*row).clone()).collect(), total, has_more: rest.len() > page.len() }
}

fn matches(query: &Query, schema: &Schema, row: &Row) -> bool {
    query.conditions.iter().all(|Condition { column, test }| {
        let (kind, cell) = (schema.columns()[*column].kind, row.cells[*column].as_ref());
        let is = |value: &Option<Value>| match (cell, value) {
            (Some(cell), Some(value)) => compare_with(kind, cell, value) == Some(Ordering::Equal),
            (cell, value) => cell.is_none() && value.is_none(),
        };
        let beside = |value: &Value| cell.and_then(|cell| compare_with(kind, cell, value));
        match test {
            Test::Eq(value) => is(value),
            Test::Neq(value) => !is(value),
            Test::Lt(value) => beside(value).is_some_and(Ordering::is_lt),
            Test::Lte(value) => beside(value).is_some_and(Ordering::is_le),
            Test::Gt(value) => beside(value).is_some_and(Ordering::is_gt),
            Test::Gte(value) => beside(value).is_some_and(Ordering::is_ge),
            Test::In(values) => values.iter().any(is),
            Test::Like(pattern) => matches!(cell, Some(Value::Text(text)) if pattern.is_in(text)),
        }
    })
}

/// How a row's value stands to that of a condition. In a dataset a value that looks like a number is compared with cells that look
/// like numbers, any other with those that do not.
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

fn place(order: &[(Key, Direction)], row: &Row) -> Vec<Option<Value>> {
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
