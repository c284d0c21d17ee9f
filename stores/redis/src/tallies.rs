//! The tallies on Redis, behind the port `Tallies`. Each change is one script. Each tally, each list of albums and each
//! snapshot is read with one command or one transaction, so its counts are of one instant. The rates are read with
//! several commands.

use std::{collections::BTreeMap, fmt::Display};

use async_trait::async_trait;
use redis::{FromRedisValue, InfoDict, RedisResult, cmd, pipe};
use votes::{
    Added, AlbumVotes, BandVotes, ClearCondition, ConnectError, ContestCounts, ContestId, Counts, HealthDetails,
    Offset, Others, Partition, RateWindow, Snapshot, Store, StoreError, Tallies, TalliesPosition, Tally, UnixMillis,
    Window,
};

use crate::{
    address::Address,
    connection::Connection,
    keys::{Keys, WindowGroup, group_start, parse_album_field},
    scripts::{self, Cleared, KeyInventory},
    server,
    version_watch::VersionWatch,
};

/// The maximum number of hashes that one pipeline reads.
const MAX_HASHES_PER_PIPELINE: usize = 500;

/// The maximum number of attempts of a call that first reads the names of contests and window groups. An attempt fails
/// if new names appear meanwhile. While votes arrive, a new window group begins at least every 10 s.
const MAX_ATTEMPTS: usize = 10;

/// The error after [`MAX_ATTEMPTS`].
const NAMES_CHANGED: &str = "new contests or windows appeared during every attempt; try again";

/// The lifetime of the key that a health check writes, in milliseconds.
const CHECK_LIFETIME_MS: u64 = 60_000;

/// The version of the layout of the keys that this program writes and reads.
const LAYOUT_VERSION: &str = "1";

/// The tallies on a Redis server.
pub struct RedisTallies {
    connection: Connection,
    keys: Keys,
    version_watch: VersionWatch,
}

impl RedisTallies {
    /// Connects to the server of a URL. Checks the server's version and settings, that it accepts writes, and the
    /// layout of the keys.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        let connection =
            Connection::new(address.server, address.tls).map_err(|error| ConnectError::BadUrl(error.to_string()))?;
        let tallies = Self { connection, keys: Keys::new(&address.prefix), version_watch: VersionWatch::new() };
        let connect_error = |error| server::connect_error(&tallies.connection.to_string(), &error);
        if let Some(refusal) = server::refusal(&tallies.info().await.map_err(connect_error)?) {
            return Err(ConnectError::Refused(format!("{}: {refusal}", tallies.connection)));
        }
        tallies.write_and_read().await.map_err(connect_error)?;
        let version = tallies.ensure_layout_version().await.map_err(connect_error)?;
        if version != LAYOUT_VERSION {
            return Err(ConnectError::Refused(format!(
                "{}: the keys have layout version {version}, and this program reads version {LAYOUT_VERSION}: use the release \
                 that wrote them, or give another prefix",
                tallies.connection
            )));
        }
        Ok(tallies)
    }

    fn failed(&self, problem: impl Display) -> StoreError {
        StoreError::new("tallies", format!("{}: {problem}", self.connection))
    }

    async fn run<T: FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn run_pipeline<T: FromRedisValue>(&self, commands: &redis::Pipeline) -> RedisResult<T> {
        commands.query_async(&mut self.connection.clone()).await
    }

    async fn info(&self) -> RedisResult<InfoDict> {
        self.run(&cmd("INFO")).await
    }

    /// Writes a key and reads it, which fails if the server accepts no writes.
    async fn write_and_read(&self) -> RedisResult<()> {
        let key = self.keys.check();
        let () = self.run(cmd("SET").arg(&key).arg(UnixMillis::now().0).arg("PX").arg(CHECK_LIFETIME_MS)).await?;
        let _: i64 = self.run(cmd("GET").arg(&key)).await?;
        Ok(())
    }

    /// Writes the version of the layout if the server has none. Returns the version that the server then has.
    async fn ensure_layout_version(&self) -> RedisResult<String> {
        let key = self.keys.layout();
        let _: Option<String> = self.run(cmd("SET").arg(&key).arg(LAYOUT_VERSION).arg("NX")).await?;
        self.run(cmd("GET").arg(&key)).await
    }

    async fn version(&self) -> RedisResult<u64> {
        let version: Option<u64> = self.run(cmd("GET").arg(self.keys.version())).await?;
        Ok(version.unwrap_or(0))
    }

    /// Reads which contests and window groups exist. New names may appear at any time, so the caller must check in
    /// its own script or transaction that the inventory is still complete.
    async fn inventory(&self) -> Result<KeyInventory, StoreError> {
        let mut commands = pipe();
        self.add_inventory_commands(&mut commands);
        let names: Names = self.run_pipeline(&commands).await.map_err(|error| self.failed(error))?;
        parse_names(names).map_err(|problem| self.failed(problem))
    }

    /// Adds the commands whose replies are [`Names`].
    fn add_inventory_commands(&self, commands: &mut redis::Pipeline) {
        commands.cmd("SMEMBERS").arg(self.keys.contests());
        for window in Window::ALL {
            commands.cmd("ZRANGE").arg(self.keys.groups(window)).arg(0).arg(-1);
        }
    }

    /// Returns the window groups of one size that have windows in `[from, to)`, by time.
    async fn groups(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<WindowGroup>, StoreError> {
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(self.keys.groups(window)).arg(group_start(window, from).0).arg(format!("({}", to.0));
        let members: Vec<String> = self.run(&command).await.map_err(|error| self.failed(error))?;
        let groups: Result<Vec<WindowGroup>, String> =
            members.iter().map(|member| WindowGroup::parse_member(window, member)).collect();
        let mut groups = groups.map_err(|problem| self.failed(problem))?;
        groups.retain(|group| contest.is_none_or(|contest| *contest == group.contest));
        Ok(groups)
    }

    /// Reads all counts and positions of one instant. Returns `None` if the contests and groups are not exactly those
    /// of the inventory.
    async fn try_snapshot(&self, inventory: &KeyInventory) -> Result<Option<Snapshot>, StoreError> {
        let mut commands = pipe();
        self.add_inventory_commands(commands.atomic());
        commands.cmd("HGETALL").arg(self.keys.position());
        for contest in &inventory.contests {
            commands.cmd("HGETALL").arg(self.keys.tally(contest));
            commands.cmd("HGETALL").arg(self.keys.albums(contest));
            commands.cmd("HGETALL").arg(self.keys.producers(contest));
        }
        for group in &inventory.groups {
            commands.cmd("HGETALL").arg(self.keys.rate(group));
        }
        let replies: Vec<redis::Value> = self.run_pipeline(&commands).await.map_err(|error| self.failed(error))?;
        parse_snapshot(replies, inventory).map_err(|problem| self.failed(problem))
    }
}

