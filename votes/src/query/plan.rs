//! What a store is asked: conditions on what it has, and in which order, without any name or text that a person gave but as a value.

use super::{Condition, Direction, Key, Kind, Pattern, Query, Schema, Test, Value, Votes, number_of};

/// What a store has of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A column's value.
    Column(usize),
    /// The number that a dataset's text looks like; absent if it looks like none. Stored beside the text, by [`number_of`].
    Number(usize),
    /// A dataset's row number.
    Row,
}

/// A condition on what a store has. What is absent is below everything, and no bound holds for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them hold.
    All(Vec<Filter>),
    /// One of them holds: of none, never.
    Any(Vec<Filter>),
    /// It is one of these.
    Is(Slot, Vec<Value>),
    /// It is not this, or absent.
    IsNot(Slot, Value),
    /// It is below the value, or may be the value itself, too.
    Below(Slot, Value, bool),
    /// It is above the value, or may be the value itself, too.
    Above(Slot, Value, bool),
    /// The text has the pattern.
    Like(Slot, Pattern),
    /// It is there.
    Present(Slot),
    /// It is not there.
    Absent(Slot),
}

/// An index of a store: rows by these, one after another.
pub type Index = Vec<(Slot, Direction)>;

/// What a store is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What rows of the answer fulfil, on all pages. Each of it holds.
    pub filters: Vec<Filter>,
    /// What, besides, rows of this page and those after it fulfil.
    pub after: Vec<Filter>,
    /// The whole order.
    pub order: Vec<(Slot, Direction)>,
    /// The columns that are needed, ascending.
    pub columns: Vec<usize>,
    /// Those of the filters by which an index finds rows. The others are tried on each row that it finds.
    pub narrowed: Vec<Filter>,
    /// Whether an index has exactly the rows of the answer in its order: then no more are read than are shown.
    pub is_walk: bool,
}

impl Plan {
    /// The plan of a question for a store with these indexes.
    pub fn of(query: &Query, schema: &Schema, indexes: &[Index]) -> Self {
        let filters: Vec<Filter> =
            query.conditions.iter().flat_map(|condition| filters_of(schema, condition)).collect();
        let keys = schema.order(&query.sort);
        let order: Vec<(Slot, Direction)> = keys
            .iter()
            .flat_map(|(key, direction)| slots(schema, *key).into_iter().map(|slot| (slot, *direction)))
            .collect();
        let after = query.after.as_ref().map_or_else(Vec::new, |after| {
            let values = keys.iter().zip(after).flat_map(|((key, _), value)| values(schema, *key, value.as_ref()));
            beyond(schema, &order, &values.collect::<Vec<_>>())
        });
        let mut columns: Vec<usize> = match &query.fields {
            None => (0..schema.columns().len()).collect(),
            Some(fields) => {
                let sorted =
                    keys.iter().filter_map(|(key, _)| if let Key::Column(column) = key { Some(*column) } else { None });
                fields.iter().copied().chain(sorted).collect()
            }
        };
        columns.sort_unstable();
        columns.dedup();
        let uses = indexes.iter().map(|index| use_of(index, &filters, &order));
        let best = uses.max_by_key(|(narrowed, is_walk)| (*is_walk, narrowed.len()));
        let (narrowed, is_walk) = best.unwrap_or_default();
        Self { filters, after, order, columns, narrowed, is_walk }
    }

    /// The indexes of a dataset: of its rows, and of some of its columns.
    pub fn dataset_indexes(columns: impl IntoIterator<Item = usize>) -> Vec<Index> {
        let rows = vec![(Slot::Row, Direction::Ascending)];
        let column = |column| {
            [Slot::Number(column), Slot::Column(column), Slot::Row].map(|slot| (slot, Direction::Ascending)).to_vec()
        };
        [rows].into_iter().chain(columns.into_iter().map(column)).collect()
    }

