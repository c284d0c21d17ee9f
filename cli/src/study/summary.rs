//! What the measurements come to: the figures of each way, and the ways against each other, round by round.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    ballots::Kept,
    measure::{Measurement, Way},
};
use crate::spread::Spread;

#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) ways: Vec<WayFigures>,
    /// Each way against those before it.
    pub(super) pairs: Vec<Pair>,
}

/// One way.
#[derive(Serialize)]
pub(super) struct WayFigures {
    pub(super) way: Way,
    pub(super) measurements: usize,
    /// All of them together.
    pub(super) seconds: f64,
    /// Each was checked: a wrong one ends the study.
    pub(super) answers: u64,
    pub(super) failed: u64,
    /// Why the first was not answered.
    pub(super) failure: Option<String>,
    pub(super) answers_per_second: Spread,
    pub(super) mean_ms: Spread,
    pub(super) p50_ms: Spread,
    pub(super) p95_ms: Spread,
    pub(super) p99_ms: Spread,
    pub(super) bytes_per_answer: f64,
    pub(super) kept: BTreeMap<Kept, u64>,
    /// Of the answers that might have been kept ones, the share that was.
    pub(super) hit_rate: Option<f64>,
    /// The same by the service's own count.
    pub(super) hit_rate_told: Option<f64>,
    pub(super) processes: Vec<ProcessFigures>,
    /// Of all measurements together.
    #[serde(skip)]
    pub(super) micros: Histogram<u32>,
}

/// What one way cost a process.
#[derive(Serialize)]
pub(super) struct ProcessFigures {
    pub(super) process: &'static str,
    pub(super) cpu_ms_per_answer: f64,
    /// Of one core, on average.
    pub(super) cpu: f64,
    pub(super) peak_mb: f64,
    /// Open connections to it: on average, and the most at a time.
    pub(super) connections: Option<f64>,
    pub(super) most_connections: Option<usize>,
}

/// Two ways: the first's figure divided by the second's, within each round.
#[derive(Serialize)]
pub(super) struct Pair {
    pub(super) one: Way,
    pub(super) other: Way,
    pub(super) answers_per_second: Spread,
    pub(super) mean: Spread,
    pub(super) p50: Spread,
    pub(super) p95: Spread,
}

impl Summary {
    pub(super) fn of(measurements: &[Measurement]) -> Self {
        let mut ways: BTreeMap<Way, Vec<&Measurement>> = BTreeMap::new();
        for one in measurements {
            ways.entry(one.way).or_default().push(one);
        }
        let pairs = ways.iter().enumerate().flat_map(|(index, (&one, ones))| {
            ways.iter().take(index).filter_map(move |(&other, others)| Pair::of((one, ones), (other, others)))
        });
        let pairs = pairs.collect();
        Self { ways: ways.iter().map(|(&way, measurements)| WayFigures::of(way, measurements)).collect(), pairs }
    }

    pub(super) fn way(&self, way: Way) -> Option<&WayFigures> {
        self.ways.iter().find(|figures| figures.way == way)
    }
}

fn per_second(one: &Measurement) -> f64 {
    one.answers() as f64 / one.time.as_secs_f64()
}

fn mean_ms(one: &Measurement) -> f64 {
    one.micros.mean() / 1e3
}

impl WayFigures {
    fn of(way: Way, measurements: &[&Measurement]) -> Self {
        let spread = |value: fn(&Measurement) -> f64| Spread::of(measurements.iter().map(|one| value(one)));
        let mut micros = Histogram::<u32>::new(3).expect("three digits are within a histogram's range");
        let mut kept: BTreeMap<Kept, u64> = BTreeMap::new();
        for one in measurements {
            micros.add(&one.micros).expect("a histogram that resizes takes every other");
            one.kept.iter().for_each(|(what, answers)| *kept.entry(*what).or_default() += answers);
        }
        let seconds = measurements.iter().map(|one| one.time.as_secs_f64()).sum();
        let answers = micros.len();
        let told = measurements.iter().filter_map(|one| one.told).reduce(|a, b| (a.0 + b.0, a.1 + b.1));
        Self {
            way,
            measurements: measurements.len(),
            seconds,
            answers,
            failed: measurements.iter().map(|one| one.failed).sum(),
            failure: measurements.iter().find_map(|one| one.failure.clone()),
            answers_per_second: spread(per_second),
            mean_ms: spread(mean_ms),
            p50_ms: spread(|one| one.quantile_ms(0.5)),
            p95_ms: spread(|one| one.quantile_ms(0.95)),
            p99_ms: spread(|one| one.quantile_ms(0.99)),
            bytes_per_answer: measurements.iter().map(|one| one.bytes as f64).sum::<f64>() / answers as f64,
            hit_rate: hit_rate(&kept),
            hit_rate_told: told
                .filter(|(hits, misses)| hits + misses > 0.0)
                .map(|(hits, misses)| hits / (hits + misses)),
            kept,
            processes: ProcessFigures::of(measurements, seconds, answers),
            micros,
        }
    }

