// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of limits. On PostgreSQL one call of the function `limit_charge` settles a lot of requests under row locks; on SQLite,
//! which has one writer, the same is done by [`crate::limits::settle`] inside one transaction. A contract test holds the two together.
//!
//! The clock is the database's; tests give their own time instead. What was charged may be lost for the last moment before a crash
//! of the database (`synchronous_commit` is off), as the levels of a limit recover by themselves.

pub mod handover;
pub mod overrides;
pub mod queue;

use std::collections::HashMap;
use std::fmt::Write;

use common::store::StoreError;
use sqlx::{Postgres, Row, Sqlite, SqliteConnection};

use super::Connection;
use crate::limits::settle::{Batch, Bucket, InForce, Ledger, Level, Override, Settled, settle};

/// What a lot of requests is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The clock of the database, in milliseconds since 1970.
    pub now: i64,
    /// Per request.
    pub settled: Vec<Settled>,
    /// Per bucket, after all charges, in millionths.
    pub levels: Vec<i64>,
    /// Per bucket.
    pub in_force: Vec<InForce>,
}

const CHARGE: &str = "select clock, refused, levels, in_force_capacities, in_force_rates \
    from limit_charge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Charges all for which there is room. `now` replaces the clock of the database.
pub async fn charge(connection: &mut Connection, batch: &Batch, now: Option<i64>) -> Result<Outcome, StoreError> {
    match connection {
        Connection::Postgres(connection) => {
            let outcome = charge_query(batch, now).fetch_one(&mut **connection).await?;
            outcome_of(batch, &outcome)
        }
        Connection::Sqlite(connection) => charge_sqlite(connection, batch, now).await,
    }
}

type Arguments = sqlx::postgres::PgArguments;

fn charge_query(batch: &Batch, now: Option<i64>) -> sqlx::query::Query<'_, Postgres, Arguments> {
    fn each<'b, T>(batch: &'b Batch, part: impl Fn(&'b Bucket) -> T) -> Vec<T> {
        batch.buckets.iter().map(part).collect()
    }
    // Arrays of PostgreSQL begin with 1; 0 is no part.
    let number = |index: usize| i32::try_from(index + 1).unwrap_or(i32::MAX);
    sqlx::query(CHARGE)
        .bind(now)
        .bind(each(batch, |bucket| bucket.name.as_str()))
        .bind(each(batch, |bucket| bucket.capacity))
        .bind(each(batch, |bucket| bucket.drain))
        .bind(each(batch, |bucket| bucket.since))
        .bind(each(batch, |bucket| bucket.keep))
        .bind(batch.parts.iter().map(|part| part.id).collect::<Vec<_>>())
        .bind(batch.parts.iter().map(|part| part.keep).collect::<Vec<_>>())
        .bind(batch.firsts.iter().map(|first| number(*first)).collect::<Vec<_>>())
        .bind(batch.entries.iter().map(|entry| entry.part.map_or(0, number)).collect::<Vec<_>>())
        .bind(batch.entries.iter().map(|entry| number(entry.bucket)).collect::<Vec<_>>())
        .bind(batch.entries.iter().map(|entry| entry.need).collect::<Vec<_>>())
        .bind(batch.entries.iter().map(|entry| entry.units).collect::<Vec<_>>())
}

