// SPDX-License-Identifier: GPL-3.0-or-later
//! The path of one message, from the client's DATA to the reply it gets: receive, take over, inspect, decide, obey, forward, answer.
//!
//! `Transaction::stages` is that list. The rules that no mail is lost and none comes twice live here: 2xx only
//! after the next hop's 2xx, and no final dot once the client is gone or the deadline has passed (DESIGN
//! section 2, Content 1).

mod forward;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use common::orders::Order;
use common::spf::SpfResult;
use common::units::Period;
use metrics::counter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::config::BareNewline;
use crate::daemon::{Daemon, Running};
use crate::decision::{Decision, Told};
use crate::delivery::Delivery;
use crate::envelope::{Envelope, MessageId};
use crate::findings::{Findings, Spam};
use crate::handover::{Handover, attachment};
use crate::identity::{Identity, Key};
use crate::ledger::{Kind, OnStoreError};
use crate::message::edit::{self, Edit};
use crate::message::own;
use crate::poison::PoisonAction;
use crate::quarantine::Why;
use crate::reinject::{NextHop, Target};
use crate::smtp::data::Decoder;
use crate::smtp::front::{Front, FrontError};
use crate::smtp::protocol::too_big;
use crate::smtp::reply::Reply;
use crate::spam::account::Levels;
use crate::spam::headers::{self, Shown};
use crate::spool::{Message, Share, SpoolError, Writer};
use crate::verdict::{Destiny, decide};
use crate::witness::Inspecting;
pub(crate) use forward::hop_error;

/// How much of a message can be header section. For Postfix it ends at 100 KiB (header_size_limit), the rest is body.
const HEADER_LIMIT: usize = 1024 * 1024;

const CLIENT_TIMEOUT: &str = "client-timeout";
const SILENT: &str = "next-hop-silent";

