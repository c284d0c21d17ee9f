//! Writes the text of the report.

use std::fmt::Write;

use serde_json::json;
use service::program::Failure;
use votes::UnixMillis;

use super::{
    args::StudyArgs,
    ballots::SHARE,
    summary::{Pair, ProcessFigures, Summary, WayFigures},
    turns::Way,
};
use crate::markdown;

pub(super) struct Report<'a> {
    pub(super) args: &'a StudyArgs,
    /// The name and version of the ledger's server.
    pub(super) server: &'a str,
    pub(super) summary: &'a Summary,
}

impl Report<'_> {
    pub(super) fn json(&self) -> Result<String, Failure> {
        let StudyArgs { rows, queries, exponent, users, pause, rounds, seconds, change_every, seed, .. } = self.args;
        let profile = json!({
            "rows": rows, "queries": queries, "exponent": exponent, "users": users, "pause_ms": pause.as_millis(),
            "rounds": rounds, "seconds": seconds.as_secs_f64(), "change_every_s": change_every.as_secs_f64(), "seed": seed,
        });
        let report = json!({
            "ledger_server": self.server,
            "cores": markdown::cores(),
            "profile": profile,
            "ways": self.summary.ways,
            "pairs": self.summary.pairs,
        });
        Ok(serde_json::to_string(&report)?)
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "# Three ways to read\n\n{}\n\n{}\n\n## Answers\n\n{}",
            self.setting(),
            self.verdict(),
            self.table()
        );
        let _ = write!(text, "\n## Ratios\n\n{}", self.ratios());
        text += "\n## Processes\n\n";
        text += &self.processes();
        text += "\n## Pictures\n\n![Share of queries answered within a given time](times.svg)\n\n\
                 ![Response times, answers per second and hit rate](figures.svg)\n";
        if self.has_processes() {
            text += "\n![CPU, memory and connections of the processes](processes.svg)\n";
        }
        text += "\n## What this does not show\n\n\
                 - Readers wait for their answers (a closed loop), so a slow way receives fewer queries. At a fixed rate of queries, it \
                 would be even slower.\n\
                 - The readers run on the machine that measures. If the servers run there too, the readers take a part of its CPU: \
                 `study` in the table of processes.\n\
                 - An answer has all rows of its query at once. Small answers spend a larger part on other things: a connection, a \
                 look-up in Redis.\n\
                 - `cache` begins each turn with the responses that remain from its last turn. Responses that are rarely requested may \
                 have expired by then.\n";
        text
    }

    fn setting(&self) -> String {
        let StudyArgs { rows, queries, exponent, users, pause, rounds, seconds, change_every, seed, url, .. } =
            self.args;
        let (turns, changes) = (2 * rounds, 2 * rounds * self.args.changes());
        format!(
            "Measured on {} by ovation {} on a machine with {} cores, at {url}. The ledger's server is {}. The dataset has {rows} \
             rows. There are {queries} queries; each returns {:.0} % of the rows. They are drawn by Zipf's law with exponent \
             {exponent}, seed {seed}. {users} readers pause for {pause:?} between an answer and the next query. Each way had \
             {turns} turns of {seconds:?}, in alternating order. Every {change_every:?}, first after half of that time, a row was \
             added or all cached responses were cleared, in turn: {changes} times in all turns of a way. The rows and the total \
             of each answer were checked. A figure is the median of the turns, with the lowest and the highest in parentheses.",
            UnixMillis::now(),
            env!("CARGO_PKG_VERSION"),
            markdown::cores(),
            self.server,
            SHARE * 100.0,
        )
    }

    /// Returns the table with the figures of the answers.
    pub(super) fn table(&self) -> String {
        let columns = [
            "way",
            "answers",
            "answers/s",
            "mean ms",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "MB per answer",
            "hit rate",
            "not answered",
        ];
        let row = |way: &WayFigures| {
            let mut cells = vec![way.way.name().to_owned(), way.answers.to_string()];
            let spreads = [way.answers_per_second, way.mean_ms, way.p50_ms, way.p95_ms, way.p99_ms];
            cells.extend(spreads.map(|spread| spread.formatted(1)));
            cells.push(format!("{:.2}", way.bytes_per_answer / 1e6));
            cells.push(way.hit_rate.map_or_else(|| "-".to_owned(), percent));
            cells.push(way.failed.to_string());
            cells
        };
        let mut text = markdown::table(&columns, self.summary.ways.iter().map(row));
        for way in &self.summary.ways {
            if let Some(failure) = &way.failure {
                let _ = writeln!(text, "\nThe first query via {} without an answer: {failure}", way.way.name());
            }
        }
        text
    }

    fn ratios(&self) -> String {
        let row = |Pair { one, other, answers_per_second, mean, p50, p95 }: &Pair| {
            let mut cells = vec![format!("{} / {}", one.name(), other.name())];
            cells.extend([answers_per_second, mean, p50, p95].map(|ratio| ratio.formatted(3)));
            cells
        };
        let table = markdown::table(&["ways", "answers/s", "mean", "p50", "p95"], self.summary.pairs.iter().map(row));
        format!("The first way's figure divided by the second's, within each round:\n\n{table}")
    }

    fn has_processes(&self) -> bool {
        self.summary.ways.iter().any(|way| !way.processes.is_empty())
    }

    fn processes(&self) -> String {
        if !self.has_processes() {
            return "The processes were not measured: none runs on this machine, or it does not run Linux.\n"
                .to_owned();
        }
        let columns =
            ["way", "process", "CPU ms per answer", "CPU, % of a core", "peak memory, MB", "connections: mean, peak"];
        let row = |way: &WayFigures, process: &ProcessFigures| {
            let ProcessFigures { process, cpu_ms_per_answer, cpu, peak_mb, connections, max_connections } = process;
            let connections = connections
                .zip(*max_connections)
                .map_or_else(|| "-".to_owned(), |(mean, max)| format!("{mean:.1}, {max}"));
            vec![
                way.way.name().to_owned(),
                (*process).to_owned(),
                format!("{cpu_ms_per_answer:.2}"),
                format!("{:.0}", cpu * 100.0),
                format!("{peak_mb:.0}"),
                connections,
            ]
        };
        let rows = self.summary.ways.iter().flat_map(|way| way.processes.iter().map(move |process| row(way, process)));
        markdown::table(&columns, rows)
    }

    /// Describes the results in words.
    pub(super) fn verdict(&self) -> String {
        let mut lines = Vec::new();
        for Pair { one, other, answers_per_second, mean, p50, p95 } in &self.summary.pairs {
            let parts = [
                p50.describe("median response time", one.name(), other.name()),
                mean.describe("mean", one.name(), other.name()),
                p95.describe("p95", one.name(), other.name()),
                answers_per_second.describe("answers per second", one.name(), other.name()),
            ];
            lines.push(format!("- **{} against {}**: {}.", one.name(), other.name(), parts.join("; ")));
        }
        if let Some(cache) = self.summary.way(Way::Cache)
            && let Some(hit_rate) = cache.hit_rate
        {
            let by_metrics = cache
                .metrics_hit_rate
                .map_or_else(String::new, |rate| format!(" ({} by the service's metrics)", percent(rate)));
            lines.push(format!(
                "- **The cache** served {} of its {} answers{by_metrics}.",
                percent(hit_rate),
                cache.answers
            ));
        }
        lines.extend(self.cpu_per_answer());
        lines.join("\n")
    }

    /// Describes the CPU per answer of each process in words.
    fn cpu_per_answer(&self) -> Option<String> {
        let (direct, cache) = (self.summary.way(Way::Direct)?, self.summary.way(Way::Cache)?);
        let change = |name: &str| {
            let (before, after) = (direct.process(name)?.cpu_ms_per_answer, cache.process(name)?.cpu_ms_per_answer);
            (before > 0.0)
                .then(|| format!("{name} {before:.1} and {after:.1} ms ({:+.0} %)", (after / before - 1.0) * 100.0))
        };
        let changes: Vec<String> = ["API", "MongoDB", "Redis"].into_iter().filter_map(change).collect();
        (!changes.is_empty())
            .then(|| format!("- **CPU per answer**, direct and from the cache: {}.", changes.join("; ")))
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
