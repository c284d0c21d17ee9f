//! The clients cast votes. A client sends a vote again, with the same `vote_id`, until the client receives a final
//! response.
//!
//! Some attempts are impatient: the client gives up after a few milliseconds, and sends the vote again while the first
//! request is in flight. Sometimes a client sends a vote again that was acknowledged before. In one of the contests,
//! many voters vote twice. Each attempt may go to any producer, over REST or gRPC.

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

use proto::v1::CastVoteRequest;
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use super::{
    history::{Cast, ClientHistory, ONCE, OPEN, Receipt},
    processes::Addresses,
};

/// The timeout of a patient attempt. A running producer responds within two seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the clients keep sending a vote again after voting has stopped. Before the stop, a client never gives up.
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);

/// The number of clients. There are many, because a few slow responses must not reduce the rate.
const CLIENTS: u32 = 32;

/// The number of voters in [`ONCE`]. There are few, because some voters must vote twice.
const VOTERS: u32 = 5_000;

/// The bands of [`OPEN`]: name, album and year. The names test the encodings of the stores.
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

/// All clients.
pub struct Clients {
    state: Arc<ClientsState>,
    threads: Vec<JoinHandle<()>>,
}

/// The state that the clients share.
struct ClientsState {
    casts: Mutex<Vec<Cast>>,
    /// The number of votes in [`OPEN`] and in [`ONCE`], counted before the first attempt. Two votes in [`ONCE`] may be
    /// from the same voter.
    cast: [AtomicUsize; 2],
    /// The time at which voting stopped.
    stopped_at: OnceLock<Instant>,
    /// The number of responses by kind.
    responses: Mutex<BTreeMap<String, usize>>,
    /// The longest time until a receipt, or until a producer reported that it is unavailable.
    slowest: Mutex<Duration>,
    /// Responses that violate the API.
    problems: Mutex<Vec<String>>,
}

/// The result of one attempt to cast a vote.
enum Attempt {
    Receipt(Receipt),
    /// The client tries again. The text is for the statistics.
    Retry(String),
    /// The producer refused the vote permanently.
    Refused(String),
}

impl Clients {
    /// Starts the clients, which together cast `rate` votes per second.
    pub fn start(addresses: &Addresses, rate: f64, seed: u64, runtime: &Handle) -> Self {
        let state = Arc::new(ClientsState {
            casts: Mutex::default(),
            cast: Default::default(),
            stopped_at: OnceLock::new(),
            responses: Mutex::default(),
            slowest: Mutex::default(),
            problems: Mutex::default(),
        });
        let channels: Vec<Channel> = {
            // A lazy connection must be created in the context of a runtime.
            let _guard = runtime.enter();
            let lazy =
                |address: &SocketAddr| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
            addresses.grpc.iter().map(lazy).collect()
        };
        let interval = Duration::from_secs_f64(f64::from(CLIENTS) / rate);
        let threads = (0..CLIENTS).map(|number| {
            let client = Client {
                state: Arc::clone(&state),
                random: StdRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
                rest: addresses.rest.clone(),
                agent: ureq::Agent::config_builder().http_status_as_error(false).build().into(),
                grpc: channels.iter().cloned().map(VoteServiceClient::new).collect(),
                runtime: runtime.clone(),
            };
            thread::spawn(move || client.vote(interval))
        });
        Self { threads: threads.collect(), state }
    }

    /// Returns the number of votes that the clients have cast in a contest. The contest cannot have more.
    pub fn cast_count(&self, contest: &str) -> usize {
        self.state.cast[usize::from(contest == ONCE)].load(Ordering::SeqCst)
    }

    /// Stops voting, waits for the receipts of the last votes, and returns the report.
    pub fn finish(self, secret: Vec<u8>) -> ClientsReport {
        self.state.stopped_at.get_or_init(Instant::now);
        self.threads.into_iter().for_each(|client| client.join().unwrap());
        let state = Arc::into_inner(self.state).unwrap();
        ClientsReport {
            history: ClientHistory { casts: state.casts.into_inner().unwrap(), secret },
            responses: state.responses.into_inner().unwrap(),
            slowest: state.slowest.into_inner().unwrap(),
            problems: state.problems.into_inner().unwrap(),
        }
    }
}

