// SPDX-License-Identifier: GPL-3.0-or-later
//! The helper itself: `contentd helper BYTES`, started by the daemon and by nobody else. It has no configuration, writes no log and holds no
//! descriptor but its socket. One job after the other, until the daemon hangs up; a decoder that breaks off ends it, too.
//!
//! Signals that end processes are ignored: systemd sends them to all, and a message in progress still needs its helper then.

use super::super::format::Format;
use super::super::members::{Flaw, Members};
use super::Outlet;
use super::sandbox;
use super::wire::{Ended, Job, Word, flaw_words};
use crate::budget::{self, Budget};
use bytes::Bytes;
use common::units::{Period, Size};
use std::cell::RefCell;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// Serves the daemon at the other end of standard input. `memory`: address space that it may have. Errors: it cannot be confined, or what
/// comes is no job.
pub fn run(memory: u64) -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    ignore_signals()?;
    remember_panics();
    let confinement = match sandbox::confine(memory) {
        Ok(confinement) => confinement,
        Err(error) => {
            socket.write_all(&Word::Refused(error.to_string()).encode())?;
            return Err(error);
        }
    };
    socket.write_all(&Word::Ready(confinement).encode())?;
    while let Some(job) = Job::read(&mut socket)? {
        let files = files(&job, &mut socket)?;
        let started = budget::thread_time();
        let ended = work(&job, &files, &socket);
        drop(files);
        let broke = matches!(ended, Ended::Broke(_));
        let cpu = budget::thread_time().saturating_sub(started);
        socket.write_all(&Word::Done { ended, cpu }.encode())?;
        if broke {
            return Ok(());
        }
    }
    Ok(())
}

/// Handlers that do nothing stay for as long as the process lives.
fn ignore_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    runtime.block_on(async { signals.map(signal) }).into_iter().try_for_each(|handler| handler.map(drop))
}

thread_local! {
    /// Where in the source the last panic was.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The message of a panic may show what is in the file; its place does not.
fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PANIC.with(|last| *last.borrow_mut() = place.unwrap_or_default());
    }));
}

/// The files that follow a job.
fn files(job: &Job, socket: &mut UnixStream) -> io::Result<Vec<Bytes>> {
    let mut files = Vec::new();
    for length in &job.files {
        let mut file = Vec::new();
        let length = usize::try_from(*length).map_err(io::Error::other)?;
        file.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        if socket.take(length as u64).read_to_end(&mut file)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        files.push(file.into());
    }
    Ok(files)
}

/// Decodes one file, against what is left of the message's budget.
fn work(job: &Job, files: &[Bytes], socket: &UnixStream) -> Ended {
    let (Some(format), Some((data, volumes))) = (Format::confined(&job.format), files.split_first()) else {
        return Ended::Broke(String::new());
    };
    let limits = budget::Limits {
        depth: 1,
        objects: usize::try_from(job.objects).unwrap_or(usize::MAX),
        expansion: 1,
        min_bytes: Size(job.left),
        max_bytes: Size(job.left),
        member_bytes: Size(job.member),
        memory: Size(job.memory),
        cpu: Period(job.cpu),
    };
    let mut budget = Budget::new(&limits, 0, 0, Instant::now() + job.wall);
    let mut writer = BufWriter::with_capacity(super::wire::LARGEST, socket);
    let decoded = {
        let mut outlet = Outlet::new(&mut budget, &job.name, &job.passwords, &mut writer);
        catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            super::tests::misbehave(data);
            super::super::decode(format, data, volumes, &mut Members::wired(&mut outlet, format.word()))
        }))
    };
    // Should the daemon have gone, the next write says so.
    let flushed = writer.flush();
    match (decoded, flushed) {
        (Ok(Ok(())), Ok(())) => Ended::Good,
        (Ok(Err(Flaw::Over(over))), _) => Ended::Over(over),
        (Ok(Err(flaw)), Ok(())) => {
            let (kind, detail) = flaw_words(&flaw, format.word());
            Ended::Flaw { kind, detail }
        }
        (Err(_), _) => Ended::Broke(PANIC.with(|place| place.take())),
        (_, Err(error)) => Ended::Broke(error.kind().to_string()),
    }
}
