//! The frame of every program: it reads the configuration, starts telemetry and the admin endpoints, decides when to leave
//! and sees to it that leaving ends.
//!
//! Leaving, on SIGTERM or SIGINT: not ready first, then the services stop accepting, drain and flush; whatever is still
//! there after 8 seconds is cut. Everything acknowledged is durable by then, so cutting loses nothing.

use std::{error::Error, future::Future, net::SocketAddr, process::ExitCode, thread, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConfigError, Health, admin,
    health::Latch,
    machine,
    telemetry::{self, Metrics},
    traces,
};

/// The longest that leaving may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// How much longer the process waits for whoever does not even give its thread back.
const GRACE: Duration = Duration::from_secs(1);

/// How long the collector of traces may take for the last ones.
const LAST_TRACES: Duration = Duration::from_secs(1);

/// Threads for reading files: a few more than partitions are read at once. Each costs memory.
const MAX_BLOCKING_THREADS: usize = 16;

/// Exit code of a bad command line or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// What a program's services share.
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// Readiness and health of the process.
    pub health: Health,
    /// What is told at `/metrics`.
    pub metrics: Metrics,
    /// Cancelled when the process has to leave.
    pub shutdown: CancellationToken,
    /// Holds readiness back until the services have latches of their own, or are what is waited for.
    pub starting: Latch,
}

/// Anything that can be told to a person.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A program's outcome.
pub type Outcome = Result<(), Failure>;

/// Reads the command line. `Err` is the exit code after help, the version or an error was printed.
///
/// # Errors
/// If the program has nothing more to do.
pub fn parse<P: clap::Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| {
        // Nobody is left to tell if this can't be printed.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// Runs a program from its configuration to its exit code.
pub fn main<R: Future<Output = Outcome>>(
    config: Result<Config, ConfigError>,
    services: impl FnOnce(Context) -> R,
) -> ExitCode {
    let outcome = config.map_err(Into::into).and_then(|config| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .build()?;
        runtime.block_on(run(config, services))
    });
    exit_code(outcome)
}

/// Tells the person what went wrong, if anything did.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

/// Binds a listener; `key` is the configuration's key of the address.
///
/// # Errors
/// Names the key and the address.
pub async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let problem = |error| ConfigError::new(key, format!("can't listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(problem)
}

async fn run<R: Future<Output = Outcome>>(config: Config, services: impl FnOnce(Context) -> R) -> Outcome {
    let metrics = telemetry::init(&config)?;
    let (health, leaving, admin_shutdown) = (Health::default(), CancellationToken::new(), CancellationToken::new());
    let starting = health.latch("start");
    tokio::spawn(admin_shutdown.clone().run_until_cancelled_owned(machine::watch(health.clone(), config.data.clone())));
    // On a task of its own: it answers while a service keeps its thread busy, as client libraries do when they connect.
    let admin = tokio::spawn(admin::run(config.admin, health.clone(), metrics.clone(), admin_shutdown.clone()));
    let services = services(Context { config, health: health.clone(), metrics, shutdown: leaving.clone(), starting });
    let signals = leave_on_signal(&health, &leaving);
    tokio::pin!(admin, services, signals);

    let outcome = tokio::select! {
        outcome = async {
            let outcome = services.await;
            traces::flush(LAST_TRACES).await;
            outcome
        } => outcome,
        outcome = &mut admin => match outcome {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => Err("the admin endpoints stopped".into()),
            Err(panic) => Err(panic.into()),
        },
        outcome = async {
            signals.await?;
            leaving.cancelled().await;
            tokio::time::sleep(DEADLINE).await;
            tracing::warn!(deadline = ?DEADLINE, "left with connections still open");
            Ok(())
        } => outcome,
    };
    leaving.cancel();
    admin_shutdown.cancel();
    outcome
}

async fn leave_on_signal(health: &Health, leaving: &CancellationToken) -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "leaving");
    cut_after_deadline();
    health.stop();
    leaving.cancel();
    Ok(())
}

/// Ends the process if it is still there some time after the deadline. That is a task's, so it needs a thread to run on and
/// ends with the runtime; but client libraries may keep a thread for as long as they like when they close their connections.
fn cut_after_deadline() {
    thread::spawn(|| {
        thread::sleep(DEADLINE + GRACE);
        tracing::warn!(deadline = ?DEADLINE, "left with something that did not end");
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use serde_json::json;

    use super::*;

    /// The program of the test below, as a process of its own.
    #[test]
    #[ignore = "it waits for SIGTERM, and then for ever"]
    fn a_program_that_keeps_its_thread() {
        let config = Config::load(None, json!({ "admin": "127.0.0.1:0" }), 0);
        main(config, |context| async move {
            // Whatever runs beside the services has begun, too, when they go on.
            tokio::task::yield_now().await;
            println!("started");
            context.shutdown.cancelled().await;
            loop {
                thread::park();
            }
        });
    }

    #[test]
    fn leaving_ends_in_time_whatever_keeps_a_thread() {
        let mut program: Child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "program::tests::a_program_that_keeps_its_thread", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(program.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(lines).map_while(Result::ok);
        assert!(lines.any(|line| line.contains("started")));
        let begun = Instant::now();
        let mut status = None;
        while status.is_none() && begun.elapsed() < 3 * DEADLINE {
            Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap();
            thread::sleep(Duration::from_millis(100));
            status = program.try_wait().unwrap();
        }
        let took = begun.elapsed();
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        assert!(took < DEADLINE + 5 * GRACE, "it took {took:?}");
    }
}
