//! Doors without a vote log, for the tests and the bench of the flood: they answer as they are told, remember which
//! votes came, and crash.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each user takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a fake that can't work is a failed test")]

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

/// What a door does about a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Accept,
    /// 503 or UNAVAILABLE.
    RefuseForNow,
    /// 422 or `INVALID_ARGUMENT`.
    Refuse,
    /// Accepts after that time.
    Stall(Duration),
    /// Never answers.
    Hang,
    /// Ends the connection without an answer; as a stream's outcome, the stream.
    Cut,
    /// Takes neither this vote nor any other of its stream, as a door that leaves.
    Leave,
}

/// A vote that came.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub vote_id: String,
    /// How many came before it.
    pub number: usize,
    /// How often it had come before.
    pub earlier: usize,
}

type Behaviour = dyn Fn(&Arrival) -> Act + Send + Sync;

/// What outlives a crash.
pub struct Memory {
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

/// A door on a thread and a port of its own.
pub struct FakeDoor {
    kind: Kind,
    pub address: SocketAddr,
    /// Bound and never listening, it keeps the port while the door is closed.
    _port: TcpSocket,
    memory: Arc<Memory>,
    runtime: Option<runtime::Runtime>,
}

impl FakeDoor {
    pub fn rest(behaviour: impl Fn(&Arrival) -> Act + Send + Sync + 'static) -> Self {
        Self::open(Kind::Rest, Some(Box::new(behaviour)))
    }

    pub fn grpc(behaviour: impl Fn(&Arrival) -> Act + Send + Sync + 'static) -> Self {
        Self::open(Kind::Grpc, Some(Box::new(behaviour)))
    }

    /// A door that accepts everything and remembers nothing, for measurements.
    pub fn rest_echo() -> Self {
        Self::open(Kind::Rest, None)
    }

    pub fn grpc_echo() -> Self {
        Self::open(Kind::Grpc, None)
    }

    fn open(kind: Kind, behaviour: Option<Box<Behaviour>>) -> Self {
        let memory = Memory { behaviour, arrivals: Mutex::default(), changed: Condvar::new() };
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = port.local_addr().unwrap();
        let mut door = Self { kind, address, _port: port, memory: Arc::new(memory), runtime: None };
        door.reopen();
        door
    }

    /// Drops everything at once: the listener and all connections.
    pub fn crash(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }

    /// Opens again at the same address.
    pub fn reopen(&mut self) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        let memory = Arc::clone(&self.memory);
        match self.kind {
            Kind::Rest => runtime.spawn(rest::serve(listener, memory)),
            Kind::Grpc => runtime.spawn(grpc::serve(listener, memory)),
        };
        self.runtime = Some(runtime);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The ids of all votes that came, again and again if they did.
    pub fn arrivals(&self) -> Vec<String> {
        self.memory.arrivals.lock().unwrap().all.clone()
    }

    /// Waits until so many votes came.
    pub fn wait_for_arrivals(&self, count: usize) {
        let arrivals = self.memory.arrivals.lock().unwrap();
        let is_waiting = |arrivals: &mut Arrivals| arrivals.all.len() < count;
        let most = Duration::from_mins(1);
        let waited = self.memory.changed.wait_timeout_while(arrivals, most, is_waiting).unwrap();
        assert!(!waited.1.timed_out(), "fewer than {count} votes came");
    }
}

impl Memory {
    fn act(&self, vote_id: &str) -> Act {
        let Some(behaviour) = &self.behaviour else { return Act::Accept };
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
