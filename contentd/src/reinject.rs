// SPDX-License-Identifier: GPL-3.0-or-later
//! The SMTP client towards the next hop (port 10025): one connection carries one message.
//!
//! It passes MAIL and RCPT on byte for byte, keeps replies exactly, streams the message without a second copy,
//! and listens while it sends. It decides nothing: whoever calls it checks deadline and client between
//! [`NextHop::body`] and [`NextHop::end`]. Postfix SMTPD_PROXY_README and XFORWARD_README; RFC 5321 section 3
//! and 4.5.3.2.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use common::address::Address;
use common::net::{Stream, Twin};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::envelope::Envelope;
use crate::message::edit::Edit;
use crate::smtp::data::{END_OF_DATA, Encoder};
use crate::smtp::reply::{Reply, ReplyError, ReplyParser};
use crate::smtp::xforward::{self, Attribute};
use crate::spool::{CHUNK, Message};

/// After a failed write: how long to wait for the reply that explains it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How far the dialogue with the next hop was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Opening the connection.
    Connect,
    /// The greeting.
    Banner,
    /// EHLO.
    Ehlo,
    /// XFORWARD.
    Xforward,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, before the 354.
    Data,
    /// While the message was sent.
    Body,
    /// After the final dot.
    End,
}

impl Stage {
    /// The word for log and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Banner => "banner",
            Stage::Ehlo => "ehlo",
            Stage::Xforward => "xforward",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Body => "body",
            Stage::End => "end",
        }
    }
}

/// Why there is no usable reply of the next hop.
#[derive(Debug, thiserror::Error)]
#[error("next hop, at {}: {failure}", stage.name())]
pub struct HopError {
    /// Where it happened.
    pub stage: Stage,
    /// What happened.
    pub failure: Failure,
}

/// What can go wrong with a next hop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Not reachable.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It closed the connection, or the connection broke.
    #[error("connection lost")]
    Lost,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// What it said is not SMTP.
    #[error("{0}")]
    Garbage(#[from] ReplyError),
    /// A reply of a class that has no place here.
    #[error("unexpected reply {:?}", .0.first_line())]
    Unexpected(Reply),
    /// Our own copy of the message cannot be read.
    #[error("cannot read the spooled message: {0}")]
    Spool(io::Error),
}

/// Where the next hop is and how to speak to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// Our name in EHLO.
    pub hostname: String,
    /// Limit for connecting and for each reply before the message.
    pub timeout: Duration,
}

/// How far DATA or the message got.
#[derive(Debug)]
pub enum Progress {
    /// Go on.
    Ready,
    /// The next hop has refused: its 4xx or 5xx, to be passed back.
    Refused(Reply),
}

/// A session with the next hop.
#[derive(Debug)]
pub struct NextHop {
    read: ReadHalf<Stream>,
    write: WriteHalf<Stream>,
    input: BytesMut,
    parser: ReplyParser,
    timeout: Duration,
    /// The same connection once more, for the witness and to look ahead.
    twin: Option<Twin>,
}

impl NextHop {
    /// Connects, greets and passes the client's attributes on, all within one `target.timeout`. `forwarded` is
    /// raw xtext.
    pub async fn open(target: &Target, forwarded: &[(Attribute, Vec<u8>)]) -> Result<NextHop, HopError> {
        let deadline = Instant::now() + target.timeout;
        let failed = |failure| HopError { stage: Stage::Connect, failure };
        let connected = timeout_at(deadline, Stream::connect(&target.address)).await;
        let stream =
            connected.map_err(|_| failed(Failure::Timeout))?.map_err(|error| failed(Failure::Connect(error)))?;
        // Without it there is no witness for this message, and nothing else is missing.
        let twin = stream.twin().ok();
        let (read, write) = tokio::io::split(stream);
        let (input, parser) = (BytesMut::new(), ReplyParser::default());
        let mut hop = NextHop { read, write, input, parser, timeout: target.timeout, twin };
        hop.greet(&target.hostname, forwarded, deadline).await?;
        Ok(hop)
    }

    async fn greet(
        &mut self,
        hostname: &str,
        forwarded: &[(Attribute, Vec<u8>)],
        deadline: Instant,
    ) -> Result<(), HopError> {
        require_success(Stage::Banner, self.reply(Stage::Banner, deadline).await?)?;
        let ehlo = self.command(Stage::Ehlo, &[b"EHLO ", hostname.as_bytes()], deadline).await?;
        let announced = announced(&require_success(Stage::Ehlo, ehlo)?);
        for command in xforward::commands(forwarded, &announced) {
            require_success(Stage::Xforward, self.command(Stage::Xforward, &[&command], deadline).await?)?;
        }
        Ok(())
    }

