// SPDX-License-Identifier: GPL-3.0-or-later
//! Programs as engines: all pieces of a message in one private folder, one run, an exit code.
//!
//! The program is started directly, without a shell and with an empty environment, in a process group of its own, with limits on
//! memory, processor time, files and descriptors (setrlimit(2)). Nothing of that group outlives the run, however that ends. The
//! limits are set from outside right after exec(2): to set them before would need unsafe code between fork and exec.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, prlimit, waitid,
};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::engine::{Failure, Status, Tally, shown};
use super::sample::Feed;
use super::scratch::{Readers, Scratch};
use super::settings::EngineSettings;
use crate::findings::Outcome;

/// Output that is looked at for names.
const OUTPUT: usize = 256 * 1024;
/// Different names that one run may give.
const NAMES: usize = 20;
/// How long output may follow after the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Memory of the program unless configured.
const MEMORY: u64 = 2_000_000_000;

/// One program.
#[derive(Debug)]
pub(super) struct CommandLine {
    program: PathBuf,
    arguments: Vec<String>,
    settings: EngineSettings,
    codes: Codes,
    virus_name: Option<Regex>,
    place: PathBuf,
}

#[derive(Debug)]
struct Codes {
    clean: Vec<i32>,
    infected: Vec<i32>,
    unchecked: Vec<i32>,
}

impl CommandLine {
    /// One of these settings; none when they are not complete.
    pub(super) fn new(settings: &EngineSettings, place: &Path) -> Option<CommandLine> {
        let (program, arguments) = settings.command.as_deref()?.split_first()?;
        let codes = |list: &Option<Vec<i32>>, default: &[i32]| list.clone().unwrap_or_else(|| default.to_vec());
        let virus_name = settings.virus_name.as_deref().map(Regex::new).transpose().ok()?;
        Some(CommandLine {
            program: program.into(),
            arguments: arguments.to_vec(),
            codes: Codes {
                clean: codes(&settings.clean_codes, &[0]),
                infected: codes(&settings.infected_codes, &[1]),
                unchecked: codes(&settings.unchecked_codes, &[]),
            },
            settings: settings.clone(),
            virus_name,
            place: place.to_owned(),
        })
    }

    /// Gathers all pieces of a message in one folder and runs the program over it.
    pub(super) async fn scan(&self, feed: &mut Feed, tally: &mut Tally) -> Result<(), Failure> {
        let (mut scratch, mut room) = (None, self.settings.size_limit().0);
        while let Some(piece) = feed.recv().await {
            // The limit holds for all of them together: they lie on disk at the same time.
            match room.checked_sub(piece.sample.len()) {
                Some(left) => room = left,
                None => {
                    tally.add(Outcome::Incomplete(format!("larger than max_size {}", self.settings.size_limit())));
                    continue;
                }
            }
            let (folder, _) =
                Scratch::put(scratch, &self.place, Readers::Us, Arc::clone(&piece)).await.map_err(Failure::Scratch)?;
            scratch = Some(folder);
        }
        let Some(scratch) = scratch else { return Ok(()) };
        let (status, output) = self.run(scratch.path()).await?;
        tally.add(self.read(status, &output)?);
        Ok(())
    }

    /// Runs the program to its end.
    async fn run(&self, folder: &Path) -> Result<(ExitStatus, Vec<u8>), Failure> {
        let arguments = self.arguments.iter().map(|argument| argument.replace("{}", &folder.to_string_lossy()));
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C");
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(Failure::Start)?;
        let mut run = Run::new(child).map_err(Failure::Start)?;
        run.limit(self.limits()).map_err(Failure::Start)?;
        match timeout(self.settings.scan_timeout.0, run.end()).await {
            Ok(ended) => ended.map_err(Failure::Start),
            Err(_) => Err(Failure::TimedOut { phase: "running" }),
        }
    }

    fn limits(&self) -> [(Resource, u64); 5] {
        let memory = self.settings.max_memory.map_or(MEMORY, |size| size.0);
        let seconds = self.settings.scan_timeout.0.as_secs() + 1;
        [
            (Resource::As, memory),
            (Resource::Cpu, seconds),
            // What it writes: temporary files of its own.
            (Resource::Fsize, self.settings.size_limit().0.saturating_mul(4)),
            (Resource::Nofile, 1024),
            (Resource::Core, 0),
        ]
    }