fn outcome_of(batch: &Batch, row: &sqlx::postgres::PgRow) -> Result<Outcome, StoreError> {
    let refused: Vec<i32> = row.try_get("refused")?;
    let levels: Vec<i64> = row.try_get("levels")?;
    let capacities: Option<Vec<i64>> = row.try_get("in_force_capacities")?;
    let rates: Option<Vec<f64>> = row.try_get("in_force_rates")?;
    let buckets = batch.buckets.len();
    let all_there = |length: Option<usize>| length.is_none_or(|length| length == buckets);
    if refused.len() + 1 != batch.firsts.len()
        || levels.len() != buckets
        || !all_there(capacities.as_ref().map(Vec::len))
        || !all_there(rates.as_ref().map(Vec::len))
        || refused.iter().any(|bucket| usize::try_from(*bucket).is_ok_and(|bucket| bucket > buckets))
    {
        return Err(StoreError::Broken(
            "limit_charge gave another number of answers than there were questions".to_owned(),
        ));
    }
    let force = |(at, bucket): (usize, &Bucket)| InForce {
        capacity: capacities.as_ref().map_or(bucket.capacity, |capacities| capacities[at]),
        drain: rates.as_ref().map_or(bucket.drain, |rates| rates[at]),
    };
    let settled = |bucket: &i32| match usize::try_from(*bucket) {
        Ok(0) => Settled::Charged,
        Ok(bucket) => Settled::Refused(bucket - 1),
        Err(_) => Settled::Repeated,
    };
    Ok(Outcome {
        now: row.try_get("clock")?,
        settled: refused.iter().map(settled).collect(),
        levels,
        in_force: batch.buckets.iter().enumerate().map(force).collect(),
    })
}

/// What would be told, from reading alone: nothing is written or locked, and another request may come between.
pub async fn peek(connection: &mut Connection, batch: &Batch, now: Option<i64>) -> Result<Outcome, StoreError> {
    let (now, mut ledger) = match connection {
        Connection::Postgres(connection) => read_postgres(connection, batch, now).await?,
        Connection::Sqlite(connection) => read_sqlite(connection, batch, now).await?,
    };
    let settled = settle(batch, &mut ledger);
    Ok(outcome(now, settled, ledger))
}

fn outcome(now: i64, settled: Vec<Settled>, ledger: Ledger) -> Outcome {
    Outcome { now, settled, levels: ledger.levels.iter().map(|level| level.level).collect(), in_force: ledger.in_force }
}

/// $1 names, $2 ids, $3 now or null. Rows of buckets, of overrides (whose number comes first) and of parts.
const READ_POSTGRES: &str = "with clock as materialized ( \
        select coalesce($3::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now) \
    select 'c' as kind, '' as bucket, now as a, 0::bigint as b from clock \
    union all select 'b', bucket, level, at from limit_bucket where bucket = any ($1::text[]) \
    union all select 'p', '', id, expires from limit_charged, clock where id = any ($2::bigint[]) and expires > now";

/// $1 names, $2 ids as JSON arrays, $3 now or null.
const READ_SQLITE: &str = "with clock as materialized ( \
        select coalesce($3, cast(unixepoch('subsec') * 1000 as integer)) as now) \
    select 'c' as kind, '' as bucket, now as a, 0 as b from clock \
    union all select 'b', bucket, level, at from limit_bucket where bucket in (select value from json_each($1)) \
    union all select 'p', '', id, expires from limit_charged, clock \
        where id in (select value from json_each($2)) and expires > now";

type Read = (String, String, i64, i64);
type Set = (String, Option<i64>, Option<i64>, Option<i64>, bool, Option<i64>, i64, Option<i64>);

async fn read_postgres(
    connection: &mut sqlx::pool::PoolConnection<Postgres>,
    batch: &Batch,
    now: Option<i64>,
) -> Result<(i64, Ledger), StoreError> {
    const OVERRIDES: &str = "select bucket, number, period, burst, unlimited, until, extra, extra_until \
        from limit_override where bucket = any ($1::text[])";
    let names: Vec<&str> = batch.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    let ids: Vec<i64> = batch.parts.iter().map(|part| part.id).collect();
    let query = sqlx::query_as(READ_POSTGRES).bind(&names).bind(ids).bind(now);
    let rows: Vec<Read> = query.fetch_all(&mut **connection).await?;
    let set: Vec<Set> = sqlx::query_as(OVERRIDES).bind(&names).fetch_all(&mut **connection).await?;
    ledger(batch, rows, set)
}

