//! What has to end with this process, when somebody ends it: Ctrl-C or SIGTERM run no destructors.

use std::{
    sync::{Mutex, Once, PoisonError},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

type Cleanup = Box<dyn FnOnce() + Send>;

static CLEANUPS: Mutex<Vec<Cleanup>> = Mutex::new(Vec::new());
static LISTENING: Once = Once::new();

/// Calls this before SIGINT or SIGTERM end the process: the last that was told first.
pub fn on_signal(cleanup: impl FnOnce() + Send + 'static) {
    CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(cleanup));
    LISTENING.call_once(|| drop(thread::spawn(listen)));
}

fn listen() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    eprintln!("ending what was started");
    let mut cleanups = CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(cleanup) = cleanups.pop() {
        cleanup();
    }
    std::process::exit(130);
}
