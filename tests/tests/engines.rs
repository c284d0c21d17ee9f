//! The four programs work on real servers while one of the servers is down or does not respond.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::v1::CastVoteRequest;
use proto_grpc::v1::vote_service_client::VoteServiceClient;
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

/// The longest response time of a producer while the log is down.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serialises these tests, because the servers need memory, and all tests use the same ports.
static TEST_LOCK: Mutex<()> = Mutex::new(());

/// The programs on their own servers. Dropping this ends the programs and the servers.
struct System {
    fleet: Fleet,
    stack: Stack,
    runtime: Runtime,
    agent: ureq::Agent,
    /// The number of votes that were cast.
    cast: u64,
    _exclusive: MutexGuard<'static, ()>,
}

impl Drop for System {
    fn drop(&mut self) {
        self.fleet.kill_all();
    }
}

impl System {
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(vote_log_options: &str) -> Self {
        const PORT: u16 = 19_450;
        let exclusive = TEST_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines");
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("ovation.toml");
        fs::write(&config, "").unwrap();
        let mut stack = Stack::up(&folder.join("servers"), PORT, 1);
        stack.urls.vote_log += vote_log_options;
        let fleet = Fleet::start(&folder.join("programs"), Addresses::new(PORT + 10, 1), &stack.urls, &config, 2);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let system = Self { fleet, stack, runtime: Runtime::new().unwrap(), agent, cast: 0, _exclusive: exclusive };
        system.fleet.wait_until_ready();
        system
    }

    /// Casts a vote over REST. Returns the status, the body, whether there is a `Retry-After`, and the response time.
    fn cast_rest(&self, id: Uuid) -> (u16, Value, bool, Duration) {
        let begun = Instant::now();
        let url = format!("http://{}/v1/votes", self.fleet.addresses.rest[0]);
        let vote = json!({ "vote_id": id, "name": "Queen" });
        let mut response = self.agent.post(&url).content_type("application/json").send(vote.to_string()).unwrap();
        let body = response.body_mut().read_json().unwrap();
        (response.status().as_u16(), body, response.headers().contains_key("retry-after"), begun.elapsed())
    }

    /// Casts a vote over gRPC. Returns the result and the response time.
    fn cast_grpc(&self, id: Uuid) -> (Result<(), Status>, Duration) {
        let begun = Instant::now();
        let endpoint = Endpoint::from_shared(format!("http://{}", self.fleet.addresses.grpc[0])).unwrap();
        let vote = CastVoteRequest { name: "Queen".into(), vote_id: Some(id.to_string()), ..Default::default() };
        let result = self.runtime.block_on(async {
            let mut client = VoteServiceClient::new(endpoint.connect().await.unwrap());
            client.cast_vote(vote).await
        });
        (result.map(drop), begun.elapsed())
    }

    /// Casts `votes` votes through each producer. The producers must accept every vote at the first attempt.
    fn vote(&mut self, votes: u64) {
        for _ in 0..votes {
            let (status, body, _, _) = self.cast_rest(Uuid::now_v7());
            assert_eq!(status, 202, "{body}");
            let (result, _) = self.cast_grpc(Uuid::now_v7());
            result.unwrap();
        }
        self.cast += 2 * votes;
    }

    fn total(&self) -> Option<u64> {
        let url = format!("http://{}/v1/contests/bands/tally", self.fleet.addresses.results);
        let mut response = self.agent.get(&url).call().ok()?;
        response.body_mut().read_json::<Value>().ok()?["total"].as_u64()
    }

    /// Waits until every vote is counted once.
    fn wait_until_counted(&self) {
        wait_for("all votes to be counted", || self.total() == Some(self.cast));
    }

    /// Checks that the audit finds no difference, and that no program ended unexpectedly.
    fn assert_healthy(&self) {
        let flags = self.stack.urls.flags();
        let audit = command().args(["audit", "--json"]).args(flags).output().unwrap();
        let report = json(&audit);
        assert!(audit.status.success(), "{report}");
        assert_eq!(report["tallies"], self.cast, "{report}");
        assert_eq!(self.fleet.problems(), [""; 0]);
    }
}

#[test]
fn with_redis_down_votes_are_accepted_and_counting_catches_up() {
    assert_accepted_while_down("redis");
}

#[test]
fn with_mongodb_down_votes_are_accepted_and_counting_catches_up() {
    assert_accepted_while_down("mongo");
}

fn assert_accepted_while_down(server: &str) {
    let mut system = System::start();
    system.vote(10);
    system.wait_until_counted();
    system.stack.kill(server);
    system.vote(25);
    system.stack.start(server);
    system.vote(10);
    system.wait_until_counted();
    system.assert_healthy();
}

#[test]
fn with_kafka_down_the_producers_refuse_within_two_seconds_and_recover() {
    let mut system = System::start();
    system.vote(10);
    system.stack.kill("kafka");
    let refused = assert_refused(&system);
    system.stack.start("kafka");
    assert_recovered(&mut system, refused);
}

#[test]
fn with_kafka_paused_the_producers_refuse_within_two_seconds_and_recover() {
    // A broker that continues reports for a moment that there are no brokers. The interval is short, because the
    // clients must receive this report.
    let mut system = System::start_with("?topic.metadata.refresh.interval.ms=20");
    system.vote(10);
    let pid = system.stack.pid("kafka").unwrap();
    signal(pid, "STOP");
    let refused = assert_refused(&system);
    signal(pid, "CONT");
    assert_recovered(&mut system, refused);
}

/// Checks that both producers refuse votes in time, and that the responses are complete. Returns the ids of the votes.
fn assert_refused(system: &System) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for &id in &ids {
        let (status, body, has_retry_after, took) = system.cast_rest(id);
        assert_eq!(status, 503, "{body}");
        assert!(has_retry_after, "a 503 without Retry-After");
        assert_eq!(body["vote_id"], id.to_string(), "{body}");
        assert!(took < RESPONSE_TIMEOUT, "the REST producer took {took:?}");
        let (result, took) = system.cast_grpc(id);
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(took < RESPONSE_TIMEOUT, "the gRPC producer took {took:?}");
    }
    ids
}

/// Checks that refused votes are accepted when they are sent again, and that each vote counts once.
fn assert_recovered(system: &mut System, refused: Vec<Uuid>) {
    for id in refused {
        wait_for("the REST producer to recover", || system.cast_rest(id).0 == 202);
        wait_for("the gRPC producer to recover", || system.cast_grpc(id).0.is_ok());
        system.cast += 1;
    }
    system.vote(10);
    system.wait_until_counted();
    system.assert_healthy();
}