    pub(super) fn process(&self, name: &str) -> Option<&ProcessFigures> {
        self.processes.iter().find(|process| process.process == name)
    }
}

/// A cache that is away serves nobody: what it could not serve counts as missed.
fn hit_rate(kept: &BTreeMap<Kept, u64>) -> Option<f64> {
    let count = |of: &[Kept]| of.iter().filter_map(|what| kept.get(what)).sum::<u64>() as f64;
    let (hits, all) = (count(&[Kept::Hit, Kept::Stale]), count(&[Kept::Hit, Kept::Stale, Kept::Miss, Kept::Degraded]));
    (all > 0.0).then(|| hits / all)
}

impl ProcessFigures {
    fn of(measurements: &[&Measurement], seconds: f64, answers: u64) -> Vec<Self> {
        let Some(first) = measurements.first() else { return Vec::new() };
        let figures = |process: &'static str| {
            let of = || measurements.iter().flat_map(|one| &one.usage).filter(move |usage| usage.process == process);
            let cpu_seconds: f64 = of().map(|usage| usage.cpu_seconds).sum();
            let connections: Vec<(f64, usize)> = of().filter_map(|usage| usage.connections).collect();
            let mean = connections.iter().map(|(mean, _)| mean).sum::<f64>() / connections.len() as f64;
            Self {
                process,
                cpu_ms_per_answer: cpu_seconds * 1e3 / answers as f64,
                cpu: cpu_seconds / seconds,
                peak_mb: of().map(|usage| usage.peak_mb).fold(0.0, f64::max),
                connections: (!connections.is_empty()).then_some(mean),
                most_connections: connections.iter().map(|(_, most)| *most).max(),
            }
        };
        first.usage.iter().map(|usage| figures(usage.process)).collect()
    }
}

impl Pair {
    /// `None` if no round has measured both.
    fn of((one, ones): (Way, &[&Measurement]), (other, others): (Way, &[&Measurement])) -> Option<Self> {
        let ratio = |value: fn(&Measurement) -> f64| {
            let by_round = |measurements: &[&Measurement]| -> Vec<(u32, f64)> {
                measurements.iter().map(|one| (one.round, value(one))).collect()
            };
            Spread::of_ratios(&by_round(ones), &by_round(others))
        };
        Some(Self {
            one,
            other,
            answers_per_second: ratio(per_second)?,
            mean: ratio(mean_ms)?,
            p50: ratio(|one| one.quantile_ms(0.5))?,
            p95: ratio(|one| one.quantile_ms(0.95))?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::study::processes::Usage;

    /// A measurement whose answers all took as long.
    pub(in crate::study) fn measured(way: Way, round: u32, ms: u64, kept: &[(Kept, u64)]) -> Measurement {
        let mut micros = Histogram::<u32>::new(3).expect("a histogram");
        let answers = kept.iter().map(|(_, answers)| answers).sum::<u64>();
        micros.record_n(ms * 1_000, u32::try_from(answers).expect("few")).expect("a time");
        Measurement {
            way,
            round,
            time: Duration::from_secs(10),
            micros,
            kept: kept.iter().copied().collect(),
            failed: 0,
            failure: None,
            bytes: 2_000 * answers,
            told: None,
            usage: vec![Usage { process: "API", cpu_seconds: 1.0, peak_mb: 50.0, connections: Some((2.0, 4)) }],
        }
    }

    #[test]
    fn a_hit_rate_counts_what_the_cache_could_not_serve_as_missed() {
        let kept = [(Kept::Hit, 90), (Kept::Miss, 5), (Kept::Degraded, 5)];
        let summary =
            Summary::of(&[measured(Way::Cache, 1, 5, &kept), measured(Way::Pool, 1, 50, &[(Kept::Bypassed, 20)])]);
        assert_eq!(summary.way(Way::Cache).and_then(|cache| cache.hit_rate), Some(0.9));
        assert_eq!(summary.way(Way::Pool).and_then(|pool| pool.hit_rate), None);
        let [pair] = summary.pairs.as_slice() else { panic!("of two ways there is one pair") };
        assert_eq!((pair.one, pair.other), (Way::Cache, Way::Pool));
        assert!((pair.p50.median - 0.1).abs() < 0.01 && (pair.answers_per_second.median - 5.0).abs() < 0.01);
        let api = summary.way(Way::Cache).and_then(|cache| cache.process("API")).expect("a process");
        assert!((api.cpu_ms_per_answer - 10.0).abs() < 1e-9 && (api.cpu - 0.1).abs() < 1e-9);
        assert_eq!((api.connections, api.most_connections), (Some(2.0), Some(4)));
    }
}
