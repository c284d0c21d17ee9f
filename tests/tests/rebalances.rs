//! Consumers join and leave while votes arrive. Each partition is counted by exactly one consumer soon after, health and
//! metrics name only what a consumer counts, and two consumers count a batch of the same partition only exceptionally.
//!
//! `dev/test` runs a few rebalances. To run more, and to fail if a partition stands still for too long:
//!
//! ```sh
//! REBALANCES=200 cargo test -p tests --features servers --test rebalances -- --nocapture
//! ```
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    chaos::{
        SECRET,
        clients::Clients,
        configure,
        processes::{Addresses, Fleet, KillOnDrop, ProgramKind},
        snapshot,
    },
    stack::{Stack, Urls},
    wait_for,
};
use tokio::runtime::Runtime;

/// The number of partitions of the vote log.
const PARTITIONS: usize = 12;

/// The number of rebalances without the variable `REBALANCES`.
const FEW_REBALANCES: usize = 6;

/// The number of votes per second. Each partition gets one every 40 ms on average.
const RATE: f64 = 300.0;

/// The longest time for which a partition may stand still when a consumer joins or leaves. This is only checked if
/// `REBALANCES` is set, because a busy machine could miss it.
const MAX_STANDSTILL: Duration = Duration::from_secs(3);

#[test]
fn after_each_rebalance_every_partition_is_counted_by_one_consumer() {
    let requested: Option<usize> = env::var("REBALANCES").ok().map(|number| number.parse().unwrap());
    let rebalances = requested.unwrap_or(FEW_REBALANCES);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rebalances");
    std::fs::create_dir_all(&folder).unwrap();
    let stack = Stack::up(&folder.join("servers"), 19_550, 1);
    let programs = folder.join("programs");
    let _ = std::fs::remove_dir_all(&programs);
    std::fs::create_dir_all(&programs).unwrap();
    let fleet = Fleet::start(&programs, Addresses::new(19_560, 1), &stack.urls, &configure(&programs), 2);
    let _guard = KillOnDrop(&fleet);
    fleet.wait_until_ready();
    let runtime = Runtime::new().unwrap();
    let clients = Clients::start(&fleet.addresses, RATE, 7, runtime.handle());
    wait_until_settled(&fleet, 2);
    wait_for("each partition to have a vote", || {
        snapshot::read_positions(&stack.urls).is_ok_and(|positions| positions.len() == PARTITIONS)
    });

    let before = fleet.log_count(ProgramKind::Consumer, "stores moved");
    let watch = StandstillWatch::start(&stack.urls);
    for rebalance in 0..rebalances {
        if rebalance % 2 == 0 {
            fleet.add_consumer().unwrap();
            wait_until_settled(&fleet, 3);
        } else {
            fleet.remove_consumer(rebalance).unwrap();
            wait_until_settled(&fleet, 2);
        }
    }
    let standstill = watch.stop();
    let fenced = fleet.log_count(ProgramKind::Consumer, "stores moved") - before;
    let report = clients.finish(SECRET.into());
    println!("{rebalances} rebalances: {fenced} fenced batches, a partition stood still for at most {standstill:?}");
    println!("{} votes; unexpected responses: {:?}", report.history.casts.len(), report.problems);
    assert!(fenced <= rebalances, "{fenced} batches were fenced in {rebalances} rebalances");
    if requested.is_some() {
        assert!(standstill <= MAX_STANDSTILL, "a partition stood still for {standstill:?}");
    }
    assert_eq!(fleet.problems(), [""; 0]);
    fleet.stop();
}

/// Waits until this number of consumers runs, each of them is healthy, and each partition is counted by one of them.
fn wait_until_settled(fleet: &Fleet, consumers: usize) {
    let mut state = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < tests::TEST_TIMEOUT {
        let addresses = fleet.consumers();
        state = addresses.iter().map(|address| (*address, ConsumerState::read(*address))).collect();
        let states: Vec<&ConsumerState> = state.values().flatten().collect();
        let held: Vec<u16> = states.iter().flat_map(|state| state.held.iter().copied()).collect();
        let is_complete = held.len() == PARTITIONS && BTreeSet::from_iter(held).len() == PARTITIONS;
        if states.len() == consumers && is_complete && states.iter().all(|state| state.is_right()) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{consumers} consumers did not settle: {state:#?}");
}

/// What a consumer reports.
#[derive(Debug)]
struct ConsumerState {
    /// Whether the check `counting` succeeds.
    is_healthy: bool,
    /// The response of `/health`, for the message of a failure.
    #[expect(dead_code, reason = "shown by `Debug`")]
    health: Value,
    /// The partitions whose `ovation_partition_held` is 1.
    held: BTreeSet<u16>,
    /// The partitions with a series of the lag.
    lagging: BTreeSet<u16>,
    /// The value of `ovation_assigned_partitions`.
    assigned: Option<usize>,
}

impl ConsumerState {
    /// Returns `None` if the consumer does not respond.
    fn read(address: SocketAddr) -> Option<Self> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut health = agent.get(format!("http://{address}/health")).call().ok()?;
        let health: Value = health.body_mut().read_json().ok()?;
        // The checks of the machine (`cpu`, `memory`, `disk`) are not about the partitions.
        let checks = health["checks"].as_array()?;
        let counting = checks.iter().find(|check| check["name"] == "counting")?;
        let is_healthy = counting["status"] == "healthy";
        let metrics = agent.get(format!("http://{address}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
        let partition_of = |line: &str| line.split('"').nth(1)?.parse().ok();
        let series = |name: &str| metrics.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        let held: Vec<String> = series("ovation_partition_held{");
        let lagging: Vec<String> = series("ovation_partition_lag_votes{");
        let assigned: Vec<String> = series("ovation_assigned_partitions ");
        Some(Self {
            is_healthy,
            health,
            held: held.iter().filter(|line| line.ends_with(" 1")).filter_map(|line| partition_of(line)).collect(),
            lagging: lagging.iter().filter_map(|line| partition_of(line)).collect(),
            assigned: assigned.first().and_then(|line| line.rsplit(' ').next()?.parse().ok()),
        })
    }

    /// Returns whether health and metrics name exactly the partitions that are counted. The lag is measured once a
    /// second, so its series begin a moment later.
    fn is_right(&self) -> bool {
        self.is_healthy && self.lagging == self.held && self.assigned == Some(self.held.len())
    }
}

/// Measures the longest time for which the position of a partition does not move. All partitions get votes all the time.
struct StandstillWatch {
    has_ended: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl StandstillWatch {
    fn start(urls: &Urls) -> Self {
        let (urls, has_ended) = (urls.clone(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let has_ended = Arc::clone(&has_ended);
            move || {
                let mut moved_at: BTreeMap<i32, (i64, Instant)> = BTreeMap::new();
                let mut longest = Duration::ZERO;
                while !has_ended.load(Ordering::Relaxed) {
                    // On a busy machine, a read may time out.
                    for (partition, position) in snapshot::read_positions(&urls).unwrap_or_default() {
                        let (last, at) = moved_at.entry(partition).or_insert((position, Instant::now()));
                        longest = longest.max(at.elapsed());
                        if position > *last {
                            (*last, *at) = (position, Instant::now());
                        }
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                longest
            }
        });
        Self { has_ended, thread }
    }

    fn stop(self) -> Duration {
        self.has_ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
