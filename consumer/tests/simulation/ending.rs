//! The end of a history: without faults, everything must be counted, within a bounded time.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;
use votes::{LOG_TIME_ERROR, Offset, Retention};

use crate::{
    check,
    history::{History, Outcome},
    profile::Event,
    world::Faults,
};

/// The longest simulated time after the last fault until everything is counted and the health is well.
const MAX_RECOVERY_TIME: Duration = Duration::from_mins(1);

/// The simulated time during which consumers are observed after everything is counted.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// The longest simulated time that votes need to expire after they exceed the retention: the clocks are wrong, and each
/// step deletes only a few votes.
const EXPIRY_TIME: Duration = Duration::from_secs(10);

/// The maximum number of calls of an idle process in a second: for itself, and for each of its partitions.
const MAX_IDLE_CALLS: (u64, u64) = (4, 12);

/// The longest simulated time of a shutdown.
const MAX_SHUTDOWN_TIME: Duration = Duration::from_secs(10);

/// Runs the history without faults: all processes resume, and count everything.
pub(crate) async fn finish_without_faults(mut history: History) -> Outcome {
    {
        let mut world = history.world.lock();
        world.faults = Faults::default();
        world.snapshot_stalled_until = None;
        world.has_late_notices = false;
        for notice in world.processes.iter_mut().flat_map(|process| &mut process.notices) {
            notice.ready_at_step = 0;
        }
        world.trace_line(|| "no more faults".to_owned());
    }
    history.profile.invalid = 0.0;
    if history.profile.has(Event::LoseFetch) {
        // The last fault: the next records must be counted although a fetch is lost.
        history.lose_fetch();
        history.partitions().for_each(|partition| history.append(partition));
    }
    history.profile.max_consecutive_operations = 1;
    history.profile.step_time = Duration::from_millis(1);
    history.resume_all();
    let mut end_violation = recover(&mut history).await;
    if end_violation.is_none() {
        observe_idle(&mut history).await;
        end_violation = shut_down(&mut history).await;
    }
    let end_violation = end_violation.or_else(|| check::find_violation(&history.world.lock()));
    audit_at_end(&mut history).await;
    take_outcome(&history, end_violation)
}

/// Executes all calls until everything is counted and the health is well. Returns the problem if this takes too long.
async fn recover(history: &mut History) -> Option<String> {
    let deadline = Instant::now() + MAX_RECOVERY_TIME;
    loop {
        if history.world.lock().executable().is_empty() {
            let problem = check::find_violation(&history.world.lock());
            let problem = match problem.or_else(|| history.unfinished_task()) {
                None => history.health_problem().await,
                problem => problem,
            };
            match problem {
                None => return None,
                Some(problem) if Instant::now() >= deadline => {
                    return Some(format!("{problem}, {MAX_RECOVERY_TIME:?} after the last fault"));
                }
                Some(_) => history.wait_for_call(deadline - Instant::now()).await,
            }
        } else if Instant::now() >= deadline {
            return Some(format!("counting does not end within {MAX_RECOVERY_TIME:?} after the last fault"));
        } else {
            history.execute_random_operations().await;
        }
    }
}

/// Checks that consumers without new votes make few calls, and stay well.
async fn observe_idle(history: &mut History) {
    let calls = |history: &History| -> Vec<(usize, u64, u64)> {
        let world = history.world.lock();
        let of = |process: usize| (process, world.assigned(process).len() as u64, world.processes[process].calls);
        history.members.iter().map(|member| of(member.process)).collect()
    };
    // All votes expire that have to.
    let age = history.profile.age.map_or(Duration::ZERO, |age| Retention::due_age(age) + LOG_TIME_ERROR);
    pass(history, age + EXPIRY_TIME).await;
    let before = calls(history);
    pass(history, IDLE_TIME).await;
    for ((process, partitions, before), (_, _, after)) in before.into_iter().zip(calls(history)) {
        let max = (MAX_IDLE_CALLS.0 + MAX_IDLE_CALLS.1 * partitions) * IDLE_TIME.as_secs();
        let made = after - before;
        if made > max {
            history.world.lock().report_violation(|| {
                format!(
                    "process {process} is idle with {partitions} partitions, and made {made} calls in {IDLE_TIME:?}"
                )
            });
        }
    }
    if let Some(problem) = history.health_problem().await {
        history.world.lock().report_violation(|| problem);
    }
}

/// Executes all calls for this simulated time.
async fn pass(history: &mut History, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if !history.execute_random_operations().await {
            history.wait_for_call(end.saturating_duration_since(Instant::now())).await;
        }
    }
}

/// Shuts all consumers down. Returns the problem if this takes too long.
async fn shut_down(history: &mut History) -> Option<String> {
    let deadline = Instant::now() + MAX_SHUTDOWN_TIME;
    history.shut_down_all().await;
    while !history.members.is_empty() {
        if Instant::now() >= deadline {
            return Some(format!("a consumer does not shut down within {MAX_SHUTDOWN_TIME:?}"));
        }
        if !history.execute_random_operations().await {
            history.wait_for_call(Duration::from_secs(1)).await;
        }
    }
    None
}

/// Checks that the production audit and the checks at the end agree. Skips the check if the audit cannot agree: an
/// audit does not report votes that are not counted yet, and can't compare votes that the log no longer has.
async fn audit_at_end(history: &mut History) {
    let wrong = {
        let mut world = history.world.lock();
        let is_trimmed = world.log.iter().any(|log| log.bounds().start > Offset(0));
        let is_behind = check::check_positions(&world).is_some();
        let has_expired = world.ledger.checkpoints.values().any(|checkpoint| checkpoint.cut_off > Offset(0));
        // An audit reads only the summary of expired votes.
        let is_hidden = has_expired && history.plan.mutant.is_some();
        if is_behind || is_trimmed || is_hidden || (history.plan.mutant.is_none() && history.rng.random_bool(0.8)) {
            return;
        }
        world.count_event("audits of the end");
        world.is_immediate = true;
        check::find_violation_for_audit(&world)
    };
    let report = check::audit_at_end(&history.world).await;
    if report.ok == wrong.is_some() {
        let differences = &report.differences;
        let problem = || format!("the audit reports {differences:?}, and the checks at the end report {wrong:?}");
        history.world.lock().report_violation(problem);
        history.world.lock().count_event("wrong audits");
    }
}

/// Takes the outcome out of the world, which is no longer usable.
fn take_outcome(history: &History, end_violation: Option<String>) -> Outcome {
    let mut world = history.world.lock();
    if let Some(wrong) = &end_violation {
        world.report_violation(|| wrong.clone());
    }
    Outcome {
        violation: world.violation.take(),
        end_violation,
        event_counts: std::mem::take(&mut world.event_counts),
        trace: world.trace.take().unwrap_or_default(),
    }
}
