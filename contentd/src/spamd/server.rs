// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection of a client: read the request, read the message, have it inspected, answer, close.
//!
//! Clients close their side behind the message, so the end of what they send says nothing about whether they still listen. Whoever is
//! refused in the middle of its message may still be writing: it is heard out for a while, because a connection that is closed with bytes
//! unread is reset, and the answer lost.

use std::sync::Arc;
use std::time::Duration;

use common::net::Stream;
use metrics::counter;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::body::{self, Announced, Body, BodyError};
use super::inspect::{InspectError, Inspected, envelope, inspect};
use super::markup::Markup;
use super::protocol::{Code, Command};
use super::record::Record;
use super::reply;
use super::report::report;
use super::request::{Malformed, Parser, Request};
use crate::daemon::{Daemon, Running};
use crate::smtp::front::{Front, FrontError, Line};
use crate::spam::account::Levels;
use crate::spool::{SpoolError, Writer};

/// How much of a message can be header section.
const HEADER_LIMIT: usize = 1024 * 1024;
/// How long a client that has its answer may take to close.
const CLOSING: Duration = Duration::from_secs(2);
/// How long one that was refused may go on sending.
const HEARING_OUT: Duration = Duration::from_secs(30);

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Stream, daemon: Arc<Daemon>, stop: CancellationToken) {
    let running = daemon.running();
    let client = stream.peer_ip();
    if !running.allows_spamd(&stream) {
        // As spamd: without a word.
        tracing::warn!(?client, "client not in spamd.allow");
        counter!("octroi_contentd_spamd_refused_clients_total").increment(1);
        return;
    }
    let front = Front::new(stream, running.settings.spamd.reply_timeout.0);
    let mut session = Session { front, running, daemon, record: Record::new(client) };
    let (answer, code, patience) = match session.stages(&stop).await {
        Ok(None) => return,
        Ok(Some(answer)) => (answer, Some(Code::Ok), CLOSING),
        Err(End::Refused { code, reason, why }) => {
            let told = session.front.send(&reply::refusal(code, &why)).await;
            session.record.failed(why);
            (reason, told.ok().map(|()| code), HEARING_OUT)
        }
        Err(End::Lost(error)) => {
            session.record.failed(error.to_string());
            ("client-lost", None, Duration::ZERO)
        }
    };
    session.record.write(answer, code.map(Code::number));
    tokio::select! {
        () = session.front.hear_out(Instant::now() + patience) => {}
        () = stop.cancelled() => {}
    }
}

/// Why a request ended without what it asked for.
#[derive(Debug)]
enum End {
    /// The client is told why. `reason` is the word for log and metrics.
    Refused { code: Code, reason: &'static str, why: String },
    /// It is gone.
    Lost(FrontError),
}

fn refused(code: Code, reason: &'static str, why: impl ToString) -> End {
    End::Refused { code, reason, why: why.to_string() }
}

struct Session {
    front: Front,
    running: Arc<Running>,
    daemon: Arc<Daemon>,
    record: Record,
}

impl Session {
    /// The path of a request; the word for its answer. None: nothing was asked.
    async fn stages(&mut self, stop: &CancellationToken) -> Result<Option<&'static str>, End> {
        let Some(request) = self.request(stop).await? else { return Ok(None) };
        self.record.asked(&request);
        match request.command {
            Command::Ping => self.send(reply::pong()).await.map(|()| Some("pong")),
            Command::Skip => Ok(Some("skipped")),
            _ => self.message(&request).await.map(Some),
        }
    }

    /// Reads the head of the request. None when nothing comes because nobody wants anything, or the daemon stops before anything has come.
    async fn request(&mut self, stop: &CancellationToken) -> Result<Option<Request>, End> {
        let deadline = Instant::now() + self.running.settings.spamd.request_timeout.0;
        let mut parser = Parser::default();
        loop {
            let is_idle = parser.so_far().is_none();
            let line = tokio::select! {
                biased;
                line = self.front.line(deadline.saturating_duration_since(Instant::now())) => line,
                () = stop.cancelled(), if is_idle => return Ok(None),
            };
            let line = match line {
                Ok(Line::Complete(line)) => line,
                Ok(Line::TooLong) => return Err(malformed(Malformed::TooLong)),
                // A last line may come without its end.
                Err(FrontError::Closed) if self.front.is_in_long_line() => return Err(malformed(Malformed::TooLong)),
                Err(FrontError::Closed) => match self.front.input().split() {
                    rest if rest.is_empty() && is_idle => return Ok(None),
                    rest if rest.is_empty() => return Err(malformed(Malformed::Unfinished)),
                    rest => rest,
                },
                Err(FrontError::Timeout) => return Err(refused(Code::Timeout, "client-timeout", "no whole request")),
                Err(error) => return Err(End::Lost(error)),
            };
            match parser.line(&line) {
                Ok(Some(request)) => return Ok(Some(request)),
                Ok(None) => {}
                Err(wrong) => {
                    if let Some(request) = parser.so_far() {
                        self.record.asked(request);
                    }
                    return Err(malformed(wrong));
                }
            }
        }
    }

