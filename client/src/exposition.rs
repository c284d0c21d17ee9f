//! Parses the text format of Prometheus, as far as our own `/metrics` uses it:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

/// The metrics of a process, parsed from its `/metrics`.
pub struct Exposition(Vec<Sample>);

/// One value of a series.
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Exposition {
    /// Parses the text. Lines that can't be parsed are ignored.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_sample).collect())
    }

    /// Returns the sum of the series of a metric: of those with this label, or of all if `label` is `None`. Returns
    /// `None` if there is no such series.
    pub fn sum(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let has = |sample: &&Sample| label.is_none_or(|(key, value)| sample.label(key) == Some(value));
        let mut values = self.0.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value);
        let first = values.next()?;
        Some(values.fold(first, |sum, value| sum + value))
    }

    /// Returns the value of a label in the first series of a metric.
    pub fn label(&self, name: &str, key: &str) -> Option<&str> {
        self.0.iter().find(|sample| sample.name == name)?.label(key)
    }
}

impl Sample {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), rest),
    };
    // After the value, there may be a timestamp, which is ignored.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Parses the labels up to the closing brace. Also returns the text after the brace.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP votes_total Votes {cast}
# TYPE votes_total counter
votes_total{producer="rest",outcome="accepted"} 12
votes_total{producer="grpc",outcome="accepted"} 30 1700000000000
votes_total{outcome="queue-full",producer="grpc"} 4

counted{band="Guns \"N\", {Roses}\\\n",contest="bands"} 1
lag 7
ratio NaN
broken{producer="rest} 1
"#;

    #[test]
    fn a_sum_is_over_all_series_with_the_given_label() {
        let read = Exposition::parse(TEXT);
        assert_eq!(read.sum("votes_total", None), Some(46.0));
        assert_eq!(read.sum("votes_total", Some(("outcome", "accepted"))), Some(42.0));
        assert_eq!(read.sum("votes_total", Some(("outcome", "closed"))), None);
        assert_eq!(read.sum("lag", None), Some(7.0));
        assert_eq!(read.sum("votes", None), None);
        assert!(read.sum("ratio", None).is_some_and(f64::is_nan));
        assert_eq!(read.sum("broken", None), None);
    }

    #[test]
    fn the_value_of_a_label_is_unescaped() {
        let read = Exposition::parse(TEXT);
        assert_eq!(read.label("counted", "band"), Some("Guns \"N\", {Roses}\\\n"));
        assert_eq!(read.label("counted", "contest"), Some("bands"));
        assert_eq!(read.label("counted", "producer"), None);
    }
}