async fn read_sqlite(
    connection: &mut SqliteConnection,
    batch: &Batch,
    now: Option<i64>,
) -> Result<(i64, Ledger), StoreError> {
    const OVERRIDES: &str = "select bucket, number, period, burst, unlimited, until, extra, extra_until \
        from limit_override where bucket in (select value from json_each($1))";
    let names = json_texts(batch.buckets.iter().map(|bucket| bucket.name.as_str()));
    let query =
        sqlx::query_as(READ_SQLITE).bind(&names).bind(json_numbers(batch.parts.iter().map(|part| part.id))).bind(now);
    let rows: Vec<Read> = query.fetch_all(&mut *connection).await?;
    let set: Vec<Set> = sqlx::query_as(OVERRIDES).bind(&names).fetch_all(connection).await?;
    ledger(batch, rows, set)
}

/// Puts what was read in the order of the batch, and brings it to now.
fn ledger(batch: &Batch, rows: Vec<Read>, set: Vec<Set>) -> Result<(i64, Ledger), StoreError> {
    let mut now = None;
    let mut levels: HashMap<String, Level> = HashMap::new();
    let mut fresh = vec![true; batch.parts.len()];
    for (kind, bucket, a, b) in rows {
        match kind.as_str() {
            "c" => now = Some(a),
            "b" => drop(levels.insert(bucket, Level { level: a, at: b })),
            _ => {
                if let Ok(at) = batch.parts.binary_search_by_key(&a, |part| part.id) {
                    fresh[at] = false;
                }
            }
        }
    }
    let now = now.ok_or_else(|| StoreError::Broken("the clock of the store gave no row".to_owned()))?;
    let set: HashMap<String, Override> = set.into_iter().map(set_of).collect();
    let force = |bucket: &Bucket| match set.get(&bucket.name) {
        Some(set) => set.applied(bucket, now),
        None => InForce { capacity: bucket.capacity, drain: bucket.drain },
    };
    let in_force: Vec<InForce> = batch.buckets.iter().map(force).collect();
    let level = |(bucket, force): (&Bucket, &InForce)| {
        let known = levels.get(&bucket.name).copied().unwrap_or(Level { level: 0, at: bucket.since });
        known.at(now, force.drain, bucket.since)
    };
    let levels = batch.buckets.iter().zip(&in_force).map(level).collect();
    Ok((now, Ledger { levels, in_force, fresh, changed: Vec::new() }))
}

fn set_of((bucket, number, period, burst, unlimited, until, extra, extra_until): Set) -> (String, Override) {
    (bucket, Override { number, period, burst, unlimited, until, extra, extra_until })
}

/// One transaction, which takes the write lock before it reads.
async fn charge_sqlite(
    connection: &mut SqliteConnection,
    batch: &Batch,
    now: Option<i64>,
) -> Result<Outcome, StoreError> {
    const HOUR: i64 = 3_600_000;
    let mut transaction = sqlx::Connection::begin_with(connection, "begin immediate").await?;
    let (now, mut ledger) = read_sqlite(&mut transaction, batch, now).await?;
    let before = ledger.fresh.clone();
    let settled = settle(batch, &mut ledger);
    for (at, bucket) in batch.buckets.iter().enumerate().filter(|(at, _)| ledger.changed[*at]) {
        sqlx::query::<Sqlite>(
            "insert into limit_bucket as b (bucket, level, at, expires) values ($1, $2, $3, $4) on conflict (bucket) do update \
             set level = excluded.level, at = excluded.at, expires = max(b.expires, excluded.expires)",
        )
        .bind(&bucket.name)
        .bind(ledger.levels[at].level)
        .bind(ledger.levels[at].at)
        .bind((now.saturating_add(bucket.keep) / HOUR).saturating_add(1).saturating_mul(HOUR))
        .execute(&mut *transaction)
        .await?;
    }
    let charged = (0..batch.parts.len()).filter(|at| before[*at] && !ledger.fresh[*at]).map(|at| &batch.parts[at]);
    for part in charged {
        sqlx::query::<Sqlite>(
            "insert into limit_charged (id, expires) values ($1, $2) on conflict (id) do update set expires = excluded.expires",
        )
        .bind(part.id)
        .bind((now.saturating_add(part.keep) / 1000).saturating_add(1).saturating_mul(1000))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(outcome(now, settled, ledger))
}

fn json_texts<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut out = String::from("[");
    for text in texts {
        if out.len() > 1 {
            out.push(',');
        }
        super::greylist::push_json(&mut out, text);
    }
    out.push(']');
    out
}

