// SPDX-License-Identifier: GPL-3.0-or-later
//! One zIDSESSION with clamd: several samples are under way at once, answers come in any order and carry the number of their
//! command. Data goes by descriptor (FILDES), which costs clamd no copy, or as a stream (INSTREAM).

use std::collections::VecDeque;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use metrics::counter;
use tokio::time::Instant;

use super::clamd::Clamd;
use super::clamd_answer::{self, Answer};
use super::engine::{Failure, Tally, shown};
use super::sample::{Feed, Piece, Sample};
use super::wire::{Sent, Wire};
use crate::findings::Outcome;

/// Samples without an answer, per session. clamd wants its answers read, and has a queue to share.
const WINDOW: usize = 8;

/// A stream up to this size is sent in one piece.
const SMALL: u64 = 16 * 1024;

/// One connection to clamd.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    /// Commands sent inside zIDSESSION. clamd numbers its answers, from 1.
    commands: u32,
}

impl Session {
    pub(super) fn new(wire: Wire) -> Session {
        Session { wire, commands: 0 }
    }

    /// Whether clamd has neither said anything since nor closed.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }
}

/// How an exchange ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is answered, and the session can be used again.
    Done,
    /// A virus was found; the rest is not wanted any more.
    Enough,
    /// clamd closes after an answer of its own.
    Closed,
}

/// A command without an answer: about a piece, or for the version.
struct Asked {
    number: u32,
    piece: Option<Arc<Piece>>,
    by_descriptor: bool,
}

/// The pieces of one message on one session.
pub(super) struct Exchange<'e> {
    clamd: &'e Clamd,
    session: &'e mut Session,
    /// Pieces that are still to be sent.
    waiting: &'e mut VecDeque<Arc<Piece>>,
    feed: &'e mut Feed,
    tally: &'e mut Tally,
    asked: VecDeque<Asked>,
    /// The feed has ended.
    ended: bool,
    /// When something was last sent or heard.
    since: Instant,
}

