// SPDX-License-Identifier: GPL-3.0-or-later
//! The greylist statements. For one triplet, however many hosts ask at the same instant, exactly one asker is told that it is
//! new and exactly one that it has passed now: a single upsert takes the row lock and decides under it.
//!
//! The clock is the database's; tests give their own time instead. A triplet that has passed and was written within the
//! refresh time is only read, so that known good mail costs neither a lock nor a write.

use common::store::{Store, StoreError};
use sqlx::{Postgres, Sqlite, SqliteConnection};

use super::Connection;
use crate::triplet::Triplet;

/// What makes a triplet wait and pass, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Times {
    /// From the first try until it may pass.
    pub delay: i64,
    /// From the first try until it is forgotten, unless it has passed.
    pub retry_window: i64,
    /// From the last time seen until it is forgotten, once it has passed.
    pub keep_passed: i64,
}

impl Times {
    /// How old `last_seen` of a passed triplet may get before it is written again.
    fn refresh(self) -> i64 {
        (self.keep_passed / 10).min(3_600_000)
    }
}

/// A triplet, and how many requests ask for it together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// The key.
    pub triplet: Triplet,
    /// At least 1.
    pub requests: u32,
}

/// What one request learns about its triplet. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// Never seen, or forgotten: it waits from now on.
    New {
        /// Until it may pass.
        left: i64,
    },
    /// Seen, and it must still wait.
    Early {
        /// Until it may pass.
        left: i64,
    },
    /// It has waited long enough; this request is the first to learn it.
    PassedNow {
        /// Since the first try.
        waited: i64,
    },
    /// It has passed before.
    Passed,
}

/// A row as the statements give it.
#[derive(Debug, Clone, Copy)]
struct Row {
    first_seen: i64,
    now: i64,
    tries: i64,
    /// -1 when the row was only read.
    passes: i64,
}

#[cfg(test)]
const ONLY_READ: i64 = -1;

impl Row {
    /// What the first of `requests` learns, and what the others learn.
    fn sightings(self, requests: u32, times: Times) -> (Sighting, Sighting) {
        let requests = i64::from(requests);
        let waited = (self.now - self.first_seen).max(0);
        let left = times.delay.saturating_sub(waited).max(1);
        match (self.passes, self.tries) {
            (0, tries) if tries == requests => (Sighting::New { left }, Sighting::Early { left }),
            (0, _) => (Sighting::Early { left }, Sighting::Early { left }),
            (passes, _) if passes == requests => (Sighting::PassedNow { waited }, Sighting::Passed),
            _ => (Sighting::Passed, Sighting::Passed),
        }
    }
}

/// What happens to a row that exists already; the same text for both databases. `excluded` is the row that would have been
/// inserted: its `last_seen` is now. Parameters: $5 delay, $6 retry window, $7 keep passed.
macro_rules! upsert_rule {
    () => {
        "on conflict (client, sender, recipient) do update set \
            first_seen = case when g.expires <= excluded.last_seen then excluded.first_seen else g.first_seen end, \
            last_seen = excluded.last_seen, \
            tries = case \
                when g.expires <= excluded.last_seen then excluded.tries \
                when g.passes > 0 or excluded.last_seen - g.first_seen >= $5 then g.tries \
                else g.tries + excluded.tries end, \
            passes = case \
                when g.expires <= excluded.last_seen then 0 \
                when g.passes > 0 or excluded.last_seen - g.first_seen >= $5 then g.passes + excluded.tries \
                else 0 end, \
            expires = case \
                when g.expires <= excluded.last_seen then excluded.expires \
                when g.passes > 0 or excluded.last_seen - g.first_seen >= $5 then excluded.last_seen + $7 \
                else g.expires end "
    };
}

/// Many triplets in one statement: $1 $2 $3 keys, $4 requests of each, $8 now or null, $9 refresh time. Rows are locked in the
/// order of their keys; two hosts that lock in different orders would end in a deadlock.
const ASK_POSTGRES: &str = concat!(
    "with clock as materialized ( \
        select coalesce($8::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ), ask as materialized ( \
        select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as a (client, sender, recipient, requests) \
    ), known as materialized ( \
        select k.client, k.sender, k.recipient, k.first_seen, clock.now, k.tries \
        from clock cross join ask cross join lateral ( \
            select * from greylist as g \
            where g.client = ask.client and g.sender = ask.sender and g.recipient = ask.recipient \
                and g.passes > 0 and g.expires > clock.now and g.last_seen > clock.now - $9::bigint \
            offset 0 \
        ) as k \
    ), asked as ( \
        insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
        select ask.client, ask.sender, ask.recipient, clock.now, clock.now, ask.requests, 0, clock.now + $6::bigint \
        from ask cross join clock \
        where not exists ( \
            select from known as k \
            where k.client = ask.client and k.sender = ask.sender and k.recipient = ask.recipient \
        ) \
        order by ask.client collate \"C\", ask.sender collate \"C\", ask.recipient collate \"C\" ",
    upsert_rule!(),
    "returning client, sender, recipient, first_seen, last_seen as now, tries, passes \
    ) \
    select client, sender, recipient, first_seen, now, tries, -1::bigint as passes from known \
    union all \
    select client, sender, recipient, first_seen, now, tries, passes from asked",
);

