// SPDX-License-Identifier: GPL-3.0-or-later
//! The ports of one sandbox: the documented ones for `make run`, free ones for tests that run side by side.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::process::Trouble;

/// Tests take theirs from here: under the range the kernel picks from for outgoing connections (32768 and up).
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Where a sandbox listens, all on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Postfix' front door.
    pub smtp: u16,
    /// policyd.
    pub policy: u16,
    /// policyd's /metrics, /health and /ready.
    pub policy_http: u16,
    /// contentd.
    pub content: u16,
    /// contentd's /metrics, /health and /ready.
    pub content_http: u16,
    /// Postfix behind contentd.
    pub reinject: u16,
    /// Postfix' door to its hold queue.
    pub hold: u16,
}

impl Default for Ports {
    /// The documented ones: those of a real installation, and 2525 in place of 25.
    fn default() -> Ports {
        Ports {
            smtp: 2525,
            policy: 10023,
            policy_http: 9123,
            content: 10024,
            content_http: 9124,
            reinject: 10025,
            hold: 10026,
        }
    }
}

impl Ports {
    /// Seven ports nobody listens on. Concurrent sandboxes, of other processes as well, get different ones.
    pub fn free() -> Ports {
        Ports {
            smtp: free_port(),
            policy: free_port(),
            policy_http: free_port(),
            content: free_port(),
            content_http: free_port(),
            reinject: free_port(),
            hold: free_port(),
        }
    }

    /// An error that names the first port that is taken and, where the system tells, by whom.
    pub fn must_be_free(&self) -> Result<(), Trouble> {
        for (port, what) in self.named() {
            if !is_free(port) {
                let owner = owner_of(port).map(|owner| format!(" by {owner}")).unwrap_or_default();
                return Err(Trouble(format!(
                    "port {port} ({what}) is taken{owner}; choose another with --{}-port",
                    what.replace(' ', "-")
                )));
            }
        }
        Ok(())
    }

    fn named(&self) -> [(u16, &'static str); 7] {
        [
            (self.smtp, "smtp"),
            (self.policy, "policy"),
            (self.policy_http, "policy http"),
            (self.content, "content"),
            (self.content_http, "content http"),
            (self.reinject, "reinject"),
            (self.hold, "hold"),
        ]
    }
}

/// True when nobody listens on this port of 127.0.0.1.
///
/// Asked by connecting, not by binding: a socket bound for a moment is copied into every process that another thread
/// starts just then and stays bound until that process has executed its program. The port would look taken, to us or to
/// the daemon it is meant for, with nobody to be seen on it.
pub fn is_free(port: u16) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&there, PATIENCE).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// One port outside the ephemeral range that nobody listens on now.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start at different places, so that two test runs at a time rarely try the same port.
    let offset = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT)).expect("smaller than COUNT");
    for _ in 0..COUNT {
        let port = FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// `program (process 42)` for the listener on a TCP port, if it can be seen: /proc/net/tcp gives the socket's inode,
/// /proc/*/fd the process that holds it. Other users' processes show only to root.
fn owner_of(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let listens = fields.get(3) == Some(&LISTEN) && u16::from_str_radix(local_port, 16) == Ok(port);
            listens.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
        })
    })?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let id: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.find(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == socket))?;
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("{} (process {id})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_owner() {
        let ports = Ports::free();
        assert_eq!(ports.must_be_free(), Ok(()));
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.content_http)).unwrap();
        let trouble = ports.must_be_free().unwrap_err().0;
        assert!(trouble.starts_with(&format!("port {} (content http) is taken by ", ports.content_http)), "{trouble}");
        assert!(trouble.contains(&format!("(process {})", std::process::id())), "{trouble}");
    }
}
