//! `ovation study`: what each way to an answer costs, and what the pool and the cache are worth.
//!
//! A service is asked as a crowd of readers asks: each waits for its answer, pauses, and asks again, some questions often and most
//! seldom. Machines drift, so the ways take turns in rounds that go forth and back (direct, pool, cache, cache, pool, direct), and in the
//! same turn every way's readers draw the same questions. Meanwhile a row is added now and then, or kept answers are forgotten.
//! Every answer is checked: the study ends with the first wrong one.
//!
//! | what | file |
//! |---|---|
//! | the dataset, the questions, and what the answers have to be | [`ballots`] |
//! | one measurement of one way | [`measure`] |
//! | what the processes that answer use | [`processes`] |
//! | what all measurements come to | [`summary`] |
//! | the report in words and tables | [`report`] |
//! | its pictures | [`plot`] |

mod ballots;
mod measure;
mod plot;
mod processes;
mod report;
mod summary;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use backends::{Access, Stores};
use clap::Args;
use hyper::Uri;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use service::{CancellationToken, Config, ConfigError, config::StoreFlags, health::Weight, program::EXIT_USAGE};
use votes::{Dataset, DatasetId, Datasets};

use self::{
    ballots::{Ballots, COLUMNS},
    measure::{Measurement, Study, Turn, Way, address_of},
    processes::Process,
    summary::Summary,
};
use crate::{
    Failure, client, duration,
    flood::{Protocol, check_url},
    zipf::Zipf,
};

/// The dataset that is made for the study.
const DATASET: &str = "read-study";

/// Stands for the address of a process that can't be asked.
const NOBODY: &str = "none";

/// Rows that are loaded at a time.
const LOADED_ROWS: usize = 2_000;

/// Measures the three ways to read: a connection for each question, a pool, and the cache
///
/// Makes the dataset read-study in the book that --book names (or the environment, or ovation.toml), asks the service at --url, which has to
/// work on the same stores, and removes the dataset at the end; a dataset of that name is replaced. The service needs room for the
/// answers to all questions, which are some MB each: start it with --cache-bytes 268435456, and its Redis with as much to spare.
/// Writes report.md, study.json and three plots.
///
/// Exit code: 0 if all was measured, 1 if an answer was wrong, 64 for a wrong flag.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = "Example:\n  ovation up --cache-bytes 268435456 &\n  ovation study --admin http://127.0.0.1:9100 --out study\n\n\
    with the URLs of the three stores in the environment, as `dev/stack env` prints them"
)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// The results service
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    #[serde(skip)]
    url: Uri,
    /// Where its process counts hits and misses; port 9100 for `ovation up`; `none`: it is not asked
    #[arg(long, default_value = "http://127.0.0.1:9104", value_name = "URL")]
    #[serde(skip)]
    admin: String,
    /// A file with the token that the service asks for
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    #[serde(skip)]
    read_token_file: Option<PathBuf>,
    /// How many rows the dataset begins with
    #[arg(long, default_value_t = 60_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    #[serde(skip)]
    rows: u32,
    /// How many questions there are: each returns 35 % of the rows
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    questions: u32,
    /// How uneven their popularity is: the n-th is asked n^EXPONENT times less often than the first (Zipf's law)
    #[arg(long, default_value_t = 1.0, value_name = "EXPONENT")]
    #[serde(skip)]
    exponent: f64,
    /// How many readers there are
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    users: u32,
    /// How long a reader pauses between an answer and the next question
    #[arg(long, default_value = "233ms", value_name = "DURATION", value_parser = duration::parse)]
    #[serde(skip)]
    pause: Duration,
    /// How often all is measured, each time forth and back
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    rounds: u32,
    /// How long one measurement lasts; each way has two in a round
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration::parse)]
    #[serde(skip)]
    seconds: Duration,
    /// How often a row is added or, in turn, all kept answers are forgotten; first after half of that time
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration::parse)]
    #[serde(skip)]
    change_every: Duration,
    /// Another one draws other rows and other questions
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[serde(skip)]
    seed: u64,
    /// What the book's server is, for the report, where it does not say enough of itself
    #[arg(long, value_name = "NAME")]
    #[serde(skip)]
    book_server: Option<String>,
    /// The folder for the report
    #[arg(long, default_value = "study", value_name = "DIR")]
    #[serde(skip)]
    out: PathBuf,
    /// Prints the summary as one JSON object
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

impl StudyArgs {
    /// How often something is changed in one measurement.
    fn changes(&self) -> u32 {
        let half = self.change_every / 2;
        let mut changes = 0;
        while half + self.change_every * changes < self.seconds {
            changes += 1;
        }
        changes
    }

    fn admin(&self) -> Option<&str> {
        (self.admin != NOBODY).then_some(&self.admin)
    }

    fn turns(&self) -> Vec<Turn> {
        let forth = Way::ALL.into_iter();
        let there_and_back = forth.clone().map(|way| (way, 0)).chain(forth.rev().map(|way| (way, 1)));
        let turn = |round: u32, (way, back)| Turn { way, round, number: 2 * (round - 1) + back };
        (1..=self.rounds).flat_map(|round| there_and_back.clone().map(move |of| turn(round, of))).collect()
    }
}

