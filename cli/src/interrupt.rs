//! Handles Ctrl-C, for commands that may run until it is pressed.

use std::process::ExitCode;

use service::{CancellationToken, program::Failure};

/// Returns a token that is cancelled by Ctrl-C. With it, a command can end early and still print its report.
pub(crate) fn stop_on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    stop
}

/// Returns the exit code of a command that prints until it is interrupted. A broken pipe is not a failure: the program
/// that reads the output has ended.
pub(crate) fn exit_code(outcome: Result<(), Failure>) -> Result<ExitCode, Failure> {
    let is_broken_pipe = |failure: &Failure| {
        let error = failure.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match outcome {
        Err(failure) if !is_broken_pipe(&failure) => Err(failure),
        _ => Ok(ExitCode::SUCCESS),
    }
}
