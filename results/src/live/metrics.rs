//! The tallies in the text format of Prometheus (<https://prometheus.io/docs/instrumenting/exposition_formats/>). The
//! tallies are read at each scrape. So the numbers are exact, and a band that is no longer among the leading bands has
//! no series any more.

use std::{
    fmt::{self, Display, Write},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use tokio::time::timeout;
use votes::{ContestId, Contests, Tallies, Tally};

/// The maximum number of bands of all contests together. Each band is a series.
const MAX_BANDS: usize = 500;

/// The maximum number of bands of one contest.
const MAX_BANDS_OF_A_CONTEST: usize = 100;

/// The longest time that a scrape waits for the tallies. The other metrics of the scrape should not wait longer.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns a function that reads the tallies for a scrape. The function omits contests that can't be read. Alerts
/// detect that a contest is absent.
pub(crate) fn tally_metrics(
    contests: Arc<Contests>,
    tallies: Arc<dyn Tallies>,
) -> impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static {
    move || Box::pin(read(Arc::clone(&contests), Arc::clone(&tallies)))
}

async fn read(contests: Arc<Contests>, tallies: Arc<dyn Tallies>) -> String {
    let ids: Vec<&ContestId> = contests.ids().take(MAX_BANDS).collect();
    let top = (MAX_BANDS / ids.len().max(1)).clamp(1, MAX_BANDS_OF_A_CONTEST);
    let reads = ids.iter().map(|contest| timeout(READ_TIMEOUT, tallies.tally(contest, top)));
    let tallies: Vec<Tally> = join_all(reads).await.into_iter().flatten().flatten().collect();
    write_metrics(&tallies)
}

fn write_metrics(tallies: &[Tally]) -> String {
    let mut text = String::new();
    let mut metric = |name, help, write: &dyn Fn(&mut String, &Tally) -> fmt::Result| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for tally in tallies {
            let _ = write(&mut text, tally);
        }
    };
    metric("ovation_tally_votes", "Votes in the tallies, by contest and band", &|text, tally| {
        for band in &tally.bands {
            let (contest, name) = (&tally.contest, Label(&band.name));
            writeln!(text, r#"ovation_tally_votes{{contest="{contest}",band="{name}"}} {}"#, band.votes)?;
        }
        // If a band has the name `other`, the other bands have the empty name, which no vote can have.
        let name = if tally.bands.iter().any(|band| band.name == OTHER) { "" } else { OTHER };
        let (contest, votes) = (&tally.contest, tally.others.votes);
        writeln!(text, r#"ovation_tally_votes{{contest="{contest}",band="{name}"}} {votes}"#)
    });
    metric("ovation_tally_producer_votes", "Votes in the tallies, by contest and producer", &|text, tally| {
        for (producer, votes) in &tally.producers {
            let (contest, producer) = (&tally.contest, Label(producer));
            writeln!(text, r#"ovation_tally_producer_votes{{contest="{contest}",producer="{producer}"}} {votes}"#)?;
        }
        Ok(())
    });
    metric("ovation_tally_bands", "Bands with votes, by contest", &|text, tally| {
        let bands = tally.bands.len() as u64 + tally.others.bands;
        writeln!(text, r#"ovation_tally_bands{{contest="{}"}} {bands}"#, tally.contest)
    });
    text
}

/// The name for the sum of the bands that are not listed one by one.
const OTHER: &str = "other";

/// The value of a label, with special characters escaped.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            plain => f.write_char(plain),
        })
    }
}

#[cfg(test)]
mod tests {
    use votes::{BandVotes, Others};

    use super::*;

    #[test]
    fn a_tally_is_written_completely_for_any_names_of_bands() {
        let band = |name: &str, votes| BandVotes { name: name.to_owned(), votes, share: 0.0 };
        let tally = Tally {
            contest: "bands".parse().unwrap(),
            total: 12,
            version: 1,
            bands: vec![band(r#"a"b\c"#, 5), band("Motörhead", 4)],
            others: Others { bands: 2, votes: 3 },
            producers: [("grpc".to_owned(), 12)].into(),
            processed: 12,
            recounting: false,
        };
        let shown = write_metrics(std::slice::from_ref(&tally));
        let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"ovation_tally_votes{contest="bands",band="a\"b\\c"} 5"#,
                r#"ovation_tally_votes{contest="bands",band="Motörhead"} 4"#,
                r#"ovation_tally_votes{contest="bands",band="other"} 3"#,
                r#"ovation_tally_producer_votes{contest="bands",producer="grpc"} 12"#,
                r#"ovation_tally_bands{contest="bands"} 4"#,
            ]
        );
        let named_other = Tally { bands: vec![band("other", 9)], ..tally };
        assert!(
            write_metrics(&[named_other])
                .contains("band=\"other\"} 9\novation_tally_votes{contest=\"bands\",band=\"\"} 3")
        );
    }
}
