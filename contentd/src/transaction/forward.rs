// SPDX-License-Identifier: GPL-3.0-or-later
//! The last stage of a transaction: the message goes to the next hop, and its answer to the final dot is the answer to the client.
//!
//! Until the dot everything can be tried again. From the dot on a witness knows what we know, and a next hop that does not answer leaves
//! open whether it has the message (RFC 1047).

use metrics::counter;
use tokio::time::{Instant, timeout_at};

use super::{SILENT, Stop, Transaction, naming};
use crate::delivery::Delivery;
use crate::envelope::MessageId;
use crate::message::edit::Edit;
use crate::reinject::{Failure, HopError, NextHop, Progress, Stage};
use crate::smtp::reply::Reply;
use crate::spool::Message;

impl Transaction<'_> {
    /// Hands the message to the next hop. The last look at client and clock comes right before the final dot.
    pub(super) async fn forward(&mut self, message: &Message, edit: &Edit) -> Result<Reply, Stop> {
        let started = Instant::now();
        self.inspecting = None;
        let mut hop = self.open_data().await?;
        let sent = hop.body(message, edit, self.clock.deadline).await;
        match sent.map_err(|error| self.hop_failed(error))? {
            Progress::Ready => self.last_look().await?,
            Progress::Refused(reply) => return Err(self.hop_refused(reply)),
        }
        let reply = self.finish(hop).await?;
        self.decision.forwarded(started.elapsed(), &reply);
        Ok(reply)
    }

    /// The final dot and the answer to it. From here on a witness knows what we know.
    async fn finish(&mut self, mut hop: NextHop) -> Result<Reply, Stop> {
        let mut delivery = self.delivery(&mut hop);
        match hop.dot(self.clock.deadline, self.clock.answer_by).await {
            Ok(None) => {}
            Ok(Some(early)) => {
                delivery.over();
                self.hop = Some(hop);
                return Ok(early);
            }
            Err(error) => {
                delivery.over();
                return Err(self.hop_failed(error));
            }
        }
        let answer = self.answer(&mut hop, &mut delivery).await;
        match answer {
            Ok(reply) => {
                delivery.reply = reply.first_line().into_owned();
                if reply.is_success() {
                    self.delivery = Some(delivery)
                } else {
                    delivery.over()
                }
                self.hop = Some(hop);
                Ok(reply)
            }
            Err(error) => {
                // A next hop that is still thinking may take the message after all.
                if matches!(error.failure, Failure::Timeout) {
                    delivery.listen(hop)
                } else {
                    delivery.over()
                }
                Err(self.hop_failed(error))
            }
        }
    }

    /// The answer to the final dot. When the client leaves meanwhile, a further try of the message has to wait for it.
    async fn answer(&mut self, hop: &mut NextHop, delivery: &mut Delivery) -> Result<Reply, HopError> {
        let (answer_by, told) = (self.clock.answer_by, &*delivery);
        let answered = async {
            if let Some(held) = &told.held
                && let Some(reply) = hop.foresee(answer_by).await
                && reply.is_success()
            {
                // Before we read the reply: whoever looks for it in our place must find it in one place or the other.
                held.taken(&reply.first_line());
            }
            hop.answer(answer_by).await
        };
        let mut gone = false;
        let answer = {
            tokio::pin!(answered);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answered => break answer,
                    () = self.front.vanished(), if !gone => {
                        gone = true;
                        told.ledger.open(&told.keys, true);
                    }
                }
            }
        };
        delivery.is_open = gone;
        answer
    }

    /// The delivery of this message over `hop`, with a witness if there is one.
    fn delivery(&self, hop: &mut NextHop) -> Delivery {
        let (keys, id, witness) = (self.keys(), self.envelope.id.to_string(), &self.daemon.witness);
        let held = if keys.is_empty() { None } else { hop.witnessed(witness, &id, &keys) };
        let ledger = self.daemon.ledger.clone();
        Delivery { id, keys, held, ledger, keep: self.keep(), reply: String::new(), is_open: false }
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

    fn hop_refused(&mut self, reply: Reply) -> Stop {
        self.decision.nexthop(&reply);
        Stop { reply: Some(reply), reason: "next-hop-refused" }
    }

    fn hop_failed(&self, error: HopError) -> Stop {
        let past_deadline = matches!(error.failure, Failure::Timeout) && Instant::now() >= self.clock.deadline;
        let reply = hop_error(&self.envelope.id, &error);
        match (error.stage, past_deadline) {
            // The dot is out and nobody knows what became of it: the one case in which a second copy is possible.
            (Stage::End, _) => Stop { reply: Some(reply), reason: SILENT },
            (_, true) => self.out_of_time(),
            _ => Stop { reply: Some(reply), reason: "next-hop-failed" },
        }
    }
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