    /// The index of votes by time, within their contest, or within a band of it.
    pub fn newest(within: &[usize]) -> Index {
        let within = within.iter().map(|column| (*column, Direction::Ascending));
        let newest = [
            (Votes::ACCEPTED_AT, Direction::Descending),
            (Votes::PARTITION, Direction::Ascending),
            (Votes::OFFSET, Direction::Descending),
        ];
        within.chain(newest).map(|(column, direction)| (Slot::Column(column), direction)).collect()
    }

    /// The index of votes by their place on the log.
    pub fn place() -> Index {
        [Votes::PARTITION, Votes::OFFSET].map(|column| (Slot::Column(column), Direction::Ascending)).to_vec()
    }
}

/// Which filters an index serves, and whether it serves all, and the order.
fn use_of(index: &Index, filters: &[Filter], order: &[(Slot, Direction)]) -> (Vec<Filter>, bool) {
    let (mut used, mut fixed, mut is_one) = (Vec::new(), Vec::new(), true);
    for (slot, _) in index {
        let is_fixed = |filter: &&Filter| match filter {
            Filter::Is(of, _) | Filter::Absent(of) => of == slot,
            _ => false,
        };
        if let Some(filter) = filters.iter().find(is_fixed) {
            is_one &= !matches!(filter, Filter::Is(_, values) if values.len() != 1);
            used.push(filter.clone());
            fixed.push(*slot);
            continue;
        }
        let is_bound = |filter: &&Filter| matches!(filter, Filter::Below(of, ..) | Filter::Above(of, ..) if of == slot);
        used.extend(filters.iter().filter(is_bound).cloned());
        break;
    }
    let free = |of: &[(Slot, Direction)]| -> Vec<(Slot, Direction)> {
        of.iter().filter(|(slot, _)| !fixed.contains(slot)).copied().collect()
    };
    let (indexed, wanted) = (free(index), free(order));
    let goes = |reversed: bool| {
        wanted.len() <= indexed.len()
            && wanted.iter().zip(&indexed).all(|((a, direction), (b, indexed))| {
                a == b && *direction == if reversed { indexed.reversed() } else { *indexed }
            })
    };
    let is_walk = is_one && used.len() == filters.len() && (goes(false) || goes(true));
    (used, is_walk)
}

/// A condition as filters that all hold.
fn filters_of(schema: &Schema, Condition { column, test }: &Condition) -> Vec<Filter> {
    let (slot, is_cell) = (Slot::Column(*column), schema.columns()[*column].kind == Kind::Cell);
    let number = |value: &Value| match value {
        Value::Text(text) if is_cell => number_of(text).map(Value::Decimal),
        _ => None,
    };
    let text_only = || is_cell.then_some(Filter::Absent(Slot::Number(*column)));
    let bound = |value: &Value, filter: fn(Slot, Value, bool) -> Filter, or_equal: bool| match number(value) {
        Some(number) => vec![filter(Slot::Number(*column), number, or_equal)],
        None => text_only().into_iter().chain([filter(slot, value.clone(), or_equal)]).collect(),
    };
    match test {
        Test::Eq(None) => vec![Filter::Absent(slot)],
        Test::Neq(None) => vec![Filter::Present(slot)],
        Test::Eq(Some(value)) => match number(value) {
            Some(number) => vec![Filter::Is(Slot::Number(*column), vec![number])],
            None => text_only().into_iter().chain([Filter::Is(slot, vec![value.clone()])]).collect(),
        },
        Test::Neq(Some(value)) => match number(value) {
            Some(number) => vec![Filter::IsNot(Slot::Number(*column), number)],
            None => vec![Filter::IsNot(slot, value.clone())],
        },
        Test::Lt(value) => bound(value, Filter::Below, false),
        Test::Lte(value) => bound(value, Filter::Below, true),
        Test::Gt(value) => bound(value, Filter::Above, false),
        Test::Gte(value) => bound(value, Filter::Above, true),
        Test::Like(pattern) => vec![Filter::Like(slot, pattern.clone())],
        Test::In(values) => {
            let (mut numbers, mut texts, mut has_absent) = (Vec::new(), Vec::new(), false);
            for value in values {
                match value {
                    None => has_absent = true,
                    Some(value) => match number(value) {
                        Some(number) => numbers.push(number),
                        None => texts.push(value.clone()),
                    },
                }
            }
            numbers.dedup();
            let mut ways = Vec::new();
            if has_absent {
                ways.push(vec![Filter::Absent(slot)]);
            }
            if !numbers.is_empty() {
                ways.push(vec![Filter::Is(Slot::Number(*column), numbers)]);
            }
            if !texts.is_empty() {
                ways.push(text_only().into_iter().chain([Filter::Is(slot, texts)]).collect());
            }
            match <[Vec<Filter>; 1]>::try_from(ways) {
                Ok([only]) => only,
                Err(ways) => vec![Filter::Any(ways.into_iter().map(all).collect())],
            }
        }
    }
}

