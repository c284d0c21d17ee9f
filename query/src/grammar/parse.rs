//! This module parses parameters into a query. Every refusal names the invalid parameter.

use votes::{Refusal, normalized};

use super::{
    like::Pattern,
    limits::{DEFAULT_PAGE_ROWS, MAX_CONDITIONS, MAX_IN_VALUES, MAX_PAGE_END, MAX_PAGE_ROWS},
    normal,
    query::{Condition, Query, Test},
    row::Direction,
    schema::{Schema, shortened},
    value::{Kind, Value},
};

/// The maximum number of fields in `sort`.
const MAX_SORT_FIELDS: usize = 4;

const ENDS_WITH_A_BACKSLASH: &str = "ends with a backslash, which escapes the next character";

const OPERATORS: [&str; 8] = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "like"];

impl Query {
    /// Parses parameters: decoded names and values.
    ///
    /// # Errors
    /// Returns [`Reason::InvalidField`](votes::Reason::InvalidField) with the first parameter that is invalid.
    pub fn parse<'a>(
        schema: &Schema,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refusal> {
        Self::parse_with(schema, parameters, |_| Ok(()))
    }

    /// Parses parameters as [`parse`](Self::parse) does. `complete` can add conditions that do not come from `parameters`.
    ///
    /// `complete` is called before the cursor is read, because a cursor is valid only for the complete query.
    ///
    /// # Errors
    /// Returns the errors of [`parse`](Self::parse) and those of `complete`.
    pub fn parse_with<'a>(
        schema: &Schema,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        complete: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<Self, Refusal> {
        let (mut sort, mut limit, mut cursor, mut fields, mut allow_scan) = (None, None, None, None, None);
        let mut conditions: Vec<Condition> = Vec::new();
        for (name, value) in parameters {
            let parameter = match name {
                "sort" => &mut sort,
                "limit" => &mut limit,
                "cursor" => &mut cursor,
                "fields" => &mut fields,
                "allow_scan" => &mut allow_scan,
                _ => {
                    let column = schema.find(name)?;
                    let test = parse_test(schema, column, value)
                        .map_err(|problem| Refusal::field(shortened(name), problem))?;
                    let is_same =
                        |known: &Condition| known.column == column && known.test.operator() == test.operator();
                    if conditions.iter().any(is_same) {
                        let detail = format!(
                            "{} is given more than once; for several values use the operator `in`, for example in:A,B",
                            test.operator()
                        );
                        return Err(Refusal::field(shortened(name), detail));
                    }
                    if conditions.len() == MAX_CONDITIONS {
                        let detail = format!("is one condition too many; at most {MAX_CONDITIONS} are allowed");
                        return Err(Refusal::field(shortened(name), detail));
                    }
                    conditions.push(Condition { column, test });
                    continue;
                }
            };
            if parameter.replace(value).is_some() {
                return Err(Refusal::field(name, "is given more than once"));
            }
        }
        conditions.sort_by_key(|condition| (condition.column, condition.test.operator()));
        let sort = sort.map_or(Ok(Vec::new()), |text| parse_sort(schema, text))?;
        let fields = fields.map(|text| parse_fields(schema, text)).transpose()?;
        let (skip, count) = limit.map_or(Ok((0, DEFAULT_PAGE_ROWS)), parse_limit)?;
        let allow_scan = match allow_scan {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Refusal::field("allow_scan", "must be true or false")),
        };
        let mut query = Self { conditions, sort, fields, skip, count, after: None, allow_scan, with_total: true };
        complete(&mut query)?;
        if let Some(cursor) = cursor {
            if skip > 0 {
                return Err(Refusal::field("limit", "can't skip rows if there is a cursor; write limit=count"));
            }
            query.after =
                Some(normal::read_cursor(schema, &query, cursor).map_err(|problem| Refusal::field("cursor", problem))?);
        }
        Ok(query)
    }

    /// Adds the condition that a column equals the value.
    pub fn require(&mut self, column: usize, value: Value) {
        self.add_condition(column, Test::Eq(Some(value)));
    }

    /// Adds the condition that a column is at least `from` and below `to`.
    ///
    /// # Errors
    /// Returns the operator of a bound, `gte` or `lt`, if the query already has this operator for the column.
    pub fn require_between(
        &mut self,
        column: usize,
        from: Option<Value>,
        to: Option<Value>,
    ) -> Result<(), &'static str> {
        for test in from.map(Test::Gte).into_iter().chain(to.map(Test::Lt)) {
            if self.conditions.iter().any(|known| known.column == column && known.test.operator() == test.operator()) {
                return Err(test.operator());
            }
            self.add_condition(column, test);
        }
        Ok(())
    }

    fn add_condition(&mut self, column: usize, test: Test) {
        self.conditions.push(Condition { column, test });
        self.conditions.sort_by_key(|condition| (condition.column, condition.test.operator()));
    }
}