    /// What exit code and output say.
    fn read(&self, status: ExitStatus, output: &[u8]) -> Result<Outcome, Failure> {
        let Some(code) = status.code() else { return Err(Failure::Ended(status.to_string())) };
        if self.codes.infected.contains(&code) {
            return Ok(Outcome::Infected(self.names(output)));
        }
        if self.codes.unchecked.contains(&code) {
            return Ok(Outcome::Incomplete(format!("exit code {code}")));
        }
        if self.codes.clean.contains(&code) {
            return Ok(Outcome::Clean);
        }
        Err(Failure::Ended(status.to_string()))
    }

    fn names(&self, output: &[u8]) -> Vec<String> {
        // Where the rest was not kept, the last line may be half a one.
        let cut = (output.len() >= OUTPUT).then(|| memchr::memrchr(b'\n', output)).flatten();
        let output = &output[..cut.unwrap_or(output.len())];
        let mut names = Vec::new();
        for found in self.virus_name.iter().flat_map(|pattern| pattern.captures_iter(output)) {
            let name = found.get(1).map(|name| shown(name.as_bytes())).unwrap_or_default();
            if !name.is_empty() && !names.contains(&name) && names.len() < NAMES {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push("unnamed".to_owned());
        }
        names
    }

    /// Whether the program is there.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        std::fs::metadata(&self.program).map_err(Failure::Start)?;
        Ok(Status { version: self.program.display().to_string(), signatures: None })
    }
}

/// A program that runs. Dropped, it ends with all that it has started.
struct Run {
    child: Child,
    group: Pid,
    /// The leader of the group has been waited for: its number may be another's now.
    reaped: bool,
}

impl Run {
    fn new(child: Child) -> std::io::Result<Run> {
        let number = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = number.ok_or_else(|| std::io::Error::other("it has no process id"))?;
        Ok(Run { child, group, reaped: false })
    }

    fn limit(&self, limits: [(Resource, u64); 5]) -> std::io::Result<()> {
        for (resource, most) in limits {
            // Nobody may have more than we have ourselves.
            let most = getrlimit(resource).maximum.map_or(most, |own| own.min(most));
            let set = prlimit(Some(self.group), resource, Rlimit { current: Some(most), maximum: Some(most) });
            match set {
                // It has ended already.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the end of the program, takes its output, ends what it has left behind, and gives its status.
    async fn end(&mut self) -> std::io::Result<(ExitStatus, Vec<u8>)> {
        let mut output = Vec::new();
        let Some(mut pipe) = self.child.stdout.take() else { return Err(std::io::Error::other("it has no output")) };
        let mut read = Box::pin(drain(&mut pipe, &mut output));
        let mut ended = std::pin::pin!(ended(self.group));
        let open = tokio::select! {
            result = &mut ended => {
                result?;
                true
            }
            () = &mut read => false,
        };
        if open {
            // What it has started may hold the pipe open for ever.
            let _ = timeout(LAST_WORDS, &mut read).await;
        } else {
            ended.await?;
        }
        drop(read);
        // The leader is still a zombie, so the number is still that of its group.
        self.kill();
        let status = self.child.wait().await?;
        self.reaped = true;
        Ok((status, output))
    }

    fn kill(&self) {
        // ESRCH: nobody is left.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.reaped {
            // tokio waits for the killed child in the background.
            self.kill();
        }
    }
}

/// Waits for the end of a child, and leaves it a zombie.
async fn ended(child: Pid) -> std::io::Result<()> {
    let mut signals = signal(SignalKind::child())?;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(child), look)?.is_none() {
        signals.recv().await;
    }
    Ok(())
}

/// Reads to the end, and keeps the beginning.
async fn drain(pipe: &mut tokio::process::ChildStdout, output: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = pipe.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        let room = OUTPUT.saturating_sub(output.len()).min(read);
        output.extend_from_slice(&buffer[..room]);
    }
}
