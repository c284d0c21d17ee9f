//! The pictures, as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::summary::{Summary, UnderLoad};
use crate::{
    Failure,
    flood::{Protocol, Rate},
    plots::{self, SIZE, Times, failed},
};

fn colour(door: Protocol) -> RGBColor {
    match door {
        Protocol::Grpc => RGBColor(0, 114, 178),
        Protocol::GrpcStream => RGBColor(86, 180, 233),
        Protocol::Rest => RGBColor(213, 94, 0),
        Protocol::RestBatch => RGBColor(230, 159, 0),
    }
}

/// Which share of votes was acknowledged within which time, at the highest rate that was asked for.
pub(super) fn latency_cdf(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let Some(load) = fullest(summary) else { return Ok(()) };
    let titles =
        [&*format!("Acknowledged within, at {}", load.load), "milliseconds from when the vote was due", "% of votes"];
    let times =
        load.doors.iter().map(|door| Times { name: door.door.name(), colour: colour(door.door), micros: &door.micros });
    plots::shares_within(path, titles, &times.collect::<Vec<_>>())
}

/// A door's rate, median and 99th percentile under one load.
type Point = (f64, f64, f64);

/// The median and the 99th percentile of each door over the rates.
pub(super) fn latency_by_rate(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let mut points: Vec<(Protocol, Vec<Point>)> = Vec::new();
    for door in summary.loads.iter().flat_map(|load| &load.doors) {
        let point = (door.rate.median, door.p50_ms.median, door.p99_ms.median);
        match points.iter_mut().find(|(known, _)| *known == door.door) {
            Some((_, line)) => line.push(point),
            None => points.push((door.door, vec![point])),
        }
    }
    for (_, line) in &mut points {
        line.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    let all = || points.iter().flat_map(|(_, line)| line);
    let (slowest, fastest) =
        (all().map(|point| point.0).fold(f64::MAX, f64::min), all().map(|point| point.0).fold(1.0, f64::max));
    let least = all().map(|point| point.1).fold(f64::MAX, f64::min).max(0.01);
    let most = all().map(|point| point.2).fold(0.1, f64::max);

    let canvas = SVGBackend::new(path, SIZE).into_drawing_area();
    canvas.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&canvas)
        .caption("Latency against rate: p50 thick, p99 thin", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((slowest * 0.9..fastest * 1.1).log_scale(), (least * 0.8..most * 1.2).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("acknowledged votes a second")
        .y_desc("milliseconds")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|ms| format!("{ms:.1}"))
        .draw()
        .map_err(failed)?;
    for (door, line) in points {
        let colour = colour(door);
        let p50 = line.iter().map(|&(rate, p50, _)| (rate, p50));
        let p99 = line.iter().map(|&(rate, _, p99)| (rate, p99));
        chart.draw_series(LineSeries::new(p99, colour.stroke_width(1))).map_err(failed)?;
        let dots = line.iter().flat_map(|&(rate, p50, p99)| [(rate, p50), (rate, p99)]);
        chart.draw_series(dots.map(|at| Circle::new(at, 3, colour.filled()))).map_err(failed)?;
        let line = chart.draw_series(LineSeries::new(p50, colour.stroke_width(3))).map_err(failed)?;
        line.label(door.name()).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw().map_err(failed)?;
    canvas.present().map_err(failed)
}

/// The highest of the rates; where there is none, as many as the doors take.
fn fullest(summary: &Summary) -> Option<&UnderLoad> {
    let rate = |load: &UnderLoad| match load.load.0 {
        Rate::PerSecond(rate) => rate,
        Rate::Max => 0.0,
    };
    summary.loads.iter().max_by(|one, other| rate(one).total_cmp(&rate(other)))
}
