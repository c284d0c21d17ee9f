//! This module runs many histories on all cores.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    history::{Outcome, run},
    profile::Plan,
};

/// The number of seeds that a thread takes at a time.
const SEEDS_PER_TURN: u64 = 16;

/// The results of many histories.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) seeds: u64,
    /// The seeds whose histories have a violation, with the violation.
    pub(crate) violations: BTreeMap<u64, String>,
    /// The number of these histories with a violation at the end.
    pub(crate) end_violations: u64,
    pub(crate) event_counts: BTreeMap<&'static str, u64>,
    pub(crate) elapsed: Duration,
}

/// Runs a plan with the seeds `[first, first + count)`. Ends earlier if `is_enough` is true for the results.
pub(crate) fn survey(plan: Plan, first: u64, count: u64, is_enough: impl Fn(&Survey) -> bool + Sync) -> Survey {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let end = first + count;
    let survey = Mutex::new(Survey::default());
    let run_seeds = || {
        loop {
            let from = next.fetch_add(SEEDS_PER_TURN, Ordering::Relaxed);
            if from >= end {
                return;
            }
            for seed in from..end.min(from + SEEDS_PER_TURN) {
                let outcome = run(Plan { seed, ..plan });
                let mut survey = survey.lock().unwrap_or_else(PoisonError::into_inner);
                survey.add(seed, outcome);
                if is_enough(&survey) {
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run_seeds);
        }
    });
    let mut survey = survey.into_inner().unwrap_or_else(PoisonError::into_inner);
    survey.elapsed = start.elapsed();
    survey
}

impl Survey {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.end_violations += u64::from(outcome.end_violation.is_some());
        self.violations.extend(outcome.violation.map(|violation| (seed, violation)));
        for (event, times) in outcome.event_counts {
            *self.event_counts.entry(event).or_default() += times;
        }
    }

    /// Returns a summary for people.
    pub(crate) fn report(&self) -> String {
        let per_second = self.seeds as f64 / self.elapsed.as_secs_f64();
        let mut report = format!(
            "{} histories in {:.1?} ({per_second:.0}/s), {} with a violation\n",
            self.seeds,
            self.elapsed,
            self.violations.len()
        );
        for (event, times) in &self.event_counts {
            let _ = writeln!(report, "{times:>12} {event}");
        }
        report
    }

    /// Returns the seed with the shortest trace among the first 50 seeds with a violation, and this trace.
    pub(crate) fn shortest_trace(&self, plan: Plan) -> Option<(u64, String)> {
        let traces = self
            .violations
            .keys()
            .take(50)
            .map(|seed| (*seed, run(Plan { seed: *seed, is_traced: true, ..plan }).trace));
        traces.min_by_key(|(_, trace)| trace.lines().count())
    }
}
