// SPDX-License-Identifier: GPL-3.0-or-later
//! Helpers: processes of our own program in which files are taken apart whose decoders are too risky for the daemon. They have no files, no
//! network, little memory and hardly any system call (`sandbox`). A file goes in over a socket, members come back as they come out (`wire`);
//! whatever a helper does, the message gets its answer, and only the file that it was about stays shut. docs/decisions/0014.
//!
//! A pool, as many as there are processors, started before they are needed and replaced when they end. Blocking.

mod child;
mod outlet;
pub mod process;
mod sandbox;
mod wire;

pub(super) use outlet::Outlet;

use super::format::Format;
use super::members::{Flaw, Members};
use super::settings::UnpackSettings;
use crate::budget::Over;
use crate::findings::FindingKind;
use bytes::Bytes;
use child::{Helper, Trouble};
use metrics::{counter, gauge, histogram};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether all helpers are there.
const ROUND: Duration = Duration::from_secs(10);

/// How well a helper is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Whether seccomp refuses what it does not need.
    pub seccomp: bool,
    /// How much of Landlock this kernel has: full, partial or none.
    pub landlock: String,
    /// What it has tried and should not have been able to do.
    pub possible: Vec<String>,
}

impl Confinement {
    fn encode(&self) -> Vec<u8> {
        format!("{} {} {}", u8::from(self.seccomp), self.landlock, self.possible.join(",")).into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Confinement> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() < 1000)?;
        let mut words = text.split(' ');
        let (seccomp, landlock, possible) = (words.next()? == "1", words.next()?.to_owned(), words.next()?);
        let possible = possible.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Some(Confinement { seccomp, landlock, possible })
    }

    /// Whether nothing is missing but what a kernel of some years lacks of Landlock.
    pub fn is_good(&self) -> bool {
        self.seccomp && self.landlock != "none" && self.possible.is_empty()
    }
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "seccomp {}, landlock {}", if self.seccomp { "yes" } else { "no" }, self.landlock)?;
        let refused = "open, socket, socketpair, fork, kill and execve are refused";
        if self.possible.is_empty() {
            write!(out, "; {refused}")
        } else {
            write!(out, "; possible: {}", self.possible.join(" "))
        }
    }
}

/// The program to start, with what comes before `helper BYTES`.
#[derive(Debug, Clone)]
pub struct Program {
    file: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This one, also when its file has been replaced since.
    pub fn own() -> Program {
        Program::at("/proc/self/exe")
    }

    /// A contentd at this path.
    pub fn at(file: impl Into<PathBuf>) -> Program {
        Program { file: file.into(), arguments: Vec::new() }
    }
}

/// How many helpers, and how long each may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    count: usize,
    memory: u64,
    jobs: u64,
}

impl Terms {
    fn of(settings: &UnpackSettings) -> Terms {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if settings.helpers == 0 { processors } else { settings.helpers };
        Terms { count, memory: settings.helper_memory.0, jobs: settings.helper_jobs }
    }
}

/// The pool.
pub struct Helpers {
    program: Program,
    state: Mutex<State>,
    /// A helper has come back, or one less is out.
    back: Condvar,
    /// One is missing.
    missing: Notify,
}

struct State {
    terms: Terms,
    idle: Vec<Helper>,
    /// At work, or being started.
    out: usize,
    /// How the last one was confined.
    confinement: Option<Confinement>,
}

impl std::fmt::Debug for Helpers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        write!(out, "Helpers {{ idle: {}, out: {} }}", state.idle.len(), state.out)
    }
}

/// No helper for a job.
enum NoHelper {
    /// All are busy until the message's time is up.
    Late,
    /// It cannot be started.
    Broken,
}

impl Helpers {
    /// A pool in which none runs yet.
    pub fn new(program: Program, settings: &UnpackSettings) -> Arc<Helpers> {
        let state = State { terms: Terms::of(settings), idle: Vec::new(), out: 0, confinement: None };
        Arc::new(Helpers { program, state: Mutex::new(state), back: Condvar::new(), missing: Notify::new() })
    }

    /// Puts other settings in force: helpers with other limits are replaced.
    pub fn configure(&self, settings: &UnpackSettings) {
        let (mut state, terms) = (self.lock(), Terms::of(settings));
        if state.terms == terms {
            return;
        }
        state.terms = terms;
        let old: Vec<Helper> = state.idle.drain(..).collect();
        drop(state);
        drop(old);
        self.missing.notify_one();
    }

    /// Starts one, has it try what must be refused, and ends it. Errors: it cannot be started or confined.
    pub fn probe(&self) -> io::Result<Confinement> {
        let memory = self.lock().terms.memory;
        Ok(Helper::start(&self.program, memory)?.confinement.clone())
    }

