//! Runs a flood, from the command line or for another measurement.

use std::{process::ExitCode, sync::Arc, time::Duration};

use hyper::Uri;
use service::program::EXIT_USAGE;
use tokio::{runtime, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    args::FloodArgs, plan::Plan, protocol::Protocol, rate::Rate, receipts::Receipts, report::Report, workers::flood,
};

/// Runs the flood and prints the report. Cancel `stop` to end the flood early: it then waits for the outcomes of the
/// votes in flight, and prints the report.
#[expect(clippy::missing_panics_doc, reason = "a report can always be written as JSON")]
pub async fn run(args: FloodArgs, stop: CancellationToken) -> ExitCode {
    let prepared = Plan::try_from(&args).and_then(|plan| {
        let create = |path| {
            Receipts::create(path).map(Arc::new).map_err(|error| format!("--receipts {}: {error}", path.display()))
        };
        Ok((plan, args.receipts.as_deref().map(create).transpose()?))
    });
    let (plan, receipts) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => {
            eprintln!("ovation flood: {problem}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let report = flood_on_one_thread(plan, receipts.clone(), !args.quiet, stop).await;
    if args.json {
        println!("{}", serde_json::to_string(&report).expect("a report has only numbers and texts"));
    } else if !args.quiet {
        print!("{report}");
    }
    let unwritten = receipts.and_then(|receipts| receipts.finish().err());
    let unwritten = unwritten.map(|error| format!("the file of receipts is not complete: {error}"));
    let problems: Vec<_> = report.problem().into_iter().chain(unwritten).collect();
    for problem in &problems {
        eprintln!("ovation flood: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a flood for another measurement. Prints nothing, and returns the report.
///
/// # Errors
/// A text that names the invalid argument, as the flag of a flood.
pub(crate) async fn measure(
    protocol: Protocol,
    url: Uri,
    rate: Rate,
    length: Duration,
    stop: CancellationToken,
) -> Result<Report, String> {
    let plan = Plan::try_from(&FloodArgs::of(protocol, url, rate, length))?;
    Ok(flood_on_one_thread(plan, None, false, stop).await)
}

/// Runs the flood on a runtime with one thread. The threads of a multi-threaded runtime wake each other, which can take
/// twice as much CPU per vote. The difference matters if the flood shares a machine with the server.
async fn flood_on_one_thread(
    plan: Plan,
    receipts: Option<Arc<Receipts>>,
    shows_progress: bool,
    stop: CancellationToken,
) -> Report {
    let one_thread = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a second runtime can be built").block_on(flood(plan, receipts, shows_progress, stop))
    };
    spawn_blocking(one_thread).await.expect("a flood does not panic and is not aborted")
}
