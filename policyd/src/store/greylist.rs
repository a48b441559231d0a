// SPDX-License-Identifier: GPL-3.0-or-later
//! The greylist statements. For one triplet, however many hosts ask at the same instant, exactly one asker is told that it is
//! new and exactly one that it has passed now: a single upsert takes the row lock and decides under it.
//!
//! The clock is the database's; tests give their own time instead. A triplet that has passed and was written within the
//! refresh time is only read, so that known good mail costs neither a lock nor a write.
//!
//! Durability: a first try and a further try may be lost when PostgreSQL crashes (`synchronous_commit` is off, see
//! [`Connection::acquire_losable`]), unless `greylist.durable` is set; the sender tries once more. A pass is on disk before anybody is told of it.

use std::fmt::Write;

use common::store::{Store, StoreError};
use sqlx::{Postgres, Sqlite, SqliteConnection};

use super::Connection;
use crate::triplet::Triplet;

/// What makes a triplet wait and pass, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Times {
    /// From the first try until it may pass.
    pub delay: i64,
    /// From the first try until it is forgotten, unless it has passed.
    pub retry_window: i64,
    /// From the last time seen until it is forgotten, once it has passed.
    pub keep_passed: i64,
}

impl Times {
    /// How old `last_seen` of a passed triplet may get before it is written again, in milliseconds.
    pub fn refresh(self) -> i64 {
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

/// What the requests for one triplet learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// One of the requests.
    pub first: Sighting,
    /// All others.
    pub others: Sighting,
    /// Until the store forgets the triplet, in milliseconds.
    pub keeps: i64,
}

/// A row as the statements give it.
#[derive(Debug, Clone, Copy)]
struct Row {
    first_seen: i64,
    now: i64,
    tries: i64,
    /// -1 when the row was only read.
    passes: i64,
    expires: i64,
}

#[cfg(test)]
const ONLY_READ: i64 = -1;

impl Row {
    fn answer(self, requests: u32, times: Times) -> Answer {
        let (first, others) = self.sightings(requests, times);
        Answer { first, others, keeps: self.expires.saturating_sub(self.now) }
    }

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
/// order of their keys; two hosts that lock in different orders would end in a deadlock. A statement that writes a row that has
/// passed makes its own commit durable, whatever holds for the connection.
const ASK_POSTGRES: &str = concat!(
    "with clock as materialized ( \
        select coalesce($8::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ), ask as materialized ( \
        select a.client, a.sender, a.recipient, a.requests, clock.now, k.first_seen, k.tries, k.expires \
        from clock cross join unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as a (client, sender, recipient, requests) \
        left join lateral ( \
            select g.first_seen, g.tries, g.expires from greylist as g \
            where g.client = a.client and g.sender = a.sender and g.recipient = a.recipient \
                and g.passes > 0 and g.expires > clock.now and g.last_seen > clock.now - $9::bigint \
            offset 0 \
        ) as k on true \
    ), asked as ( \
        insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
        select client, sender, recipient, now, now, requests, 0, now + $6::bigint from ask where first_seen is null \
        order by client collate \"C\", sender collate \"C\", recipient collate \"C\" ",
    upsert_rule!(),
    "returning client, sender, recipient, first_seen, last_seen as now, tries, passes, expires \
    ) \
    select client, sender, recipient, first_seen, now, tries, -1::bigint as passes, expires, null as durable \
    from ask where first_seen is not null \
    union all \
    select client, sender, recipient, first_seen, now, tries, passes, expires, \
        case when passes > 0 then set_config('synchronous_commit', 'on', true) end from asked",
);

/// The asks as rows, from $1: a JSON array of arrays. One statement for a whole batch spares a change of threads for each triplet.
macro_rules! sqlite_asks {
    () => {
        "(select value ->> 0 as client, value ->> 1 as sender, value ->> 2 as recipient, value ->> 3 as requests from json_each($1)) as a, \
        (select coalesce($8, cast(unixepoch('subsec') * 1000 as integer)) as now) as clock "
    };
}

/// Reads the triplets that have passed and need not be written: $2 refresh time.
const KNOWN_SQLITE: &str = concat!(
    "select g.client, g.sender, g.recipient, g.first_seen, clock.now, g.tries, -1 as passes, g.expires from ",
    sqlite_asks!(),
    "cross join greylist as g where g.client = a.client and g.sender = a.sender and g.recipient = a.recipient \
        and g.passes > 0 and g.expires > clock.now and g.last_seen > clock.now - $2",
);

/// All others.
const ASK_SQLITE: &str = concat!(
    "insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    select a.client, a.sender, a.recipient, clock.now, clock.now, a.requests, 0, clock.now + $6 from ",
    sqlite_asks!(),
    "where not exists (select 1 from greylist as k \
        where k.client = a.client and k.sender = a.sender and k.recipient = a.recipient \
            and k.passes > 0 and k.expires > clock.now and k.last_seen > clock.now - $2) ",
    upsert_rule!(),
    "returning client, sender, recipient, first_seen, last_seen as now, tries, passes, expires",
);

/// Asks for all triplets at once, and gives the answers in the order of `asks`. These must be sorted and different. `now` replaces
/// the clock of the database.
pub async fn ask_many(
    connection: &mut Connection,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<Answer>, StoreError> {
    let rows = match connection {
        Connection::Postgres(connection) => ask_postgres(connection, asks, times, now).await?,
        Connection::Sqlite(connection) => ask_sqlite(connection, asks, times, now).await?,
    };
    let answer = |(ask, row): (&Ask, Option<Row>)| Ok(row.ok_or_else(no_row)?.answer(ask.requests, times));
    asks.iter().zip(rows).map(answer).collect()
}

/// Asks for one triplet with a connection of its own.
pub async fn ask(store: &Store, triplet: &Triplet, times: Times, now: Option<i64>) -> Result<Sighting, StoreError> {
    let mut connection = Connection::acquire(store).await?;
    let asks = [Ask { triplet: triplet.clone(), requests: 1 }];
    let answers = ask_many(&mut connection, &asks, times, now).await?;
    answers.first().map(|answer| answer.first).ok_or_else(no_row)
}

fn no_row() -> StoreError {
    StoreError::Broken("the greylist statement gave no row for a triplet".to_owned())
}

/// A row with its key.
type Keyed = (String, String, String, i64, i64, i64, i64, i64);

/// The rows come in any order; the asks are sorted.
fn put_in_order(asks: &[Ask], found: Vec<Keyed>, rows: &mut [Option<Row>]) {
    for (client, sender, recipient, first_seen, now, tries, passes, expires) in found {
        let key = Triplet { client, sender, recipient };
        if let Ok(at) = asks.binary_search_by(|ask| ask.triplet.cmp(&key)) {
            rows[at] = Some(Row { first_seen, now, tries, passes, expires });
        }
    }
}

async fn ask_postgres(
    connection: &mut sqlx::pool::PoolConnection<Postgres>,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<Option<Row>>, StoreError> {
    let column = |part: fn(&Triplet) -> &str| asks.iter().map(|ask| part(&ask.triplet)).collect::<Vec<_>>();
    let found: Vec<Keyed> = sqlx::query_as(ASK_POSTGRES)
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
    let mut rows = vec![None; asks.len()];
    put_in_order(asks, found, &mut rows);
    Ok(rows)
}

/// One statement for all that must be written, which takes the write lock before it reads, and one for what is left: those that have
/// passed. Between the two somebody else may delete one of these, or its time may be over; then it is asked once more.
async fn ask_sqlite(
    connection: &mut SqliteConnection,
    asks: &[Ask],
    times: Times,
    now: Option<i64>,
) -> Result<Vec<Option<Row>>, StoreError> {
    let mut rows = vec![None; asks.len()];
    for statement in [ASK_SQLITE, KNOWN_SQLITE, ASK_SQLITE] {
        let others = asks.iter().zip(&rows).filter_map(|(ask, row)| row.is_none().then_some(ask));
        let unused: Option<i64> = None;
        let found: Vec<Keyed> = sqlx::query_as(statement)
            .bind(json(others))
            .bind(times.refresh())
            .bind(unused)
            .bind(unused)
            .bind(times.delay)
            .bind(times.retry_window)
            .bind(times.keep_passed)
            .bind(now)
            .fetch_all(&mut *connection)
            .await?;
        put_in_order(asks, found, &mut rows);
        if rows.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(rows)
}

/// `[["client","sender","recipient",requests],..]`, RFC 8259.
fn json<'a>(asks: impl Iterator<Item = &'a Ask>) -> String {
    let mut out = String::from("[");
    for ask in asks {
        out.push_str(if out.len() > 1 { ",[" } else { "[" });
        for part in [&ask.triplet.client, &ask.triplet.sender, &ask.triplet.recipient] {
            push_json(&mut out, part);
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{}]", ask.requests);
    }
    out.push(']');
    out
}

pub(super) fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // All control characters are below U+10000.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
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
        let row = |tries, passes| Row { first_seen: 0, now: 30, tries, passes, expires: 1000 };
        let (new, early) = (Sighting::New { left: 70 }, Sighting::Early { left: 70 });
        assert_eq!(row(3, 0).sightings(3, TIMES), (new, early));
        assert_eq!(row(4, 0).sightings(3, TIMES), (early, early));
        assert_eq!(row(1, 2).sightings(2, TIMES), (Sighting::PassedNow { waited: 30 }, Sighting::Passed));
        assert_eq!(row(1, 3).sightings(2, TIMES), (Sighting::Passed, Sighting::Passed));
        assert_eq!(row(1, ONLY_READ).sightings(1, TIMES), (Sighting::Passed, Sighting::Passed));
    }

    #[test]
    fn times_stay_in_bounds_when_clocks_jump() {
        let row = Row { first_seen: 50, now: 0, tries: 2, passes: 0, expires: 1000 };
        assert_eq!(row.sightings(1, TIMES).0, Sighting::Early { left: 100 });
        let longer = Row { first_seen: 0, now: 500, tries: 2, passes: 0, expires: 1000 };
        assert_eq!(longer.sightings(1, TIMES).0, Sighting::Early { left: 1 });
    }
}
