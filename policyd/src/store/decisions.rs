// SPDX-License-Identifier: GPL-3.0-or-later
//! The log of decisions in the store: written in batches behind the back of the requests, only ever appended to, forgotten by the day.
//!
//! On PostgreSQL each day (UTC) is a partition: the hosts make those of the next days ahead, one of them at a time, and drop old ones whole, so
//! that forgetting leaves no dead rows. SQLite deletes in batches. What cannot be written is dropped and counted.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, FromRow, Postgres, Sqlite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batches::{self, CLEAN_BATCH, Rows};
use super::health::Health;
use super::{Connection, timely};
use crate::policy::Live;

/// Decisions that may wait to be written.
const WAITING: usize = 4096;
/// Before the first round of cleaning: a daemon that has just started has other work.
const FIRST_CLEAN: Duration = Duration::from_secs(30);
/// One day in milliseconds.
const DAY: i64 = 86_400_000;
/// Partitions that are there before they are needed.
const DAYS_AHEAD: i64 = 2;
/// Key of the advisory lock under which partitions are made and dropped: "octroi" and a number, in ASCII.
const PARTITION_LOCK: i64 = 0x6f63_7472_6f69_0011;

/// One decision. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Logged {
    /// When.
    pub at: i64,
    /// Handle in replies and log.
    pub id: i64,
    /// Host that decided.
    pub host: String,
    /// Address of the client.
    pub client: String,
    /// Its confirmed name.
    pub client_name: String,
    /// What it called itself.
    pub helo: String,
    /// Envelope sender; empty: the null sender.
    pub sender: String,
    /// Envelope recipient.
    pub recipient: String,
    /// Postfix' instance.
    pub instance: String,
    /// Queue id.
    pub queue_id: String,
    /// Protocol state.
    pub state: String,
    /// The check that decided.
    pub decided_by: String,
    /// The verdict's word.
    pub verdict: String,
    /// The reason's word.
    pub reason: String,
    /// What is behind it.
    pub fact: String,
    /// Microseconds that it took.
    pub took_us: i64,
}

/// Where decisions are put to be logged.
#[derive(Debug, Clone)]
pub struct DecisionLog(mpsc::Sender<Logged>);

impl DecisionLog {
    /// The log, and the work of writing, which ends when `stop` is cancelled.
    pub fn new(
        store: &Store,
        live: &Arc<Live>,
        health: &Arc<Health>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let writer = Writer { store: store.clone(), live: live.clone(), health: health.clone(), made_until: 0 };
        let stop = stop.clone();
        (Self(entrance), async move { batches::run(writer, waiting, FIRST_CLEAN, &stop).await })
    }

    /// True when there is room for one more; else it counts as dropped.
    pub fn has_room(&self) -> bool {
        let room = self.0.capacity() > 0;
        if !room {
            dropped(1);
        }
        room
    }

    /// Logs a decision, if there is room.
    pub fn add(&self, decision: Logged) {
        if self.0.try_send(decision).is_err() {
            dropped(1);
        }
    }
}

fn dropped(decisions: usize) {
    metrics::counter!("octroi_policyd_decision_log_dropped_total").increment(decisions as u64);
}

struct Writer {
    store: Store,
    live: Arc<Live>,
    health: Arc<Health>,
    /// Partitions are there up to this moment.
    made_until: i64,
}

impl Rows for Writer {
    type Row = Logged;

    async fn write(&mut self, batch: Vec<Logged>) {
        let number = batch.len();
        if number == 0 {
            return;
        }
        let (until, needed) = (self.made_until, batch.iter().map(|one| one.at).max().unwrap_or_default());
        let written = timely(async {
            let mut connection = self.connect().await?;
            let until = match needed < until {
                true => until,
                false => make_ahead(&mut connection, now()).await?,
            };
            write(&mut connection, &batch).await?;
            Ok(until)
        });
        match written.await {
            Ok(until) => self.made_until = until,
            Err(error) => {
                tracing::debug!(%error, decisions = number, "decisions are missing in the decision log");
                dropped(number);
            }
        }
    }

    async fn clean(&mut self) -> Option<u64> {
        let before = now().saturating_sub(self.live.current().settings.decision_log.keep.as_millis());
        let cleaned = timely(async {
            let mut connection = self.connect().await?;
            clean(&mut connection, before).await
        });
        match cleaned.await {
            Ok(deleted) => Some(deleted),
            Err(error) => {
                tracing::warn!(%error, "old decisions could not be deleted");
                None
            }
        }
    }
}

