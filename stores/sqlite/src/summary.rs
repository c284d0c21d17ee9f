//! The summaries of expired votes, in `count.db`.

use rusqlite::{Connection, Row, params, types::Type};
use votes::{ContestCounts, Counts, Partition, UnixMillis, Window};

const BAND: &str = "band";
const ALBUM: &str = "album";
const PRODUCER: &str = "producer";
const MINUTE: &str = "minute";

/// Reads the counts of the expired votes of a partition.
pub(super) fn read(db: &Connection, partition: Partition) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut query =
        db.prepare_cached("SELECT contest, kind, name, album, votes FROM summaries WHERE partition = ?1")?;
    let mut rows = query.query([partition.0])?;
    while let Some(row) = rows.next()? {
        let contest = row.get_ref(0)?.as_str()?.parse().map_err(|problem| unreadable(0, problem))?;
        read_count(row, counts.contests.entry(contest).or_default())?;
    }
    Ok(counts)
}

fn read_count(row: &Row<'_>, counts: &mut ContestCounts) -> rusqlite::Result<()> {
    let (name, votes): (String, u64) = (row.get(2)?, row.get(4)?);
    match row.get_ref(1)?.as_str()? {
        BAND => _ = counts.bands.insert(name, votes),
        ALBUM => _ = counts.albums.insert((name, row.get(3)?), votes),
        PRODUCER => _ = counts.producers.insert(name.parse().map_err(|problem| unreadable(2, problem))?, votes),
        MINUTE => {
            let start = name.parse().map_err(|_| unreadable(2, format!("{name:?} is not a time")))?;
            counts.windows.insert((Window::Minute, UnixMillis(start)), votes);
        }
        other => return Err(unreadable(1, format!("{other:?} is not a kind of count"))),
    }
    Ok(())
}

/// Adds counts to the counts of the expired votes of a partition.
pub(super) fn add(db: &Connection, partition: Partition, counts: &Counts) -> rusqlite::Result<()> {
    let mut add = db.prepare_cached(
        "INSERT INTO summaries (partition, contest, kind, name, album, votes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET votes = votes + excluded.votes",
    )?;
    for (contest, counts) in &counts.contests {
        let mut count = |kind, name: &str, album: &str, votes: u64| {
            add.execute(params![partition.0, contest.as_str(), kind, name, album, votes]).map(drop)
        };
        counts.bands.iter().try_for_each(|(band, votes)| count(BAND, band, "", *votes))?;
        counts.albums.iter().try_for_each(|((band, album), votes)| count(ALBUM, band, album, *votes))?;
        counts.producers.iter().try_for_each(|(producer, votes)| count(PRODUCER, producer.as_str(), "", *votes))?;
        let minutes = counts.windows.iter().filter(|((window, _), _)| *window == Window::Minute);
        minutes
            .map(|((_, start), votes)| (start.0.to_string(), *votes))
            .try_for_each(|(start, votes)| count(MINUTE, &start, "", votes))?;
    }
    Ok(())
}

fn unreadable(index: usize, problem: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into())
}
