// SPDX-License-Identifier: GPL-3.0-or-later
//! The way to the directories: what a request is told of a recipient, at once from memory where that is possible, and never later
//! than it can wait.
//!
//! A question goes on when nobody waits for it any more: its answer helps the next request. The same question is asked once at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::config::Mistakes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::address::{Folding, Forms, number};
use super::cache::{Cache, Remembered, Spans};
use super::directory::Directory;
use super::list::Addresses;
use super::{Standing, Told};
use crate::config::recipients::{DirectorySettings, RecipientsSettings};
use crate::store::recipients::Said;

/// Questions at once; who comes when there are more gets no answer.
const FLIGHTS: usize = 512;
/// Time for the questions under way at the end.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// What may wait to be written to the store.
const WAITING: usize = 4096;

/// What one configuration says of recipients.
#[derive(Debug)]
pub struct Recipients {
    /// The settings.
    pub settings: RecipientsSettings,
    /// The domains whose recipients are looked up.
    pub domains: Addresses,
    /// How addresses are brought to one form.
    pub folding: Folding,
    /// Who knows, in order.
    pub directories: Vec<Arc<Directory>>,
}

impl Recipients {
    /// Loads list files and opens directories, taking over those of `before` whose settings are the same; connects to nothing. None when
    /// no recipient is looked up.
    pub fn open(
        settings: &RecipientsSettings,
        directories: &[DirectorySettings],
        before: Option<&Self>,
    ) -> Result<Option<Arc<Self>>, Mistakes> {
        if settings.domains.is_empty() {
            return Ok(None);
        }
        let mut mistakes = Mistakes::new();
        let domains = Addresses::load(&settings.domains, "recipients", "recipients.domains").unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            Addresses::default()
        });
        let mut opened = Vec::with_capacity(directories.len());
        for directory in directories {
            let old =
                before.and_then(|before| before.directories.iter().find(|old| old.settings.name == directory.name));
            if let Some(old) = old.filter(|old| old.same(directory)) {
                opened.push(old.clone());
                continue;
            }
            match Directory::open(directory) {
                Ok(directory) => {
                    old.iter().for_each(|old| directory.take_over(old));
                    opened.push(Arc::new(directory));
                }
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        let lower = |(alias, real): (&String, &String)| (alias.to_lowercase(), real.to_lowercase());
        let folding = Folding {
            delimiters: settings.delimiters.chars().collect(),
            aliases: settings.alias_domains.iter().map(lower).collect(),
        };
        let settings = settings.clone();
        mistakes.into_result(Some(Arc::new(Self { settings, domains, folding, directories: opened })))
    }

    /// For how long what is remembered.
    pub fn spans(&self) -> Spans {
        Spans {
            known: self.settings.keep_known.0.as_secs(),
            refresh: self.settings.refresh_known.0.as_secs(),
            unknown: self.settings.keep_unknown.0.as_secs(),
        }
    }

    fn in_charge(&self, form: &str) -> impl Iterator<Item = &Arc<Directory>> {
        self.directories.iter().filter(move |directory| directory.is_in_charge(form))
    }
}

/// Who said it, for log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A list, or the full copy of a directory.
    Copy,
    /// The memory of this host.
    Memory,
    /// A directory, just now.
    Directory,
}

impl From {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Memory => "memory",
            Self::Directory => "directory",
        }
    }
}

/// What a request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What is known.
    pub standing: Standing,
    /// By whom.
    pub from: From,
}

/// What this host knows of recipients. Shared by all requests.
#[derive(Debug, Clone)]
pub struct Book(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<u64, watch::Receiver<Option<Standing>>>>,
    tasks: TaskTracker,
    entrance: mpsc::Sender<Said>,
    loaded: watch::Sender<bool>,
}

impl Book {
    /// An empty one that remembers so many recipients, and what it wants written to the store.
    pub fn new(remember: usize) -> (Self, mpsc::Receiver<Said>) {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let inner = Inner {
            cache: Mutex::new(Cache::new(remember)),
            flights: Mutex::default(),
            tasks: TaskTracker::new(),
            entrance,
            loaded: watch::Sender::new(false),
        };
        (Self(Arc::new(inner)), waiting)
    }

    /// What is known of a recipient, at the latest at `deadline`.
    pub async fn standing(&self, recipients: &Arc<Recipients>, forms: &Forms, deadline: Instant) -> Found {
        let mut found = self.of_form(recipients, &forms.base, deadline).await;
        if let (Standing::Unknown, Some(whole)) = (found.standing, &forms.whole) {
            found = self.of_form(recipients, whole, deadline).await;
        }
        let standing = match found.standing {
            Standing::Known => "known",
            Standing::Unknown => "unknown",
            Standing::CannotTell => "cannot_tell",
        };
        metrics::counter!("octroi_policyd_recipients_total", "standing" => standing, "from" => found.from.word())
            .increment(1);
        found
    }