    /// A session that has taken the sender and every recipient of `envelope`. A refusal now of what was taken
    /// before is an error: the client has been told otherwise, and there is only one reply left.
    pub async fn reopen(target: &Target, envelope: &Envelope) -> Result<NextHop, HopError> {
        let mut hop = NextHop::open(target, &envelope.client.forwarded).await?;
        require_success(Stage::Mail, hop.mail(&envelope.sender.verbatim).await?)?;
        for recipient in &envelope.recipients {
            require_success(Stage::Rcpt, hop.rcpt(&recipient.verbatim).await?)?;
        }
        Ok(hop)
    }

    /// MAIL FROM: with everything that came behind the colon. The reply is 2xx, 4xx or 5xx.
    pub async fn mail(&mut self, verbatim: &[u8]) -> Result<Reply, HopError> {
        let reply = self.command(Stage::Mail, &[b"MAIL FROM:", verbatim], Instant::now() + self.timeout).await?;
        require_answer(Stage::Mail, reply)
    }

    /// RCPT TO: with everything that came behind the colon. The reply is 2xx, 4xx or 5xx.
    pub async fn rcpt(&mut self, verbatim: &[u8]) -> Result<Reply, HopError> {
        let reply = self.command(Stage::Rcpt, &[b"RCPT TO:", verbatim], Instant::now() + self.timeout).await?;
        require_answer(Stage::Rcpt, reply)
    }

    /// DATA.
    pub async fn data(&mut self, deadline: Instant) -> Result<Progress, HopError> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        let reply = self.command(Stage::Data, &[b"DATA"], deadline).await?;
        match reply.code() {
            354 => Ok(Progress::Ready),
            _ if reply.is_failure() => Ok(Progress::Refused(reply)),
            _ => Err(unexpected(Stage::Data, reply)),
        }
    }

    /// Sends the message with its edit, without the final dot. A reply that comes meanwhile ends it.
    pub async fn body(&mut self, message: &Message, edit: &Edit, deadline: Instant) -> Result<Progress, HopError> {
        let spool_error = |error| HopError { stage: Stage::Body, failure: Failure::Spool(error) };
        let (mut encoder, mut wire) = (Encoder::default(), Vec::with_capacity(CHUNK + CHUNK / 8));
        let (mut reader, mut at) = (message.open(), 0);
        encoder.feed(&edit.prepend, &mut wire);
        while let Some(chunk) = reader.chunk().await.map_err(spool_error)? {
            edit.pass(at, &chunk, |piece| encoder.feed(piece, &mut wire));
            at += chunk.len() as u64;
            if let Some(early) = self.write_listening(&wire, deadline).await? {
                return Ok(Progress::Refused(early));
            }
            wire.clear();
        }
        encoder.finish(&mut wire);
        Ok(match self.write_listening(&wire, deadline).await? {
            Some(early) => Progress::Refused(early),
            None => Progress::Ready,
        })
    }

    /// The final dot, and the verdict of the next hop: 2xx, 4xx or 5xx. Once this has been called the message
    /// may be delivered, whatever it returns.
    pub async fn end(&mut self, deadline: Instant) -> Result<Reply, HopError> {
        match self.dot(deadline).await? {
            Some(early) => Ok(early),
            None => self.answer(deadline).await,
        }
    }

    /// The final dot alone. A refusal that has come before it is returned, and no dot is sent then.
    pub async fn dot(&mut self, deadline: Instant) -> Result<Option<Reply>, HopError> {
        // A reply that is already here is not one to the dot.
        if let Some(early) = self.write_listening(&[], deadline).await? {
            return Ok(Some(early));
        }
        match timeout_at(deadline, self.write.write_all(END_OF_DATA)).await {
            // A failed write says nothing about what was read before it: the reply decides.
            Ok(_) => Ok(None),
            Err(_) => Err(HopError { stage: Stage::End, failure: Failure::Timeout }),
        }
    }

    /// The reply to the final dot: 2xx, 4xx or 5xx.
    pub async fn answer(&mut self, deadline: Instant) -> Result<Reply, HopError> {
        let reply = self.reply(Stage::End, deadline).await?;
        require_answer(Stage::End, reply)
    }

    /// The connection itself, for somebody who goes on listening when we are gone.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.twin.as_ref().map(Twin::as_fd)
    }

    /// Waits for the whole reply and leaves it unread: until [`NextHop::answer`] takes it, whoever else has the connection can read it.
    /// None when that cannot be done; then the reply is to be taken as it comes.
    pub async fn foresee(&self, deadline: Instant) -> Option<Reply> {
        if !self.input.is_empty() || self.parser.started() {
            return None;
        }
        let connection = self.twin.as_ref()?.watch().ok()?;
        let mut buffer = [0; 1024];
        let length = timeout_at(deadline, connection.peek(&mut buffer)).await.ok()?.ok()?;
        // The whole of it, as a rule; if not, it is not worth more trouble.
        ReplyParser::default().feed(&buffer[..length]).ok()?.1
    }

    /// Ends the session politely, without waiting for the answer (as Postfix does). Outside DATA only.
    pub async fn quit(mut self) {
        let _ = timeout(Duration::from_secs(1), self.write.write_all(b"QUIT\r\n")).await;
    }

    /// Sends bytes of the message while listening. A reply of failure is returned; anything else is an error.
    async fn write_listening(&mut self, bytes: &[u8], deadline: Instant) -> Result<Option<Reply>, HopError> {
        let NextHop { read, write, input, parser, .. } = self;
        let written = tokio::select! {
            biased;
            early = read_reply(read, input, parser) => return self::early(early),
            written = timeout_at(deadline, write.write_all(bytes)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(None),
            Ok(Err(_)) => match timeout(LAST_WORDS, read_reply(read, input, parser)).await {
                Ok(words) => early(words),
                Err(_) => Err(HopError { stage: Stage::Body, failure: Failure::Lost }),
            },
            Err(_) => Err(HopError { stage: Stage::Body, failure: Failure::Timeout }),
        }
    }

    async fn command(&mut self, stage: Stage, parts: &[&[u8]], deadline: Instant) -> Result<Reply, HopError> {
        let mut line = parts.concat();
        line.extend_from_slice(b"\r\n");
        // If the write fails, a parting 421 may still be there to be read; without one the read reports the loss.
        let written = timeout_at(deadline, self.write.write_all(&line)).await;
        if written.is_err() {
            return Err(HopError { stage, failure: Failure::Timeout });
        }
        self.reply(stage, deadline).await
    }

    async fn reply(&mut self, stage: Stage, deadline: Instant) -> Result<Reply, HopError> {
        match timeout_at(deadline, read_reply(&mut self.read, &mut self.input, &mut self.parser)).await {
            Ok(reply) => reply.map_err(|failure| HopError { stage, failure }),
            Err(_) => Err(HopError { stage, failure: Failure::Timeout }),
        }
    }
}