/// Measures, writes the report, and says what came out.
pub(crate) async fn run(args: StudyArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let is_real = args.exponent.is_finite() && (0.0..=10.0).contains(&args.exponent);
    if args.seconds < Duration::from_millis(100) || args.change_every < Duration::from_millis(10) || !is_real {
        eprintln!(
            "ovation study: a measurement lasts at least --seconds 100ms, --change-every is at least 10ms, and --exponent 0 to 10"
        );
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    if let Err(problem) = check_url(args.url.clone(), Protocol::Rest) {
        eprintln!("ovation study: {problem}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let config = Config::load(None, args.clone(), 0)?;
    if config.book == "embedded:" {
        let problem = "the study works beside a service on the same stores, and embedded stores are one process' own; give the URLs of \
            servers, also to the service";
        return Err(ConfigError::new("book", problem).into());
    }
    let token = client::token(args.read_token_file.as_deref())?;
    let datasets = Stores::open_for_command(&config, Access::Write)?.datasets(Weight::Vital).await?;
    let told_of_itself = datasets.check().await?.remove("version").unwrap_or_default();
    let server = match &args.book_server {
        Some(name) => format!("{name}, which says of itself: {told_of_itself}"),
        None => told_of_itself,
    };
    let processes = [
        Process::at("API", &address_of(&args.url)).await,
        Process::at("MongoDB", &address_in(&config.book, 27017)).await,
        Process::at("Redis", &address_in(&config.tally, 6379)).await,
        Process::study(),
    ];
    fs::create_dir_all(&args.out)?;

    let id: DatasetId = DATASET.parse()?;
    let changes = args.turns().len() * args.changes() as usize;
    let rows = args.rows as usize;
    let ballots = Ballots::draw(rows + changes, args.questions as usize, args.seed);
    datasets.remove(&id).await?;
    let columns = COLUMNS.map(str::to_owned).to_vec();
    let dataset = datasets.create(&id, columns).await?.ok_or("somebody else made the dataset at the same time")?;
    let study = Study {
        popularity: Zipf::new(args.questions as usize, args.exponent),
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
    measured.unwrap_or_else(|| Err("stopped before all was measured; the dataset is removed".into()))
}

async fn measure_all(study: Arc<Study>, server: String) -> Result<ExitCode, Failure> {
    let args = &study.args;
    let turns = args.turns();
    let bar = ProgressBar::with_draw_target(
        Some(u64::from(args.rows) / LOADED_ROWS as u64 + u64::from(args.questions) + turns.len() as u64),
        ProgressDrawTarget::stderr(),
    );
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}")?);
    bar.set_message("loading");
    load(&*study.datasets, &study.dataset, &study.ballots, args.rows as usize, || bar.inc(1)).await?;
    bar.set_message("asking each question once");
    study.rehearse(|| bar.inc(1)).await?;
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
    for from in (0..rows).step_by(LOADED_ROWS) {
        let some = (from..rows.min(from + LOADED_ROWS)).map(|ballot| ballots.row(ballot)).collect();
        if !datasets.load(dataset, some).await? {
            return Err(format!("the dataset {} is gone", dataset.id).into());
        }
        step();
    }
    datasets.finish(dataset).await?;
    Ok(())
}

fn write(args: &StudyArgs, server: &str, measurements: &[Measurement]) -> Result<ExitCode, Failure> {
    let summary = Summary::of(measurements);
    let report = report::Report { args, server, summary: &summary };
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

/// The first host of a store's URL, with its port.
fn address_in(url: &str, port: u16) -> String {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let place = place.split(['/', '?']).next().unwrap_or_default();
    let hosts = place.rsplit_once('@').map_or(place, |(_, hosts)| hosts);
    let host = hosts.split(',').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_address_is_found_in_its_url() {
        for (url, address) in [
            ("mongodb://127.0.0.1:19007/ovation", "127.0.0.1:19007"),
            ("mongodb://user:p%40ss@a.example:1,b.example:2/?tls=true", "a.example:1"),
            ("redis://localhost", "localhost:27017"),
            ("redis://:secret@[::1]:6380?prefix=x", "[::1]:6380"),
        ] {
            assert_eq!(address_in(url, 27017), address, "{url}");
        }
    }

    #[test]
    fn each_round_goes_forth_and_back_and_each_way_has_the_same_turns() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            study: StudyArgs,
        }
        let Alone { study } = clap::Parser::parse_from(["study"]);
        let turns = study.turns();
        let ways: Vec<&str> = turns.iter().map(|turn| turn.way.name()).collect();
        assert_eq!(ways, ["direct", "pool", "cache", "cache", "pool", "direct"]);
        for way in Way::ALL {
            let numbers: Vec<u32> = turns.iter().filter(|turn| turn.way == way).map(|turn| turn.number).collect();
            assert_eq!(numbers, [0, 1]);
        }
        assert_eq!(study.seconds * 2, Duration::from_mins(1), "each way has a minute");
        assert_eq!(study.changes(), 1);
    }
}
