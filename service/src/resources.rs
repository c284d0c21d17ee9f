//! Measures which share of the memory, the disk and the CPU of the machine or container is used, for `/health` and as
//! `ovation_used_ratio{resource}`.

use std::{
    collections::VecDeque,
    future::ready,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{describe_gauge, gauge};
use votes::HealthDetails;

use crate::{
    config::Config,
    health::{Criticality, Health},
};

/// If more than this ratio of a resource is used, its check fails.
const MAX_USED_RATIO: f64 = 0.9;

/// The interval at which the resources are measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// The number of intervals over which the use of the CPU is averaged. Together they take one minute, because short
/// bursts are normal.
const CPU_SAMPLES: usize = 12;

/// The resources, in the order of [`Used`].
const RESOURCES: [&str; 3] = ["memory", "disk", "cpu"];

/// The used ratio of each of [`RESOURCES`], from 0 to 1. `None` if this machine does not report it.
type Used = [Option<f64>; 3];

/// Returns the folders in which a process with this configuration may store data: that of the embedded stores, and that
/// of imported files. Every program opens the vote log, except for a producer that forwards votes. So if the log is
/// embedded, the first folder is one that exists already: the folder of the stores, or the nearest one above it, which is
/// on the same disk.
pub(crate) fn folders(config: &Config) -> Vec<PathBuf> {
    let objects = config.objects.as_deref().and_then(|url| url.strip_prefix("file://"));
    let is_embedded = config.forward.is_none() && config.vote_log.starts_with("embedded:");
    let existing = || nearest_existing(&config.data).filter(|_| is_embedded);
    let data = existing().unwrap_or_else(|| config.data.clone());
    std::iter::once(data).chain(objects.map(PathBuf::from)).collect()
}

/// Returns the folder, or the nearest folder above it that exists.
fn nearest_existing(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    folder.ancestors().find(|folder| folder.exists()).map(Path::to_path_buf)
}

/// Adds the resources to `/health`, and measures them until the future is dropped. The measured disk is the fullest of
/// those with one of the folders. A store creates its folder when it is opened, so a process whose folders don't exist
/// stores nothing on a disk of its machine, and reports no disk.
pub(crate) async fn watch(health: Health, folders: Vec<PathBuf>) {
    describe_gauge!("ovation_used_ratio", "How full a resource of the machine or container is, 0 to 1");
    let used = Arc::new(Mutex::new(Used::default()));
    for (index, resource) in RESOURCES.into_iter().enumerate() {
        let used = Arc::clone(&used);
        health.add_check(resource, Criticality::Optional, move || {
            let used = used.lock().unwrap_or_else(PoisonError::into_inner)[index];
            ready(used.map_or_else(|| Ok(HealthDetails::new()), check_used))
        });
    }
    let mut cpu = VecDeque::with_capacity(CPU_SAMPLES + 1);
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    loop {
        ticks.tick().await;
        cpu.extend(system::cpu());
        if cpu.len() > CPU_SAMPLES + 1 {
            cpu.pop_front();
        }
        let now = [system::memory(), fullest_disk(&folders), cpu_used(&cpu)];
        for (resource, ratio) in RESOURCES.into_iter().zip(now) {
            if let Some(ratio) = ratio {
                gauge!("ovation_used_ratio", "resource" => resource).set(ratio);
            }
        }
        *used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

fn check_used(used: f64) -> Result<HealthDetails, String> {
    let percent = format!("{:.0} %", used * 100.0);
    if used > MAX_USED_RATIO { Err(format!("{percent} is used")) } else { Ok(HealthDetails::from([("used", percent)])) }
}

/// The CPU time that was used and the CPU time that was available, since the same point in time and in the same unit.
#[derive(Clone, Copy, Debug)]
struct CpuTime {
    used: f64,
    available: f64,
}

/// Returns the used ratio between the first sample and the last.
fn cpu_used(samples: &VecDeque<CpuTime>) -> Option<f64> {
    let (first, last) = (samples.front()?, samples.back()?);
    let available = last.available - first.available;
    (available > 0.0).then(|| ((last.used - first.used) / available).clamp(0.0, 1.0))
}

/// Returns the used ratio of the fullest file system with one of the folders. `None` if no folder exists.
fn fullest_disk(folders: &[PathBuf]) -> Option<f64> {
    folders.iter().filter_map(|folder| disk(folder)).reduce(f64::max)
}

/// Returns the used ratio of the file system of a folder. `None` if the folder does not exist.
fn disk(folder: &Path) -> Option<f64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    // As in `df`: blocks that are reserved for root count neither as used nor as free.
    let (used, free) = (disk.f_blocks - disk.f_bfree, disk.f_bavail);
    (used + free > 0).then(|| used as f64 / (used + free) as f64)
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs, time::Instant};

    use procfs::{Current, CurrentSI, KernelStats, Meminfo};

    use super::CpuTime;

    /// The folder with the limits of the container in which this process runs.
    const CGROUP: &str = "/sys/fs/cgroup";

    fn cgroup(file: &str) -> Option<String> {
        fs::read_to_string(format!("{CGROUP}/{file}")).ok()
    }

    /// Reads the value of a line `name value` in a file of the cgroup.
    fn statistic(file: &str, name: &str) -> Option<f64> {
        let text = cgroup(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(super) fn memory() -> Option<f64> {
        let limited = || {
            let limit: f64 = cgroup("memory.max")?.trim().parse().ok()?;
            let used: f64 = cgroup("memory.current")?.trim().parse().ok()?;
            // The kernel can reclaim the pages of inactive files at any time, so they count as free.
            Some((used - statistic("memory.stat", "inactive_file")?) / limit)
        };
        limited().or_else(|| {
            let memory = Meminfo::current().ok()?;
            Some(1.0 - memory.mem_available? as f64 / memory.mem_total as f64)
        })
    }

    pub(super) fn cpu() -> Option<CpuTime> {
        let in_container = || {
            let cores = cores(&cgroup("cpu.max")?, all_cores())?;
            let used = statistic("cpu.stat", "usage_usec")? / 1e6;
            Some(CpuTime { used, available: since_start() * cores })
        };
        in_container().or_else(|| {
            let total = KernelStats::current().ok()?.total;
            let idle = (total.idle + total.iowait.unwrap_or(0)) as f64;
            let busy =
                (total.user + total.nice + total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0)) as f64;
            Some(CpuTime { used: busy, available: busy + idle })
        })
    }

    /// Returns how many cores a container may use, from its `cpu.max`: a quota and a period, like `50000 100000`. If the
    /// quota is `max`, the container may use all cores of the machine. The CPU time of other containers never counts
    /// as used: it is no fault of this process.
    pub(super) fn cores(cpu_max: &str, all: f64) -> Option<f64> {
        let (quota, period) = cpu_max.trim().split_once(' ')?;
        if quota == "max" {
            return Some(all);
        }
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    }

    fn all_cores() -> f64 {
        std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
    }

    /// Returns seconds since the first call. Only differences matter.
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
    fn the_check_of_a_nearly_full_resource_fails() {
        assert_eq!(check_used(0.9), Ok(HealthDetails::from([("used", "90 %".to_owned())])));
        assert_eq!(check_used(0.94), Err("94 % is used".to_owned()));
    }

    #[test]
    fn cpu_is_measured_between_the_first_sample_and_the_last() {
        let used = |samples: &[(f64, f64)]| {
            cpu_used(&samples.iter().map(|&(used, available)| CpuTime { used, available }).collect())
        };
        assert_eq!(used(&[]), None);
        assert_eq!(used(&[(5.0, 10.0)]), None);
        assert_eq!(used(&[(5.0, 10.0), (100.0, 11.0), (7.0, 20.0)]), Some(0.2));
    }

    #[test]
    fn only_the_disk_of_a_folder_that_exists_is_measured() {
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(fullest_disk(&[path("/not/there/yet"), path("not-there-yet")]), None);
        assert_eq!(fullest_disk(&[]), None);
        let here = fullest_disk(&[path("/not/there/yet"), path("/")]).unwrap();
        assert!((0.0..=1.0).contains(&here), "{here}");
    }

    #[test]
    fn only_folders_that_a_store_may_use_are_measured() {
        let of = |vote_log: &str, data: &str, objects: Option<&str>| {
            let flags = serde_json::json!({ "vote_log": vote_log, "data": data, "objects": objects });
            folders(&Config::load(None, flags, 0).unwrap())
        };
        let (kafka, embedded, path) = ("kafka://k:9092/votes", "embedded:", PathBuf::from);
        assert_eq!(of(kafka, "not-there", None), [path("not-there")]);
        assert_eq!(of(kafka, "not-there", Some("s3://bucket/prefix")), [path("not-there")]);
        assert_eq!(of(kafka, "not-there", Some("file:///srv/o")), [path("not-there"), path("/srv/o")]);
        assert_eq!(of(embedded, "/not/there/yet", None), [path("/")]);
        let here = std::path::absolute("src").unwrap();
        assert_eq!(of(embedded, "src", None), std::slice::from_ref(&here));
        assert_eq!(of(embedded, "src/not-there/yet", None), [here]);

        let flags = serde_json::json!({ "data": "src/not-there", "forward": "http://grpc-producer:50051" });
        assert_eq!(folders(&Config::load(None, flags, 0).unwrap()), [path("src/not-there")]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_container_without_a_limit_may_use_all_cores() {
        assert_eq!(system::cores("50000 100000\n", 8.0), Some(0.5));
        assert_eq!(system::cores("max 100000\n", 8.0), Some(8.0));
        assert_eq!(system::cores("", 8.0), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_can_be_measured() {
        let memory = system::memory().unwrap();
        assert!(memory > 0.0 && memory < 1.0, "{memory}");
        assert!(system::cpu().unwrap().available >= 0.0);
    }
}
