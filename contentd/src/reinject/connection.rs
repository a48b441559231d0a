// SPDX-License-Identifier: GPL-3.0-or-later
//! The bytes between us and the next hop: commands out, replies in, both at once while a message is sent.
//!
//! It knows replies, not what they answer. Every wait has a limit; every read can be cancelled without losing bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Buf, BytesMut};
use common::net::Stream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Failure, LAST_WORDS};
use crate::smtp::reply::{Reply, ReplyParser};
use crate::witness::Watched;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    input: BytesMut,
    parser: ReplyParser,
    /// The witness has a copy of it.
    pub(super) watched: Option<Watched>,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Connection {
        Connection { stream, input: BytesMut::new(), parser: ReplyParser::default(), watched: None }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// One reply.
    pub(super) async fn reply(&mut self, deadline: Instant) -> Result<Reply, Failure> {
        let Connection { stream, input, parser, .. } = self;
        timeout_at(deadline, read_reply(stream, input, parser)).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Sends commands.
    pub(super) async fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Failure> {
        match timeout_at(deadline, write_all(&self.stream, bytes)).await {
            // If the write fails, a parting 421 may still be there to be read; without one the read reports the loss.
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Sends what the system takes at once, and gives its length.
    pub(super) fn write_now(&self, bytes: &[u8]) -> usize {
        // What is wrong with the connection shows when the rest is sent, or in the reply.
        self.stream.try_write(bytes).unwrap_or(0)
    }

    /// Sends bytes of a message while listening. Some: a reply has come, and not all may have been sent.
    pub(super) async fn write_listening(&mut self, bytes: &[u8], deadline: Instant) -> Result<Option<Reply>, Failure> {
        let Connection { stream, input, parser, .. } = self;
        let written = tokio::select! {
            biased;
            early = read_reply(stream, input, parser) => return early.map(Some),
            written = timeout_at(deadline, write_all(stream, bytes)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(None),
            Ok(Err(_)) => match timeout(LAST_WORDS, read_reply(stream, input, parser)).await {
                Ok(words) => words.map(Some),
                Err(_) => Err(Failure::Lost),
            },
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Waits for the whole reply and leaves it unread; see [`super::NextHop::foresee`].
    pub(super) async fn foresee(&self, deadline: Instant) -> Option<Reply> {
        if !self.input.is_empty() || self.parser.started() {
            return None;
        }
        let mut buffer = [0; 1024];
        let length = timeout_at(deadline, self.stream.peek(&mut buffer)).await.ok()?.ok()?;
        // The whole of it, as a rule; if not, it is not worth more trouble.
        ReplyParser::default().feed(&buffer[..length]).ok()?.1
    }

    /// Whether anything has arrived that nobody has asked for, such as a parting 421 or the end.
    pub(super) fn has_news(&self) -> bool {
        !self.input.is_empty() || self.parser.started() || self.stream.has_news()
    }

    /// Sends a last command as far as the system takes it at once.
    pub(super) fn part(&self, bytes: &[u8]) {
        // Whether it arrives does not matter.
        self.write_now(bytes);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // With a copy at the witness closing would end nothing until that has gone, too.
        if self.watched.is_some() {
            self.stream.end_writing();
        }
    }
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one reply. Safe to cancel: what was read stays in `input` and `parser`.
async fn read_reply(stream: &Stream, input: &mut BytesMut, parser: &mut ReplyParser) -> Result<Reply, Failure> {
    loop {
        let (used, reply) = parser.feed(input)?;
        input.advance(used);
        if let Some(reply) = reply {
            return Ok(reply);
        }
        input.reserve(512);
        match stream.try_read_buf(input) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.readable().await.map_err(|_| Failure::Lost)?;
            }
            Ok(0) | Err(_) => return Err(Failure::Lost),
        }
    }
}
