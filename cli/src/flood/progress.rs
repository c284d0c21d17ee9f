//! What a person sees on the terminal while votes are sent.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::{ledger::Live, schedule::Schedule};

/// Draws a bar on stderr, if that is a terminal, until it is dropped.
pub(super) async fn show(live: Arc<Live>, schedule: Schedule) {
    let length = schedule.end() - schedule.start();
    let bar = ProgressBar::with_draw_target(Some(millis(length)), ProgressDrawTarget::stderr());
    if bar.is_hidden() {
        return;
    }
    let style = ProgressStyle::with_template("{bar:24} {elapsed} {msg}");
    bar.set_style(style.expect("the template is well-formed"));
    // Whoever drops this future is about to print the report.
    let bar = ClearedOnDrop(bar);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut before, mut since) = (0, schedule.start());
    let mut rate = 0.0;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let acknowledged = live.acknowledged.load(Ordering::Relaxed);
        // The rate of the last second, taken anew each second so that it can be read.
        let span = now.saturating_duration_since(since);
        if span >= Duration::from_secs(1) {
            rate = (acknowledged - before) as f64 / span.as_secs_f64();
            (before, since) = (acknowledged, now);
        }
        bar.0.set_position(millis(now.saturating_duration_since(schedule.start())).min(millis(length)));
        bar.0.set_message(format!(
            "{rate:.0} votes/s  {} acknowledged  {} refused  {} failed",
            HumanCount(acknowledged),
            HumanCount(live.refused.load(Ordering::Relaxed)),
            HumanCount(live.failed.load(Ordering::Relaxed)),
        ));
    }
}

struct ClearedOnDrop(ProgressBar);

impl Drop for ClearedOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
