//! What the rounds come to: a median and its spread for each figure, and doors against each other, round by round.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::measure::{Cost, Load, Measurement};
use crate::{flood::Protocol, spread::Spread};

/// All loads, in the order in which they were asked for.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) rounds: u32,
    pub(super) loads: Vec<UnderLoad>,
}

/// All doors under one load.
#[derive(Serialize)]
pub(super) struct UnderLoad {
    pub(super) load: Load,
    pub(super) doors: Vec<DoorFigures>,
    /// Each door but the first against those before it.
    pub(super) pairs: Vec<Pair>,
}

/// One door under one load.
#[derive(Serialize)]
pub(super) struct DoorFigures {
    pub(super) door: Protocol,
    pub(super) measurements: usize,
    pub(super) acknowledged: u64,
    pub(super) not_acknowledged: u64,
    pub(super) rate: Spread,
    pub(super) p50_ms: Spread,
    pub(super) p90_ms: Spread,
    pub(super) p99_ms: Spread,
    pub(super) p999_ms: Spread,
    /// `None` if the door's process can't be asked.
    #[serde(flatten)]
    pub(super) cost: Option<CostFigures>,
    pub(super) bytes_sent: Spread,
    pub(super) bytes_received: Spread,
    /// Of all rounds together.
    #[serde(skip)]
    pub(super) micros: Histogram<u32>,
}

/// What votes cost a door's process.
#[derive(Serialize)]
pub(super) struct CostFigures {
    pub(super) cpu_us: Spread,
    pub(super) resident_mb: Spread,
    pub(super) open_files: Spread,
}

/// Two doors: the first's figure divided by the second's, within each round.
#[derive(Serialize)]
pub(super) struct Pair {
    pub(super) one: Protocol,
    pub(super) other: Protocol,
    pub(super) rate: Spread,
    pub(super) p50: Spread,
    pub(super) p99: Spread,
    /// `None` if a process can't be asked, or if measurements were too short for the kernel's clock of a process, which
    /// ticks every 10 ms.
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

    /// Whether a door told what it costs.
    pub(super) fn has_costs(&self) -> bool {
        self.loads.iter().any(UnderLoad::has_costs)
    }
}

impl UnderLoad {
    fn of<'a>(load: Load, measurements: impl Iterator<Item = &'a Measurement>) -> Self {
        let mut doors: BTreeMap<Protocol, Vec<&Measurement>> = BTreeMap::new();
        measurements.for_each(|one| doors.entry(one.door).or_default().push(one));
        let pairs = doors.iter().enumerate().flat_map(|(index, (&other, others))| {
            doors.iter().take(index).filter_map(move |(&one, ones)| Pair::of((one, ones), (other, others)))
        });
        Self {
            load,
            pairs: pairs.collect(),
            doors: doors.iter().map(|(&door, measurements)| DoorFigures::of(door, measurements)).collect(),
        }
    }

    /// Whether a door told what it costs.
    pub(super) fn has_costs(&self) -> bool {
        self.doors.iter().any(|door| door.cost.is_some())
    }

    pub(super) fn door(&self, door: Protocol) -> Option<&DoorFigures> {
        self.doors.iter().find(|figures| figures.door == door)
    }
}

impl DoorFigures {
    fn of(door: Protocol, measurements: &[&Measurement]) -> Self {
        let spread = |value: fn(&Measurement) -> f64| Spread::of(measurements.iter().map(|one| value(one)));
        let mut micros = Histogram::new(3).expect("three digits are within a histogram's range");
        for one in measurements {
            micros.add(&one.micros).expect("a histogram that resizes takes every other");
        }
        Self {
            door,
            measurements: measurements.len(),
            acknowledged: measurements.iter().map(|one| one.acknowledged).sum(),
            not_acknowledged: measurements.iter().map(|one| one.sent - one.acknowledged).sum(),
            rate: spread(|one| one.rate),
            p50_ms: spread(|one| one.latency_ms(0.5)),
            p90_ms: spread(|one| one.latency_ms(0.9)),
            p99_ms: spread(|one| one.latency_ms(0.99)),
            p999_ms: spread(|one| one.latency_ms(0.999)),
            cost: CostFigures::of(&measurements.iter().filter_map(|one| one.cost).collect::<Vec<_>>()),
            bytes_sent: spread(|one| one.bytes_sent),
            bytes_received: spread(|one| one.bytes_received),
            micros,
        }
    }
}

