// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of trust: which clients have shown so often that they come again that they need not show it any more.
//!
//! A key (network, network and sender's domain, SPF domain) earns one pass for a first pass of any of its triplets, at most one in
//! [`COUNT_EVERY`]; keys are counted under a row lock, so the count is exact over a farm. Use of a trusted key renews it in the same way.

use common::store::StoreError;
use sqlx::{Postgres, Sqlite, SqliteConnection};

use super::Connection;

/// Shortest time between two counted passes of a key, in milliseconds: a burst of mail is one proof, not many.
pub const COUNT_EVERY: i64 = 3_600_000;

/// What the store knows of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The key.
    pub key: String,
    /// Counted passes.
    pub passes: i64,
    /// Whether the next pass counts.
    pub due: bool,
}

/// What happens to a key that exists already; the same text for both databases. $2 is how long it is kept.
macro_rules! count_rule {
    () => {
        "on conflict (key) do update set \
            passes = case when t.expires <= excluded.last_counted then 1 else t.passes + 1 end, \
            last_counted = excluded.last_counted, \
            expires = excluded.expires \
        where t.last_counted <= excluded.last_counted - 3600000 or t.expires <= excluded.last_counted"
    };
}

/// $1 keys, $2 keep, $3 now or null. Rows are locked in the order of their keys.
const COUNT_POSTGRES: &str = concat!(
    "with clock as materialized ( \
        select coalesce($3::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ) \
    insert into trust as t (key, passes, last_counted, expires) \
    select k.key, 1, clock.now, clock.now + $2::bigint from unnest($1::text[]) as k (key) cross join clock \
    order by k.key collate \"C\" ",
    count_rule!(),
);

/// $1 key, $2 keep, $3 now or null.
const COUNT_SQLITE: &str = concat!(
    "insert into trust as t (key, passes, last_counted, expires) \
    select $1, 1, clock.now, clock.now + $2 from \
        (select coalesce($3, cast(unixepoch('subsec') * 1000 as integer)) as now) as clock where true ",
    count_rule!(),
);

/// $1 keys, $2 now or null.
const READ_POSTGRES: &str = "with clock as materialized ( \
        select coalesce($2::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ) \
    select t.key, t.passes, t.last_counted <= clock.now - 3600000 as due \
    from clock cross join trust as t where t.key = any ($1::text[]) and t.expires > clock.now";

/// $1 key, $2 now or null.
const READ_SQLITE: &str = "select t.key, t.passes, t.last_counted <= clock.now - 3600000 as due from trust as t, \
    (select coalesce($2, cast(unixepoch('subsec') * 1000 as integer)) as now) as clock \
    where t.key = $1 and t.expires > clock.now";

/// What is known of these keys; of those that are unknown or have expired nothing is given. `now` replaces the clock of the database.
pub async fn read(connection: &mut Connection, keys: &[String], now: Option<i64>) -> Result<Vec<Standing>, StoreError> {
    let rows: Vec<(String, i64, bool)> = match connection {
        Connection::Postgres(connection) => {
            sqlx::query_as(READ_POSTGRES).bind(keys).bind(now).fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => read_sqlite(connection, keys, now).await?,
    };
    Ok(rows.into_iter().map(|(key, passes, due)| Standing { key, passes, due }).collect())
}

async fn read_sqlite(
    connection: &mut SqliteConnection,
    keys: &[String],
    now: Option<i64>,
) -> Result<Vec<(String, i64, bool)>, sqlx::Error> {
    let mut rows = Vec::new();
    for key in keys {
        rows.extend(sqlx::query_as(READ_SQLITE).bind(key).bind(now).fetch_optional(&mut *connection).await?);
    }
    Ok(rows)
}

/// Counts a pass for each of these keys that is due; they must be sorted and different. Each is kept for `keep` milliseconds.
pub async fn count(
    connection: &mut Connection,
    keys: &[String],
    keep: i64,
    now: Option<i64>,
) -> Result<(), StoreError> {
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query(COUNT_POSTGRES).bind(keys).bind(keep).bind(now).execute(&mut **connection).await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for key in keys {
                sqlx::query(COUNT_SQLITE).bind(key).bind(keep).bind(now).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// $1 since when, $2 how many, $3 now or null; the same text but for the clock.
macro_rules! since_rule {
    ($clock:literal) => {
        concat!(
            "select key, last_counted from trust where last_counted >= $1 and expires > coalesce($3, ",
            $clock,
            ") order by last_counted limit $2"
        )
    };
}

const SINCE_POSTGRES: &str = since_rule!("(extract(epoch from clock_timestamp()) * 1000)::bigint");
const SINCE_SQLITE: &str = since_rule!("cast(unixepoch('subsec') * 1000 as integer)");

/// Keys that were counted at `since` or later, with the time, at most `most` of them.
pub async fn since(
    connection: &mut Connection,
    since: i64,
    most: usize,
    now: Option<i64>,
) -> Result<Vec<(String, i64)>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_as::<Postgres, _>(SINCE_POSTGRES).bind(since).bind(most).bind(now);
            query.fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_as::<Sqlite, _>(SINCE_SQLITE).bind(since).bind(most).bind(now);
            query.fetch_all(&mut **connection).await?
        }
    })
}

/// Deletes at most $1 expired keys, none that another statement has locked: $2 now or null.
const CLEAN_POSTGRES: &str = "with clock as materialized ( \
        select coalesce($2::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ) \
    delete from trust where expires <= (select now from clock) and ctid = any (array( \
        select ctid from trust where expires <= (select now from clock) order by expires limit $1 for update skip locked))";

/// Deletes at most $1 expired keys: $2 now or null.
const CLEAN_SQLITE: &str = "delete from trust where key in (select key from trust \
    where expires <= coalesce($2, cast(unixepoch('subsec') * 1000 as integer)) order by expires limit $1)";

/// Deletes up to `most` expired keys and gives how many.
pub async fn clean(connection: &mut Connection, most: u32, now: Option<i64>) -> Result<u64, StoreError> {
    let most = i64::from(most);
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query::<Postgres>(CLEAN_POSTGRES).bind(most).bind(now);
            query.execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query::<Sqlite>(CLEAN_SQLITE).bind(most).bind(now);
            query.execute(&mut **connection).await?.rows_affected()
        }
    })
}
