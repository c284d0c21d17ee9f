//! Queries about single votes and datasets.
//!
//! | idea | file |
//! |---|---|
//! | the routes of votes and datasets | `votes`, `datasets` |
//! | the request of a query, and the formats of its response | `request`, `response` |
//! | the three ways to serve a query: cache, pool and direct | `reader` |
//! | which responses are cached, and for how long | `cache`, `popularity` |
//! | one run for concurrent requests with the same query | `single_flight` |
//! | caching popular queries at the start of the process | `warm_up` |
//! | clearing the cache | `invalidate` |
//! | the metrics of the cache | `cache_metrics` |
//! | reading the query store | `loading`, `stores` |

mod cache;
mod cache_metrics;
pub(crate) mod datasets;
pub(crate) mod invalidate;
mod loading;
mod popularity;
pub(crate) mod reader;
mod request;
mod response;
mod single_flight;
pub(crate) mod stores;
pub(crate) mod votes;
mod warm_up;
