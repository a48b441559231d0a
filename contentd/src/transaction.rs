// SPDX-License-Identifier: GPL-3.0-or-later
//! The path of one message, from the client's DATA to the reply it gets: receive, take over, inspect, decide, obey, forward, answer.
//!
//! `Transaction::stages` is that list. The rules that no mail is lost and none comes twice live here: 2xx only
//! after the next hop's 2xx, and no final dot once the client is gone or the deadline has passed (DESIGN
//! section 2, Content 1).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use common::orders::Order;
use metrics::counter;
use tokio::time::{Instant, timeout_at};

use crate::config::BareNewline;
use crate::daemon::Running;
use crate::decision::{Decision, Told};
use crate::envelope::{Envelope, MessageId};
use crate::findings::Findings;
use crate::handover::{Handover, attachment};
use crate::message::edit::{self, Edit};
use crate::message::own;
use crate::reinject::{Failure, HopError, NextHop, Progress, Stage, Target};
use crate::smtp::data::Decoder;
use crate::smtp::front::{Front, FrontError};
use crate::smtp::protocol::too_big;
use crate::smtp::reply::Reply;
use crate::spool::{Budget, Message, SpoolError, Writer};
use crate::verdict::{Destiny, decide};

/// How much of a message can be header section. For Postfix it ends at 100 KiB (header_size_limit), the rest is body.
const HEADER_LIMIT: usize = 1024 * 1024;

const CLIENT_TIMEOUT: &str = "client-timeout";

/// What the server does when the message has been dealt with.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For the client; none when it is gone.
    pub(crate) reply: Option<Reply>,
    /// Whether the session ends after the reply, because the client stopped in the middle of its message.
    pub(crate) close: bool,
    /// To be left with QUIT after the reply.
    pub(crate) hop: Option<NextHop>,
}

/// Why the path ended before its end.
#[derive(Debug)]
struct Stop {
    /// What the client is told; none when it is gone.
    reply: Option<Reply>,
    /// The word for the log.
    reason: &'static str,
}

/// One message on its way.
pub(crate) struct Transaction<'a> {
    front: &'a mut Front,
    running: &'a Running,
    budget: Arc<Budget>,
    envelope: Envelope,
    hop: Option<NextHop>,
    /// Where the message goes.
    target: &'a Target,
    /// The envelope with which it goes, when policyd has ordered another one.
    outgoing: Option<Envelope>,
    /// Set by the client's final dot.
    clock: Clock,
    decision: Decision,
}

/// The limits that run from the client's final dot.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// After this no final dot is sent.
    deadline: Instant,
    /// Until then the next hop may answer ours.
    answer_by: Instant,
}

impl Clock {
    fn start(running: &Running) -> Clock {
        let now = Instant::now();
        let contentd = &running.settings.contentd;
        Clock {
            deadline: now + contentd.deadline.0,
            answer_by: now + (contentd.proxy_timeout.0 - crate::config::ANSWER_MARGIN),
        }
    }
}

