//! The clients: they vote, and send a vote again with its own `vote_id` until they are told what became of it.
//!
//! Some are impatient: they give up after a moment and send again while the first is still on its way. Some send what was
//! acknowledged long ago once more. In one of the contests many vote twice. The next attempt may go to any door, of either
//! protocol.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use proto::v1::{CastVoteRequest, vote_service_client::VoteServiceClient};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use super::{
    processes::Addresses,
    told::{Cast, ONCE, OPEN, Receipt, Told},
};

/// How long a patient client waits for an answer. Doors answer within two seconds while they live.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client goes on trying once nothing is down any more. Before that it never gives up.
const PERSISTENCE: Duration = Duration::from_mins(1);

/// How many clients there are: enough that a few slow answers don't hold up the rate.
const CLIENTS: u32 = 32;

/// Voters of [`ONCE`]: few enough that some vote twice.
const VOTERS: u32 = 5_000;

/// The bands of [`OPEN`] have names that try the stores' encodings.
const BANDS: [(&str, &str, u32); 8] = [
    ("Queen", "Jazz", 1978),
    ("Pink Floyd", "The Wall", 1979),
    ("AC/DC", "Back in Black", 1980),
    ("Björk", "Homogenic", 1997),
    ("東京事変", "教育", 2004),
    ("Guns N' Roses", "\"Use\" Your {Illusion}", 1991),
    ("$name.with|signs", "[\"x\",\"y\"]", 2001),
    ("🎸", "🥁:🎹", 2020),
];

/// The candidates of [`ONCE`].
pub const CANDIDATES: [&str; 3] = ["Queen", "Björk", "東京事変"];

/// All clients, while they vote.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    casts: Mutex<Vec<Cast>>,
    /// Ballots that were sent at least once, in [`OPEN`] and in [`ONCE`] (where two may be of one voter).
    sent: [AtomicUsize; 2],
    over_since: OnceLock<Instant>,
    answers: Mutex<BTreeMap<String, usize>>,
    /// The slowest answer of a door that lived to give it.
    slowest: Mutex<Duration>,
    problems: Mutex<Vec<String>>,
}

/// What an attempt came to.
enum Answer {
    Receipt(Receipt),
    /// Not now; the text is for the statistics.
    Again(String),
    /// Never.
    Refused(String),
}

impl Clients {
    /// Starts to vote, at `rate` votes a second altogether.
    pub fn start(addresses: &Addresses, rate: f64, seed: u64, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            casts: Mutex::default(),
            sent: Default::default(),
            over_since: OnceLock::new(),
            answers: Mutex::default(),
            slowest: Mutex::default(),
            problems: Mutex::default(),
        });
        let channels: Vec<Channel> = {
            // Connections are made within a runtime, when they are needed.
            let _guard = runtime.enter();
            let lazy =
                |address: &SocketAddr| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
            addresses.grpc.iter().map(lazy).collect()
        };
        let every = Duration::from_secs_f64(f64::from(CLIENTS) / rate);
        let threads = (0..CLIENTS).map(|number| {
            let client = Client {
                shared: Arc::clone(&shared),
                random: StdRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
                rest: addresses.rest.clone(),
                agent: ureq::Agent::config_builder().http_status_as_error(false).build().into(),
                grpc: channels.iter().cloned().map(VoteServiceClient::new).collect(),
                runtime: runtime.clone(),
            };
            thread::spawn(move || client.vote(every))
        });
        Self { threads: threads.collect(), shared }
    }

    /// The most votes that a contest can have now.
    pub fn sent(&self, contest: &str) -> usize {
        self.shared.sent[usize::from(contest == ONCE)].load(Ordering::SeqCst)
    }

    /// Lets every client hear of its last vote, and tells what all were told.
    pub fn finish(self, secret: Vec<u8>) -> Outcome {
        self.shared.over_since.get_or_init(Instant::now);
        self.threads.into_iter().for_each(|client| client.join().unwrap());
        let shared = Arc::into_inner(self.shared).unwrap();
        Outcome {
            told: Told { casts: shared.casts.into_inner().unwrap(), secret },
            answers: shared.answers.into_inner().unwrap(),
            slowest: shared.slowest.into_inner().unwrap(),
            problems: shared.problems.into_inner().unwrap(),
        }
    }
}

