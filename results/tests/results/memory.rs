//! Stores in memory for tests. They are simple and atomic, and have switches for failures.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use query::{
    CacheLookup, CachedResponse, Dataset, DatasetId, DatasetRow, Datasets, Evaluated, Found, Page, Query, QueryStore,
    ResponseCache, Row, Table, Total, evaluate,
};
use results::Sources;
use serde_json::json;
use service::{Config, Health, health::Criticality, token::ReadToken};
use stores::{QueryPorts, Stores};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::sleep,
};
use votes::{
    Added, AlbumVotes, Assignment, BandVotes, Batch, Bounds, ClearCondition, ContestId, Contests, Counts, DeadLetter,
    DeadLetterReader, HealthDetails, Ingest, LogPosition, LogReader, LoggedVote, Offset, Others, Partition,
    ProducerKind, RateWindow, Retention, Snapshot, Store, StoreError, Tallies, TalliesPosition, Tally, UnixMillis,
    Vote, VoteRequest, VoterSecret, Window,
};

/// The number of partitions of the log.
pub(crate) const PARTITIONS: u16 = 3;

/// All stores of a test.
pub(crate) struct Memory {
    data: Mutex<Data>,
    folder: TempDir,
    tallies: watch::Sender<State>,
    /// Whether the query store fails.
    pub(crate) query_store_is_down: AtomicBool,
    /// Whether every query would examine too many votes.
    pub(crate) query_store_is_large: AtomicBool,
    /// Whether the response cache fails.
    pub(crate) response_cache_is_down: AtomicBool,
    /// The number of responses that were cached.
    pub(crate) cached: watch::Sender<usize>,
    /// Each call of the query store takes a permit. Without a permit, the call waits.
    pub(crate) query_store_gate: Semaphore,
    /// The number of calls of the query store.
    pub(crate) query_store_calls: watch::Sender<usize>,
    /// Whether the log fails.
    pub(crate) log_is_down: AtomicBool,
    /// The number of bytes that are added to each band's name in a tally. With many bytes, the tallies that a slow
    /// client does not read fill all buffers.
    pub(crate) padding: AtomicUsize,
    /// The time that the read of a tally takes, in milliseconds.
    pub(crate) read_delay_ms: AtomicU64,
    /// The times at which each read of a tally began and ended.
    pub(crate) reads: Mutex<Vec<(Instant, Instant)>>,
    /// The number of calls of the tallies.
    pub(crate) tallies_calls: AtomicUsize,
    /// Notified after each read of a tally.
    tally_read: Notify,
}

#[derive(Clone, Copy, Default)]
struct State {
    version: u64,
    is_down: bool,
}

#[derive(Default)]
struct Data {
    counts: Counts,
    ledger: Vec<LoggedVote>,
    datasets: BTreeMap<DatasetId, (Dataset, Vec<Row>)>,
    response_cache: HashMap<String, CachedResponse>,
    popular: Vec<(String, f64)>,
    ends: [u64; PARTITIONS as usize],
    processed: u64,
    /// The number of records of the first partition that are not counted.
    uncounted: u64,
}

