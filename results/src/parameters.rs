//! The parameters of a request. Every refusal names the parameter.
//!
//! Unknown parameters and repeated parameters are refused, because a typing error must not silently widen a query.

use std::{fmt::Display, str::FromStr, time::Duration};

use rocket::form::{self, DataField, FromForm, Options, ValueField};
use votes::{DurationError, Refusal, parse_whole_duration};

/// The parameters of a request that the route has not taken yet.
pub(crate) struct Parameters<'r>(Vec<(&'r str, &'r str)>);

impl<'r> Parameters<'r> {
    /// Returns whether a parameter is present.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| *key == name)
    }

    /// Returns all parameters that were not taken.
    pub(crate) fn into_rest(self) -> Vec<(&'r str, &'r str)> {
        self.0
    }

    /// Takes a parameter, if it is present.
    ///
    /// # Errors
    /// If the parameter is present more than once, or is not a valid `T`.
    pub(crate) fn take<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let mut values = self.0.extract_if(.., |(key, _)| *key == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() {
            return Err(Refusal::field(name, "is given more than once"));
        }
        value.map(|value| value.parse().map_err(|problem| Refusal::field(name, problem))).transpose()
    }

    /// Refuses the request if there are parameters that were not taken.
    pub(crate) fn refuse_unknown(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::field(name, "there is no such parameter")),
        }
    }
}

#[rocket::async_trait]
impl<'r> FromForm<'r> for Parameters<'r> {
    type Context = Self;

    fn init(_: Options) -> Self {
        Self(Vec::new())
    }

    fn push_value(parameters: &mut Self, field: ValueField<'r>) {
        parameters.0.push((field.name.source().as_str(), field.value));
    }

    async fn push_data(_: &mut Self, _: DataField<'r, '_>) {}

    fn finalize(parameters: Self) -> form::Result<'r, Self> {
        Ok(parameters)
    }
}

/// A number of results: 1 to 1000, 100 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(u16);

impl Count {
    pub(crate) fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for Count {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Count {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.parse().ok().filter(|count| (1..=1000).contains(count));
        count.map(Self).ok_or("must be a whole number from 1 to 1000")
    }
}

/// A duration in milliseconds. It is written as a whole number and a unit: `500ms`, `60s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(i64);

impl Span {
    pub(crate) const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub(crate) fn millis(self) -> i64 {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_whole_duration(text).map(Self::from).map_err(|error| match error {
            DurationError::Malformed => "must be a whole number and a unit: 500ms, 60s, 5m, 2h or 1d",
            DurationError::TooLong => "is too long",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters<'r>(query: &[(&'r str, &'r str)]) -> Parameters<'r> {
        Parameters(query.to_vec())
    }

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(text.parse(), Ok(Span(millis)), "{text}");
        }
        for text in
            ["", "60", "s", "-1s", "1.5s", "1 s", "1S", "1w", "s60", "99999999999999999999s", "9999999999999999d", "٣s"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_count_has_bounds() {
        assert_eq!("1".parse(), Ok(Count(1)));
        assert_eq!("1000".parse(), Ok(Count(1000)));
        for text in ["0", "1001", "-1", "", "ten", "1e2", "99999999999"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_duplicate_invalid_or_unknown_parameter_is_named() {
        let field = |refusal: Refusal| refusal.field.map(String::from);
        let mut twice = parameters(&[("top", "1"), ("other", "x"), ("top", "2")]);
        assert_eq!(field(twice.take::<Count>("top").unwrap_err()).as_deref(), Some("top"));
        let mut invalid = parameters(&[("top", "many")]);
        assert_eq!(field(invalid.take::<Count>("top").unwrap_err()).as_deref(), Some("top"));
        let mut unknown = parameters(&[("top", "7"), ("tpo", "8")]);
        assert_eq!(unknown.take::<Count>("top"), Ok(Some(Count(7))));
        assert_eq!(field(unknown.refuse_unknown().unwrap_err()).as_deref(), Some("tpo"));
    }
}
