// SPDX-License-Identifier: GPL-3.0-or-later
//! Answers of DNS lists in the store, so that one host of a farm asks for all: the statements, and the worker before them.
//!
//! A cache and nothing else: reads have a short time and no answer means "ask DNS", writes are gathered and dropped when there are too many or the
//! store is away. The clock is the database's.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::store::{Store, StoreError};
use sqlx::{Postgres, Sqlite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Connection;
use super::health::Health;

/// Jobs that may wait; more are not done.
const WAITING: usize = 4096;
/// Jobs in one batch.
const BATCH: usize = 512;
/// How long answers gather before they are written.
const GATHER: Duration = Duration::from_millis(100);
/// Time for one statement.
const STATEMENT_TIME: Duration = Duration::from_secs(2);
/// After a read that got no answer in time none is asked for so long.
const QUIET: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is given back.
const IDLE: Duration = Duration::from_secs(10);
/// Pause between two rounds of cleaning, and between two batches of one round.
const CLEAN_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));
/// Expired rows deleted in one transaction.
const CLEAN_BATCH: i64 = 1000;
/// Rows in the table at most; while there are more nothing is written.
const ROWS: i64 = 500_000;
/// Longer keys are not kept.
const KEY: usize = 300;

/// A key, its records, and how long they may be remembered still.
pub type Kept = (String, Vec<Ipv4Addr>, Duration);

#[derive(Debug)]
enum Job {
    Read { keys: Vec<String>, reply: oneshot::Sender<Vec<Kept>> },
    Write { key: String, answer: String, keep: i64 },
    Forget { list: String },
}

/// The way to the shared answers.
#[derive(Debug, Clone)]
pub struct DnsCache {
    entrance: mpsc::Sender<Job>,
    health: Arc<Health>,
    quiet_until: Arc<Mutex<Option<Instant>>>,
}

impl DnsCache {
    /// A cache, and the work behind it, which ends when `stop` is cancelled. It takes no connection before the first job.
    pub fn new(
        store: &Store,
        health: &Arc<Health>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entrance, jobs) = mpsc::channel(WAITING);
        let worker = Worker { store: store.clone(), health: health.clone(), connection: None, full: false };
        let cache = Self { entrance, health: health.clone(), quiet_until: Arc::default() };
        (cache, worker.run(jobs, stop.clone()))
    }

    /// What the store has of these keys; none without an answer until `until`.
    pub async fn read(&self, keys: Vec<String>, until: Instant) -> Option<Vec<Kept>> {
        let quiet = self.quiet().is_some_and(|quiet| Instant::now() < quiet);
        if !self.health.is_up() || quiet {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.entrance.try_send(Job::Read { keys, reply }).ok()?;
        match tokio::time::timeout_at(until, answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                failed("late");
                *self.quiet() = Some(Instant::now() + QUIET);
                None
            }
        }
    }

    /// Shares an answer for `keep`. Nobody waits for it.
    pub fn write(&self, key: String, records: &[Ipv4Addr], keep: Duration) {
        if key.len() > KEY || !self.health.is_up() {
            return;
        }
        let answer = records.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(" ");
        let keep = i64::try_from(keep.as_millis()).unwrap_or_default();
        self.send(Job::Write { key, answer, keep });
    }

    /// Forgets all answers of a list.
    pub fn forget(&self, list: &str) {
        self.send(Job::Forget { list: list.to_owned() });
    }

    fn send(&self, job: Job) {
        if self.entrance.try_send(job).is_err() {
            failed("full");
        }
    }

    fn quiet(&self) -> MutexGuard<'_, Option<Instant>> {
        // A panic of another thread leaves nothing half done here.
        self.quiet_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn failed(why: &'static str) {
    metrics::counter!("octroi_policyd_dns_cache_failures_total", "error" => why).increment(1);
}

