//! Fake producers without a vote log, for the tests and the benchmark of the flood. A test defines how a producer
//! reacts to each vote. The producer records the votes that arrive, and it can crash.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "no user of this module needs all of it")]
#![allow(clippy::unwrap_used, reason = "an error of the fake fails the test")]

mod grpc;
mod rest;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
};

/// The reaction of a producer to a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    Accept,
    /// Responds with 503 or UNAVAILABLE.
    RefuseTemporarily,
    /// Responds with 422 or `INVALID_ARGUMENT`.
    Refuse,
    /// Accepts after this time.
    Stall(Duration),
    /// Never responds.
    Hang,
    /// Ends the connection, or the stream, without a response.
    Disconnect,
    /// Ends the stream without accepting this vote, like a producer that shuts down.
    ShutDown,
}

/// A vote that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub vote_id: String,
    /// The number of votes that arrived before this one.
    pub number: usize,
    /// How often the same vote arrived earlier.
    pub earlier: usize,
}

type Behaviour = dyn Fn(&Arrival) -> Reaction + Send + Sync;

/// The state of a producer that survives a crash.
pub struct State {
    behaviour: Option<Box<Behaviour>>,
    arrivals: Mutex<Arrivals>,
    changed: Condvar,
}

#[derive(Default)]
struct Arrivals {
    all: Vec<String>,
    times: HashMap<String, usize>,
}

#[derive(Clone, Copy)]
enum Kind {
    Rest,
    Grpc,
}

/// A fake producer on its own thread and port.
pub struct FakeProducer {
    kind: Kind,
    pub address: SocketAddr,
    /// Bound, but not listening. This socket reserves the port while the producer is down.
    _port: TcpSocket,
    state: Arc<State>,
    runtime: Option<runtime::Runtime>,
}

impl FakeProducer {
    pub fn rest(behaviour: impl Fn(&Arrival) -> Reaction + Send + Sync + 'static) -> Self {
        Self::open(Kind::Rest, Some(Box::new(behaviour)))
    }

    pub fn grpc(behaviour: impl Fn(&Arrival) -> Reaction + Send + Sync + 'static) -> Self {
        Self::open(Kind::Grpc, Some(Box::new(behaviour)))
    }

    /// Starts a producer that accepts every vote and records nothing, for benchmarks.
    pub fn rest_echo() -> Self {
        Self::open(Kind::Rest, None)
    }

    pub fn grpc_echo() -> Self {
        Self::open(Kind::Grpc, None)
    }

    fn open(kind: Kind, behaviour: Option<Box<Behaviour>>) -> Self {
        let state = State { behaviour, arrivals: Mutex::default(), changed: Condvar::new() };
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = port.local_addr().unwrap();
        let mut producer = Self { kind, address, _port: port, state: Arc::new(state), runtime: None };
        producer.reopen();
        producer
    }

    /// Drops the listener and all connections at once.
    pub fn crash(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }

    /// Listens again at the same address.
    pub fn reopen(&mut self) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        let state = Arc::clone(&self.state);
        match self.kind {
            Kind::Rest => runtime.spawn(rest::serve(listener, state)),
            Kind::Grpc => runtime.spawn(grpc::serve(listener, state)),
        };
        self.runtime = Some(runtime);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the ids of all votes in the order of arrival, with duplicates.
    pub fn arrivals(&self) -> Vec<String> {
        self.state.arrivals.lock().unwrap().all.clone()
    }

    /// Waits until this many votes have arrived.
    pub fn wait_for_arrivals(&self, count: usize) {
        let arrivals = self.state.arrivals.lock().unwrap();
        let is_waiting = |arrivals: &mut Arrivals| arrivals.all.len() < count;
        let timeout = Duration::from_mins(1);
        let waited = self.state.changed.wait_timeout_while(arrivals, timeout, is_waiting).unwrap();
        assert!(!waited.1.timed_out(), "fewer than {count} votes arrived");
    }
}

impl State {
    fn react(&self, vote_id: &str) -> Reaction {
        let Some(behaviour) = &self.behaviour else { return Reaction::Accept };
        let mut arrivals = self.arrivals.lock().unwrap();
        let number = arrivals.all.len();
        arrivals.all.push(vote_id.to_owned());
        let times = arrivals.times.entry(vote_id.to_owned()).or_default();
        *times += 1;
        let earlier = *times - 1;
        drop(arrivals);
        self.changed.notify_all();
        behaviour(&Arrival { vote_id: vote_id.to_owned(), number, earlier })
    }
}
