//! Shows a progress bar on the terminal while votes are sent.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::{schedule::Schedule, statistics::LiveCounts};

/// Shows a progress bar on stderr until the future is dropped, if stderr is a terminal.
pub(super) async fn show(live: Arc<LiveCounts>, schedule: Schedule) {
    let length = schedule.end() - schedule.start();
    let bar = ProgressBar::with_draw_target(Some(millis(length)), ProgressDrawTarget::stderr());
    if bar.is_hidden() {
        return;
    }
    let style = ProgressStyle::with_template("{bar:24} {elapsed} {msg}");
    bar.set_style(style.expect("the template is well-formed"));
    // The caller drops this future just before it prints the report, which clears the bar.
    let bar = ClearedOnDrop(bar);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut before, mut since) = (0, schedule.start());
    let mut rate = 0.0;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let acknowledged = live.acknowledged.load(Ordering::Relaxed);
        // The rate is that of the last second. It changes once per second, so that it is readable.
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
