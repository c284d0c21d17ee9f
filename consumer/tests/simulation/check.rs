//! The checks at the end of a history.

use std::collections::{BTreeMap, BTreeSet};

use votes::{AuditReport, LogPosition, LoggedVote, Offset, Partition, StoreError, UnixMillis, Vote, Window, audit};

use crate::{
    process::Process,
    world::{ProcessKind, SharedWorld, World},
};

/// Returns the first violation at the end of a history.
pub(crate) fn find_violation(world: &World) -> Option<String> {
    // Summaries have no windows smaller than a minute, so tallies that were rebuilt from a summary lack these windows.
    let has_expired = !world.horizon.is_empty();
    let windows: &[Window] = if has_expired { &[Window::Minute] } else { &Window::ALL };
    check_positions(world)
        .or_else(|| check_ledger(world))
        .or_else(|| check_tallies(world, windows))
        .or_else(|| check_dead_letters(world))
}

/// Returns the first violation that an audit must find. An audit does not compare small windows, because they expire.
pub(crate) fn find_violation_for_audit(world: &World) -> Option<String> {
    check_ledger(world).or_else(|| check_tallies(world, &[Window::Minute])).or_else(|| check_dead_letters(world))
}

/// Checks that every record was recorded and counted.
pub(crate) fn check_positions(world: &World) -> Option<String> {
    world.partitions().find_map(|partition| {
        let (recorded, tallied) = (world.recorded(partition).offset, world.tallied(partition));
        let end = world.log(partition).bounds().end;
        (recorded != end || tallied != end)
            .then(|| format!("partition {partition}: B is {recorded} and T {tallied}, but the log ends at {end}"))
    })
}

/// Checks that the ledger has the original of each ballot, unless the original has expired, and nothing else.
fn check_ledger(world: &World) -> Option<String> {
    let originals: Vec<_> =
        world.partitions().flat_map(|partition| world.log(partition).originals(Offset(0), Offset(u64::MAX))).collect();
    let has_expired = |position: &LogPosition| position.offset < world.recorded(position.partition).cut_off;
    let is_lost = |logged: &&&LoggedVote| match world.ledger.votes.get(&logged.position) {
        None => !has_expired(&logged.position),
        Some(recorded) => **recorded != ***logged,
    };
    let lost = originals.iter().find(is_lost);
    let lost = lost.map(|logged| format!("{}: the original is not in the ledger", logged.position));
    let is_wrong = |partition: &Partition| {
        let cut_off = world.recorded(*partition).cut_off;
        let summary = world.ledger.summaries.get(partition).map_or(0, |summary| summary.counts.total());
        summary != world.log(*partition).originals(Offset(0), cut_off).count() as u64
    };
    let wrong = world.partitions().find(is_wrong);
    let wrong = wrong.map(|partition| format!("the summary of {partition} does not have the votes below its cut-off"));
    let originals: BTreeSet<_> = originals.iter().map(|logged| logged.position).collect();
    let extra = || world.ledger.votes.keys().find(|position| !has_expired(position) && !originals.contains(position));
    lost.or(wrong)
        .or_else(|| extra().map(|position| format!("{position}: the ledger has a vote that is not an original")))
}

/// Checks that the tallies are the counts of the originals. This counts the originals without production code.
fn check_tallies(world: &World, windows: &[Window]) -> Option<String> {
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    for logged in world.partitions().flat_map(|partition| world.log(partition).originals(Offset(0), Offset(u64::MAX))) {
        let Vote { contest, name, album, producer, accepted_at: UnixMillis(at), .. } = &logged.vote;
        let mut count = |what: String| *truth.entry(format!("{contest} {what}")).or_default() += 1;
        count(format!("band {name}"));
        if let Some(album) = album {
            count(format!("album {name} {album}"));
        }
        count(format!("producer {producer}"));
        for (window, millis) in [(Window::Centisecond, 10), (Window::Second, 1_000), (Window::Minute, 60_000)] {
            if windows.contains(&window) {
                count(format!("{window} from {}", at - at.rem_euclid(millis)));
            }
        }
    }
    let mut tallied: BTreeMap<String, u64> = BTreeMap::new();
    for (id, contest) in &world.tallies.counts.contests {
        let bands = contest.bands.iter().map(|(name, votes)| (format!("{id} band {name}"), *votes));
        let albums = contest.albums.iter().map(|((name, album), votes)| (format!("{id} album {name} {album}"), *votes));
        let producers = contest.producers.iter().map(|(producer, votes)| (format!("{id} producer {producer}"), *votes));
        let windows = contest.windows.iter().filter(|((window, _), _)| windows.contains(window));
        let windows = windows.map(|((window, start), votes)| (format!("{id} {window} from {}", start.0), *votes));
        tallied.extend(bands.chain(albums).chain(producers).chain(windows));
    }
    let wrong = truth.keys().chain(tallied.keys()).find(|what| truth.get(*what) != tallied.get(*what))?;
    let votes = |counts: &BTreeMap<_, _>| counts.get(wrong).copied().unwrap_or(0);
    Some(format!("{wrong}: {} votes in the tallies, {} in truth", votes(&tallied), votes(&truth)))
}

/// Checks that the dead letters are exactly the invalid records.
fn check_dead_letters(world: &World) -> Option<String> {
    let invalid: Vec<_> =
        world.partitions().flat_map(|partition| world.log(partition).expected_dead_letters()).collect();
    (!invalid.iter().eq(world.dead_letters.values())).then(|| {
        format!("{} records are invalid, and {} are among the dead letters", invalid.len(), world.dead_letters.len())
    })
}

/// Runs the production audit after the faults. No fault may be left.
pub(crate) async fn audit_at_end(world: &SharedWorld) -> AuditReport {
    run_audit(Process::new(world, ProcessKind::Other)).await.expect("there are no more faults")
}

/// Runs the production audit as a process.
pub(crate) async fn run_audit(process: Process) -> Result<AuditReport, StoreError> {
    let (ledger, tallies) = (process.ledger(), process.tallies());
    audit(&process, &*ledger, &*tallies, &mut |_, _| ()).await
}
