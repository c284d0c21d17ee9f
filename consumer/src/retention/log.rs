//! Expires records from the vote log: for all partitions of this consumer together.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use tokio::time::sleep;
use votes::{LogReader, Retention};

use super::policy::{LOG, RETENTION_INTERVAL, RETRY_DELAY, RetentionPolicy, count_expired};
use crate::state::States;

/// The shortest and the longest interval between two expiries by age. In between, the interval is such that a record is
/// at most 5 % older than the retention when it expires, as in the ledger.
const AGE_INTERVALS: RangeInclusive<Duration> = RETENTION_INTERVAL..=Duration::from_secs(30);

/// Expires the counted records that exceed the retention of the log, until the future is dropped. Returns at once if the
/// log retains all records.
///
/// The log needs counted records only if the ledger must be restored from a backup. So their age is measured by the
/// clock.
pub(crate) async fn expire_log(log_reader: Arc<dyn LogReader>, policy: RetentionPolicy, states: States) {
    let Some(retention) = policy.log else { return };
    let interval = match retention {
        Retention::Age(age) => Retention::excess(age).clamp(*AGE_INTERVALS.start(), *AGE_INTERVALS.end()),
        Retention::Bytes(_) => RETENTION_INTERVAL,
    };
    loop {
        sleep(interval).await;
        let counted = states.positions();
        if counted.is_empty() {
            // The consumers that count the partitions expire their records.
            policy.failures.clear((LOG, None));
            continue;
        }
        match log_reader.expire(&counted, retention, policy.now()).await {
            Ok(records) => {
                count_expired(LOG, records);
                policy.failures.clear((LOG, None));
            }
            Err(error) => {
                policy.failures.record((LOG, None), &error);
                sleep(RETRY_DELAY).await;
            }
        }
    }
}