/// The report of all clients.
pub struct ClientsReport {
    pub history: ClientHistory,
    /// The number of responses by kind.
    pub responses: BTreeMap<String, usize>,
    /// The longest time until a receipt, or until a producer reported that it is unavailable.
    pub slowest: Duration,
    /// Responses that violate the API.
    pub problems: Vec<String>,
}

struct Client {
    state: Arc<ClientsState>,
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
    /// Casts one vote per interval until voting stops.
    fn vote(mut self, interval: Duration) {
        let mut due = Instant::now() + interval.mul_f64(self.random.random());
        while self.state.stopped_at.get().is_none() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // If a vote took longer than the interval, the votes that were due in this time are skipped.
            due = (due + interval).max(Instant::now());
            let cast = if self.random.random_bool(0.1) { self.old_cast() } else { None };
            let cast = cast.unwrap_or_else(|| self.new_cast());
            self.send(cast);
        }
    }

    /// Selects a random vote. Returns its index if it was acknowledged before.
    fn old_cast(&mut self) -> Option<usize> {
        let casts = lock(&self.state.casts);
        let index = (!casts.is_empty()).then(|| self.random.random_range(0..casts.len()))?;
        (!casts[index].receipts.is_empty()).then_some(index)
    }

    fn new_cast(&mut self) -> usize {
        let (name, album, year) = BANDS[self.random.random_range(0..BANDS.len())];
        let has_details = self.random.random_bool(0.5);
        let mut cast = Cast {
            id: Uuid::now_v7(),
            contest: OPEN,
            name: name.to_owned(),
            album: has_details.then(|| album.to_owned()),
            year: has_details.then_some(year),
            voter: None,
            attempts: 0,
            receipts: Vec::new(),
            refusal: None,
        };
        if self.random.random_bool(0.2) {
            cast.contest = ONCE;
            CANDIDATES[self.random.random_range(0..CANDIDATES.len())].clone_into(&mut cast.name);
            cast.voter = Some(format!("voter {}", self.random.random_range(0..VOTERS)));
        }
        self.state.cast[usize::from(cast.contest == ONCE)].fetch_add(1, Ordering::SeqCst);
        let mut casts = lock(&self.state.casts);
        casts.push(cast);
        casts.len() - 1
    }

    /// Sends a vote until a final response, or until [`RETRY_TIMEOUT`].
    fn send(&mut self, index: usize) {
        while self.state.stopped_at.get().is_none_or(|stopped_at| stopped_at.elapsed() < RETRY_TIMEOUT) {
            let cast = {
                let cast = &mut lock(&self.state.casts)[index];
                cast.attempts += 1;
                cast.clone()
            };
            let is_impatient = self.random.random_bool(0.03);
            let timeout =
                if is_impatient { Duration::from_millis(self.random.random_range(1..30)) } else { RESPONSE_TIMEOUT };
            let sent_at = Instant::now();
            let number = self.random.random_range(0..self.rest.len() + self.grpc.len());
            let attempt = if number < self.rest.len() {
                self.send_rest(&cast, number, timeout)
            } else {
                self.send_grpc(&cast, number - self.rest.len(), timeout)
            };
            let kind = match &attempt {
                Attempt::Receipt(receipt) => format!("{} receipt", receipt.producer),
                Attempt::Retry(_) if is_impatient => "given up by an impatient client".to_owned(),
                Attempt::Retry(kind) | Attempt::Refused(kind) => kind.clone(),
            };
            if kind.ends_with("receipt") || kind.starts_with("503") || kind.ends_with(": producer") {
                let mut slowest = lock(&self.state.slowest);
                *slowest = (*slowest).max(sent_at.elapsed());
            }
            *lock(&self.state.responses).entry(kind).or_default() += 1;
            let cast = &mut lock(&self.state.casts)[index];
            match attempt {
                Attempt::Receipt(receipt) => return cast.receipts.push(receipt),
                Attempt::Refused(reason) => return cast.refusal = Some(reason),
                Attempt::Retry(_) => {}
            }
            if !is_impatient {
                thread::sleep(Duration::from_millis(self.random.random_range(20..200)));
            }
        }
    }

    fn send_rest(&mut self, cast: &Cast, producer: usize, timeout: Duration) -> Attempt {
        let Cast { id, contest, name, album, year, voter, .. } = cast;
        let mut body = json!({ "vote_id": id, "contest": contest, "name": name });
        for (field, value) in [("album", json!(album)), ("year", json!(year)), ("voter", json!(voter))] {
            if !value.is_null() {
                body[field] = value;
            }
        }
        let request = self.agent.post(format!("http://{}/v1/votes", self.rest[producer]));
        let request = request.config().timeout_global(Some(timeout)).build().content_type("application/json");
        let response = request.send(body.to_string()).and_then(|mut response| {
            let body = response.body_mut().read_to_string()?;
            Ok((response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::Null)))
        });
        match response {
            Err(_) => Attempt::Retry("no response over REST".to_owned()),
            Ok((202, body)) => self.read_receipt(&body, cast),
            Ok((503, body)) => {
                // A producer that shuts down may not have read the vote. A producer that has read it returns its id.
                let (slug, vote_id) = (body["type"].as_str().unwrap_or("without a type"), body["vote_id"].as_str());
                if slug.ends_with("log-unavailable") && vote_id != Some(id.to_string().as_str()) {
                    self.report_problem(format!("503 for {id} has the vote_id {vote_id:?}"));
                }
                Attempt::Retry(format!("503 {slug}"))
            }
            Ok((status @ 400..500, body)) => Attempt::Refused(format!("{status} {body}")),
            Ok((status, body)) => {
                self.report_problem(format!("{status} {body} for {id}"));
                Attempt::Retry(status.to_string())
            }
        }
    }

    /// Reads the receipt of a vote. A receipt of another vote, or without a field, violates the API.
    fn read_receipt(&self, body: &Value, cast: &Cast) -> Attempt {
        let read = || {
            let accepted_at: jiff::Timestamp = body["accepted_at"].as_str()?.parse().ok()?;
            let is_ours = body["vote_id"] == cast.id.to_string() && body["contest"] == cast.contest;
            is_ours.then_some(Receipt {
                producer: "rest",
                partition: body["partition"].as_i64()?.try_into().ok()?,
                offset: body["offset"].as_i64()?,
                accepted_at: accepted_at.as_millisecond(),
            })
        };
        read().map_or_else(
            || {
                self.report_problem(format!("the receipt for {} is {body}", cast.id));
                Attempt::Retry("a wrong receipt".to_owned())
            },
            Attempt::Receipt,
        )
    }

    fn send_grpc(&mut self, cast: &Cast, producer: usize, timeout: Duration) -> Attempt {
        let request = CastVoteRequest {
            name: cast.name.clone(),
            album: cast.album.clone(),
            year: cast.year.map(|year| i32::try_from(year).unwrap()),
            rank: None,
            contest: Some(cast.contest.to_owned()),
            voter: cast.voter.clone(),
            vote_id: Some(cast.id.to_string()),
        };
        let call = self.grpc[producer].cast_vote(request);
        let Ok(response) = self.runtime.block_on(async { tokio::time::timeout(timeout, call).await }) else {
            return Attempt::Retry("no response over gRPC".to_owned());
        };
        let status = match response {
            Ok(receipt) => {
                let receipt = receipt.into_inner();
                if receipt.vote_id != cast.id.to_string() || receipt.contest != cast.contest {
                    self.report_problem(format!("the receipt for {} is {receipt:?}", cast.id));
                }
                return Attempt::Receipt(Receipt {
                    producer: "grpc",
                    partition: i32::try_from(receipt.partition).unwrap(),
                    offset: i64::try_from(receipt.offset).unwrap(),
                    accepted_at: receipt.accepted_at_ms,
                });
            }
            Err(status) => status,
        };
        // A status that tonic created for a broken connection has a source. A status from the producer has none.
        let origin = if std::error::Error::source(&status).is_some() { "connection" } else { "producer" };
        match (origin, status.code()) {
            ("connection", code) => Attempt::Retry(format!("{code:?}: connection")),
            (_, Code::Unavailable) => Attempt::Retry("Unavailable: producer".to_owned()),
            (_, Code::ResourceExhausted) => Attempt::Retry("ResourceExhausted: producer".to_owned()),
            // hyper's error for a connection that ended during a call has no source here.
            (_, Code::Unknown | Code::Cancelled | Code::Internal) => {
                Attempt::Retry(format!("{:?}: call", status.code()))
            }
            _ => Attempt::Refused(format!("{status:?}")),
        }
    }

    fn report_problem(&self, problem: String) {
        lock(&self.state.problems).push(problem);
    }
}

/// Draws a random duration from a range of milliseconds.
pub fn random_millis(random: &mut impl Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}