struct Worker {
    store: Store,
    health: Arc<Health>,
    connection: Option<Connection>,
    /// More rows than there should be.
    full: bool,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut writes = Vec::new();
        let (mut used, mut clean_at, mut write_at) = (false, Instant::now() + CLEAN_PAUSES.0, None);
        loop {
            let idle = Instant::now() + IDLE;
            tokio::select! {
                taken = jobs.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    used = true;
                    self.reads(&mut batch, &mut writes).await;
                    if !writes.is_empty() && write_at.is_none() {
                        write_at = Some(Instant::now() + GATHER);
                    }
                }
                () = tokio::time::sleep_until(write_at.unwrap_or(idle)), if write_at.is_some() => {}
                () = tokio::time::sleep_until(clean_at), if used => {
                    clean_at = Instant::now() + self.clean().await;
                }
                () = tokio::time::sleep_until(idle), if self.connection.is_some() => self.connection = None,
                () = stop.cancelled() => return,
            }
            if write_at.is_some_and(|at| at <= Instant::now()) {
                write_at = None;
                self.writes(std::mem::take(&mut writes)).await;
            }
        }
    }

    /// Answers the reads of a batch with one statement; what is to be written waits.
    async fn reads(&mut self, batch: &mut Vec<Job>, writes: &mut Vec<Job>) {
        let mut readers = Vec::new();
        for job in batch.drain(..) {
            match job {
                Job::Read { keys, reply } => readers.push((keys, reply)),
                job if writes.len() < WAITING => writes.push(job),
                _ => failed("full"),
            }
        }
        let mut keys: Vec<String> = readers.iter().flat_map(|(keys, _)| keys.iter().cloned()).collect();
        if keys.is_empty() {
            return;
        }
        keys.sort_unstable();
        keys.dedup();
        let Some(found) = self.attempt(async |connection| read(connection, &keys).await).await else { return };
        for (keys, reply) in readers {
            // The asker may have gone meanwhile.
            let _ = reply.send(found.iter().filter(|(key, ..)| keys.contains(key)).cloned().collect());
        }
    }

    async fn writes(&mut self, jobs: Vec<Job>) {
        let (mut rows, mut lists) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Write { key, answer, keep } if !self.full => rows.push((key, answer, keep)),
                // What was written before is forgotten with the rest.
                Job::Forget { list } => {
                    rows.retain(|(key, ..)| !key.starts_with(&format!("{list} ")));
                    lists.push(list);
                }
                Job::Write { .. } | Job::Read { .. } => {}
            }
        }
        rows.sort_unstable();
        rows.dedup_by(|later, first| later.0 == first.0);
        self.attempt(async |connection| {
            for list in &lists {
                forget(connection, list).await?;
            }
            if rows.is_empty() { Ok(()) } else { write(connection, &rows).await }
        })
        .await;
    }

    async fn clean(&mut self) -> Duration {
        let cleaned = self.attempt(async |connection| Ok((clean(connection).await?, rows(connection).await?))).await;
        let Some((deleted, rows)) = cleaned else { return CLEAN_PAUSES.0 };
        let full = rows >= ROWS;
        if full && !self.full {
            tracing::warn!(
                rows,
                "the shared answers of DNS lists are full; new ones stay on each host until some expire"
            );
        }
        self.full = full;
        if deleted >= CLEAN_BATCH as u64 { CLEAN_PAUSES.1 } else { CLEAN_PAUSES.0 }
    }

    /// Does something with the connection, which is kept only when all went well.
    async fn attempt<T>(&mut self, work: impl AsyncFnOnce(&mut Connection) -> Result<T, StoreError>) -> Option<T> {
        if !self.health.is_up() {
            self.connection = None;
            return None;
        }
        let taken = self.connection.take();
        let done = tokio::time::timeout(STATEMENT_TIME, async {
            let mut connection = match taken {
                Some(connection) => connection,
                None => Connection::acquire_losable(&self.store).await?,
            };
            let result = work(&mut connection).await?;
            Ok::<_, StoreError>((connection, result))
        });
        match done.await {
            Ok(Ok((connection, result))) => {
                self.connection = Some(connection);
                return Some(result);
            }
            Ok(Err(error)) => tracing::debug!(%error, "the shared answers of DNS lists cannot be used"),
            Err(_) => tracing::debug!("the shared answers of DNS lists cannot be used in time"),
        }
        failed("store");
        None
    }
}

