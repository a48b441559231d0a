// SPDX-License-Identifier: GPL-3.0-or-later
//! Child processes that cannot outlive us.
//!
//! Every server a test or the sandbox starts is a [`Process`]: alone in its process group, told by the kernel to end
//! when we end however that happens (prctl(2), `PR_SET_PDEATHSIG`, through setpriv(1)), and killed with its whole
//! group when the value is dropped. Not for servers that need root while we are not root: see `postfix.rs`.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, kill_process, kill_process_group, pidfd_open};

pub use rustix::process::Signal;

/// What went wrong while setting up a server: one line for whoever started us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub String);

impl Trouble {
    /// `what: why`, the usual form.
    pub fn new(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Trouble {
        Trouble(format!("{what}: {why}"))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

/// A system account: user id and group id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric primary group id.
    pub gid: u32,
}

impl Account {
    /// Looks a user up as the system does (getent(1)).
    pub fn named(name: &str) -> Result<Account, Trouble> {
        let out = Command::new("getent")
            .args(["passwd", name])
            .output()
            .map_err(|error| Trouble::new("cannot run getent", error))?;
        let line = String::from_utf8_lossy(&out.stdout);
        let mut fields = line.split(':').skip(2).map(str::parse);
        match (fields.next(), fields.next()) {
            (Some(Ok(uid)), Some(Ok(gid))) => Ok(Account { uid, gid }),
            _ => Err(Trouble(format!("this system has no user {name}"))),
        }
    }

    /// Who we are.
    pub fn ours() -> Account {
        Account { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// True for the superuser.
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Gives a file or folder to this account.
    pub fn own(self, path: &Path) -> Result<(), Trouble> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|error| Trouble::new(format!("cannot give {} to uid {}", path.display(), self.uid), error))
    }
}

/// How a server is started. Built by its owner, carried out by [`Process::start`].
#[derive(Debug)]
pub struct Start<'a> {
    /// Short name for messages.
    pub name: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    /// More environment: name and value.
    pub environment: &'a [(String, String)],
    /// The account to run as; only root may name another one.
    pub account: Option<Account>,
    /// What the kernel sends it when we are gone: the server's own word for "stop at once, in order".
    pub when_orphaned: &'a str,
    /// Where its output goes (appended).
    pub log: &'a Path,
}

/// A running server of ours.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts the server. It runs at return; whether it is ready is for the caller to find out.
    pub fn start(start: &Start<'_>) -> Result<Process, Trouble> {
        let failed = |error: io::Error| Trouble::new(format!("cannot start {}", start.name), error);
        let log = File::options().create(true).append(true).open(start.log).map_err(failed)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", start.when_orphaned]);
        if let Some(account) = start.account.filter(|_| Account::ours().is_root()) {
            command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
            command.arg("--init-groups");
        }
        command
            .arg("--")
            .args(start.command)
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0);
        let child = spawn(command).map_err(failed)?;
        Ok(Process { name: start.name.to_owned(), child })
    }

    /// The process id (also the id of its group).
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server itself.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end without polling; `None` when it still runs after `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        let pidfd = match self.ended() {
            Some(status) => return Some(status),
            None => pidfd_open(self.pid(), PidfdFlags::empty()).ok()?,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok()?;
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left));
        self.ended()
    }

    /// Asks it to stop and waits; what is left after `patience` is killed. Returns the exit status when it went by itself.
    pub fn stop(mut self, signal: Signal, patience: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        self.wait(patience)
    }

    /// SIGKILL to the whole group, then reaped: what a crash or the OOM killer does.
    pub fn kill(mut self) {
        self.kill_group();
    }

    fn kill_group(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The last lines of its log, for a message about its failure.
    pub fn last_words(&self, log: &Path) -> String {
        format!("{}: {}", self.name, tail(log, 5))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// The last `lines` lines of a text file, on one line; for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if all.is_empty() {
        return format!("nothing in {}", path.display());
    }
    all[all.len().saturating_sub(lines)..].join(" | ")
}

/// The kernel ties a child to the *thread* that started it, and the threads of a test end with the test. One thread
/// that lives as long as the program therefore starts them all.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    starter.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

/// Runs a command to its end; its output is the error when it fails.
pub fn run(what: &str, command: &mut Command) -> Result<String, Trouble> {
    let out = command.stdin(Stdio::null()).output().map_err(|error| Trouble::new(what, error))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(if out.stderr.is_empty() { &out.stdout } else { &out.stderr }).into_owned();
    Err(Trouble::new(what, said.lines().last().unwrap_or("no reason given")))
}

/// Polls `done` until it answers; the error names what was awaited. For servers that have no better way to tell.
pub fn await_that<T>(
    what: &str,
    patience: Duration,
    mut done: impl FnMut() -> Result<Option<T>, Trouble>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(Trouble(format!("{what}: not within {} s", patience.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
