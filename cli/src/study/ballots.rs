//! The study's dataset, its questions, and what the answer to each has to be.
//!
//! Every question asks for the ballots of a range of prices, which are [`SHARE`] of all of them. An answer is right if its rows are
//! exactly those that match, in the order of their numbers, and its total is theirs.

use std::{fmt, ops::RangeInclusive};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use votes::{DatasetRow, query::MAX_COUNT};

use crate::flood::BUILT_IN_BANDS;

/// The share of all rows that each question returns.
pub(super) const SHARE: f64 = 0.35;

pub(super) const COLUMNS: [&str; 6] = ["band", "album", "year", "country", "city", "price"];

/// What a ballot costs, in cents: any of these, each as likely as the others.
const PRICES: std::ops::Range<u32> = 500..10_500;

const CITIES: [(&str, &str); 16] = [
    ("Argentina", "Buenos Aires"),
    ("Australia", "Melbourne"),
    ("Brazil", "São Paulo"),
    ("Canada", "Montréal"),
    ("France", "Lyon"),
    ("Germany", "Köln"),
    ("Iceland", "Reykjavík"),
    ("India", "Mumbai"),
    ("Ireland", "Galway"),
    ("Japan", "東京"),
    ("Mexico", "Guadalajara"),
    ("Norway", "Tromsø"),
    ("Poland", "Łódź"),
    ("Spain", "Sevilla"),
    ("United Kingdom", "Manchester"),
    ("United States", "Nashville"),
];

/// All ballots: those the dataset begins with, and those that are added later.
pub(super) struct Ballots {
    ballots: Vec<Ballot>,
    questions: Vec<Question>,
}

struct Ballot {
    cells: [String; COLUMNS.len()],
    /// As it stands in an answer.
    json: String,
}

struct Question {
    /// The parameters.
    query: String,
    /// The ballots that match, ascending.
    matching: Vec<usize>,
}

#[derive(Deserialize)]
struct Band {
    name: String,
    album: String,
    year: String,
}

/// What became of a question in the cache, as an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kept {
    Hit,
    Stale,
    Miss,
    Bypassed,
    Degraded,
}

/// An answer after its rows.
#[derive(Deserialize)]
struct End {
    rows: [(); 0],
    total: usize,
    total_is: String,
    next: Option<String>,
    served: Served,
}

#[derive(Deserialize)]
struct Served {
    via: String,
    cache: Kept,
}

/// An answer that is none to the question.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a wrong answer to {question}: {problem}")]
pub(super) struct Wrong {
    question: String,
    problem: String,
}

impl Ballots {
    /// So many ballots, and so many questions.
    pub(super) fn draw(ballots: usize, questions: usize, seed: u64) -> Self {
        let bands: Vec<Band> = serde_json::from_str(BUILT_IN_BANDS).expect("the built-in bands are well-formed");
        let mut random = SmallRng::seed_from_u64(seed);
        let (prices, drawn): (Vec<u32>, Vec<Ballot>) = (0..ballots).map(|_| Ballot::draw(&bands, &mut random)).unzip();
        let length = f64::from(PRICES.end - PRICES.start);
        let width = length * SHARE;
        let step = (length - width) / questions.saturating_sub(1).max(1) as f64;
        let question = |place: usize| {
            let from = f64::from(PRICES.start) + (step * place as f64).round();
            let range = from..from + width.round();
            Question {
                query: format!("price=gte:{}&price=lt:{}&limit={MAX_COUNT}", Price(range.start), Price(range.end)),
                matching: (0..ballots).filter(|ballot| range.contains(&f64::from(prices[*ballot]))).collect(),
            }
        };
        Self { ballots: drawn, questions: (0..questions).map(question).collect() }
    }

    /// A ballot as a row to load.
    pub(super) fn row(&self, ballot: usize) -> DatasetRow {
        DatasetRow { number: ballot as u64, cells: self.ballots[ballot].cells.to_vec() }
    }

    /// A question's parameters.
    pub(super) fn query(&self, question: usize) -> &str {
        &self.questions[question].query
    }

    /// Checks a whole answer, and tells what it says of the cache. `loaded` is how many ballots there were for sure when the question
    /// was asked, and how many there may have been when the answer was there.
    pub(super) fn check(
        &self,
        question: usize,
        via: &str,
        loaded: RangeInclusive<usize>,
        answer: &[u8],
    ) -> Result<Kept, Wrong> {
        let Question { query, matching } = &self.questions[question];
        let wrong = |problem: &dyn fmt::Display| Wrong { question: query.clone(), problem: problem.to_string() };
        let (rows, end) = self.take_rows(matching, answer);
        let end: End = serde_json::from_slice(&end).map_err(|error| {
            wrong(&format_args!("row {} or what follows is not as it has to be: {error}", rows + 1))
        })?;
        let _: [(); 0] = end.rows;
        let count = |ballots: usize| matching.partition_point(|ballot| *ballot < ballots);
        let (least, most) = (count(*loaded.start()), count(*loaded.end()));
        if !(least..=most).contains(&rows) || end.next.is_some() {
            return Err(wrong(&format_args!("{rows} rows instead of {least} to {most}")));
        }
        if (end.total, &*end.total_is) != (rows, "exact") {
            let End { total, total_is, .. } = end;
            return Err(wrong(&format_args!("a total of {total} ({total_is}) for {rows} rows")));
        }
        if end.served.via != via {
            return Err(wrong(&format_args!("it came via {}, not {via}", end.served.via)));
        }
        Ok(end.served.cache)
    }

