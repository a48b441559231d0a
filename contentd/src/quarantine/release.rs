// SPDX-License-Identifier: GPL-3.0-or-later
//! Releasing a message: it goes to the next hop for some or all of its recipients, once for each of them.
//!
//! A recipient is taken in the index first (`store::quarantine::take`), so that two releases at once deliver once. One whose end
//! nobody knows, because the command was killed or the next hop fell silent after the final dot, stays taken until somebody who has looked says "again".

use std::path::PathBuf;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::time::Instant;

use super::QuarantineSettings;
use super::file::{self, FileError};
use crate::message::edit::{self, HeaderField, HeaderSettings};
use crate::reinject::{Failure, HopError, NextHop, Progress, Stage, Target};
use crate::smtp::reply::Reply;
use crate::spool::Message;
use crate::store::quarantine::{self as index, Entry, HELD, RELEASED, RELEASING, Recipient};

/// For the next hop to take the message and answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// There is no such message.
    #[error("{0} is not in the quarantine")]
    Unknown(String),
    /// Its file is on another host.
    #[error("{id} is kept on {host}: run the command there")]
    Elsewhere {
        /// The message.
        id: String,
        /// The host that has it.
        host: String,
    },
    /// Somebody who is none of its recipients.
    #[error("<{0}> is not a recipient of it")]
    NotARecipient(String),
    /// The index.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The file.
    #[error("{0}")]
    File(#[from] FileError),
    /// The next hop; what was taken waits again.
    #[error("{0}")]
    Hop(#[from] HopError),
    /// The next hop has not said whether it took the message.
    #[error(
        "the next hop did not answer the message ({0}): look whether it has it; release --again sends it once more"
    )]
    Silent(HopError),
}

/// How it ended for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The recipient.
    pub address: String,
    /// What happened.
    pub end: End,
}

/// How a release ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The next hop took the message; its reply.
    Released(String),
    /// It refused; its reply. The recipient waits again.
    Refused(String),
    /// Released before; nothing was done.
    Before(String),
    /// Another release has begun and not told how it ended; nothing was done.
    Taken,
}

/// A message and what is needed to use it.
#[derive(Debug)]
pub struct Kept {
    /// Its row.
    pub entry: Entry,
    /// Its file.
    pub path: PathBuf,
}

impl Kept {
    /// Finds a message of this host.
    pub async fn find(store: &Store, settings: &QuarantineSettings, id: &str) -> Result<Kept, ReleaseError> {
        let unknown = || ReleaseError::Unknown(id.to_owned());
        let entry = index::find(store, id).await?.ok_or_else(unknown)?;
        if entry.host != common::mail::hostname() {
            return Err(ReleaseError::Elsewhere { id: entry.id, host: entry.host });
        }
        let path = settings.folder().join(file::name(&entry.id, entry.at).ok_or_else(unknown)?);
        Ok(Kept { entry, path })
    }

    /// The message as it came. Blocks.
    pub fn message(&self) -> Result<Vec<u8>, FileError> {
        file::read(&self.path, &self.entry.digest)
    }
}

/// Hands a message to `target` for those of `wanted`, or for all when there are none. `again`: also for recipients whose last release
/// has not told how it ended.
pub async fn release(
    store: &Store,
    kept: &Kept,
    headers: &HeaderSettings,
    target: &Target,
    wanted: &[String],
    again: bool,
) -> Result<Vec<Ended>, ReleaseError> {
    let recipients = chosen(index::recipients(store, &kept.entry.id).await?, wanted)?;
    // Before anything is taken: a message that cannot be read stays as it is.
    let bytes = kept.message()?;
    let (mut taken, mut ended) = (Vec::new(), Vec::new());
    for recipient in recipients {
        let free = recipient.state == HELD || again && recipient.state == RELEASING;
        if free && index::take(store, &kept.entry.id, recipient.position, &recipient.state).await? {
            taken.push(recipient);
        } else {
            ended.push(Ended { address: recipient.address.clone(), end: not_free(recipient) });
        }
    }
    if !taken.is_empty() {
        ended.extend(deliver(store, kept, headers, target, bytes, taken).await?);
    }
    Ok(ended)
}

