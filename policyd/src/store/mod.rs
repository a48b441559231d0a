// SPDX-License-Identifier: GPL-3.0-or-later
//! What policyd keeps in the store: the statements, the queue in front of them and the judgement whether the store answers.
//! The only modules here that know SQL; they know no action and no text of a reply.

pub mod acl;
pub mod acl_changes;
mod batches;
pub mod book;
pub mod cache;
pub mod carry;
mod cleaner;
pub mod decisions;
pub mod directory;
pub mod dns_cache;
pub mod explain;
pub mod greylist;
pub mod health;
pub mod import;
pub mod journal;
pub mod limits;
pub mod marker;
pub mod marks;
pub mod never;
pub mod present;
pub mod queue;
pub mod recipients;
pub mod scratch;
pub mod trust;

use std::time::Duration;

use common::store::{Store, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite};

/// Time for one statement, after which its connection counts as dead.
pub(crate) const STATEMENT_TIME: Duration = Duration::from_secs(6);

/// Work on the store that must not take longer than [`STATEMENT_TIME`].
pub(crate) async fn timely<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs()))),
    }
}

/// One connection to either database, taken out of the pool for a while.
#[derive(Debug)]
pub enum Connection {
    /// PostgreSQL.
    Postgres(PoolConnection<Postgres>),
    /// SQLite.
    Sqlite(PoolConnection<Sqlite>),
}

impl Connection {
    /// Takes a connection, made anew when none is free.
    pub async fn acquire(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Postgres(pool) => Self::acquire_postgres(pool).await,
            Store::Sqlite(pool) => Ok(Self::Sqlite(pool.acquire().await?)),
        }
    }

    /// The same, for statements whose loss in a crash of the database does little harm: they do not wait for the disk. Only for triplets
    /// and counters; whatever must not be lost takes another connection, or says so in its own statement.
    pub async fn acquire_losable(store: &Store) -> Result<Self, StoreError> {
        let mut connection = Self::acquire(store).await?;
        if let Self::Postgres(connection) = &mut connection {
            // A new plan for each lot of values would cost more than the statement itself.
            let settings = sqlx::raw_sql("set synchronous_commit = off; set plan_cache_mode = force_generic_plan");
            settings.execute(&mut **connection).await?;
        }
        Ok(connection)
    }

    /// The same for statements that must survive a crash of the database when `durable` holds.
    pub async fn acquire_for_triplets(store: &Store, durable: bool) -> Result<Self, StoreError> {
        let mut connection = Self::acquire_losable(store).await?;
        match &mut connection {
            Self::Postgres(connection) if durable => {
                sqlx::raw_sql("set synchronous_commit = on").execute(&mut **connection).await?;
            }
            Self::Postgres(_) => {}
            Self::Sqlite(connection) => {
                // The log is otherwise synced when it is written back. The cache of this one connection is what saves most reading.
                let synchronous = if durable { "full" } else { "normal" };
                let settings = format!("pragma synchronous = {synchronous}; pragma cache_size = -256");
                sqlx::raw_sql(sqlx::AssertSqlSafe(settings)).execute(&mut **connection).await?;
            }
        }
        Ok(connection)
    }

    /// After a restart of the database the free connections of the pool are dead, and nobody has noticed: each is tried
    /// once, and a dead one is thrown away.
    async fn acquire_postgres(pool: &PgPool) -> Result<Self, StoreError> {
        let mut left = pool.num_idle();
        loop {
            let mut connection = pool.acquire().await?;
            // The next user of the pool shall not inherit these settings.
            connection.close_on_drop();
            // A plan made while a table was small would read all of it when it has grown, until the next ANALYZE.
            let settings = sqlx::raw_sql("set enable_seqscan = off; set statement_timeout = '5s'");
            match settings.execute(&mut *connection).await {
                Ok(_) => return Ok(Self::Postgres(connection)),
                Err(error) if left == 0 => return Err(error.into()),
                Err(_) => left -= 1,
            }
        }
    }
}
