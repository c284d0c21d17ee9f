//! The port: every question is one script, one transaction or one command, so that an answer is of one instant.

use std::{collections::BTreeMap, fmt::Display};

use async_trait::async_trait;
use redis::{FromRedisValue, InfoDict, RedisResult, cmd, pipe};
use votes::{
    Added, AlbumVotes, BandVotes, ContestCounts, ContestId, Counts, Facts, Offset, Others, Partition, RateWindow,
    Snapshot, Store, StoreError, Tallies, Tally, UnixMillis, Window,
};

use super::{
    address::Address,
    changes::Changes,
    connection::Connection,
    keys::{Group, Keys, group_start, read_album_field},
    scripts::{self, Known},
    server,
};
use crate::open::NotOpen;

/// How many hashes are read in one go.
const HASHES_AT_A_TIME: usize = 500;

/// How often something is tried again that a new contest or group of windows came between. A group begins every 10 s.
const ATTEMPTS: usize = 10;

/// How long the key that a check writes is kept, in milliseconds.
const CHECK_KEPT: u64 = 60_000;

/// The tallies on a Redis.
pub(crate) struct RedisTallies {
    connection: Connection,
    keys: Keys,
    changes: Changes,
}

impl RedisTallies {
    /// Connects to the server of a URL and sees whether it is fit.
    pub(crate) async fn connect(url: &str) -> Result<Self, NotOpen> {
        let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
        let connection =
            Connection::new(address.server, address.tls).map_err(|error| NotOpen::BadUrl(error.to_string()))?;
        let tallies = Self { connection, keys: Keys::new(&address.prefix), changes: Changes::new() };
        let not_open = |error| server::not_open(&tallies.connection.to_string(), &error);
        if let Some(refusal) = server::refusal(&tallies.info().await.map_err(not_open)?) {
            return Err(NotOpen::Refused(format!("{}: {refusal}", tallies.connection)));
        }
        tallies.write_and_read().await.map_err(not_open)?;
        Ok(tallies)
    }

