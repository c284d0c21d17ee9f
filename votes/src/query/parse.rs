//! From parameters to a question. Every refusal names its parameter.

use super::{
    Condition, DEFAULT_COUNT, Direction, Kind, MAX_CONDITIONS, MAX_COUNT, MAX_DEPTH, MAX_VALUES, Pattern, Query,
    Schema, Test, Value, normal, schema::shown,
};
use crate::Refusal;

/// The most fields to sort by.
const MAX_SORT: usize = 4;

const ENDS_WITH_A_BACKSLASH: &str = "ends with a backslash, which takes the next character as it is";

const OPERATORS: [&str; 8] = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "like"];

impl Query {
    /// Reads parameters: name and value, decoded.
    ///
    /// # Errors
    /// [`Reason::InvalidField`](crate::Reason::InvalidField), naming the first parameter that is wrong.
    pub fn parse<'a>(
        schema: &Schema,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refusal> {
        Self::parse_with(schema, parameters, |_| Ok(()))
    }

    /// As [`parse`](Self::parse), where `complete` adds what parameters of other names say, before a cursor is read: that belongs to
    /// the whole question.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of `complete`.
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
                    let test = test(schema, column, value).map_err(|problem| Refusal::field(shown(name), problem))?;
                    let is_same =
                        |known: &Condition| known.column == column && known.test.operator() == test.operator();
                    if conditions.iter().any(is_same) {
                        let detail =
                            format!("{} is given more than once; for one of several values write in:", test.operator());
                        return Err(Refusal::field(shown(name), detail));
                    }
                    if conditions.len() == MAX_CONDITIONS {
                        let detail = format!("is one condition too many; {MAX_CONDITIONS} are allowed");
                        return Err(Refusal::field(shown(name), detail));
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
        let (skip, count) = limit.map_or(Ok((0, DEFAULT_COUNT)), parse_limit)?;
        let allow_scan = match allow_scan {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Refusal::field("allow_scan", "must be true or false")),
        };
        let mut query = Self { conditions, sort, fields, skip, count, after: None, allow_scan, with_total: true };
        complete(&mut query)?;
        if let Some(cursor) = cursor {
            if skip > 0 {
                return Err(Refusal::field("limit", "skips rows, and so does a cursor; write limit=count"));
            }
            query.after =
                Some(normal::read_cursor(schema, &query, cursor).map_err(|problem| Refusal::field("cursor", problem))?);
        }
        Ok(query)
    }

    /// Adds that a column is exactly this.
    pub fn require(&mut self, column: usize, value: Value) {
        self.add(column, Test::Eq(Some(value)));
    }

    /// Adds bounds of a column, the lower one included, the upper one not.
    ///
    /// # Errors
    /// The operator of a bound that is asked already.
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
            self.add(column, test);
        }
        Ok(())
    }

    fn add(&mut self, column: usize, test: Test) {
        self.conditions.push(Condition { column, test });
        self.conditions.sort_by_key(|condition| (condition.column, condition.test.operator()));
    }
}

/// `value`, or `operator:value`.
fn test(schema: &Schema, column: usize, text: &str) -> Result<Test, String> {
    let column = &schema.columns()[column];
    let (operator, text) = match text.split_once(':') {
        Some((word, rest)) if OPERATORS.contains(&word) => (word, rest),
        Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            let operators = OPERATORS.join(" ");
            return Err(format!(
                "there is no operator {}; there are {operators}, and before a value that has a colon itself write eq:",
                shown(word)
            ));
        }
        _ => ("eq", text),
    };
    // A vote's field that may be missing is asked for as such by an empty value. In a dataset every cell is text.
    let read = |text: &str| match (text.is_empty(), column.kind) {
        (true, Kind::Cell) | (false, _) => column.kind.read(text).map(Some),
        (true, _) if column.is_optional => Ok(None),
        (true, _) => Err("must not be empty: every vote has one".to_owned()),
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
            if values.len() > MAX_VALUES {
                return Err(format!("has {} values; {MAX_VALUES} are allowed", values.len()));
            }
            let mut values = values.iter().map(|value| read(value)).collect::<Result<Vec<_>, _>>()?;
            values.sort_by(|a, b| column.kind.compare(a.as_ref(), b.as_ref()));
            values.dedup();
            Test::In(values)
        }
        _ => match column.kind {
            Kind::Text => Test::Like(Pattern::parse(&crate::vote::composed(text.to_owned())?)?),
            Kind::Cell => Test::Like(Pattern::parse(text)?),
            _ => return Err("like is for text".to_owned()),
        },
    })
}

/// Values with commas between them. A backslash takes the character after it as it is.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut values = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let value = values.last_mut().expect("there is always one");
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
                return Err(Refusal::field("sort", format_args!("{} is no field with :asc or :desc", shown(key))));
            }
        };
        let column = in_list("sort", schema, name)?;
        if sort.iter().any(|(known, _)| *known == column) {
            return Err(Refusal::field("sort", format_args!("{} is given more than once", shown(name))));
        }
        sort.push((column, direction));
    }
    if sort.len() > MAX_SORT {
        return Err(Refusal::field("sort", format_args!("has {} fields; {MAX_SORT} are allowed", sort.len())));
    }
    Ok(sort)
}

fn parse_fields(schema: &Schema, text: &str) -> Result<Vec<usize>, Refusal> {
    let mut fields = Vec::new();
    for name in text.split(',') {
        let column = in_list("fields", schema, name)?;
        if fields.contains(&column) {
            return Err(Refusal::field("fields", format_args!("{} is given more than once", shown(name))));
        }
        fields.push(column);
    }
    Ok(fields)
}

/// A column that a parameter's list names.
fn in_list(parameter: &str, schema: &Schema, name: &str) -> Result<usize, Refusal> {
    schema.find(name).map_err(|refusal| Refusal::field(parameter, refusal.detail))
}

/// `count`, or `skip,count`.
fn parse_limit(text: &str) -> Result<(usize, usize), Refusal> {
    let number = |text: &str| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<usize>().ok() } else { None }
    };
    let (skip, count) = text.split_once(',').unwrap_or(("0", text));
    let count = number(count).filter(|count| (1..=MAX_COUNT).contains(count));
    let (Some(skip), Some(count)) = (number(skip), count) else {
        let detail = format!("must be count or skip,count, with a count from 1 to {MAX_COUNT}");
        return Err(Refusal::field("limit", detail));
    };
    if skip.saturating_add(count) > MAX_DEPTH {
        let detail = format!(
            "ends beyond row {MAX_DEPTH}; go on with cursor=, the `next` of the page before, which skips nothing"
        );
        return Err(Refusal::field("limit", detail));
    }
    Ok((skip, count))
}
