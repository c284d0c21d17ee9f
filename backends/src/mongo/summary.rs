//! What votes that expired came to.
//!
//! A summary may be larger than a document may, so it is in parts. A partition's checkpoint names the parts that count by
//! their generation, together with the cut-off: so both change in one step, and parts that nobody names change nothing.

use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
};
use serde::{Deserialize, Serialize};
use votes::{ContestCounts, Counts, Offset, Partition, StoreError, UnixMillis, Window};

use super::{book::driver, document::int64, failed};

/// Counts of one document. Its longest names take 1 MB, and a document may have 16.
const PART: usize = 1_000;

/// A part, as it is stored.
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

/// Votes of a band, an album, a door or a minute.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Count {
    Band { name: String, votes: i64 },
    Album { name: String, album: String, votes: i64 },
    Door { door: String, votes: i64 },
    Minute { start: i64, votes: i64 },
}

/// Stores the parts of a generation. They count when a checkpoint names it.
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
                counts: counts.by_ref().take(PART).collect(),
            };
            let part = mongodb::bson::serialize_to_raw_document_buf(&part).map_err(failed)?;
            summaries.insert_one(part).await.map_err(driver)?;
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
    let mut cursor = summaries.find(parts).await.map_err(driver)?;
    let mut counts = Counts::default();
    while cursor.advance().await.map_err(driver)? {
        let part: Part = mongodb::bson::deserialize_from_slice(cursor.current().as_bytes()).map_err(failed)?;
        let contest = counts.contests.entry(part.contest.parse().map_err(failed)?).or_default();
        part.counts.into_iter().try_for_each(|count| add(contest, count)).map_err(failed)?;
    }
    Ok(counts)
}

/// The parts of other generations than this, which no checkpoint will name: whoever wrote them thought that the cut-off was
/// below where it is.
pub(super) fn others(partition: Partition, generation: &str, cut_off: Offset) -> Document {
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
    let doors = counts.doors.iter().map(|(door, count)| Count::Door { door: door.to_string(), votes: votes(*count) });
    let minutes = counts.windows.iter().filter(|((window, _), _)| *window == Window::Minute);
    let minutes = minutes.map(|((_, start), count)| Count::Minute { start: start.0, votes: votes(*count) });
    bands.chain(albums).chain(doors).chain(minutes)
}

fn add(counts: &mut ContestCounts, count: Count) -> Result<(), String> {
    let whole = |votes: i64| u64::try_from(votes).map_err(|_| format!("{votes} is no number of votes"));
    match count {
        Count::Band { name, votes } => _ = counts.bands.insert(name, whole(votes)?),
        Count::Album { name, album, votes } => _ = counts.albums.insert((name, album), whole(votes)?),
        Count::Door { door, votes } => _ = counts.doors.insert(door.parse()?, whole(votes)?),
        Count::Minute { start, votes } => {
            counts.windows.insert((Window::Minute, UnixMillis(start)), whole(votes)?);
        }
    }
    Ok(())
}
