//! Draws the SVG plots of the report.

use std::path::Path;

use plotters::prelude::*;
use service::program::Failure;

use super::summary::{Summary, UnderLoad};
use crate::{
    flood::{Protocol, Rate},
    plots::{self, SIZE, Times, failed},
};

fn colour(producer: Protocol) -> RGBColor {
    match producer {
        Protocol::Grpc => RGBColor(0, 114, 178),
        Protocol::GrpcStream => RGBColor(86, 180, 233),
        Protocol::Rest => RGBColor(213, 94, 0),
        Protocol::RestBatch => RGBColor(230, 159, 0),
    }
}

/// Plots which share of the votes was acknowledged within each time, at the highest requested rate.
pub(super) fn latency_cdf(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let Some(load) = highest_load(summary) else { return Ok(()) };
    let titles = [
        &*format!("Time to the acknowledgement, at {}", load.load),
        "milliseconds from the due time of the vote",
        "% of votes",
    ];
    let times = load.producers.iter().map(|producer| Times {
        name: producer.producer.name(),
        colour: colour(producer.producer),
        micros: &producer.micros,
    });
    plots::shares_within(path, titles, &times.collect::<Vec<_>>())
}

/// A producer's rate, median latency and 99th percentile of the latency under one load.
type Point = (f64, f64, f64);

/// Plots the median and the 99th percentile of the latency of each producer, by rate.
pub(super) fn latency_by_rate(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let mut points: Vec<(Protocol, Vec<Point>)> = Vec::new();
    for producer in summary.loads.iter().flat_map(|load| &load.producers) {
        let point = (producer.rate.median, producer.p50_ms.median, producer.p99_ms.median);
        match points.iter_mut().find(|(known, _)| *known == producer.producer) {
            Some((_, line)) => line.push(point),
            None => points.push((producer.producer, vec![point])),
        }
    }
    for (_, line) in &mut points {
        line.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    let all = || points.iter().flat_map(|(_, line)| line);
    let (slowest, fastest) =
        (all().map(|point| point.0).fold(f64::MAX, f64::min), all().map(|point| point.0).fold(1.0, f64::max));
    let min = all().map(|point| point.1).fold(f64::MAX, f64::min).max(0.01);
    let max = all().map(|point| point.2).fold(0.1, f64::max);

    let canvas = SVGBackend::new(path, SIZE).into_drawing_area();
    canvas.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&canvas)
        .caption("Latency by rate: p50 thick, p99 thin", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((slowest * 0.9..fastest * 1.1).log_scale(), (min * 0.8..max * 1.2).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("acknowledged votes per second")
        .y_desc("milliseconds")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|ms| format!("{ms:.1}"))
        .draw()
        .map_err(failed)?;
    for (producer, line) in points {
        let colour = colour(producer);
        let p50 = line.iter().map(|&(rate, p50, _)| (rate, p50));
        let p99 = line.iter().map(|&(rate, _, p99)| (rate, p99));
        chart.draw_series(LineSeries::new(p99, colour.stroke_width(1))).map_err(failed)?;
        let dots = line.iter().flat_map(|&(rate, p50, p99)| [(rate, p50), (rate, p99)]);
        chart.draw_series(dots.map(|at| Circle::new(at, 3, colour.filled()))).map_err(failed)?;
        let line = chart.draw_series(LineSeries::new(p50, colour.stroke_width(3))).map_err(failed)?;
        line.label(producer.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw().map_err(failed)?;
    canvas.present().map_err(failed)
}

/// Returns the load with the highest fixed rate, or the closed loop if there is no fixed rate.
fn highest_load(summary: &Summary) -> Option<&UnderLoad> {
    let rate = |load: &UnderLoad| match load.load.0 {
        Rate::PerSecond(rate) => rate,
        Rate::Max => 0.0,
    };
    summary.loads.iter().max_by(|one, other| rate(one).total_cmp(&rate(other)))
}
