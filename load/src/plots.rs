//! Draws SVG plots for reports.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::{coord::Shift, prelude::*};
use service::program::Failure;

pub(crate) const SIZE: (u32, u32) = (900, 520);

/// The number of quantiles in a curve. It is high enough to show the tail of the distribution.
const STEPS: u32 = 400;

pub(crate) fn failed(error: impl std::fmt::Display) -> Failure {
    format!("the plot can't be drawn: {error}").into()
}

/// A curve: measured times in microseconds, with their name and colour.
pub(crate) struct Times<'a> {
    pub(crate) name: &'a str,
    pub(crate) colour: RGBColor,
    pub(crate) micros: &'a Histogram<u32>,
}

/// Plots, for each time on the x axis, the share of the measured times that are not longer. `titles` are the titles of
/// the plot, of the x axis and of the y axis.
pub(crate) fn shares_within(path: &Path, titles: [&str; 3], times: &[Times<'_>]) -> Result<(), Failure> {
    let [title, x_title, y_title] = titles;
    let curves: Vec<(&Times<'_>, Vec<(f64, f64)>)> = times.iter().map(|one| (one, curve(one.micros))).collect();
    let all = || curves.iter().flat_map(|(_, curve)| curve.iter().map(|(ms, _)| *ms));
    let (min, max) = (all().fold(f64::MAX, f64::min).max(0.01), all().fold(0.1, f64::max));

    let canvas = SVGBackend::new(path, SIZE).into_drawing_area();
    canvas.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&canvas)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((min..max * 1.1).log_scale(), 0.0..100.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .x_label_formatter(&|ms| format!("{ms:.2}"))
        .draw()
        .map_err(failed)?;
    for (one, curve) in curves {
        let colour = one.colour;
        let line = chart.draw_series(LineSeries::new(curve, colour.stroke_width(2))).map_err(failed)?;
        line.label(one.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw().map_err(failed)?;
    canvas.present().map_err(failed)
}

fn curve(micros: &Histogram<u32>) -> Vec<(f64, f64)> {
    let at = |step: u32| {
        let quantile = f64::from(step) / f64::from(STEPS);
        (micros.value_at_quantile(quantile) as f64 / 1e3, quantile * 100.0)
    };
    (0..=STEPS).map(at).collect()
}

/// A bar chart that starts at 0.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// The groups from left to right, each with its bars.
    pub(crate) groups: Vec<(&'a str, Vec<(RGBColor, f64)>)>,
}

/// Draws bar charts side by side, with a legend of the colours.
pub(crate) fn bars(path: &Path, plots: &[Bars<'_>], colours: &[(&str, RGBColor)]) -> Result<(), Failure> {
    let canvas = SVGBackend::new(path, SIZE).into_drawing_area();
    canvas.fill(&WHITE).map_err(failed)?;
    let (legend, canvas) = canvas.split_vertically(40);
    for (&(name, colour), x) in colours.iter().zip((0..).map(|column| 20 + 180 * column)) {
        legend.draw(&Rectangle::new([(x, 14), (x + 14, 28)], colour.filled())).map_err(failed)?;
        legend.draw(&Text::new(name, (x + 20, 14), ("sans-serif", 16))).map_err(failed)?;
    }
    for (area, plot) in canvas.split_evenly((1, plots.len())).iter().zip(plots) {
        draw_bars(area, plot)?;
    }
    canvas.present().map_err(failed)
}

fn draw_bars(area: &DrawingArea<SVGBackend<'_>, Shift>, plot: &Bars<'_>) -> Result<(), Failure> {
    let values = plot.groups.iter().flat_map(|(_, bars)| bars.iter().map(|(_, value)| *value));
    let max = values.fold(0.0, f64::max);
    let top = if max > 0.0 { max * 1.15 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(plot.title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..plot.groups.len() as f64, 0.0..top)
        .map_err(failed)?;
    // The label of a group is below its middle.
    let name = |x: &f64| {
        let is_middle = |index: i32| (f64::from(index) + 0.5 - x).abs() < 1e-6;
        plot.groups.iter().zip(0..).find(|(_, index)| is_middle(*index)).map(|(group, _)| group.0)
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * plot.groups.len() + 1)
        .x_label_formatter(&|x| name(x).unwrap_or_default().to_owned())
        .y_label_formatter(&|value| if top < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") })
        .draw()
        .map_err(failed)?;
    for ((_, bars), left) in plot.groups.iter().zip((0..).map(f64::from)) {
        let width = 0.8 / bars.len() as f64;
        for (&(colour, value), index) in bars.iter().zip((0..).map(f64::from)) {
            let from = left + 0.1 + width * index;
            let bar = Rectangle::new([(from, 0.0), (from + width * 0.92, value)], colour.filled());
            let digits = usize::from(value < 10.0);
            let text = Text::new(format!("{value:.digits$}"), (from, value + top * 0.04), ("sans-serif", 11));
            chart.draw_series([bar]).map_err(failed)?;
            chart.draw_series([text]).map_err(failed)?;
        }
    }
    Ok(())
}
