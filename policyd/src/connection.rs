// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection from Postfix: reads requests, has them decided in order, writes the replies.
//!
//! Requests that arrive together are answered together with one write. What cannot be read closes the connection without a reply
//! (SMTPD_POLICY_README, "in case of trouble"). Memory per connection is bounded by one request and one lot of replies.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use common::net::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::classes::Decider;
use crate::policy::Live;
use crate::request::PolicyRequest;
use crate::wire::{self, Framer, MAX_REQUEST, WireError};

/// Read at once; a request of Postfix has 500 to 1500 bytes.
const READ: usize = 2048;
/// Replies are written at the latest when so many bytes wait.
const REPLIES: usize = 4096;
/// A decision that took this long does not wait for the next one of the same lot.
const SLOW: Duration = Duration::from_millis(5);

/// Why a connection ended, other than by Postfix' closing it or our stopping.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed in the middle of a request")]
    Unfinished,
    #[error("no request for {0:?}")]
    Idle(Duration),
    #[error("request not complete after {0:?}")]
    Slow(Duration),
    #[error("reply not read for {0:?}")]
    Unread(Duration),
}

/// Serves a connection until one side ends it.
pub async fn serve(stream: Stream, live: Arc<Live>, decider: Arc<Decider>, stop: CancellationToken) {
    let peer = stream.peer_ip();
    let connection = Connection::new(stream, &live, &decider);
    let Err(error) = connection.run(&stop).await else { return };
    // Postfix hangs up when its own smtpd ends; only what should not happen is worth a warning.
    match error {
        ConnectionError::Wire(wire) => {
            decider.tally().unreadable(wire);
            tracing::warn!(peer = ?peer, error = wire.word(), "unreadable request, connection closed");
        }
        ConnectionError::Io(_) | ConnectionError::Idle(_) => tracing::debug!(peer = ?peer, %error, "connection closed"),
        ConnectionError::Unfinished | ConnectionError::Slow(_) | ConnectionError::Unread(_) => {
            metrics::counter!("octroi_policyd_connections_broken_total").increment(1);
            tracing::warn!(peer = ?peer, %error, "connection closed");
        }
    }
}

struct Connection<'a, S> {
    stream: S,
    live: &'a Live,
    decider: &'a Decider,
    framer: Framer,
    received: BytesMut,
    replies: Vec<u8>,
    action: String,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(stream: S, live: &'a Live, decider: &'a Decider) -> Self {
        let (received, replies) = (BytesMut::new(), Vec::new());
        Self { stream, live, decider, framer: Framer::new(), received, replies, action: String::new() }
    }

    async fn run(mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        // One timer for the whole connection. It is set again only when it fires too early or would fire too late, not per request.
        let timer = tokio::time::sleep(self.patience());
        let stopped = stop.cancelled();
        tokio::pin!(timer, stopped);
        let mut due = timer.deadline();
        let mut stopping = false;
        loop {
            self.make_room();
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.received) => {
                    if read? == 0 {
                        return if self.received.is_empty() { Ok(()) } else { Err(ConnectionError::Unfinished) };
                    }
                    let begun = self.received.len();
                    self.answer_all().await?;
                    if stopping && self.received.is_empty() {
                        return Ok(());
                    }
                    // The rest of an unfinished request does not start the time anew.
                    if self.received.is_empty() || self.received.len() < begun || due > Instant::now() + self.patience() {
                        due = Instant::now() + self.patience();
                    }
                    if due < timer.deadline() {
                        timer.as_mut().reset(due);
                    }
                }
                () = &mut timer => {
                    if Instant::now() >= due {
                        return Err(self.expired());
                    }
                    timer.as_mut().reset(due);
                }
                () = &mut stopped, if !stopping => {
                    if self.received.is_empty() {
                        return Ok(());
                    }
                    stopping = true;
                }
            }
        }
    }

    /// Room for the next read. A request that outgrows the usual gets room for a long one, and then for the longest, not twice as
    /// much again and again: what is outgrown stays with the allocator, and a hundred such clients must not cost more than they send.
    fn make_room(&mut self) {
        let length = self.received.len();
        let enough = [2 * READ, 8 * READ].into_iter().find(|size| length + READ <= *size).unwrap_or(MAX_REQUEST + READ);
        self.received.reserve(if length == 0 { READ } else { enough - length });
    }

    /// How long to wait for the next bytes: long between requests, short inside one.
    fn patience(&self) -> Duration {
        let policy = self.live.current();
        let settings = &policy.settings.policyd;
        if self.received.is_empty() { settings.idle_timeout.0 } else { settings.request_timeout.0 }
    }

    fn expired(&self) -> ConnectionError {
        let patience = self.patience();
        if self.received.is_empty() { ConnectionError::Idle(patience) } else { ConnectionError::Slow(patience) }
    }

    /// Answers every complete request that has been received.
    async fn answer_all(&mut self) -> Result<(), ConnectionError> {
        loop {
            let length = match self.framer.find(&self.received) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => {
                    // Requests before the unreadable one keep their replies.
                    self.write().await?;
                    return Err(error.into());
                }
            };
            let took = self.answer(length).await;
            self.received.advance(length);
            self.framer.restart();
            if self.replies.len() >= REPLIES || took >= SLOW {
                self.write().await?;
            }
        }
        self.write().await?;
        if self.received.is_empty() && self.received.capacity() > 4 * READ {
            // A long request is rare; its memory is not kept for the life of the connection.
            self.received = BytesMut::new();
        }
        Ok(())
    }

    async fn answer(&mut self, length: usize) -> Duration {
        let policy = self.live.current();
        let request = PolicyRequest::parse(self.framer.block(&self.received[..length]));
        let decision = self.decider.decide(&policy, &request, None).await;
        decision.finding.verdict.action(&mut self.action);
        wire::encode(&self.action, &mut self.replies);
        decision.took
    }

    async fn write(&mut self) -> Result<(), ConnectionError> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let mut writing = pin!(self.stream.write_all(&self.replies));
        // Nearly always there is room at once, and no time limit is needed.
        let written = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
        match written {
            Poll::Ready(written) => written?,
            Poll::Pending => {
                let patience = self.live.current().settings.policyd.request_timeout.0;
                tokio::time::timeout(patience, writing).await.map_err(|_| ConnectionError::Unread(patience))??;
            }
        }
        self.replies.clear();
        Ok(())
    }
}

/// A request must fit into what is read before it is refused.
const _: () = assert!(READ <= MAX_REQUEST);
