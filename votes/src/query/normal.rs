//! The one text of a question, and of the place where its next page begins.

use std::fmt::Write;

use form_urlencoded::Serializer;

use super::{Direction, Key, Kind, MAX_VALUE, Query, Row, Schema, Test, Value};

impl Query {
    /// The question as parameters, in one form for all that mean the same: what its answer is cached under. It can be read
    /// again. What does not change the answer is not in it.
    pub fn normal_form(&self, schema: &Schema) -> String {
        let mut text = self.selection(schema);
        if let Some(fields) = &self.fields {
            let names: Vec<String> = fields.iter().map(|field| schema.field(*field)).collect();
            text.append_pair("fields", &names.join(","));
        }
        text.append_pair("limit", &format!("{},{}", self.skip, self.count));
        if let Some(after) = &self.after {
            text.append_pair("cursor", &write_cursor(schema, self, after));
        }
        text.finish()
    }

    /// Which rows in which order, without which of those.
    fn selection(&self, schema: &Schema) -> Serializer<'static, String> {
        let mut text = Serializer::new(String::new());
        for condition in &self.conditions {
            let value = |value: &Option<Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            let value = match &condition.test {
                Test::Eq(one) | Test::Neq(one) => value(one),
                Test::Lt(one) | Test::Lte(one) | Test::Gt(one) | Test::Gte(one) => one.to_string(),
                Test::In(values) => values.iter().map(|one| escaped(&value(one))).collect::<Vec<_>>().join(","),
                Test::Like(pattern) => pattern.text(),
            };
            text.append_pair(&schema.field(condition.column), &format!("{}:{value}", condition.test.operator()));
        }
        if !self.sort.is_empty() {
            let key = |(column, direction): &(usize, Direction)| {
                let direction = if *direction == Direction::Ascending { "asc" } else { "desc" };
                format!("{}:{direction}", schema.field(*column))
            };
            text.append_pair("sort", &self.sort.iter().map(key).collect::<Vec<_>>().join(","));
        }
        text
    }

    /// The cursor after a row of the answer. `None` if one of its values is too long for an address.
    pub fn cursor_after(&self, schema: &Schema, row: &Row) -> Option<String> {
        let place = self.place_of(schema, row);
        let is_long =
            |value: &Option<Value>| matches!(value, Some(Value::Text(text)) if text.chars().count() > MAX_VALUE);
        (!place.iter().any(is_long)).then(|| write_cursor(schema, self, &place))
    }

    /// The same question from after a row of its answer on.
    #[must_use]
    pub fn from_after(&self, schema: &Schema, row: &Row) -> Self {
        Self { after: Some(self.place_of(schema, row)), skip: 0, ..self.clone() }
    }

    fn place_of(&self, schema: &Schema, row: &Row) -> Vec<Option<Value>> {
        let value = |(key, _): (Key, Direction)| match key {
            Key::Column(column) => row.cells[column].clone(),
            Key::Row => Some(Value::Integer(i64::try_from(row.number).unwrap_or(i64::MAX))),
        };
        schema.order(&self.sort).into_iter().map(value).collect()
    }
}

/// Text for a list with commas.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// A cursor: a checksum of the question, and the row's values in its order, as JSON in hexadecimal.
fn write_cursor(schema: &Schema, query: &Query, place: &[Option<Value>]) -> String {
    let place: Vec<Option<String>> = place.iter().map(|value| value.as_ref().map(ToString::to_string)).collect();
    let json = serde_json::to_string(&place).expect("a list of texts");
    let mut text = format!("{:08x}", checksum(schema, query));
    for byte in json.bytes() {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whoever makes one by hand begins where they say, in rows that they may ask for anyway.
pub(super) fn read_cursor(schema: &Schema, query: &Query, text: &str) -> Result<Vec<Option<Value>>, &'static str> {
    const UNKNOWN: &str = "is not one that an answer gave as `next`";
    let (checksum_text, place) = text.split_at_checked(8).ok_or(UNKNOWN)?;
    if u32::from_str_radix(checksum_text, 16) != Ok(checksum(schema, query)) {
        return Err("belongs to another question; the conditions and the order have to stay the same");
    }
    let (pairs, rest) = place.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(UNKNOWN);
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let json: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>().ok_or(UNKNOWN)?;
    let place: Vec<Option<String>> = serde_json::from_slice(&json).map_err(|_| UNKNOWN)?;
    let order = schema.order(&query.sort);
    if place.len() != order.len() {
        return Err(UNKNOWN);
    }
    let value = |(text, (key, _)): (Option<String>, (Key, Direction))| {
        let (kind, is_optional) = match key {
            Key::Column(column) => (schema.columns()[column].kind, schema.columns()[column].is_optional),
            Key::Row => (Kind::Integer, false),
        };
        match text {
            None if is_optional => Ok(None),
            None => Err(UNKNOWN),
            // As the store has it, even if no vote should be like that.
            Some(text) if kind == Kind::Text => Ok(Some(Value::Text(text))),
            Some(text) => kind.read(&text).map(Some).map_err(|_| UNKNOWN),
        }
    };
    place.into_iter().zip(order).map(value).collect()
}

fn checksum(schema: &Schema, query: &Query) -> u32 {
    crc32fast::hash(query.selection(schema).finish().as_bytes())
}

/// A normal form's parameters.
pub fn pairs(normal_form: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(normal_form.as_bytes()).into_owned().collect()
}
