//! Summarises all rounds: the median and the spread of each figure, and the ratios of pairs of producers within each
//! round.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::measure::{Cost, Load, Measurement};
use crate::{
    flood::Protocol,
    rounds::{self, Measured, Repeated, Side},
    spread::Spread,
};

/// The figures under all loads, in the requested order.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) rounds: u32,
    pub(super) loads: Vec<UnderLoad>,
}

/// All producers under one load.
#[derive(Serialize)]
pub(super) struct UnderLoad {
    pub(super) load: Load,
    pub(super) producers: Vec<ProducerFigures>,
    /// The ratios of all pairs of producers.
    pub(super) pairs: Vec<Pair>,
}

/// One producer under one load.
#[derive(Serialize)]
pub(super) struct ProducerFigures {
    pub(super) producer: Protocol,
    pub(super) measurements: usize,
    pub(super) acknowledged: u64,
    pub(super) not_acknowledged: u64,
    pub(super) rate: Spread,
    pub(super) p50_ms: Spread,
    pub(super) p90_ms: Spread,
    pub(super) p99_ms: Spread,
    pub(super) p999_ms: Spread,
    /// `None` if the admin port of the producer is not reachable.
    #[serde(flatten)]
    pub(super) cost: Option<CostFigures>,
    pub(super) bytes_sent: Spread,
    pub(super) bytes_received: Spread,
    /// The latencies of all rounds together.
    #[serde(skip)]
    pub(super) micros: Histogram<u32>,
}

/// The resources that the process of a producer used for the votes.
#[derive(Serialize)]
pub(super) struct CostFigures {
    pub(super) cpu_us: Spread,
    pub(super) resident_mb: Spread,
    pub(super) open_files: Spread,
}

/// Two producers, and their ratios: the figure of the first divided by that of the second, within each round.
#[derive(Serialize)]
pub(super) struct Pair {
    pub(super) one: Protocol,
    pub(super) other: Protocol,
    pub(super) rate: Spread,
    pub(super) p50: Spread,
    pub(super) p99: Spread,
    /// `None` if an admin port is not reachable, or if the measurements were too short for the kernel's process clock,
    /// which has a resolution of 10 ms.
    pub(super) cpu: Option<Spread>,
}

impl Summary {
    pub(super) fn of(measurements: &[Measurement]) -> Self {
        let mut loads: Vec<Load> = Vec::new();
        for measurement in measurements {
            if !loads.contains(&measurement.load) {
                loads.push(measurement.load);
            }
        }
        let under = |load| UnderLoad::of(load, measurements.iter().filter(|one| one.load == load));
        let rounds = measurements.iter().map(|one| one.round).max().unwrap_or(0);
        Self { rounds, loads: loads.into_iter().map(under).collect() }
    }

    /// Returns whether the cost of any producer was measured.
    pub(super) fn has_costs(&self) -> bool {
        self.loads.iter().any(UnderLoad::has_costs)
    }
}

impl UnderLoad {
    fn of<'a>(load: Load, measurements: impl Iterator<Item = &'a Measurement>) -> Self {
        let producers = rounds::by_subject(measurements);
        Self {
            load,
            pairs: rounds::pairs(&producers).filter_map(|(one, other)| Pair::of(one, other)).collect(),
            producers: producers
                .iter()
                .map(|(&producer, measurements)| ProducerFigures::of(producer, measurements))
                .collect(),
        }
    }

    /// Returns whether the cost of any producer was measured.
    pub(super) fn has_costs(&self) -> bool {
        self.producers.iter().any(|producer| producer.cost.is_some())
    }

    pub(super) fn producer(&self, producer: Protocol) -> Option<&ProducerFigures> {
        self.producers.iter().find(|figures| figures.producer == producer)
    }
}

impl ProducerFigures {
    fn of(producer: Protocol, measurements: &Repeated<'_, Measurement>) -> Self {
        let spread = |figure: fn(&Measurement) -> f64| measurements.spread(figure);
        Self {
            producer,
            measurements: measurements.len(),
            acknowledged: measurements.iter().map(|one| one.acknowledged).sum(),
            not_acknowledged: measurements.iter().map(|one| one.sent - one.acknowledged).sum(),
            rate: spread(|one| one.rate),
            p50_ms: spread(|one| one.quantile_ms(0.5)),
            p90_ms: spread(|one| one.quantile_ms(0.9)),
            p99_ms: spread(|one| one.quantile_ms(0.99)),
            p999_ms: spread(|one| one.quantile_ms(0.999)),
            cost: CostFigures::of(&measurements.iter().filter_map(|one| one.cost).collect::<Vec<_>>()),
            bytes_sent: spread(|one| one.bytes_sent),
            bytes_received: spread(|one| one.bytes_received),
            micros: measurements.micros(),
        }
    }
}