/// Returns a vote for a band in the contest `bands`.
pub(crate) fn vote_for(name: &str) -> VoteRequest {
    VoteRequest { name: Some(name.to_owned()), ..VoteRequest::default() }
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            data: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
            tallies: watch::Sender::new(State::default()),
            query_store_is_down: false.into(),
            query_store_is_large: false.into(),
            response_cache_is_down: false.into(),
            cached: watch::Sender::new(0),
            query_store_gate: Semaphore::new(1_000),
            query_store_calls: watch::Sender::new(0),
            log_is_down: false.into(),
            padding: 0.into(),
            read_delay_ms: 0.into(),
            reads: Mutex::default(),
            tallies_calls: 0.into(),
            tally_read: Notify::new(),
        })
    }

    pub(crate) async fn sources(self: &Arc<Self>, contests: &[&str], token: Option<ReadToken>) -> Sources {
        let contests = contests.iter().map(|id| (id.parse().unwrap(), votes::Contest::default())).collect();
        let contests = Arc::new(Contests::new(contests));
        // Imports use embedded stores in a folder.
        let embedded = json!({ "data": self.folder.path(), "vote_log": "embedded:", "tallies": "embedded:", "ledger": "embedded:" });
        let stores = Stores::open(&Config::load(None, embedded, 0).unwrap(), &Health::default()).unwrap();
        let log_writer = stores.log_writer(Criticality::Required).await.unwrap();
        Sources {
            import_ports: stores.import_ports(Criticality::Required).await.unwrap(),
            ingest: Ingest::new(ProducerKind::Import, Arc::clone(&contests), None, log_writer),
            contests,
            tallies: Arc::clone(self) as Arc<dyn Tallies>,
            query_ports: QueryPorts {
                pool: Arc::clone(self) as Arc<dyn QueryStore>,
                direct: Arc::clone(self) as Arc<dyn QueryStore>,
                datasets: Arc::clone(self) as Arc<dyn Datasets>,
                response_cache: Arc::clone(self) as Arc<dyn ResponseCache>,
            },
            log_reader: Arc::clone(self) as Arc<dyn LogReader>,
            token,
        }
    }

    /// Accepts and counts one vote for each name. Returns the version of the tallies.
    pub(crate) fn count(&self, names: &[&str]) -> u64 {
        self.count_votes(names.iter().map(|name| (vote_for(name), UnixMillis::now())).collect())
    }

    /// Accepts and counts votes. Returns the version of the tallies.
    pub(crate) fn count_votes(&self, votes: Vec<(VoteRequest, UnixMillis)>) -> u64 {
        let ids = votes.iter().map(|(request, _)| request.contest.clone().unwrap_or("bands".to_owned()));
        let contests = Contests::new(ids.map(|id| (id.parse().unwrap(), votes::Contest::default())).collect());
        let secret = VoterSecret::new(&[7; 32]).unwrap();
        let mut data = self.data();
        for (request, at) in votes {
            let vote = Vote::admit(request, &contests, Some(&secret), ProducerKind::Rest, at).unwrap();
            let partition = data.processed % u64::from(PARTITIONS);
            let end = &mut data.ends[usize::try_from(partition).unwrap()];
            let position =
                LogPosition { partition: Partition(u16::try_from(partition).unwrap()), offset: Offset(*end) };
            *end += 1;
            let logged = LoggedVote { position, vote };
            data.counts.merge(Counts::of([&logged]));
            data.ledger.push(logged);
            data.processed += 1;
        }
        let mut version = 0;
        self.tallies.send_modify(|state| {
            state.version += 1;
            version = state.version;
        });
        version
    }

    /// Accepts votes that are not counted.
    pub(crate) fn accept(&self, votes: u64) {
        let mut data = self.data();
        data.ends[0] += votes;
        data.uncounted += votes;
    }

    /// Processes the votes that were accepted so far, as duplicates.
    pub(crate) fn catch_up(&self) {
        self.data().uncounted = 0;
    }

    /// Resets the position of the tallies in the first partition, as if the tallies had lost data.
    pub(crate) fn lose_positions(&self) {
        let mut data = self.data();
        data.uncounted = data.ends[0];
    }

    /// Hides the newest records of the first partition, as if the last writes to the log were not visible yet.
    pub(crate) fn hide_newest(&self, records: u64) {
        let end = &mut self.data().ends[0];
        *end = end.saturating_sub(records);
    }

    /// Makes the tallies fail, or work again.
    pub(crate) fn set_tallies_down(&self, is_down: bool) {
        self.tallies.send_modify(|state| state.is_down = is_down);
    }

    /// Waits until tallies have been read this many times.
    pub(crate) async fn wait_for_reads(&self, count: usize) {
        loop {
            let tally_read = self.tally_read.notified();
            if self.reads.lock().unwrap().len() >= count {
                return;
            }
            tally_read.await;
        }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }

    fn check_response_cache(&self) -> Result<(), StoreError> {
        if self.response_cache_is_down.load(Ordering::Relaxed) {
            Err(StoreError::new("response cache", "down"))
        } else {
            Ok(())
        }
    }

    fn check_tallies(&self) -> Result<(), StoreError> {
        self.tallies_calls.fetch_add(1, Ordering::Relaxed);
        if self.tallies.borrow().is_down { Err(StoreError::new("tallies", "secret of a driver")) } else { Ok(()) }
    }

    fn read_tally(&self, contest: &ContestId, top: usize) -> Tally {
        let data = self.data();
        let counts = data.counts.contests.get(contest).cloned().unwrap_or_default();
        let total = counts.total();
        let mut bands: Vec<_> = counts.bands.into_iter().collect();
        bands.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let others = bands.split_off(top.min(bands.len()));
        let padding = "~".repeat(self.padding.load(Ordering::Relaxed));
        let band = |(name, votes): (String, u64)| BandVotes {
            name: name + &padding,
            votes,
            share: votes as f64 / total as f64,
        };
        Tally {
            contest: contest.clone(),
            total,
            version: self.tallies.borrow().version,
            bands: bands.into_iter().map(band).collect(),
            others: Others { bands: others.len() as u64, votes: others.iter().map(|(_, votes)| votes).sum() },
            producers: counts.producers.into_iter().map(|(producer, votes)| (producer.to_string(), votes)).collect(),
            processed: data.processed,
            recounting: false,
        }
    }
}

