//! Who sends most of the traffic: the share that the most frequent voter and network have in a door's votes.
//!
//! Votes are noted in windows of one minute that follow each other without a gap. Each window counts in a fixed number of
//! counters, so memory is bounded however many voters and networks there are. A timer ends the windows, so a door that
//! nobody comes to any more goes back to 0.

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

use crate::client::Network;

/// How long a window is.
const WINDOW: Duration = Duration::from_mins(1);

/// Keys of one kind that a window tells apart. What it tells is too high by less than one vote in so many.
const COUNTERS: usize = 256;

/// Windows with fewer votes say nothing: in a quiet minute anyone has a large share.
const FEWEST_VOTES: u64 = 1_000;

/// From this share of a window's votes on a network is named in the log.
const DOMINATING: f64 = 0.3;

const RATIO: &str = "ovation_heavy_hitter_ratio";

/// What one door saw of who votes.
pub(crate) struct Traffic {
    door: &'static str,
    window: Mutex<Window>,
    voter_ratio: Gauge,
    network_ratio: Gauge,
}

impl Traffic {
    /// Begins the first window; the ratios are 0 until it ends. Windows end for as long as anybody has the traffic.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn new(door: &'static str) -> Arc<Self> {
        Self::in_windows_of(WINDOW, door)
    }

    fn in_windows_of(length: Duration, door: &'static str) -> Arc<Self> {
        metrics::describe_gauge!(RATIO, "Share of the most frequent voter or network in the votes of the last minute");
        let ratio = |kind| metrics::gauge!(RATIO, "door" => door, "kind" => kind);
        let traffic = Arc::new(Self {
            door,
            window: Mutex::default(),
            voter_ratio: ratio("voter"),
            network_ratio: ratio("network"),
        });
        traffic.end_window();
        tokio::spawn(end_windows(Arc::downgrade(&traffic), length));
        traffic
    }

    /// Notes votes that came from one network, and those of their voters that are known.
    pub(crate) fn note(&self, votes: u64, from: Option<Network>, known: impl IntoIterator<Item = VoterHash>) {
        let mut window = self.window();
        window.votes += votes;
        if let Some(network) = from {
            window.networks.count(network, votes);
        }
        for voter in known {
            window.voters.count(voter, 1);
        }
    }

    /// Tells of the window's votes, and begins the next window.
    pub(crate) fn end_window(&self) {
        let Window { votes, voters, networks } = mem::take(&mut *self.window());
        let share = |most| if votes < FEWEST_VOTES { 0.0 } else { most as f64 / votes as f64 };
        self.voter_ratio.set(share(voters.most()));
        let ratio = share(networks.most());
        self.network_ratio.set(ratio);
        if ratio > DOMINATING
            && let Some(network) = networks.most_frequent()
        {
            tracing::warn!(door = self.door, %network, ratio, votes, "most votes of the last minute are of one network");
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end_windows(traffic: Weak<Traffic>, length: Duration) {
    let mut ends = interval_at(Instant::now() + length, length);
    // After a stall the next window is a whole one again.
    ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ends.tick().await;
        let Some(traffic) = traffic.upgrade() else { return };
        traffic.end_window();
    }
}

#[derive(Default)]
struct Window {
    votes: u64,
    voters: Sketch<VoterHash>,
    networks: Sketch<Network>,
}

/// Counts of the most frequent keys of a stream, in a fixed number of counters: Misra and Gries, "Finding repeated elements",
/// Science of Computer Programming 2 (1982), with weights.
///
/// A key that finds no free counter is dropped along with as much of every other key. So of n votes a count lacks what was
/// dropped of each key, and that is at most n / ([`COUNTERS`] + 1). All that is ever dropped was counted before, so a vote
/// costs a constant time on average, whatever the stream.
struct Sketch<K> {
    counts: HashMap<K, u64>,
    /// What a key has at most been counted too low.
    dropped: u64,
}

impl<K> Default for Sketch<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), dropped: 0 }
    }
}