    fn failed(&self, problem: impl Display) -> StoreError {
        StoreError::new("tallies", format!("{}: {problem}", self.connection))
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn ask_all<T: FromRedisValue>(&self, commands: &redis::Pipeline) -> RedisResult<T> {
        commands.query_async(&mut self.connection.clone()).await
    }

    async fn info(&self) -> RedisResult<InfoDict> {
        self.ask(&cmd("INFO")).await
    }

    /// Sees whether the server takes a write now, and has it.
    async fn write_and_read(&self) -> RedisResult<()> {
        let key = self.keys.check();
        let () = self.ask(cmd("SET").arg(&key).arg(UnixMillis::now().0).arg("PX").arg(CHECK_KEPT)).await?;
        let _: i64 = self.ask(cmd("GET").arg(&key)).await?;
        Ok(())
    }

    async fn version(&self) -> RedisResult<u64> {
        let version: Option<u64> = self.ask(cmd("GET").arg(self.keys.version())).await?;
        Ok(version.unwrap_or(0))
    }

    /// Which contests and groups of windows there are, more or less: whoever acts on it checks it again.
    async fn known(&self) -> Result<Known, StoreError> {
        let mut commands = pipe();
        self.ask_known(&mut commands);
        let names: Names = self.ask_all(&commands).await.map_err(|error| self.failed(error))?;
        read_names(names).map_err(|problem| self.failed(problem))
    }

    /// Adds the questions whose answers are [`Names`].
    fn ask_known(&self, commands: &mut redis::Pipeline) {
        commands.cmd("SMEMBERS").arg(self.keys.contests());
        for window in Window::ALL {
            commands.cmd("ZRANGE").arg(self.keys.groups(window)).arg(0).arg(-1);
        }
    }

    /// The groups of one size that have windows in `[from, to)`, by time.
    async fn groups(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<Group>, StoreError> {
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(self.keys.groups(window)).arg(group_start(window, from).0).arg(format!("({}", to.0));
        let members: Vec<String> = self.ask(&command).await.map_err(|error| self.failed(error))?;
        let groups: Result<Vec<Group>, String> =
            members.iter().map(|member| Group::of_member(window, member)).collect();
        let mut groups = groups.map_err(|problem| self.failed(problem))?;
        groups.retain(|group| contest.is_none_or(|contest| *contest == group.contest));
        Ok(groups)
    }

    /// Everything at one instant, if there are no other contests and groups than these.
    async fn try_snapshot(&self, known: &Known) -> Result<Option<Snapshot>, StoreError> {
        let mut commands = pipe();
        self.ask_known(commands.atomic());
        commands.cmd("HGETALL").arg(self.keys.position());
        for contest in &known.contests {
            commands.cmd("HGETALL").arg(self.keys.tally(contest));
            commands.cmd("HGETALL").arg(self.keys.albums(contest));
            commands.cmd("HGETALL").arg(self.keys.doors(contest));
        }
        for group in &known.groups {
            commands.cmd("HGETALL").arg(self.keys.rate(group));
        }
        let answers: Vec<redis::Value> = self.ask_all(&commands).await.map_err(|error| self.failed(error))?;
        read_snapshot(answers, known).map_err(|problem| self.failed(problem))
    }
}

/// The names of all contests, and of all groups by size of window.
type Names = (Vec<String>, Vec<String>, Vec<String>, Vec<String>);

fn read_names((contests, centiseconds, seconds, minutes): Names) -> Result<Known, String> {
    let mut known = Known::default();
    for contest in contests {
        known.contests.push(contest.parse()?);
    }
    for (window, members) in Window::ALL.into_iter().zip([centiseconds, seconds, minutes]) {
        for member in members {
            known.groups.push(Group::of_member(window, &member)?);
        }
    }
    known.contests.sort();
    known.groups.sort();
    Ok(known)
}

#[async_trait]
impl Store for RedisTallies {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.write_and_read().await.map_err(|error| self.failed(error))?;
        let info = self.info().await.map_err(|error| self.failed(error))?;
        match server::refusal(&info) {
            Some(refusal) => Err(self.failed(refusal)),
            None => Ok(server::facts(&info)),
        }
    }
}

#[async_trait]
impl Tallies for RedisTallies {
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError> {
        let mut command = cmd("HGET");
        command.arg(self.keys.position()).arg(partition.0);
        let position: Option<u64> = self.ask(&command).await.map_err(|error| self.failed(error))?;
        Ok(Offset(position.unwrap_or(0)))
    }

    async fn add(&self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Result<Added, StoreError> {
        scripts::add(&mut self.connection.clone(), &self.keys, partition, (from, to), &counts)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        let mut commands = pipe();
        commands.atomic();
        commands.cmd("GET").arg(self.keys.version());
        commands.cmd("HGETALL").arg(self.keys.tally(contest));
        commands.cmd("HGETALL").arg(self.keys.doors(contest));
        commands.cmd("HVALS").arg(self.keys.position());
        let answers: TallyAnswers = self.ask_all(&commands).await.map_err(|error| self.failed(error))?;
        Ok(read_tally(contest, top, answers))
    }

    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        let counts: Vec<(String, u64)> =
            self.ask(cmd("HGETALL").arg(self.keys.albums(contest))).await.map_err(|error| self.failed(error))?;
        let mut albums = Vec::with_capacity(counts.len());
        for (field, votes) in counts {
            let (name, album) = read_album_field(&field).map_err(|problem| self.failed(problem))?;
            albums.push(AlbumVotes { name, album, votes });
        }
        albums.sort_unstable_by(|a, b| (b.votes, &a.name, &a.album).cmp(&(a.votes, &b.name, &b.album)));
        albums.truncate(top);
        Ok(albums)
    }