/// The names of all contests, and the members of the `groups` keys: 10 ms, 1 s and 1 min.
type Names = (Vec<String>, Vec<String>, Vec<String>, Vec<String>);

fn parse_names((contests, centiseconds, seconds, minutes): Names) -> Result<KeyInventory, String> {
    let mut inventory = KeyInventory::default();
    for contest in contests {
        inventory.contests.push(contest.parse()?);
    }
    for (window, members) in Window::ALL.into_iter().zip([centiseconds, seconds, minutes]) {
        for member in members {
            inventory.groups.push(WindowGroup::parse_member(window, &member)?);
        }
    }
    inventory.contests.sort();
    inventory.groups.sort();
    Ok(inventory)
}

#[async_trait]
impl Store for RedisTallies {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.write_and_read().await.map_err(|error| self.failed(error))?;
        let info = self.info().await.map_err(|error| self.failed(error))?;
        match server::refusal(&info) {
            Some(refusal) => Err(self.failed(refusal)),
            None => Ok(server::details(&info)),
        }
    }
}

#[async_trait]
impl Tallies for RedisTallies {
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError> {
        let mut commands = pipe();
        commands.atomic();
        commands.cmd("HGET").arg(self.keys.position()).arg(partition.0);
        commands.cmd("HGET").arg(self.keys.last()).arg(partition.0);
        let (offset, last): (Option<u64>, Option<String>) =
            self.run_pipeline(&commands).await.map_err(|error| self.failed(error))?;
        let last = last.as_deref().map(scripts::decode_last).transpose();
        let last = last.map_err(|problem| self.failed(format_args!("{}: {problem}", self.keys.last())))?;
        Ok(TalliesPosition { offset: Offset(offset.unwrap_or(0)), last })
    }

