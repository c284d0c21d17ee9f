//! The report in words and tables.

use std::{fmt::Write, thread};

use serde_json::json;
use votes::UnixMillis;

use super::{
    StudyArgs,
    ballots::SHARE,
    measure::Way,
    summary::{Pair, ProcessFigures, Summary, WayFigures},
};
use crate::Failure;

pub(super) struct Report<'a> {
    pub(super) args: &'a StudyArgs,
    /// What the book's server says that it is.
    pub(super) server: &'a str,
    pub(super) summary: &'a Summary,
}

impl Report<'_> {
    pub(super) fn json(&self) -> Result<String, Failure> {
        let StudyArgs { rows, questions, exponent, users, pause, rounds, seconds, change_every, seed, .. } = self.args;
        let profile = json!({
            "rows": rows, "questions": questions, "exponent": exponent, "users": users, "pause_ms": pause.as_millis(),
            "rounds": rounds, "seconds": seconds.as_secs_f64(), "change_every_s": change_every.as_secs_f64(), "seed": seed,
        });
        let report = json!({
            "book_server": self.server,
            "cores": cores(),
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
        let _ = write!(text, "\n## Against each other\n\n{}", self.ratios());
        text += "\n## Processes\n\n";
        text += &self.processes();
        text += "\n## Pictures\n\n![Which share of questions was answered within which time](times.svg)\n\n\
                 ![Response times, answers a second and hit rate](figures.svg)\n";
        if self.has_processes() {
            text += "\n![CPU, memory and connections of the processes](processes.svg)\n";
        }
        text += "\n## What this does not show\n\n\
                 - Readers wait for their answers (a closed loop), so a slow way is asked less often; at a given rate of questions it \
                 would be slower still.\n\
                 - The readers are on the machine that asks, and where that is the machine of the servers, too, they take their part \
                 of its processor: `study` in the table of processes.\n\
                 - An answer has all rows of its question at once. Of small answers other things are the larger part: a connection, a \
                 look-up in Redis.\n\
                 - `cache` begins each of its turns with what is left of its turn before, of which seldom asked answers may be over \
                 their time.\n";
        text
    }

    fn setting(&self) -> String {
        let StudyArgs { rows, questions, exponent, users, pause, rounds, seconds, change_every, seed, url, .. } =
            self.args;
        let (turns, changes) = (2 * rounds, 2 * rounds * self.args.changes());
        format!(
            "Measured on {} by ovation {} on a machine with {} cores, at {url}. The book's server: {}. A dataset of {rows} rows; \
             {questions} questions, each of which returns {:.0} % of them, drawn by Zipf's law with exponent {exponent}, seed \
             {seed}; {users} readers, who pause {pause:?} between an answer and the next question. Each way had {turns} turns of \
             {seconds:?}, forth and back. Every {change_every:?}, first after half of that, a row was added or, in turn, all kept \
             answers were forgotten: {changes} times in all of a way's turns. Each answer was checked: its rows one by one, and \
             its total. A figure is the median of the turns, with the least and the most behind it.",
            UnixMillis::now(),
            env!("CARGO_PKG_VERSION"),
            cores(),
            self.server,
            SHARE * 100.0,
        )
    }

    /// The figures of answers.
    pub(super) fn table(&self) -> String {
        let mut text = "| way | answers | answers/s | mean ms | p50 ms | p95 ms | p99 ms | MB an answer | hit rate | not answered |\n\
                        |---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for way in &self.summary.ways {
            let WayFigures { answers, failed, .. } = way;
            let _ = writeln!(
                text,
                "| {} | {answers} | {} | {} | {} | {} | {} | {:.2} | {} | {failed} |",
                way.way.name(),
                way.answers_per_second.shown(1),
                way.mean_ms.shown(1),
                way.p50_ms.shown(1),
                way.p95_ms.shown(1),
                way.p99_ms.shown(1),
                way.bytes_per_answer / 1e6,
                way.hit_rate.map_or_else(|| "-".to_owned(), percent),
            );
        }
        for way in &self.summary.ways {
            if let Some(failure) = &way.failure {
                let _ = writeln!(text, "\nThe first that was not answered via {}: {failure}", way.way.name());
            }
        }
        text
    }

    fn ratios(&self) -> String {
        let mut text = "Within rounds, the first way's figure divided by the second's:\n\n\
                        | ways | answers/s | mean | p50 | p95 |\n|---|---|---|---|---|\n"
            .to_owned();
        for Pair { one, other, answers_per_second, mean, p50, p95 } in &self.summary.pairs {
            let cells = [answers_per_second, mean, p50, p95].map(|ratio| ratio.shown(3));
            let _ = writeln!(text, "| {} / {} | {} |", one.name(), other.name(), cells.join(" | "));
        }
        text
    }

    fn has_processes(&self) -> bool {
        self.summary.ways.iter().any(|way| !way.processes.is_empty())
    }

    fn processes(&self) -> String {
        if !self.has_processes() {
            return "None of the processes is on this machine (or it is no Linux), so none was measured.\n".to_owned();
        }
        let mut text = "| way | process | CPU ms an answer | CPU, % of a core | memory MB, at most | connections, on average and at most |\n\
                        |---|---|---|---|---|---|\n"
            .to_owned();
        for way in &self.summary.ways {
            for process in &way.processes {
                let ProcessFigures { process, cpu_ms_per_answer, cpu, peak_mb, connections, most_connections } =
                    process;
                let connections = connections
                    .zip(*most_connections)
                    .map_or_else(|| "-".to_owned(), |(mean, most)| format!("{mean:.1}, {most}"));
                let _ = writeln!(
                    text,
                    "| {} | {process} | {cpu_ms_per_answer:.2} | {:.0} | {peak_mb:.0} | {connections} |",
                    way.way.name(),
                    cpu * 100.0
                );
            }
        }
        text
    }

    /// What follows, in words.
    pub(super) fn verdict(&self) -> String {
        let mut lines = Vec::new();
        for Pair { one, other, answers_per_second, mean, p50, p95 } in &self.summary.pairs {
            let said = [
                p50.outcome("median response time", one.name(), other.name()),
                mean.outcome("mean", one.name(), other.name()),
                p95.outcome("p95", one.name(), other.name()),
                answers_per_second.outcome("answers a second", one.name(), other.name()),
            ];
            lines.push(format!("- **{} against {}**: {}.", one.name(), other.name(), said.join("; ")));
        }
        if let Some(cache) = self.summary.way(Way::Cache)
            && let Some(hit_rate) = cache.hit_rate
        {
            let told = cache
                .hit_rate_told
                .map_or_else(String::new, |told| format!(" ({} by the service's own count)", percent(told)));
            lines.push(format!("- **The cache** served {} of its {} answers{told}.", percent(hit_rate), cache.answers));
        }
        lines.extend(self.work());
        lines.join("\n")
    }

    /// Who does the work of an answer.
    fn work(&self) -> Option<String> {
        let (direct, cache) = (self.summary.way(Way::Direct)?, self.summary.way(Way::Cache)?);
        let saved = |name: &str| {
            let (before, after) = (direct.process(name)?.cpu_ms_per_answer, cache.process(name)?.cpu_ms_per_answer);
            (before > 0.0)
                .then(|| format!("{name} {before:.1} and {after:.1} ms ({:+.0} %)", (after / before - 1.0) * 100.0))
        };
        let saved: Vec<String> = ["API", "MongoDB", "Redis"].into_iter().filter_map(saved).collect();
        (!saved.is_empty()).then(|| format!("- **CPU an answer**, direct and from the cache: {}.", saved.join("; ")))
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(0, usize::from)
}