/// What the server does when the message has been dealt with.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For the client; none when it is gone.
    pub(crate) reply: Option<Reply>,
    /// Whether the session ends after the reply, because the client stopped in the middle of its message.
    pub(crate) close: bool,
    /// To be left with QUIT after the reply.
    pub(crate) hop: Option<NextHop>,
    /// What the client must hear, when the next hop has the message.
    pub(crate) delivery: Option<Delivery>,
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
    daemon: &'a Daemon,
    envelope: Envelope,
    hop: Option<NextHop>,
    /// Room that has been set aside for the message.
    share: Option<Share>,
    /// Where the message goes.
    target: &'a Target,
    /// The envelope with which it goes, when policyd has ordered another one.
    outgoing: Option<Envelope>,
    /// Set by the client's final dot.
    clock: Clock,
    decision: Decision,
    /// By which the message is known again.
    identity: Option<Identity>,
    /// What could crash us goes on.
    inspecting: Option<Inspecting>,
    /// The next hop has the message.
    delivery: Option<Delivery>,
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
        daemon: &'a Daemon,
        envelope: Envelope,
        hop: NextHop,
        share: Option<Share>,
    ) -> Transaction<'a> {
        let decision = Decision::new();
        let (target, clock) = (&running.target, Clock::start(running));
        Transaction {
            front,
            running,
            daemon,
            envelope,
            hop: Some(hop),
            share,
            target,
            outgoing: None,
            clock,
            decision,
            identity: None,
            inspecting: None,
            delivery: None,
        }
    }

    /// Takes the message all the way; never fails: whatever happens becomes an answer and one log event.
    pub(crate) async fn run(mut self) -> Answer {
        let (reply, reason) = match self.stages().await {
            Ok(reply) if reply.is_success() => (Some(reply), self.decision.reason),
            Ok(reply) => (Some(reply), "next-hop-refused"),
            Err(stop) => (stop.reply, stop.reason),
        };
        self.decision.write(&self.envelope, Told::of(reply.as_ref()), reason);
        Answer { reply, close: reason == CLIENT_TIMEOUT, hop: self.hop, delivery: self.delivery }
    }

    /// The path of a message.
    async fn stages(&mut self) -> Result<Reply, Stop> {
        let message = self.receive().await?;
        if let Some(reply) = self.recall(&message).await? {
            return Ok(reply);
        }
        let mut handover = self.take_over(&message).await?;
        if handover.has(&Order::Discard) {
            return self.discard(&handover, &message).await;
        }
        let findings = self.inspect(&message).await?;
        if let Some(reply) = self.decide(&findings, &message).await? {
            return Ok(reply);
        }
        if findings.checked.discard {
            return self.discard(&handover, &message).await;
        }
        handover.orders.extend(findings.checked.orders.iter().cloned());
        self.obey(&handover, &findings).await?;
        let edit = self.edit(&message, &findings).await?;
        self.forward(&message, &edit).await
    }

    /// Reads up to the end of data. A message that cannot be kept is read to its end all the same: the client
    /// hears us only then.
    async fn receive(&mut self) -> Result<Message, Stop> {
        let started = Instant::now();
        let settings = &self.running.settings.contentd;
        let (mut decoder, mut unwanted) = (Decoder::default(), Vec::new());
        let mut kept = Ok(match self.share.take() {
            Some(share) => Writer::with(settings.place(), share),
            None => Writer::new(settings.place(), self.daemon.budget.clone()),
        });
        loop {
            let input = self.front.input();
            let into = kept.as_mut().map_or(&mut unwanted, Writer::pending);
            let before = into.len();
            let used = decoder.feed(input, into);
            self.decision.size += (into.len() - before) as u64;
            input.advance(used);
            unwanted.clear();
            if let Ok(writer) = &mut kept
                && let Err(stop) = store(writer, settings.max_size.0).await
            {
                kept = Err(stop);
            }
            if decoder.is_done() {
                break;
            }
            let patience = (Instant::now() + settings.data_timeout.0).min(started + settings.data_limit.0);
            self.front.fill(patience).await.map_err(client_lost)?;
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

    /// Knows a message again that has been here before: what was delivered is not delivered again, what crashed us is not inspected again.
    async fn recall(&mut self, message: &Message) -> Result<Option<Reply>, Stop> {
        let identity = Identity::of(message).await.map_err(|error| self.unreadable(&error))?;
        self.identity = Some(identity);
        let (ledger, settings) = (&self.daemon.ledger, &self.running.settings);
        if settings.ledger.on_store_error == OnStoreError::Tempfail && !ledger.is_fresh() {
            return Err(self.stop(451, "4.3.0", "local error, try again later", "ledger-unknown"));
        }
        let keys = self.keys();
        if keys.iter().any(|key| ledger.is_open(*key)) {
            return Err(self.stop(451, "4.3.0", "the last try is not over yet, try again later", "try-open"));
        }
        let delivered: Vec<Option<String>> = keys.iter().map(|key| ledger.delivered(*key)).collect();
        match delivered.iter().flatten().next() {
            None => self.refuse_poison(identity.key(), message).await,
            Some(reply) if delivered.iter().all(Option::is_some) => {
                counter!("octroi_contentd_repeats_total").increment(1);
                self.decision.reason = "delivered-before";
                Ok(Some(naming(&self.envelope.id, 250, "2.0.0", &format!("Ok, delivered before: {reply}"))))
            }
            Some(_) => {
                counter!("octroi_contentd_repeats_total").increment(1);
                self.leave_out(&delivered);
                self.refuse_poison(identity.key(), message).await
            }
        }
    }

    /// Those who have the message do not get it again.
    fn leave_out(&mut self, delivered: &[Option<String>]) {
        let mut rest = self.envelope.clone();
        let mut had = delivered.iter();
        rest.recipients.retain(|_| had.next().is_none_or(Option::is_none));
        self.outgoing = Some(rest);
        if let Some(hop) = self.hop.take() {
            hop.leave();
        }
    }

    /// Keys of the message for each recipient; none when it cannot be known again for sure.
    fn keys(&self) -> Vec<Key> {
        match self.identity.filter(|identity| identity.is_unique) {
            Some(identity) => {
                let (sender, recipients) = (&self.envelope.sender.address, &self.envelope.recipients);
                recipients.iter().map(|recipient| identity.key_for(sender, &recipient.address)).collect()
            }
            None => Vec::new(),
        }
    }

    /// Deals with a message that may not be inspected again.
    async fn refuse_poison(&mut self, key: Key, message: &Message) -> Result<Option<Reply>, Stop> {
        let (ledger, settings) = (&self.daemon.ledger, &self.running.settings.poison);
        let (crashed, late) = (ledger.tries(Kind::Crashed, key), ledger.tries(Kind::Late, key));
        if settings.after == 0 || crashed.max(late) < settings.after {
            return Ok(None);
        }
        counter!("octroi_contentd_poison_total").increment(1);
        self.decision.poisoned(settings.action.word(), format!("crashed {crashed}, late {late}"));
        let told = "content could not be checked";
        match settings.action {
            PoisonAction::Reject => Err(self.stop(554, "5.7.0", told, "poison")),
            PoisonAction::Tempfail => Err(self.stop(450, "4.7.0", told, "poison")),
            PoisonAction::Quarantine => {
                let detail = self.decision.detail.clone();
                let why = Why { category: "unchecked", reason: "poison", detail: &detail, discarded: false };
                self.quarantine(message, why).await?;
                Ok(Some(naming(&self.envelope.id, 250, "2.7.0", "Ok, quarantined")))
            }
        }
    }

    fn unreadable(&self, error: &std::io::Error) -> Stop {
        tracing::error!(id = %self.envelope.id, %error, "cannot read the spooled message");
        self.stop(451, "4.3.0", "local error, try again later", "spool-error")
    }

    /// Reads what policyd hands over with the message.
    async fn take_over(&mut self, message: &Message) -> Result<Handover, Stop> {
        let Some(secret) = &self.running.secret else { return Ok(Handover::default()) };
        let head = self.head(message).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let handover = Handover::read(section(&head), &self.envelope, secret, now);
        self.decision.taken_over(&handover);
        self.envelope.spf = handover.spf.as_deref().and_then(SpfResult::from_word);
        match handover.unusable {
            // What was ordered must not be left out; when the client comes again, policyd gives its order anew.
            Some(_) => Err(self.stop(451, "4.3.0", "local error, try again later", "order-unusable")),
            None => Ok(handover),
        }
    }

    /// Accepts the message and lets it go nowhere; a copy is kept for a while.
    async fn discard(&mut self, handover: &Handover, message: &Message) -> Result<Reply, Stop> {
        let why = Why { category: "ordered", reason: "discarded", detail: "", discarded: true };
        self.quarantine(message, why).await?;
        handover.obeyed();
        self.decision.reason = "discarded";
        Ok(naming(&self.envelope.id, 250, "2.0.0", "Ok"))
    }

    /// Puts the message into the quarantine; only when this has succeeded may the client be told 2xx.
    async fn quarantine(&mut self, message: &Message, why: Why<'_>) -> Result<(), Stop> {
        self.last_look().await?;
        let settings = &self.running.settings.quarantine;
        let envelope = self.outgoing.as_ref().unwrap_or(&self.envelope);
        let kept = self.daemon.quarantine.keep(settings, envelope, message, why).await;
        kept.map_err(|_| self.stop(451, "4.3.0", "local error, try again later", "quarantine-failed"))
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
        let changed = handover.envelope(self.outgoing.as_ref().unwrap_or(&self.envelope));
        if handover.has(&Order::Hold) {
            self.target = &self.running.hold;
        }
        if (changed.is_some() || handover.has(&Order::Hold))
            && let Some(hop) = self.hop.take()
        {
            hop.leave();
        }
        self.outgoing = changed.or(self.outgoing.take());
        handover.obeyed();
        Ok(())
    }

    /// Lets the pipeline look at the message, as long as the client is there and time is left.
    async fn inspect(&mut self, message: &Message) -> Result<Findings, Stop> {
        let started = Instant::now();
        let key = self.identity.map(|identity| identity.key()).unwrap_or_default();
        let _turn = self.turn(key).await?;
        self.inspecting = self.daemon.witness.inspecting(self.envelope.id.as_str(), key);
        let others = self.daemon.inspected.load(Ordering::Relaxed);
        let inspected = self.running.pipeline.inspect(&self.envelope, message, self.clock.deadline);
        let findings = tokio::select! {
            // The pipeline keeps the deadline itself and says so in its findings; this is for a stage that does not.
            findings = timeout_at(self.clock.deadline + Duration::from_secs(1), inspected) => findings.ok(),
            () = self.front.vanished() => return Err(client_lost(FrontError::Closed)),
        };
        self.decision.inspected(started.elapsed());
        if Instant::now() < self.clock.deadline {
            self.daemon.inspected.fetch_add(1, Ordering::Relaxed);
        } else if self.daemon.inspected.load(Ordering::Relaxed) != others {
            // While no other message was well in that time, it is the scanner or the machine, not this message.
            drop(self.daemon.ledger.add(Kind::Late, &[key], self.envelope.id.as_str(), "", self.keep()));
        }
        findings.ok_or_else(|| self.out_of_time())
    }

    /// A message that crashed us before is inspected with no other of its kind, so that it is known which one it was if it does so again.
    async fn turn(&self, key: Key) -> Result<Option<OwnedSemaphorePermit>, Stop> {
        if self.daemon.ledger.tries(Kind::Crashed, key) == 0 {
            return Ok(None);
        }
        let turn = timeout_at(self.clock.deadline, self.daemon.ledger.alone.clone().acquire_owned()).await;
        turn.map(Result::ok).map_err(|_| self.out_of_time())
    }

    /// How long the ledger remembers.
    fn keep(&self) -> Period {
        self.running.settings.ledger.keep
    }

    /// Turns findings into a verdict; only a verdict to pass goes on. The reply when the message is accepted and kept here.
    async fn decide(&mut self, findings: &Findings, message: &Message) -> Result<Option<Reply>, Stop> {
        let verdict = decide(findings, &self.running.policy);
        self.decision.decided(&verdict);
        self.decision.checked(&findings.checked);
        if let Some(spam) = &findings.spam {
            self.daemon.account.note(spam, &Levels::of(spam, &self.running.policy));
        }
        self.decision.rated(findings, &self.running.policy.ambiguity);
        if verdict.destiny == Destiny::Pass {
            return Ok(None);
        }
        let reply =
            verdict.reply.unwrap_or_else(|| naming(&self.envelope.id, 451, "4.3.0", "no verdict, try again later"));
        if !matches!(verdict.destiny, Destiny::Quarantine | Destiny::Discard) {
            return Err(Stop { reply: Some(reply), reason: verdict.reason.word() });
        }
        let discarded = verdict.destiny == Destiny::Discard;
        let (category, reason) = (verdict.category.word(), verdict.reason.word());
        self.quarantine(message, Why { category, reason, detail: &verdict.detail, discarded }).await?;
        Ok(Some(reply))
    }

    /// The start of the message, with its header section.
    async fn head(&self, message: &Message) -> Result<Bytes, Stop> {
        message.head(HEADER_LIMIT).await.map_err(|error| self.unreadable(&error))
    }

    /// Plans our headers in and forged ones out.
    async fn edit(&self, message: &Message, findings: &Findings) -> Result<Edit, Stop> {
        let head = self.head(message).await?;
        let settings = &self.running.settings;
        let shown = Shown::of(findings, &settings.ambiguity, &settings.spam);
        let own = own::fields(findings, &self.running.target.hostname, &settings.headers, shown.as_ref());
        let mut edit = edit::plan(section(&head), &own, &settings.headers);
        edit.add(&findings.checked.changes);
        let tag = &settings.spam.subject_tag;
        if !tag.is_empty() && findings.spam.as_ref().is_some_and(Spam::is_tagged) {
            headers::tag_subject(section(&head), tag, &mut edit);
        }
        Ok(edit)
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
}

/// Keeps what has been appended to the spool.
async fn store(writer: &mut Writer, max_size: u64) -> Result<(), Stop> {
    writer.added().await.map_err(spool_failed)?;
    if writer.len() > max_size {
        return Err(Stop { reply: Some(too_big()), reason: "too-big" });
    }
    Ok(())
}

fn spool_failed(error: SpoolError) -> Stop {
    tracing::error!(%error, "message not spooled");
    let reason = if matches!(error, SpoolError::Full { .. }) { "spool-full" } else { "spool-error" };
    counter!("octroi_contentd_spool_errors_total", "reason" => reason).increment(1);
    Stop { reply: Some(storage_full()), reason }
}

/// The reply when a message cannot be kept now.
fn storage_full() -> Reply {
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
