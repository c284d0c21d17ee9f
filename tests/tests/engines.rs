//! The real programs, each on its own, on the real servers: what happens while one of these is down.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::v1::{CastVoteRequest, vote_service_client::VoteServiceClient};
use serde_json::{Value, json};
use tests::{
    chaos::processes::{Addresses, Fleet, signal},
    command, json,
    stack::Stack,
    wait_for,
};
use tokio::runtime::Runtime;
use tonic::{Code, Status, transport::Endpoint};
use uuid::Uuid;

/// What doors promise while the log does not answer.
const SOON: Duration = Duration::from_secs(2);

/// Servers take memory and ports, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The programs on servers of their own. Everything ends when it is dropped.
struct System {
    fleet: Fleet,
    stack: Stack,
    runtime: Runtime,
    agent: ureq::Agent,
    cast: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for System {
    fn drop(&mut self) {
        self.fleet.end();
    }
}

impl System {
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(queue_options: &str) -> Self {
        const PORT: u16 = 19_450;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines");
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("ovation.toml");
        fs::write(&config, "").unwrap();
        let mut stack = Stack::up(&folder.join("servers"), PORT, 1);
        stack.urls.queue += queue_options;
        let fleet = Fleet::start(&folder.join("programs"), Addresses::new(PORT + 10, 1), &stack.urls, &config, 2);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let system = Self { fleet, stack, runtime: Runtime::new().unwrap(), agent, cast: 0, _turn: turn };
        system.fleet.wait_until_ready();
        system
    }

    /// Casts over REST: status, answer, `Retry-After`, and how long it took.
    fn rest(&self, id: Uuid) -> (u16, Value, bool, Duration) {
        let begun = Instant::now();
        let url = format!("http://{}/v1/votes", self.fleet.addresses.rest[0]);
        let vote = json!({ "vote_id": id, "name": "Queen" });
        let mut answer = self.agent.post(&url).content_type("application/json").send(vote.to_string()).unwrap();
        let body = answer.body_mut().read_json().unwrap();
        (answer.status().as_u16(), body, answer.headers().contains_key("retry-after"), begun.elapsed())
    }

    /// Casts over gRPC.
    fn grpc(&self, id: Uuid) -> (Result<(), Status>, Duration) {
        let begun = Instant::now();
        let endpoint = Endpoint::from_shared(format!("http://{}", self.fleet.addresses.grpc[0])).unwrap();
        let vote = CastVoteRequest { name: "Queen".into(), vote_id: Some(id.to_string()), ..Default::default() };
        let answer = self.runtime.block_on(async {
            let mut client = VoteServiceClient::new(endpoint.connect().await.unwrap());
            client.cast_vote(vote).await
        });
        (answer.map(drop), begun.elapsed())
    }

    /// Casts some votes at both doors, which have to take each at once.
    fn vote(&mut self, votes: u64) {
        for _ in 0..votes {
            let (status, body, _, _) = self.rest(Uuid::now_v7());
            assert_eq!(status, 202, "{body}");
            let (answer, _) = self.grpc(Uuid::now_v7());
            answer.unwrap();
        }
        self.cast += 2 * votes;
    }

    fn total(&self) -> Option<u64> {
        let url = format!("http://{}/v1/contests/bands/tally", self.fleet.addresses.results);
        let mut answer = self.agent.get(&url).call().ok()?;
        answer.body_mut().read_json::<Value>().ok()?["total"].as_u64()
    }

    /// Everything is counted, once; and no program had to be started again for it.
    fn wait_until_counted(&self) {
        wait_for("all votes to be counted", || self.total() == Some(self.cast));
    }

    fn assert_well(&self) {
        let flags = self.stack.urls.flags();
        let audit = command().args(["audit", "--json"]).args(flags).output().unwrap();
        let report = json(&audit);
        assert!(audit.status.success(), "{report}");
        assert_eq!(report["tallies"], self.cast, "{report}");
        assert_eq!(self.fleet.problems(), [""; 0]);
    }
}

#[test]
fn with_redis_down_votes_are_accepted_and_counting_catches_up_by_itself() {
    accepted_while_down("redis");
}

#[test]
fn with_mongodb_down_votes_are_accepted_and_counting_catches_up_by_itself() {
    accepted_while_down("mongo");
}

fn accepted_while_down(server: &str) {
    let mut system = System::start();
    system.vote(10);
    system.wait_until_counted();
    system.stack.kill(server);
    system.vote(25);
    system.stack.start(server);
    system.vote(10);
    system.wait_until_counted();
    system.assert_well();
}

#[test]
fn with_kafka_down_the_doors_refuse_within_two_seconds_and_recover_by_themselves() {
    let mut system = System::start();
    system.vote(10);
    system.stack.kill("kafka");
    let refused = assert_refused(&system);
    system.stack.start("kafka");
    assert_recovered(&mut system, refused);
}

#[test]
fn with_kafka_hanging_the_doors_refuse_within_two_seconds_and_recover_by_themselves() {
    // A broker that comes back says for a moment that there are no brokers: clients that ask so often hear it.
    let mut system = System::start_with("?topic.metadata.refresh.interval.ms=20");
    system.vote(10);
    let pid = system.stack.pid("kafka").unwrap();
    signal(pid, "STOP");
    let refused = assert_refused(&system);
    signal(pid, "CONT");
    assert_recovered(&mut system, refused);
}

/// Both doors refuse, soon and in full, more than once. Returns what they refused.
fn assert_refused(system: &System) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for &id in &ids {
        let (status, body, has_retry_after, took) = system.rest(id);
        assert_eq!(status, 503, "{body}");
        assert!(has_retry_after, "a 503 says when to come again");
        assert_eq!(body["vote_id"], id.to_string(), "{body}");
        assert!(took < SOON, "the REST door took {took:?}");
        let (answer, took) = system.grpc(id);
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(took < SOON, "the gRPC door took {took:?}");
    }
    ids
}

/// Votes that were refused are taken when they come again, and count once.
fn assert_recovered(system: &mut System, refused: Vec<Uuid>) {
    for id in refused {
        wait_for("the REST door to recover", || system.rest(id).0 == 202);
        wait_for("the gRPC door to recover", || system.grpc(id).0.is_ok());
        system.cast += 1;
    }
    system.vote(10);
    system.wait_until_counted();
    system.assert_well();
}
