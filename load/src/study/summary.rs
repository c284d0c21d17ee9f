//! Summarises all measurements: the figures of each way, and the ratios of pairs of ways within each round.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{ballots::CacheStatus, measure::Measurement, turns::Way};
use crate::{
    rounds::{self, Measured, Repeated, Side},
    spread::Spread,
};

#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) ways: Vec<WayFigures>,
    /// The ratios of all pairs of ways.
    pub(super) pairs: Vec<Pair>,
}

/// The figures of one way.
#[derive(Serialize)]
pub(super) struct WayFigures {
    pub(super) way: Way,
    pub(super) measurements: usize,
    /// The total time of the measurements.
    pub(super) seconds: f64,
    /// The number of answers. All of them are right, because the benchmark ends at the first wrong answer.
    pub(super) answers: u64,
    pub(super) failed: u64,
    /// Why the first query without an answer had none.
    pub(super) failure: Option<String>,
    pub(super) answers_per_second: Spread,
    pub(super) mean_ms: Spread,
    pub(super) p50_ms: Spread,
    pub(super) p95_ms: Spread,
    pub(super) p99_ms: Spread,
    pub(super) bytes_per_answer: f64,
    /// The number of answers by cache status.
    pub(super) cache: BTreeMap<CacheStatus, u64>,
    /// The share of hits among the answers for which the cache was requested.
    pub(super) hit_rate: Option<f64>,
    /// The same share according to the metrics of the service.
    pub(super) metrics_hit_rate: Option<f64>,
    pub(super) processes: Vec<ProcessFigures>,
    /// The response times of all measurements together.
    #[serde(skip)]
    pub(super) micros: Histogram<u32>,
}

/// The resources that a process used for one way.
#[derive(Serialize)]
pub(super) struct ProcessFigures {
    pub(super) process: &'static str,
    pub(super) cpu_ms_per_answer: f64,
    /// The mean share of one core.
    pub(super) cpu: f64,
    pub(super) peak_mb: f64,
    /// The mean number of open connections to the process.
    pub(super) connections: Option<f64>,
    /// The peak of open connections to the process.
    pub(super) max_connections: Option<usize>,
}

/// Two ways, and their ratios: the figure of the first divided by that of the second, within each round.
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
        let ways = rounds::by_subject(measurements);
        Self {
            pairs: rounds::pairs(&ways).filter_map(|(other, one)| Pair::of(one, other)).collect(),
            ways: ways.iter().map(|(&way, measurements)| WayFigures::of(way, measurements)).collect(),
        }
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
    fn of(way: Way, measurements: &Repeated<'_, Measurement>) -> Self {
        let spread = |figure: fn(&Measurement) -> f64| measurements.spread(figure);
        let micros = measurements.micros();
        let mut cache: BTreeMap<CacheStatus, u64> = BTreeMap::new();
        for one in measurements.iter() {
            one.cache.iter().for_each(|(status, answers)| *cache.entry(*status).or_default() += answers);
        }
        let seconds = measurements.iter().map(|one| one.time.as_secs_f64()).sum();
        let answers = micros.len();
        let metrics = measurements.iter().filter_map(|one| one.metrics).reduce(|a, b| (a.0 + b.0, a.1 + b.1));
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
            hit_rate: hit_rate(&cache),
            metrics_hit_rate: metrics
                .filter(|(hits, misses)| hits + misses > 0.0)
                .map(|(hits, misses)| hits / (hits + misses)),
            cache,
            processes: ProcessFigures::of(measurements, seconds, answers),
            micros,
        }
    }

    pub(super) fn process(&self, name: &str) -> Option<&ProcessFigures> {
        self.processes.iter().find(|process| process.process == name)
    }
}

/// Returns the share of hits, or `None` if the cache was never requested. If the cache was not available, the answer
/// counts as a miss.
fn hit_rate(cache: &BTreeMap<CacheStatus, u64>) -> Option<f64> {
    let count = |of: &[CacheStatus]| of.iter().filter_map(|status| cache.get(status)).sum::<u64>() as f64;
    let (hits, all) = (
        count(&[CacheStatus::Hit, CacheStatus::Stale]),
        count(&[CacheStatus::Hit, CacheStatus::Stale, CacheStatus::Miss, CacheStatus::Degraded]),
    );
    (all > 0.0).then(|| hits / all)
}

impl ProcessFigures {
    fn of(measurements: &Repeated<'_, Measurement>, seconds: f64, answers: u64) -> Vec<Self> {
        let Some(first) = measurements.iter().next() else { return Vec::new() };
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
                max_connections: connections.iter().map(|(_, peak)| *peak).max(),
            }
        };
        first.usage.iter().map(|usage| figures(usage.process)).collect()
    }
}

impl Pair {
    /// Returns `None` if no round has measured both.
    fn of((one, ones): Side<'_, '_, Measurement>, (other, others): Side<'_, '_, Measurement>) -> Option<Self> {
        let ratio = |figure: fn(&Measurement) -> f64| ones.ratio(others, figure);
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

    /// Returns a measurement in which all response times are equal.
    pub(in crate::study) fn measured(way: Way, round: u32, ms: u64, cache: &[(CacheStatus, u64)]) -> Measurement {
        let mut micros = Histogram::<u32>::new(3).expect("a histogram");
        let answers = cache.iter().map(|(_, answers)| answers).sum::<u64>();
        micros.record_n(ms * 1_000, u32::try_from(answers).expect("few")).expect("a time");
        Measurement {
            way,
            round,
            time: Duration::from_secs(10),
            micros,
            cache: cache.iter().copied().collect(),
            failed: 0,
            failure: None,
            bytes: 2_000 * answers,
            metrics: None,
            usage: vec![Usage { process: "API", cpu_seconds: 1.0, peak_mb: 50.0, connections: Some((2.0, 4)) }],
        }
    }

    #[test]
    fn an_answer_without_an_available_cache_counts_as_a_miss() {
        let cache = [(CacheStatus::Hit, 90), (CacheStatus::Miss, 5), (CacheStatus::Degraded, 5)];
        let summary = Summary::of(&[
            measured(Way::Cache, 1, 5, &cache),
            measured(Way::Pool, 1, 50, &[(CacheStatus::Bypassed, 20)]),
        ]);
        assert_eq!(summary.way(Way::Cache).and_then(|cache| cache.hit_rate), Some(0.9));
        assert_eq!(summary.way(Way::Pool).and_then(|pool| pool.hit_rate), None);
        let [pair] = summary.pairs.as_slice() else { panic!("of two ways there is one pair") };
        assert_eq!((pair.one, pair.other), (Way::Cache, Way::Pool));
        assert!((pair.p50.median - 0.1).abs() < 0.01 && (pair.answers_per_second.median - 5.0).abs() < 0.01);
        let api = summary.way(Way::Cache).and_then(|cache| cache.process("API")).expect("a process");
        assert!((api.cpu_ms_per_answer - 10.0).abs() < 1e-9 && (api.cpu - 0.1).abs() < 1e-9);
        assert_eq!((api.connections, api.max_connections), (Some(2.0), Some(4)));
    }
}
