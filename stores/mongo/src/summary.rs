//! The summaries of expired votes.
//!
//! A summary may be larger than the limit of a document, so it is stored in parts. All parts of a summary have the same
//! generation. The checkpoint of a partition has the cut-off and the generation of the valid summary, so both change in
//! one step. Parts of a generation that no checkpoint names are ignored.

use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
};
use serde::{Deserialize, Serialize};
use votes::{ContestCounts, Counts, Offset, Partition, StoreError, UnixMillis, Window};

use crate::{
    call::{driver_error, failed},
    document::int64,
};

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
    cut_off: i64,
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

/// Stores the parts of a generation. They are valid once a checkpoint names the generation.
pub(super) async fn write(
    summaries: &Collection<RawDocumentBuf>,
    partition: Partition,
    generation: &str,
    cut_off: Offset,
    counts: &Counts,
) -> Result<(), StoreError> {
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
                cut_off: int64(cut_off),
                contest: contest.to_string(),
                counts: counts.by_ref().take(MAX_PART_COUNTS).collect(),
            };
            let part = mongodb::bson::serialize_to_raw_document_buf(&part).map_err(failed)?;
            summaries.insert_one(part).await.map_err(driver_error)?;
        }
    }
    Ok(())
}

/// Reads the parts of a generation.
pub(super) async fn read(
    summaries: &Collection<RawDocumentBuf>,
    partition: Partition,
    generation: &str,
) -> Result<Counts, StoreError> {
    let parts = doc! { "partition": i32::from(partition.0), "generation": generation };
    let mut cursor = summaries.find(parts).await.map_err(driver_error)?;
    let mut counts = Counts::default();
    while cursor.advance().await.map_err(driver_error)? {
        let part: Part = mongodb::bson::deserialize_from_slice(cursor.current().as_bytes()).map_err(failed)?;
        let contest = counts.contests.entry(part.contest.parse().map_err(failed)?).or_default();
        part.counts.into_iter().try_for_each(|count| add(contest, count)).map_err(failed)?;
    }
    Ok(counts)
}

/// Returns the filter for the parts of all other generations with this cut-off or an earlier one. No checkpoint will
/// name such a generation: the process that wrote it expects an earlier cut-off in the checkpoint.
pub(super) fn obsolete_parts(partition: Partition, generation: &str, cut_off: Offset) -> Document {
    doc! {
        "partition": i32::from(partition.0),
        "generation": { "$ne": generation },
        "cut_off": { "$lte": int64(cut_off) },
    }
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
        Count::Band { name, votes } => _ = counts.bands.insert(name, whole(votes)?),
        Count::Album { name, album, votes } => _ = counts.albums.insert((name, album), whole(votes)?),
        Count::Producer { producer, votes } => _ = counts.producers.insert(producer.parse()?, whole(votes)?),
        Count::Minute { start, votes } => {
            counts.windows.insert((Window::Minute, UnixMillis(start)), whole(votes)?);
        }
    }
    Ok(())
}