    /// Keeps all helpers running until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let all = self.clone();
            // A panic there has been reported already.
            let _ = tokio::task::spawn_blocking(move || all.fill()).await;
            tokio::select! {
                () = self.missing.notified() => {}
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Starts those that are missing.
    fn fill(&self) {
        loop {
            let mut state = self.lock();
            state.idle.retain_mut(Helper::is_alive);
            if state.idle.len() + state.out >= state.terms.count {
                return state.count();
            }
            state.out += 1;
            drop(state);
            match self.start() {
                Ok(helper) => self.put_back(Some(helper)),
                // The next round, or the next job, tries again.
                Err(_) => return self.put_back(None),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> io::Result<Helper> {
        let memory = self.lock().terms.memory;
        let started = Helper::start(&self.program, memory);
        let outcome = if started.is_ok() { "started" } else { "failed" };
        counter!("octroi_contentd_helper_starts_total", "outcome" => outcome).increment(1);
        match &started {
            Ok(helper) => self.tell(&helper.confinement),
            Err(error) => tracing::error!(%error, "no helper: archives that need one stay unchecked"),
        }
        started
    }

    /// Logs how helpers are confined: the first time, and when that changes.
    fn tell(&self, confinement: &Confinement) {
        if self.lock().confinement.replace(confinement.clone()).as_ref() == Some(confinement) {
            return;
        }
        if confinement.is_good() {
            tracing::info!(confinement = %confinement, "decoders run in helpers");
        } else {
            tracing::warn!(confinement = %confinement, "decoders run in helpers that this kernel does not confine wholly");
        }
    }

    /// A helper that runs. One that has ended meanwhile costs nobody anything.
    fn take(&self, until: Instant) -> Result<Helper, NoHelper> {
        let mut state = self.lock();
        loop {
            while let Some(mut helper) = state.idle.pop() {
                if helper.is_alive() {
                    state.out += 1;
                    state.count();
                    return Ok(helper);
                }
            }
            if state.out < state.terms.count {
                state.out += 1;
                drop(state);
                return self.start().map_err(|_| {
                    self.put_back(None);
                    NoHelper::Broken
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoHelper::Late);
            }
            state = self.back.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One is no longer out. None: it has ended, or is not to be used any more.
    fn put_back(&self, helper: Option<Helper>) {
        let mut state = self.lock();
        state.out = state.out.saturating_sub(1);
        let terms = state.terms;
        let (keep, end): (Option<Helper>, Option<Helper>) = match helper {
            Some(helper) if helper.jobs < terms.jobs && helper.memory == terms.memory => (Some(helper), None),
            other => (None, other),
        };
        let missing = keep.is_none();
        state.idle.extend(keep);
        state.count();
        drop(state);
        drop(end);
        self.back.notify_one();
        if missing {
            self.missing.notify_one();
        }
    }
}

impl State {
    fn count(&self) {
        gauge!("octroi_contentd_helpers_busy").set(self.out as f64);
        gauge!("octroi_contentd_helpers").set((self.out + self.idle.len()) as f64);
    }
}

/// Has a helper take one file apart. Errors: what it found wrong, that it failed, or a limit of the message.
pub(super) fn decode(
    helpers: &Helpers,
    format: Format,
    data: &Bytes,
    volumes: &[Bytes],
    out: &mut Members<'_, '_>,
) -> Result<(), Flaw> {
    let word = format.word();
    let count = |outcome: &'static str| {
        counter!("octroi_contentd_helper_jobs_total", "format" => word, "outcome" => outcome).increment(1)
    };
    let mut helper = match helpers.take(out.watch().until()) {
        Ok(helper) => helper,
        Err(NoHelper::Late) => {
            count("late");
            return Err(Over::Time.into());
        }
        Err(NoHelper::Broken) => {
            count("none");
            return Err(failed(word, "could not be started"));
        }
    };
    let started = Instant::now();
    let done = helper.work(format, data, volumes, out);
    histogram!("octroi_contentd_helper_seconds").record(started.elapsed().as_secs_f64());
    match done {
        Ok(ended) => {
            helpers.put_back(Some(helper));
            count("done");
            ended
        }
        Err(trouble) => {
            drop(helper);
            helpers.put_back(None);
            // It told nothing about the time that it took; some of that was time of the processor.
            out.spent(started.elapsed());
            Err(ended_badly(word, trouble, count))
        }
    }
}

/// Says what went wrong, to the log, the metrics and the findings.
fn ended_badly(word: &'static str, trouble: Trouble, count: impl Fn(&'static str)) -> Flaw {
    let (how, signal) = match trouble {
        Trouble::Over(over) => {
            count("limit");
            return over.into();
        }
        Trouble::Ended(how, signal) => (how, signal),
        Trouble::Nonsense => ("talked nonsense", None),
    };
    count(match how {
        "was killed" => "killed",
        "talked nonsense" => "nonsense",
        _ => "crashed",
    });
    tracing::error!(format = word, signal, "the decoder {how}; its file stays unchecked");
    failed(word, how)
}

fn failed(word: &str, how: &str) -> Flaw {
    Flaw::Told(FindingKind::DecoderFailed, format!("the decoder of {word} {how}"))
}

/// Tells the metrics page what the helpers' numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("octroi_contentd_helpers", "Helpers that run");
    describe_gauge!("octroi_contentd_helpers_busy", "Helpers at work");
    describe_counter!("octroi_contentd_helper_starts_total", "Helpers started, by outcome");
    describe_counter!("octroi_contentd_helper_jobs_total", "Files given to helpers, by format and outcome");
    describe_histogram!("octroi_contentd_helper_seconds", "Time of one file in a helper");
}

#[cfg(test)]
mod tests;
