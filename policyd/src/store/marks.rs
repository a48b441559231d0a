// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of marks: what is remembered for a while and then forgotten, to whom we wrote and who wrote to a trap.
//!
//! A mark is only made or lasts longer; two hosts that make the same one end up with the later end. The clock is the database's.

use common::store::StoreError;
use sqlx::{Postgres, Sqlite};

use super::Connection;

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// What is marked; at most 255 bytes.
    pub key: String,
    /// For how many milliseconds from now.
    pub keep: i64,
    /// What led to it, for the administrator.
    pub fact: String,
}

macro_rules! lasts_longer {
    () => {
        "on conflict (key) do update set fact = excluded.fact, expires = excluded.expires where m.expires < excluded.expires"
    };
}

/// $1 keys, $2 facts, $3 keeps. Rows are locked in the order of their keys.
const WRITE_POSTGRES: &str = concat!(
    "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
    insert into marks as m (key, fact, expires) \
    select k.key, k.fact, clock.now + k.keep \
    from unnest($1::text[], $2::text[], $3::bigint[]) as k (key, fact, keep) cross join clock \
    order by k.key collate \"C\" ",
    lasts_longer!(),
);

/// $1 key, $2 fact, $3 keep.
const WRITE_SQLITE: &str = concat!(
    "insert into marks as m (key, fact, expires) \
    values ($1, $2, cast(unixepoch('subsec') * 1000 as integer) + $3) ",
    lasts_longer!(),
);

/// $1 keys.
const READ_POSTGRES: &str = "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
    select m.key, m.expires - clock.now from clock cross join marks as m \
    where m.key = any ($1::text[]) and m.expires > clock.now";

/// $1 key.
const READ_SQLITE: &str = "select m.key, m.expires - clock.now from marks as m, \
    (select cast(unixepoch('subsec') * 1000 as integer) as now) as clock \
    where m.key = $1 and m.expires > clock.now";

/// $1 what keys begin with, $2 what comes behind all of them.
const LIST_POSTGRES: &str = "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
    select m.key, m.fact, m.expires - clock.now from clock cross join marks as m \
    where m.key >= $1 and m.key < $2 and m.expires > clock.now order by m.key";

/// $1 what keys begin with, $2 what comes behind all of them.
const LIST_SQLITE: &str = "select m.key, m.fact, m.expires - clock.now from marks as m, \
    (select cast(unixepoch('subsec') * 1000 as integer) as now) as clock \
    where m.key >= $1 and m.key < $2 and m.expires > clock.now order by m.key";

const ANY_POSTGRES: &str =
    "select exists (select 1 from marks where expires > (extract(epoch from clock_timestamp()) * 1000)::bigint)";

const ANY_SQLITE: &str =
    "select exists (select 1 from marks where expires > cast(unixepoch('subsec') * 1000 as integer))";

/// $1 how many at most.
const CLEAN_POSTGRES: &str = "delete from marks where key = any (array( \
    select key from marks where expires <= (extract(epoch from clock_timestamp()) * 1000)::bigint \
    order by expires limit $1 for update skip locked))";

/// $1 how many at most.
const CLEAN_SQLITE: &str = "delete from marks where key in ( \
    select key from marks where expires <= cast(unixepoch('subsec') * 1000 as integer) order by expires limit $1)";

/// Makes these marks, each key once, the one that lasts longest.
pub async fn write(connection: &mut Connection, mut marks: Vec<Mark>) -> Result<(), StoreError> {
    marks.sort_unstable_by(|a, b| (&a.key, b.keep).cmp(&(&b.key, a.keep)));
    marks.dedup_by(|later, first| later.key == first.key);
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query::<Postgres>(WRITE_POSTGRES)
                .bind(marks.iter().map(|mark| mark.key.as_str()).collect::<Vec<_>>())
                .bind(marks.iter().map(|mark| mark.fact.as_str()).collect::<Vec<_>>())
                .bind(marks.iter().map(|mark| mark.keep).collect::<Vec<_>>())
                .execute(&mut **connection)
                .await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for mark in &marks {
                let query = sqlx::query::<Sqlite>(WRITE_SQLITE).bind(&mark.key).bind(&mark.fact).bind(mark.keep);
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// Those of `keys` that are marked, and for how many milliseconds still.
pub async fn read(connection: &mut Connection, keys: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query_as(READ_POSTGRES).bind(keys).fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let mut rows = Vec::new();
            for key in keys {
                rows.extend(sqlx::query_as(READ_SQLITE).bind(key).fetch_optional(&mut **connection).await?);
            }
            rows
        }
    })
}

/// The marks whose keys begin with `prefix`: key, fact, and for how many milliseconds they are still kept.
pub async fn list(connection: &mut Connection, prefix: &str) -> Result<Vec<(String, String, i64)>, StoreError> {
    // Keys are printable: nothing in them sorts behind this.
    let end = format!("{prefix}\u{10ffff}");
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query_as(LIST_POSTGRES).bind(prefix).bind(end).fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            sqlx::query_as(LIST_SQLITE).bind(prefix).bind(end).fetch_all(&mut **connection).await?
        }
    })
}

/// Takes a mark away before its time; false when there is none.
pub async fn remove(connection: &mut Connection, key: &str) -> Result<bool, StoreError> {
    const REMOVE: &str = "delete from marks where key = $1";
    let removed = match connection {
        Connection::Postgres(connection) => {
            sqlx::query::<Postgres>(REMOVE).bind(key).execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            sqlx::query::<Sqlite>(REMOVE).bind(key).execute(&mut **connection).await?.rows_affected()
        }
    };
    Ok(removed > 0)
}

/// Whether anything is marked at all.
pub async fn any(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => sqlx::query_scalar(ANY_POSTGRES).fetch_one(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_scalar(ANY_SQLITE).fetch_one(&mut **connection).await?,
    })
}

/// Deletes up to `most` expired marks, none that another host has locked, and gives how many.
pub async fn clean(connection: &mut Connection, most: i64) -> Result<u64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query(CLEAN_POSTGRES).bind(most).execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            sqlx::query(CLEAN_SQLITE).bind(most).execute(&mut **connection).await?.rows_affected()
        }
    })
}
