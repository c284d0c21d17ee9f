//! The parts of a summary as documents.

use mongodb::bson::{RawDocument, RawDocumentBuf, deserialize_from_slice, serialize_to_raw_document_buf};
use serde::{Deserialize, Serialize};
use votes::{ContestCounts, Counts, Partition, StoreError, UnixMillis, Window};

use crate::call::failed;

/// The maximum number of counts in one part. With the longest names such a part has about 1 MB, and the limit of a
/// document is 16 MB.
const MAX_PART_COUNTS: usize = 1_000;

/// The document of a part.
#[derive(Serialize, Deserialize)]
struct Part {
    #[serde(rename = "_id")]
    id: String,
    partition: i32,
    generation: String,
    fence: i64,
    contest: String,
    counts: Vec<Count>,
}

/// The votes of a band, an album, a producer or a minute.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Count {
    Band { name: String, votes: i64 },
    Album { name: String, album: String, votes: i64 },
    Producer { producer: String, votes: i64 },
    Minute { start: i64, votes: i64 },
}

/// Returns the documents of a generation with these counts.
pub(super) fn part_documents(
    partition: Partition,
    generation: &str,
    fence: i64,
    counts: &Counts,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    let mut documents = Vec::new();
    for (contest, counts) in &counts.contests {
        let mut counts = counts_of(counts).peekable();
        for number in 0.. {
            if counts.peek().is_none() {
                break;
            }
            let part = Part {
                id: format!("{partition}/{generation}/{contest}/{number}"),
                partition: partition.0.into(),
                generation: generation.to_owned(),
                fence,
                contest: contest.to_string(),
                counts: counts.by_ref().take(MAX_PART_COUNTS).collect(),
            };
            documents.push(serialize_to_raw_document_buf(&part).map_err(failed)?);
        }
    }
    Ok(documents)
}

/// Adds the counts of a part.
pub(super) fn add_part(counts: &mut Counts, document: &RawDocument) -> Result<(), StoreError> {
    let part: Part = deserialize_from_slice(document.as_bytes()).map_err(failed)?;
    let contest = counts.contests.entry(part.contest.parse().map_err(failed)?).or_default();
    part.counts.into_iter().try_for_each(|count| add(contest, count)).map_err(failed)
}

fn counts_of(counts: &ContestCounts) -> impl Iterator<Item = Count> {
    fn votes(count: u64) -> i64 {
        i64::try_from(count).unwrap_or(i64::MAX)
    }
    let bands = counts.bands.iter().map(|(name, count)| Count::Band { name: name.clone(), votes: votes(*count) });
    let albums = counts.albums.iter().map(|((name, album), count)| Count::Album {
        name: name.clone(),
        album: album.clone(),
        votes: votes(*count),
    });
    let producers = counts
        .producers
        .iter()
        .map(|(producer, count)| Count::Producer { producer: producer.to_string(), votes: votes(*count) });
    let minutes = counts.windows.iter().filter(|((window, _), _)| *window == Window::Minute);
    let minutes = minutes.map(|((_, start), count)| Count::Minute { start: start.0, votes: votes(*count) });
    bands.chain(albums).chain(producers).chain(minutes)
}

fn add(counts: &mut ContestCounts, count: Count) -> Result<(), String> {
    let whole = |votes: i64| u64::try_from(votes).map_err(|_| format!("{votes} is not a number of votes"));
    match count {
        Count::Band { name, votes } => *counts.bands.entry(name).or_default() += whole(votes)?,
        Count::Album { name, album, votes } => *counts.albums.entry((name, album)).or_default() += whole(votes)?,
        Count::Producer { producer, votes } => {
            *counts.producers.entry(producer.parse()?).or_default() += whole(votes)?;
        }
        Count::Minute { start, votes } => {
            *counts.windows.entry((Window::Minute, UnixMillis(start))).or_default() += whole(votes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use votes::conformance::logged;

    use super::*;

    #[test]
    fn the_counts_of_two_generations_are_added() {
        // More counts than one part may have.
        let votes: Vec<_> = (0..2_500)
            .map(|n| {
                let mut logged = logged(n, Partition(3), n);
                logged.vote.name = format!("Band {n}");
                logged
            })
            .collect();
        let mut read = Counts::default();
        for (generation, votes) in [("first", &votes[..]), ("second", &votes[1_200..])] {
            let documents = part_documents(Partition(3), generation, 0, &Counts::of(votes)).unwrap();
            assert!(documents.len() > 1, "{} parts", documents.len());
            for document in &documents {
                add_part(&mut read, document).unwrap();
            }
        }
        let mut expected = Counts::of(votes.iter().chain(&votes[1_200..]));
        expected.drop_expiring_windows();
        assert_eq!(read, expected);
    }
}
