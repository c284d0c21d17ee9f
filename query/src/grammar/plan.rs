//! A plan is a query in terms of what a store has: conditions on stored fields, and an order.
//!
//! Stores build their statements from plans. A text of the client is only a value in a plan, and never a name or a part
//! of a statement. So a query can't inject code into a statement.

use super::{
    like::Pattern,
    query::{Condition, Query, Test},
    row::{Direction, Key},
    schema::{Schema, Votes},
    value::{Kind, Value, number_of},
};

/// A stored field of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredField {
    /// The value of a column.
    Column(usize),
    /// The number that a dataset's text looks like. It is absent if the text does not look like a number. Stores
    /// compute it with [`number_of`].
    Number(usize),
    /// The row number of a dataset.
    Row,
}

/// A condition on stored fields. `Below` and `Above` are false for an absent field.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All filters of the list are true.
    All(Vec<Filter>),
    /// At least one filter of the list is true. For an empty list, this is false.
    Any(Vec<Filter>),
    /// The field equals one of the values.
    OneOf(StoredField, Vec<Value>),
    /// The field differs from the value, or is absent.
    NotEqual(StoredField, Value),
    /// The field is below the value. If the flag `or_equal` is set, it may also be equal to the value.
    Below(StoredField, Value, bool),
    /// The field is above the value. If the flag `or_equal` is set, it may also be equal to the value.
    Above(StoredField, Value, bool),
    /// The text of the field matches the pattern.
    Like(StoredField, Pattern),
    /// The field is present.
    Present(StoredField),
    /// The field is absent.
    Absent(StoredField),
}

/// An index of a store: its fields with their directions.
pub type Index = Vec<(StoredField, Direction)>;

/// A query in terms of what a store has.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The conditions of the query. All of them are true for the rows of all pages.
    pub filters: Vec<Filter>,
    /// Additional conditions, which are true for the rows of this page and of all later pages.
    pub page_filters: Vec<Filter>,
    /// The complete order.
    pub order: Vec<(StoredField, Direction)>,
    /// The columns that the store must return, ascending.
    pub columns: Vec<usize>,
    /// The filters that the best index can apply. The store tests the other filters on each row that the index finds.
    pub index_filters: Vec<Filter>,
    /// Whether an index range has exactly the matching rows, in the order of the query. Then the store examines only
    /// the rows that it skips or returns.
    pub is_index_order: bool,
}

