//! Heavy hitters: measures which share of a producer's votes comes from the most frequent voter and from the most
//! frequent network.
//!
//! Votes are recorded in windows of one minute, without gaps between them. Each window has a fixed number of counters,
//! so its memory is bounded for any number of voters and networks. A timer ends each window. So the ratios of an idle
//! producer return to 0.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use metrics::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use votes::VoterHash;

use crate::client_ip::Network;

/// The length of a window.
const WINDOW_LENGTH: Duration = Duration::from_mins(1);

/// The maximum number of voters, and of networks, that a window counts. After n votes, a count is wrong by less than n
/// divided by this number.
const MAX_COUNTERS: usize = 256;

/// The ratios of a window with fewer votes are 0. If there are few votes, any client can have a large share.
const MIN_WINDOW_VOTES: u64 = 1_000;

/// If a network sends more than this share of a window's votes, a warning in the log names the network.
const DOMINATING_RATIO: f64 = 0.3;

const RATIO: &str = "ovation_heavy_hitter_ratio";

/// The heavy hitters of one producer.
pub(crate) struct HeavyHitters {
    producer: &'static str,
    window: Mutex<Window>,
    voter_ratio: Gauge,
    network_ratio: Gauge,
}

impl HeavyHitters {
    /// Begins the first window. The ratios are 0 until the first window ends. A task ends each window in time, and
    /// stops when the last reference to `Self` is dropped.
    ///
    /// # Panics
    /// If this is called outside of a Tokio runtime.
    pub(crate) fn new(producer: &'static str) -> Arc<Self> {
        Self::with_windows_of(WINDOW_LENGTH, producer)
    }

    fn with_windows_of(length: Duration, producer: &'static str) -> Arc<Self> {
        metrics::describe_gauge!(RATIO, "Share of the most frequent voter or network in the votes of the last minute");
        let ratio = |kind| metrics::gauge!(RATIO, "producer" => producer, "kind" => kind);
        let heavy_hitters = Arc::new(Self {
            producer,
            window: Mutex::default(),
            voter_ratio: ratio("voter"),
            network_ratio: ratio("network"),
        });
        heavy_hitters.end_window();
        tokio::spawn(end_windows(Arc::downgrade(&heavy_hitters), length));
        heavy_hitters
    }

    /// Records `count` votes from one network. `voters` has a hash for each of these votes whose voter is known.
    pub(crate) fn record(&self, count: u64, network: Option<Network>, voters: impl IntoIterator<Item = VoterHash>) {
        let mut window = self.window();
        window.votes += count;
        if let Some(network) = network {
            window.networks.count(network, count);
        }
        for voter in voters {
            window.voters.count(voter, 1);
        }
    }

    /// Sets the ratios to those of the current window, and begins the next window.
    pub(crate) fn end_window(&self) {
        let Window { votes, voters, networks } = mem::take(&mut *self.window());
        let share = |count| if votes < MIN_WINDOW_VOTES { 0.0 } else { count as f64 / votes as f64 };
        self.voter_ratio.set(share(voters.max_count()));
        let ratio = share(networks.max_count());
        self.network_ratio.set(ratio);
        if ratio > DOMINATING_RATIO
            && let Some(network) = networks.most_frequent()
        {
            tracing::warn!(producer = self.producer, %network, ratio, votes, "one network sent a large share of the last minute's votes");
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end_windows(heavy_hitters: Weak<HeavyHitters>, length: Duration) {
    let mut ends = interval_at(Instant::now() + length, length);
    // If a tick is late, the next window still has its full length.
    ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ends.tick().await;
        let Some(heavy_hitters) = heavy_hitters.upgrade() else { return };
        heavy_hitters.end_window();
    }
}

#[derive(Default)]
struct Window {
    votes: u64,
    voters: MisraGries<VoterHash>,
    networks: MisraGries<Network>,
}

/// Counts the most frequent keys of a stream with a fixed number of counters: Misra and Gries, "Finding repeated
/// elements", Science of Computer Programming 2 (1982), with weights.
///
/// If there is no free counter for a key, each vote of the key is dropped together with one vote of each counter, until a
/// counter is free or no vote of the key is left. After n votes, a count is too low by at most n / ([`MAX_COUNTERS`] + 1). Dropping visits all
/// counters, but each vote can be dropped only once. So a vote takes constant time on average, for any stream.
struct MisraGries<K> {
    counts: HashMap<K, u64>,
    /// The number of votes that were dropped from each counter so far. Each count is too low by at most this number.
    dropped: u64,
}

impl<K> Default for MisraGries<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), dropped: 0 }
    }
}

