//! What has to happen in one step, each in a Lua script behind a function.
//!
//! A script is sent by its hash, and again in full to a server that does not know it: one that was started anew, or whose
//! scripts were flushed.

use std::{collections::BTreeMap, sync::LazyLock};

use redis::{RedisResult, Script, ScriptInvocation};
use votes::{Added, ContestCounts, ContestId, Counts, Offset, Partition, UnixMillis, Window};

use super::{
    connection::Connection,
    keys::{Group, Keys, album_field},
};

static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("read.lua"), include_str!("next_version.lua"), include_str!("add.lua")))
});

static CLEAR: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("read.lua"), include_str!("next_version.lua"), include_str!("clear.lua")))
});

/// The place of the first groups key among the scripts' keys, counted from 1.
const FIRST_GROUPS: usize = 4;

/// The keys that both scripts begin with.
fn begin<'a>(script: &'a Script, keys: &Keys) -> ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    call.key(keys.position()).key(keys.version()).key(keys.contests());
    for window in Window::ALL {
        call.key(keys.groups(window));
    }
    call
}

/// If the partition's position is exactly `from`, adds the counts and sets it to `to`; else changes nothing.
pub(super) async fn add(
    connection: &mut Connection,
    keys: &Keys,
    partition: Partition,
    (from, to): (Offset, Offset),
    counts: &Counts,
) -> RedisResult<Added> {
    let mut call = begin(&ADD, keys);
    call.arg(partition.0).arg(from.0).arg(to.0).arg(counts.contests.len());
    for contest in counts.contests.keys() {
        call.arg(contest.as_str());
    }
    for (contest, counts) in &counts.contests {
        add_hash(&mut call, keys.tally(contest), counts.bands.iter().map(|(band, votes)| (band.as_str(), *votes)));
        let albums = counts.albums.iter().map(|((band, album), votes)| (album_field(band, album), *votes));
        add_hash(&mut call, keys.albums(contest), albums);
        add_hash(&mut call, keys.doors(contest), counts.doors.iter().map(|(door, votes)| (door.as_str(), *votes)));
        for (group, windows) in groups(contest, counts) {
            add_group(&mut call, keys, &group, &windows);
        }
    }
    let position: Option<u64> = call.invoke_async(connection).await?;
    Ok(position.map_or(Added::Added, |position| Added::Fenced(Offset(position))))
}

fn add_hash<F: AsRef<str>>(
    call: &mut ScriptInvocation<'_>,
    key: String,
    counts: impl ExactSizeIterator<Item = (F, u64)>,
) {
    if counts.len() > 0 {
        call.key(key).arg(0);
        add_fields(call, counts);
    }
}

fn add_group(call: &mut ScriptInvocation<'_>, keys: &Keys, group: &Group, windows: &[(UnixMillis, u64)]) {
    let index = Window::ALL.iter().position(|window| *window == group.window).unwrap_or_default();
    let expires = group.expires().map_or(0, |time| time.0);
    call.key(keys.rate(group)).arg(FIRST_GROUPS + index).arg(group.member()).arg(group.start.0).arg(expires);
    add_fields(call, windows.iter().map(|(start, votes)| (start.0.to_string(), *votes)));
}

fn add_fields<F: AsRef<str>>(call: &mut ScriptInvocation<'_>, counts: impl ExactSizeIterator<Item = (F, u64)>) {
    call.arg(counts.len());
    let mut numbers = Vec::with_capacity(counts.len());
    for (field, votes) in counts {
        call.arg(field.as_ref());
        numbers.push(votes);
    }
    call.arg(numbers);
}

/// The windows by key, without those that have expired: a batch that is counted late, or again from the book, has them.
fn groups(contest: &ContestId, counts: &ContestCounts) -> BTreeMap<Group, Vec<(UnixMillis, u64)>> {
    let now = UnixMillis::now();
    let mut groups: BTreeMap<Group, Vec<(UnixMillis, u64)>> = BTreeMap::new();
    for ((window, start), votes) in &counts.windows {
        let group = Group::of(contest, *window, *start);
        if group.expires().is_none_or(|expires| expires > now) {
            groups.entry(group).or_default().push((*start, *votes));
        }
    }
    groups
}

/// Which contests and groups of windows there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) contests: Vec<ContestId>,
    pub(super) groups: Vec<Group>,
}

/// Forgets everything if there are no contests and groups but these; says whether it did.
pub(super) async fn clear(connection: &mut Connection, keys: &Keys, known: &Known) -> RedisResult<bool> {
    let mut call = begin(&CLEAR, keys);
    call.arg(known.contests.len());
    for contest in &known.contests {
        call.arg(contest.as_str());
        call.key(keys.tally(contest)).key(keys.albums(contest)).key(keys.doors(contest));
    }
    for window in Window::ALL {
        let groups: Vec<&Group> = known.groups.iter().filter(|group| group.window == window).collect();
        call.arg(groups.len());
        for group in groups {
            call.arg(group.member()).key(keys.rate(group));
        }
    }
    call.invoke_async(connection).await
}