/// The clock of SQLite: $8 now or null.
macro_rules! sqlite_clock {
    () => {
        "(select coalesce($8, cast(unixepoch('subsec') * 1000 as integer)) as now) as clock "
    };
}

/// Reads a triplet that has passed and need not be written: $1 $2 $3 key, $4 refresh time.
const KNOWN_SQLITE: &str = concat!(
    "select g.first_seen, clock.now, g.tries, -1 as passes from greylist as g, ",
    sqlite_clock!(),
    "where g.client = $1 and g.sender = $2 and g.recipient = $3 \
        and g.passes > 0 and g.expires > clock.now and g.last_seen > clock.now - $4",
);

/// One triplet: $1 $2 $3 key, $4 requests. `where true` keeps SQLite from reading `on conflict` as part of a join.
const ASK_SQLITE: &str = concat!(
    "insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    select $1, $2, $3, clock.now, clock.now, $4, 0, clock.now + $6 from ",
    sqlite_clock!(),
    "where true ",
    upsert_rule!(),
    "returning first_seen, last_seen as now, tries, passes",
);

/// Asks for all triplets at once: what the first of the requests for each learns, and what its other requests learn, in the order
/// of `asks`. These must be sorted and different. `now` replaces the clock of the database.
pub async fn ask_many(
    connection: &mut Connection,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<(Sighting, Sighting)>, StoreError> {
    let rows = match connection {
        Connection::Postgres(connection) => ask_postgres(connection, asks, times, now).await?,
        Connection::Sqlite(connection) => ask_sqlite(connection, asks, times, now).await?,
    };
    Ok(asks.iter().zip(rows).map(|(ask, row)| row.sightings(ask.requests, times)).collect())
}

/// Asks for one triplet with a connection of its own.
pub async fn ask(store: &Store, triplet: &Triplet, times: Times, now: Option<i64>) -> Result<Sighting, StoreError> {
    let mut connection = Connection::acquire(store).await?;
    let asks = [Ask { triplet: triplet.clone(), requests: 1 }];
    let answers = ask_many(&mut connection, &asks, times, now).await?;
    answers.first().map(|(first, _)| *first).ok_or_else(no_row)
}

fn no_row() -> StoreError {
    StoreError::Broken("the greylist statement gave no row for a triplet".to_owned())
}

type PostgresRow = (String, String, String, i64, i64, i64, i64);

async fn ask_postgres(
    connection: &mut sqlx::pool::PoolConnection<Postgres>,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<Row>, StoreError> {
    let column = |part: fn(&Triplet) -> &str| asks.iter().map(|ask| part(&ask.triplet)).collect::<Vec<_>>();
    let found: Vec<PostgresRow> = sqlx::query_as(ASK_POSTGRES)
        .bind(column(|triplet| &triplet.client))
        .bind(column(|triplet| &triplet.sender))
        .bind(column(|triplet| &triplet.recipient))
        .bind(asks.iter().map(|ask| i64::from(ask.requests)).collect::<Vec<_>>())
        .bind(times.delay)
        .bind(times.retry_window)
        .bind(times.keep_passed)
        .bind(now)
        .bind(times.refresh())
        .fetch_all(&mut **connection)
        .await?;
    // The rows come in any order; the asks are sorted.
    let mut rows: Vec<Option<Row>> = vec![None; asks.len()];
    for (client, sender, recipient, first_seen, now, tries, passes) in found {
        let key = Triplet { client, sender, recipient };
        if let Ok(at) = asks.binary_search_by(|ask| ask.triplet.cmp(&key)) {
            rows[at] = Some(Row { first_seen, now, tries, passes });
        }
    }
    rows.into_iter().map(|row| row.ok_or_else(no_row)).collect()
}

async fn ask_sqlite(
    connection: &mut SqliteConnection,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::with_capacity(asks.len());
    for ask in asks {
        rows.push(known_sqlite(&mut *connection, &ask.triplet, times, now).await?);
    }
    if rows.iter().all(Option::is_some) {
        return Ok(rows.into_iter().flatten().collect());
    }
    // One transaction for the batch: its price is that of one commit. IMMEDIATE takes the write lock before anything is read.
    let mut transaction = sqlx::Connection::begin_with(connection, "begin immediate").await?;
    let mut all = Vec::with_capacity(asks.len());
    for (ask, known) in asks.iter().zip(rows) {
        all.push(match known {
            Some(row) => row,
            None => upsert_sqlite(&mut transaction, ask, times, now).await?,
        });
    }
    transaction.commit().await?;
    Ok(all)
}

async fn known_sqlite(
    connection: &mut SqliteConnection,
    triplet: &Triplet,
    times: Times,
    now: Option<i64>,
) -> Result<Option<Row>, StoreError> {
    let unused: Option<i64> = None;
    let row: Option<(i64, i64, i64, i64)> = sqlx::query_as(KNOWN_SQLITE)
        .bind(&triplet.client)
        .bind(&triplet.sender)
        .bind(&triplet.recipient)
        .bind(times.refresh())
        .bind(unused)
        .bind(unused)
        .bind(unused)
        .bind(now)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|(first_seen, now, tries, passes)| Row { first_seen, now, tries, passes }))
}

