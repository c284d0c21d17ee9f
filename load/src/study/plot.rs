//! Draws the SVG plots of the report.

use std::path::Path;

use plotters::style::RGBColor;
use service::program::Failure;

use super::{
    summary::{ProcessFigures, Summary, WayFigures},
    turns::Way,
};
use crate::plots::{self, Bars, Times};

fn colour(way: Way) -> RGBColor {
    match way {
        Way::Direct => RGBColor(213, 94, 0),
        Way::Pool => RGBColor(230, 159, 0),
        Way::Cache => RGBColor(0, 114, 178),
    }
}

fn colours() -> [(&'static str, RGBColor); 3] {
    Way::ALL.map(|way| (way.name(), colour(way)))
}

/// Plots which share of the queries was answered within each time.
pub(super) fn times(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let titles = ["Time to the answer", "milliseconds from the query to the last byte of its answer", "% of answers"];
    let times =
        summary.ways.iter().map(|way| Times { name: way.way.name(), colour: colour(way.way), micros: &way.micros });
    plots::shares_within(path, titles, &times.collect::<Vec<_>>())
}

/// Plots response times, answers per second and hit rate.
pub(super) fn figures(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let bars = |name, value: fn(&WayFigures) -> f64| {
        (name, summary.ways.iter().map(|way| (colour(way.way), value(way))).collect::<Vec<_>>())
    };
    let times = vec![
        bars("mean", |way| way.mean_ms.median),
        bars("p50", |way| way.p50_ms.median),
        bars("p95", |way| way.p95_ms.median),
    ];
    let plots = [
        Bars { title: "milliseconds", groups: times },
        Bars { title: "answers per second", groups: vec![bars("", |way| way.answers_per_second.median)] },
        Bars { title: "hit rate, %", groups: vec![bars("", |way| way.hit_rate.unwrap_or(0.0) * 100.0)] },
    ];
    plots::bars(path, &plots, &colours())
}

/// Plots CPU, memory and connections of the processes.
pub(super) fn processes(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let names: Vec<&str> =
        summary.ways.iter().take(1).flat_map(|way| way.processes.iter().map(|process| process.process)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let groups = |value: fn(&ProcessFigures) -> f64| {
        let of = |name: &&'static str| {
            let bars = summary.ways.iter().filter_map(|way| Some((colour(way.way), value(way.process(name)?))));
            (*name, bars.collect::<Vec<_>>())
        };
        names.iter().map(of).collect::<Vec<_>>()
    };
    let plots = [
        Bars { title: "CPU, ms per answer", groups: groups(|process| process.cpu_ms_per_answer) },
        Bars { title: "peak memory, MB", groups: groups(|process| process.peak_mb) },
        Bars { title: "peak open connections", groups: groups(|process| process.max_connections.unwrap_or(0) as f64) },
    ];
    plots::bars(path, &plots, &colours())
}
