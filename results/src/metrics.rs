//! The standings in Prometheus' text format, read when somebody scrapes: so they are what the tallies say, and no series
//! of a band that left the leaders stays behind.
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::{
    fmt::{self, Display, Write},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use tokio::time::timeout;
use votes::{ContestId, Contests, Tallies, Tally};

/// The most bands that are shown, over all contests: each is a series.
const MOST_BANDS: usize = 500;

/// The most bands of one contest.
const MOST_OF_A_CONTEST: usize = 100;

/// How long the tallies may take. A scrape has other things to show, so it does not wait longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What collects the standings. Contests that can't be read are left out: absence is what alerts look for.
pub fn standings(
    contests: Arc<Contests>,
    tallies: Arc<dyn Tallies>,
) -> impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static {
    move || Box::pin(read(Arc::clone(&contests), Arc::clone(&tallies)))
}

async fn read(contests: Arc<Contests>, tallies: Arc<dyn Tallies>) -> String {
    let ids: Vec<&ContestId> = contests.ids().take(MOST_BANDS).collect();
    let top = (MOST_BANDS / ids.len().max(1)).clamp(1, MOST_OF_A_CONTEST);
    let read = ids.iter().map(|contest| timeout(PATIENCE, tallies.tally(contest, top)));
    let standings: Vec<Tally> = join_all(read).await.into_iter().flatten().flatten().collect();
    text(&standings)
}

fn text(standings: &[Tally]) -> String {
    let mut text = String::new();
    let mut metric = |name, help, write: &dyn Fn(&mut String, &Tally) -> fmt::Result| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for tally in standings {
            let _ = write(&mut text, tally);
        }
    };
    metric("ovation_tally_votes", "Votes that the tallies have, by contest and band", &|text, tally| {
        for band in &tally.bands {
            let (contest, name) = (&tally.contest, Label(&band.name));
            writeln!(text, r#"ovation_tally_votes{{contest="{contest}",band="{name}"}} {}"#, band.votes)?;
        }
        // A band may be called `other`; a band of none is a name that no vote can have.
        let name = if tally.bands.iter().any(|band| band.name == OTHER) { "" } else { OTHER };
        let (contest, votes) = (&tally.contest, tally.others.votes);
        writeln!(text, r#"ovation_tally_votes{{contest="{contest}",band="{name}"}} {votes}"#)
    });
    metric("ovation_tally_door_votes", "Votes that the tallies have, by contest and door", &|text, tally| {
        for (door, votes) in &tally.doors {
            let (contest, door) = (&tally.contest, Label(door));
            writeln!(text, r#"ovation_tally_door_votes{{contest="{contest}",door="{door}"}} {votes}"#)?;
        }
        Ok(())
    });
    metric("ovation_tally_bands", "Bands that have votes, by contest", &|text, tally| {
        let bands = tally.bands.len() as u64 + tally.others.bands;
        writeln!(text, r#"ovation_tally_bands{{contest="{}"}} {bands}"#, tally.contest)
    });
    text
}

/// The bands that are not shown one by one.
const OTHER: &str = "other";

/// A label's value, with what would end it escaped.
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
    fn a_standing_is_shown_whole_whatever_bands_are_called() {
        let band = |name: &str, votes| BandVotes { name: name.to_owned(), votes, share: 0.0 };
        let tally = Tally {
            contest: "bands".parse().unwrap(),
            total: 12,
            version: 1,
            bands: vec![band(r#"a"b\c"#, 5), band("Motörhead", 4)],
            others: Others { bands: 2, votes: 3 },
            doors: [("grpc".to_owned(), 12)].into(),
            processed: 12,
        };
        let shown = text(std::slice::from_ref(&tally));
        let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"ovation_tally_votes{contest="bands",band="a\"b\\c"} 5"#,
                r#"ovation_tally_votes{contest="bands",band="Motörhead"} 4"#,
                r#"ovation_tally_votes{contest="bands",band="other"} 3"#,
                r#"ovation_tally_door_votes{contest="bands",door="grpc"} 12"#,
                r#"ovation_tally_bands{contest="bands"} 4"#,
            ]
        );
        let named_other = Tally { bands: vec![band("other", 9)], ..tally };
        assert!(text(&[named_other]).contains("band=\"other\"} 9\novation_tally_votes{contest=\"bands\",band=\"\"} 3"));
    }
}