impl Writer {
    async fn connect(&self) -> Result<Connection, StoreError> {
        match self.health.is_up() {
            true => Connection::acquire_losable(&self.store).await,
            false => Err(StoreError::Unavailable("it counts as down".to_owned())),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Makes the partitions from yesterday (a clock may be behind) to two days ahead, and gives the moment up to which they are there.
pub async fn make_ahead(connection: &mut Connection, now: i64) -> Result<i64, StoreError> {
    let Connection::Postgres(connection) = connection else { return Ok(i64::MAX) };
    let today = now.div_euclid(DAY);
    let there = partitions(connection).await?;
    let missing: Vec<i64> = (today - 1..=today + DAYS_AHEAD).filter(|day| !there.contains(day)).collect();
    if !missing.is_empty() {
        let mut transaction = sqlx::Connection::begin(&mut **connection).await?;
        sqlx::raw_sql("set local lock_timeout = '2s'").execute(&mut *transaction).await?;
        // Two hosts that make the same table at once would disturb each other.
        sqlx::query("select pg_advisory_xact_lock($1)").bind(PARTITION_LOCK).execute(&mut *transaction).await?;
        for day in missing {
            let (from, to) = (day * DAY, (day + 1) * DAY);
            let make = format!(
                "create table if not exists decision_log_d{day} partition of decision_log for values from ({from}) to ({to})"
            );
            sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    Ok((today + DAYS_AHEAD) * DAY)
}

/// The days, counted from 1970, that have a partition.
async fn partitions(connection: &mut PoolConnection<Postgres>) -> Result<Vec<i64>, StoreError> {
    const NAMES: &str = "select child.relname::text from pg_inherits \
        join pg_class child on child.oid = inhrelid where inhparent = 'decision_log'::regclass";
    let names: Vec<String> = sqlx::query_scalar(NAMES).fetch_all(&mut **connection).await?;
    Ok(names.iter().filter_map(|name| name.strip_prefix("decision_log_d")?.parse().ok()).collect())
}

/// Forgets decisions made before that moment: on PostgreSQL whole days, by one host at a time. Gives how many rows went, as far as they are
/// counted.
pub async fn clean(connection: &mut Connection, before: i64) -> Result<u64, StoreError> {
    match connection {
        Connection::Postgres(connection) => drop_days(connection, before.div_euclid(DAY)).await.map(|()| 0),
        Connection::Sqlite(connection) => {
            const CLEAN: &str = "delete from decision_log where rowid in ( \
                select rowid from decision_log where at < $1 order by at limit $2)";
            let deleted = sqlx::query(CLEAN).bind(before).bind(CLEAN_BATCH).execute(&mut **connection).await?;
            Ok(deleted.rows_affected())
        }
    }
}

async fn drop_days(connection: &mut PoolConnection<Postgres>, first: i64) -> Result<(), StoreError> {
    for day in partitions(connection).await?.into_iter().filter(|day| *day < first) {
        let mut transaction = sqlx::Connection::begin(&mut **connection).await?;
        sqlx::raw_sql("set local lock_timeout = '2s'").execute(&mut *transaction).await?;
        let elected = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(PARTITION_LOCK);
        if !elected.fetch_one(&mut *transaction).await? {
            return Ok(());
        }
        sqlx::raw_sql(AssertSqlSafe(format!("drop table if exists decision_log_d{day}")))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        tracing::info!(day, "decisions of a day have been forgotten");
    }
    Ok(())
}

macro_rules! columns {
    () => {
        "at, id, host, client, client_name, helo, sender, recipient, instance, queue_id, state, decided_by, verdict, reason, fact, took_us"
    };
}

const WRITE_POSTGRES: &str = concat!(
    "insert into decision_log (",
    columns!(),
    ") select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bigint[])"
);

const WRITE_SQLITE: &str = concat!(
    "insert into decision_log (",
    columns!(),
    ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
);

/// The texts of a decision, in the order of the columns.
const TEXTS: [fn(&Logged) -> &str; 13] = [
    |one| &one.host,
    |one| &one.client,
    |one| &one.client_name,
    |one| &one.helo,
    |one| &one.sender,
    |one| &one.recipient,
    |one| &one.instance,
    |one| &one.queue_id,
    |one| &one.state,
    |one| &one.decided_by,
    |one| &one.verdict,
    |one| &one.reason,
    |one| &one.fact,
];

/// Appends decisions.
pub async fn write(connection: &mut Connection, decisions: &[Logged]) -> Result<(), StoreError> {
    match connection {
        Connection::Postgres(connection) => {
            let number = |part: fn(&Logged) -> i64| decisions.iter().map(part).collect::<Vec<i64>>();
            let mut query =
                sqlx::query::<Postgres>(WRITE_POSTGRES).bind(number(|one| one.at)).bind(number(|one| one.id));
            for text in TEXTS {
                query = query.bind(decisions.iter().map(text).collect::<Vec<&str>>());
            }
            query.bind(number(|one| one.took_us)).execute(&mut **connection).await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for one in decisions {
                let mut query = sqlx::query::<Sqlite>(WRITE_SQLITE).bind(one.at).bind(one.id);
                for text in TEXTS {
                    query = query.bind(text(one));
                }
                query.bind(one.took_us).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// Which decisions are asked for; what is none is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// This one.
    pub id: Option<i64>,
    /// Those about this client's address.
    pub client: Option<String>,
    /// Those about this sender; empty: the null sender.
    pub sender: Option<String>,
    /// Those about this recipient.
    pub recipient: Option<String>,
    /// Those from this moment on.
    pub since: i64,
    /// Not more than so many.
    pub most: i64,
}

/// The decisions that fit, the latest first.
pub async fn find(connection: &mut Connection, question: &Question) -> Result<Vec<Logged>, StoreError> {
    const FIND: &str = concat!(
        "select ",
        columns!(),
        " from decision_log where at >= $1 and ($2 is null or id = $2) and ($3 is null or client = $3) \
        and ($4 is null or sender = $4) and ($5 is null or recipient = $5) order by at desc, id limit $6"
    );
    let Question { id, client, sender, recipient, since, most } = question;
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_as(FIND).bind(since).bind(id).bind(client).bind(sender).bind(recipient).bind(most);
            query.fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_as(FIND).bind(since).bind(id).bind(client).bind(sender).bind(recipient).bind(most);
            query.fetch_all(&mut **connection).await?
        }
    })
}