impl<'a> Transaction<'a> {
    /// A message whose DATA has been answered with 354. `hop` has taken the sender and the recipients.
    pub(crate) fn new(
        front: &'a mut Front,
        running: &'a Running,
        budget: Arc<Budget>,
        envelope: Envelope,
        hop: NextHop,
    ) -> Transaction<'a> {
        let decision = Decision::new();
        let (target, clock) = (&running.target, Clock::start(running));
        Transaction { front, running, budget, envelope, hop: Some(hop), target, outgoing: None, clock, decision }
    }

    /// Takes the message all the way; never fails: whatever happens becomes an answer and one log event.
    pub(crate) async fn run(mut self) -> Answer {
        let (reply, reason) = match self.stages().await {
            Ok(reply) if reply.is_success() => (Some(reply), self.decision.reason),
            Ok(reply) => (Some(reply), "next-hop-refused"),
            Err(stop) => (stop.reply, stop.reason),
        };
        self.decision.write(&self.envelope, Told::of(reply.as_ref()), reason);
        Answer { reply, close: reason == CLIENT_TIMEOUT, hop: self.hop }
    }

    /// The path of a message.
    async fn stages(&mut self) -> Result<Reply, Stop> {
        let message = self.receive().await?;
        let handover = self.take_over(&message).await?;
        if handover.has(&Order::Discard) {
            return Ok(self.discard(&handover));
        }
        let findings = self.inspect(&message).await?;
        self.decide(&findings)?;
        self.obey(&handover, &findings).await?;
        let edit = self.edit(&message, &findings).await?;
        self.forward(&message, &edit).await
    }

    /// Reads up to the end of data. A message that cannot be kept is read to its end all the same: the client
    /// hears us only then.
    async fn receive(&mut self) -> Result<Message, Stop> {
        let started = Instant::now();
        let settings = &self.running.settings.contentd;
        let (mut decoder, mut piece) = (Decoder::default(), Vec::new());
        let mut kept = Ok(Writer::new(settings.place(), self.budget.clone()));
        loop {
            let input = self.front.input();
            let used = decoder.feed(input, &mut piece);
            input.advance(used);
            if let Ok(writer) = &mut kept
                && let Err(stop) = store(writer, &piece, settings.max_size.0).await
            {
                kept = Err(stop);
            }
            self.decision.size += piece.len() as u64;
            piece.clear();
            if decoder.is_done() {
                break;
            }
            self.front.fill(settings.data_timeout.0).await.map_err(client_lost)?;
        }
        self.clock = Clock::start(self.running);
        self.front.shrink();
        self.decision.received(started.elapsed());
        self.check_bare(&decoder)?;
        kept?.finish().await.map_err(spool_failed)
    }

    fn check_bare(&self, decoder: &Decoder) -> Result<(), Stop> {
        let (cr, lf) = decoder.bare();
        if cr + lf == 0 {
            return Ok(());
        }
        counter!("octroi_contentd_bare_newlines_total", "byte" => "cr").increment(cr);
        counter!("octroi_contentd_bare_newlines_total", "byte" => "lf").increment(lf);
        match self.running.settings.contentd.bare_newline {
            BareNewline::Normalize => Ok(()),
            BareNewline::Reject => Err(self.stop(550, "5.5.2", "message contains a bare CR or LF", "bare-newline")),
        }
    }

    /// Reads what policyd hands over with the message.
    async fn take_over(&mut self, message: &Message) -> Result<Handover, Stop> {
        let Some(secret) = &self.running.secret else { return Ok(Handover::default()) };
        let head = self.head(message).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let handover = Handover::read(section(&head), &self.envelope, secret, now);
        self.decision.taken_over(&handover);
        match handover.unusable {
            // What was ordered must not be left out; when the client comes again, policyd gives its order anew.
            Some(_) => Err(self.stop(451, "4.3.0", "local error, try again later", "order-unusable")),
            None => Ok(handover),
        }
    }

    /// Accepts the message and lets it go nowhere.
    fn discard(&mut self, handover: &Handover) -> Reply {
        handover.obeyed();
        self.decision.reason = "discarded";
        naming(&self.envelope.id, 250, "2.0.0", "Ok")
    }

    /// Does what policyd has ordered: refuses attachments, and opens another session with the next hop where the message goes
    /// elsewhere than it came for.
    async fn obey(&mut self, handover: &Handover, findings: &Findings) -> Result<(), Stop> {
        if handover.orders.is_empty() {
            return Ok(());
        }
        if handover.has(&Order::NoAttachments)
            && let Some(name) = attachment(findings)
        {
            handover.obeyed();
            self.decision.detail = name.chars().take(120).collect();
            return Err(self.stop(554, "5.7.1", "attachments are not accepted for this recipient", "no-attachments"));
        }
        let changed = handover.envelope(&self.envelope);
        if handover.has(&Order::Hold) {
            self.target = &self.running.hold;
        }
        if (changed.is_some() || handover.has(&Order::Hold))
            && let Some(hop) = self.hop.take()
        {
            hop.quit().await;
        }
        self.outgoing = changed;
        handover.obeyed();
        Ok(())
    }

    /// Lets the pipeline look at the message, as long as the client is there and time is left.
    async fn inspect(&mut self, message: &Message) -> Result<Findings, Stop> {
        let started = Instant::now();
        let inspected = self.running.pipeline.inspect(&self.envelope, message, self.clock.deadline);
        let findings = tokio::select! {
            // The pipeline keeps the deadline itself and says so in its findings; this is for a stage that does not.
            findings = timeout_at(self.clock.deadline + Duration::from_secs(1), inspected) => findings.ok(),
            () = self.front.vanished() => return Err(client_lost(FrontError::Closed)),
        };
        self.decision.inspected(started.elapsed());
        findings.ok_or_else(|| self.out_of_time())
    }

    /// Turns findings into a verdict; only a verdict to pass goes on.
    fn decide(&mut self, findings: &Findings) -> Result<(), Stop> {
        let verdict = decide(findings, &self.running.policy);
        self.decision.decided(&verdict);
        if verdict.destiny == Destiny::Pass {
            return Ok(());
        }
        let reply =
            verdict.reply.unwrap_or_else(|| naming(&self.envelope.id, 451, "4.3.0", "no verdict, try again later"));
        Err(Stop { reply: Some(reply), reason: verdict.reason.word() })
    }

    /// The start of the message, with its header section.
    async fn head(&self, message: &Message) -> Result<Bytes, Stop> {
        message.head(HEADER_LIMIT).await.map_err(|error| {
            tracing::error!(id = %self.envelope.id, %error, "cannot read the spooled message");
            self.stop(451, "4.3.0", "local error, try again later", "spool-error")
        })
    }

    /// Plans our headers in and forged ones out.
    async fn edit(&self, message: &Message, findings: &Findings) -> Result<Edit, Stop> {
        let head = self.head(message).await?;
        let settings = &self.running.settings.headers;
        Ok(edit::plan(section(&head), &own::fields(findings, &self.running.target.hostname, settings), settings))
    }

    /// Hands the message to the next hop. The last look at client and clock comes right before the final dot.
    async fn forward(&mut self, message: &Message, edit: &Edit) -> Result<Reply, Stop> {
        let started = Instant::now();
        let mut hop = self.open_data().await?;
        let sent = hop.body(message, edit, self.clock.deadline).await;
        match sent.map_err(|error| self.hop_failed(error))? {
            Progress::Ready => self.last_look().await?,
            Progress::Refused(reply) => return Err(self.hop_refused(reply)),
        }
        let reply = hop.end(self.clock.answer_by).await.map_err(|error| self.hop_failed(error))?;
        self.decision.forwarded(started.elapsed(), &reply);
        self.hop = Some(hop);
        Ok(reply)
    }

    /// DATA to the next hop. It may have closed meanwhile, because the client was slow; nothing has been sent
    /// yet, so one new try is safe.
    async fn open_data(&mut self) -> Result<NextHop, Stop> {
        let mut failed = None;
        if let Some(hop) = self.hop.take() {
            match self.start_data(hop).await? {
                Ok(hop) => return Ok(hop),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !matches!(error.failure, Failure::Lost) => return Err(self.hop_failed(error)),
            Some(error) => {
                tracing::info!(id = %self.envelope.id, %error, "opening the session with the next hop again")
            }
            None => {}
        }
        let reopened = timeout_at(
            self.clock.deadline,
            NextHop::reopen(self.target, self.outgoing.as_ref().unwrap_or(&self.envelope)),
        )
        .await;
        let hop = match reopened {
            Ok(Ok(hop)) => hop,
            Ok(Err(error)) => return Err(self.hop_failed(error)),
            Err(_) => return Err(self.out_of_time()),
        };
        match self.start_data(hop).await? {
            Ok(hop) => Ok(hop),
            Err(error) => Err(self.hop_failed(error)),
        }
    }

    /// Sends DATA: the session ready for the message, or what went wrong with the connection. A refusal ends the path.
    async fn start_data(&mut self, mut hop: NextHop) -> Result<Result<NextHop, HopError>, Stop> {
        match hop.data(self.clock.deadline).await {
            Ok(Progress::Ready) => Ok(Ok(hop)),
            Ok(Progress::Refused(reply)) => {
                self.hop = Some(hop);
                Err(self.hop_refused(reply))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// The question before the point of no return.
    async fn last_look(&mut self) -> Result<(), Stop> {
        if self.front.is_gone().await {
            return Err(client_lost(FrontError::Closed));
        }
        if Instant::now() >= self.clock.deadline {
            return Err(self.out_of_time());
        }
        Ok(())
    }

    fn stop(&self, code: u16, enhanced: &str, text: &str, reason: &'static str) -> Stop {
        Stop { reply: Some(naming(&self.envelope.id, code, enhanced, text)), reason }
    }

    fn out_of_time(&self) -> Stop {
        self.stop(451, "4.3.0", "not done in time, try again later", "deadline")
    }

    fn hop_refused(&mut self, reply: Reply) -> Stop {
        self.decision.nexthop(&reply);
        Stop { reply: Some(reply), reason: "next-hop-refused" }
    }

    fn hop_failed(&self, error: HopError) -> Stop {
        let past_deadline = matches!(error.failure, Failure::Timeout) && Instant::now() >= self.clock.deadline;
        let reply = hop_error(&self.envelope.id, &error);
        match (error.stage, past_deadline) {
            // The dot is out and nobody knows what became of it: the one case in which a second copy is possible.
            (Stage::End, _) => Stop { reply: Some(reply), reason: "next-hop-silent" },
            (_, true) => self.out_of_time(),
            _ => Stop { reply: Some(reply), reason: "next-hop-failed" },
        }
    }
}

/// Adds a piece of the message to the spool.
async fn store(writer: &mut Writer, piece: &[u8], max_size: u64) -> Result<(), Stop> {
    if writer.len() + piece.len() as u64 > max_size {
        return Err(Stop { reply: Some(too_big()), reason: "too-big" });
    }
    writer.write(piece).await.map_err(spool_failed)
}

fn spool_failed(error: SpoolError) -> Stop {
    tracing::error!(%error, "message not spooled");
    let reason = if matches!(error, SpoolError::Full { .. }) { "spool-full" } else { "spool-error" };
    counter!("octroi_contentd_spool_errors_total", "reason" => reason).increment(1);
    Stop { reply: Some(storage_full()), reason }
}

/// The reply when a message cannot be kept now.
pub(crate) fn storage_full() -> Reply {
    Reply::new(452, "4.3.1", "Insufficient system storage, try again later")
}

fn client_lost(error: FrontError) -> Stop {
    match error {
        FrontError::Timeout => {
            Stop { reply: Some(Reply::new(421, "4.4.2", "Timeout while waiting for data")), reason: CLIENT_TIMEOUT }
        }
        _ => Stop { reply: None, reason: "client-lost" },
    }
}

/// A reply of ours that names the message.
fn naming(id: &MessageId, code: u16, enhanced: &str, text: &str) -> Reply {
    Reply::new(code, enhanced, &format!("id={id} - {text}"))
}

/// Counts and logs what went wrong with the next hop, once, and says what the client is told.
pub(crate) fn hop_error(id: &MessageId, error: &HopError) -> Reply {
    counter!("octroi_contentd_nexthop_errors_total", "stage" => error.stage.name()).increment(1);
    tracing::warn!(%id, %error, "next hop failed");
    let (enhanced, text) = match error.failure {
        Failure::Connect(_) => ("4.4.1", "next hop not reachable, try again later"),
        Failure::Lost => ("4.4.2", "next hop closed the connection, try again later"),
        Failure::Timeout => ("4.4.2", "next hop did not answer in time, try again later"),
        Failure::Garbage(_) | Failure::Unexpected(_) => ("4.3.0", "next hop gave an unusable answer, try again later"),
        Failure::Spool(_) => ("4.3.0", "local error, try again later"),
    };
    naming(id, 451, enhanced, text)
}

/// The header section. Without an empty line all of it counts: a forged field behind a broken line is one all the same.
fn section(head: &[u8]) -> &[u8] {
    &head[..header_end(head).unwrap_or(head.len())]
}

/// Where the header section ends, behind its empty line.
fn header_end(head: &[u8]) -> Option<usize> {
    if head.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memmem::find(head, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_section_ends_at_the_first_empty_line() {
        assert_eq!(header_end(b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n"), Some(14));
        assert_eq!(header_end(b"\r\nbody"), Some(2));
        assert_eq!(header_end(b"A: b\r\n"), None);
    }
}
