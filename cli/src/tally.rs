//! `ovation tally`: shows the tally of a contest.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use api::{BandVotes, Tally};
use clap::Args;
use client::http;
use serde::Serialize;
use service::program::Failure;
use votes::ContestId;

/// Show the tally of a contest
#[derive(Args)]
#[command(after_help = "Example:\n  ovation tally --contest bands --json")]
pub(crate) struct TallyArgs {
    /// The URL of the results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The contest
    #[arg(long, default_value = ContestId::DEFAULT)]
    contest: ContestId,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The object of `--json`.
#[derive(Serialize)]
struct TallyJson<'a> {
    contest: &'a str,
    total: u64,
    bands: &'a [BandVotes],
}

pub(crate) async fn run(args: TallyArgs) -> Result<ExitCode, Failure> {
    let tally: Tally = http::get(&args.url, &format!("/v1/contests/{}/tally", args.contest)).await?;
    if args.json {
        let Tally { contest, total, bands, .. } = &tally;
        println!("{}", serde_json::to_string(&TallyJson { contest, total: *total, bands })?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{}: {} votes\n", tally.contest, tally.total);
    for (rank, band) in tally.bands.iter().enumerate() {
        writeln!(text, "{:>4}  {:>10}  {:>6.2} %  {}", rank + 1, band.votes, band.share * 100.0, band.name)?;
    }
    if tally.others.bands > 0 {
        writeln!(text, "      {:>10}            for {} more bands", tally.others.votes, tally.others.bands)?;
    }
    match io::stdout().write_all(text.as_bytes()) {
        // The program that reads the output, for example `head`, has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(ExitCode::SUCCESS)
}