impl<'e> Exchange<'e> {
    pub(super) fn new(
        clamd: &'e Clamd,
        session: &'e mut Session,
        waiting: &'e mut VecDeque<Arc<Piece>>,
        feed: &'e mut Feed,
        tally: &'e mut Tally,
    ) -> Exchange<'e> {
        let (asked, since) = (VecDeque::new(), Instant::now());
        Exchange { clamd, session, waiting, feed, tally, asked, ended: false, since }
    }

    /// Sends what comes and hears the answers, until all is answered.
    pub(super) async fn run(&mut self) -> Result<End, Failure> {
        if self.clamd.wants_version() {
            self.send(None).await?;
        }
        loop {
            while let Some(line) = self.session.wire.take_line() {
                if self.answer(&line)? == End::Closed {
                    return Ok(End::Closed);
                }
                self.since = Instant::now();
            }
            if self.tally.is_infected() {
                return Ok(End::Enough);
            }
            let room = self.asked.len() < WINDOW;
            if room && let Some(piece) = self.waiting.pop_front() {
                self.send(Some(piece)).await?;
                continue;
            }
            if self.ended && self.asked.is_empty() {
                return Ok(End::Done);
            }
            self.wait(room).await?;
        }
    }

    /// Puts the pieces without an answer back, for another session.
    pub(super) fn give_back(self) {
        for asked in self.asked.into_iter().rev() {
            if let Some(piece) = asked.piece {
                self.waiting.push_front(piece);
            }
        }
    }

    /// Waits for the next piece or the next answer.
    async fn wait(&mut self, room: bool) -> Result<(), Failure> {
        let until = self.since + self.clamd.settings.scan_timeout.0;
        let expected = !self.asked.is_empty();
        tokio::select! {
            piece = self.feed.recv(), if room && !self.ended => match piece {
                Some(piece) => {
                    if self.clamd.wants(&piece, self.tally) {
                        self.waiting.push_back(piece);
                    }
                }
                None => self.ended = true,
            },
            heard = self.session.wire.hear(until, "waiting for the answer"), if expected => heard?,
        }
        Ok(())
    }

    /// Sends a piece, or asks for the version.
    async fn send(&mut self, piece: Option<Arc<Piece>>) -> Result<(), Failure> {
        let begin: &[u8] = if self.session.commands == 0 { b"zIDSESSION\0" } else { b"" };
        self.session.commands += 1;
        let by_descriptor = piece.as_ref().is_some_and(|piece| self.clamd.by_descriptor(piece.sample.len()));
        self.asked.push_back(Asked { number: self.session.commands, piece: piece.clone(), by_descriptor });
        let limit = self.clamd.settings.send_timeout.0;
        let Session { wire, .. } = &mut *self.session;
        let Some(piece) = piece else {
            let sent = wire.send([begin, b"zVERSION\0"].into_iter(), limit, |_| false).await;
            return sent.map(|_| ());
        };
        counter!("octroi_contentd_engine_samples_total", "engine" => self.clamd.name.clone()).increment(1);
        // Without a file it is streamed.
        match by_descriptor.then(|| in_memory(&piece.sample)) {
            Some(Ok(file)) => {
                // One byte of data goes with the descriptor.
                let command = [begin, b"zFILDES\0\0"].concat();
                wire.send_descriptor(&command, file, limit).await?;
            }
            Some(Err(_)) | None => {
                stream(wire, begin, &piece.sample, limit).await?;
            }
        }
        self.since = Instant::now();
        Ok(())
    }

    /// Takes one answer.
    fn answer(&mut self, line: &[u8]) -> Result<End, Failure> {
        match clamd_answer::read(shown(line))? {
            Answer::Sample(number, outcome) => {
                self.take(number)?;
                self.tally.add(outcome);
            }
            Answer::Version(number, version) => {
                self.take(number)?;
                self.clamd.learn(&version);
            }
            Answer::Error(number, error) => self.error(number, error)?,
            Answer::TooLong(number) => {
                // Without a number it is about the stream that was sent last.
                let number = number.or(self.asked.back().map(|asked| asked.number)).unwrap_or_default();
                self.take(number)?;
                self.tally.add(Outcome::Incomplete("clamd's StreamMaxLength".to_owned()));
                return Ok(End::Closed);
            }
        }
        Ok(End::Done)
    }

    /// An error about a descriptor may be one of descriptors: the piece is streamed then.
    fn error(&mut self, number: u32, error: String) -> Result<(), Failure> {
        let asked = self.take(number)?;
        match asked.piece {
            Some(piece) if asked.by_descriptor => {
                self.clamd.stop_descriptors(&error);
                self.waiting.push_front(piece);
                Ok(())
            }
            Some(piece) => {
                self.waiting.push_front(piece);
                Err(Failure::Refused(error))
            }
            // It does not tell its version; that is no failure.
            None => Ok(()),
        }
    }

    /// The command that an answer is for. Another number is the answer for another message, which must never be taken for this one's.
    fn take(&mut self, number: u32) -> Result<Asked, Failure> {
        let place = self.asked.iter().position(|asked| asked.number == number);
        let asked = place.and_then(|place| self.asked.remove(place));
        asked.ok_or_else(|| Failure::Garbage(format!("an answer to command {number}, which is not under way")))
    }
}

/// Streams a sample: chunks with their length in front, an empty one at the end.
async fn stream(wire: &mut Wire, begin: &[u8], sample: &Sample, limit: std::time::Duration) -> Result<Sent, Failure> {
    let begin = [begin, b"zINSTREAM\0"].concat();
    if sample.len() <= SMALL {
        let mut all = begin;
        // It is small, so its length fits.
        all.extend_from_slice(&u32::try_from(sample.len()).unwrap_or(u32::MAX).to_be_bytes());
        sample.chunks().for_each(|chunk| all.extend_from_slice(chunk));
        all.extend_from_slice(&[0; 4]);
        return wire.send([all.as_slice()].into_iter(), limit, over_limit).await;
    }
    if let Sent::Early = wire.send([begin.as_slice()].into_iter(), limit, over_limit).await? {
        return Ok(Sent::Early);
    }
    for chunk in sample.chunks() {
        // Chunks are 64 KiB at most.
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes();
        if let Sent::Early = wire.send([&length[..], chunk].into_iter(), limit, over_limit).await? {
            return Ok(Sent::Early);
        }
    }
    wire.send([&[0u8; 4][..]].into_iter(), limit, over_limit).await
}

/// clamd says so in the middle of a stream, and closes.
fn over_limit(heard: &[u8]) -> bool {
    !heard.is_empty() && memchr::memmem::find(heard, b"size limit exceeded").is_some()
}

/// A file in memory that has no name, for clamd to read.
fn in_memory(sample: &Sample) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file = std::fs::File::from(memfd_create("octroi-part", MemfdFlags::CLOEXEC)?);
    for chunk in sample.chunks() {
        file.write_all(chunk)?;
    }
    file.rewind()?;
    Ok(file.into())
}
