// SPDX-License-Identifier: GPL-3.0-or-later
//! Waiting for changes of the lists in the store: PostgreSQL tells them (LISTEN), on a connection of its own that no request ever
//! takes; a SQLite file is looked at twice a second.
//!
//! Notifications can be lost without anybody noticing (a dead connection, a pooler in between). So waiting also ends after a
//! while without one, and the caller compares the version.

use std::time::Duration;

use common::store::{Store, StoreError};
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::acl::CHANNEL;

/// Longest wait without a look, with PostgreSQL.
const LISTEN_TIME: Duration = Duration::from_secs(30);
/// The same with SQLite, which tells nothing.
const LOOK_TIME: Duration = Duration::from_millis(400);

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The database told a change.
    Told,
    /// It is time to have a look.
    Time,
}

/// Waits for changes.
#[derive(Debug)]
pub enum Changes {
    /// By notification.
    Postgres(Box<PgListener>),
    /// By looking.
    Sqlite,
}

impl Changes {
    /// Listens from now on.
    pub async fn open(store: &Store) -> Result<Self, StoreError> {
        let Store::Postgres(pool) = store else { return Ok(Self::Sqlite) };
        let options = pool.connect_options().as_ref().clone().application_name("octroi lists");
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(pool.options().get_acquire_timeout())
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&own).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Self::Postgres(Box::new(listener)))
    }

    /// Waits until there may be a change.
    pub async fn next(&mut self) -> Result<Woken, StoreError> {
        match self {
            Self::Sqlite => {
                tokio::time::sleep(LOOK_TIME).await;
                Ok(Woken::Time)
            }
            Self::Postgres(listener) => match tokio::time::timeout(LISTEN_TIME, listener.try_recv()).await {
                Ok(Ok(Some(_))) => {
                    // Several changes are one reason to look.
                    while listener.next_buffered().is_some() {}
                    Ok(Woken::Told)
                }
                Ok(Ok(None)) => Err(StoreError::Unavailable("the connection was lost".to_owned())),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Ok(Woken::Time),
            },
        }
    }
}
