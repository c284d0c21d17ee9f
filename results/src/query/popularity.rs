//! The popularity of queries, and how long their responses are cached.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The time after which the weight of a request has halved.
const HALF_LIFE: Duration = Duration::from_mins(5);

/// The time for which a response is cached, per recent request. This is also the shortest time for which a response is
/// cached.
const LIFETIME_PER_REQUEST: Duration = Duration::from_secs(10);

/// The longest time for which a response is cached.
const MAX_LIFETIME: Duration = Duration::from_hours(1);

/// The maximum number of queries whose popularity is recorded.
const MAX_QUERIES: usize = 10_000;

/// The popularity of queries.
#[derive(Default)]
pub(crate) struct Popularity(HashMap<String, DecayedCount>);

/// The weighted number of requests for a query. Older requests have less weight.
#[derive(Clone, Copy)]
struct DecayedCount {
    /// The number at the time `at`.
    weight: f64,
    at: Instant,
    /// The time at which the response expires that this process cached or extended last.
    cached_until: Instant,
}

impl DecayedCount {
    fn weight_at(&self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.weight * (-half_lives).exp2()
    }
}

impl Popularity {
    /// Records a request for a query. Returns the time for which the response is to be cached from now on.
    pub(crate) fn record_request(&mut self, query: &str, now: Instant) -> Duration {
        self.add(query, 1.0, now)
    }

    /// Adds the weight of earlier requests for a query. Returns the time for which the response is to be cached from
    /// now on.
    pub(crate) fn add(&mut self, query: &str, weight: f64, now: Instant) -> Duration {
        if self.0.len() >= MAX_QUERIES && !self.0.contains_key(query) {
            self.drop_less_popular_half(now);
        }
        let count = self.0.entry(query.to_owned()).or_insert(DecayedCount { weight: 0.0, at: now, cached_until: now });
        *count = DecayedCount { weight: count.weight_at(now) + weight, at: now, ..*count };
        LIFETIME_PER_REQUEST.mul_f64(count.weight.clamp(1.0, MAX_LIFETIME.div_duration_f64(LIFETIME_PER_REQUEST)))
    }

    /// Records that the response is cached for `lifetime` from now on.
    pub(crate) fn record_cached(&mut self, query: &str, lifetime: Duration, now: Instant) {
        if let Some(count) = self.0.get_mut(query) {
            count.cached_until = now + lifetime;
        }
    }

    /// Returns whether the lifetime of a cached response should be extended: less than half of `lifetime` remains.
    pub(crate) fn should_extend(&self, query: &str, lifetime: Duration, now: Instant) -> bool {
        self.0.get(query).is_some_and(|count| count.cached_until.saturating_duration_since(now) < lifetime / 2)
    }

    /// Returns the most popular queries with their weights, at most `max`. Queries that were requested only once are
    /// not included.
    pub(crate) fn most_popular(&self, max: usize, now: Instant) -> Vec<(String, f64)> {
        let mut queries: Vec<(&String, f64)> =
            self.0.iter().map(|(query, count)| (query, count.weight_at(now))).collect();
        queries.retain(|(_, weight)| *weight > 1.0);
        queries.sort_by(|(a, m), (b, n)| n.total_cmp(m).then_with(|| a.cmp(b)));
        queries.into_iter().take(max).map(|(query, weight)| (query.clone(), weight)).collect()
    }

    fn drop_less_popular_half(&mut self, now: Instant) {
        let mut weights: Vec<f64> = self.0.values().map(|count| count.weight_at(now)).collect();
        weights.sort_by(f64::total_cmp);
        let median = weights[weights.len() / 2];
        let mut remaining = MAX_QUERIES / 2;
        self.0.retain(|_, count| {
            let weight = count.weight_at(now);
            let is_retained = weight > median || (weight >= median && remaining > 0);
            remaining = remaining.saturating_sub(usize::from(is_retained));
            is_retained
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_cached_longer_the_more_often_it_is_requested() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        assert_eq!(popularity.record_request("q", now), Duration::from_secs(10));
        assert_eq!(popularity.record_request("q", now), Duration::from_secs(20));
        assert_eq!(popularity.record_request("other", now), Duration::from_secs(10));
        for _ in 0..1_000 {
            popularity.record_request("q", now);
        }
        assert_eq!(popularity.record_request("q", now), MAX_LIFETIME);
        // Old requests have little weight.
        assert!(popularity.record_request("q", now + 12 * HALF_LIFE) < Duration::from_secs(13));
    }

    #[test]
    fn a_response_is_extended_after_half_of_its_lifetime() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        let lifetime = popularity.record_request("q", now);
        popularity.record_cached("q", lifetime, now);
        assert!(!popularity.should_extend("q", lifetime, now + lifetime / 3));
        assert!(popularity.should_extend("q", lifetime, now + lifetime.mul_f64(0.6)));
        assert!(popularity.should_extend("q", 3 * lifetime, now));
    }

    #[test]
    fn popular_queries_were_requested_more_than_once_and_the_number_of_queries_is_limited() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        for n in 0..3 * MAX_QUERIES {
            popularity.record_request(&format!("once {n}"), now);
            if n % 1_000 == 0 {
                popularity.record_request("often", now);
            }
        }
        assert!(popularity.0.len() <= MAX_QUERIES);
        let popular = popularity.most_popular(5, now);
        assert_eq!(popular.iter().map(|(query, _)| query.as_str()).collect::<Vec<_>>(), ["often"]);
    }
}
