// SPDX-License-Identifier: GPL-3.0-or-later
//! Who can be written to: directories that know it (list files, SQL, LDAP, the inner mail server), what was learnt from them, and what
//! holds while they are away.
//!
//! A request never waits for a directory longer than `recipients.wait`. What is known of a recipient is remembered for days, in memory, in
//! the store and on disk, so that a directory that is down stops no mail. What becomes of the answer is decided in `checks::recipients`.

pub mod address;
pub mod book;
pub mod breaker;
pub mod cache;
pub mod callahead;
pub mod directory;
pub mod file;
pub mod keep;
pub mod ldap;
pub mod list;
pub mod members;
mod pull;
pub mod snapshot;
pub mod sql;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

/// What is known of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is such a mailbox.
    Known,
    /// There is none.
    Unknown,
    /// Nobody who would know can be asked now.
    CannotTell,
}

/// What one directory says when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// There is such a mailbox.
    Known,
    /// There is none here.
    Unknown,
    /// It would say so of any address: good for this time, not worth remembering.
    KnownLikeAny,
}

/// Why a directory gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It cannot be reached, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer in time")]
    Late,
    /// It is being asked so much already that its turn did not come in time.
    #[error("too many questions at once")]
    Busy,
    /// It answered, and the answer is of no use: wrong password, no such table, a refused session.
    #[error("{0}")]
    Refused(String),
}

/// The future of an answer.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

/// Somebody who knows recipients. The caller sets the time limit; a call may be dropped at any time.
pub trait Provider: Debug + Send + Sync {
    /// Whether there is a mailbox of this address, in one of its forms.
    fn ask<'a>(&'a self, form: &'a str) -> Answering<'a, Told>;

    /// All addresses there are. An error when they are more than [`members::MOST`].
    fn all(&self) -> Answering<'_, Vec<String>>;
}