/// $1 keys.
const READ_POSTGRES: &str = "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
    select c.key, c.answer, c.expires - clock.now from clock cross join dns_cache as c \
    where c.key = any ($1::text[]) and c.expires > clock.now";

/// $1 key.
const READ_SQLITE: &str = "select c.key, c.answer, c.expires - clock.now from dns_cache as c, \
    (select cast(unixepoch('subsec') * 1000 as integer) as now) as clock \
    where c.key = $1 and c.expires > clock.now";

/// The newer answer counts.
macro_rules! newer {
    () => {
        "on conflict (key) do update set answer = excluded.answer, expires = excluded.expires"
    };
}

/// $1 keys, $2 answers, $3 keeps. Rows are locked in the order of their keys.
const WRITE_POSTGRES: &str = concat!(
    "with clock as materialized (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) \
    insert into dns_cache as c (key, answer, expires) select k.key, k.answer, clock.now + k.keep \
    from unnest($1::text[], $2::text[], $3::bigint[]) as k (key, answer, keep) cross join clock \
    order by k.key collate \"C\" ",
    newer!(),
);

/// $1 key, $2 answer, $3 keep.
const WRITE_SQLITE: &str = concat!(
    "insert into dns_cache (key, answer, expires) \
    values ($1, $2, cast(unixepoch('subsec') * 1000 as integer) + $3) ",
    newer!(),
);

/// $1 the first key of a list, $2 what comes behind all of them.
const FORGET: &str = "delete from dns_cache where key >= $1 and key < $2";

/// $1 how many at most.
const CLEAN_POSTGRES: &str = "delete from dns_cache where key = any (array( \
    select key from dns_cache where expires <= (extract(epoch from clock_timestamp()) * 1000)::bigint \
    order by expires limit $1 for update skip locked))";

/// $1 how many at most.
const CLEAN_SQLITE: &str = "delete from dns_cache where key in ( \
    select key from dns_cache where expires <= cast(unixepoch('subsec') * 1000 as integer) order by expires limit $1)";

/// $1 how many matter.
const COUNT: &str = "select count(*) from (select 1 from dns_cache limit $1) as some_rows";

async fn read(connection: &mut Connection, keys: &[String]) -> Result<Vec<Kept>, StoreError> {
    let rows: Vec<(String, String, i64)> = match connection {
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
    };
    let kept = |(key, answer, left): (String, String, i64)| {
        // A row that we cannot read is none.
        let records = answer.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>().ok()?;
        Some((key, records, Duration::from_millis(u64::try_from(left).ok()?)))
    };
    Ok(rows.into_iter().filter_map(kept).collect())
}

async fn write(connection: &mut Connection, rows: &[(String, String, i64)]) -> Result<(), StoreError> {
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query::<Postgres>(WRITE_POSTGRES)
                .bind(rows.iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, answer, _)| answer.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(.., keep)| *keep).collect::<Vec<_>>())
                .execute(&mut **connection)
                .await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for (key, answer, keep) in rows {
                let query = sqlx::query::<Sqlite>(WRITE_SQLITE).bind(key).bind(answer).bind(keep);
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

async fn forget(connection: &mut Connection, list: &str) -> Result<(), StoreError> {
    // "!" is behind the blank.
    let (first, end) = (format!("{list} "), format!("{list}!"));
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query::<Postgres>(FORGET).bind(first).bind(end).execute(&mut **connection).await.map(drop)?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query::<Sqlite>(FORGET).bind(first).bind(end).execute(&mut **connection).await.map(drop)?;
        }
    }
    Ok(())
}

async fn clean(connection: &mut Connection) -> Result<u64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query::<Postgres>(CLEAN_POSTGRES).bind(CLEAN_BATCH).execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            sqlx::query::<Sqlite>(CLEAN_SQLITE).bind(CLEAN_BATCH).execute(&mut **connection).await?.rows_affected()
        }
    })
}

async fn rows(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => sqlx::query_scalar(COUNT).bind(ROWS).fetch_one(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_scalar(COUNT).bind(ROWS).fetch_one(&mut **connection).await?,
    })
}
