//! Evaluates measurements of several subjects that are repeated in rounds: the figures of each subject, and the ratios
//! of pairs of subjects. A subject is what is compared: a producer, or a way to execute queries.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::spread::Spread;

/// One measurement.
pub(crate) trait Measured {
    /// The type of what is measured and compared.
    type Subject: Copy + Ord;

    fn subject(&self) -> Self::Subject;

    /// Returns the number of the round, from 1.
    fn round(&self) -> u32;

    /// Returns the measured times in microseconds.
    fn micros(&self) -> &Histogram<u32>;

    /// Returns a quantile of the times, in milliseconds.
    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros().value_at_quantile(quantile) as f64 / 1e3
    }
}

/// All measurements of one subject.
pub(crate) struct Repeated<'a, M>(Vec<&'a M>);

/// Groups the measurements by subject.
pub(crate) fn by_subject<'a, M: Measured>(
    measurements: impl IntoIterator<Item = &'a M>,
) -> BTreeMap<M::Subject, Repeated<'a, M>> {
    let mut subjects: BTreeMap<M::Subject, Repeated<'a, M>> = BTreeMap::new();
    for one in measurements {
        subjects.entry(one.subject()).or_insert_with(|| Repeated(Vec::new())).0.push(one);
    }
    subjects
}

/// One subject of a pair, and its measurements.
pub(crate) type Side<'a, 'm, M> = (<M as Measured>::Subject, &'a Repeated<'m, M>);

/// Returns all pairs of subjects. The first subject of a pair is the lower one in the order of `Subject`.
pub(crate) fn pairs<'a, 'm, M: Measured>(
    subjects: &'a BTreeMap<M::Subject, Repeated<'m, M>>,
) -> impl Iterator<Item = (Side<'a, 'm, M>, Side<'a, 'm, M>)> {
    subjects.iter().enumerate().flat_map(|(index, (&later, of_later))| {
        let earlier = subjects.iter().take(index);
        earlier.map(move |(&earlier, of_earlier)| ((earlier, of_earlier), (later, of_later)))
    })
}

impl<'a, M: Measured> Repeated<'a, M> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a M> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the spread of a figure over all measurements.
    pub(crate) fn spread(&self, figure: fn(&M) -> f64) -> Spread {
        Spread::of(self.iter().map(figure))
    }

    /// Returns one histogram with the times of all measurements.
    pub(crate) fn micros(&self) -> Histogram<u32> {
        let mut micros = Histogram::new(3).expect("three digits are within a histogram's range");
        for one in self.iter() {
            micros.add(one.micros()).expect("a histogram that resizes takes every other");
        }
        micros
    }

    /// Divides the figure of this subject by that of the other, within each round. Returns the spread of these ratios,
    /// or `None` if no round has a ratio.
    pub(crate) fn ratio(&self, other: &Self, figure: fn(&M) -> f64) -> Option<Spread> {
        let by_round = |of: &Self| of.iter().map(|one| (one.round(), figure(one))).collect::<Vec<_>>();
        Spread::of_ratios(&by_round(self), &by_round(other))
    }
}
