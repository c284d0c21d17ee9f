//! The simulation of the consumer runs random histories with every kind of fault. It uses the production service,
//! [`consumer::run`], with a log, a consumer group and stores in memory. So the production assignment, counting,
//! retention, dead letters, back-off, health and shutdown run, and the production audit beside them.
//!
//! Each history has a runtime of its own with a paused clock, see [`history`]. Each call to a store or to the log is a
//! pending operation, see [`operations`]. The history decides when the call takes effect and when its reply arrives. So
//! it decides for each call which process is first, which process is killed before its request or its reply arrives,
//! and which request arrives long after its process was killed. Everything is drawn from one seed.
//!
//! A history has one or two partitions, and one or two consumer groups that count them into the same stores. With two,
//! each partition always has two consumers. While faults occur,
//!
//! - votes are appended with gaps in the offsets, with invalid records, and with duplicates: the same vote, sent again,
//!   or the second vote of a voter who has only one vote;
//! - consumers start, shut down, are killed, some with requests in flight, or are paused, replaced, and resumed as
//!   zombies;
//! - partitions move between consumers. The notices of this arrive late. The new owner may begin before the former owner
//!   has finished;
//! - calls are refused, or take effect and lose their reply; inserts store some of their votes and fail;
//! - the log loses a fetch, and returns no record until the consumer seeks again;
//! - a majority of the ledger's servers is behind, so that the latest documents can't be read;
//! - the tallies are wiped, or replaced by an older or newer backup, while consumers count;
//! - the ledger is restored from a backup, with checkpoints that may be older than its documents, and with the
//!   consumers stopped;
//! - the retention deletes counted records from the log;
//! - the retention counts votes of the ledger in summaries and deletes them. In some histories, they expire by size, when
//!   no new duplicate of these votes can arrive. A zombie may still count an old duplicate. In the other histories, they
//!   expire by age: the clocks of all processes are wrong by up to a second, publishing takes up to 3 s, and duplicates
//!   follow their originals until the very end of the retention;
//! - the rules of a contest change, and audits run;
//! - no call is answered for up to 12 s.
//!
//! Then the faults stop. At the end, the following must be true:
//!
//! - Within 60 s of simulated time, everything is counted, and each consumer reports that it is well.
//! - The tallies count each ballot exactly once, by band, album, producer and window.
//! - The ledger has exactly the originals that have not expired.
//! - Both positions of each partition are at the end of the log.
//! - The dead letters are exactly the invalid records.
//! - The production audit finds no difference.
//! - Consumers without new votes make few calls.
//! - Each consumer shuts down within 10 s of simulated time.
//!
//! During the whole history, the following must be true:
//!
//! - B never passes a vote that is not in the ledger.
//! - T never passes a vote that was not recorded.
//! - Each addition has exactly the originals between the old T and the new T.
//! - The last vote of each position is on the log.
//! - The tallies are cleared only while a partition has a part of the votes of its summary.
//! - The log deletes only records that are recorded in the ledger.
//! - By age, no vote expires that has a duplicate on the log which is not recorded.
//! - A task sends each dead letter once, and again only if the log did not confirm it.
//! - A task that must stop begins no step except those that finish its batch. A service that has shut down has ended when
//!   none of its calls is pending.
//! - The health of a consumer does not name a partition that it does not count.
//! - A task that finds the stores at other positions again and again reconciles at most 6 times a second.
//! - No partition halts.
//! - An audit during counting finds no difference.
//!
//! The same histories run with [mutants](mutants) of the algorithm. The simulation must detect every mutant.
//!
//! # Replay
//!
//! If a history has a violation, the test prints the seed. To read the history step by step:
//!
//! ```sh
//! SIMULATION_SEED=42 cargo test -p consumer --test simulation -- one_seed --nocapture
//! ```
//!
//! `SIMULATION_MUTANT=NoFence` replays the history with that mutant, and `SIMULATION_LONG=1` replays one of the long
//! histories. `SIMULATION_SEEDS=1000000` runs more seeds, and `SIMULATION_FIRST=100000` begins with another seed. A
//! seed gives the same history until the simulation or the locked version of `rand` changes.

mod check;
mod conformance;
mod ending;
mod group;
mod history;
mod ledger;
mod log;
mod members;
mod mutants;
mod operations;
mod operators;
mod process;
mod profile;
mod reader;
mod seeds;
mod tallies;
mod world;

use std::{collections::BTreeMap, env, fmt::Write as _};

use history::run;
use mutants::Mutant;
use profile::Plan;
use seeds::{Survey, survey};

/// The production algorithm.
const PRODUCTION: Plan = Plan { seed: 0, mutant: None, is_long: false, is_traced: false };

/// The maximum number of histories with which each mutant is tested.
const MUTANT_SEEDS: u64 = 2_000;

/// The number of detections after which a mutant is tested no further.
const ENOUGH_DETECTIONS: u64 = 5;

