//! The normal form of a query, and the cursor of its next page.

use form_urlencoded::Serializer;

use super::{
    limits::MAX_VALUE_CHARS,
    query::{Query, Test},
    row::{Direction, Key, Row},
    schema::Schema,
    value::{Kind, Value},
};

impl Query {
    /// Returns the query as URL-encoded parameters. All spellings of the query have the same text, and its response is
    /// cached with this text as the key.
    ///
    /// [`Query::parse`] can parse the decoded text again. Parameters that do not change the response are omitted.
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

    /// Returns the conditions and the order, without the page and the fields.
    fn selection(&self, schema: &Schema) -> Serializer<'static, String> {
        let mut text = Serializer::new(String::new());
        for condition in &self.conditions {
            let value = |value: &Option<Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            let value = match &condition.test {
                Test::Eq(one) | Test::Neq(one) => value(one),
                Test::Lt(one) | Test::Lte(one) | Test::Gt(one) | Test::Gte(one) => one.to_string(),
                Test::In(values) => values.iter().map(|one| escape(&value(one))).collect::<Vec<_>>().join(","),
                Test::Like(pattern) => pattern.to_text(),
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

    /// Returns the cursor of the page that follows this row, or `None` if a sort value of the row is too long for a
    /// URL.
    pub fn cursor_after(&self, schema: &Schema, row: &Row) -> Option<String> {
        let values = self.sort_values(schema, row);
        let is_long =
            |value: &Option<Value>| matches!(value, Some(Value::Text(text)) if text.chars().count() > MAX_VALUE_CHARS);
        (!values.iter().any(is_long)).then(|| write_cursor(schema, self, &values))
    }

    /// Returns the same query for the page that follows this row.
    #[must_use]
    pub fn page_after(&self, schema: &Schema, row: &Row) -> Self {
        Self { after: Some(self.sort_values(schema, row)), skip: 0, ..self.clone() }
    }

    /// Returns the row's value for each part of the order.
    fn sort_values(&self, schema: &Schema, row: &Row) -> Vec<Option<Value>> {
        let value = |(key, _): (Key, Direction)| match key {
            Key::Column(column) => row.cells[column].clone(),
            Key::Row => Some(Value::Integer(i64::try_from(row.number).unwrap_or(i64::MAX))),
        };
        schema.order(&self.sort).into_iter().map(value).collect()
    }
}

/// Escapes a text for a list that is separated by commas.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// Writes a cursor: a checksum of the query, and the row's sort values as JSON in hexadecimal.
fn write_cursor(schema: &Schema, query: &Query, values: &[Option<Value>]) -> String {
    let texts: Vec<Option<String>> = values.iter().map(|value| value.as_ref().map(ToString::to_string)).collect();
    let json = serde_json::to_string(&texts).expect("a list of texts can be written as JSON");
    format!("{:08x}{}", checksum(schema, query), hex::encode(json))
}

/// Reads a cursor. A forged cursor does no harm: it only selects a page of rows that the client may query anyway.
pub(super) fn read_cursor(schema: &Schema, query: &Query, text: &str) -> Result<Vec<Option<Value>>, &'static str> {
    const UNKNOWN: &str = "is not the `next` of a response";
    let (checksum_text, values) = text.split_at_checked(8).ok_or(UNKNOWN)?;
    if u32::from_str_radix(checksum_text, 16) != Ok(checksum(schema, query)) {
        return Err("belongs to another query; do not change the conditions and the order");
    }
    let json = hex::decode(values).map_err(|_| UNKNOWN)?;
    let texts: Vec<Option<String>> = serde_json::from_slice(&json).map_err(|_| UNKNOWN)?;
    let order = schema.order(&query.sort);
    if texts.len() != order.len() {
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
            // The store has this text, so the text is not normalised.
            Some(text) if kind == Kind::Text => Ok(Some(Value::Text(text))),
            Some(text) => kind.read(&text).map(Some).map_err(|_| UNKNOWN),
        }
    };
    texts.into_iter().zip(order).map(value).collect()
}

fn checksum(schema: &Schema, query: &Query) -> u32 {
    crc32fast::hash(query.selection(schema).finish().as_bytes())
}

/// Returns the parameters of a normal form: decoded names and values.
pub fn decode_normal_form(normal_form: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(normal_form.as_bytes()).into_owned().collect()
}
