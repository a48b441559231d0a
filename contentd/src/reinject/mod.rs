// SPDX-License-Identifier: GPL-3.0-or-later
//! The SMTP client towards the next hop (port 10025): one session after the other over a connection.
//!
//! It passes MAIL and RCPT on byte for byte, keeps replies exactly, streams the message without a second copy,
//! and listens while it sends. It decides nothing: whoever calls it checks deadline and client between
//! [`NextHop::body`] and [`NextHop::end`]. Postfix SMTPD_PROXY_README and XFORWARD_README; RFC 5321 section 3
//! and 4.5.3.2.

mod connection;
pub mod idle;

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use common::address::Address;
use common::net::Stream;
use tokio::time::{Instant, timeout_at};

use crate::envelope::Envelope;
use crate::identity::Key;
use crate::message::edit::Edit;
use crate::smtp::data::{END_OF_DATA, Encoder};
use crate::smtp::reply::{Reply, ReplyError};
use crate::smtp::xforward::{self, Attribute};
use crate::spool::{CHUNK, Message};
use crate::witness::{Held, Witness};
use connection::Connection;
use idle::Idle;

/// After a failed write: how long to wait for the reply that explains it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// So many messages go over one connection at most, so that whatever grows in the process behind it does so no further.
const MESSAGES: u32 = 100;

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
    /// Connections to it that wait for another message.
    pub idle: Arc<Idle>,
}

/// How far DATA or the message got.
#[derive(Debug)]
pub enum Progress {
    /// Go on.
    Ready,
    /// The next hop has refused: its 4xx or 5xx, to be passed back.
    Refused(Reply),
}

/// How much of a message the next hop has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing, or all of it.
    Between,
    /// At least the sender.
    Envelope,
    /// DATA, and not the final dot.
    Message,
}

/// A session with the next hop.
#[derive(Debug)]
pub struct NextHop {
    connection: Connection,
    timeout: Duration,
    /// Where the connection waits afterwards.
    home: Weak<Idle>,
    /// What the next hop announced.
    announced: Announced,
    phase: Phase,
    /// Attributes of the client that it has been told at any time.
    told: Vec<Attribute>,
    /// A reply to RSET is still to come.
    owes: bool,
    /// Messages that were begun on the connection.
    served: u32,
    /// The end of the message, which goes out with the final dot.
    last: Vec<u8>,
}

impl NextHop {
    /// Tells the next hop the sender of a message, and before that who the client is: over a connection that has waited, or a new one. The reply to
    /// MAIL is 2xx, 4xx or 5xx.
    pub async fn begin(target: &Target, envelope: &Envelope) -> Result<(NextHop, Reply), HopError> {
        NextHop::begin_with(target, &envelope.client.forwarded, &envelope.sender.verbatim).await
    }

    /// The same with everything that came behind `MAIL FROM:`; `forwarded` is raw xtext.
    pub async fn begin_with(
        target: &Target,
        forwarded: &[(Attribute, Vec<u8>)],
        sender: &[u8],
    ) -> Result<(NextHop, Reply), HopError> {
        while let Some(mut hop) = target.idle.take() {
            match hop.sender(forwarded, sender).await {
                // It was about to close. Nothing of the message has been said that counts.
                Err(HopError { failure: Failure::Lost, .. }) => {}
                Ok(reply) if reply.code() == 421 => {}
                Ok(reply) => {
                    idle::count_reuse();
                    return Ok((hop, reply));
                }
                Err(error) => return Err(error),
            }
        }
        let mut hop = NextHop::open(target).await?;
        let reply = hop.sender(forwarded, sender).await?;
        Ok((hop, reply))
    }

    /// Connects and greets, all within one `target.timeout`.
    async fn open(target: &Target) -> Result<NextHop, HopError> {
        let deadline = Instant::now() + target.timeout;
        let failed = |failure| HopError { stage: Stage::Connect, failure };
        let connected = timeout_at(deadline, Stream::connect(&target.address)).await;
        let stream =
            connected.map_err(|_| failed(Failure::Timeout))?.map_err(|error| failed(Failure::Connect(error)))?;
        let mut hop = NextHop {
            connection: Connection::new(stream),
            timeout: target.timeout,
            home: Arc::downgrade(&target.idle),
            announced: Announced::default(),
            phase: Phase::Between,
            told: Vec::new(),
            owes: false,
            served: 0,
            last: Vec::new(),
        };
        require_success(Stage::Banner, hop.reply(Stage::Banner, deadline).await?)?;
        let ehlo = hop.command(Stage::Ehlo, &[b"EHLO ", target.hostname.as_bytes()], deadline).await?;
        hop.announced = Announced::read(&require_success(Stage::Ehlo, ehlo)?);
        Ok(hop)
    }

