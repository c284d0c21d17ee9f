//! Stores in memory: simple, but atomic, and with switches for what can go wrong.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use backends::{Reading, Stores};
use results::Sources;
use serde_json::json;
use service::{Config, Health, health::Weight, token::ReadToken};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::sleep,
};
use votes::{
    Added, AlbumVotes, Answers, Archive, Assignment, BandVotes, Batch, Bounds, ContestId, Contests, Counts, Dataset,
    DatasetId, DatasetRow, Datasets, DeadLetter, Door, DoorKind, Facts, Found, KeptAnswer, LoggedVote, Lookup, Offset,
    Others, Page, Partition, Place, RateWindow, Retention, Snapshot, Store, StoreError, Table, Tallies, Tally,
    UnixMillis, Vote, VoteFeed, VoteRequest, VoterSecret, Window,
    query::{Evaluated, Query, Row, Total, evaluate},
};

/// How many partitions the log has.
pub(crate) const PARTITIONS: u16 = 3;

/// All stores of a test.
pub(crate) struct Memory {
    data: Mutex<Data>,
    folder: TempDir,
    tallies: watch::Sender<State>,
    /// Whether the archive fails.
    pub(crate) book_is_down: AtomicBool,
    /// Whether every question would have to look at too many votes.
    pub(crate) book_is_large: AtomicBool,
    /// Whether the place of kept answers fails.
    pub(crate) answers_are_down: AtomicBool,
    /// How many answers were kept.
    pub(crate) kept: watch::Sender<usize>,
    /// Questions to the book take one of these each, and wait while there is none.
    pub(crate) book_gate: Semaphore,
    /// How many questions have come to the book.
    pub(crate) book_questions: watch::Sender<usize>,
    /// Whether the log fails.
    pub(crate) log_is_down: AtomicBool,
    /// How many bytes longer a tally shows each band's name: what a slow reader does not read then soon fills every buffer.
    pub(crate) padding: AtomicUsize,
    /// How long reading a tally takes, in milliseconds.
    pub(crate) reading_takes: AtomicU64,
    /// When readings of a tally began and ended.
    pub(crate) readings: Mutex<Vec<(Instant, Instant)>>,
    /// How often albums, rates and votes were asked for.
    pub(crate) questions: AtomicUsize,
    asked: Notify,
}

#[derive(Clone, Copy, Default)]
struct State {
    version: u64,
    is_down: bool,
}

#[derive(Default)]
struct Data {
    counts: Counts,
    book: Vec<LoggedVote>,
    datasets: BTreeMap<DatasetId, (Dataset, Vec<Row>)>,
    answers: HashMap<String, KeptAnswer>,
    popular: Vec<(String, f64)>,
    ends: [u64; PARTITIONS as usize],
    processed: u64,
    /// Of the first partition.
    uncounted: u64,
}

/// A vote for a band in the contest `bands`.
pub(crate) fn vote_for(name: &str) -> VoteRequest {
    VoteRequest { name: Some(name.to_owned()), ..VoteRequest::default() }
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            data: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
            tallies: watch::Sender::new(State::default()),
            book_is_down: false.into(),
            book_is_large: false.into(),
            answers_are_down: false.into(),
            kept: watch::Sender::new(0),
            book_gate: Semaphore::new(1_000),
            book_questions: watch::Sender::new(0),
            log_is_down: false.into(),
            padding: 0.into(),
            reading_takes: 0.into(),
            readings: Mutex::default(),
            questions: 0.into(),
            asked: Notify::new(),
        })
    }

    pub(crate) async fn sources(self: &Arc<Self>, contests: &[&str], token: Option<ReadToken>) -> Sources {
        let contests = contests.iter().map(|id| (id.parse().unwrap(), votes::Contest::default())).collect();
        let contests = Arc::new(Contests::new(contests));
        // Importing is tried on stores of its own, which are one folder.
        let embedded =
            json!({ "data": self.folder.path(), "queue": "embedded:", "tally": "embedded:", "book": "embedded:" });
        let stores = Stores::open(&Config::load(None, embedded, 0).unwrap(), &Health::default()).unwrap();
        let queue = stores.queue(Weight::Vital).await.unwrap();
        Sources {
            importing: stores.importing(Weight::Vital).await.unwrap(),
            door: Door::new(DoorKind::Import, Arc::clone(&contests), None, queue),
            contests,
            tallies: Arc::clone(self) as Arc<dyn Tallies>,
            reading: Reading {
                pool: Arc::clone(self) as Arc<dyn Archive>,
                direct: Arc::clone(self) as Arc<dyn Archive>,
                datasets: Arc::clone(self) as Arc<dyn Datasets>,
                answers: Arc::clone(self) as Arc<dyn Answers>,
            },
            feed: Arc::clone(self) as Arc<dyn VoteFeed>,
            token,
        }
    }

    /// Accepts and counts one vote for each name; returns the version of the tallies.
    pub(crate) fn count(&self, names: &[&str]) -> u64 {
        self.count_votes(names.iter().map(|name| (vote_for(name), UnixMillis::now())).collect())
    }

    /// Accepts and counts votes; returns the version of the tallies.
    pub(crate) fn count_votes(&self, votes: Vec<(VoteRequest, UnixMillis)>) -> u64 {
        let ids = votes.iter().map(|(request, _)| request.contest.clone().unwrap_or("bands".to_owned()));
        let contests = Contests::new(ids.map(|id| (id.parse().unwrap(), votes::Contest::default())).collect());
        let secret = VoterSecret::new(&[7; 32]).unwrap();
        let mut data = self.data();
        for (request, at) in votes {
            let vote = Vote::admit(request, &contests, Some(&secret), DoorKind::Rest, at).unwrap();
            let partition = data.processed % u64::from(PARTITIONS);
            let end = &mut data.ends[usize::try_from(partition).unwrap()];
            let place = Place { partition: Partition(u16::try_from(partition).unwrap()), offset: Offset(*end) };
            *end += 1;
            let logged = LoggedVote { place, vote };
            data.counts.merge(Counts::of([&logged]));
            data.book.push(logged);
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

    /// Counts what was accepted so far, as repeats of others.
    pub(crate) fn catch_up(&self) {
        self.data().uncounted = 0;
    }

    /// Forgets how far it has counted.
    pub(crate) fn lose_positions(&self) {
        let mut data = self.data();
        data.uncounted = data.ends[0];
    }

    /// Forgets the newest records of the log, as a log does whose last writes were not seen yet.
    pub(crate) fn lag(&self, records: u64) {
        let end = &mut self.data().ends[0];
        *end = end.saturating_sub(records);
    }

    /// Makes the tallies fail, or work again.
    pub(crate) fn set_tallies_down(&self, is_down: bool) {
        self.tallies.send_modify(|state| state.is_down = is_down);
    }

    /// Waits until a tally has been read so many times.
    pub(crate) async fn wait_for_readings(&self, count: usize) {
        loop {
            let asked = self.asked.notified();
            if self.readings.lock().unwrap().len() >= count {
                return;
            }
            asked.await;
        }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }

    fn check_answers(&self) -> Result<(), StoreError> {
        if self.answers_are_down.load(Ordering::Relaxed) { Err(StoreError::new("answers", "down")) } else { Ok(()) }
    }

    fn check_tallies(&self) -> Result<(), StoreError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        if self.tallies.borrow().is_down { Err(StoreError::new("tallies", "secret words of a driver")) } else { Ok(()) }
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
            doors: counts.doors.into_iter().map(|(door, votes)| (door.to_string(), votes)).collect(),
            processed: data.processed,
        }
    }
}