fn json_numbers(numbers: impl Iterator<Item = i64>) -> String {
    let mut out = String::from("[");
    for number in numbers {
        if out.len() > 1 {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{number}");
    }
    out.push(']');
    out
}

/// Claims a thing that one host of the farm shall do once in `keep` milliseconds. True for exactly one of those who ask.
pub async fn claim(connection: &mut Connection, id: i64, keep: i64) -> Result<bool, StoreError> {
    const POSTGRES: &str = "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
        insert into limit_charged as c (id, expires) select $1, now + $2 from clock \
        on conflict (id) do update set expires = excluded.expires where c.expires <= (select now from clock)";
    const SQLITE: &str = "insert into limit_charged as c (id, expires) \
        values ($1, cast(unixepoch('subsec') * 1000 as integer) + $2) on conflict (id) do update \
        set expires = excluded.expires where c.expires <= cast(unixepoch('subsec') * 1000 as integer)";
    let rows = match connection {
        Connection::Postgres(connection) => {
            sqlx::query(POSTGRES).bind(id).bind(keep).execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            sqlx::query(SQLITE).bind(id).bind(keep).execute(&mut **connection).await?.rows_affected()
        }
    };
    Ok(rows > 0)
}

/// Key of the advisory lock that elects the one cleaner of a farm: "octroi" and a number, in ASCII.
const CLEANER_LOCK: i64 = 0x6f63_7472_6f69_0002;

/// Deletes up to `most` rows of each table that have expired, and gives how many of the table with the most. Rows that a request has
/// locked are left for the next round.
pub async fn clean(connection: &mut Connection, most: i64) -> Result<u64, StoreError> {
    const NOW: &str = "(extract(epoch from clock_timestamp()) * 1000)::bigint";
    const NOW_SQLITE: &str = "cast(unixepoch('subsec') * 1000 as integer)";
    let mut deleted = 0;
    for (table, key) in [("limit_charged", "id"), ("limit_bucket", "bucket")] {
        deleted = deleted.max(match connection {
            Connection::Postgres(connection) => {
                let text = format!(
                    "with elected as materialized (select pg_try_advisory_xact_lock($2) as yes) \
                    delete from {table} where (select yes from elected) and expires <= {NOW} and {key} = any (array( \
                    select {key} from {table} where (select yes from elected) and expires <= {NOW} \
                    order by expires limit $1 for update skip locked))"
                );
                let query = sqlx::query::<Postgres>(sqlx::AssertSqlSafe(text)).bind(most).bind(CLEANER_LOCK);
                query.execute(&mut **connection).await?.rows_affected()
            }
            Connection::Sqlite(connection) => {
                let text = format!(
                    "delete from {table} where {key} in (select {key} from {table} where expires <= {NOW_SQLITE} \
                    order by expires limit $1)"
                );
                let query = sqlx::query::<Sqlite>(sqlx::AssertSqlSafe(text)).bind(most);
                query.execute(&mut **connection).await?.rows_affected()
            }
        });
    }
    Ok(deleted)
}

/// The clock of the store, in milliseconds since 1970.
pub async fn clock(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint");
            query.fetch_one(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)");
            query.fetch_one(&mut **connection).await?
        }
    })
}
