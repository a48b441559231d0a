// SPDX-License-Identifier: GPL-3.0-or-later
//! What an administrator reads and changes of limits: how full buckets are, and what is set for one of them. The statement that
//! charges reads it too, so that a change holds on every host at once.
//!
//! One statement per bucket: rows are never locked two at a time here, so nothing can wait for us in a circle.

use common::store::StoreError;
use sqlx::{Postgres, Row, Sqlite};

use crate::limits::settle::{Level, Override};
use crate::store::Connection;

/// A bucket, and what is set for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Limit, period and key.
    pub bucket: String,
    /// How full it is; none when it was never charged.
    pub level: Option<Level>,
    /// What is set for it.
    pub set: Option<Override>,
    /// Who did.
    pub author: String,
}

/// Buckets that were charged or for which something is set.
const COLUMNS: &str = "select coalesce(b.bucket, o.bucket) as name, b.level, b.at, o.bucket as overridden, o.number, o.period, \
    o.burst, o.unlimited, o.until, coalesce(o.extra, 0) as extra, o.extra_until, coalesce(o.author, '') as author \
    from limit_bucket as b full join limit_override as o on o.bucket = b.bucket";

/// The stored state of one bucket; none when nothing is known of it.
pub async fn read(connection: &mut Connection, bucket: &str) -> Result<Option<Stored>, StoreError> {
    const ONE: &str = "select n.name, b.level, b.at, o.bucket as overridden, o.number, o.period, o.burst, o.unlimited, o.until, \
        coalesce(o.extra, 0) as extra, o.extra_until, coalesce(o.author, '') as author \
        from (select cast($1 as text) as name) as n left join limit_bucket as b on b.bucket = n.name \
        left join limit_override as o on o.bucket = n.name where b.bucket is not null or o.bucket is not null";
    Ok(match connection {
        Connection::Postgres(connection) => {
            let row = sqlx::query::<Postgres>(ONE).bind(bucket).fetch_optional(&mut **connection).await?;
            row.map(|row| stored(&row)).transpose()?
        }
        Connection::Sqlite(connection) => {
            let row = sqlx::query::<Sqlite>(ONE).bind(bucket).fetch_optional(&mut **connection).await?;
            row.map(|row| stored(&row)).transpose()?
        }
    })
}

/// Up to `most` buckets, those for which something is set first, then those that were charged last.
pub async fn list(connection: &mut Connection, most: u32) -> Result<Vec<Stored>, StoreError> {
    let text = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} order by case when o.bucket is null then 1 else 0 end, b.at desc, 1 limit $1"
    ));
    let most = i64::from(most);
    Ok(match connection {
        Connection::Postgres(connection) => {
            let rows = sqlx::query::<Postgres>(text).bind(most).fetch_all(&mut **connection).await?;
            rows.iter().map(stored).collect::<Result<_, _>>()?
        }
        Connection::Sqlite(connection) => {
            let rows = sqlx::query::<Sqlite>(text).bind(most).fetch_all(&mut **connection).await?;
            rows.iter().map(stored).collect::<Result<_, _>>()?
        }
    })
}

fn stored<'r, R: Row>(row: &'r R) -> Result<Stored, sqlx::Error>
where
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    bool: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let level: Option<i64> = row.try_get("level")?;
    let at: Option<i64> = row.try_get("at")?;
    let overridden: Option<String> = row.try_get("overridden")?;
    let set = Override {
        number: row.try_get("number")?,
        period: row.try_get("period")?,
        burst: row.try_get("burst")?,
        unlimited: row.try_get::<Option<bool>, _>("unlimited")?.unwrap_or_default(),
        until: row.try_get("until")?,
        extra: row.try_get("extra")?,
        extra_until: row.try_get("extra_until")?,
    };
    Ok(Stored {
        bucket: row.try_get("name")?,
        level: level.zip(at).map(|(level, at)| Level { level, at }),
        set: overridden.map(|_| set),
        author: row.try_get("author")?,
    })
}

/// Runs a statement whose text is the same on both databases; gives the number of rows.
macro_rules! execute {
    ($connection:expr, $text:expr $(, $value:expr)* $(,)?) => {
        match $connection {
            Connection::Postgres(connection) => {
                sqlx::query::<Postgres>($text)$(.bind($value))*.execute(&mut **connection).await?.rows_affected()
            }
            Connection::Sqlite(connection) => {
                sqlx::query::<Sqlite>($text)$(.bind($value))*.execute(&mut **connection).await?.rows_affected()
            }
        }
    };
}

/// Empties a bucket. False when it was never charged.
pub async fn reset(connection: &mut Connection, bucket: &str) -> Result<bool, StoreError> {
    Ok(execute!(connection, "update limit_bucket set level = 0 where bucket = $1", bucket) > 0)
}

/// Grants `extra` units on top of what the bucket holds until `until` (milliseconds since 1970, by the clock of the database); what was
/// granted before and still holds is added, and ends with this.
pub async fn grant(
    connection: &mut Connection,
    bucket: &str,
    (extra, until): (i64, i64),
    author: &str,
) -> Result<(), StoreError> {
    let now = super::clock(connection).await?;
    execute!(
        connection,
        "insert into limit_override as o (bucket, extra, extra_until, author) values ($1, $2, $3, $4) \
        on conflict (bucket) do update set extra = case when o.extra_until > $5 then o.extra else 0 end + excluded.extra, \
        extra_until = excluded.extra_until, author = excluded.author",
        bucket,
        extra,
        until,
        author,
        now,
    );
    forget(connection, now).await
}

/// Sets another rate for a bucket, or none at all.
pub async fn set(connection: &mut Connection, bucket: &str, set: &Override, author: &str) -> Result<(), StoreError> {
    execute!(
        connection,
        "insert into limit_override as o (bucket, number, period, burst, unlimited, until, author) \
        values ($1, $2, $3, $4, $5, $6, $7) on conflict (bucket) do update set number = excluded.number, \
        period = excluded.period, burst = excluded.burst, unlimited = excluded.unlimited, until = excluded.until, \
        author = excluded.author",
        bucket,
        set.number,
        set.period,
        set.burst,
        set.unlimited,
        set.until,
        author,
    );
    let now = super::clock(connection).await?;
    forget(connection, now).await
}

/// Takes away whatever is set for a bucket. False when nothing was.
pub async fn unset(connection: &mut Connection, bucket: &str) -> Result<bool, StoreError> {
    Ok(execute!(connection, "delete from limit_override where bucket = $1", bucket) > 0)
}

/// Deletes what does not hold any more: while the table is empty, charging does not look into it.
async fn forget(connection: &mut Connection, now: i64) -> Result<(), StoreError> {
    execute!(
        connection,
        "delete from limit_override where (extra_until is null or extra_until <= $1) \
        and ((number is null and not unlimited) or until <= $1)",
        now,
    );
    Ok(())
}
