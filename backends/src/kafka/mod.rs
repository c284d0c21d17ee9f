//! The vote log on Apache Kafka.