/// The events that must occur in at least one of many histories. Otherwise the histories don't test every fault.
const REQUIRED_EVENTS: [&str; 32] = [
    "additions of summaries",
    "audits of the end",
    "audits while counting",
    "changes of rules",
    "checkpoints refused because of a cut-off",
    "checkpoints refused because of a hole",
    "clears of the tallies",
    "clears that another consumer had made",
    "consumers that were idle during a restore",
    "duplicates",
    "expirations by age",
    "expirations by size",
    "fenced additions",
    "gaps in the log",
    "invalid records",
    "kills",
    "lost fetches",
    "lost replies",
    "moves that do not wait",
    "moves that wait",
    "originals retained for their duplicates",
    "partial inserts",
    "pauses",
    "reads of a stalled snapshot",
    "reconciliations",
    "refused calls",
    "restores of the ledger",
    "resumed zombies",
    "roll-backs of the tallies",
    "shutdowns",
    "trims of the log",
    "wipes of the tallies",
];

#[test]
fn every_ballot_is_counted_exactly_once() {
    let seeds = env_number("SIMULATION_SEEDS", 30_000);
    let event_counts = assert_no_violation(PRODUCTION, env_number("SIMULATION_FIRST", 0), seeds);
    if seeds >= 1_000 {
        let missing: Vec<&str> =
            REQUIRED_EVENTS.into_iter().filter(|event| !event_counts.contains_key(event)).collect();
        assert_eq!(missing, [""; 0], "these events never occurred");
    }
}

/// The ledger is read in chunks of a thousand votes. Short histories never fill a chunk.
#[test]
fn every_ballot_of_a_long_log_is_counted_exactly_once() {
    let event_counts = assert_no_violation(Plan { is_long: true, ..PRODUCTION }, 0, 100);
    assert!(event_counts.contains_key("full chunks of the ledger"));
}

#[test]
fn every_mutant_is_detected() {
    let mut table = format!("at most {MUTANT_SEEDS} histories\n histories detected wrong at end  mutant\n");
    let mut survivors = Vec::new();
    for (mutant, rule) in Mutant::ALL {
        let plan = Plan { mutant: Some(mutant), ..PRODUCTION };
        let is_right_at_end = Mutant::RIGHT_AT_END.contains(&mutant);
        let detections = |survey: &Survey| {
            if is_right_at_end { survey.violations.len() as u64 } else { survey.end_violations }
        };
        let survey = survey(plan, 0, MUTANT_SEEDS, |survey| detections(survey) >= ENOUGH_DETECTIONS);
        let (histories, detected, wrong) = (survey.seeds, survey.violations.len(), survey.end_violations);
        let _ = writeln!(table, "{histories:>10} {detected:>8} {wrong:>12}  {mutant:?}: {rule}");
        if detections(&survey) == 0 {
            survivors.push(mutant);
        }
        assert_eq!(
            survey.event_counts.get("wrong audits"),
            None,
            "{mutant:?}: the audit does not agree with the checks"
        );
    }
    println!("{table}");
    assert_eq!(survivors, [], "{table}");
    // Without the broken rules, the same seeds have no violation. So the violations come from the broken rules.
    assert_no_violation(PRODUCTION, 0, MUTANT_SEEDS);
}

#[test]
fn a_seed_always_gives_the_same_history() {
    for seed in 0..20 {
        let traced = || run(Plan { seed, is_traced: true, ..PRODUCTION }).trace;
        assert_eq!(traced(), traced());
    }
}

#[test]
fn one_seed() {
    let name = env::var("SIMULATION_MUTANT").ok();
    let mutant = name.map(|name| {
        let named = Mutant::ALL.into_iter().find(|(mutant, _)| format!("{mutant:?}") == name);
        named.unwrap_or_else(|| panic!("SIMULATION_MUTANT={name}: there is no such mutant")).0
    });
    let is_long = env::var_os("SIMULATION_LONG").is_some();
    let outcome = run(Plan { seed: env_number("SIMULATION_SEED", 0), mutant, is_long, is_traced: true });
    println!("{}", outcome.trace);
    assert_eq!(outcome.violation, None);
}

/// Panics with the shortest history that has a violation, if there is one. Otherwise returns how often each event
/// occurred.
fn assert_no_violation(plan: Plan, first: u64, count: u64) -> BTreeMap<&'static str, u64> {
    let survey = survey(plan, first, count, |_| false);
    println!("{}", survey.report());
    if let Some((seed, trace)) = survey.shortest_trace(plan) {
        let first_seeds: Vec<u64> = survey.violations.keys().copied().take(20).collect();
        let long = if plan.is_long { "SIMULATION_LONG=1 " } else { "" };
        panic!(
            "{trace}\n{} of {count} histories have a violation; the first are {first_seeds:?}. Seed {seed}: {}\nto replay it:\n\
            {long}SIMULATION_SEED={seed} cargo test -p consumer --test simulation -- one_seed --nocapture",
            survey.violations.len(),
            survey.violations[&seed],
        );
    }
    survey.event_counts
}

fn env_number(variable: &str, default: u64) -> u64 {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: must be a whole number")))
}
