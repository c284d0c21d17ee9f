//! The URL of the vote log: `kafka://HOST:PORT[,HOST:PORT...]/TOPIC[?OPTIONS]`.

use std::{collections::HashSet, fs::File, time::Duration};

use rdkafka::ClientConfig;

/// The topic of a URL without a topic.
const DEFAULT_TOPIC: &str = "votes";

/// The options of librdkafka that a URL can set. A name that ends with a dot stands for all options that begin with it. The
/// promise depends on the other options, or a connection never needs them.
const CLIENT_OPTIONS: [&str; 15] = [
    "broker.address.",
    "client.dns.lookup",
    "client.id",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "log.connection.close",
    "metadata.max.age.ms",
    "sasl.",
    "security.protocol",
    "socket.",
    "ssl.",
    "topic.metadata.refresh.interval.ms",
];

/// Options of librdkafka with two names. If a URL had both, librdkafka would use the one that it gets last.
const ALIASES: [(&str, &str); 2] = [("compression.codec", "compression.type"), ("sasl.mechanisms", "sasl.mechanism")];

/// The address of the vote log and the settings of its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `HOST:PORT` of each broker, separated by commas.
    pub(super) brokers: String,
    /// The topic of the votes.
    pub(super) topic: String,
    /// `?partitions=`: the number of partitions. It must not change while the topic exists.
    pub(super) partitions: u16,
    /// `?replication=`: replicas of each partition; if absent, three, or the number of brokers if it is lower.
    pub(super) replication: Option<u16>,
    /// `?min_insync=`: the fewest in-sync replicas with which Kafka acknowledges a vote; if absent, one less than the
    /// replicas, and at least one.
    pub(super) min_insync: Option<u16>,
    /// `?retention=`: the time that Kafka retains records, in days; if absent, Kafka never deletes them by age.
    pub(super) retention: Option<Duration>,
    /// `?segment=`: the size of a segment, in MiB. Kafka deletes only whole segments, so a log with a size limit needs
    /// small segments.
    pub(super) segment_bytes: u32,
    /// Some of the [`CLIENT_OPTIONS`]. They are passed to librdkafka unchanged.
    client_options: Vec<(String, String)>,
}

impl Address {
    /// Parses a URL.
    ///
    /// # Errors
    /// Returns which part is wrong, and what it should be.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("kafka://").ok_or("it does not begin with kafka://")?;
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (brokers, topic) = path.split_once('/').unwrap_or((path, ""));
        let is_broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !brokers.split(',').all(is_broker) {
            return Err(format!(
                "the brokers {brokers:?} are invalid; give HOST:PORT, or several with commas between them"
            ));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let topic = if topic.is_empty() { DEFAULT_TOPIC } else { topic };
        if topic.len() > 200 || !topic.bytes().all(is_name) || [".", ".."].contains(&topic) {
            return Err(format!(
                "the topic {topic:?} is invalid; a name has up to 200 letters, digits, '.', '_' and '-'"
            ));
        }
        let mut address = Self {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: 12,
            replication: None,
            min_insync: None,
            retention: None,
            segment_bytes: 1 << 30,
            client_options: Vec::new(),
        };
        let mut given = HashSet::new();
        for (name, value) in form_urlencoded::parse(options.as_bytes()) {
            let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
            if !given.insert(alias.map_or_else(|| name.clone().into_owned(), |(_, option)| (*option).to_owned())) {
                return Err(format!("the option {name} is given twice, or under two names"));
            }
            address.set_option(&name, &value)?;
        }
        Ok(address)
    }

    fn set_option(&mut self, name: &str, value: &str) -> Result<(), String> {
        let integer = |max: u16| match value.parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(format!("{name}={value} is invalid; give a whole number from 1 to {max}")),
        };
        match name {
            "partitions" => self.partitions = integer(10_000)?,
            "replication" => self.replication = Some(integer(100)?),
            "min_insync" => self.min_insync = Some(integer(100)?),
            "retention" => self.retention = Some(Duration::from_hours(24 * u64::from(integer(36_500)?))),
            "segment" => self.segment_bytes = u32::from(integer(1_024)?) << 20,
            _ if is_client_option(name) => {
                // librdkafka would not report which file can't be opened. With `probe` librdkafka searches for the
                // file.
                if name.starts_with("ssl.") && name.ends_with(".location") && value != "probe" {
                    File::open(value).map_err(|error| format!("{name}: {value}: {error}"))?;
                }
                self.client_options.push((name.to_owned(), value.to_owned()));
            }
            _ if name.contains('.') => {
                return Err(format!(
                    "the option {name} can't be set. Of the Kafka client's options, a URL can set: {}",
                    CLIENT_OPTIONS
                        .map(|option| if option.ends_with('.') { format!("{option}*") } else { option.to_owned() })
                        .join(", ")
                ));
            }
            _ => {
                return Err(format!(
                    "the option {name:?} does not exist; the options are partitions, replication, min_insync, retention (days), \
                     segment (MB), and some of the Kafka client, like security.protocol"
                ));
            }
        }
        Ok(())
    }

    /// Returns the name of the dead-letter topic.
    pub(super) fn dead_letter_topic(&self) -> String {
        format!("{}.dead", self.topic)
    }

    /// Returns the name of the topic of the chunks of imports.
    pub(super) fn chunks_topic(&self) -> String {
        format!("{}.imports", self.topic)
    }

    /// Returns the id of the consumer group. It is the same for every consumer of this log. A later release must not
    /// change it.
    pub(super) fn group_id(&self) -> String {
        format!("ovation-{}", self.topic)
    }

    /// Returns the configuration that all clients of the log have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ovation")
            // When a broker is back, a client connects to it within half a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.connection.setup.timeout.ms", "2000")
            // After this time without a response, a client closes its connection to a broker.
            .set("socket.timeout.ms", "5000")
            .set("socket.nagle.disable", "true")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // A missing topic is an error. Brokers would create the topic with their own settings.
            .set("allow.auto.create.topics", "false")
            .set("log.connection.close", "false")
            // The statistics show whether the client has lost its brokers.
            .set("statistics.interval.ms", "1000");
        for (name, value) in &self.client_options {
            config.set(name, value);
        }
        config
    }

    /// Returns the configuration of a client that reads partitions which it assigns to itself.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // librdkafka requires a group id for reading. No client joins this group or commits an offset to it.
            .set("group.id", format!("{}-readers", self.group_id()))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Reading starts at the offset of the seek. If the log does not have this offset, reading fails.
            .set("auto.offset.reset", "error")
            // Our producers use no transactions. A transaction of another program that stays open must not hide the
            // votes behind its records. Its records are records like others, also if it is aborted.
            .set("isolation.level", "read_uncommitted");
        config
    }
}