#[async_trait]
impl Tallies for Memory {
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError> {
        self.check_tallies()?;
        let data = self.data();
        let index = usize::from(partition.0);
        Ok(Offset(data.ends[index].saturating_sub(if index == 0 { data.uncounted } else { 0 })).into())
    }

    async fn add(&self, _: Partition, _: Offset, _: TalliesPosition, _: Counts) -> Result<Added, StoreError> {
        unimplemented!("results don't count")
    }

    async fn announce_recount(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        unimplemented!("results don't count")
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        let begun = Instant::now();
        let delay = self.read_delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        let tally = self.check_tallies().map(|()| self.read_tally(contest, top));
        self.reads.lock().unwrap().push((begun, Instant::now()));
        self.tally_read.notify_waiters();
        tally
    }

    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        self.check_tallies()?;
        let counts = self.data().counts.contests.get(contest).cloned().unwrap_or_default();
        let mut albums: Vec<_> =
            counts.albums.into_iter().map(|((name, album), votes)| AlbumVotes { name, album, votes }).collect();
        albums.sort_by(|a, b| b.votes.cmp(&a.votes).then_with(|| a.album.cmp(&b.album)));
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
        self.check_tallies()?;
        let mut windows = std::collections::BTreeMap::<UnixMillis, u64>::new();
        for (id, counts) in &self.data().counts.contests {
            if contest.is_none_or(|contest| contest == id) {
                for ((size, start), votes) in &counts.windows {
                    if *size == window && (from..to).contains(start) {
                        *windows.entry(*start).or_default() += votes;
                    }
                }
            }
        }
        Ok(windows.into_iter().map(|(start, votes)| RateWindow { start, votes }).collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        unimplemented!("results don't audit")
    }

    async fn changed(&self, version: u64) -> Result<u64, StoreError> {
        let mut tallies = self.tallies.subscribe();
        let state = *tallies.wait_for(|state| state.is_down || state.version != version).await.unwrap();
        if state.is_down { Err(StoreError::new("tallies", "down")) } else { Ok(state.version) }
    }

    async fn clear(&self, _: ClearCondition) -> Result<bool, StoreError> {
        unimplemented!("results don't count")
    }
}

