// SPDX-License-Identifier: GPL-3.0-or-later
//! What policyd keeps in the store: the statements, the queue in front of them and the judgement whether the store answers.
//! The only modules here that know SQL; they know no action and no text of a reply.

pub mod greylist;
pub mod health;
pub mod queue;
pub mod scratch;

use common::store::{Store, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite};

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
            Store::Postgres(pool) => {
                let mut connection = pool.acquire().await?;
                // The next user of the pool shall not inherit these settings.
                connection.close_on_drop();
                // A plan made while a table was small would read all of it when it has grown, until the next ANALYZE.
                sqlx::raw_sql("set enable_seqscan = off; set statement_timeout = '5s'")
                    .execute(&mut *connection)
                    .await?;
                Ok(Self::Postgres(connection))
            }
            Store::Sqlite(pool) => Ok(Self::Sqlite(pool.acquire().await?)),
        }
    }
}
