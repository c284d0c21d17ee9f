//! Creates the dataset of the benchmark and its queries, and checks the answers.
//!
//! A row of the dataset is a ballot with a price. Every query selects the ballots of a price range, which are a share
//! of about [`SHARE`] of all ballots. An answer is right if it has exactly the matching rows, in the order of their
//! numbers, and their total.

use std::{fmt, ops::RangeInclusive};

use query::{DatasetRow, MAX_PAGE_ROWS};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use crate::bands::BUILT_IN;

/// The approximate share of all rows that each query returns.
pub(super) const SHARE: f64 = 0.35;

pub(super) const COLUMNS: [&str; 6] = ["band", "album", "year", "country", "city", "price"];

/// The range of prices, in cents. The prices are uniformly distributed.
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

/// All ballots: those that the dataset has at the start, and those that are added later.
pub(super) struct Ballots {
    ballots: Vec<Ballot>,
    queries: Vec<BallotQuery>,
}

struct Ballot {
    cells: [String; COLUMNS.len()],
    /// The ballot as a row of an answer.
    json: String,
}

struct BallotQuery {
    /// The parameters of the URL.
    query: String,
    /// The numbers of the matching ballots, in ascending order.
    matching: Vec<usize>,
}

#[derive(Deserialize)]
struct Band {
    name: String,
    album: String,
    year: String,
}

/// The status of the cache in an answer (`served.cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CacheStatus {
    Hit,
    Stale,
    Miss,
    Bypassed,
    Degraded,
}

/// An answer from which the rows were removed.
#[derive(Deserialize)]
struct AnswerWithoutRows {
    rows: [(); 0],
    total: usize,
    total_is: String,
    next: Option<String>,
    served: Served,
}

#[derive(Deserialize)]
struct Served {
    via: String,
    cache: CacheStatus,
}

/// An answer that does not match the query.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a wrong answer to {query}: {problem}")]
pub(super) struct WrongAnswer {
    query: String,
    problem: String,
}

impl Ballots {
    /// Draws ballots and creates queries.
    pub(super) fn draw(ballots: usize, queries: usize, seed: u64) -> Self {
        let bands: Vec<Band> = serde_json::from_str(BUILT_IN).expect("the built-in bands are well-formed");
        let mut random = SmallRng::seed_from_u64(seed);
        let (prices, drawn): (Vec<u32>, Vec<Ballot>) = (0..ballots).map(|_| Ballot::draw(&bands, &mut random)).unzip();
        let length = f64::from(PRICES.end - PRICES.start);
        let width = length * SHARE;
        let step = (length - width) / queries.saturating_sub(1).max(1) as f64;
        let query = |index: usize| {
            let from = f64::from(PRICES.start) + (step * index as f64).round();
            let range = from..from + width.round();
            BallotQuery {
                query: format!("price=gte:{}&price=lt:{}&limit={MAX_PAGE_ROWS}", Price(range.start), Price(range.end)),
                matching: (0..ballots).filter(|ballot| range.contains(&f64::from(prices[*ballot]))).collect(),
            }
        };
        Self { ballots: drawn, queries: (0..queries).map(query).collect() }
    }

    /// Returns a ballot as a row of the dataset.
    pub(super) fn row(&self, ballot: usize) -> DatasetRow {
        DatasetRow { number: ballot as u64, cells: self.ballots[ballot].cells.to_vec() }
    }

    /// Returns the parameters of a query.
    pub(super) fn query(&self, query: usize) -> &str {
        &self.queries[query].query
    }

    /// Checks an answer and returns its cache status. `loaded` is the range of the possible numbers of ballots in the
    /// dataset: from the number that was certainly loaded when the query was sent, to the number that may have been
    /// loaded when the answer arrived.
    ///
    /// # Errors
    /// If the answer is wrong.
    pub(super) fn check(
        &self,
        query: usize,
        via: &str,
        loaded: RangeInclusive<usize>,
        answer: &[u8],
    ) -> Result<CacheStatus, WrongAnswer> {
        let BallotQuery { query, matching } = &self.queries[query];
        let wrong = |problem: &dyn fmt::Display| WrongAnswer { query: query.clone(), problem: problem.to_string() };
        let (rows, end) = self.take_rows(matching, answer);
        let end: AnswerWithoutRows = serde_json::from_slice(&end)
            .map_err(|error| wrong(&format_args!("row {} or the text after it is wrong: {error}", rows + 1)))?;
        let _: [(); 0] = end.rows;
        let count = |ballots: usize| matching.partition_point(|ballot| *ballot < ballots);
        let (min, max) = (count(*loaded.start()), count(*loaded.end()));
        if !(min..=max).contains(&rows) || end.next.is_some() {
            return Err(wrong(&format_args!("{rows} rows instead of {min} to {max}")));
        }
        if (end.total, &*end.total_is) != (rows, "exact") {
            let AnswerWithoutRows { total, total_is, .. } = end;
            return Err(wrong(&format_args!("a total of {total} ({total_is}) for {rows} rows")));
        }
        if end.served.via != via {
            return Err(wrong(&format_args!("it was served via {}, not {via}", end.served.via)));
        }
        Ok(end.served.cache)
    }

    /// Removes the expected rows from the beginning of an answer. Returns the number of removed rows, and the rest of
    /// the answer.
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
    /// Returns a random ballot and its price in cents.
    fn draw(bands: &[Band], random: &mut SmallRng) -> (u32, Self) {
        let Band { name, album, year } = &bands[random.random_range(0..bands.len())];
        let (country, city) = CITIES[random.random_range(0..CITIES.len())];
        let price = random.random_range(PRICES);
        let text = |text: &str| text.to_owned();
        let cells = [text(name), text(album), text(year), text(country), text(city), Price(price.into()).to_string()];
        let members = COLUMNS.iter().zip(&cells).map(|(column, cell)| {
            format!("\"{column}\":{}", serde_json::to_string(cell).expect("a text can always be written as JSON"))
        });
        let json = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        (price, Self { cells, json })
    }
}

/// A price in cents, displayed with two decimals.
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

    fn answer(ballots: &Ballots, query: usize, loaded: usize) -> String {
        let matching = ballots.queries[query].matching.iter().filter(|ballot| **ballot < loaded);
        let rows: Vec<&str> = matching.map(|ballot| ballots.ballots[*ballot].json.as_str()).collect();
        format!(
            r#"{{"rows":[{}],"total":{},"total_is":"exact","served":{{"via":"cache","cache":"hit","age_ms":3}}}}"#,
            rows.join(","),
            rows.len()
        )
    }

    #[test]
    fn every_query_is_different_and_returns_about_its_share() {
        let ballots = Ballots::draw(60_000, 50, 1);
        for query in 0..50 {
            let rows = ballots.queries[query].matching.len();
            assert!((20_000..22_000).contains(&rows), "{rows} for {}", ballots.query(query));
            assert!(query == 0 || ballots.query(query) != ballots.query(query - 1));
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
        assert_eq!(check(1_000..=1_000, &right), Ok(CacheStatus::Hit));
        assert_eq!(check(1_000..=1_001, &right), Ok(CacheStatus::Hit));
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
