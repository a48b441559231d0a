// SPDX-License-Identifier: GPL-3.0-or-later
//! The quarantine: messages that are neither delivered nor refused, kept until somebody releases or deletes them or their time is over.
//!
//! A message is in it when its file is on the disk of this host (`file`) and its row in the index is committed (`store::quarantine`),
//! in this order; only then may the client be told 2xx. `release` hands one to the next hop after all, `cleaner` makes room.

pub mod cleaner;
pub mod file;
pub mod release;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::store::{StoreError, state_folder};
use common::units::{Period, Size};
use metrics::counter;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, Path};
use crate::spool::Message;
use crate::store::quarantine::Entry;
use crate::store::{self, Access};

/// Section `[quarantine]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineSettings {
    /// Where the files are; empty: `quarantine` in $STATE_DIRECTORY, else in /var/lib/octroi.
    pub directory: String,
    /// How long a message is kept.
    pub keep: Period,
    /// How long one is kept that was accepted only to be thrown away (destiny or order `discard`).
    pub keep_discarded: Period,
    /// All files of one host together; the oldest make room.
    pub max_size: Size,
}

impl Default for QuarantineSettings {
    fn default() -> QuarantineSettings {
        let days = |days: u64| Period::seconds(days * 86_400);
        QuarantineSettings {
            directory: String::new(),
            keep: days(30),
            keep_discarded: days(7),
            max_size: Size(10_000_000_000),
        }
    }
}

impl QuarantineSettings {
    /// Where the files are.
    pub fn folder(&self) -> PathBuf {
        if self.directory.is_empty() { state_folder().join("quarantine") } else { PathBuf::from(&self.directory) }
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if !self.directory.is_empty() && !std::path::Path::new(&self.directory).is_absolute() {
            mistakes.push(("directory", format!("{:?} does not begin with /", self.directory)));
        }
        for (key, period) in [("keep", self.keep), ("keep_discarded", self.keep_discarded)] {
            if period.0.is_zero() {
                mistakes.push((key, "must be longer than 0s: nothing is thrown away without a copy".to_owned()));
            }
        }
        if self.max_size.0 == 0 {
            mistakes.push(("max_size", "must not be 0".to_owned()));
        }
        mistakes
    }
}

/// Why a message comes into the quarantine.
#[derive(Debug, Clone, Copy)]
pub struct Why<'a> {
    /// The category's word.
    pub category: &'a str,
    /// The reason's word.
    pub reason: &'a str,
    /// What was found.
    pub detail: &'a str,
    /// It was accepted only to be thrown away.
    pub discarded: bool,
}

/// Why a message could not be put into the quarantine. Nothing of it is left there then.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The file cannot be written.
    #[error("cannot write a file in {}: {source}", directory.display())]
    File {
        /// Where.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has not been entered in the index.
    #[error("cannot enter it in the index: {0}")]
    Index(#[from] StoreError),
    /// The files take more than they may, and the cleaner has not made room yet.
    #[error("full")]
    Full,
}

impl QuarantineError {
    /// The word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            QuarantineError::File { .. } => "file",
            QuarantineError::Index(_) => "index",
            QuarantineError::Full => "full",
        }
    }
}

/// The quarantine of this host.
#[derive(Debug)]
pub struct Quarantine {
    access: Arc<Access>,
    host: String,
    /// Bytes of all files, as far as known.
    used: AtomicU64,
    /// There may be too many of them.
    crowded: tokio::sync::Notify,
}

impl Quarantine {
    /// The quarantine whose index is in this store.
    pub fn new(access: Arc<Access>) -> Arc<Quarantine> {
        let host = common::mail::hostname();
        Arc::new(Quarantine { access, host, used: AtomicU64::new(0), crowded: tokio::sync::Notify::new() })
    }

    /// Puts a message into the quarantine. It is on the disk, and in the index, when this returns.
    pub async fn keep(
        &self,
        settings: &QuarantineSettings,
        envelope: &Envelope,
        message: &Message,
        why: Why<'_>,
    ) -> Result<(), QuarantineError> {
        let kept = self.try_to_keep(settings, envelope, message, why).await;
        match &kept {
            Ok(stored) => {
                counter!("octroi_contentd_quarantined_total", "category" => why.category.to_owned()).increment(1);
                let used = self.used.fetch_add(*stored, Ordering::Relaxed) + stored;
                if used > settings.max_size.0 {
                    self.crowded.notify_one();
                }
            }
            Err(error) => {
                counter!("octroi_contentd_quarantine_errors_total", "at" => error.word()).increment(1);
                tracing::error!(id = %envelope.id, %error, "message not put into the quarantine; the client keeps it");
            }
        }
        kept.map(drop)
    }