    async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
        for groups in self.groups(contest, window, from, to).await?.chunks(HASHES_AT_A_TIME) {
            let mut commands = pipe();
            for group in groups {
                commands.cmd("HGETALL").arg(self.keys.rate(group));
            }
            let hashes: Vec<Vec<(i64, u64)>> = self.ask_all(&commands).await.map_err(|error| self.failed(error))?;
            for (start, votes) in hashes.into_iter().flatten().filter(|(start, _)| (from.0..to.0).contains(start)) {
                *windows.entry(start).or_default() += votes;
            }
        }
        Ok(windows.into_iter().map(|(start, votes)| RateWindow { start: UnixMillis(start), votes }).collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        for _ in 0..ATTEMPTS {
            let known = self.known().await?;
            if let Some(snapshot) = self.try_snapshot(&known).await? {
                return Ok(snapshot);
            }
        }
        Err(self.failed("new contests or windows came between each time; try again"))
    }

    async fn changed(&self, seen: u64) -> Result<u64, StoreError> {
        self.changes.wait(seen, || self.version()).await.map_err(|error| self.failed(error))
    }

    async fn clear(&self) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let known = self.known().await?;
            let mut connection = self.connection.clone();
            let cleared = scripts::clear(&mut connection, &self.keys, &known).await;
            if cleared.map_err(|error| self.failed(error))? {
                return Ok(());
            }
        }
        Err(self.failed("new contests or windows came between each time; try again"))
    }
}

/// Version, bands, doors, positions.
type TallyAnswers = (Option<u64>, Vec<(String, u64)>, BTreeMap<String, u64>, Vec<u64>);

fn read_tally(contest: &ContestId, top: usize, (version, mut counts, doors, positions): TallyAnswers) -> Tally {
    let total: u64 = counts.iter().map(|(_, votes)| votes).sum();
    let share = |votes: u64| if total == 0 { 0.0 } else { votes as f64 / total as f64 };
    let by_votes = |a: &(String, u64), b: &(String, u64)| (b.1, &a.0).cmp(&(a.1, &b.0));
    // A contest that is open to any name may have a million of them, and only the leaders need an order.
    let others = if top < counts.len() {
        counts.select_nth_unstable_by(top, by_votes);
        counts.split_off(top)
    } else {
        Vec::new()
    };
    counts.sort_unstable_by(by_votes);
    Tally {
        contest: contest.clone(),
        total,
        version: version.unwrap_or(0),
        bands: counts.into_iter().map(|(name, votes)| BandVotes { name, votes, share: share(votes) }).collect(),
        others: Others { bands: others.len() as u64, votes: others.iter().map(|(_, votes)| votes).sum() },
        doors,
        processed: positions.iter().sum(),
    }
}

/// `None` if there are other contests or groups than the known ones.
fn read_snapshot(answers: Vec<redis::Value>, known: &Known) -> Result<Option<Snapshot>, String> {
    let mut answers = answers.into_iter();
    let names: Vec<redis::Value> = answers.by_ref().take(1 + Window::ALL.len()).collect();
    let now = read_names(parse(redis::Value::Array(names))?)?;
    if now != *known {
        return Ok(None);
    }
    let mut next = || answers.next().unwrap_or_default();
    let positions: Vec<(u16, u64)> = parse(next())?;
    let mut snapshot = Snapshot {
        positions: positions.into_iter().map(|(partition, offset)| (Partition(partition), Offset(offset))).collect(),
        contests: BTreeMap::new(),
    };
    for contest in &known.contests {
        let mut counts = ContestCounts { bands: parse(next())?, ..ContestCounts::default() };
        for (field, votes) in parse::<Vec<(String, u64)>>(next())? {
            counts.albums.insert(read_album_field(&field)?, votes);
        }
        for (door, votes) in parse::<Vec<(String, u64)>>(next())? {
            counts.doors.insert(door.parse()?, votes);
        }
        snapshot.contests.insert(contest.clone(), counts);
    }
    for group in &known.groups {
        let counts = snapshot.contests.entry(group.contest.clone()).or_default();
        for (start, votes) in parse::<Vec<(i64, u64)>>(next())? {
            counts.windows.insert((group.window, UnixMillis(start)), votes);
        }
    }
    Ok(Some(snapshot))
}

fn parse<T: FromRedisValue>(value: redis::Value) -> Result<T, String> {
    T::from_redis_value(value).map_err(|error| error.to_string())
}
