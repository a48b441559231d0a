// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections to other policy servers, which rules ask (`ask`) or compare us with (`compare`): SMTPD_POLICY_README from the client's side.
//!
//! A connection is kept and used again, as Postfix does. The time for an answer is the caller's; a server that gives none costs that and no
//! more. Comparisons are made behind the answer, a bounded number at once.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::address::Address;
use common::net::Stream;
use metrics::counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::rules::theirs::Theirs;

/// Connections kept per server.
const KEPT: usize = 16;
/// Largest reply, in bytes.
const MAX_REPLY: usize = 16 * 1024;
/// Comparisons at once; more are left out.
const COMPARISONS: usize = 64;
/// Time for a comparison, for which nobody waits.
const COMPARISON_TIME: Duration = Duration::from_secs(5);

/// Why another server gave no answer that can be followed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached, or closed the connection.
    #[error("cannot be asked: {0}")]
    Unreachable(#[from] io::Error),
    /// It did not answer in time.
    #[error("gave no answer in time")]
    Late,
    /// Its answer is none that we pass on.
    #[error("gave an answer that cannot be followed: {0}")]
    Nonsense(String),
}

impl AskError {
    fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
            Self::Nonsense(_) => "nonsense",
        }
    }
}

/// The other servers.
#[derive(Debug, Clone)]
pub struct Servers {
    idle: Arc<Mutex<HashMap<Address, Vec<Stream>>>>,
    comparisons: Arc<Semaphore>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { idle: Arc::default(), comparisons: Arc::new(Semaphore::new(COMPARISONS)) }
    }
}

/// A decision of ours that is compared.
#[derive(Debug)]
pub struct Decided {
    /// Its handle.
    pub id: String,
    /// What becomes of the mail.
    pub class: &'static str,
}

impl Servers {
    /// Asks a server; counted.
    pub async fn ask(&self, server: &Address, request: &str, deadline: Instant) -> Result<Theirs, AskError> {
        let asked = tokio::time::timeout_at(deadline, self.action(server, request));
        let answer = match asked.await {
            Ok(action) => action.map_err(AskError::from),
            Err(_) => Err(AskError::Late),
        };
        let theirs = answer.and_then(|action| Theirs::read(&action).map_err(AskError::Nonsense));
        let outcome = theirs.as_ref().map_or_else(AskError::word, |_| "answered");
        counter!("octroi_policyd_asked_total", "outcome" => outcome).increment(1);
        theirs
    }

    /// Asks a server and tells in words whether it says the same as we did; for whoever waits for that.
    pub async fn compared(&self, server: &Address, request: &str, ours: &'static str) -> String {
        match self.ask(server, request, Instant::now() + COMPARISON_TIME).await {
            Ok(theirs) if theirs.class() == ours => format!("compare: {server} says the same ({ours})"),
            Ok(theirs) => format!("compare: {server} says {}, we say {ours}", theirs.class()),
            Err(error) => format!("compare: {server} {error}"),
        }
    }

    /// Asks a server and counts whether it says the same as we did, without anybody waiting for it.
    pub fn compare(&self, server: Address, request: String, ours: Decided) {
        let Ok(permit) = self.comparisons.clone().try_acquire_owned() else {
            counter!("octroi_policyd_compared_total", "outcome" => "left_out").increment(1);
            return;
        };
        let servers = self.clone();
        tokio::spawn(async move {
            let theirs = servers.ask(&server, &request, Instant::now() + COMPARISON_TIME).await;
            let outcome = match &theirs {
                Ok(theirs) if theirs.class() == ours.class => "same",
                Ok(_) => "differs",
                Err(_) => "failed",
            };
            counter!("octroi_policyd_compared_total", "outcome" => outcome).increment(1);
            if let Ok(theirs) = theirs
                && outcome == "differs"
            {
                let (server, theirs) = (server.to_string(), theirs.class());
                tracing::info!(
                    id = ours.id,
                    server,
                    ours = ours.class,
                    theirs,
                    "another policy server decides differently"
                );
            }
            drop(permit);
        });
    }

    /// The action that a server answers. A kept connection may have been closed meanwhile: then it is tried once more on a new one.
    async fn action(&self, server: &Address, request: &str) -> io::Result<String> {
        let kept = self.idle().get_mut(server).and_then(Vec::pop);
        if let Some(mut stream) = kept
            && let Ok(action) = exchange(&mut stream, request).await
        {
            self.keep(server, stream);
            return Ok(action);
        }
        let mut stream = Stream::connect(server).await?;
        let action = exchange(&mut stream, request).await?;
        self.keep(server, stream);
        Ok(action)
    }

    fn keep(&self, server: &Address, stream: Stream) {
        let mut idle = self.idle();
        let kept = idle.entry(server.clone()).or_default();
        if kept.len() < KEPT {
            kept.push(stream);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Vec<Stream>>> {
        // A panic of another thread leaves nothing half done here.
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Sends a request and reads the reply up to its empty line.
async fn exchange(stream: &mut Stream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::with_capacity(128);
    while !reply.ends_with(b"\n\n") {
        let closed = stream.read_buf(&mut reply).await? == 0;
        if closed || reply.len() > MAX_REPLY {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no reply of the policy protocol"));
        }
    }
    let reply = String::from_utf8_lossy(&reply);
    let action = reply.lines().find_map(|line| line.strip_prefix("action="));
    action.map(str::to_owned).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reply without an action"))
}