    async fn add(
        &self,
        partition: Partition,
        from: Offset,
        to: TalliesPosition,
        counts: Counts,
    ) -> Result<Added, StoreError> {
        scripts::add(&mut self.connection.clone(), &self.keys, partition, (from, to), &counts)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn announce_recount(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let mut command = cmd("HSET");
        command.arg(self.keys.recount()).arg(partition.0).arg(to.0);
        self.run(&command).await.map_err(|error| self.failed(error))
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        let mut commands = pipe();
        commands.atomic();
        commands.cmd("GET").arg(self.keys.version());
        commands.cmd("HGETALL").arg(self.keys.tally(contest));
        commands.cmd("HGETALL").arg(self.keys.producers(contest));
        commands.cmd("HGETALL").arg(self.keys.position());
        commands.cmd("HGETALL").arg(self.keys.recount());
        let replies: TallyReplies = self.run_pipeline(&commands).await.map_err(|error| self.failed(error))?;
        Ok(build_tally(contest, top, replies))
    }

    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        let counts: Vec<(String, u64)> =
            self.run(cmd("HGETALL").arg(self.keys.albums(contest))).await.map_err(|error| self.failed(error))?;
        let mut albums = Vec::with_capacity(counts.len());
        for (field, votes) in counts {
            let (name, album) = parse_album_field(&field).map_err(|problem| self.failed(problem))?;
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
        for groups in self.groups(contest, window, from, to).await?.chunks(MAX_HASHES_PER_PIPELINE) {
            let mut commands = pipe();
            for group in groups {
                commands.cmd("HGETALL").arg(self.keys.rate(group));
            }
            let hashes: Vec<Vec<(i64, u64)>> =
                self.run_pipeline(&commands).await.map_err(|error| self.failed(error))?;
            for (start, votes) in hashes.into_iter().flatten().filter(|(start, _)| (from.0..to.0).contains(start)) {
                *windows.entry(start).or_default() += votes;
            }
        }
        Ok(windows.into_iter().map(|(start, votes)| RateWindow { start: UnixMillis(start), votes }).collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let inventory = self.inventory().await?;
            if let Some(snapshot) = self.try_snapshot(&inventory).await? {
                return Ok(snapshot);
            }
        }
        Err(self.failed(NAMES_CHANGED))
    }

    async fn changed(&self, version: u64) -> Result<u64, StoreError> {
        self.version_watch.wait(version, || self.version()).await.map_err(|error| self.failed(error))
    }

    async fn clear(&self, condition: ClearCondition) -> Result<bool, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let inventory = self.inventory().await?;
            let mut connection = self.connection.clone();
            let cleared = scripts::clear(&mut connection, &self.keys, condition, &inventory).await;
            match cleared.map_err(|error| self.failed(error))? {
                Cleared::Yes => return Ok(true),
                Cleared::ConditionFails => return Ok(false),
                Cleared::NamesDiffer => {}
            }
        }
        Err(self.failed(NAMES_CHANGED))
    }
}

/// The replies that a tally is built from: version, bands, producers, positions, announced recounts.
type TallyReplies = (Option<u64>, Vec<(String, u64)>, BTreeMap<String, u64>, BTreeMap<u16, u64>, BTreeMap<u16, u64>);

fn build_tally(contest: &ContestId, top: usize, replies: TallyReplies) -> Tally {
    let (version, mut counts, producers, positions, recounts) = replies;
    let total: u64 = counts.iter().map(|(_, votes)| votes).sum();
    let share = |votes: u64| if total == 0 { 0.0 } else { votes as f64 / total as f64 };
    let by_votes = |a: &(String, u64), b: &(String, u64)| (b.1, &a.0).cmp(&(a.1, &b.0));
    // A contest without a list of candidates may have a million bands, so only the leading bands are sorted.
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
        producers,
        processed: positions.values().sum(),
        recounting: recounts.iter().any(|(partition, to)| positions.get(partition).unwrap_or(&0) < to),
    }
}

/// Parses the replies of a snapshot. Returns `None` if the contests and groups are not exactly those of the inventory.
fn parse_snapshot(replies: Vec<redis::Value>, inventory: &KeyInventory) -> Result<Option<Snapshot>, String> {
    let mut replies = replies.into_iter();
    let names: Vec<redis::Value> = replies.by_ref().take(1 + Window::ALL.len()).collect();
    if parse_names(parse(redis::Value::Array(names))?)? != *inventory {
        return Ok(None);
    }
    let mut next = || replies.next().unwrap_or_default();
    let positions: Vec<(u16, u64)> = parse(next())?;
    let mut snapshot = Snapshot {
        positions: positions.into_iter().map(|(partition, offset)| (Partition(partition), Offset(offset))).collect(),
        contests: BTreeMap::new(),
    };
    for contest in &inventory.contests {
        let mut counts = ContestCounts { bands: parse(next())?, ..ContestCounts::default() };
        for (field, votes) in parse::<Vec<(String, u64)>>(next())? {
            counts.albums.insert(parse_album_field(&field)?, votes);
        }
        for (producer, votes) in parse::<Vec<(String, u64)>>(next())? {
            counts.producers.insert(producer.parse()?, votes);
        }
        snapshot.contests.insert(contest.clone(), counts);
    }
    for group in &inventory.groups {
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