    async fn try_to_keep(
        &self,
        settings: &QuarantineSettings,
        envelope: &Envelope,
        message: &Message,
        why: Why<'_>,
    ) -> Result<u64, QuarantineError> {
        // The cleaner is on its way when this is exceeded by a little; by more, something is wrong with it.
        if self.used.load(Ordering::Relaxed) > settings.max_size.0.saturating_add(settings.max_size.0 / 10) {
            self.crowded.notify_one();
            return Err(QuarantineError::Full);
        }
        // Without an index there is no use in writing a file.
        self.access.store()?;
        let (mut entry, recipients) = self.entry(settings, envelope, message, why);
        let directory = settings.folder();
        let failed = |source| QuarantineError::File { directory: directory.clone(), source };
        let name = file::name(&entry.id, entry.at).ok_or_else(|| failed(std::io::Error::other("no id of ours")))?;
        let fields = file::fields(&entry.id, &entry.sender_path, &recipients);
        let work = {
            let (directory, name, message) = (directory.clone(), name.clone(), message.clone());
            move || file::write(&directory, &name, &fields, &message)
        };
        let written = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten();
        let written = written.map_err(failed)?;
        (entry.stored, entry.digest) = (i64::try_from(written.stored).unwrap_or(i64::MAX), written.digest);
        let entered = self.access.run(|store| {
            let (entry, recipients) = (entry.clone(), recipients.clone());
            async move { store::quarantine::insert(&store, &entry, &recipients).await }
        });
        if let Err(error) = entered.await {
            // The row may be there all the same, when only the answer was lost: `octroi quarantine show` then says that the file is not.
            let removed = tokio::task::spawn_blocking(move || file::remove(&directory, &name)).await;
            if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
                tracing::warn!(id = entry.id, %error, "a file is left behind in the quarantine");
            }
            return Err(error.into());
        }
        Ok(written.stored)
    }

    /// The row of a message, and its recipients as address and path.
    fn entry(
        &self,
        settings: &QuarantineSettings,
        envelope: &Envelope,
        message: &Message,
        why: Why<'_>,
    ) -> (Entry, Vec<(String, String)>) {
        let now = store::now();
        let keep = if why.discarded { settings.keep_discarded } else { settings.keep };
        let recipients = envelope.recipients.iter().map(|path| (storable(&path.address), verbatim(path))).collect();
        let entry = Entry {
            id: envelope.id.to_string(),
            at: now,
            host: self.host.clone(),
            category: why.category.to_owned(),
            reason: why.reason.to_owned(),
            detail: storable(why.detail),
            client: storable(envelope.client.addr.as_deref().unwrap_or_default()),
            sender: storable(&envelope.sender.address),
            sender_path: verbatim(&envelope.sender),
            size: i64::try_from(message.len()).unwrap_or(i64::MAX),
            stored: 0,
            digest: String::new(),
            expires: now.saturating_add(keep.as_millis()),
        };
        (entry, recipients)
    }
}

/// Text for a column: PostgreSQL takes no NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "?")
}

/// A path as it came, without the blanks before it; made anew from its address when it is not UTF-8.
fn verbatim(path: &Path) -> String {
    match std::str::from_utf8(&path.verbatim) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => format!("<{}>", path.address),
    }
}

/// Tells the metrics page what the quarantine's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!("octroi_contentd_quarantined_total", "Messages put into the quarantine, by category");
    describe_counter!("octroi_contentd_quarantine_errors_total", "Messages that could not be put into the quarantine");
    describe_counter!("octroi_contentd_quarantine_removed_total", "Messages deleted from the quarantine, by cause");
    describe_gauge!("octroi_contentd_quarantine_messages", "Messages in the quarantine of this host");
    describe_gauge!("octroi_contentd_quarantine_bytes", "Bytes of their files");
}
