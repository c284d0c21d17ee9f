//! How much each question is asked, and how long its answer is worth keeping.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// In this time half of what was asked is forgotten.
const HALF_LIFE: Duration = Duration::from_mins(5);

/// How long an answer is kept for each time that its question was asked lately, at least and at most.
const KEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_hours(1));

/// The most questions that are told apart.
const MOST: usize = 10_000;

/// Questions, and how much they are asked.
#[derive(Default)]
pub(crate) struct Popularity(HashMap<String, Heat>);

#[derive(Clone, Copy)]
struct Heat {
    /// How often it was asked, older times counting less, at this moment.
    weight: f64,
    at: Instant,
    /// Until when its answer is kept, as far as this process knows.
    until: Instant,
}

impl Heat {
    fn now(&self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.weight * (-halves).exp2()
    }
}

impl Popularity {
    /// A question was asked. Returns how long its answer is to be kept from now on.
    pub(crate) fn ask(&mut self, question: &str, now: Instant) -> Duration {
        self.add(question, 1.0, now)
    }

    /// A question was asked so much before.
    pub(crate) fn add(&mut self, question: &str, weight: f64, now: Instant) -> Duration {
        if self.0.len() >= MOST && !self.0.contains_key(question) {
            self.thin_out(now);
        }
        let heat = self.0.entry(question.to_owned()).or_insert(Heat { weight: 0.0, at: now, until: now });
        *heat = Heat { weight: heat.now(now) + weight, at: now, ..*heat };
        KEPT.0.mul_f64(heat.weight.clamp(1.0, KEPT.1.div_duration_f64(KEPT.0)))
    }

    /// The answer is kept from now on.
    pub(crate) fn keep(&mut self, question: &str, for_time: Duration, now: Instant) {
        if let Some(heat) = self.0.get_mut(question) {
            heat.until = now + for_time;
        }
    }

    /// Whether an answer that is there should be kept longer: less than half of its time is left.
    pub(crate) fn is_due(&self, question: &str, for_time: Duration, now: Instant) -> bool {
        self.0.get(question).is_some_and(|heat| heat.until.saturating_duration_since(now) < for_time / 2)
    }

    /// The questions that are asked most, and more than once.
    pub(crate) fn leaders(&self, most: usize, now: Instant) -> Vec<(String, f64)> {
        let mut leaders: Vec<(&String, f64)> =
            self.0.iter().map(|(question, heat)| (question, heat.now(now))).collect();
        leaders.retain(|(_, weight)| *weight > 1.0);
        leaders.sort_by(|(a, m), (b, n)| n.total_cmp(m).then_with(|| a.cmp(b)));
        leaders.into_iter().take(most).map(|(question, weight)| (question.clone(), weight)).collect()
    }

    /// Half of the questions go, those that are asked least.
    fn thin_out(&mut self, now: Instant) {
        let mut weights: Vec<f64> = self.0.values().map(|heat| heat.now(now)).collect();
        weights.sort_by(f64::total_cmp);
        let middle = weights[weights.len() / 2];
        let mut left = MOST / 2;
        self.0.retain(|_, heat| {
            let weight = heat.now(now);
            let stays = weight > middle || (weight >= middle && left > 0);
            left = left.saturating_sub(usize::from(stays));
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_the_longer_the_more_it_is_asked_for() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        assert_eq!(popularity.ask("q", now), Duration::from_secs(10));
        assert_eq!(popularity.ask("q", now), Duration::from_secs(20));
        assert_eq!(popularity.ask("other", now), Duration::from_secs(10));
        for _ in 0..1_000 {
            popularity.ask("q", now);
        }
        assert_eq!(popularity.ask("q", now), KEPT.1);
        // What was asked long ago counts little.
        assert!(popularity.ask("q", now + 12 * HALF_LIFE) < Duration::from_secs(13));
    }

    #[test]
    fn an_answer_is_prolonged_when_half_of_its_time_is_over() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        let kept = popularity.ask("q", now);
        popularity.keep("q", kept, now);
        assert!(!popularity.is_due("q", kept, now + kept / 3));
        assert!(popularity.is_due("q", kept, now + kept.mul_f64(0.6)));
        assert!(popularity.is_due("q", 3 * kept, now));
    }

    #[test]
    fn leaders_were_asked_more_than_once_and_the_rest_is_bounded() {
        let (mut popularity, now) = (Popularity::default(), Instant::now());
        for n in 0..3 * MOST {
            popularity.ask(&format!("once {n}"), now);
            if n % 1_000 == 0 {
                popularity.ask("often", now);
            }
        }
        assert!(popularity.0.len() <= MOST);
        let leaders = popularity.leaders(5, now);
        assert_eq!(leaders.iter().map(|(question, _)| question.as_str()).collect::<Vec<_>>(), ["often"]);
    }
}
