//! What has to be true when everybody has finished.

use std::collections::{BTreeMap, BTreeSet};

use votes::{AuditReport, LoggedVote, Offset, Partition, Place, StoreError, UnixMillis, Vote, Window, audit};

use crate::{
    history::drive,
    stores::Seat,
    world::{Shared, World},
};

/// What is wrong with the end of a history.
pub(crate) fn end(world: &World) -> Option<String> {
    // Tallies that once got a summary have no small windows of it.
    let has_expired = !world.horizon.is_empty();
    let windows: &[Window] = if has_expired { &[Window::Minute] } else { &Window::ALL };
    positions(world).or_else(|| book(world)).or_else(|| tallies(world, windows)).or_else(|| dead_letters(world))
}

/// The part of it that an audit sees: small windows expire, so it does not compare them.
pub(crate) fn end_as_audited(world: &World) -> Option<String> {
    book(world).or_else(|| tallies(world, &[Window::Minute])).or_else(|| dead_letters(world))
}

fn partitions(world: &World) -> impl Iterator<Item = Partition> {
    (0..world.log.len()).map(|index| Partition(u16::try_from(index).expect("few partitions")))
}

/// Everything was recorded and counted.
pub(crate) fn positions(world: &World) -> Option<String> {
    partitions(world).find_map(|partition| {
        let (booked, tallied) = (world.booked(partition).offset, world.tallied(partition));
        let end = world.log(partition).bounds().end;
        (booked != end || tallied != end)
            .then(|| format!("partition {partition}: B is {booked} and T {tallied}, but the log ends at {end}"))
    })
}

/// The book has each ballot once, at its lowest offset, unless it has expired.
fn book(world: &World) -> Option<String> {
    let standing: Vec<_> =
        partitions(world).flat_map(|partition| world.log(partition).standing(Offset(0), Offset(u64::MAX))).collect();
    let has_expired = |place: &Place| place.offset < world.booked(place.partition).cut_off;
    let is_lost = |logged: &&&LoggedVote| match world.book.votes.get(&logged.place) {
        None => !has_expired(&logged.place),
        Some(booked) => **booked != ***logged,
    };
    let lost = standing.iter().find(is_lost);
    let lost = lost.map(|logged| format!("{}: the vote stands, and is not in the book", logged.place));
    let standing: BTreeSet<_> = standing.iter().map(|logged| logged.place).collect();
    let extra = || world.book.votes.keys().find(|place| !has_expired(place) && !standing.contains(place));
    lost.or_else(|| extra().map(|place| format!("{place}: the book has a vote that does not stand")))
}

/// The tallies are what stands, counted here without the production fold.
fn tallies(world: &World, windows: &[Window]) -> Option<String> {
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    for logged in partitions(world).flat_map(|partition| world.log(partition).standing(Offset(0), Offset(u64::MAX))) {
        let Vote { contest, name, album, door, accepted_at: UnixMillis(at), .. } = &logged.vote;
        let mut count = |what: String| *truth.entry(format!("{contest} {what}")).or_default() += 1;
        count(format!("band {name}"));
        if let Some(album) = album {
            count(format!("album {name} {album}"));
        }
        count(format!("door {door}"));
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
        let doors = contest.doors.iter().map(|(door, votes)| (format!("{id} door {door}"), *votes));
        let windows = contest.windows.iter().filter(|((window, _), _)| windows.contains(window));
        let windows = windows.map(|((window, start), votes)| (format!("{id} {window} from {}", start.0), *votes));
        tallied.extend(bands.chain(albums).chain(doors).chain(windows));
    }
    let wrong = truth.keys().chain(tallied.keys()).find(|what| truth.get(*what) != tallied.get(*what))?;
    let votes = |counts: &BTreeMap<_, _>| counts.get(wrong).copied().unwrap_or(0);
    Some(format!("{wrong}: {} votes in the tallies, {} in truth", votes(&tallied), votes(&truth)))
}

/// What is no vote is among the dead letters, and nothing else is.
fn dead_letters(world: &World) -> Option<String> {
    let poison: Vec<_> = partitions(world).flat_map(|partition| world.log(partition).poison()).collect();
    (!poison.iter().eq(world.dead.values()))
        .then(|| format!("{} records are no votes, and {} are among the dead letters", poison.len(), world.dead.len()))
}

/// What the production audit says of it.
pub(crate) fn audited(world: &Shared) -> AuditReport {
    drive(report(Seat::new(world))).expect("no faults any more")
}

/// The production audit, as a process of its own.
pub(crate) async fn report(seat: Seat) -> Result<AuditReport, StoreError> {
    let (book, tallies) = (seat.book(), seat.tallies());
    audit(&seat, &*book, &*tallies, &mut |_, _| ()).await
}
