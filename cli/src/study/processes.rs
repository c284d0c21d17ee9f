//! What the processes that answer use: found by the ports they listen on, on this machine.

use std::{net::SocketAddr, time::Duration};

use service::CancellationToken;
use tokio::{task::JoinHandle, time::interval};

/// How often it is looked at memory and connections.
const EVERY: Duration = Duration::from_millis(100);

/// A process, and the port that it answers on.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: &'static str,
    pub(super) pid: i32,
    /// Of the study itself there is none.
    port: Option<u16>,
}

/// What a process used meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) process: &'static str,
    pub(super) cpu_seconds: f64,
    /// The most that was resident at a time.
    pub(super) peak_mb: f64,
    /// Open connections to its port: on average, and the most at a time.
    pub(super) connections: Option<(f64, usize)>,
}

/// Looks at processes until it is asked.
pub(super) struct Watch {
    stop: CancellationToken,
    looking: JoinHandle<Vec<Usage>>,
}

impl Process {
    /// The process that listens at an address like `127.0.0.1:8080`; `None` if there is none on this machine.
    pub(super) async fn at(name: &'static str, address: &str) -> Option<Self> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await.ok()?.collect();
        // An address is this machine's if one can listen on it.
        let is_here = |address: &&SocketAddr| std::net::TcpListener::bind((address.ip(), 0)).is_ok();
        let port = addresses.iter().find(is_here)?.port();
        Some(Self { name, pid: system::listens_on(port)?, port: Some(port) })
    }

    /// The study itself.
    pub(super) fn study() -> Option<Self> {
        let pid = i32::try_from(std::process::id()).ok()?;
        system::look(pid).map(|_| Self { name: "study", pid, port: None })
    }
}

impl Watch {
    pub(super) fn start(processes: &[Process]) -> Self {
        let (stop, processes) = (CancellationToken::new(), processes.to_vec());
        let looking = tokio::spawn(look(processes, stop.clone()));
        Self { stop, looking }
    }

    /// What was used since the start.
    pub(super) async fn end(self) -> Vec<Usage> {
        self.stop.cancel();
        self.looking.await.unwrap_or_default()
    }
}

/// What a process uses now.
#[derive(Clone, Copy)]
struct Now {
    /// Since it began.
    cpu_seconds: f64,
    resident_mb: f64,
}

async fn look(processes: Vec<Process>, stop: CancellationToken) -> Vec<Usage> {
    let mut seen: Vec<(Process, Now, Now, Vec<usize>)> = processes
        .into_iter()
        .filter_map(|process| system::look(process.pid).map(|now| (process, now, now, Vec::new())))
        .collect();
    let mut ticks = interval(EVERY);
    loop {
        let is_over = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let open = system::open_ports();
        for (process, _, last, connections) in &mut seen {
            let Some(now) = system::look(process.pid) else { continue };
            *last = Now { resident_mb: last.resident_mb.max(now.resident_mb), ..now };
            connections.extend(process.port.map(|port| open.iter().filter(|open| **open == port).count()));
        }
        if is_over {
            break;
        }
    }
    let usage = |(process, first, last, connections): (Process, Now, Now, Vec<usize>)| Usage {
        process: process.name,
        cpu_seconds: last.cpu_seconds - first.cpu_seconds,
        peak_mb: last.resident_mb,
        connections: connections
            .iter()
            .max()
            .map(|most| (connections.iter().sum::<usize>() as f64 / connections.len() as f64, *most)),
    };
    seen.into_iter().map(usage).collect()
}

#[cfg(target_os = "linux")]
mod system {
    use procfs::{
        net::{TcpNetEntry, TcpState, tcp, tcp6},
        process::{FDTarget, Process, all_processes},
    };

    use super::Now;

    fn sockets() -> Vec<TcpNetEntry> {
        [tcp(), tcp6()].into_iter().flatten().flatten().collect()
    }

    /// The process that listens on a port.
    pub(super) fn listens_on(port: u16) -> Option<i32> {
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

    pub(super) fn look(pid: i32) -> Option<Now> {
        let stat = Process::new(pid).ok()?.stat().ok()?;
        Some(Now {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            resident_mb: (stat.rss * procfs::page_size()) as f64 / f64::from(1 << 20),
        })
    }

    /// The port of each open connection, on the side of who was connected to: both sides may be on this machine.
    pub(super) fn open_ports() -> Vec<u16> {
        let open = sockets().into_iter().filter(|socket| socket.state == TcpState::Established);
        open.map(|socket| socket.local_address.port()).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::Now;

    pub(super) fn listens_on(_: u16) -> Option<i32> {
        None
    }

    pub(super) fn look(_: i32) -> Option<Now> {
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
        let usage = Watch::start(&[process]).end().await;
        assert_eq!((usage[0].process, usage[0].connections), ("this", Some((3.0, 3))));
        assert!(usage[0].peak_mb > 1.0, "{usage:?}");
        drop((clients, servers, listener));
        assert!(Process::at("nobody", &address.to_string()).await.is_none());
        // TEST-NET-1, which is nobody's.
        assert!(Process::at("elsewhere", "192.0.2.1:8080").await.is_none());
    }
}
