//! Measures the resources of the processes on this machine that serve queries. A process is found by the port on which
//! it listens.

use std::{net::SocketAddr, time::Duration};

use service::CancellationToken;
use tokio::{task::JoinHandle, time::interval};

/// The interval at which memory and connections are sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A process to measure.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: &'static str,
    pub(super) pid: i32,
    /// The port on which the process listens; `None` for the process of the benchmark itself.
    port: Option<u16>,
}

/// The resources that a process used during a measurement.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) process: &'static str,
    pub(super) cpu_seconds: f64,
    /// The peak of the resident memory, in MiB.
    pub(super) peak_mb: f64,
    /// The mean and the peak of the number of open connections to the port of the process.
    pub(super) connections: Option<(f64, usize)>,
}

/// Samples processes in the background.
pub(super) struct Sampler {
    stop: CancellationToken,
    sampling: JoinHandle<Vec<Usage>>,
}

impl Process {
    /// Returns the process that listens at an address like `127.0.0.1:8080`, or `None` if no process on this machine
    /// does.
    pub(super) async fn at(name: &'static str, address: &str) -> Option<Self> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await.ok()?.collect();
        // An address belongs to this machine if a socket can listen on it.
        let is_here = |address: &&SocketAddr| std::net::TcpListener::bind((address.ip(), 0)).is_ok();
        let port = addresses.iter().find(is_here)?.port();
        Some(Self { name, pid: system::listener_on(port)?, port: Some(port) })
    }

    /// Returns the process of the benchmark itself.
    pub(super) fn study() -> Option<Self> {
        let pid = i32::try_from(std::process::id()).ok()?;
        system::sample(pid).map(|_| Self { name: "study", pid, port: None })
    }
}

impl Sampler {
    pub(super) fn start(processes: &[Process]) -> Self {
        let (stop, processes) = (CancellationToken::new(), processes.to_vec());
        let sampling = tokio::spawn(sample_until_stopped(processes, stop.clone()));
        Self { stop, sampling }
    }

    /// Stops sampling and returns the resources used since the start.
    pub(super) async fn end(self) -> Vec<Usage> {
        self.stop.cancel();
        self.sampling.await.unwrap_or_default()
    }
}

/// The resources of a process at one moment.
#[derive(Clone, Copy)]
struct Sample {
    /// The CPU time since the start of the process.
    cpu_seconds: f64,
    resident_mb: f64,
}

async fn sample_until_stopped(processes: Vec<Process>, stop: CancellationToken) -> Vec<Usage> {
    let mut samples: Vec<(Process, Sample, Sample, Vec<usize>)> = processes
        .into_iter()
        .filter_map(|process| system::sample(process.pid).map(|now| (process, now, now, Vec::new())))
        .collect();
    let mut ticks = interval(SAMPLE_INTERVAL);
    loop {
        let is_over = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let open = system::open_ports();
        for (process, _, last, connections) in &mut samples {
            let Some(now) = system::sample(process.pid) else { continue };
            *last = Sample { resident_mb: last.resident_mb.max(now.resident_mb), ..now };
            connections.extend(process.port.map(|port| open.iter().filter(|open| **open == port).count()));
        }
        if is_over {
            break;
        }
    }
    let usage = |(process, first, last, connections): (Process, Sample, Sample, Vec<usize>)| Usage {
        process: process.name,
        cpu_seconds: last.cpu_seconds - first.cpu_seconds,
        peak_mb: last.resident_mb,
        connections: connections
            .iter()
            .max()
            .map(|peak| (connections.iter().sum::<usize>() as f64 / connections.len() as f64, *peak)),
    };
    samples.into_iter().map(usage).collect()
}

#[cfg(target_os = "linux")]
mod system {
    use procfs::{
        net::{TcpNetEntry, TcpState, tcp, tcp6},
        process::{FDTarget, Process, all_processes},
    };

    use super::Sample;

    fn sockets() -> Vec<TcpNetEntry> {
        [tcp(), tcp6()].into_iter().flatten().flatten().collect()
    }

    /// Returns the process that listens on a port.
    pub(super) fn listener_on(port: u16) -> Option<i32> {
        let listening: Vec<u64> = sockets()
            .into_iter()
            .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port)
            .map(|socket| socket.inode)
            .collect();
        let listens = |process: &Process| {
            let files = process.fd().ok().into_iter().flatten().flatten();
            files.into_iter().any(|file| matches!(file.target, FDTarget::Socket(inode) if listening.contains(&inode)))
        };
        all_processes().ok()?.flatten().find(listens).map(|process| process.pid)
    }

    pub(super) fn sample(pid: i32) -> Option<Sample> {
        let stat = Process::new(pid).ok()?.stat().ok()?;
        Some(Sample {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            resident_mb: (stat.rss * procfs::page_size()) as f64 / f64::from(1 << 20),
        })
    }

    /// Returns the local port of each socket with an established connection. A connection within this machine has two
    /// sockets, and only the local port of the server's socket is the port on which the server listens.
    pub(super) fn open_ports() -> Vec<u16> {
        let open = sockets().into_iter().filter(|socket| socket.state == TcpState::Established);
        open.map(|socket| socket.local_address.port()).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::Sample;

    pub(super) fn listener_on(_: u16) -> Option<i32> {
        None
    }

    pub(super) fn sample(_: i32) -> Option<Sample> {
        None
    }

    pub(super) fn open_ports() -> Vec<u16> {
        Vec::new()
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_port_and_its_connections_are_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let process = Process::at("this", &address.to_string()).await.unwrap();
        assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
        let clients = [0; 3].map(|_| std::net::TcpStream::connect(address).unwrap());
        let servers = [0; 3].map(|_| listener.accept().unwrap());
        let usage = Sampler::start(&[process]).end().await;
        assert_eq!((usage[0].process, usage[0].connections), ("this", Some((3.0, 3))));
        assert!(usage[0].peak_mb > 1.0, "{usage:?}");
        drop((clients, servers, listener));
        assert!(Process::at("none", &address.to_string()).await.is_none());
        // TEST-NET-1, which belongs to no machine.
        assert!(Process::at("elsewhere", "192.0.2.1:8080").await.is_none());
    }
}
