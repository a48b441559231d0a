// SPDX-License-Identifier: GPL-3.0-or-later
//! The daemon's side of one helper: starts it, gives it a job, takes what comes, and says how it ended. Blocking; for threads that decode.

use super::super::format::Format;
use super::super::members::{Flaw, Members};
use super::wire::{Ended, Job, LARGEST, Word};
use super::{Confinement, Program};
use crate::budget::Over;
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For its start on a loaded machine.
const START: Duration = Duration::from_secs(30);
/// Between the end of its connection and its own.
const END: Duration = Duration::from_secs(2);
/// What a helper may still send of a member of which nothing more is wanted.
const DRAIN: usize = 64 * LARGEST;

/// Why a job was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A limit of the message; the helper is in the middle of something and of no more use.
    Over(Over),
    /// The helper ended; in a word, and with which signal.
    Ended(&'static str, Option<i32>),
    /// It said what no helper says.
    Nonsense,
}

/// A helper that runs.
pub(super) struct Helper {
    child: Child,
    stream: BufReader<Timed>,
    /// Jobs so far, and the processor time of all of them.
    pub(super) jobs: u64,
    cpu: Duration,
    /// Its limit of memory.
    pub(super) memory: u64,
    pub(super) confinement: Confinement,
}

/// A connection on which nothing takes longer than until a moment.
struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left.max(Duration::from_millis(1)))) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Helper {
    /// Starts one. Errors: it cannot be started, or confined.
    pub(super) fn start(program: &Program, memory: u64) -> io::Result<Helper> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = spawn(program, memory, theirs.into())?;
        let stream = BufReader::with_capacity(LARGEST, Timed { stream: ours, until: Instant::now() + START });
        let confinement = Confinement::default();
        let mut helper = Helper { child, stream, jobs: 0, cpu: Duration::ZERO, memory, confinement };
        helper.confinement = match Word::read(&mut helper.stream)? {
            Word::Ready(confinement) => confinement,
            Word::Refused(why) => return Err(io::Error::other(why)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        helper.limit_time(Duration::ZERO)?;
        Ok(helper)
    }

    /// Lets it use so much more processor time, a second more for what is left to do at the end; then the kernel ends it.
    fn limit_time(&self, more: Duration) -> io::Result<()> {
        let current = Some((self.cpu + more).as_secs() + 2);
        let maximum = rustix::process::getrlimit(Resource::Cpu).maximum;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::prlimit(pid, Resource::Cpu, Rlimit { current, maximum })?;
        Ok(())
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, as somebody else would.
    #[cfg(test)]
    pub(super) fn kill(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("it runs");
        rustix::process::kill_process(pid, Signal::KILL).expect("it is ours");
    }

    /// Has it take one file apart.
    pub(super) fn work(
        &mut self,
        format: Format,
        data: &Bytes,
        volumes: &[Bytes],
        out: &mut Members<'_, '_>,
    ) -> Result<Result<(), Flaw>, Trouble> {
        let watch = out.watch();
        self.jobs += 1;
        self.stream.get_mut().until = watch.until();
        let done = self.ask(format, data, volumes, out).and_then(|()| self.listen(out));
        let (ended, cpu) = done.map_err(|error| self.trouble(error))?;
        self.cpu += cpu;
        out.spent(cpu);
        match ended {
            Ended::Good => Ok(Ok(())),
            Ended::Flaw { kind, detail } => Ok(Err(Flaw::Told(kind, detail))),
            Ended::Over(over) => Ok(Err(Flaw::Over(over))),
            Ended::Broke(place) => {
                tracing::error!(format = format.word(), place, "a decoder broke off; this is a bug");
                Err(Trouble::Ended("broke off", None))
            }
        }
    }

    /// Sends the job and its files.
    fn ask(&mut self, format: Format, data: &Bytes, volumes: &[Bytes], out: &Members<'_, '_>) -> Result<(), Broken> {
        let (budget, watch) = (out.budget(), out.watch());
        let limits = budget.limits();
        let job = Job {
            format: format.word().to_owned(),
            name: out.holder_name().to_owned(),
            passwords: if format.may_be_locked(data) { out.passwords().to_vec() } else { Vec::new() },
            left: budget.left(),
            member: limits.member_bytes.0,
            memory: limits.memory.0,
            objects: budget.objects() as u64,
            cpu: watch.cpu_left(),
            wall: watch.until().saturating_duration_since(Instant::now()),
            files: std::iter::once(data).chain(volumes).map(|file| file.len() as u64).collect(),
        };
        self.limit_time(job.cpu)?;
        let stream = self.stream.get_mut();
        stream.write_all(&job.encode())?;
        for file in std::iter::once(data).chain(volumes) {
            stream.write_all(file)?;
        }
        Ok(())
    }

    /// Takes what it says until it is done.
    fn listen(&mut self, out: &mut Members<'_, '_>) -> Result<(Ended, Duration), Broken> {
        loop {
            match Word::read(&mut self.stream)? {
                Word::Member { listed, names } => {
                    out.list(listed);
                    let mut content = Content { stream: &mut self.stream, piece: Vec::new(), at: 0, end: None };
                    out.stream(&names, &mut content)?;
                    content.drain()?;
                }
                Word::Closed { names, kind, detail } => out.closed(&names, &Flaw::Told(kind, detail))?,
                Word::Flaw { kind, detail } => out.flaw(&Flaw::Told(kind, detail)),
                Word::Note { kind, detail } => out.note(kind, &detail),
                Word::Done { ended, cpu } => return Ok((ended, cpu)),
                Word::Ready(_) | Word::Refused(_) | Word::Data(_) | Word::End(_) => return Err(Broken::Nonsense),
            }
            out.clock()?;
        }
    }

    /// What it means that the conversation broke off.
    fn trouble(&mut self, broken: Broken) -> Trouble {
        let error = match broken {
            Broken::Over(over) => return Trouble::Over(over),
            Broken::Nonsense => return Trouble::Nonsense,
            Broken::Connection(error) => error,
        };
        match error.kind() {
            io::ErrorKind::InvalidData => Trouble::Nonsense,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Trouble::Over(Over::Time),
            _ => self.end(),
        }
    }

    /// How the process ended. One that hangs up and goes on is ended by us.
    fn end(&mut self) -> Trouble {
        let until = Instant::now() + END;
        let mut status = self.child.try_wait();
        while matches!(status, Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            status = self.child.try_wait();
        }
        match status.ok().flatten().map(|status| status.signal()) {
            Some(Some(signal)) if signal == Signal::XCPU.as_raw() => Trouble::Over(Over::Cpu),
            Some(Some(signal)) if signal == Signal::KILL.as_raw() => Trouble::Ended("was killed", Some(signal)),
            Some(signal) => Trouble::Ended("crashed", signal),
            None => Trouble::Ended("hung up", None),
        }
    }
}

/// The process, with its end of the connection as standard input. Ours is the only other one: when the process ends, we hear of it.
fn spawn(program: &Program, memory: u64, theirs: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.file);
    command.args(&program.arguments).arg("helper").arg(memory.to_string());
    // Secrets may be in the environment. And Ctrl-C is not meant for it.
    command.env_clear().current_dir("/").process_group(0);
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended already; then these only clear it away.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why the conversation ends in the middle.
enum Broken {
    Connection(io::Error),
    Over(Over),
    Nonsense,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Connection(error)
    }
}

impl From<Over> for Broken {
    fn from(over: Over) -> Broken {
        Broken::Over(over)
    }
}

/// The bytes of one member.
struct Content<'h> {
    stream: &'h mut BufReader<Timed>,
    piece: Vec<u8>,
    at: usize,
    /// How it ended.
    end: Option<Result<(), Broken>>,
}

impl Content<'_> {
    /// The next piece; false at the end, or the error that the decoder ran into.
    fn next(&mut self) -> io::Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        match Word::read(self.stream) {
            Ok(Word::Data(piece)) => {
                (self.piece, self.at) = (piece, 0);
                return Ok(true);
            }
            Ok(Word::End(how)) => {
                self.end = Some(Ok(()));
                return how.map_or(Ok(false), |kind| Err(kind.into()));
            }
            // What came so far is a member; that it is not all is said at the end.
            Ok(_) => self.end = Some(Err(Broken::Nonsense)),
            Err(error) => self.end = Some(Err(error.into())),
        }
        Ok(false)
    }

    /// Reads on to the end.
    fn drain(mut self) -> Result<(), Broken> {
        let mut left = DRAIN;
        while self.end.is_none() {
            let _ = self.next();
            left = left.checked_sub(self.piece.len()).ok_or(Broken::Nonsense)?;
        }
        self.end.unwrap_or(Ok(()))
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let rest = &self.piece[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
