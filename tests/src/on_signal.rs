//! Cleanups that run when SIGINT or SIGTERM ends this process. They are needed because no destructor runs then.

use std::{
    sync::{Mutex, Once, PoisonError},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

type Cleanup = Box<dyn FnOnce() + Send>;

static CLEANUPS: Mutex<Vec<Cleanup>> = Mutex::new(Vec::new());
static SIGNAL_THREAD: Once = Once::new();

/// Registers a cleanup to run before SIGINT or SIGTERM ends the process. The last registered cleanup runs first.
pub fn on_signal(cleanup: impl FnOnce() + Send + 'static) {
    CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(cleanup));
    SIGNAL_THREAD.call_once(|| drop(thread::spawn(run_cleanups_on_signal)));
}

/// Waits for SIGINT or SIGTERM, runs the cleanups, and ends the process with exit code 130.
fn run_cleanups_on_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    eprintln!("stopping everything that was started");
    let mut cleanups = CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(cleanup) = cleanups.pop() {
        cleanup();
    }
    std::process::exit(130);
}