    /// XFORWARD and MAIL, in one go where the next hop allows it.
    async fn sender(&mut self, forwarded: &[(Attribute, Vec<u8>)], sender: &[u8]) -> Result<Reply, HopError> {
        let deadline = Instant::now() + self.timeout;
        self.served += 1;
        let mut commands = xforward::commands(&self.attributes(forwarded), &self.announced.attributes);
        let stages = vec![Stage::Xforward; commands.len()].into_iter().chain([Stage::Mail]);
        commands.push([b"MAIL FROM:", sender].concat());
        if std::mem::take(&mut self.owes) {
            let late = self.reply(Stage::Mail, deadline).await?;
            if !late.is_success() {
                // A session that cannot be taken back, such as one that says 421, is of no use; another one is.
                return Err(HopError { stage: Stage::Mail, failure: Failure::Lost });
            }
        }
        let together = if self.announced.pipelining { commands.len() } else { 1 };
        let mut said = Vec::with_capacity(256);
        for (place, stage) in stages.enumerate() {
            if place % together == 0 {
                said.clear();
                for command in &commands[place..place + together] {
                    said.extend_from_slice(command);
                    said.extend_from_slice(b"\r\n");
                }
                self.write(stage, &said, deadline).await?;
            }
            let reply = self.reply(stage, deadline).await?;
            if stage == Stage::Mail {
                self.phase = if reply.is_success() { Phase::Envelope } else { Phase::Between };
                return require_answer(stage, reply);
            }
            require_success(stage, reply)?;
        }
        // Not reached: the last stage is that of MAIL.
        Err(HopError { stage: Stage::Mail, failure: Failure::Lost })
    }

    /// What the next hop is told of the client: also that something is not known which it has been told of an earlier one.
    fn attributes(&mut self, forwarded: &[(Attribute, Vec<u8>)]) -> Vec<(Attribute, Vec<u8>)> {
        let mut all = forwarded.to_vec();
        for told in &self.told {
            if !forwarded.iter().any(|(attribute, _)| attribute == told) {
                all.push((*told, b"[UNAVAILABLE]".to_vec()));
            }
        }
        self.told = all.iter().map(|(attribute, _)| *attribute).collect();
        all
    }