fn all(mut filters: Vec<Filter>) -> Filter {
    if filters.len() == 1 { filters.swap_remove(0) } else { Filter::All(filters) }
}

/// What a store sorts by for a part of the order.
fn slots(schema: &Schema, key: Key) -> Vec<Slot> {
    match key {
        Key::Row => vec![Slot::Row],
        Key::Column(column) if schema.columns()[column].kind == Kind::Cell => {
            vec![Slot::Number(column), Slot::Column(column)]
        }
        Key::Column(column) => vec![Slot::Column(column)],
    }
}

/// A row's values for those.
fn values(schema: &Schema, key: Key, value: Option<&Value>) -> Vec<Option<Value>> {
    match (slots(schema, key).len(), value) {
        (2, Some(Value::Text(text))) => vec![number_of(text).map(Value::Decimal), value.cloned()],
        _ => vec![value.cloned()],
    }
}

/// What comes after a row: the first part of the order is beyond the row's, or it is the same and the next is beyond, and so on.
fn beyond(schema: &Schema, order: &[(Slot, Direction)], values: &[Option<Value>]) -> Vec<Filter> {
    let mut ways = Vec::new();
    let mut same = Vec::new();
    for ((slot, direction), value) in order.iter().zip(values) {
        let may_be_absent = match slot {
            Slot::Column(column) => schema.columns()[*column].is_optional,
            Slot::Number(_) => true,
            Slot::Row => false,
        };
        let further = match (direction, value) {
            (Direction::Ascending, None) => Some(Filter::Present(*slot)),
            (Direction::Ascending, Some(value)) => Some(Filter::Above(*slot, value.clone(), false)),
            (Direction::Descending, None) => None,
            (Direction::Descending, Some(value)) if may_be_absent => {
                Some(Filter::Any(vec![Filter::Below(*slot, value.clone(), false), Filter::Absent(*slot)]))
            }
            (Direction::Descending, Some(value)) => Some(Filter::Below(*slot, value.clone(), false)),
        };
        ways.extend(further.map(|further| all(same.iter().cloned().chain([further]).collect())));
        same.push(match value {
            None => Filter::Absent(*slot),
            Some(value) => Filter::Is(*slot, vec![value.clone()]),
        });
    }
    // Said on its own as well, the first part's bound is what an index begins with.
    let bound = match (order.first(), values.first()) {
        (Some((slot, Direction::Ascending)), Some(Some(value))) => Some(Filter::Above(*slot, value.clone(), true)),
        (Some((slot @ (Slot::Row | Slot::Column(_)), Direction::Descending)), Some(Some(value))) if !matches!(slot, Slot::Column(column) if schema.columns()[*column].is_optional) => {
            Some(Filter::Below(*slot, value.clone(), true))
        }
        _ => None,
    };
    bound.into_iter().chain([Filter::Any(ways)]).collect()
}