fn not_free(recipient: Recipient) -> End {
    if recipient.state == RELEASED { End::Before(recipient.reply) } else { End::Taken }
}

fn chosen(mut all: Vec<Recipient>, wanted: &[String]) -> Result<Vec<Recipient>, ReleaseError> {
    let is = |recipient: &Recipient, address: &String| recipient.address.eq_ignore_ascii_case(address);
    if let Some(stranger) = wanted.iter().find(|address| !all.iter().any(|recipient| is(recipient, address))) {
        return Err(ReleaseError::NotARecipient(stranger.clone()));
    }
    if !wanted.is_empty() {
        all.retain(|recipient| wanted.iter().any(|address| is(recipient, address)));
    }
    Ok(all)
}

/// Delivers, and writes down how it ended for each of those taken.
async fn deliver(
    store: &Store,
    kept: &Kept,
    headers: &HeaderSettings,
    target: &Target,
    bytes: Vec<u8>,
    taken: Vec<Recipient>,
) -> Result<Vec<Ended>, ReleaseError> {
    let id = &kept.entry.id;
    let mut accepted = Vec::new();
    let mut ended = Vec::new();
    let outcome = send(kept, headers, target, bytes, &taken, &mut accepted).await;
    for (recipient, reply) in taken.iter().zip(accepted.iter().map(Some).chain(std::iter::repeat(None))) {
        let refused = reply.filter(|reply| !reply.is_success());
        let (state, said) = match (&outcome, refused) {
            (Err(HopError { stage: Stage::End, .. }), None) => continue,
            (Ok(reply), None) if reply.is_success() => (RELEASED, text(reply)),
            (_, Some(refusal)) => (HELD, text(refusal)),
            (Ok(refusal), None) => (HELD, text(refusal)),
            (Err(error), None) => (HELD, error.to_string()),
        };
        index::settle(store, id, recipient.position, state, &said).await?;
        let end = if state == RELEASED { End::Released(said) } else { End::Refused(said) };
        ended.push(Ended { address: recipient.address.clone(), end });
    }
    match outcome {
        Ok(_) => Ok(ended),
        Err(error @ HopError { stage: Stage::End, .. }) => Err(ReleaseError::Silent(error)),
        Err(error) => Err(error.into()),
    }
}

/// The dialogue with the next hop. `accepted` gets its replies to the recipients; the result is its reply to the message, or to what
/// it refused before. Err at [`Stage::End`]: nobody knows.
async fn send(
    kept: &Kept,
    headers: &HeaderSettings,
    target: &Target,
    bytes: Vec<u8>,
    taken: &[Recipient],
    accepted: &mut Vec<Reply>,
) -> Result<Reply, HopError> {
    let deadline = Instant::now() + PATIENCE;
    let own = [HeaderField::new("X-Quarantine-ID", &kept.entry.id)];
    let edit = edit::plan(&bytes, &own, headers);
    let message = Message::from_bytes(bytes);
    let (mut hop, reply) = NextHop::begin_with(target, &[], kept.entry.sender_path.as_bytes()).await?;
    if !reply.is_success() {
        return Ok(reply);
    }
    for recipient in taken {
        accepted.push(hop.rcpt(recipient.path.as_bytes()).await?);
    }
    if let Some(refusal) = accepted.last().filter(|_| accepted.iter().all(|reply| !reply.is_success())) {
        return Ok(refusal.clone());
    }
    if let Progress::Refused(reply) = hop.data(deadline).await? {
        return Ok(reply);
    }
    if let Progress::Refused(reply) = hop.body(&message, &edit, deadline).await? {
        return Ok(reply);
    }
    let reply = hop.end(deadline).await.map_err(|error| match error.failure {
        // A reply that makes no sense tells no more than silence.
        Failure::Connect(_) | Failure::Spool(_) => error,
        _ => HopError { stage: Stage::End, ..error },
    })?;
    hop.leave();
    Ok(reply)
}

fn text(reply: &Reply) -> String {
    reply.first_line().replace('\0', "?")
}