impl CostFigures {
    /// Returns `None` if there are no costs.
    fn of(costs: &[Cost]) -> Option<Self> {
        let spread = |value: fn(&Cost) -> f64| Spread::of(costs.iter().map(value));
        (!costs.is_empty()).then(|| Self {
            cpu_us: spread(|one| one.cpu_us),
            resident_mb: spread(|one| one.resident_mb),
            open_files: spread(|one| one.open_files),
        })
    }
}

impl Pair {
    /// Returns `None` if no round has measured both.
    fn of((one, ones): Side<'_, '_, Measurement>, (other, others): Side<'_, '_, Measurement>) -> Option<Self> {
        let ratio = |figure: fn(&Measurement) -> f64| ones.ratio(others, figure);
        Some(Self {
            one,
            other,
            rate: ratio(|one| one.rate)?,
            p50: ratio(|one| one.quantile_ms(0.5))?,
            p99: ratio(|one| one.quantile_ms(0.99))?,
            cpu: ratio(|one| one.cost.map_or(f64::NAN, |cost| cost.cpu_us)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::flood::Rate;

    /// Returns a measurement in which all latencies are equal.
    pub(in crate::compare) fn measured(
        producer: Protocol,
        rate: Rate,
        round: u32,
        ms: f64,
        cpu_us: f64,
    ) -> Measurement {
        let mut micros = Histogram::new(3).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        micros.record_n((ms * 1e3) as u64, 100).unwrap();
        Measurement {
            producer,
            load: Load(rate),
            round,
            acknowledged: 100,
            sent: 100,
            rate: 1000.0,
            micros,
            cost: Some(Cost { cpu_us, resident_mb: 12.0, open_files: 80.0 }),
            bytes_sent: 300.0,
            bytes_received: 200.0,
            problem: None,
        }
    }

    #[test]
    fn producers_without_a_measured_cpu_are_still_compared() {
        let too_short = [Protocol::Rest, Protocol::Grpc].map(|producer| measured(producer, Rate::Max, 1, 2.0, 0.0));
        let mut one_without_cost =
            [Protocol::Rest, Protocol::Grpc].map(|producer| measured(producer, Rate::Max, 1, 2.0, 40.0));
        one_without_cost[1].cost = None;
        for measurements in [too_short, one_without_cost] {
            let summary = Summary::of(&measurements);
            let pair = &summary.loads[0].pairs[0];
            assert_eq!((pair.cpu, pair.p50), (None, Spread { min: 1.0, median: 1.0, max: 1.0 }));
        }
    }

    #[test]
    fn a_slower_machine_does_not_change_the_ratios_within_rounds() {
        let rate = Rate::PerSecond(1000.0);
        let rounds = [(1, 1.0), (2, 3.0), (3, 10.0)];
        let measurements: Vec<Measurement> = rounds
            .iter()
            .flat_map(|&(round, slowness)| {
                [Protocol::Rest, Protocol::Grpc, Protocol::Grpc, Protocol::Rest].map(|producer| {
                    let (ms, cpu) = if producer == Protocol::Rest { (4.0, 60.0) } else { (2.0, 40.0) };
                    measured(producer, rate, round, ms * slowness, cpu * slowness)
                })
            })
            .collect();
        let summary = Summary::of(&measurements);
        assert_eq!((summary.rounds, summary.loads.len()), (3, 1));
        let pair = &summary.loads[0].pairs[0];
        assert_eq!((pair.one, pair.other), (Protocol::Rest, Protocol::Grpc));
        assert_eq!(pair.cpu, Some(Spread { min: 1.5, median: 1.5, max: 1.5 }));
        assert!((pair.p50.median - 2.0).abs() < 0.01, "{:?}", pair.p50);
        let rest = summary.loads[0].producer(Protocol::Rest).unwrap();
        assert_eq!((rest.measurements, rest.acknowledged, rest.micros.len()), (6, 600, 600));
        let cost = rest.cost.as_ref().unwrap();
        assert_eq!(cost.cpu_us, Spread { min: 60.0, median: 180.0, max: 600.0 });
    }
}
