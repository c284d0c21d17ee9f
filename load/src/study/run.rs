//! Creates the dataset, makes all measurements, writes the report, and removes the dataset.

use std::{
    fs,
    process::ExitCode,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use query::{Dataset, DatasetId, Datasets};
use service::{
    CancellationToken, Config, ConfigError,
    health::Criticality,
    program::{EXIT_USAGE, Failure},
    token::ReadToken,
};
use stores::{Access, Stores};

use super::{
    args::StudyArgs,
    ballots::{Ballots, COLUMNS},
    measure::{Measurement, Study, address_of},
    plot,
    processes::Process,
    report::Report,
    summary::Summary,
};
use crate::{
    flood::{Protocol, check_url},
    zipf::Zipf,
};

/// The id of the dataset of the benchmark.
const DATASET: &str = "read-study";

/// The number of rows that are loaded at a time.
const ROWS_PER_LOAD: usize = 2_000;

/// Makes the measurements, writes the report, and prints the result. Cancel `stop` to end the benchmark early: it then
/// removes the dataset, and writes no report.
///
/// # Errors
/// If an answer was wrong, a service or a store can't be used, or the report can't be written.
pub async fn run(args: StudyArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let is_exponent_valid = args.exponent.is_finite() && (0.0..=10.0).contains(&args.exponent);
    if args.seconds < Duration::from_millis(100) || args.change_every < Duration::from_millis(10) || !is_exponent_valid
    {
        eprintln!(
            "ovation study: --seconds must be at least 100ms, --change-every at least 10ms, and --exponent 0 to 10"
        );
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    if let Err(problem) = check_url("--url", args.url.clone(), Protocol::Rest) {
        eprintln!("ovation study: {problem}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let config = Config::load(None, args.clone(), 0)?;
    if config.ledger == "embedded:" {
        let problem = "the study and the service use the same stores at the same time, and embedded stores belong to one process; give the URLs of \
            servers to both";
        return Err(ConfigError::new("ledger", problem).into());
    }
    let token = ReadToken::for_command(args.read_token_file.as_deref())?;
    let datasets = Stores::open_for_command(&config, Access::Write)?.datasets(Criticality::Required).await?;
    let reported = datasets.check().await?.remove("version").unwrap_or_default();
    let server = match &args.ledger_server {
        Some(name) => format!("{name}, which reports: {reported}"),
        None => reported,
    };
    let processes = [
        Process::at("API", &address_of(&args.url)).await,
        Process::at("MongoDB", &address_in(&config.ledger, 27017)).await,
        Process::at("Redis", &address_in(&config.tallies, 6379)).await,
        Process::study(),
    ];
    fs::create_dir_all(&args.out)?;

    let id: DatasetId = DATASET.parse()?;
    let changes = args.turns().len() * args.changes() as usize;
    let rows = args.rows as usize;
    let ballots = Ballots::draw(rows + changes, args.queries as usize, args.seed);
    datasets.remove(&id).await?;
    let columns = COLUMNS.map(str::to_owned).to_vec();
    let dataset = datasets.create(&id, columns).await?.ok_or("another process created the dataset at the same time")?;
    let study = Study {
        popularity: Zipf::new(args.queries as usize, args.exponent),
        processes: processes.into_iter().flatten().collect(),
        loaded: AtomicUsize::new(rows),
        begun: AtomicUsize::new(rows),
        token,
        ballots,
        datasets: Arc::clone(&datasets),
        dataset,
        args,
    };
    let measured = stop.run_until_cancelled(measure_all(Arc::new(study), server)).await;
    datasets.remove(&id).await?;
    measured.unwrap_or_else(|| Err("stopped before everything was measured; the dataset is removed".into()))
}

async fn measure_all(study: Arc<Study>, server: String) -> Result<ExitCode, Failure> {
    let args = &study.args;
    let turns = args.turns();
    let bar = ProgressBar::with_draw_target(
        Some(u64::from(args.rows) / ROWS_PER_LOAD as u64 + u64::from(args.queries) + turns.len() as u64),
        ProgressDrawTarget::stderr(),
    );
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}")?);
    bar.set_message("loading");
    load(&*study.datasets, &study.dataset, &study.ballots, args.rows as usize, || bar.inc(1)).await?;
    bar.set_message("sending each query once");
    study.warm_up(|| bar.inc(1)).await?;
    let mut measurements = Vec::with_capacity(turns.len());
    for turn in turns {
        bar.set_message(turn.way.name());
        measurements.push(study.measure(turn).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    write(args, &server, &measurements)
}

async fn load(
    datasets: &dyn Datasets,
    dataset: &Dataset,
    ballots: &Ballots,
    rows: usize,
    mut step: impl FnMut(),
) -> Result<(), Failure> {
    for from in (0..rows).step_by(ROWS_PER_LOAD) {
        let some = (from..rows.min(from + ROWS_PER_LOAD)).map(|ballot| ballots.row(ballot)).collect();
        if !datasets.load(dataset, some).await? {
            return Err(format!("the dataset {} was removed meanwhile", dataset.id).into());
        }
        step();
    }
    datasets.finish(dataset).await?;
    Ok(())
}

fn write(args: &StudyArgs, server: &str, measurements: &[Measurement]) -> Result<ExitCode, Failure> {
    let summary = Summary::of(measurements);
    let report = Report { args, server, summary: &summary };
    fs::write(args.out.join("report.md"), report.markdown())?;
    fs::write(args.out.join("study.json"), report.json()?)?;
    plot::times(&args.out.join("times.svg"), &summary)?;
    plot::figures(&args.out.join("figures.svg"), &summary)?;
    plot::processes(&args.out.join("processes.svg"), &summary)?;
    if args.json {
        println!("{}", report.json()?);
    } else {
        println!("{}\n{}\nThe report is in {}", report.table(), report.verdict(), args.out.join("report.md").display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the first host in the URL of a store, with its port. If the URL has no port, `port` is used.
fn address_in(url: &str, port: u16) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let host = hosts.split(',').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_store_is_read_from_its_url() {
        for (url, address) in [
            ("mongodb://127.0.0.1:19007/ovation", "127.0.0.1:19007"),
            ("mongodb://user:p%40ss@a.example:1,b.example:2/?tls=true", "a.example:1"),
            ("redis://localhost", "localhost:27017"),
            ("redis://:secret@[::1]:6380?prefix=x", "[::1]:6380"),
        ] {
            assert_eq!(address_in(url, 27017), address, "{url}");
        }
    }
}
