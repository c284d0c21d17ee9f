//! Prometheus' text format, as far as our own `/metrics` speak it:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

/// What a process tells at `/metrics`.
pub(crate) struct Exposition(Vec<Sample>);

/// One value of a series.
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Exposition {
    /// Reads what can be read; other lines are nobody's business.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The sum of a metric's series that have this label, or of all of them. `None` if there is none.
    pub(crate) fn sum(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let has = |sample: &&Sample| label.is_none_or(|(key, value)| sample.label(key) == Some(value));
        let mut values = self.0.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value);
        let first = values.next()?;
        Some(values.fold(first, |sum, value| sum + value))
    }

    /// What a label says in the first series of a metric.
    pub(crate) fn label(&self, name: &str, key: &str) -> Option<&str> {
        self.0.iter().find(|sample| sample.name == name)?.label(key)
    }
}

impl Sample {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // A time may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
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
votes_total{door="rest",outcome="accepted"} 12
votes_total{door="grpc",outcome="accepted"} 30 1700000000000
votes_total{outcome="queue-full",door="grpc"} 4

counted{band="Guns \"N\", {Roses}\\\n",contest="bands"} 1
lag 7
ratio NaN
broken{door="rest} 1
"#;

    #[test]
    fn series_are_summed_over_the_labels_that_nobody_asks_for() {
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
    fn a_label_is_read_as_it_was_meant() {
        let read = Exposition::parse(TEXT);
        assert_eq!(read.label("counted", "band"), Some("Guns \"N\", {Roses}\\\n"));
        assert_eq!(read.label("counted", "contest"), Some("bands"));
        assert_eq!(read.label("counted", "door"), None);
    }
}
