//! This test runs the chaos test (`dev/chaos`) for two minutes.

use std::{path::Path, time::Duration};

use tests::chaos::{Options, run};

/// The seed is fixed, because a failure is then easier to investigate. `dev/chaos --seed` runs other seeds.
const SEED: u64 = 2;

#[test]
fn two_minutes_of_faults_lose_no_vote_and_count_none_twice() {
    let report = run(&Options {
        length: Duration::from_mins(2),
        seed: SEED,
        rate: 400.0,
        brokers: 1,
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
        port: 19_400,
    });
    assert_eq!(report.violations, [""; 0], "seed {SEED}");
    let times: usize = report.faults.values().sum();
    assert!(times >= 25, "only {times} faults were injected: {:?}", report.faults);
}