/// What voting came to.
pub struct Outcome {
    pub told: Told,
    /// How often each kind of answer was given.
    pub answers: BTreeMap<String, usize>,
    pub slowest: Duration,
    /// Answers that break the interface.
    pub problems: Vec<String>,
}

struct Client {
    shared: Arc<Shared>,
    random: StdRng,
    rest: Vec<SocketAddr>,
    agent: ureq::Agent,
    grpc: Vec<VoteServiceClient<Channel>>,
    runtime: Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    fn vote(mut self, every: Duration) {
        let mut due = Instant::now() + every.mul_f64(self.random.random());
        while self.shared.over_since.get().is_none() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Votes that fell due while a door was down are not made up for.
            due = (due + every).max(Instant::now());
            let cast = if self.random.random_bool(0.1) { self.old_cast() } else { None };
            let cast = cast.unwrap_or_else(|| self.new_cast());
            self.send(cast);
        }
    }

    /// A vote that was acknowledged before.
    fn old_cast(&mut self) -> Option<usize> {
        let casts = lock(&self.shared.casts);
        let index = (!casts.is_empty()).then(|| self.random.random_range(0..casts.len()))?;
        (!casts[index].receipts.is_empty()).then_some(index)
    }

    fn new_cast(&mut self) -> usize {
        let (name, album, year) = BANDS[self.random.random_range(0..BANDS.len())];
        let has_more = self.random.random_bool(0.5);
        let mut cast = Cast {
            id: Uuid::now_v7(),
            contest: OPEN,
            name: name.to_owned(),
            album: has_more.then(|| album.to_owned()),
            year: has_more.then_some(year),
            voter: None,
            attempts: 0,
            receipts: Vec::new(),
            refused: None,
        };
        if self.random.random_bool(0.2) {
            cast.contest = ONCE;
            CANDIDATES[self.random.random_range(0..CANDIDATES.len())].clone_into(&mut cast.name);
            cast.voter = Some(format!("voter {}", self.random.random_range(0..VOTERS)));
        }
        self.shared.sent[usize::from(cast.contest == ONCE)].fetch_add(1, Ordering::SeqCst);
        let mut casts = lock(&self.shared.casts);
        casts.push(cast);
        casts.len() - 1
    }

    /// Sends a vote until it is told what became of it.
    fn send(&mut self, index: usize) {
        while self.shared.over_since.get().is_none_or(|since| since.elapsed() < PERSISTENCE) {
            let cast = {
                let cast = &mut lock(&self.shared.casts)[index];
                cast.attempts += 1;
                cast.clone()
            };
            let is_impatient = self.random.random_bool(0.03);
            let patience = if is_impatient { Duration::from_millis(self.random.random_range(1..30)) } else { PATIENCE };
            let sent = Instant::now();
            let number = self.random.random_range(0..self.rest.len() + self.grpc.len());
            let answer = if number < self.rest.len() {
                self.send_rest(&cast, number, patience)
            } else {
                self.send_grpc(&cast, number - self.rest.len(), patience)
            };
            let kind = match &answer {
                Answer::Receipt(receipt) => format!("{} receipt", receipt.door),
                Answer::Again(_) if is_impatient => "given up by an impatient client".to_owned(),
                Answer::Again(kind) | Answer::Refused(kind) => kind.clone(),
            };
            if kind.ends_with("receipt") || kind.starts_with("503") || kind.ends_with("ed: door") {
                let mut slowest = lock(&self.shared.slowest);
                *slowest = (*slowest).max(sent.elapsed());
            }
            *lock(&self.shared.answers).entry(kind).or_default() += 1;
            let cast = &mut lock(&self.shared.casts)[index];
            match answer {
                Answer::Receipt(receipt) => return cast.receipts.push(receipt),
                Answer::Refused(reason) => return cast.refused = Some(reason),
                Answer::Again(_) => {}
            }
            if !is_impatient {
                thread::sleep(Duration::from_millis(self.random.random_range(20..200)));
            }
        }
    }

    fn send_rest(&mut self, cast: &Cast, door: usize, patience: Duration) -> Answer {
        let Cast { id, contest, name, album, year, voter, .. } = cast;
        let mut body = json!({ "vote_id": id, "contest": contest, "name": name });
        for (field, value) in [("album", json!(album)), ("year", json!(year)), ("voter", json!(voter))] {
            if !value.is_null() {
                body[field] = value;
            }
        }
        let request = self.agent.post(format!("http://{}/v1/votes", self.rest[door]));
        let request = request.config().timeout_global(Some(patience)).build().content_type("application/json");
        let answer = request.send(body.to_string()).and_then(|mut response| {
            let body = response.body_mut().read_to_string()?;
            Ok((response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::Null)))
        });
        match answer {
            Err(_) => Answer::Again("no answer over REST".to_owned()),
            Ok((202, body)) => self.read_receipt(&body, cast),
            Ok((503, body)) => {
                // A door that is closing may not have read the vote; whoever read it says which it was.
                let (slug, told) = (body["type"].as_str().unwrap_or("without a type"), body["vote_id"].as_str());
                if slug.ends_with("log-unavailable") && told != Some(id.to_string().as_str()) {
                    self.problem(format!("503 for {id} says it is about {told:?}"));
                }
                Answer::Again(format!("503 {slug}"))
            }
            Ok((status @ 400..500, body)) => Answer::Refused(format!("{status} {body}")),
            Ok((status, body)) => {
                self.problem(format!("{status} {body} for {id}"));
                Answer::Again(status.to_string())
            }
        }
    }

    fn read_receipt(&self, body: &Value, cast: &Cast) -> Answer {
        let read = || {
            let accepted_at: jiff::Timestamp = body["accepted_at"].as_str()?.parse().ok()?;
            let is_ours = body["vote_id"] == cast.id.to_string() && body["contest"] == cast.contest;
            is_ours.then_some(Receipt {
                door: "rest",
                partition: body["partition"].as_i64()?.try_into().ok()?,
                offset: body["offset"].as_i64()?,
                accepted_at: accepted_at.as_millisecond(),
            })
        };
        read().map_or_else(
            || {
                self.problem(format!("the receipt of {} is {body}", cast.id));
                Answer::Again("a wrong receipt".to_owned())
            },
            Answer::Receipt,
        )
    }

    fn send_grpc(&mut self, cast: &Cast, door: usize, patience: Duration) -> Answer {
        let request = CastVoteRequest {
            name: cast.name.clone(),
            album: cast.album.clone(),
            year: cast.year.map(|year| i32::try_from(year).unwrap()),
            rank: None,
            contest: Some(cast.contest.to_owned()),
            voter: cast.voter.clone(),
            vote_id: Some(cast.id.to_string()),
        };
        let call = self.grpc[door].cast_vote(request);
        let Ok(answer) = self.runtime.block_on(async { tokio::time::timeout(patience, call).await }) else {
            return Answer::Again("no answer over gRPC".to_owned());
        };
        let status = match answer {
            Ok(receipt) => {
                let receipt = receipt.into_inner();
                if receipt.vote_id != cast.id.to_string() || receipt.contest != cast.contest {
                    self.problem(format!("the receipt of {} is {receipt:?}", cast.id));
                }
                return Answer::Receipt(Receipt {
                    door: "grpc",
                    partition: i32::try_from(receipt.partition).unwrap(),
                    offset: i64::try_from(receipt.offset).unwrap(),
                    accepted_at: receipt.accepted_at_ms,
                });
            }
            Err(status) => status,
        };
        // A status that tonic made of a broken connection has a cause; one that the door sent has none.
        let of = if std::error::Error::source(&status).is_some() { "connection" } else { "door" };
        match (of, status.code()) {
            ("connection", code) => Answer::Again(format!("{code:?}: connection")),
            (_, Code::Unavailable) => Answer::Again("Unavailed: door".to_owned()),
            (_, Code::ResourceExhausted) => Answer::Again("ResourceExhausted: door".to_owned()),
            // What hyper says of a connection that ended under a call has no cause by the time it is here.
            (_, Code::Unknown | Code::Cancelled | Code::Internal) => {
                Answer::Again(format!("{:?}: call", status.code()))
            }
            _ => Answer::Refused(format!("{status:?}")),
        }
    }

    fn problem(&self, problem: String) {
        lock(&self.shared.problems).push(problem);
    }
}

/// A draw of anything that can be drawn from a range of milliseconds.
pub fn millis(random: &mut impl Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}
