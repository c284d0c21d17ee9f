//! Many histories, on all cores.

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

use crate::history::{Outcome, Plan, run};

/// How many seeds a thread takes at a time.
const STRIDE: u64 = 64;

/// What came of them.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) seeds: u64,
    /// The seeds whose history broke a promise, in order, and which.
    pub(crate) violations: BTreeMap<u64, String>,
    /// How many of those are wrong also in the end.
    pub(crate) wrong_ends: u64,
    pub(crate) happened: BTreeMap<&'static str, u64>,
    pub(crate) took: Duration,
}

/// Runs the seeds `[first, first + count)` of a plan.
pub(crate) fn survey(plan: Plan, first: u64, count: u64) -> Survey {
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let end = first + count;
    let survey = Mutex::new(Survey { seeds: count, ..Survey::default() });
    let work = || {
        loop {
            let from = next.fetch_add(STRIDE, Ordering::Relaxed);
            if from >= end {
                return;
            }
            for seed in from..end.min(from + STRIDE) {
                let outcome = run(Plan { seed, ..plan });
                survey.lock().unwrap_or_else(PoisonError::into_inner).take(seed, outcome);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut survey = survey.into_inner().unwrap_or_else(PoisonError::into_inner);
    survey.took = begun.elapsed();
    survey
}

impl Survey {
    fn take(&mut self, seed: u64, outcome: Outcome) {
        self.wrong_ends += u64::from(outcome.wrong_end.is_some());
        self.violations.extend(outcome.violation.map(|violation| (seed, violation)));
        for (what, times) in outcome.happened {
            *self.happened.entry(what).or_default() += times;
        }
    }

    /// For people.
    pub(crate) fn report(&self) -> String {
        let per_second = self.seeds as f64 / self.took.as_secs_f64();
        let mut report = format!(
            "{} histories in {:.1?} ({per_second:.0}/s), {} with a violation\n",
            self.seeds,
            self.took,
            self.violations.len()
        );
        for (what, times) in &self.happened {
            let _ = writeln!(report, "{times:>12} {what}");
        }
        report
    }

    /// The seed with the shortest trace among the first that violate, and that trace.
    pub(crate) fn shortest(&self, plan: Plan) -> Option<(u64, String)> {
        let traces = self
            .violations
            .keys()
            .take(50)
            .map(|seed| (*seed, run(Plan { seed: *seed, is_traced: true, ..plan }).trace));
        traces.min_by_key(|(_, trace)| trace.lines().count())
    }
}