/// Reads one reply. Safe to cancel: what was read stays in `input` and `parser`.
async fn read_reply(
    read: &mut ReadHalf<Stream>,
    input: &mut BytesMut,
    parser: &mut ReplyParser,
) -> Result<Reply, Failure> {
    loop {
        let (used, reply) = parser.feed(input)?;
        input.advance(used);
        if let Some(reply) = reply {
            return Ok(reply);
        }
        input.reserve(4096);
        if !matches!(read.read_buf(input).await, Ok(1..)) {
            return Err(Failure::Lost);
        }
    }
}

/// What a reply before the final dot means.
fn early(reply: Result<Reply, Failure>) -> Result<Option<Reply>, HopError> {
    match reply {
        Ok(reply) if reply.is_failure() => Ok(Some(reply)),
        Ok(reply) => Err(unexpected(Stage::Body, reply)),
        Err(failure) => Err(HopError { stage: Stage::Body, failure }),
    }
}

fn unexpected(stage: Stage, reply: Reply) -> HopError {
    HopError { stage, failure: Failure::Unexpected(reply) }
}

fn require_success(stage: Stage, reply: Reply) -> Result<Reply, HopError> {
    if reply.is_success() { Ok(reply) } else { Err(unexpected(stage, reply)) }
}

fn require_answer(stage: Stage, reply: Reply) -> Result<Reply, HopError> {
    if reply.is_success() || reply.is_failure() { Ok(reply) } else { Err(unexpected(stage, reply)) }
}

/// The XFORWARD attributes in an EHLO reply.
fn announced(ehlo: &Reply) -> Vec<Attribute> {
    ehlo.lines()
        .filter_map(|line| line.get(4..))
        .map(|line| line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()))
        .find_map(|mut words| {
            words.next()?.eq_ignore_ascii_case(b"XFORWARD").then(|| words.filter_map(Attribute::find).collect())
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &[u8]) -> Reply {
        ReplyParser::default().feed(text).unwrap().1.unwrap()
    }

    #[test]
    fn xforward_attributes_are_read_from_ehlo() {
        let ehlo = reply(b"250-mx\r\n250-SIZE 1\r\n250-XForward NAME addr  LOGIN SOURCE\r\n250 DSN\r\n");
        assert_eq!(announced(&ehlo), [Attribute::Name, Attribute::Addr, Attribute::Source]);
        assert!(announced(&reply(b"250 mx\r\n")).is_empty());
    }
}