impl CostFigures {
    /// `None` if there are no costs.
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
    /// `None` if no round has measured both.
    fn of((one, ones): (Protocol, &[&Measurement]), (other, others): (Protocol, &[&Measurement])) -> Option<Self> {
        let ratio = |value: fn(&Measurement) -> f64| {
            let by_round = |measurements: &[&Measurement]| -> Vec<(u32, f64)> {
                measurements.iter().map(|one| (one.round, value(one))).collect()
            };
            Spread::of_ratios(&by_round(ones), &by_round(others))
        };
        Some(Self {
            one,
            other,
            rate: ratio(|one| one.rate)?,
            p50: ratio(|one| one.latency_ms(0.5))?,
            p99: ratio(|one| one.latency_ms(0.99))?,
            cpu: ratio(|one| one.cost.map_or(f64::NAN, |cost| cost.cpu_us)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::flood::Rate;

    /// A measurement whose latencies are all the same.
    pub(in crate::compare) fn measured(door: Protocol, rate: Rate, round: u32, ms: f64, cpu_us: f64) -> Measurement {
        let mut micros = Histogram::new(3).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        micros.record_n((ms * 1e3) as u64, 100).unwrap();
        Measurement {
            door,
            load: Load(rate),
            round,
            acknowledged: 100,
            sent: 100,
            rate: 1000.0,
            micros,
            cost: Some(Cost { cpu_us, resident_mb: 12.0, open_files: 80.0 }),
            bytes_sent: 300.0,
            bytes_received: 200.0,
            complaint: None,
        }
    }

    #[test]
    fn where_no_cpu_was_measured_the_rest_is_still_compared() {
        let too_short = [Protocol::Rest, Protocol::Grpc].map(|door| measured(door, Rate::Max, 1, 2.0, 0.0));
        let mut one_silent = [Protocol::Rest, Protocol::Grpc].map(|door| measured(door, Rate::Max, 1, 2.0, 40.0));
        one_silent[1].cost = None;
        for measurements in [too_short, one_silent] {
            let summary = Summary::of(&measurements);
            let pair = &summary.loads[0].pairs[0];
            assert_eq!((pair.cpu, pair.p50), (None, Spread { least: 1.0, median: 1.0, most: 1.0 }));
        }
    }

    #[test]
    fn doors_are_compared_within_rounds_so_a_slower_machine_changes_no_ratio() {
        let rate = Rate::PerSecond(1000.0);
        let rounds = [(1, 1.0), (2, 3.0), (3, 10.0)];
        let measurements: Vec<Measurement> = rounds
            .iter()
            .flat_map(|&(round, slowness)| {
                [Protocol::Rest, Protocol::Grpc, Protocol::Grpc, Protocol::Rest].map(|door| {
                    let (ms, cpu) = if door == Protocol::Rest { (4.0, 60.0) } else { (2.0, 40.0) };
                    measured(door, rate, round, ms * slowness, cpu * slowness)
                })
            })
            .collect();
        let summary = Summary::of(&measurements);
        assert_eq!((summary.rounds, summary.loads.len()), (3, 1));
        let pair = &summary.loads[0].pairs[0];
        assert_eq!((pair.one, pair.other), (Protocol::Rest, Protocol::Grpc));
        assert_eq!(pair.cpu, Some(Spread { least: 1.5, median: 1.5, most: 1.5 }));
        assert!((pair.p50.median - 2.0).abs() < 0.01, "{:?}", pair.p50);
        let rest = summary.loads[0].door(Protocol::Rest).unwrap();
        assert_eq!((rest.measurements, rest.acknowledged, rest.micros.len()), (6, 600, 600));
        let cost = rest.cost.as_ref().unwrap();
        assert_eq!(cost.cpu_us, Spread { least: 60.0, median: 180.0, most: 600.0 });
    }
}
