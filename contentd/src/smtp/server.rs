// SPDX-License-Identifier: GPL-3.0-or-later
//! One session with a client: lines to the dialogue, its steps to the next hop, replies back.
//!
//! The next hop is asked at MAIL and at every RCPT, so that the client gets its words for the command they
//! belong to. Postfix connects to us only once it has a recipient, so nothing is asked in vain. What happens to
//! a message is in `transaction`.

use std::sync::Arc;
use std::time::Duration;

use common::net::Stream;
use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::front::{Front, FrontError, Line};
use super::protocol::{Dialogue, Step};
use super::reply::Reply;
use crate::admission::Admitted;
use crate::daemon::{Daemon, Running};
use crate::delivery::Delivery;
use crate::envelope::{Envelope, MessageId, Path};
use crate::reinject::NextHop;
use crate::transaction::{Answer, Transaction, hop_error};

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Stream, daemon: Arc<Daemon>, stop: CancellationToken) {
    let running = daemon.running();
    if !running.allows(&stream) {
        refuse(stream, running.settings.contentd.reply_timeout.0).await;
        return;
    }
    let dialogue = Dialogue::new(running.settings.contentd.dialogue());
    let front = Front::new(stream, running.settings.contentd.reply_timeout.0);
    let mut session = Session {
        front,
        dialogue,
        running,
        daemon,
        hop: None,
        admitted: None,
        unconfirmed: None,
        replied: false,
        stop,
    };
    let ended = session.run().await;
    if let Err(error) = &ended {
        tracing::debug!(%error, "session ended");
    }
    if let Some(delivery) = session.unconfirmed.take() {
        session.leave_untold(delivery, ended);
    }
    if let Some(hop) = session.hop {
        hop.leave();
    }
}

async fn refuse(stream: Stream, reply_timeout: Duration) {
    tracing::warn!(client = ?stream.peer_ip(), "client not in contentd.allow");
    counter!("octroi_contentd_refused_clients_total").increment(1);
    let mut front = Front::new(stream, reply_timeout);
    front.reply(&Reply::new(554, "5.7.1", "Access denied"));
    // It is being turned away: whether it hears so does not matter.
    let _ = front.flush().await;
}

struct Session {
    front: Front,
    dialogue: Dialogue,
    running: Arc<Running>,
    daemon: Arc<Daemon>,
    /// There from an accepted MAIL to the end of the transaction, unless it failed.
    hop: Option<NextHop>,
    /// There from an accepted MAIL to the end of the transaction.
    admitted: Option<Admitted>,
    /// The next hop has it; until the client goes on, nobody knows whether it has read our reply.
    unconfirmed: Option<Delivery>,
    /// The reply to the last message is on its way.
    replied: bool,
    stop: CancellationToken,
}

impl Session {
    async fn run(&mut self) -> Result<(), FrontError> {
        self.front.reply(&self.dialogue.banner());
        loop {
            let Some(line) = self.line().await? else {
                return self.close(&Reply::new(421, "4.3.2", "Service is closing")).await;
            };
            if let Some(delivery) = self.unconfirmed.take() {
                self.daemon.partings.went_on();
                delivery.heard();
            }
            let step = match line {
                Line::Complete(line) => self.dialogue.step(&line),
                Line::TooLong => self.dialogue.line_too_long(),
            };
            match step {
                Step::Reply(reply) => self.front.reply(&reply),
                Step::Reset(reply) => {
                    self.leave_hop();
                    self.front.reply(&reply);
                }
                Step::Close(reply) => return self.close(&reply).await,
                Step::Mail(path) => self.mail(path).await,
                Step::Recipient(path) => self.recipient(path).await,
                Step::Data(envelope) => self.data(*envelope).await?,
            }
        }
    }

    /// The next line; None when the daemon stops and no transaction is open.
    async fn line(&mut self) -> Result<Option<Line>, FrontError> {
        if !self.front.has_line() {
            self.front.flush().await?;
        }
        let idle = self.dialogue.envelope().is_none();
        let limits = &self.running.settings.contentd;
        let wait = if idle { limits.idle_timeout } else { limits.command_timeout };
        let read = self.front.line(wait.0);
        let line = tokio::select! {
            biased;
            line = read => line,
            () = self.stop.cancelled(), if idle => return Ok(None),
        };
        if let Err(FrontError::Timeout) = line {
            self.close(&Reply::new(421, "4.4.2", "Timeout")).await?;
        }
        line.map(Some)
    }