    /// How many of the first rows are those that have to be there; and the answer without these.
    fn take_rows(&self, matching: &[usize], answer: &[u8]) -> (usize, Vec<u8>) {
        const BEGINNING: &[u8] = b"{\"rows\":[";
        let Some(mut rest) = answer.strip_prefix(BEGINNING) else { return (0, answer.to_vec()) };
        let mut rows = 0;
        for ballot in matching {
            let row = if rows == 0 { Some(rest) } else { rest.strip_prefix(b",") };
            let Some(after) = row.and_then(|row| row.strip_prefix(self.ballots[*ballot].json.as_bytes())) else {
                break;
            };
            (rest, rows) = (after, rows + 1);
        }
        (rows, [BEGINNING, rest].concat())
    }
}

impl Ballot {
    /// With its price in cents.
    fn draw(bands: &[Band], random: &mut SmallRng) -> (u32, Self) {
        let Band { name, album, year } = &bands[random.random_range(0..bands.len())];
        let (country, city) = CITIES[random.random_range(0..CITIES.len())];
        let price = random.random_range(PRICES);
        let text = |text: &str| text.to_owned();
        let cells = [text(name), text(album), text(year), text(country), text(city), Price(price.into()).to_string()];
        let members = COLUMNS.iter().zip(&cells).map(|(column, cell)| {
            format!("\"{column}\":{}", serde_json::to_string(cell).expect("a text can always be written"))
        });
        let json = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        (price, Self { cells, json })
    }
}

/// A price in cents, as it is written.
struct Price(f64);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0 / 100.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(ballots: &Ballots, question: usize, loaded: usize) -> String {
        let matching = ballots.questions[question].matching.iter().filter(|ballot| **ballot < loaded);
        let rows: Vec<&str> = matching.map(|ballot| ballots.ballots[*ballot].json.as_str()).collect();
        format!(
            r#"{{"rows":[{}],"total":{},"total_is":"exact","served":{{"via":"cache","cache":"hit","age_ms":3}}}}"#,
            rows.join(","),
            rows.len()
        )
    }

    #[test]
    fn every_question_is_another_and_returns_about_its_share() {
        let ballots = Ballots::draw(60_000, 50, 1);
        for question in 0..50 {
            let rows = ballots.questions[question].matching.len();
            assert!((20_000..22_000).contains(&rows), "{rows} for {}", ballots.query(question));
            assert!(question == 0 || ballots.query(question) != ballots.query(question - 1));
        }
        assert_eq!(ballots.query(0), "price=gte:5.00&price=lt:40.00&limit=50000");
        assert_eq!(ballots.query(49), "price=gte:70.00&price=lt:105.00&limit=50000");
    }

    #[test]
    fn a_seed_repeats_the_ballots() {
        let cells =
            |seed| Ballots::draw(10, 1, seed).ballots.into_iter().map(|ballot| ballot.cells).collect::<Vec<_>>();
        assert_eq!(cells(1), cells(1));
        assert_ne!(cells(1), cells(2));
    }

    #[test]
    fn an_answer_with_another_row_another_total_or_too_few_rows_is_wrong() {
        let ballots = Ballots::draw(1_001, 3, 1);
        let check = |loaded, answer: &str| ballots.check(1, "cache", loaded, answer.as_bytes());
        let right = answer(&ballots, 1, 1_000);
        assert_eq!(check(1_000..=1_000, &right), Ok(Kept::Hit));
        assert_eq!(check(1_000..=1_001, &right), Ok(Kept::Hit));
        assert!(check(500..=500, &right).unwrap_err().to_string().contains("rows instead of"));
        assert!(ballots.check(1, "pool", 1_000..=1_000, right.as_bytes()).unwrap_err().to_string().contains("via"));
        assert!(ballots.check(2, "cache", 1_000..=1_000, right.as_bytes()).is_err());

        let (first, rest) = right.split_once("},").unwrap();
        let missing = format!("{{\"rows\":[{rest}");
        let other = right.replacen("\"price\":\"", "\"price\":\"1", 1);
        let twice = format!("{first}}},{first}}},{rest}").replacen("},{\"rows\":[", "},", 1);
        let total = right.replace("\"exact\"", "\"at_least\"");
        for wrong in [missing, other, twice, total, "{}".to_owned(), right[..right.len() - 1].to_owned()] {
            assert!(check(1_000..=1_000, &wrong).is_err(), "{wrong}");
        }
    }
}
