//! Turns the statistics of a Kafka client into metrics. librdkafka reports them twice a second.

use std::collections::BTreeMap;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use rdkafka::{
    Statistics,
    statistics::{Broker, Window},
};

const SECONDS: &str = "ovation_kafka_seconds";
const VOTES: &str = "ovation_kafka_request_votes";
const REQUESTS: &str = "ovation_kafka_produce_requests_total";
const RETRIES: &str = "ovation_kafka_retries_total";

/// The counters of a client when they were last added to the metrics. The counters of the next client start at 0.
#[derive(Default)]
pub(super) struct ClientCounters {
    brokers: BTreeMap<i32, Counters>,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    requests: u64,
    retries: u64,
}

/// Describes the metrics.
pub(super) fn describe_metrics() {
    describe_gauge!(SECONDS, "Times of the Kafka client in the last half second, by broker, stage and quantile");
    describe_gauge!(VOTES, "Votes in a request of the Kafka client in the last half second, by quantile");
    describe_counter!(REQUESTS, "Requests with votes that the Kafka client sent, by broker");
    describe_counter!(RETRIES, "Requests that the Kafka client sent again, by broker");
}

impl ClientCounters {
    /// Records the statistics of a producer of this topic.
    pub(super) fn record(&mut self, statistics: &Statistics, topic: &str) {
        // The other brokers are the entries of the URL, before the cluster has reported its brokers.
        for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
            self.record_broker(broker);
        }
        if let Some(topic) = statistics.topics.get(topic) {
            for (quantile, votes) in quantiles(&topic.batchcnt) {
                gauge!(VOTES, "quantile" => quantile).set(votes as f64);
            }
        }
    }

    fn record_broker(&mut self, broker: &Broker) {
        let name = broker.nodeid.to_string();
        let stages = [("queue", &broker.int_latency), ("send", &broker.outbuf_latency), ("round_trip", &broker.rtt)];
        for (stage, micros) in stages.into_iter().filter_map(|(stage, window)| Some((stage, window.as_ref()?))) {
            for (quantile, micros) in quantiles(micros) {
                let labels = [("broker", name.clone()), ("stage", stage.to_owned()), ("quantile", quantile.to_owned())];
                gauge!(SECONDS, &labels).set(micros as f64 / 1e6);
            }
        }
        let requests = broker.req.get("Produce").and_then(|requests| u64::try_from(*requests).ok()).unwrap_or_default();
        let now = Counters { requests, retries: broker.txretries };
        let before = self.brokers.insert(broker.nodeid, now).unwrap_or_default();
        counter!(REQUESTS, "broker" => name.clone()).increment(now.requests.saturating_sub(before.requests));
        counter!(RETRIES, "broker" => name).increment(now.retries.saturating_sub(before.retries));
    }
}

fn quantiles(window: &Window) -> [(&'static str, i64); 2] {
    [("0.5", window.p50), ("0.99", window.p99)]
}
