//! Atomic changes: each function changes the counts with one Lua script.
//!
//! The client sends the hash of a script. If the server does not have the script, because the server was restarted or
//! its scripts were flushed, the client sends the whole script.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use redis::{Pipeline, RedisResult, Script, ScriptInvocation, cmd, pipe};
use uuid::Uuid;
use votes::{
    Added, ClearCondition, ContestCounts, ContestId, Counts, Offset, Partition, TalliesPosition, UnixMillis, VoteId,
    Window,
};

use crate::{
    connection::Connection,
    keys::{Keys, WindowGroup, album_field},
};

static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("read.lua"), include_str!("next_version.lua"), include_str!("add.lua")))
});

static CLEAR: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("read.lua"), include_str!("next_version.lua"), include_str!("clear.lua")))
});

/// The index of the first `groups` key among the keys of both scripts. The first key has index 1, as in Lua.
const FIRST_GROUPS_KEY: usize = 5;

/// The maximum number of fields that a script receives as arguments. A batch has fewer: each of its 1 000 votes has at
/// most six. If an addition has more, which only the summary of expired votes can have, all its fields are staged.
const MAX_ARGUMENT_FIELDS: usize = 10_000;

/// The maximum number of fields in a staged list. `add.lua` has the same limit.
const MAX_LIST_FIELDS: usize = 1_000;

/// The maximum number of staged lists that one pipeline writes.
const MAX_LISTS_PER_PIPELINE: usize = 10;

/// The lifetime of a staged list, in milliseconds. If the client is killed before the counts are added, the list expires.
const LIST_LIFETIME_MS: u64 = 300_000;

/// Returns the invocation of a script with the first seven keys, which are the same for both scripts.
fn invocation<'a>(script: &'a Script, keys: &Keys) -> ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    call.key(keys.position()).key(keys.last()).key(keys.version()).key(keys.contests());
    for window in Window::ALL {
        call.key(keys.groups(window));
    }
    call
}

/// Adds the counts and sets the partition's position to `to`, if the position is `from`. Otherwise changes nothing.
///
/// The counts and the position change in one script, however many fields there are. If there are more than
/// [`MAX_ARGUMENT_FIELDS`], the fields are first written to staged lists, a bounded number at a time. No reader uses these
/// lists. So the number of arguments of each command is bounded.
///
/// The time of the script is not bounded: it is proportional to the number of fields, and the server runs nothing else
/// meanwhile. The measurement `tests::cost` shows it. If the script takes longer than the time-out of a reply, this fails
/// although the script adds the counts. The next addition is then fenced, at the new position.
pub(super) async fn add(
    connection: &mut Connection,
    keys: &Keys,
    partition: Partition,
    (from, to): (Offset, TalliesPosition),
    counts: &Counts,
) -> RedisResult<Added> {
    let hashes = hashes(keys, counts);
    let addition = Addition { partition, from, to, contests: counts.contests.keys().collect(), hashes: &hashes };
    if hashes.iter().map(|hash| hash.fields.len()).sum::<usize>() <= MAX_ARGUMENT_FIELDS {
        return addition.run(connection, keys, &[]).await;
    }
    // Do not stage an addition that would be fenced.
    let position: Option<u64> = cmd("HGET").arg(keys.position()).arg(partition.0).query_async(connection).await?;
    let position = Offset(position.unwrap_or(0));
    if position != from {
        return Ok(Added::Fenced(position));
    }
    let lists = staged_lists(keys, &hashes);
    let added = match stage(connection, &lists, &hashes).await {
        Ok(()) => addition.run(connection, keys, &lists).await,
        Err(error) => Err(error),
    };
    if added != Ok(Added::Added) {
        // The script did not delete the lists. If this can't delete them, they expire.
        for lists in lists.chunks(MAX_LIST_FIELDS) {
            let _ = cmd("UNLINK").arg(lists).query_async::<()>(connection).await;
        }
    }
    added
}

