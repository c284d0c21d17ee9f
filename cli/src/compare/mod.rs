//! `ovation compare`: which door is faster, by how much, and how sure that is.
//!
//! Machines drift, so doors are not measured one after the other but in rounds: each round asks every door forth and back
//! (A B C D D C B A), and what is said of two doors is said of the ratios within rounds. All do the same work: the same
//! votes, each acknowledged when the vote log has it.
//!
//! | what | file |
//! |---|---|
//! | one measurement of one door | [`measure`] |
//! | what the measurements of all rounds come to, and two doors held against each other | [`summary`] |
//! | the report in words and tables | [`report`] |
//! | its pictures | [`plot`] |

mod measure;
mod plot;
mod report;
mod summary;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use hyper::Uri;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use service::{CancellationToken, program::EXIT_USAGE};

use self::measure::{Doors, Load, Measurement};
use crate::{
    Failure, duration,
    flood::{Protocol, Rate},
};

/// Compares the doors on the same work: latency, throughput, CPU, memory and bytes of a vote
///
/// Every door is measured several times, in rounds that go forth and back, so that a machine that becomes slower meets all
/// of them. Writes report.md, measurements.csv and two plots.
///
/// Exit code: 0 if all was measured, 1 if a door did not acknowledge votes at a rate below its most, 64 for a wrong flag.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  ovation compare --rates 1000,5000 --rounds 5 --seconds 5s --out comparison")]
pub(crate) struct CompareArgs {
    /// The REST door
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    rest: Uri,
    /// The gRPC door
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    grpc: Uri,
    /// Where the REST door's process tells its CPU and memory; port 9100 for `ovation up`; `none`: it can't be asked,
    /// as where an entry hands votes to several processes, and neither is in the report
    #[arg(long, default_value = "http://127.0.0.1:9101", value_name = "URL")]
    rest_admin: String,
    /// Where the gRPC door's process tells its CPU and memory, likewise
    #[arg(long, default_value = "http://127.0.0.1:9102", value_name = "URL")]
    grpc_admin: String,
    /// Which doors
    #[arg(long, value_delimiter = ',', default_value = "grpc,grpc-stream,rest,rest-batch", value_name = "DOOR,...")]
    doors: Vec<Protocol>,
    /// Votes a second; `max` is a closed loop, as many as the door takes
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,max", value_name = "RATE,...")]
    rates: Vec<Rate>,
    /// How often all is measured, each time forth and back
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long one measurement lasts
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration::parse)]
    seconds: Duration,
    /// The rest before each measurement, so that the counting of the votes before is over
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = duration::parse)]
    rest_between: Duration,
    /// The folder for the report
    #[arg(long, default_value = "comparison", value_name = "DIR")]
    out: PathBuf,
    /// Prints the summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures, writes the report, and says what came out. `stop` ends it early, with what there is.
pub(crate) async fn run(args: CompareArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    if args.doors.is_empty() || args.rates.is_empty() || args.seconds < Duration::from_millis(100) {
        eprintln!("ovation compare: there have to be doors, rates and at least --seconds 100ms");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let doors = Doors::new(&args);
    for &door in &args.doors {
        doors.usage(door).await?;
    }
    fs::create_dir_all(&args.out)?;
    let measurements = measure_all(&args, &doors, &stop).await?;
    if measurements.is_empty() {
        return Err("stopped before anything was measured".into());
    }
    let summary = summary::Summary::of(&measurements);
    fs::write(args.out.join("measurements.csv"), report::csv(&measurements))?;
    fs::write(args.out.join("report.md"), report::markdown(&args, &summary))?;
    plot::latency_cdf(&args.out.join("latency-cdf.svg"), &summary)?;
    plot::latency_by_rate(&args.out.join("latency-by-rate.svg"), &summary)?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{}\nThe report is in {}", report::verdict(&summary), args.out.join("report.md").display());
    }
    let unfulfilled = measurements.iter().find_map(|measurement| match measurement.load {
        Load(Rate::PerSecond(_)) => measurement.complaint.as_ref().map(|complaint| (measurement, complaint)),
        Load(Rate::Max) => None,
    });
    let Some((Measurement { door, load, .. }, complaint)) = unfulfilled else { return Ok(ExitCode::SUCCESS) };
    eprintln!("ovation compare: {}, {load}: {complaint}", door.name());
    Ok(ExitCode::FAILURE)
}

async fn measure_all(args: &CompareArgs, doors: &Doors, stop: &CancellationToken) -> Result<Vec<Measurement>, Failure> {
    let there_and_back: Vec<Protocol> = args.doors.iter().chain(args.doors.iter().rev()).copied().collect();
    let count = args.rates.len() * args.rounds as usize * there_and_back.len();
    let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}")?);
    let mut measurements = Vec::with_capacity(count);
    // A door's first votes open its connections and fill its caches.
    for &door in &args.doors {
        doors.measure(door, Load(Rate::PerSecond(1_000.0)), 0, args.seconds.min(Duration::from_secs(2)), stop).await?;
    }
    for round in 1..=args.rounds {
        for &rate in &args.rates {
            for &door in &there_and_back {
                bar.set_message(format!("{} {}", door.name(), Load(rate)));
                tokio::time::sleep(args.rest_between).await;
                if stop.is_cancelled() {
                    return Ok(measurements);
                }
                measurements.push(doors.measure(door, Load(rate), round, args.seconds, stop).await?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measurements)
}