    async fn close(&mut self, reply: &Reply) -> Result<(), FrontError> {
        self.front.reply(reply);
        self.front.flush().await
    }

    /// The session has ended behind the reply to a message, without another command. The system of a client that closes with our reply
    /// unread resets the connection; one that closes in order has read it, and may have crashed before it made use of it.
    fn leave_untold(&self, delivery: Delivery, ended: Result<(), FrontError>) {
        let in_order = matches!(ended, Err(FrontError::Closed)) && self.replied && !delivery.is_open;
        let in_order = in_order && !self.front.was_reset();
        match in_order && self.daemon.partings.is_habit() {
            true => delivery.heard(),
            false => delivery.unheard(),
        }
    }

    fn leave_hop(&mut self) {
        self.admitted = None;
        if let Some(hop) = self.hop.take() {
            hop.leave();
        }
    }

    async fn mail(&mut self, path: Path) {
        let (admission, settings) = (&self.daemon.admission, &self.running.settings.contentd);
        let admitted = match admission.admit(settings, &self.daemon.budget, path.size()) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.front.reply(&refusal.reply()),
        };
        let envelope = Envelope::new(MessageId::generate(), path, self.dialogue.client().clone());
        match NextHop::begin(&self.running.target, &envelope).await {
            Ok((hop, reply)) => {
                self.front.reply(&reply);
                if reply.is_success() {
                    self.hop = Some(hop);
                    self.admitted = Some(admitted);
                    self.dialogue.begin(envelope);
                } else {
                    hop.leave();
                }
            }
            Err(error) => self.front.reply(&hop_error(&envelope.id, &error)),
        }
    }

    async fn recipient(&mut self, path: Path) {
        if self.comes_alone(&path) {
            counter!("octroi_contentd_splits_total").increment(1);
            let text = "other rules hold for this recipient, send it in a separate transaction";
            return self.front.reply(&Reply::new(452, "4.5.3", text));
        }
        let Some(hop) = &mut self.hop else { return self.front.reply(&self.hop_gone()) };
        match hop.rcpt(&path.verbatim).await {
            Ok(reply) => {
                self.front.reply(&reply);
                if reply.is_success() {
                    self.dialogue.add_recipient(path);
                }
            }
            Err(error) => {
                self.hop = None;
                let id = self.dialogue.envelope().map(|envelope| envelope.id.clone());
                let reply = hop_error(&id.unwrap_or_else(MessageId::generate), &error);
                self.front.reply(&reply);
            }
        }
    }

    /// Whether a recipient must not share a message with the first one (RFC 5321 section 4.5.3.1.10 has the reply).
    fn comes_alone(&self, path: &Path) -> bool {
        let first = self.dialogue.envelope().and_then(|envelope| envelope.recipients.first());
        first.is_some_and(|first| self.running.pipeline.separates(&first.address, &path.address))
    }

    /// For what follows the loss of the next hop, which has been logged and counted.
    fn hop_gone(&self) -> Reply {
        let id = self.dialogue.envelope().map_or_else(String::new, |envelope| format!("id={} - ", envelope.id));
        Reply::new(451, "4.4.2", &format!("{id}next hop closed the connection, try again later"))
    }

    async fn data(&mut self, envelope: Envelope) -> Result<(), FrontError> {
        let mut admitted = self.admitted.take();
        let Some(hop) = self.hop.take() else {
            let reply = Reply::new(
                451,
                "4.4.2",
                &format!("id={} - next hop closed the connection, try again later", envelope.id),
            );
            self.front.reply(&reply);
            return Ok(());
        };
        self.front.reply(&Reply::new(354, "", "End data with <CR><LF>.<CR><LF>"));
        self.front.flush().await?;
        let share = admitted.as_mut().and_then(Admitted::take_share);
        let transaction = Transaction::new(&mut self.front, &self.running, &self.daemon, envelope, hop, share);
        let Answer { reply, close, hop, delivery } = transaction.run().await;
        (self.unconfirmed, self.replied) = (delivery, false);
        let Some(reply) = reply else { return Err(FrontError::Closed) };
        self.front.reply(&reply);
        let heard = self.front.flush().await;
        self.replied = heard.is_ok();
        if let Some(hop) = hop {
            hop.leave();
        }
        if close { Err(FrontError::Timeout) } else { heard }
    }
}