/// One addition.
struct Addition<'a> {
    partition: Partition,
    from: Offset,
    to: TalliesPosition,
    contests: Vec<&'a ContestId>,
    hashes: &'a [HashAddition<'a>],
}

impl Addition<'_> {
    /// Runs `add.lua`. The fields are in the staged lists, or are arguments if there are no lists.
    async fn run(&self, connection: &mut Connection, keys: &Keys, lists: &[String]) -> RedisResult<Added> {
        let mut call = invocation(&ADD, keys);
        call.arg(self.partition.0).arg(self.from.0).arg(self.to.offset.0);
        call.arg(self.to.last.map(encode_last).unwrap_or_default());
        call.arg(self.contests.len());
        for contest in &self.contests {
            call.arg(contest.as_str());
        }
        call.arg(self.hashes.len());
        for hash in self.hashes {
            hash.add_to(&mut call, !lists.is_empty());
        }
        for list in lists {
            call.key(list);
        }
        let position: Option<u64> = call.invoke_async(connection).await?;
        Ok(position.map_or(Added::Added, |position| Added::Fenced(Offset(position))))
    }
}

/// The counts that are added to one hash.
struct HashAddition<'a> {
    key: String,
    /// The group of windows that is in the hash, if any.
    group: Option<WindowGroup>,
    fields: Vec<(Cow<'a, str>, u64)>,
}

impl HashAddition<'_> {
    /// Adds the key and the arguments to a call of `add.lua`. The keys of staged lists follow after all hashes.
    fn add_to(&self, call: &mut ScriptInvocation<'_>, is_staged: bool) {
        call.key(&self.key);
        match &self.group {
            None => {
                call.arg(0);
            }
            Some(group) => {
                let index = Window::ALL.iter().position(|window| *window == group.window).unwrap_or_default();
                let expires_at = group.expires_at().map_or(0, |time| time.0);
                call.arg(FIRST_GROUPS_KEY + index).arg(group.member()).arg(group.start.0).arg(expires_at);
            }
        }
        if is_staged {
            call.arg(self.fields.len().div_ceil(MAX_LIST_FIELDS)).arg(0);
            return;
        }
        call.arg(0).arg(self.fields.len());
        for (field, _) in &self.fields {
            call.arg(&**field);
        }
        for (_, votes) in &self.fields {
            call.arg(*votes);
        }
    }
}

/// Returns the additions to all hashes. None of them is empty.
fn hashes<'a>(keys: &Keys, counts: &'a Counts) -> Vec<HashAddition<'a>> {
    let mut hashes = Vec::new();
    for (contest, counts) in &counts.contests {
        let mut add = |key, group, fields: Vec<_>| hashes.push(HashAddition { key, group, fields });
        add(keys.tally(contest), None, counts.bands.iter().map(|(band, votes)| (band.into(), *votes)).collect());
        let albums = counts.albums.iter().map(|((band, album), votes)| (album_field(band, album).into(), *votes));
        add(keys.albums(contest), None, albums.collect());
        let producers = counts.producers.iter().map(|(producer, votes)| (producer.as_str().into(), *votes));
        add(keys.producers(contest), None, producers.collect());
        for (group, windows) in groups(contest, counts) {
            let windows = windows.into_iter().map(|(start, votes)| (start.0.to_string().into(), votes));
            add(keys.rate(&group), Some(group), windows.collect());
        }
    }
    hashes.retain(|hash| !hash.fields.is_empty());
    hashes
}

/// Returns the windows by group, without expired groups. Expired groups occur in votes that are counted late, or
/// counted again from the ledger.
fn groups(contest: &ContestId, counts: &ContestCounts) -> BTreeMap<WindowGroup, Vec<(UnixMillis, u64)>> {
    let now = UnixMillis::now();
    let mut groups: BTreeMap<WindowGroup, Vec<(UnixMillis, u64)>> = BTreeMap::new();
    for ((window, start), votes) in &counts.windows {
        let group = WindowGroup::of(contest, *window, *start);
        if group.expires_at().is_none_or(|expires_at| expires_at > now) {
            groups.entry(group).or_default().push((*start, *votes));
        }
    }
    groups
}

