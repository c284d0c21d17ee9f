//! Makes all measurements in rounds, and writes the report.

use std::{fs, process::ExitCode, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use service::{
    CancellationToken,
    program::{EXIT_USAGE, Failure},
};

use super::{
    args::CompareArgs,
    measure::{Load, Measurement, Producers},
    plot, report,
    summary::Summary,
};
use crate::flood::{Protocol, Rate, check_url};

/// Makes the measurements, writes the report, and prints the result. Cancel `stop` to end the measurements early: the
/// report then has the measurements so far.
///
/// # Errors
/// If a producer can't be measured or the report can't be written.
pub async fn run(args: CompareArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    if args.producers.is_empty() || args.rates.is_empty() || args.seconds < Duration::from_millis(100) {
        eprintln!("ovation compare: --producers and --rates must not be empty, and --seconds must be at least 100ms");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    for (flag, url, protocol) in [("--rest", &args.rest, Protocol::Rest), ("--grpc", &args.grpc, Protocol::Grpc)] {
        if let Err(problem) = check_url(flag, url.clone(), protocol) {
            eprintln!("ovation compare: {problem}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    }
    let producers = Producers::new(&args);
    for &producer in &args.producers {
        producers.usage(producer).await?;
    }
    fs::create_dir_all(&args.out)?;
    let measurements = measure_all(&args, &producers, &stop).await?;
    if measurements.is_empty() {
        return Err("stopped before anything was measured".into());
    }
    let summary = Summary::of(&measurements);
    fs::write(args.out.join("measurements.csv"), report::csv(&measurements)?)?;
    fs::write(args.out.join("report.md"), report::report(&args, &summary))?;
    plot::latency_cdf(&args.out.join("latency-cdf.svg"), &summary)?;
    plot::latency_by_rate(&args.out.join("latency-by-rate.svg"), &summary)?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{}\nThe report is in {}", report::verdict(&summary), args.out.join("report.md").display());
    }
    let failed = measurements.iter().find_map(|measurement| match measurement.load {
        Load(Rate::PerSecond(_)) => measurement.problem.as_ref().map(|problem| (measurement, problem)),
        Load(Rate::Max) => None,
    });
    let Some((Measurement { producer, load, .. }, problem)) = failed else { return Ok(ExitCode::SUCCESS) };
    eprintln!("ovation compare: {}, {load}: {problem}", producer.name());
    Ok(ExitCode::FAILURE)
}

async fn measure_all(
    args: &CompareArgs,
    producers: &Producers,
    stop: &CancellationToken,
) -> Result<Vec<Measurement>, Failure> {
    let both_orders: Vec<Protocol> = args.producers.iter().chain(args.producers.iter().rev()).copied().collect();
    let count = args.rates.len() * args.rounds as usize * both_orders.len();
    let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}")?);
    let mut measurements = Vec::with_capacity(count);
    // Warm up, because the first votes of a producer open its connections and fill its caches.
    for &producer in &args.producers {
        producers
            .measure(producer, Load(Rate::PerSecond(1_000.0)), 0, args.seconds.min(Duration::from_secs(2)), stop)
            .await?;
    }
    for round in 1..=args.rounds {
        for &rate in &args.rates {
            for &producer in &both_orders {
                bar.set_message(format!("{} {}", producer.name(), Load(rate)));
                tokio::time::sleep(args.pause).await;
                if stop.is_cancelled() {
                    return Ok(measurements);
                }
                measurements.push(producers.measure(producer, Load(rate), round, args.seconds, stop).await?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measurements)
}
