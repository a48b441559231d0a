// SPDX-License-Identifier: GPL-3.0-or-later
//! One of our daemons as an administrator runs it: the real binary, a configuration file, signals.
//!
//! Readiness is what systemd sees: the daemon's own datagrams on `NOTIFY_SOCKET` (sd_notify(3)), so nothing is guessed
//! from ports or log lines. Tests that need no real process call the crates' `run` instead.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::process::{Process, Signal, Start, Trouble, await_that, tail};

const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that can be started, reloaded, stopped and killed, again and again, with the same configuration.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    program: PathBuf,
    configuration: PathBuf,
    directory: PathBuf,
    notices: UnixDatagram,
    ready_page: Option<(u16, &'static str)>,
    within: Vec<String>,
    process: Option<Process>,
}

impl Daemon {
    /// Prepares a daemon; `directory` takes its log and its notify socket. It does not run yet.
    pub fn new(name: &'static str, directory: &Path, configuration: &Path) -> Result<Daemon, Trouble> {
        let socket = directory.join(format!("{name}.notify"));
        let notices = UnixDatagram::bind(&socket).map_err(|error| Trouble::new(socket.display(), error))?;
        let timeout = notices.set_read_timeout(Some(Duration::from_millis(100)));
        timeout.map_err(|error| Trouble::new(socket.display(), error))?;
        Ok(Daemon {
            name,
            program: binary(name)?,
            configuration: configuration.to_owned(),
            directory: directory.to_owned(),
            notices,
            ready_page: None,
            within: Vec::new(),
            process: None,
        })
    }

    /// Also wait until its `/ready` page on this port of 127.0.0.1 says `words`: policyd serves, from its fallback,
    /// before its store has answered.
    pub fn ready_page(mut self, port: u16, words: &'static str) -> Daemon {
        self.ready_page = Some((port, words));
        self
    }

    /// Start it by way of this command, which ends in becoming the program behind its arguments.
    pub fn within(mut self, command: Vec<String>) -> Daemon {
        self.within = command;
        self
    }

    /// Starts it; at return it has said that it is ready.
    pub fn start(&mut self) -> Result<(), Trouble> {
        self.forget_notices();
        let program =
            [&self.program, Path::new("--config"), &self.configuration].map(|word| word.display().to_string());
        let command: Vec<String> = self.within.iter().cloned().chain(program).collect();
        let socket = self.directory.join(format!("{}.notify", self.name));
        self.process = Some(Process::start(&Start {
            name: self.name,
            command: &command,
            environment: &[("NOTIFY_SOCKET".to_owned(), socket.display().to_string())],
            account: None,
            when_orphaned: "TERM",
            log: &self.log(),
        })?);
        self.await_ready()?;
        let Some((port, words)) = self.ready_page else { return Ok(()) };
        let says = || page(port, "/ready").is_ok_and(|text| text.contains(words));
        await_that(&format!("/ready of {} to say: {words}", self.name), PATIENCE, || Ok(says().then_some(())))
    }

    /// SIGHUP; at return it is ready again, with the new configuration or with the old one if that was wrong.
    pub fn reload(&mut self) -> Result<(), Trouble> {
        self.forget_notices();
        self.signal(Signal::HUP);
        self.await_ready()
    }

    /// SIGTERM; waits for the drain. `None`: it did not end in time and was killed, or did not run.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.process.take()?.stop(Signal::TERM, PATIENCE)
    }

    /// SIGKILL, as from a crash.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends any signal without waiting for anything.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Waits for the end that a signal or the daemon itself brings about.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.wait(PATIENCE);
        self.process = None;
        status
    }

    /// The process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything it wrote to its standard error.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn await_ready(&mut self) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let mut notice = [0; 4096];
        while Instant::now() < deadline {
            if let Ok(length) = self.notices.recv(&mut notice) {
                if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            } else if self.process.as_mut().is_none_or(|process| process.ended().is_some()) {
                return Err(Trouble::new(format!("{} ended", self.name), tail(&self.log(), 3)));
            }
        }
        Err(Trouble::new(format!("{} was not ready within {} s", self.name, PATIENCE.as_secs()), tail(&self.log(), 3)))
    }

    /// What an earlier process said must not count for the next one.
    fn forget_notices(&self) {
        let _ = self.notices.set_nonblocking(true);
        while self.notices.recv(&mut [0; 4096]).is_ok() {}
        let _ = self.notices.set_nonblocking(false);
    }
}

/// The body of a page of a daemon's HTTP port; an error is anything but status 200.
pub fn page(port: u16, path: &str) -> Result<String, Trouble> {
    let failed = |error: io::Error| Trouble::new(format!("http://127.0.0.1:{port}{path}"), error);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(body.to_owned());
    }
    Err(Trouble::new(format!("http://127.0.0.1:{port}{path}"), head.lines().next().unwrap_or("no answer")))
}

/// A program of this workspace, built by the same cargo run: beside us, or one folder up from a test.
pub fn binary(name: &str) -> Result<PathBuf, Trouble> {
    let us = std::env::current_exe().map_err(|error| Trouble::new("cannot find our own program", error))?;
    us.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Trouble(format!("{name} is not built; first run: cargo build --workspace")))
}