impl Plan {
    /// Returns the plan of a query for a store with these indexes.
    pub fn of(query: &Query, schema: &Schema, indexes: &[Index]) -> Self {
        let filters: Vec<Filter> =
            query.conditions.iter().flat_map(|condition| filters_of(schema, condition)).collect();
        let keys = schema.order(&query.sort);
        let order: Vec<(StoredField, Direction)> = keys
            .iter()
            .flat_map(|(key, direction)| stored_fields(schema, *key).into_iter().map(|field| (field, *direction)))
            .collect();
        let page_filters = query.after.as_ref().map_or_else(Vec::new, |last_row| {
            let values = keys.iter().zip(last_row).flat_map(|((key, _), value)| values(schema, *key, value.as_ref()));
            rows_after(schema, &order, &values.collect::<Vec<_>>())
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
        let matches = indexes.iter().map(|index| match_index(index, &filters, &order));
        let best = matches.max_by_key(|(index_filters, is_index_order)| (*is_index_order, index_filters.len()));
        let (index_filters, is_index_order) = best.unwrap_or_default();
        Self { filters, page_filters, order, columns, index_filters, is_index_order }
    }

    /// Returns the indexes of a dataset: one on the row number, and one on each of these columns.
    pub fn dataset_indexes(columns: impl IntoIterator<Item = usize>) -> Vec<Index> {
        let rows = vec![(StoredField::Row, Direction::Ascending)];
        let column = |column| {
            [StoredField::Number(column), StoredField::Column(column), StoredField::Row]
                .map(|field| (field, Direction::Ascending))
                .to_vec()
        };
        [rows].into_iter().chain(columns.into_iter().map(column)).collect()
    }

    /// Returns an index of votes that sorts by these columns, for example the contest, and then by time, newest first.
    pub fn newest_index(columns: &[usize]) -> Index {
        let columns = columns.iter().map(|column| (*column, Direction::Ascending));
        let newest = [
            (Votes::ACCEPTED_AT, Direction::Descending),
            (Votes::PARTITION, Direction::Ascending),
            (Votes::OFFSET, Direction::Descending),
        ];
        columns.chain(newest).map(|(column, direction)| (StoredField::Column(column), direction)).collect()
    }

    /// Returns the index of votes by their position on the vote log.
    pub fn position_index() -> Index {
        [Votes::PARTITION, Votes::OFFSET].map(|column| (StoredField::Column(column), Direction::Ascending)).to_vec()
    }
}

/// Returns the filters that the index can apply, and whether a single range of the index has the rows of all filters in
/// the order of the query.
fn match_index(index: &Index, filters: &[Filter], order: &[(StoredField, Direction)]) -> (Vec<Filter>, bool) {
    let (mut used, mut fixed_fields, mut is_single_range) = (Vec::new(), Vec::new(), true);
    for (field, _) in index {
        let fixes_field = |filter: &&Filter| match filter {
            Filter::OneOf(filtered, _) | Filter::Absent(filtered) => filtered == field,
            _ => false,
        };
        if let Some(filter) = filters.iter().find(fixes_field) {
            is_single_range &= !matches!(filter, Filter::OneOf(_, values) if values.len() != 1);
            used.push(filter.clone());
            fixed_fields.push(*field);
            continue;
        }
        let is_range = |filter: &&Filter| matches!(filter, Filter::Below(filtered, ..) | Filter::Above(filtered, ..) if filtered == field);
        used.extend(filters.iter().filter(is_range).cloned());
        break;
    }
    let without_fixed = |fields: &[(StoredField, Direction)]| -> Vec<(StoredField, Direction)> {
        fields.iter().filter(|(field, _)| !fixed_fields.contains(field)).copied().collect()
    };
    let (index_order, wanted_order) = (without_fixed(index), without_fixed(order));
    let has_order = |reversed: bool| {
        wanted_order.len() <= index_order.len()
            && wanted_order.iter().zip(&index_order).all(|((a, direction), (b, indexed))| {
                a == b && *direction == if reversed { indexed.reversed() } else { *indexed }
            })
    };
    let is_index_order = is_single_range && used.len() == filters.len() && (has_order(false) || has_order(true));
    (used, is_index_order)
}

/// Returns the filters of a condition. The condition is true if all of these filters are true.
fn filters_of(schema: &Schema, Condition { column, test }: &Condition) -> Vec<Filter> {
    let (field, is_cell) = (StoredField::Column(*column), schema.columns()[*column].kind == Kind::Cell);
    let number = |value: &Value| match value {
        Value::Text(text) if is_cell => number_of(text).map(Value::Decimal),
        _ => None,
    };
    let text_only = || is_cell.then_some(Filter::Absent(StoredField::Number(*column)));
    let compare = |value: &Value, filter: fn(StoredField, Value, bool) -> Filter, or_equal: bool| match number(value) {
        Some(number) => vec![filter(StoredField::Number(*column), number, or_equal)],
        None => text_only().into_iter().chain([filter(field, value.clone(), or_equal)]).collect(),
    };
    match test {
        Test::Eq(None) => vec![Filter::Absent(field)],
        Test::Neq(None) => vec![Filter::Present(field)],
        Test::Eq(Some(value)) => match number(value) {
            Some(number) => vec![Filter::OneOf(StoredField::Number(*column), vec![number])],
            None => text_only().into_iter().chain([Filter::OneOf(field, vec![value.clone()])]).collect(),
        },
        Test::Neq(Some(value)) => match number(value) {
            Some(number) => vec![Filter::NotEqual(StoredField::Number(*column), number)],
            None => vec![Filter::NotEqual(field, value.clone())],
        },
        Test::Lt(value) => compare(value, Filter::Below, false),
        Test::Lte(value) => compare(value, Filter::Below, true),
        Test::Gt(value) => compare(value, Filter::Above, false),
        Test::Gte(value) => compare(value, Filter::Above, true),
        Test::Like(pattern) => vec![Filter::Like(field, pattern.clone())],
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
            let mut alternatives = Vec::new();
            if has_absent {
                alternatives.push(vec![Filter::Absent(field)]);
            }
            if !numbers.is_empty() {
                alternatives.push(vec![Filter::OneOf(StoredField::Number(*column), numbers)]);
            }
            if !texts.is_empty() {
                alternatives.push(text_only().into_iter().chain([Filter::OneOf(field, texts)]).collect());
            }
            match <[Vec<Filter>; 1]>::try_from(alternatives) {
                Ok([only]) => only,
                Err(alternatives) => vec![Filter::Any(alternatives.into_iter().map(all_of).collect())],
            }
        }
    }
}

fn all_of(mut filters: Vec<Filter>) -> Filter {
    if filters.len() == 1 { filters.swap_remove(0) } else { Filter::All(filters) }
}

/// Returns the stored fields that a store sorts by for a part of the order.
fn stored_fields(schema: &Schema, key: Key) -> Vec<StoredField> {
    match key {
        Key::Row => vec![StoredField::Row],
        Key::Column(column) if schema.columns()[column].kind == Kind::Cell => {
            vec![StoredField::Number(column), StoredField::Column(column)]
        }
        Key::Column(column) => vec![StoredField::Column(column)],
    }
}

/// Returns the values of a row for the stored fields of [`stored_fields`].
fn values(schema: &Schema, key: Key, value: Option<&Value>) -> Vec<Option<Value>> {
    match (stored_fields(schema, key).len(), value) {
        (2, Some(Value::Text(text))) => vec![number_of(text).map(Value::Decimal), value.cloned()],
        _ => vec![value.cloned()],
    }
}

/// Returns the filters for the rows that follow the row with these values in this order.
///
/// A row follows if its first field follows the first value; or if the first field equals the first value, and the
/// second field follows the second value; and so on.
fn rows_after(schema: &Schema, order: &[(StoredField, Direction)], values: &[Option<Value>]) -> Vec<Filter> {
    let mut alternatives = Vec::new();
    let mut equal = Vec::new();
    for ((field, direction), value) in order.iter().zip(values) {
        let may_be_absent = match field {
            StoredField::Column(column) => schema.columns()[*column].is_optional,
            StoredField::Number(_) => true,
            StoredField::Row => false,
        };
        let follows = match (direction, value) {
            (Direction::Ascending, None) => Some(Filter::Present(*field)),
            (Direction::Ascending, Some(value)) => Some(Filter::Above(*field, value.clone(), false)),
            (Direction::Descending, None) => None,
            (Direction::Descending, Some(value)) if may_be_absent => {
                Some(Filter::Any(vec![Filter::Below(*field, value.clone(), false), Filter::Absent(*field)]))
            }
            (Direction::Descending, Some(value)) => Some(Filter::Below(*field, value.clone(), false)),
        };
        alternatives.extend(follows.map(|follows| all_of(equal.iter().cloned().chain([follows]).collect())));
        equal.push(match value {
            None => Filter::Absent(*field),
            Some(value) => Filter::OneOf(*field, vec![value.clone()]),
        });
    }
    // The alternatives imply this bound on the first field. As a separate filter, it lets an index start at the bound.
    let bound = match (order.first(), values.first()) {
        (Some((field, Direction::Ascending)), Some(Some(value))) => Some(Filter::Above(*field, value.clone(), true)),
        (Some((field @ (StoredField::Row | StoredField::Column(_)), Direction::Descending)), Some(Some(value)))
            if !matches!(field, StoredField::Column(column) if schema.columns()[*column].is_optional) =>
        {
            Some(Filter::Below(*field, value.clone(), true))
        }
        _ => None,
    };
    bound.into_iter().chain([Filter::Any(alternatives)]).collect()
}
