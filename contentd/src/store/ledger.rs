// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of the ledger: rows are added, read by all hosts as they come, and forgotten. Writing one twice does no harm.
//!
//! The clock is the database's, so that hosts whose clocks differ see each other's rows.

use common::store::{Store, StoreError};
use sqlx::{Connection as _, FromRow};

use super::{durably, on_either};

/// One row, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The kind's word.
    pub kind: &'static str,
    /// 128 bits, hexadecimal.
    pub key: String,
    /// The message's id at that try.
    pub id: String,
    /// The next hop's reply.
    pub reply: String,
    /// For how many milliseconds it counts.
    pub keep: i64,
}

/// One row, as it is in the store.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Written {
    /// The kind's word.
    pub kind: String,
    /// 128 bits, hexadecimal.
    pub key: String,
    /// The message's id at that try.
    pub id: String,
    /// The next hop's reply.
    pub reply: String,
    /// When it was written, in milliseconds since 1970.
    pub written: i64,
    /// For how many milliseconds it still counts.
    pub left: i64,
}

/// A row that another host has begun to write may become visible behind later ones, by at most so many milliseconds.
const OVERLAP: i64 = 30_000;

macro_rules! clock {
    (postgres) => {
        "(extract(epoch from clock_timestamp()) * 1000)::bigint"
    };
    (sqlite) => {
        "cast(unixepoch('subsec') * 1000 as integer)"
    };
}

macro_rules! write {
    ($database:ident) => {
        concat!(
            "insert into ledger (kind, key, id, host, reply, written, expires) values ($1, $2, $3, $4, $5, ",
            clock!($database),
            ", ",
            clock!($database),
            " + $6) on conflict do nothing"
        )
    };
}

macro_rules! changes {
    ($database:ident) => {
        concat!(
            "select kind, key, id, reply, written, expires - ",
            clock!($database),
            " as left from ledger where written > $1 and expires > ",
            clock!($database),
            " order by written limit $2"
        )
    };
}

macro_rules! clean {
    ($database:ident, $lock:literal) => {
        concat!(
            "delete from ledger where (kind, key, id) in (select kind, key, id from ledger where expires <= ",
            clock!($database),
            " limit $1",
            $lock,
            ")"
        )
    };
}

/// Writes rows, all or none; they are on the disk of the store when this returns.
pub async fn write(store: &Store, host: &str, rows: &[Row]) -> Result<(), StoreError> {
    let text = match store {
        Store::Postgres(_) => write!(postgres),
        Store::Sqlite(_) => write!(sqlite),
    };
    durably!(store, |connection| {
        let mut transaction = connection.begin().await?;
        for row in rows {
            let insert = sqlx::query(text).bind(row.kind).bind(&row.key).bind(&row.id).bind(host);
            insert.bind(row.reply.replace('\0', "?")).bind(row.keep).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    });
    Ok(())
}

/// The rows that may have been written since the one of this moment; the oldest, if they are more than `most`.
pub async fn changes(store: &Store, since: i64, most: i64) -> Result<Vec<Written>, StoreError> {
    let text = match store {
        Store::Postgres(_) => changes!(postgres),
        Store::Sqlite(_) => changes!(sqlite),
    };
    let since = since.saturating_sub(OVERLAP);
    Ok(on_either!(store, |pool| sqlx::query_as(text).bind(since).bind(most).fetch_all(pool).await?))
}

/// Forgets up to `most` rows whose time is over.
pub async fn clean(store: &Store, most: i64) -> Result<u64, StoreError> {
    let text = match store {
        Store::Postgres(_) => clean!(postgres, " for update skip locked"),
        Store::Sqlite(_) => clean!(sqlite, ""),
    };
    Ok(on_either!(store, |pool| sqlx::query(text).bind(most).execute(pool).await?.rows_affected()))
}
