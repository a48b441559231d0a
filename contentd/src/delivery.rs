// SPDX-License-Identifier: GPL-3.0-or-later
//! A message that the next hop has taken, until the client has heard so; and one on whose final dot the next hop has not answered in time.
//!
//! What the client may not have heard goes into the ledger, so that the message is not delivered again when it comes again.

use std::sync::Arc;
use std::time::Duration;

use common::units::Period;
use metrics::counter;
use tokio::time::Instant;

use crate::identity::Key;
use crate::ledger::{Kind, Ledger};
use crate::reinject::NextHop;
use crate::witness::Held;

/// For a reply that did not come in the client's time (RFC 5321 section 4.5.3.2.6).
const PATIENCE: Duration = Duration::from_secs(600);

/// A message whose final dot has been sent.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The message's id.
    pub(crate) id: String,
    /// Of the message for each of its recipients; none when it cannot be known again.
    pub(crate) keys: Vec<Key>,
    /// The witness has the connection.
    pub(crate) held: Option<Held>,
    pub(crate) ledger: Arc<Ledger>,
    /// How long it is remembered.
    pub(crate) keep: Period,
    /// What the next hop said.
    pub(crate) reply: String,
    /// Further tries wait for its end.
    pub(crate) is_open: bool,
}

impl Delivery {
    /// The client knows.
    pub(crate) fn heard(self) {
        self.settle();
    }

    /// The next hop does not have the message, or nobody can find out.
    pub(crate) fn over(self) {
        self.settle();
    }

    /// The client may not know: it will send the message again.
    pub(crate) fn unheard(self) {
        // Nobody can undo it, so at least it is on record.
        counter!("octroi_contentd_unheard_total").increment(1);
        tracing::warn!(id = self.id, "delivered, but the client left before it could be told");
        tokio::spawn(self.enter());
    }

    /// Goes on listening to the next hop, which the client no longer waits for.
    pub(crate) fn listen(mut self, mut hop: NextHop) {
        self.ledger.open(&self.keys, true);
        self.is_open = true;
        tokio::spawn(async move {
            let answer = hop.answer(Instant::now() + PATIENCE).await;
            hop.leave();
            match answer {
                Ok(reply) if reply.is_success() => {
                    self.reply = reply.first_line().into_owned();
                    tracing::warn!(
                        id = self.id,
                        reply = self.reply,
                        "delivered after the client was told to come again"
                    );
                    self.enter().await;
                }
                Ok(_) | Err(_) => self.over(),
            }
        });
    }

    /// Into the ledger at once; what comes back is ready when it is in the store, and until then the witness keeps it.
    fn enter(mut self) -> impl Future<Output = ()> + Send + use<> {
        let written = self.ledger.add(Kind::Delivered, &self.keys, &self.id, &self.reply, self.keep);
        self.close();
        async move {
            if written.await.is_ok() {
                self.settle();
            }
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.ledger.open(&self.keys, false);
        }
    }

    fn settle(mut self) {
        self.close();
        if let Some(held) = self.held {
            held.settled();
        }
    }
}