impl<K: Copy + Eq + Hash> Sketch<K> {
    fn count(&mut self, key: K, mut votes: u64) {
        while votes > 0 {
            if let Some(count) = self.counts.get_mut(&key) {
                *count += votes;
                return;
            }
            if self.counts.len() < COUNTERS {
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

    /// How often the most frequent key was counted: never less than it was, and more by at most what was dropped.
    fn most(&self) -> u64 {
        self.counts.values().max().copied().unwrap_or(0) + self.dropped
    }

    /// The key that was counted most.
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
        let name = format!("{RATIO}{{door=\"rest\",kind=\"{kind}\"}} ");
        let metrics = recorder.handle().render();
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
    }

    /// What is logged on this thread.
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
    async fn a_network_that_dominates_is_named_once_a_window() {
        let (recorder, log) = (PrometheusBuilder::new().build_recorder(), Log::default());
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        let _log = tracing::subscriber::set_default(subscriber);
        let traffic = Traffic::new("rest");
        traffic.note(400, Some(network(7)), std::iter::repeat_n(voter(1), 200));
        for n in 100..700 {
            traffic.note(1, Some(network(n)), [voter(n.into())]);
        }
        traffic.end_window();
        let (of_network, of_voter) = (ratio(&recorder, "network"), ratio(&recorder, "voter"));
        assert!((0.4..0.4 + 1.0 / 257.0).contains(&of_network), "{of_network}");
        assert!((0.2..0.2 + 1.0 / 257.0).contains(&of_voter), "{of_voter}");
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("WARN") && text.contains("network=10.0.7.0/24") && text.contains("door=\"rest\""),
            "{text}"
        );
        for n in 0..2_000 {
            traffic.note(1, Some(network(n % 4)), [voter(1)]);
        }
        traffic.end_window();
        assert!((ratio(&recorder, "network") - 0.25).abs() < 1e-9);
        assert!((ratio(&recorder, "voter") - 1.0).abs() < 1e-9);
        assert_eq!(log.text(), text, "a voter is never logged, nor is a quarter of the votes");
    }

    #[tokio::test]
    async fn too_few_votes_and_votes_of_no_kind_say_nothing() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let traffic = Traffic::new("rest");
        traffic.note(FEWEST_VOTES - 1, Some(network(1)), []);
        traffic.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
        traffic.note(FEWEST_VOTES, None, []);
        traffic.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
        traffic.note(FEWEST_VOTES, Some(network(1)), []);
        traffic.end_window();
        assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (1.0, 0.0));
    }

    #[tokio::test]
    async fn an_idle_door_goes_back_to_0() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _metrics = metrics::set_default_local_recorder(&recorder);
        let traffic = Traffic::in_windows_of(Duration::from_millis(10), "rest");
        traffic.note(FEWEST_VOTES, Some(network(1)), []);
        traffic.end_window();
        assert!(ratio(&recorder, "network") > 0.9);
        let is_back = async {
            while ratio(&recorder, "network") > 0.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_back).await.expect("nobody ended the window");
    }

    /// Streams in which few keys are most of the votes, as in life, or all are alike.
    fn streams() -> impl Strategy<Value = Vec<(u32, u64)>> {
        (0.2..8.0, 1_u64..40, 300_u32..20_000).prop_flat_map(|(skew, most_votes, keys)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a key is any number")]
            let key = (0.0..1.0).prop_map(move |at: f64| (at.powf(skew) * f64::from(keys)) as u32);
            vec((key, 1..=most_votes), 0..4_000)
        })
    }

    proptest! {
        #[test]
        fn a_sketch_is_never_below_the_truth_nor_far_above(stream in streams()) {
            let mut sketch = Sketch::default();
            let mut exact = HashMap::<u32, u64>::new();
            for &(key, votes) in &stream {
                sketch.count(key, votes);
                *exact.entry(key).or_default() += votes;
                prop_assert!(sketch.counts.len() <= COUNTERS);
            }
            let votes: u64 = exact.values().sum();
            let bound = votes / (COUNTERS as u64 + 1);
            prop_assert!(sketch.dropped <= bound);
            for (key, &truth) in &exact {
                let counted = sketch.counts.get(key).copied().unwrap_or(0);
                prop_assert!((counted..=counted + bound).contains(&truth), "{key}: {counted} of {truth}");
            }
            let truth = exact.values().copied().max().unwrap_or(0);
            prop_assert!((truth..=truth + bound).contains(&sketch.most()), "{} for {truth}", sketch.most());
            if let Some(named) = sketch.most_frequent() {
                prop_assert!(exact[&named] + bound >= truth, "{named} is not the most frequent");
            }
        }
    }

    /// `cargo test --release -p service -- --ignored --nocapture how_fast`
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn how_fast_votes_are_noted() {
        const VOTES: u64 = 2_000_000;
        let traffic = Traffic::new("rest");
        let measured = |what: &str, threads: u64, note: &(dyn Fn(u64) + Sync)| {
            let begun = std::time::Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || (thread * VOTES..(thread + 1) * VOTES).for_each(note));
                }
            });
            let nanos = begun.elapsed().as_nanos() as f64 / VOTES as f64;
            println!("{what}, {threads} at once: {nanos:.0} ns a vote of each");
        };
        // Spread without order, and without the cost of a random number.
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let from = |n: u64| Some(network(u32::try_from(n % 0xffff).unwrap_or_default()));
        for threads in [1, 2] {
            measured("nothing but the keys", threads, &|n| {
                black_box((from(spread(n)), voter(spread(n))));
            });
            measured("one network, no voter", threads, &|_| traffic.note(1, from(black_box(1)), []));
            measured("100 networks and voters", threads, &|n| {
                traffic.note(1, from(spread(n) % 100), [voter(spread(n) % 100)]);
            });
            measured("no network or voter twice", threads, &|n| traffic.note(1, from(spread(n)), [voter(spread(n))]));
            measured("no voter twice, 100 at a time", threads, &|n| {
                if n % 100 == 0 {
                    traffic.note(100, from(spread(n)), (n..n + 100).map(|n| voter(spread(n))));
                }
            });
        }
        let proxies: crate::client::TrustedProxies = "10.0.0.0/8,192.0.2.7".parse().unwrap();
        measured("a client behind two proxies", 1, &|_| {
            black_box(proxies.client(black_box([10, 0, 0, 1]).into(), ["203.0.113.9, 192.0.2.7"]));
        });
    }
}
