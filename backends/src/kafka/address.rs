//! `kafka://HOST:PORT[,HOST:PORT...]/TOPIC[?OPTIONS]`.

use std::{fs::File, time::Duration};

use rdkafka::ClientConfig;

/// The topic of a URL that names none.
const DEFAULT_TOPIC: &str = "votes";

/// What the doors and the promise need; nobody may change it by an option.
const OURS: [&str; 10] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "bootstrap.servers",
    "group.id",
    "auto.offset.reset",
    "enable.auto.commit",
    "message.timeout.ms",
    "allow.auto.create.topics",
    "statistics.interval.ms",
];

/// Where the vote log is, and how it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `HOST:PORT`, separated by commas.
    pub(super) brokers: String,
    /// The topic of the votes.
    pub(super) topic: String,
    /// `?partitions=`: fixed for the log's life.
    pub(super) partitions: u16,
    /// `?replication=`: copies of each partition; if absent three, or as many as there are brokers.
    pub(super) replication: Option<u16>,
    /// `?min_insync=`: copies that have a vote before it is acknowledged; if absent, one less than there are copies.
    pub(super) min_insync: Option<u16>,
    /// `?retention=`: days that records are kept; for ever if absent.
    pub(super) retention: Option<Duration>,
    /// `?segment=`: megabytes of a file of the log. Kafka deletes whole files, so a log of bounded size needs small ones.
    pub(super) segment_bytes: u32,
    /// Options with a dot in their names go to the Kafka client as they are, like `security.protocol`.
    client: Vec<(String, String)>,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says which part is wrong, and what it should be.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("kafka://").ok_or("it does not begin with kafka://")?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (brokers, topic) = place.split_once('/').unwrap_or((place, ""));
        let is_broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !brokers.split(',').all(is_broker) {
            return Err(format!("{brokers:?} are no brokers; give HOST:PORT, or several with commas between them"));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let topic = if topic.is_empty() { DEFAULT_TOPIC } else { topic };
        if topic.len() > 200 || !topic.bytes().all(is_name) || [".", ".."].contains(&topic) {
            return Err(format!("{topic:?} is no topic; a name has up to 200 letters, digits, '.', '_' and '-'"));
        }
        let mut address = Self {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: 12,
            replication: None,
            min_insync: None,
            retention: None,
            segment_bytes: 1 << 30,
            client: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(options.as_bytes()) {
            address.set(&name, &value)?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let whole = |most: u16| match value.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name}={value} is no whole number from 1 to {most}")),
        };
        match name {
            "partitions" => self.partitions = whole(10_000)?,
            "replication" => self.replication = Some(whole(100)?),
            "min_insync" => self.min_insync = Some(whole(100)?),
            "retention" => self.retention = Some(Duration::from_hours(24 * u64::from(whole(36_500)?))),
            "segment" => self.segment_bytes = u32::from(whole(1_024)?) << 20,
            _ if OURS.contains(&name) => return Err(format!("{name} can't be chosen: what is promised depends on it")),
            _ if name.contains('.') => {
                // The library would only say that something is wrong with it.
                if name.starts_with("ssl.") && name.ends_with(".location") && value != "probe" {
                    File::open(value).map_err(|error| format!("{name}: {value}: {error}"))?;
                }
                self.client.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                return Err(format!(
                    "there is no option {name:?}; there are partitions, replication, min_insync, retention (days), segment \
                     (MB), and those of the Kafka client, which have a dot in their names"
                ));
            }
        }
        Ok(())
    }

    /// The dead-letter topic.
    pub(super) fn dead_topic(&self) -> String {
        format!("{}.dead", self.topic)
    }

    /// The topic of imports' chunks.
    pub(super) fn chunks_topic(&self) -> String {
        format!("{}.imports", self.topic)
    }

    /// The consumers' group: the same for every consumer of this log, for ever.
    pub(super) fn group(&self) -> String {
        format!("ovation-{}", self.topic)
    }

    /// What every client of the log starts from.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ovation")
            // A broker that comes back is noticed within half a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.connection.setup.timeout.ms", "2000")
            // A broker that hangs is left after this.
            .set("socket.timeout.ms", "5000")
            .set("socket.nagle.disable", "true")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // A topic that is gone is missed, and never made by the way with a broker's own idea of it.
            .set("allow.auto.create.topics", "false")
            .set("log.connection.close", "false")
            // Whether a client still knows a broker.
            .set("statistics.interval.ms", "1000");
        for (name, value) in &self.client {
            config.set(name, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_brokers_topic_and_options() {
        let address =
            Address::parse("kafka://a:9092,b:9093/night?partitions=24&replication=3&security.protocol=ssl").unwrap();
        assert_eq!((address.brokers.as_str(), address.topic.as_str()), ("a:9092,b:9093", "night"));
        assert_eq!((address.partitions, address.replication, address.min_insync), (24, Some(3), None));
        assert_eq!(address.client().get("security.protocol"), Some("ssl"));
        assert_eq!(address.dead_topic(), "night.dead");
        assert_eq!(Address::parse("kafka://a:1").unwrap().topic, "votes");
    }

    #[test]
    fn a_bad_url_says_what_is_wrong() {
        for (url, word) in [
            ("http://a:1", "kafka://"),
            ("kafka://", "brokers"),
            ("kafka://a", "HOST:PORT"),
            ("kafka://a:1,b/votes", "HOST:PORT"),
            ("kafka://a:1/no topic", "no topic"),
            ("kafka://a:1/votes?partitions=0", "partitions=0"),
            ("kafka://a:1/votes?retention=1h", "retention=1h"),
            ("kafka://a:1/votes?colour=red", "colour"),
            ("kafka://a:1/votes?acks=1", "acks"),
            ("kafka://a:1/votes?ssl.ca.location=/no/such/file", "ssl.ca.location: /no/such/file: No such file"),
        ] {
            let problem = Address::parse(url).unwrap_err();
            assert!(problem.contains(word), "{url}: {problem}");
        }
    }
}
