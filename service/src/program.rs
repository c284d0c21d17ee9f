//! Runs a program: starts telemetry and the admin endpoints, runs the services, and shuts down.
//!
//! On SIGTERM or SIGINT, the process first becomes not ready. Then the services stop accepting requests, finish open
//! requests and flush. After 8 seconds, the process aborts the tasks that still run. No acknowledged vote is lost:
//! producers acknowledge a vote only after it is durable on the vote log.

use std::{error::Error, future::Future, net::SocketAddr, process::ExitCode, thread, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    config::{Config, ConfigError},
    health::{Health, Latch},
    resources,
    telemetry::{self, Metrics},
    traces,
};

/// The longest time that a shutdown may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long the process waits after [`SHUTDOWN_TIMEOUT`] for blocked threads to end. After that, it exits.
const FORCED_EXIT_DELAY: Duration = Duration::from_secs(1);

/// The longest time that the export of the last traces may take.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of threads for blocking calls, for example reads of `SQLite` files. It is a little higher than the
/// default number of partitions, 12, which a consumer reads at the same time. Each thread costs memory.
const MAX_BLOCKING_THREADS: usize = 16;

/// The exit code for an invalid command line or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The state that the services of a program share.
#[derive(Clone)]
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// The readiness and health of the process.
    pub health: Health,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Cancelled when the process has to shut down.
    pub shutdown: CancellationToken,
}

/// An error that ends a program. The operator reads its text.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The result of a program or of one of its services.
pub type ProgramResult = Result<(), Failure>;

/// Parses the command line.
///
/// # Errors
/// The exit code, if this printed the help, the version or an error. The caller then only has to exit.
pub fn parse<P: clap::Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| {
        // If printing fails, there is no other way to report it.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// Runs a program with its configuration and returns the exit code. The process is not ready until `services` drops the
/// latch that it receives.
pub fn main<R: Future<Output = ProgramResult>>(
    config: Result<Config, ConfigError>,
    services: impl FnOnce(Context, Latch) -> R,
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

/// Prints the error, if there is one, and returns the exit code.
pub fn exit_code(outcome: ProgramResult) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

/// Binds a listener. `key` is the configuration key of the address.
///
/// # Errors
/// If the address can't be bound. The error names the key and the address.
pub async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let problem = |error| ConfigError::new(key, format!("can't listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(problem)
}

/// Runs one service: opens its dependencies, opens its listener, drops the latch `starting`, and runs the service until
/// shutdown. If shutdown begins before both are open, the service does not run.
///
/// # Errors
/// The error of the dependencies, the listener or the service.
pub async fn serve<L, D, R, E>(
    dependencies: impl Future<Output = Result<D, Failure>>,
    listener: impl Future<Output = Result<L, impl Into<Failure>>>,
    starting: Latch,
    run: impl FnOnce(L, D, CancellationToken) -> R,
    shutdown: CancellationToken,
) -> ProgramResult
where
    R: Future<Output = Result<(), E>>,
    E: Into<Failure>,
{
    let open = async {
        let dependencies = dependencies.await?;
        Ok::<_, Failure>((listener.await.map_err(Into::into)?, dependencies))
    };
    let opened = Box::pin(shutdown.run_until_cancelled(open)).await.transpose()?;
    let Some((listener, dependencies)) = opened else { return Ok(()) };
    drop(starting);
    run(listener, dependencies, shutdown).await.map_err(Into::into)
}

async fn run<R: Future<Output = ProgramResult>>(
    config: Config,
    services: impl FnOnce(Context, Latch) -> R,
) -> ProgramResult {
    let metrics = telemetry::init(&config)?;
    let (health, shutdown, admin_shutdown) = (Health::default(), CancellationToken::new(), CancellationToken::new());
    let starting = health.add_latch("start");
    tokio::spawn(
        admin_shutdown.clone().run_until_cancelled_owned(resources::watch(health.clone(), resources::folders(&config))),
    );
    // The admin endpoints run on a task of their own. So they respond while a service blocks its thread: some client
    // libraries do that while they connect.
    let admin = tokio::spawn(serve_admin(config.admin, health.clone(), metrics.clone(), admin_shutdown.clone()));
    let context = Context { config, health: health.clone(), metrics, shutdown: shutdown.clone() };
    let services = services(context, starting);
    let signals = shut_down_on_signal(&health, &shutdown);
    tokio::pin!(admin, services, signals);

    let outcome = tokio::select! {
        outcome = async {
            let outcome = services.await;
            traces::flush(TRACE_FLUSH_TIMEOUT).await;
            outcome
        } => outcome,
        outcome = &mut admin => match outcome {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err("the admin endpoints stopped".into()),
            Err(panic) => Err(panic.into()),
        },
        outcome = async {
            signals.await?;
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
            tracing::warn!(timeout = ?SHUTDOWN_TIMEOUT, "shutdown timed out, aborting the tasks that still run");
            Ok(())
        } => outcome,
    };
    shutdown.cancel();
    admin_shutdown.cancel();
    outcome
}

async fn serve_admin(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> ProgramResult {
    let listener = listen("admin", address).await?;
    Ok(admin::run(listener, health, metrics, shutdown).await?)
}

async fn shut_down_on_signal(health: &Health, shutdown: &CancellationToken) -> ProgramResult {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "shutting down");
    force_exit_after_timeout();
    health.begin_shutdown();
    shutdown.cancel();
    Ok(())
}

/// Exits the process if it still runs [`FORCED_EXIT_DELAY`] after the shutdown timed out.
///
/// The timeout in [`run`] is not enough, because it is an async task. A client library that closes its connections can
/// block a thread of the runtime for any time. Then the task may have no thread to run on, or the runtime waits for
/// that thread when it ends. This function needs only a thread of its own.
fn force_exit_after_timeout() {
    thread::spawn(|| {
        thread::sleep(SHUTDOWN_TIMEOUT + FORCED_EXIT_DELAY);
        tracing::warn!(timeout = ?SHUTDOWN_TIMEOUT, "exiting although a blocked thread has not ended");
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

    /// The program of the test below. It runs as a process of its own.
    #[test]
    #[ignore = "it waits for SIGTERM and then blocks forever"]
    fn a_program_that_blocks_its_thread() {
        let config = Config::load(None, json!({ "admin": "127.0.0.1:0" }), 0);
        main(config, |context, _starting| async move {
            // Gives the task that handles signals the time to begin before the test sends one.
            tokio::task::yield_now().await;
            println!("started");
            context.shutdown.cancelled().await;
            loop {
                thread::park();
            }
        });
    }

    #[test]
    fn a_shutdown_ends_in_time_though_a_thread_is_blocked() {
        let mut program: Child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "program::tests::a_program_that_blocks_its_thread", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(program.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(lines).map_while(Result::ok);
        assert!(lines.any(|line| line.contains("started")));
        let begun = Instant::now();
        let mut status = None;
        while status.is_none() && begun.elapsed() < 3 * SHUTDOWN_TIMEOUT {
            Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap();
            thread::sleep(Duration::from_millis(100));
            status = program.try_wait().unwrap();
        }
        let took = begun.elapsed();
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        assert!(took < SHUTDOWN_TIMEOUT + 5 * FORCED_EXIT_DELAY, "it took {took:?}");
    }
}
