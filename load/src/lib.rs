//! Puts load on a running system and measures it. It contains the commands `ovation flood`, `ovation compare` and
//! `ovation study`, a benchmark of queries.
//!
//! | what | file |
//! |---|---|
//! | votes at a fixed rate over each protocol, and their latency | [`flood`] |
//! | comparison of the producers, in rounds | [`compare`] |
//! | comparison of the three ways to execute a query, in rounds | [`study`] |
//! | TCP connections that count their bytes | `connections` |
//! | an HTTP/1.1 client with one connection, which the task of the caller drives | `http` |
//! | the metrics of a process | `admin` |
//! | repeated measurements of several subjects, and ratios of pairs | `rounds` |
//! | minimum, median and maximum of a figure, and ratios within rounds | `spread` |
//! | Markdown tables for the reports | `markdown` |
//! | SVG plots | `plots` |
//! | random draws that follow Zipf's law | `zipf` |
//! | the bands that are part of the program | `bands` |
//!
//! This crate has an HTTP client of its own, besides [`client`], for two reasons. It counts the bytes on its sockets.
//! And the task that waits for a response also polls the connection, which saves CPU: the load often shares a machine
//! with the servers that it measures.

mod admin;
mod bands;
pub mod compare;
mod connections;
pub mod flood;
mod http;
mod markdown;
mod plots;
mod rounds;
mod spread;
pub mod study;
mod zipf;
