//! How full the machine is, or the container's share of it: memory, disk and CPU, for `/health` and as
//! `ovation_used_ratio{resource}`.

use std::{
    collections::VecDeque,
    future::ready,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{describe_gauge, gauge};
use votes::Facts;

use crate::health::{Health, Weight};

/// Fuller than this is told as degraded.
const FULL: f64 = 0.9;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// CPU is told over so many looks: a minute. A short burst is what it is for.
const CPU_LOOKS: usize = 12;

/// What is looked at, in the order of [`Used`].
const RESOURCES: [&str; 3] = ["memory", "disk", "cpu"];

/// How full each of [`RESOURCES`] is, 0 to 1; `None` if it can't be told here.
type Used = [Option<f64>; 3];

/// Shows the machine at `/health` from now on, and looks at it until the future is dropped. `folder` says which disk.
pub(crate) async fn watch(health: Health, folder: PathBuf) {
    describe_gauge!("ovation_used_ratio", "How full a resource of the machine or container is, 0 to 1");
    let used = Arc::new(Mutex::new(Used::default()));
    for (index, resource) in RESOURCES.into_iter().enumerate() {
        let used = Arc::clone(&used);
        health.check(resource, Weight::Helpful, move || {
            let used = used.lock().unwrap_or_else(PoisonError::into_inner)[index];
            ready(used.map_or_else(|| Ok(Facts::new()), told))
        });
    }
    let mut cpu = VecDeque::with_capacity(CPU_LOOKS + 1);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        cpu.extend(system::cpu());
        if cpu.len() > CPU_LOOKS + 1 {
            cpu.pop_front();
        }
        let now = [system::memory(), disk(&folder), cpu_used(&cpu)];
        for (resource, ratio) in RESOURCES.into_iter().zip(now) {
            if let Some(ratio) = ratio {
                gauge!("ovation_used_ratio", "resource" => resource).set(ratio);
            }
        }
        *used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

fn told(used: f64) -> Result<Facts, String> {
    let percent = format!("{:.0} %", used * 100.0);
    if used > FULL { Err(format!("{percent} is used")) } else { Ok(Facts::from([("used", percent)])) }
}

/// Time that was used and time that could have been, since some beginning and in one unit.
#[derive(Clone, Copy, Debug)]
struct CpuTime {
    used: f64,
    available: f64,
}

/// The share between the first look and the last.
fn cpu_used(looks: &VecDeque<CpuTime>) -> Option<f64> {
    let (first, last) = (looks.front()?, looks.back()?);
    let available = last.available - first.available;
    (available > 0.0).then(|| ((last.used - first.used) / available).clamp(0.0, 1.0))
}

/// Of the file system that has the folder, or will have it.
fn disk(folder: &Path) -> Option<f64> {
    let folder = std::path::absolute(folder).ok()?;
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    // As `df` has it: what only root may use counts neither as used nor as free.
    let (used, free) = (disk.f_blocks - disk.f_bfree, disk.f_bavail);
    (used + free > 0).then(|| used as f64 / (used + free) as f64)
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs, time::Instant};

    use procfs::{Current, CurrentSI, KernelStats, Meminfo};

    use super::CpuTime;

    /// Where a container sees its own limits.
    const CGROUP: &str = "/sys/fs/cgroup";

    fn cgroup(file: &str) -> Option<String> {
        fs::read_to_string(format!("{CGROUP}/{file}")).ok()
    }

    /// A line `name value` of a cgroup's statistics.
    fn statistic(file: &str, name: &str) -> Option<f64> {
        let text = cgroup(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(super) fn memory() -> Option<f64> {
        let limited = || {
            let limit: f64 = cgroup("memory.max")?.trim().parse().ok()?;
            let used: f64 = cgroup("memory.current")?.trim().parse().ok()?;
            // Pages of files that nobody reads are given back first.
            Some((used - statistic("memory.stat", "inactive_file")?) / limit)
        };
        limited().or_else(|| {
            let memory = Meminfo::current().ok()?;
            Some(1.0 - memory.mem_available? as f64 / memory.mem_total as f64)
        })
    }

    pub(super) fn cpu() -> Option<CpuTime> {
        let limited = || {
            let limit = cgroup("cpu.max")?;
            let (quota, period) = limit.trim().split_once(' ')?;
            let cores = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
            let used = statistic("cpu.stat", "usage_usec")? / 1e6;
            Some(CpuTime { used, available: since_start() * cores })
        };
        limited().or_else(|| {
            let total = KernelStats::current().ok()?.total;
            let idle = (total.idle + total.iowait.unwrap_or(0)) as f64;
            let busy =
                (total.user + total.nice + total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0)) as f64;
            Some(CpuTime { used: busy, available: busy + idle })
        })
    }

    /// Seconds; only differences matter.
    fn since_start() -> f64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::CpuTime;

    pub(super) fn memory() -> Option<f64> {
        None
    }

    pub(super) fn cpu() -> Option<CpuTime> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_full_is_no_longer_well() {
        assert_eq!(told(0.9), Ok(Facts::from([("used", "90 %".to_owned())])));
        assert_eq!(told(0.94), Err("94 % is used".to_owned()));
    }

    #[test]
    fn cpu_is_told_between_the_first_look_and_the_last() {
        let looks = |looks: &[(f64, f64)]| {
            cpu_used(&looks.iter().map(|&(used, available)| CpuTime { used, available }).collect())
        };
        assert_eq!(looks(&[]), None);
        assert_eq!(looks(&[(5.0, 10.0)]), None);
        assert_eq!(looks(&[(5.0, 10.0), (100.0, 11.0), (7.0, 20.0)]), Some(0.2));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_disk_of_its_parent() {
        let here = disk(Path::new("/")).unwrap();
        assert!((0.0..=1.0).contains(&here), "{here}");
        assert!(disk(Path::new("/not/there/yet")).is_some());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_can_be_told() {
        let memory = system::memory().unwrap();
        assert!(memory > 0.0 && memory < 1.0, "{memory}");
        assert!(system::cpu().unwrap().available >= 0.0);
    }
}