    /// A session that has taken the sender and every recipient of `envelope`. A refusal now of what was taken
    /// before is an error: the client has been told otherwise, and there is only one reply left.
    pub async fn reopen(target: &Target, envelope: &Envelope) -> Result<NextHop, HopError> {
        let (mut hop, reply) = NextHop::begin(target, envelope).await?;
        require_success(Stage::Mail, reply)?;
        for recipient in &envelope.recipients {
            require_success(Stage::Rcpt, hop.rcpt(&recipient.verbatim).await?)?;
        }
        Ok(hop)
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
            354 => {
                self.phase = Phase::Message;
                Ok(Progress::Ready)
            }
            _ if reply.is_failure() => Ok(Progress::Refused(reply)),
            _ => Err(unexpected(Stage::Data, reply)),
        }
    }

    /// Sends the message with its edit, all but its last piece, which goes out with the final dot: a message of usual size costs one write.
    /// A reply that comes meanwhile ends it.
    pub async fn body(&mut self, message: &Message, edit: &Edit, deadline: Instant) -> Result<Progress, HopError> {
        let spool_error = |error| HopError { stage: Stage::Body, failure: Failure::Spool(error) };
        let (mut encoder, mut wire) = (Encoder::default(), Vec::with_capacity(CHUNK + CHUNK / 8));
        let (mut reader, mut at) = (message.open(), 0);
        encoder.feed(&edit.prepend, &mut wire);
        while let Some(chunk) = reader.chunk().await.map_err(spool_error)? {
            if wire.len() + chunk.len() > CHUNK {
                if let Some(early) = self.write_listening(&wire, deadline).await? {
                    return Ok(Progress::Refused(early));
                }
                wire.clear();
            }
            edit.pass(at, &chunk, |piece| encoder.feed(piece, &mut wire));
            at += chunk.len() as u64;
        }
        encoder.finish(&mut wire);
        self.last = wire;
        Ok(Progress::Ready)
    }

    /// The final dot, and the verdict of the next hop: 2xx, 4xx or 5xx. Once this has been called the message
    /// may be delivered, whatever it returns.
    pub async fn end(&mut self, deadline: Instant) -> Result<Reply, HopError> {
        match self.dot(deadline, deadline).await? {
            Some(early) => Ok(early),
            None => self.answer(deadline).await,
        }
    }

    /// The last piece and the final dot; the dot is not sent after `deadline`, and none is sent when a refusal has come before it: that is returned.
    pub async fn dot(&mut self, deadline: Instant, answer_by: Instant) -> Result<Option<Reply>, HopError> {
        // A reply that is already here is not one to the dot.
        if let Some(early) = self.write_listening(&[], deadline).await? {
            return Ok(Some(early));
        }
        let mut last = std::mem::take(&mut self.last);
        let length = last.len();
        last.extend_from_slice(END_OF_DATA);
        // A next hop that keeps up takes all of it at once.
        let sent = self.connection.write_now(&last);
        if sent < length {
            if let Some(early) = self.write_listening(&last[sent..length], deadline).await? {
                return Ok(Some(early));
            }
            if Instant::now() >= deadline {
                return Err(HopError { stage: Stage::Body, failure: Failure::Timeout });
            }
        }
        match self.connection.write(&last[sent.max(length)..], answer_by).await {
            // A failed write says nothing about what was read before it: the reply decides.
            Ok(()) => Ok(None),
            Err(failure) => Err(HopError { stage: Stage::End, failure }),
        }
    }

    /// The reply to the final dot: 2xx, 4xx or 5xx.
    pub async fn answer(&mut self, deadline: Instant) -> Result<Reply, HopError> {
        let reply = self.reply(Stage::End, deadline).await?;
        self.phase = Phase::Between;
        require_answer(Stage::End, reply)
    }

    /// Has a witness hold the connection, because the final dot is about to go out; none when there is no witness.
    pub(crate) fn witnessed(&mut self, witness: &Arc<Witness>, id: &str, keys: &[Key]) -> Option<Held> {
        let mut watched = self.connection.watched.take();
        let held = witness.dot(&mut watched, self.connection.as_fd(), id, keys);
        self.connection.watched = watched;
        held
    }

    /// Waits for the whole reply and leaves it unread: until [`NextHop::answer`] takes it, whoever else has the connection can read it.
    /// None when that cannot be done; then the reply is to be taken as it comes.
    pub async fn foresee(&self, deadline: Instant) -> Option<Reply> {
        self.connection.foresee(deadline).await
    }

    /// Ends the session: the connection waits for another message, or is closed politely, without waiting for the answer (as Postfix does).
    pub fn leave(mut self) {
        if self.phase == Phase::Message {
            // Whatever we said now would be part of the message; without its final dot there is none.
            return;
        }
        let home = self.home.upgrade().filter(|_| self.served < MESSAGES);
        let Some(home) = home else { return self.part() };
        if self.phase == Phase::Envelope {
            self.connection.part(b"RSET\r\n");
            (self.owes, self.phase) = (true, Phase::Between);
        }
        if let Some(hop) = home.put(self) {
            hop.part();
        }
    }

    /// QUIT, without waiting for the answer.
    fn part(self) {
        self.connection.part(b"QUIT\r\n");
    }

    /// Whether nothing has come that nobody asked for.
    fn is_quiet(&self) -> bool {
        self.owes || !self.connection.has_news()
    }

    /// Sends bytes of the message while listening. A reply of failure is returned; anything else is an error.
    async fn write_listening(&mut self, bytes: &[u8], deadline: Instant) -> Result<Option<Reply>, HopError> {
        match self.connection.write_listening(bytes, deadline).await {
            Ok(Some(reply)) if reply.is_failure() => Ok(Some(reply)),
            Ok(Some(reply)) => Err(unexpected(Stage::Body, reply)),
            Ok(None) => Ok(None),
            Err(failure) => Err(HopError { stage: Stage::Body, failure }),
        }
    }

    async fn command(&mut self, stage: Stage, parts: &[&[u8]], deadline: Instant) -> Result<Reply, HopError> {
        let mut line = parts.concat();
        line.extend_from_slice(b"\r\n");
        self.write(stage, &line, deadline).await?;
        self.reply(stage, deadline).await
    }

    async fn write(&mut self, stage: Stage, bytes: &[u8], deadline: Instant) -> Result<(), HopError> {
        self.connection.write(bytes, deadline).await.map_err(|failure| HopError { stage, failure })
    }

    async fn reply(&mut self, stage: Stage, deadline: Instant) -> Result<Reply, HopError> {
        self.connection.reply(deadline).await.map_err(|failure| HopError { stage, failure })
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

/// What of a next hop's EHLO reply matters to us.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    /// Commands may be sent together (RFC 2920).
    pipelining: bool,
    /// What XFORWARD may say.
    attributes: Vec<Attribute>,
}

impl Announced {
    fn read(ehlo: &Reply) -> Announced {
        let mut announced = Announced::default();
        for line in ehlo.lines().filter_map(|line| line.get(4..)) {
            let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            match words.next() {
                Some(word) if word.eq_ignore_ascii_case(b"PIPELINING") => announced.pipelining = true,
                Some(word) if word.eq_ignore_ascii_case(b"XFORWARD") => {
                    announced.attributes.extend(words.filter_map(Attribute::find));
                }
                _ => {}
            }
        }
        announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::ReplyParser;

    fn reply(text: &[u8]) -> Reply {
        ReplyParser::default().feed(text).unwrap().1.unwrap()
    }

    #[test]
    fn what_is_announced_is_read_from_ehlo() {
        let ehlo = reply(b"250-mx\r\n250-SIZE 1\r\n250-XForward NAME addr  LOGIN SOURCE\r\n250 DSN\r\n");
        let read = Announced::read(&ehlo);
        assert_eq!(read.attributes, [Attribute::Name, Attribute::Addr, Attribute::Source]);
        assert!(!read.pipelining);
        assert!(Announced::read(&reply(b"250-mx\r\n250 pipelining\r\n")).pipelining);
        assert_eq!(Announced::read(&reply(b"250 mx\r\n")), Announced::default());
    }
}
