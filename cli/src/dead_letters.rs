//! `ovation dead-letters`: lists or replays the dead letters, the records of the log that are not votes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use log_record::decode_dead_letter;
use serde::Serialize;
use serde_json::json;
use service::{Config, config::StoreFlags, health::Criticality, program::Failure};
use stores::{Access, Stores};
use votes::{DeadLetter, DeadLetterPart, ForeignRecord, LogReader, LogWriter, Partition, StoreError, Vote};

/// List or replay the dead letters: the records of the vote log that are not votes
#[derive(Args)]
#[command(after_help = "Example:\n  ovation dead-letters list --vote-log kafka://127.0.0.1:9092/votes --json")]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the dead letters, with their positions and the reasons
    List(Flags),
    /// Publish the dead letters that this version can parse on the vote log again. If you replay them twice, no vote
    /// counts twice. Exit code 1 if only a part of a dead letter is left
    Replay(Flags),
}

#[derive(Args, Serialize)]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// Print JSON
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

pub(crate) async fn run(args: DeadLettersArgs) -> Result<ExitCode, Failure> {
    match args.action {
        Action::List(flags) => list(flags).await,
        Action::Replay(flags) => replay(flags).await,
    }
}

async fn list(flags: Flags) -> Result<ExitCode, Failure> {
    let is_json = flags.json;
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Read)?;
    let log_reader = stores.standalone_log_reader(Criticality::Required).await?;
    let mut out = io::stdout().lock();
    let (mut listed, mut foreign) = (0_u64, 0_u64);
    if is_json {
        write!(out, "{{\"dead_letters\":[")?;
    }
    for partition in (0..log_reader.partitions()).map(Partition) {
        let mut reader = log_reader.dead_letters(partition).await?;
        while let Some(part) = reader.next_part().await? {
            foreign += report_foreign(&part);
            for letter in &part.letters {
                if is_json {
                    let comma = if listed > 0 { "," } else { "" };
                    write!(out, "{comma}{}", to_json(letter))?;
                } else {
                    print_letter(&mut out, letter)?;
                }
                listed += 1;
            }
        }
    }
    if is_json {
        writeln!(out, "],\"foreign_records\":{foreign}}}")?;
    } else {
        writeln!(out, "{listed} dead letters")?;
        if foreign > 0 {
            writeln!(out, "{foreign} records of another program among them were skipped")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a replay did with the dead letters.
#[derive(Default, Serialize)]
struct ReplayReport {
    /// Votes that were published again.
    replayed: u64,
    /// Dead letters that are still no vote.
    unreadable: u64,
    /// Dead letters of which only a part is left: the dead letter was cut, and the log no longer has the record.
    incomplete: u64,
    /// Records among the dead letters that are no dead letters.
    foreign_records: u64,
}

async fn replay(flags: Flags) -> Result<ExitCode, Failure> {
    let is_json = flags.json;
    // Only one process at a time can write to an embedded log, so this fails while the system runs.
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Write)?;
    let (log_reader, log_writer) =
        (stores.standalone_log_reader(Criticality::Required).await?, stores.log_writer(Criticality::Required).await?);
    let mut outcome = ReplayReport::default();
    for partition in (0..log_reader.partitions()).map(Partition) {
        let mut reader = log_reader.dead_letters(partition).await?;
        while let Some(part) = reader.next_part().await? {
            outcome.foreign_records += report_foreign(&part);
            for letter in &part.letters {
                replay_letter(letter, (&*log_reader, &*log_writer), &mut outcome).await?;
            }
        }
    }
    let ReplayReport { replayed, unreadable, incomplete, foreign_records } = outcome;
    if is_json {
        println!("{}", json!(outcome));
    } else {
        println!(
            "{replayed} votes were published on the vote log again; {unreadable} dead letters still can't be read"
        );
        if incomplete > 0 {
            println!("{incomplete} dead letters were cut, and the log no longer has their records");
        }
        if foreign_records > 0 {
            println!("{foreign_records} records of another program among them were skipped");
        }
    }
    Ok(if incomplete > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The record of a dead letter.
enum Original {
    Vote(Box<Vote>),
    /// This version can't read the record.
    NoVote,
    /// The dead letter was cut, and the log no longer has the record.
    Gone,
}

/// Publishes the vote of a dead letter, if it is one.
async fn replay_letter(
    letter: &DeadLetter,
    (log_reader, log_writer): (&dyn LogReader, &dyn LogWriter),
    outcome: &mut ReplayReport,
) -> Result<(), Failure> {
    let original = if letter.is_truncated {
        read_original(log_reader, letter).await?
    } else {
        decode_dead_letter(letter).map_or(Original::NoVote, |vote| Original::Vote(Box::new(vote)))
    };
    match original {
        Original::Vote(vote) => {
            let partition = vote.key.partition(log_writer.partitions());
            log_writer.publish(partition, *vote)?.await?;
            outcome.replayed += 1;
        }
        Original::NoVote => outcome.unreadable += 1,
        Original::Gone => {
            eprintln!(
                "{}: skipped, because the dead letter was cut and the log no longer has the record",
                letter.position
            );
            outcome.incomplete += 1;
        }
    }
    Ok(())
}

/// Reads the record of a dead letter that was cut from the log.
async fn read_original(log_reader: &dyn LogReader, letter: &DeadLetter) -> Result<Original, StoreError> {
    let (partition, offset) = (letter.position.partition, letter.position.offset);
    let bounds = log_reader.bounds(partition).await?;
    if offset < bounds.start || bounds.end <= offset {
        return Ok(Original::Gone);
    }
    log_reader.seek(partition, offset).await?;
    let batch = log_reader.next_batch(partition, 1).await?;
    // The log may be another one than that of the dead letter.
    Ok(match batch.records.into_iter().find(|record| record.offset == offset).map(|record| record.vote) {
        Some(Ok(vote)) if vote.key.as_str().as_bytes().starts_with(&letter.invalid.key) => {
            Original::Vote(Box::new(vote))
        }
        Some(Err(invalid))
            if invalid.key.starts_with(&letter.invalid.key) && invalid.value.starts_with(&letter.invalid.value) =>
        {
            Original::NoVote
        }
        _ => Original::Gone,
    })
}

/// Reports the records of a part that are no dead letters. Returns their number.
fn report_foreign(part: &DeadLetterPart) -> u64 {
    for ForeignRecord { partition, offset, problem } in &part.foreign {
        eprintln!("partition {partition}, offset {offset} of the dead letters: skipped, because {problem}");
    }
    part.foreign.len() as u64
}

fn print_letter(out: &mut impl Write, letter: &DeadLetter) -> io::Result<()> {
    let DeadLetter { position, accepted_at, invalid, size, is_truncated } = letter;
    let cut = if *is_truncated { " (cut)" } else { "" };
    writeln!(out, "{position}  {accepted_at}  {size} bytes{cut}  {}", invalid.reason)
}

fn to_json(DeadLetter { position, accepted_at, invalid, size, is_truncated }: &DeadLetter) -> serde_json::Value {
    json!({
        "partition": position.partition.0,
        "offset": position.offset.0,
        "accepted_at": accepted_at.to_string(),
        "reason": invalid.reason,
        "key": String::from_utf8_lossy(&invalid.key),
        "value_bytes": size,
        "truncated": is_truncated,
    })
}
