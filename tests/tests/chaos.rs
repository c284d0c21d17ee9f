//! Two minutes of `dev/chaos`.

use std::{path::Path, time::Duration};

use tests::chaos::{Options, run};

/// Any will do; a fixed one makes a failure easier to look into. `dev/chaos --seed` plays others.
const SEED: u64 = 2;

#[test]
fn two_minutes_of_faults_lose_and_double_no_vote() {
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
    assert!(times >= 25, "only {times} faults happened: {:?}", report.faults);
}