#[async_trait]
impl Store for Memory {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.check_tallies().map(|()| HealthDetails::new())
    }
}

#[async_trait]
impl QueryStore for Memory {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        self.query_store_calls.send_modify(|queries| *queries += 1);
        self.query_store_gate.acquire().await.unwrap().forget();
        if self.query_store_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::new("query store", "secret of a driver"));
        }
        if self.query_store_is_large.load(Ordering::Relaxed) && !query.allow_scan {
            return Ok(Found::TooManyRows(100_000));
        }
        let rows: Vec<Row> = match table {
            Table::Votes => self.data().ledger.iter().map(Row::from).collect(),
            Table::Dataset(dataset) => self.data().datasets[&dataset.id].1.clone(),
        };
        let Evaluated { rows, total, has_more } = evaluate(query, &table.schema(), &rows);
        Ok(Found::Page(Page { rows, total: query.with_total.then_some(Total::counted(total)), has_more }))
    }
}

#[async_trait]
impl Datasets for Memory {
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError> {
        let dataset = Dataset::new(id.clone(), 1, columns);
        self.data().datasets.insert(id.clone(), (dataset.clone(), Vec::new()));
        Ok(Some(dataset))
    }

    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError> {
        let mut data = self.data();
        let (dataset, stored) = data.datasets.get_mut(&dataset.id).unwrap();
        stored.extend(rows.into_iter().map(|row| Row::of_dataset(row.number, row.cells)));
        dataset.rows = stored.len() as u64;
        dataset.version += 1;
        Ok(true)
    }

    async fn finish(&self, _: &Dataset) -> Result<bool, StoreError> {
        unimplemented!("results don't import")
    }

    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        Ok(self.data().datasets.get(id).map(|(dataset, _)| dataset.clone()))
    }

    async fn list(&self) -> Result<Vec<Dataset>, StoreError> {
        Ok(self.data().datasets.values().map(|(dataset, _)| dataset.clone()).collect())
    }

    async fn remove(&self, _: &DatasetId) -> Result<bool, StoreError> {
        unimplemented!("results don't import")
    }
}

#[async_trait]
impl ResponseCache for Memory {
    async fn get(&self, query: &str) -> Result<CacheLookup, StoreError> {
        self.check_response_cache()?;
        let version = self.tallies.borrow().version;
        Ok(CacheLookup { version, cached: self.data().response_cache.get(query).cloned() })
    }

    async fn put(&self, query: &str, response: &CachedResponse, _: Duration) -> Result<(), StoreError> {
        self.check_response_cache()?;
        self.data().response_cache.insert(query.to_owned(), response.clone());
        self.cached.send_modify(|cached| *cached += 1);
        Ok(())
    }

    async fn extend(&self, _: &str, _: Duration) -> Result<(), StoreError> {
        self.check_response_cache()
    }

    async fn clear(&self) -> Result<u64, StoreError> {
        self.check_response_cache()?;
        Ok(self.data().response_cache.drain().count() as u64)
    }

    async fn put_popular(&self, queries: &[(String, f64)]) -> Result<(), StoreError> {
        self.check_response_cache()?;
        self.data().popular = queries.to_vec();
        Ok(())
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        self.check_response_cache()?;
        Ok(self.data().popular.clone())
    }
}

#[async_trait]
impl LogReader for Memory {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        if self.log_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::new("vote log", "secret of a driver"));
        }
        Ok(Bounds { start: Offset(0), end: Offset(self.data().ends[usize::from(partition.0)]) })
    }

    async fn seek(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn next_batch(&self, _: Partition, _: usize) -> Result<Batch, StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn commit(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn expire(&self, _: &[(Partition, Offset)], _: Retention, _: UnixMillis) -> Result<u64, StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn send_to_dead_letters(&self, _: &[DeadLetter]) -> Result<(), StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn dead_letters(&self, _: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        unimplemented!("results don't read the log")
    }
}