/// Returns whether a URL can set this option of librdkafka.
fn is_client_option(name: &str) -> bool {
    CLIENT_OPTIONS.iter().any(|option| if option.ends_with('.') { name.starts_with(option) } else { name == *option })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_brokers_a_topic_and_options() {
        let address =
            Address::parse("kafka://a:9092,b:9093/night?partitions=24&replication=3&security.protocol=ssl").unwrap();
        assert_eq!((address.brokers.as_str(), address.topic.as_str()), ("a:9092,b:9093", "night"));
        assert_eq!((address.partitions, address.replication, address.min_insync), (24, Some(3), None));
        assert_eq!(address.client().get("security.protocol"), Some("ssl"));
        assert_eq!(address.dead_letter_topic(), "night.dead");
        assert_eq!(Address::parse("kafka://a:1").unwrap().topic, "votes");
    }

    #[test]
    fn the_error_for_an_invalid_url_names_the_invalid_part() {
        for (url, word) in [
            ("http://a:1", "kafka://"),
            ("kafka://", "brokers"),
            ("kafka://a", "HOST:PORT"),
            ("kafka://a:1,b/votes", "HOST:PORT"),
            ("kafka://a:1/no topic", "\"no topic\" is invalid"),
            ("kafka://a:1/votes?partitions=0", "partitions=0"),
            ("kafka://a:1/votes?retention=1h", "retention=1h"),
            ("kafka://a:1/votes?colour=red", "colour"),
            ("kafka://a:1/votes?partitions=3&partitions=4", "partitions is given twice"),
            ("kafka://a:1/votes?sasl.mechanism=PLAIN&sasl.mechanisms=PLAIN", "sasl.mechanisms is given twice"),
            ("kafka://a:1/votes?ssl.ca.location=/no/such/file", "ssl.ca.location: /no/such/file: No such file"),
        ] {
            let problem = Address::parse(url).unwrap_err();
            assert!(problem.contains(word), "{url}: {problem}");
        }
    }

    #[test]
    fn an_option_that_the_promise_depends_on_is_refused_under_each_of_its_names() {
        for name in [
            "acks",
            "request.required.acks",
            "bootstrap.servers",
            "metadata.broker.list",
            "delivery.timeout.ms",
            "linger.ms",
            "message.timeout.ms",
            "enable.idempotence",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "auto.offset.reset",
            "isolation.level",
            "transactional.id",
            "group.id",
            "group.instance.id",
            "retries",
            "message.send.max.retries",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "queue.buffering.max.ms",
            "queue.buffering.max.messages",
            "fetch.message.max.bytes",
            "max.partition.fetch.bytes",
            "message.max.bytes",
            "partitioner",
            "plugin.library.paths",
            "statistics.interval.ms",
            "allow.auto.create.topics",
        ] {
            let problem = Address::parse(&format!("kafka://a:1/votes?{name}=1")).unwrap_err();
            assert!(problem.contains(name), "{name}: {problem}");
        }
    }

    #[test]
    fn librdkafka_knows_each_option_that_a_url_can_set() {
        for (name, value) in [
            ("broker.address.family", "v4"),
            ("client.dns.lookup", "use_all_dns_ips"),
            ("client.id", "producers"),
            ("compression.codec", "none"),
            ("compression.level", "1"),
            ("compression.type", "gzip"),
            ("connections.max.idle.ms", "60000"),
            ("enable.ssl.certificate.verification", "false"),
            ("log.connection.close", "true"),
            ("metadata.max.age.ms", "60000"),
            ("sasl.mechanism", "PLAIN"),
            ("security.protocol", "sasl_ssl"),
            ("socket.keepalive.enable", "true"),
            ("ssl.ca.location", "probe"),
            ("topic.metadata.refresh.interval.ms", "60000"),
        ] {
            assert!(is_client_option(name), "{name}");
            let address = Address::parse(&format!("kafka://a:1/votes?{name}={value}")).unwrap();
            assert_eq!(address.client().get(name), Some(value));
            let known = address.client().create_native_config();
            assert!(known.is_ok(), "{name}: {:?}", known.err());
        }
    }
}
