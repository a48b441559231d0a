// SPDX-License-Identifier: GPL-3.0-or-later
//! One directory: who is asked, the full copy of it when there is one, and whether it answers at all.
//!
//! Every change of state is one line in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use common::config::{Mistake, Mistakes};
use tokio::sync::Semaphore;

use super::address::number;
use super::breaker::{Breaker, Change};
use super::file::FileList;
use super::members::Members;
use super::{Provider, Told, Trouble, callahead, ldap, list, sql};
use crate::config::recipients::{DirectorySettings, Source};

/// A copy that could not be renewed for so many times `pull` does not refuse anybody any more.
const OLD: u32 = 3;

/// A full copy, and when it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// The recipients.
    pub members: Members,
    /// Seconds since 1970.
    pub pulled: u64,
    /// Counts the replacements in the store.
    pub version: i64,
}

/// One directory.
#[derive(Debug)]
pub struct Directory {
    /// Its settings.
    pub settings: DirectorySettings,
    domains: Option<list::Addresses>,
    files: Option<FileList>,
    provider: Option<Box<dyn Provider>>,
    copy: ArcSwapOption<Copied>,
    breaker: Breaker,
    /// Questions that may be under way at once.
    places: Semaphore,
}

impl Directory {
    /// Loads its list files, if it has any; connects to nothing.
    pub fn open(settings: &DirectorySettings) -> Result<Self, Mistakes> {
        let broken = |key: &str, message: String| {
            let origin = settings.origin.clone();
            Mistakes::from(Mistake { origin, key: format!("directory.{key}"), message })
        };
        let (mut files, mut provider): (Option<FileList>, Option<Box<dyn Provider>>) = (None, None);
        match &settings.source {
            Source::File(paths) => files = Some(FileList::load(paths)?),
            Source::Sql(sql) => {
                let opened = sql::Sql::open(sql, settings.max_connections, settings.timeout.0);
                provider = Some(Box::new(opened.map_err(|error| broken("url", error))?));
            }
            Source::Ldap(ldap) => {
                let opened = ldap::Ldap::open(ldap, settings.timeout.0);
                provider = Some(Box::new(opened.map_err(|error| broken("ca_file", error))?));
            }
            Source::Callahead(callahead) => {
                provider = Some(Box::new(callahead::Callahead::new(callahead, settings.timeout.0)));
            }
        }
        let domains = match settings.domains.is_empty() {
            true => None,
            false => Some(list::Addresses::load(&settings.domains, &settings.origin, "directory.domains")?),
        };
        let directory = Self {
            settings: settings.clone(),
            domains,
            files,
            provider,
            copy: ArcSwapOption::empty(),
            breaker: Breaker::default(),
            places: Semaphore::new(settings.max_connections),
        };
        if directory.provider.is_some() {
            directory.gauge(true);
        }
        Ok(directory)
    }

    /// True when it knows about this recipient's domain.
    pub fn is_in_charge(&self, recipient: &str) -> bool {
        self.domains.as_ref().is_none_or(|domains| domains.find(recipient).is_some())
    }

    /// What its list or its full copy says, at `now`; none when it must be asked.
    pub fn listed(&self, form: &str, now: u64) -> Option<Told> {
        if let Some(files) = &self.files {
            return Some(if files.contain(form) { Told::Known } else { Told::Unknown });
        }
        let pull = self.settings.pull.0.as_secs();
        let copy = self.copy.load();
        let copy = copy.as_ref().filter(|_| pull > 0)?;
        match copy.members.contain(form) {
            true => Some(Told::Known),
            false => (now.saturating_sub(copy.pulled) < pull * u64::from(OLD)).then_some(Told::Unknown),
        }
    }

    /// Asks it, unless it is known to be away.
    pub async fn ask(&self, form: &str) -> Result<Told, Trouble> {
        let Some(provider) = &self.provider else { return Ok(Told::Unknown) };
        if !self.breaker.lets_through(Instant::now()) {
            return Err(Trouble::Unreachable("known to be away".to_owned()));
        }
        // Who waits for a place waits for other questions of ours: that says nothing about the directory.
        let place = tokio::time::timeout(self.settings.timeout.0, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(Trouble::Busy) };
        let started = Instant::now();
        let told = within(self.settings.timeout.0, provider.ask(form)).await;
        metrics::histogram!("octroi_policyd_directory_seconds", "directory" => self.name()).record(started.elapsed());
        self.note(told.as_ref().err());
        told
    }

    /// All that it has, for a full copy; none when it gives none.
    pub fn puller(&self) -> Option<&dyn Provider> {
        self.provider.as_deref().filter(|_| !self.settings.pull.0.is_zero())
    }

    /// The full copy in force.
    pub fn copy(&self) -> Option<Arc<Copied>> {
        self.copy.load_full()
    }

    /// Takes over the full copy of the same directory before a reload.
    pub fn take_over(&self, before: &Self) {
        if let Some(copy) = before.copy().filter(|_| self.key() == before.key()) {
            self.replace_copy((*copy).clone());
        }
    }

    /// Puts a full copy in force.
    pub fn replace_copy(&self, copy: Copied) {
        metrics::gauge!("octroi_policyd_directory_copy_entries", "directory" => self.name())
            .set(copy.members.len() as f64);
        metrics::gauge!("octroi_policyd_directory_copy_time", "directory" => self.name()).set(copy.pulled as f64);
        self.copy.store(Some(Arc::new(copy)));
    }

    /// Its list files, when it is made of those.
    pub fn files(&self) -> Option<&FileList> {
        self.files.as_ref()
    }

    /// By what its full copy is kept: another one when its settings have changed.
    pub fn key(&self) -> String {
        // Secrets do not show in this form.
        let settings = format!("{:?}", DirectorySettings { origin: String::new(), ..self.settings.clone() });
        format!("{} {:08x}", self.settings.name, number(&settings) >> 32)
    }

    /// What a reload makes of it when its settings are the same: itself, with its connections and its copy.
    pub fn same(&self, settings: &DirectorySettings) -> bool {
        // List files may have changed; they are read anew.
        self.files.is_none() && self.domains.is_none() && self.settings.like(settings)
    }

    /// Its name, for log and metrics.
    pub fn name(&self) -> String {
        self.settings.name.clone()
    }

    fn note(&self, trouble: Option<&Trouble>) {
        let Some(trouble) = trouble else {
            if self.breaker.succeeded() == Change::Closed {
                self.gauge(true);
                tracing::warn!(directory = self.settings.name, "the directory answers again");
            }
            return;
        };
        metrics::counter!("octroi_policyd_directory_failures_total", "directory" => self.name()).increment(1);
        if self.breaker.failed(Instant::now()) == Change::Opened {
            self.gauge(false);
            let error = trouble.to_string();
            tracing::warn!(
                directory = self.settings.name,
                error,
                "the directory does not answer; what is remembered decides, and recipients.on_unavailable"
            );
        }
    }

    fn gauge(&self, up: bool) {
        metrics::gauge!("octroi_policyd_directory_up", "directory" => self.name()).set(if up { 1.0 } else { 0.0 });
    }
}

async fn within<T>(time: Duration, work: super::Answering<'_, T>) -> Result<T, Trouble> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(Trouble::Late))
}
