// SPDX-License-Identifier: GPL-3.0-or-later
//! What contentd keeps in the store: the access to it, and one module per table. The only modules here that know SQL.
//!
//! No message needs the store to go on. It is opened in the background, tried again while it is away, and whoever asks meanwhile is
//! told so at once; what follows from that, the caller's configuration says.

pub mod ledger;
pub mod quarantine;
pub mod rules;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use common::store::{Store, StoreError, StoreSettings};
use metrics::gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time for one piece of work, its tries included.
const WORK_TIME: Duration = Duration::from_secs(10);
/// Pause between two tries to open the store, and between two looks at it.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the same statements on either database; `$connection` is a connection whose settings make a commit durable.
macro_rules! durably {
    ($store:expr, |$connection:ident| $work:expr) => {
        match $store {
            common::store::Store::Postgres(pool) => {
                let mut taken = pool.acquire().await?;
                let $connection = &mut *taken;
                $work
            }
            common::store::Store::Sqlite(pool) => {
                let mut taken = pool.acquire().await?;
                let $connection = &mut *taken;
                // Otherwise the log is synced when it is written back, and a power cut could lose what was committed.
                sqlx::query("pragma synchronous = full").execute(&mut *$connection).await?;
                $work
            }
        }
    };
}

/// Runs the same query on either database.
macro_rules! on_either {
    ($store:expr, |$pool:ident| $work:expr) => {
        match $store {
            common::store::Store::Postgres($pool) => $work,
            common::store::Store::Sqlite($pool) => $work,
        }
    };
}

pub(crate) use {durably, on_either};

/// The way to the store, from the start of the daemon to its end, whether the store is there or not.
#[derive(Debug)]
pub struct Access {
    settings: StoreSettings,
    store: ArcSwapOption<Store>,
    tried: watch::Sender<bool>,
}

impl Access {
    /// A way to the store of these settings; nothing is opened yet.
    pub fn new(settings: &StoreSettings) -> Arc<Access> {
        Arc::new(Access { settings: settings.clone(), store: ArcSwapOption::empty(), tried: watch::Sender::new(false) })
    }

    /// The store, once it has been opened.
    pub fn store(&self) -> Result<Arc<Store>, StoreError> {
        self.store.load_full().ok_or_else(|| StoreError::Unavailable("it has not been opened yet".to_owned()))
    }

    /// Waits until it has been tried once to open the store.
    pub async fn tried(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.tried.subscribe().wait_for(|tried| *tried).await;
    }

    /// Does a piece of work that may be repeated: after a restart of the database each idle connection of the pool is dead and
    /// fails once.
    pub async fn run<T, F>(&self, work: impl Fn(Arc<Store>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let store = self.store()?;
        let tries = async {
            let mut left = self.settings.max_connections;
            loop {
                match work(store.clone()).await {
                    Err(StoreError::Unavailable(_)) if left > 0 => left -= 1,
                    done => return done,
                }
            }
        };
        match tokio::time::timeout(WORK_TIME, tries).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", WORK_TIME.as_secs()))),
        }
    }

    /// Opens the store and makes its schema, again and again until it succeeds; then watches whether it answers. Ends with `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut up = None;
        loop {
            let answers = match self.store() {
                Ok(store) => store.ping().await,
                Err(_) => self.open().await,
            };
            self.tried.send_replace(true);
            if up != Some(answers.is_ok()) {
                match &answers {
                    Ok(()) => tracing::info!("the store answers"),
                    Err(error) => tracing::warn!(%error, "the store is away; mail goes on without it"),
                }
                up = Some(answers.is_ok());
                gauge!("octroi_contentd_store_up").set(if answers.is_ok() { 1.0 } else { 0.0 });
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Ok(store) = self.store() {
            store.close().await;
        }
    }

    async fn open(&self) -> Result<(), StoreError> {
        let store = Store::open(&self.settings).await?;
        store.migrate().await?;
        self.store.store(Some(Arc::new(store)));
        Ok(())
    }
}

/// Milliseconds since 1970, by the clock of this host.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