impl<K: Copy + Eq + Hash> MisraGries<K> {
    fn count(&mut self, key: K, mut votes: u64) {
        while votes > 0 {
            if let Some(count) = self.counts.get_mut(&key) {
                *count += votes;
                return;
            }
            if self.counts.len() < MAX_COUNTERS {
                self.counts.insert(key, votes);
                return;
            }
            let drop = self.counts.values().copied().min().unwrap_or(votes).min(votes);
            self.counts.retain(|_, count| {
                *count -= drop;
                *count > 0
            });
            self.dropped += drop;
            votes -= drop;
        }
    }

    /// Returns an upper bound of the votes of the most frequent key: never too low, and at most `dropped` too high.
    fn max_count(&self) -> u64 {
        self.counts.values().max().copied().unwrap_or(0) + self.dropped
    }

    /// Returns the key with the highest count.
    fn most_frequent(&self) -> Option<K> {
        self.counts.iter().max_by_key(|(_, count)| **count).map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        hint::black_box,
        io,
        net::{IpAddr, Ipv4Addr},
    };

    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
    use proptest::{collection::vec, prelude::*};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    fn network(n: u32) -> Network {
        IpAddr::from(Ipv4Addr::from(0x0a00_0000 + (n << 8))).into()
    }

    fn voter(n: u64) -> VoterHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        VoterHash(hash)
    }

    fn ratio(recorder: &PrometheusRecorder, kind: &str) -> f64 {
        let name = format!("{RATIO}{{producer=\"rest\",kind=\"{kind}\"}} ");
        let metrics = recorder.handle().render();
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
    }

    /// Collects the log of this thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn a_dominating_network_is_logged_once_per_window() {
        let (recorder, log) = (PrometheusBuilder::new().build_recorder(), Log::default());
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        let _log = tracing::subscriber::set_default(subscriber);
        let heavy_hitters = HeavyHitters::new("rest");
        heavy_hitters.record(400, Some(network(7)), std::iter::repeat_n(voter(1), 200));
        for n in 100..700 {
            heavy_hitters.record(1, Some(network(n)), [voter(n.into())]);
        }
        heavy_hitters.end_window();
        let (of_network, of_voter) = (ratio(&recorder, "network"), ratio(&recorder, "voter"));
        assert!((0.4..0.4 + 1.0 / 257.0).contains(&of_network), "{of_network}");
        assert!((0.2..0.2 + 1.0 / 257.0).contains(&of_voter), "{of_voter}");
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("WARN") && text.contains("network=10.0.7.0/24") && text.contains("producer=\"rest\""),
            "{text}"
        );
        for n in 0..2_000 {
            heavy_hitters.record(1, Some(network(n % 4)), [voter(1)]);
        }
        heavy_hitters.end_window();
        assert!((ratio(&recorder, "network") - 0.25).abs() < 1e-9);
        assert!((ratio(&recorder, "voter") - 1.0).abs() < 1e-9);
        assert_eq!(log.text(), text, "a voter is never logged; a network with a quarter of the votes is not logged");
    }

    #[tokio::test]
    async fn the_ratios_are_0_for_few_votes_and_for_votes_without_a_network_or_voter() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let heavy_hitters = HeavyHitters::new("rest");
        heavy_hitters.record(MIN_WINDOW_VOTES - 1, Some(network(1)), []);
        heavy_hitters.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
        heavy_hitters.record(MIN_WINDOW_VOTES, None, []);
        heavy_hitters.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
        heavy_hitters.record(MIN_WINDOW_VOTES, Some(network(1)), []);
        heavy_hitters.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (1.0, 0.0));
    }

    #[tokio::test]
    async fn the_ratios_of_an_idle_producer_return_to_0() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let heavy_hitters = HeavyHitters::with_windows_of(Duration::from_millis(10), "rest");
        heavy_hitters.record(MIN_WINDOW_VOTES, Some(network(1)), []);
        heavy_hitters.end_window();
        assert!(ratio(&recorder, "network") > 0.9);
        let is_back = async {
            while ratio(&recorder, "network") > 0.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_back).await.expect("the timer did not end the window");
    }

    /// Generates streams: in some, few keys have most of the votes, as in practice; in others, all keys are equally
    /// frequent.
    fn streams() -> impl Strategy<Value = Vec<(u32, u64)>> {
        (0.2..8.0, 1_u64..40, 300_u32..20_000).prop_flat_map(|(skew, most_votes, keys)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a key is any number")]
            let key = (0.0..1.0).prop_map(move |at: f64| (at.powf(skew) * f64::from(keys)) as u32);
            vec((key, 1..=most_votes), 0..4_000)
        })
    }

    proptest! {
        #[test]
        fn a_count_is_never_too_high_and_the_maximum_is_never_too_low(stream in streams()) {
            let mut misra_gries = MisraGries::default();
            let mut exact = HashMap::<u32, u64>::new();
            for &(key, votes) in &stream {
                misra_gries.count(key, votes);
                *exact.entry(key).or_default() += votes;
                prop_assert!(misra_gries.counts.len() <= MAX_COUNTERS);
            }
            let votes: u64 = exact.values().sum();
            let bound = votes / (MAX_COUNTERS as u64 + 1);
            prop_assert!(misra_gries.dropped <= bound);
            for (key, &truth) in &exact {
                let counted = misra_gries.counts.get(key).copied().unwrap_or(0);
                prop_assert!((counted..=counted + bound).contains(&truth), "{key}: {counted} of {truth}");
            }
            let truth = exact.values().copied().max().unwrap_or(0);
            prop_assert!((truth..=truth + bound).contains(&misra_gries.max_count()), "{} for {truth}", misra_gries.max_count());
            if let Some(named) = misra_gries.most_frequent() {
                prop_assert!(exact[&named] + bound >= truth, "{named} is not the most frequent");
            }
        }
    }

    /// `cargo test --release -p service -- --ignored --nocapture how_fast`
    #[tokio::test]
    #[ignore = "it is a benchmark"]
    async fn how_fast_votes_are_recorded() {
        const VOTES: u64 = 2_000_000;
        let heavy_hitters = HeavyHitters::new("rest");
        let measure = |what: &str, threads: u64, record: &(dyn Fn(u64) + Sync)| {
            let begun = std::time::Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || (thread * VOTES..(thread + 1) * VOTES).for_each(record));
                }
            });
            let nanos = begun.elapsed().as_nanos() as f64 / VOTES as f64;
            println!("{what}, {threads} threads: {nanos:.0} ns per vote of each thread");
        };
        // Spreads the keys without the cost of a random number.
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let from = |n: u64| Some(network(u32::try_from(n % 0xffff).unwrap_or_default()));
        for threads in [1, 2] {
            measure("only the keys", threads, &|n| {
                black_box((from(spread(n)), voter(spread(n))));
            });
            measure("one network, no voter", threads, &|_| heavy_hitters.record(1, from(black_box(1)), []));
            measure("100 networks and voters", threads, &|n| {
                heavy_hitters.record(1, from(spread(n) % 100), [voter(spread(n) % 100)]);
            });
            measure("each network and voter once", threads, &|n| {
                heavy_hitters.record(1, from(spread(n)), [voter(spread(n))]);
            });
            measure("each voter once, 100 at a time", threads, &|n| {
                if n % 100 == 0 {
                    heavy_hitters.record(100, from(spread(n)), (n..n + 100).map(|n| voter(spread(n))));
                }
            });
        }
        let proxies: crate::client_ip::TrustedProxies = "10.0.0.0/8,192.0.2.7".parse().unwrap();
        measure("a client behind two proxies", 1, &|_| {
            black_box(proxies.client(black_box([10, 0, 0, 1]).into(), ["203.0.113.9, 192.0.2.7"]));
        });
    }
}