async fn upsert_sqlite(
    connection: &mut SqliteConnection,
    ask: &Ask,
    times: Times,
    now: Option<i64>,
) -> Result<Row, StoreError> {
    let (first_seen, now, tries, passes): (i64, i64, i64, i64) = sqlx::query_as(ASK_SQLITE)
        .bind(&ask.triplet.client)
        .bind(&ask.triplet.sender)
        .bind(&ask.triplet.recipient)
        .bind(i64::from(ask.requests))
        .bind(times.delay)
        .bind(times.retry_window)
        .bind(times.keep_passed)
        .bind(now)
        .fetch_one(connection)
        .await?;
    Ok(Row { first_seen, now, tries, passes })
}

/// Key of the advisory lock that elects the one cleaner of a farm: "octroi" and a number, in ASCII.
const CLEANER_LOCK: i64 = 0x6f63_7472_6f69_0001;

/// Deletes at most $1 expired rows, none that another statement has locked: $2 now or null, $3 the lock of the cleaner. The
/// condition stands twice: a row that was renewed between the two readings stays.
const CLEAN_POSTGRES: &str = "with elected as materialized (select pg_try_advisory_xact_lock($3) as yes), \
    clock as materialized (select coalesce($2::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now) \
    delete from greylist where (select yes from elected) and expires <= (select now from clock) and ctid = any (array( \
        select ctid from greylist where (select yes from elected) and expires <= (select now from clock) \
        order by expires limit $1 for update skip locked))";

/// Deletes at most $1 expired rows: $2 now or null.
const CLEAN_SQLITE: &str = "delete from greylist where (client, sender, recipient) in ( \
    select client, sender, recipient from greylist \
    where expires <= coalesce($2, cast(unixepoch('subsec') * 1000 as integer)) order by expires limit $1)";

/// Deletes up to `most` expired triplets in one short transaction, and gives how many. On PostgreSQL nothing happens while
/// another host is doing it.
pub async fn clean(connection: &mut Connection, most: u32, now: Option<i64>) -> Result<u64, StoreError> {
    let most = i64::from(most);
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query::<Postgres>(CLEAN_POSTGRES).bind(most).bind(now).bind(CLEANER_LOCK);
            query.execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query::<Sqlite>(CLEAN_SQLITE).bind(most).bind(now);
            query.execute(&mut **connection).await?.rows_affected()
        }
    })
}

/// Sees whether the table can be read.
pub async fn probe(connection: &mut Connection) -> Result<(), StoreError> {
    const PROBE: &str = "select 1 from greylist limit 1";
    match connection {
        Connection::Postgres(connection) => sqlx::query(PROBE).execute(&mut **connection).await.map(drop)?,
        Connection::Sqlite(connection) => sqlx::query(PROBE).execute(&mut **connection).await.map(drop)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { delay: 100, retry_window: 1000, keep_passed: 100_000 };

    #[test]
    fn one_of_several_requests_is_the_first() {
        let row = |tries, passes| Row { first_seen: 0, now: 30, tries, passes };
        let (new, early) = (Sighting::New { left: 70 }, Sighting::Early { left: 70 });
        assert_eq!(row(3, 0).sightings(3, TIMES), (new, early));
        assert_eq!(row(4, 0).sightings(3, TIMES), (early, early));
        assert_eq!(row(1, 2).sightings(2, TIMES), (Sighting::PassedNow { waited: 30 }, Sighting::Passed));
        assert_eq!(row(1, 3).sightings(2, TIMES), (Sighting::Passed, Sighting::Passed));
        assert_eq!(row(1, ONLY_READ).sightings(1, TIMES), (Sighting::Passed, Sighting::Passed));
    }

    #[test]
    fn times_stay_in_bounds_when_clocks_jump() {
        let row = Row { first_seen: 50, now: 0, tries: 2, passes: 0 };
        assert_eq!(row.sightings(1, TIMES).0, Sighting::Early { left: 100 });
        let longer = Row { first_seen: 0, now: 500, tries: 2, passes: 0 };
        assert_eq!(longer.sightings(1, TIMES).0, Sighting::Early { left: 1 });
    }
}