    async fn of_form(&self, recipients: &Arc<Recipients>, form: &str, deadline: Instant) -> Found {
        if let Some(found) = self.at_hand(recipients, form) {
            return found;
        }
        let standing = self.ask(recipients, form, deadline).await;
        if standing == Standing::CannotTell && self.wait_until_loaded(deadline).await {
            // A daemon that has just started learns what the store knows a moment later.
            if let Some(found) = self.at_hand(recipients, form) {
                return found;
            }
        }
        Found { standing, from: From::Directory }
    }

    /// What can be said without asking anybody. A known recipient that has not been asked about for long is asked about behind the
    /// back of the request.
    fn at_hand(&self, recipients: &Arc<Recipients>, form: &str) -> Option<Found> {
        let now = now();
        let mut asks = false;
        for directory in recipients.in_charge(form) {
            match directory.listed(form, now) {
                Some(Told::Known | Told::KnownLikeAny) => {
                    return Some(Found { standing: Standing::Known, from: From::Copy });
                }
                Some(Told::Unknown) => {}
                None => asks = true,
            }
        }
        if !asks {
            return Some(Found { standing: Standing::Unknown, from: From::Copy });
        }
        let remembered = self.0.cache().find(number(form), recipients.spans(), now)?;
        let standing = match remembered {
            Remembered::Known => Standing::Known,
            Remembered::Unknown => Standing::Unknown,
            Remembered::Ageing => {
                drop(self.flight(recipients, form));
                Standing::Known
            }
        };
        Some(Found { standing, from: From::Memory })
    }

    async fn ask(&self, recipients: &Arc<Recipients>, form: &str, deadline: Instant) -> Standing {
        let Some(mut answer) = self.flight(recipients, form) else { return Standing::CannotTell };
        let answered = tokio::time::timeout_at(deadline, answer.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(standing)) => standing.unwrap_or(Standing::CannotTell),
            // Too late, or the question broke off.
            _ => Standing::CannotTell,
        }
    }

    /// The question that is under way, or a new one; none when there are too many.
    fn flight(&self, recipients: &Arc<Recipients>, form: &str) -> Option<watch::Receiver<Option<Standing>>> {
        let key = number(form);
        let mut flights = self.0.flights();
        if let Some(under_way) = flights.get(&key) {
            return Some(under_way.clone());
        }
        if flights.len() >= FLIGHTS || self.0.tasks.is_closed() {
            return None;
        }
        let (answer, waiting) = watch::channel(None);
        flights.insert(key, waiting.clone());
        let landing = Landing { inner: self.0.clone(), key };
        let (recipients, form) = (recipients.clone(), form.to_owned());
        self.0.tasks.spawn(async move {
            let standing = landing.inner.ask_directories(&recipients, &form).await;
            // From here on the answer is at hand; the next request makes a new question if it is not.
            drop(landing);
            answer.send_replace(Some(standing));
        });
        Some(waiting)
    }

    /// Waits until what the store knew at the start is in memory; false when it was already.
    async fn wait_until_loaded(&self, deadline: Instant) -> bool {
        let mut loaded = self.0.loaded.subscribe();
        if *loaded.borrow() {
            return false;
        }
        tokio::time::timeout_at(deadline, loaded.wait_for(|loaded| *loaded)).await.is_ok()
    }

    /// What the store knew at the start is in memory, or will not be.
    pub fn is_loaded(&self) {
        self.0.loaded.send_replace(true);
    }

    /// The memory.
    pub fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.cache()
    }

    /// Starts no more questions, and waits a little for those under way.
    pub async fn close(&self) {
        self.0.tasks.close();
        let _ = tokio::time::timeout(CLOSE_TIME, self.0.tasks.wait()).await;
    }
}

/// Removes a question from those under way, however it ends.
struct Landing {
    inner: Arc<Inner>,
    key: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.key);
    }
}

impl Inner {
    /// Asks the directories in order; the first that knows it ends the matter.
    async fn ask_directories(&self, recipients: &Recipients, form: &str) -> Standing {
        let mut in_doubt = false;
        for directory in recipients.in_charge(form) {
            let told = match directory.listed(form, now()) {
                Some(told) => Ok(told),
                None => directory.ask(form).await,
            };
            match told {
                Ok(Told::Unknown) => {}
                Ok(Told::Known) => {
                    self.found(recipients, form);
                    return Standing::Known;
                }
                Ok(Told::KnownLikeAny) => return Standing::Known,
                Err(error) => {
                    tracing::debug!(directory = directory.settings.name, %error, "no answer");
                    in_doubt = true;
                }
            }
        }
        if in_doubt {
            return Standing::CannotTell;
        }
        if self.cache().missed(number(form), recipients.spans(), now()) {
            self.write(Said { address: form.to_owned(), keep: 0 });
        }
        Standing::Unknown
    }

    fn found(&self, recipients: &Recipients, form: &str) {
        self.cache().found(number(form), recipients.spans(), now());
        self.write(Said { address: form.to_owned(), keep: recipients.settings.keep_known.as_millis() });
    }

    fn write(&self, said: Said) {
        if self.entrance.try_send(said).is_err() {
            metrics::counter!("octroi_policyd_recipients_dropped_total").increment(1);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic of another thread leaves nothing half done here.
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<u64, watch::Receiver<Option<Standing>>>> {
        self.flights.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