    /// Receives the message, inspects it and answers.
    async fn message(&mut self, request: &Request) -> Result<&'static str, End> {
        let settings = &self.running.settings;
        if request.command == Command::Tell && !settings.spamd.tell {
            return Err(refused(Code::Unavailable, "tell-off", "TELL is not enabled, set spamd.tell"));
        }
        let max_size = settings.spamd.max_size.0.min(settings.contentd.max_size.0);
        let announced = Announced { length: request.length, zlib: request.zlib, max_size };
        announced.check().map_err(body_failed)?;
        let admitted = self.daemon.admission.admit(&settings.contentd, &self.daemon.budget, request.length);
        let mut admitted = admitted.map_err(|refusal| {
            refused(Code::TempFail, "too-busy", format!("too many messages at once: {}", refusal.word()))
        })?;
        let writer = match admitted.take_share() {
            Some(share) => Writer::with(settings.contentd.place(), share),
            None => Writer::new(settings.contentd.place(), self.daemon.budget.clone()),
        };
        let limit = settings.spamd.data_timeout;
        let body = body::receive(&mut self.front, announced, writer, limit).await.map_err(body_failed)?;
        self.record.size = body.message.len();
        self.front.shrink();
        let envelope = envelope();
        self.record.id = envelope.id.to_string();
        let inspected = inspect(&self.daemon, &self.running, &envelope, &body.message).await;
        let inspected = inspected.map_err(inspect_failed)?;
        self.record.inspected(&inspected);
        if request.command != Command::Tell {
            self.daemon.account.note(&inspected.spam, &Levels::of(&inspected.spam, &self.running.policy));
        }
        let limit = self.running.settings.spamd.reply_timeout.0;
        // All of the answer: a client that takes a little now and then would keep its message here for days.
        let answered = timeout(limit, self.answer(request, &inspected, &body)).await;
        answered.unwrap_or(Err(End::Lost(FrontError::Timeout)))
    }

    /// The answer, and the word for it.
    async fn answer(&mut self, request: &Request, inspected: &Inspected, body: &Body) -> Result<&'static str, End> {
        let Request { command, version, .. } = *request;
        let assessment = &inspected.assessment;
        let hostname = &self.running.target.hostname;
        match command {
            Command::Process | Command::Headers => self.marked(request, inspected, body).await?,
            Command::Symbols => self.send(reply::text(command, version, assessment, &assessment.names())).await?,
            Command::Report => {
                let text = report(assessment, hostname);
                self.send(reply::text(command, version, assessment, &text)).await?;
            }
            Command::ReportIfSpam => {
                let text = if assessment.is_spam { report(assessment, hostname) } else { String::new() };
                self.send(reply::text(command, version, assessment, &text)).await?;
            }
            Command::Tell => return self.learn(request, inspected).await,
            Command::Check | Command::Ping | Command::Skip => self.send(reply::checked(assessment)).await?,
        }
        Ok(if assessment.is_spam { "spam" } else { "ham" })
    }

    /// Counts what the client says of the message. What has been counted cannot be taken back, and nothing is told to other sites.
    async fn learn(&mut self, request: &Request, inspected: &Inspected) -> Result<&'static str, End> {
        let class = request.class.filter(|_| request.set.local);
        if let Some(class) = class {
            self.daemon.account.feedback(&inspected.spam, class);
        }
        self.send(reply::told(class.is_some())).await?;
        Ok(if class.is_some() { "learnt" } else { "nothing-learnt" })
    }

    /// The message, or its header section, with what we say about it.
    async fn marked(&mut self, request: &Request, inspected: &Inspected, body: &Body) -> Result<(), End> {
        let (command, version, message) = (request.command, request.version, &body.message);
        let head = message.head(HEADER_LIMIT).await.map_err(unreadable)?;
        let markup = Markup::new(&head, &inspected.assessment, &self.running.target.hostname);
        let before = body.mailbox_line.len() as u64;
        if command == Command::Headers {
            let head = markup.head(&head);
            let length = before + head.len() as u64;
            let first = reply::before_message(version, &inspected.assessment, length);
            return self.send([first, body.mailbox_line.clone(), head].concat()).await;
        }
        let length = before + markup.length(message.len());
        let mut out = reply::before_message(version, &inspected.assessment, length);
        out.extend_from_slice(&body.mailbox_line);
        out.extend_from_slice(&markup.edit.prepend);
        let (mut reader, mut at) = (message.open(), 0);
        while let Some(chunk) = reader.chunk().await.map_err(unreadable)? {
            markup.edit.pass(at, &chunk, |piece| out.extend_from_slice(piece));
            at += chunk.len() as u64;
            self.send(std::mem::take(&mut out)).await?;
        }
        self.send(out).await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        self.front.send(&bytes).await.map_err(End::Lost)
    }
}

fn malformed(wrong: Malformed) -> End {
    refused(Code::Protocol, "malformed", wrong)
}

fn unreadable(error: std::io::Error) -> End {
    tracing::error!(%error, "cannot read the spooled message");
    refused(Code::TempFail, "spool-error", "local error")
}

fn body_failed(error: BodyError) -> End {
    match error {
        BodyError::TooLarge(_) => refused(Code::Data, "too-big", error),
        BodyError::Length { .. } => refused(Code::Protocol, "length-mismatch", error),
        BodyError::NoLength | BodyError::Zlib(_) => refused(Code::Unavailable, "undecodable", error),
        BodyError::Client(FrontError::Timeout) => {
            refused(Code::Timeout, "client-timeout", "message not received in time")
        }
        BodyError::Client(error) => End::Lost(error),
        BodyError::Spool(error) => {
            tracing::error!(%error, "message not spooled");
            let reason = if matches!(error, SpoolError::Full { .. }) { "spool-full" } else { "spool-error" };
            counter!("octroi_contentd_spool_errors_total", "reason" => reason).increment(1);
            refused(Code::TempFail, reason, "insufficient system storage")
        }
    }
}

fn inspect_failed(error: InspectError) -> End {
    match error {
        InspectError::Poison => refused(Code::Software, "poison", error),
        InspectError::Deadline => refused(Code::Timeout, "deadline", error),
        InspectError::NotNow(reason) => refused(Code::TempFail, reason.word(), error),
        InspectError::NoRules => refused(Code::Unavailable, "no-rules", error),
        InspectError::Spool(error) => unreadable(error),
    }
}