/// Returns the keys of the staged lists of an addition. No other addition has these keys.
fn staged_lists(keys: &Keys, hashes: &[HashAddition<'_>]) -> Vec<String> {
    let prefix = keys.staged(Uuid::now_v7());
    let count: usize = hashes.iter().map(|hash| hash.fields.len().div_ceil(MAX_LIST_FIELDS)).sum();
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

/// Writes the fields of the hashes to the staged lists, in the order of the hashes.
async fn stage(connection: &mut Connection, lists: &[String], hashes: &[HashAddition<'_>]) -> RedisResult<()> {
    for first in (0..lists.len()).step_by(MAX_LISTS_PER_PIPELINE) {
        staging_commands(lists, hashes, first).query_async::<()>(connection).await?;
    }
    Ok(())
}

/// Returns the commands that write the staged lists from the index `first` on, at most [`MAX_LISTS_PER_PIPELINE`].
fn staging_commands(lists: &[String], hashes: &[HashAddition<'_>], first: usize) -> Pipeline {
    let contents = hashes.iter().flat_map(|hash| hash.fields.chunks(MAX_LIST_FIELDS));
    let mut commands = pipe();
    for (list, fields) in lists.iter().zip(contents).skip(first).take(MAX_LISTS_PER_PIPELINE) {
        let push = commands.cmd("RPUSH").arg(list);
        for (field, votes) in fields {
            push.arg(&**field).arg(*votes);
        }
        commands.ignore().cmd("PEXPIRE").arg(list).arg(LIST_LIFETIME_MS).ignore();
    }
    commands
}

/// Returns the text that the server stores as a partition's last vote: the offset and the id.
fn encode_last((offset, id): (Offset, VoteId)) -> String {
    format!("{offset}:{id}")
}

/// Parses what [`encode_last`] returned.
pub(super) fn decode_last(text: &str) -> Result<(Offset, VoteId), String> {
    let last = text.split_once(':').and_then(|(offset, id)| Some((Offset(offset.parse().ok()?), id.parse().ok()?)));
    last.map(|(offset, id)| (offset, VoteId(id))).ok_or_else(|| format!("{text:?} is not a last vote"))
}

/// The contests and the groups of windows that have keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeyInventory {
    pub(super) contests: Vec<ContestId>,
    pub(super) groups: Vec<WindowGroup>,
}

/// The result of [`clear`].
pub(super) enum Cleared {
    /// All counts and positions were deleted.
    Yes,
    /// The condition does not hold, so nothing changed.
    ConditionFails,
    /// The server has other contests or groups, so nothing changed.
    NamesDiffer,
}

/// Deletes all counts and positions, if the condition holds and the server has exactly these contests and groups.
pub(super) async fn clear(
    connection: &mut Connection,
    keys: &Keys,
    condition: ClearCondition,
    inventory: &KeyInventory,
) -> RedisResult<Cleared> {
    let mut call = invocation(&CLEAR, keys);
    match condition {
        ClearCondition::Always => call.arg("").arg(""),
        ClearCondition::IfAt(partition, offset) => call.arg(partition.0).arg(offset.0),
    };
    call.arg(inventory.contests.len());
    for contest in &inventory.contests {
        call.arg(contest.as_str());
        call.key(keys.tally(contest)).key(keys.albums(contest)).key(keys.producers(contest));
    }
    for window in Window::ALL {
        let groups: Vec<&WindowGroup> = inventory.groups.iter().filter(|group| group.window == window).collect();
        call.arg(groups.len());
        for group in groups {
            call.arg(group.member()).key(keys.rate(group));
        }
    }
    let reply: i64 = call.invoke_async(connection).await?;
    Ok(match reply {
        1 => Cleared::Yes,
        0 => Cleared::ConditionFails,
        _ => Cleared::NamesDiffer,
    })
}
