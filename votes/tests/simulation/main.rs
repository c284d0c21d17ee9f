//! The simulation of the counting step: random histories of everything that may go wrong, with the production
//! [`Counter`](votes::Counter), fold and audit over a log and stores in memory.
//!
//! There is no runtime and no clock. The counter's futures are polled by hand, and each call to a store takes effect in one
//! instant between two polls; so the schedule decides, call by call, who comes first, who dies before the request
//! arrives or before the reply does, and whose request arrives long after. Everything is drawn from one seed.
//!
//! A history has one or two partitions, with two consumers always on each and zombies besides. While faults rage
//!
//! - votes are appended, with gaps in the offsets, poison records and repeats: the same vote sent again, or another one by a
//!   voter who has only one;
//! - consumers are killed, some with a request still on its way, or fall asleep, are replaced, and wake as zombies;
//! - calls are refused, or take effect and lose their reply; inserts store some of their votes and fail;
//! - the tallies are rolled back to a backup, forwards too, or wiped, whoever is counting;
//! - the book is restored from a backup, with checkpoints that may be older than its documents, and with the consumers stopped;
//! - the log's retention deletes what is counted, and the book's sums up and deletes votes that nobody repeats any more, though
//!   their repeats may still be counted by a zombie;
//! - rules change, and auditors look on.
//!
//! Then the faults stop, each partition gets one more vote, since a consumer that waits learns only with the next vote that
//! the tallies were wiped, and all finish. In the end each ballot is counted exactly once, by
//! band, album, door and window; the book has exactly the first copy of each; both positions are the log's end; and the
//! production audit finds no difference. On the way it is checked that B never passes a vote that is not in the book, that T
//! never passes what was booked, that each addition is what stands between the old T and the new, that no partition
//! stops, and that an audit while counting finds no difference.
//!
//! The same is tried with [weakened variants](mutants) of the algorithm: each has to be caught.
//!
//! # Replay
//!
//! A violation prints its seed. To read its history step by step:
//!
//! ```sh
//! SIMULATION_SEED=42 cargo test -p votes --test simulation -- one_seed --nocapture
//! ```
//!
//! With `SIMULATION_MUTANT=NoFence` it is the history of that variant, with `SIMULATION_LONG=1` one of the long ones.
//! `SIMULATION_SEEDS=1000000` tries more seeds, and `SIMULATION_FIRST=100000` begins with another one. A seed means the same
//! history as long as the simulation and the locked version of `rand` stay as they are.

mod check;
#[cfg(feature = "conformance")]
mod conformance;
mod consumer;
mod history;
mod log;
mod mutants;
mod seeds;
mod stores;
mod world;

use std::{collections::BTreeMap, env, fmt::Write as _};

use history::{Plan, run};
use mutants::Mutant;
use seeds::survey;

/// The production algorithm.
const PRODUCTION: Plan = Plan { seed: 0, mutant: None, is_long: false, is_traced: false };

/// With how many seeds a mutant is tried.
const MUTANT_SEEDS: u64 = 2_000;

/// What has to happen in many histories, or they prove less than they say.
const RICH: [&str; 25] = [
    "additions of summaries",
    "advances that something expired before",
    "audits of the end",
    "audits while counting",
    "changes of rules",
    "consumers that slept through a restore",
    "disagreements",
    "fenced additions",
    "gaps in the log",
    "holes",
    "kills",
    "lost replies",
    "partial inserts",
    "poison records",
    "processes that fell asleep",
    "refused calls",
    "repeats of a ballot",
    "restores of the book",
    "roll-backs of the tallies",
    "tallies that were cleared",
    "trims of the log",
    "votes that expired",
    "votes that stayed for their repeats",
    "wipes of the tallies",
    "zombies that woke",
];

#[test]
fn every_ballot_is_counted_exactly_once() {
    let seeds = number("SIMULATION_SEEDS", 100_000);
    let happened = holds(PRODUCTION, number("SIMULATION_FIRST", 0), seeds);
    if seeds >= 1_000 {
        let missing: Vec<&str> = RICH.into_iter().filter(|what| !happened.contains_key(what)).collect();
        assert_eq!(missing, [""; 0], "never happened");
    }
}

/// The book is folded in chunks of a thousand votes, which short histories never fill.
#[test]
fn every_ballot_of_a_long_log_is_counted_exactly_once() {
    let happened = holds(Plan { is_long: true, ..PRODUCTION }, 0, 100);
    assert!(happened.contains_key("full chunks of the book"));
}

#[test]
fn every_mutant_is_caught() {
    let mut table =
        format!("of {MUTANT_SEEDS} histories\n{:>8} {:>12} {:>6}  variant\n", "caught", "wrong at end", "first");
    let mut survivors = Vec::new();
    for (mutant, what) in Mutant::ALL {
        let plan = Plan { mutant: Some(mutant), ..PRODUCTION };
        let survey = survey(plan, 0, MUTANT_SEEDS);
        let first = survey.violations.keys().next();
        let (caught, wrong) = (survey.violations.len(), survey.wrong_ends);
        let first = first.map_or_else(|| "none".to_owned(), |seed| (seed + 1).to_string());
        let _ = writeln!(table, "{caught:>8} {wrong:>12} {first:>6}  {mutant:?}: {what}");
        if caught == 0 || (wrong == 0 && mutant != Mutant::TalliesFirst) {
            survivors.push(mutant);
        }
        assert_eq!(survey.happened.get("audits that were wrong"), None, "{mutant:?}: the audit has to see it too");
    }
    println!("{table}");
    assert_eq!(survivors, [], "{table}");
    // The weakening is what was caught: without it the same seeds pass.
    holds(PRODUCTION, 0, MUTANT_SEEDS);
}

#[test]
fn a_seed_is_one_history() {
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
        named.unwrap_or_else(|| panic!("SIMULATION_MUTANT={name}: there is none of that name")).0
    });
    let is_long = env::var_os("SIMULATION_LONG").is_some();
    let outcome = run(Plan { seed: number("SIMULATION_SEED", 0), mutant, is_long, is_traced: true });
    println!("{}", outcome.trace);
    assert_eq!(outcome.violation, None);
}

/// Panics with the easiest history to read if any breaks a promise; else says how often what happened.
fn holds(plan: Plan, first: u64, count: u64) -> BTreeMap<&'static str, u64> {
    let survey = survey(plan, first, count);
    println!("{}", survey.report());
    if let Some((seed, trace)) = survey.shortest(plan) {
        let all: Vec<u64> = survey.violations.keys().copied().take(20).collect();
        let long = if plan.is_long { "SIMULATION_LONG=1 " } else { "" };
        panic!(
            "{trace}\n{} of {count} histories break a promise, the first of them {all:?}. Of seed {seed}: {}\nto replay it:\n\
            {long}SIMULATION_SEED={seed} cargo test -p votes --test simulation -- one_seed --nocapture",
            survey.violations.len(),
            survey.violations[&seed],
        );
    }
    survey.happened
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: has to be a whole number")))
}