#[async_trait]
impl Tallies for Memory {
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.check_tallies()?;
        let data = self.data();
        let index = usize::from(partition.0);
        Ok(Offset(data.ends[index].saturating_sub(if index == 0 { data.uncounted } else { 0 })))
    }

    async fn add(&self, _: Partition, _: Offset, _: Offset, _: Counts) -> Result<Added, StoreError> {
        unimplemented!("results don't count")
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        let begun = Instant::now();
        let takes = self.reading_takes.load(Ordering::Relaxed);
        if takes > 0 {
            sleep(Duration::from_millis(takes)).await;
        }
        let tally = self.check_tallies().map(|()| self.read_tally(contest, top));
        self.readings.lock().unwrap().push((begun, Instant::now()));
        self.asked.notify_waiters();
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

    async fn changed(&self, seen: u64) -> Result<u64, StoreError> {
        let mut tallies = self.tallies.subscribe();
        let state = *tallies.wait_for(|state| state.is_down || state.version != seen).await.unwrap();
        if state.is_down { Err(StoreError::new("tallies", "down")) } else { Ok(state.version) }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        unimplemented!("results don't count")
    }
}

#[async_trait]
impl Store for Memory {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.check_tallies().map(|()| Facts::new())
    }
}

#[async_trait]
impl Archive for Memory {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        self.book_questions.send_modify(|questions| *questions += 1);
        self.book_gate.acquire().await.unwrap().forget();
        if self.book_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::new("archive", "secret words of a driver"));
        }
        if self.book_is_large.load(Ordering::Relaxed) && !query.allow_scan {
            return Ok(Found::TooMuch(100_000));
        }
        let rows: Vec<Row> = match table {
            Table::Votes => self.data().book.iter().map(Row::from).collect(),
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
        let (dataset, kept) = data.datasets.get_mut(&dataset.id).unwrap();
        kept.extend(rows.into_iter().map(|row| Row::of_dataset(row.number, row.cells)));
        dataset.rows = kept.len() as u64;
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
impl Answers for Memory {
    async fn look_up(&self, question: &str) -> Result<Lookup, StoreError> {
        self.check_answers()?;
        let version = self.tallies.borrow().version;
        Ok(Lookup { version, kept: self.data().answers.get(question).cloned() })
    }

    async fn keep(&self, question: &str, answer: &KeptAnswer, _: Duration) -> Result<(), StoreError> {
        self.check_answers()?;
        self.data().answers.insert(question.to_owned(), answer.clone());
        self.kept.send_modify(|kept| *kept += 1);
        Ok(())
    }

    async fn prolong(&self, _: &str, _: Duration) -> Result<(), StoreError> {
        self.check_answers()
    }

    async fn forget(&self) -> Result<u64, StoreError> {
        self.check_answers()?;
        Ok(self.data().answers.drain().count() as u64)
    }

    async fn note_popular(&self, questions: &[(String, f64)]) -> Result<(), StoreError> {
        self.check_answers()?;
        self.data().popular = questions.to_vec();
        Ok(())
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        self.check_answers()?;
        Ok(self.data().popular.clone())
    }
}

#[async_trait]
impl VoteFeed for Memory {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        if self.log_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::new("vote log", "secret words of a driver"));
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

    async fn expire(&self, _: Partition, _: Retention, _: Offset) -> Result<u64, StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn bury(&self, _: &[DeadLetter]) -> Result<(), StoreError> {
        unimplemented!("results don't read the log")
    }

    async fn dead(&self, _: Partition, _: Offset, _: Offset) -> Result<Vec<DeadLetter>, StoreError> {
        unimplemented!("results don't read the log")
    }
}