/// Parses a condition: `value` or `operator:value`.
fn parse_test(schema: &Schema, column: usize, text: &str) -> Result<Test, String> {
    let column = &schema.columns()[column];
    let (operator, text) = match text.split_once(':') {
        Some((word, rest)) if OPERATORS.contains(&word) => (word, rest),
        Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            let operators = OPERATORS.join(" ");
            return Err(format!(
                "there is no operator {}; the operators are {operators}; if the value itself has a colon, write eq: in front of it",
                shortened(word)
            ));
        }
        _ => ("eq", text),
    };
    // An empty value stands for an absent field of a vote. In a dataset, an empty value is an empty cell.
    let read = |text: &str| match (text.is_empty(), column.kind) {
        (true, Kind::Cell) | (false, _) => column.kind.read(text).map(Some),
        (true, _) if column.is_optional => Ok(None),
        (true, _) => Err("must not be empty: every vote has this field".to_owned()),
    };
    let bound = |text: &str| read(text)?.ok_or_else(|| format!("{operator} needs a value"));
    Ok(match operator {
        "eq" => Test::Eq(read(text)?),
        "neq" => Test::Neq(read(text)?),
        "lt" => Test::Lt(bound(text)?),
        "lte" => Test::Lte(bound(text)?),
        "gt" => Test::Gt(bound(text)?),
        "gte" => Test::Gte(bound(text)?),
        "in" => {
            let values = split(text)?;
            if values.len() > MAX_IN_VALUES {
                return Err(format!("has {} values; at most {MAX_IN_VALUES} are allowed", values.len()));
            }
            let mut values = values.iter().map(|value| read(value)).collect::<Result<Vec<_>, _>>()?;
            values.sort_by(|a, b| column.kind.compare(a.as_ref(), b.as_ref()));
            values.dedup();
            Test::In(values)
        }
        _ => match column.kind {
            Kind::Text => Test::Like(Pattern::parse(&normalized(text.to_owned())?)?),
            Kind::Cell => Test::Like(Pattern::parse(text)?),
            _ => return Err("like is only for text fields".to_owned()),
        },
    })
}

/// Splits a list at its commas. A backslash escapes the next character.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut values = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let value = values.last_mut().expect("there is always a last value");
        match character {
            ',' => values.push(String::new()),
            '\\' => value.push(characters.next().ok_or(ENDS_WITH_A_BACKSLASH)?),
            character => value.push(character),
        }
    }
    Ok(values)
}

fn parse_sort(schema: &Schema, text: &str) -> Result<Vec<(usize, Direction)>, Refusal> {
    let mut sort: Vec<(usize, Direction)> = Vec::new();
    for key in text.split(',') {
        let (name, direction) = match key.rsplit_once(':') {
            None | Some((_, "asc")) => (key.strip_suffix(":asc").unwrap_or(key), Direction::Ascending),
            Some((name, "desc")) => (name, Direction::Descending),
            Some(_) => {
                return Err(Refusal::field(
                    "sort",
                    format_args!("{} has an unknown direction; write field, field:asc or field:desc", shortened(key)),
                ));
            }
        };
        let column = find_listed("sort", schema, name)?;
        if sort.iter().any(|(known, _)| *known == column) {
            return Err(Refusal::field("sort", format_args!("{} is given more than once", shortened(name))));
        }
        sort.push((column, direction));
    }
    if sort.len() > MAX_SORT_FIELDS {
        return Err(Refusal::field(
            "sort",
            format_args!("has {} fields; at most {MAX_SORT_FIELDS} are allowed", sort.len()),
        ));
    }
    Ok(sort)
}

fn parse_fields(schema: &Schema, text: &str) -> Result<Vec<usize>, Refusal> {
    let mut fields = Vec::new();
    for name in text.split(',') {
        let column = find_listed("fields", schema, name)?;
        if fields.contains(&column) {
            return Err(Refusal::field("fields", format_args!("{} is given more than once", shortened(name))));
        }
        fields.push(column);
    }
    Ok(fields)
}

/// Finds the column with this name. `parameter` is the parameter that lists the name: `sort` or `fields`. If there is no
/// such column, the refusal names `parameter`.
fn find_listed(parameter: &str, schema: &Schema, name: &str) -> Result<usize, Refusal> {
    schema.find(name).map_err(|refusal| Refusal::field(parameter, refusal.detail))
}

/// Parses `count` or `skip,count`. Returns the two numbers, `skip` first.
fn parse_limit(text: &str) -> Result<(usize, usize), Refusal> {
    let number = |text: &str| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<usize>().ok() } else { None }
    };
    let (skip, count) = text.split_once(',').unwrap_or(("0", text));
    let count = number(count).filter(|count| (1..=MAX_PAGE_ROWS).contains(count));
    let (Some(skip), Some(count)) = (number(skip), count) else {
        let detail = format!("must be count or skip,count, where count is from 1 to {MAX_PAGE_ROWS}");
        return Err(Refusal::field("limit", detail));
    };
    if skip.saturating_add(count) > MAX_PAGE_END {
        let detail = format!(
            "the page would end after row {MAX_PAGE_END}; to read more pages, set cursor to the `next` of the previous page"
        );
        return Err(Refusal::field("limit", detail));
    }
    Ok((skip, count))
}
