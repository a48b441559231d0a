// SPDX-License-Identifier: GPL-3.0-or-later
//! A database of somebody else's that knows recipients: asked with statements from the configuration, never written.
//!
//! PostgreSQL or SQLite. The address is a bound value, never part of the text.

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row, SqlitePool};

use crate::recipients::Trouble;

/// A pool of connections to it, made with the first question: the pool wants a runtime, reading the configuration does not.
#[derive(Debug)]
pub struct Database {
    target: Target,
    connections: u32,
    timeout: Duration,
    pool: OnceLock<Pool>,
}

#[derive(Debug)]
enum Target {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

#[derive(Debug)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// Reads the URL; connects to nothing. The error does not repeat it: there may be a password in it.
    pub fn open(url: &str, connections: usize, timeout: Duration) -> Result<Self, String> {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        Ok(Self { target: target(url)?, connections, timeout, pool: OnceLock::new() })
    }

    fn pool(&self) -> &Pool {
        self.pool.get_or_init(|| match &self.target {
            Target::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(self.connections).acquire_timeout(self.timeout);
                Pool::Postgres(pool.connect_lazy_with((**options).clone()))
            }
            Target::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(self.connections).acquire_timeout(self.timeout);
                Pool::Sqlite(pool.connect_lazy_with((**options).clone()))
            }
        })
    }

    /// Whether the question has any row for this address.
    pub async fn has(&self, query: &str, address: &str) -> Result<bool, Trouble> {
        let query = AssertSqlSafe(query.to_owned());
        let found = match self.pool() {
            Pool::Postgres(pool) => {
                sqlx::query(query).bind(address).fetch_optional(pool).await.map(|row| row.is_some())
            }
            Pool::Sqlite(pool) => sqlx::query(query).bind(address).fetch_optional(pool).await.map(|row| row.is_some()),
        };
        found.map_err(trouble)
    }

    /// The first column of all rows, `most` at most and one.
    pub async fn all(&self, query: &str, most: usize) -> Result<Vec<String>, Trouble> {
        let mut texts = Vec::new();
        macro_rules! read {
            ($pool:expr) => {{
                let mut rows = $pool.fetch(sqlx::query(AssertSqlSafe(query.to_owned())));
                while let Some(row) = next(&mut rows).await.transpose().map_err(trouble)? {
                    if let Some(text) = row.try_get::<Option<String>, _>(0).map_err(trouble)? {
                        texts.push(text);
                    }
                    if texts.len() > most {
                        break;
                    }
                }
            }};
        }
        match self.pool() {
            Pool::Postgres(pool) => read!(pool),
            Pool::Sqlite(pool) => read!(pool),
        }
        Ok(texts)
    }
}

fn target(url: &str) -> Result<Target, String> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| "not a PostgreSQL URL; write \"postgres://user@host:5432/database\"".to_owned())?;
        let settings = [("default_transaction_read_only", "on"), ("statement_timeout", "60s")];
        return Ok(Target::Postgres(Box::new(options.application_name("octroi").options(settings))));
    }
    let path = url.strip_prefix("sqlite:").ok_or("must begin with \"postgres://\" or \"sqlite:\"")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let options = SqliteConnectOptions::new().filename(path).read_only(true).pragma("cache_size", "-512");
    Ok(Target::Sqlite(Box::new(options)))
}

/// The next item of a stream, without a crate for it.
async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}

fn trouble(error: sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            Trouble::Refused(error.to_string())
        }
        other => Trouble::Unreachable(other.to_string()),
    }
}
