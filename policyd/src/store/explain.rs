// SPDX-License-Identifier: GPL-3.0-or-later
//! Decisions that are kept to be explained: written in batches behind the back of the requests, read by the administrator's command.
//!
//! Nobody waits for these rows. When the store is away or slow, or more come than can be written, they are dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use sqlx::{FromRow, Postgres, Sqlite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batches::{self, CLEAN_BATCH, Rows};
use super::health::Health;
use super::{Connection, timely};
use crate::explain::{Explained, Key};

/// Decisions that may wait to be written.
const WAITING: usize = 1024;
/// From this size on a pool has a connection to spare.
const SPARE_FROM: u32 = 8;
/// Before the first round of cleaning: a daemon that has just started has other work.
const FIRST_CLEAN: Duration = Duration::from_secs(60);

/// Where decisions are put to be kept.
#[derive(Debug, Clone)]
pub struct Keeper(mpsc::Sender<Explained>);

impl Keeper {
    /// A keeper, and the work of writing, which ends when `stop` is cancelled.
    pub fn new(
        store: &Store,
        health: &Arc<Health>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let writer = Writer { store: store.clone(), health: health.clone(), connection: None };
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

    /// Keeps a decision, if there is room.
    pub fn keep(&self, decision: Explained) {
        if self.0.try_send(decision).is_err() {
            dropped(1);
        }
    }
}

fn dropped(decisions: usize) {
    metrics::counter!("octroi_policyd_explain_dropped_total").increment(decisions as u64);
}

struct Writer {
    store: Store,
    health: Arc<Health>,
    connection: Option<Connection>,
}

impl Rows for Writer {
    type Row = Explained;

    async fn write(&mut self, batch: Vec<Explained>) {
        let number = batch.len();
        if number == 0 {
            return;
        }
        let written = timely(async {
            let mut connection = self.connect().await?;
            write(&mut connection, &batch).await?;
            Ok(connection)
        });
        match written.await {
            Ok(connection) => self.put_back(connection),
            Err(error) => {
                tracing::debug!(%error, decisions = number, "decisions to be explained are lost");
                dropped(number);
            }
        }
    }

    async fn clean(&mut self) -> Option<u64> {
        let cleaned = timely(async {
            let mut connection = self.connect().await?;
            let deleted = clean(&mut connection, CLEAN_BATCH).await?;
            Ok((connection, deleted))
        });
        let (connection, deleted) = cleaned.await.ok()?;
        self.put_back(connection);
        Some(deleted)
    }
}

impl Writer {
    /// Keeps a connection for the next batch, which saves making one; not from a small pool, where others need it more.
    fn put_back(&mut self, connection: Connection) {
        if matches!(&self.store, Store::Postgres(pool) if pool.options().get_max_connections() >= SPARE_FROM) {
            self.connection = Some(connection);
        }
    }

    /// The connection at hand, or a new one. It is put back only after it has served.
    async fn connect(&mut self) -> Result<Connection, StoreError> {
        let connection = self.connection.take();
        match connection {
            _ if !self.health.is_up() => Err(StoreError::Unavailable("it counts as down".to_owned())),
            Some(connection) => Ok(connection),
            None => Connection::acquire_losable(&self.store).await,
        }
    }
}

macro_rules! columns {
    () => {
        "id, at, host, verdict, reason, state, client, client_name, helo, sender, recipient, instance, \
        key_client, key_sender, key_recipient, system, left_ms, waited_ms, trace, expires, delay_ms"
    };
}

const WRITE_POSTGRES: &str = concat!(
    "insert into explain (",
    columns!(),
    ") select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], \
    $18::bigint[], $19::text[], $20::bigint[], $21::bigint[]) on conflict do nothing"
);

const WRITE_SQLITE: &str = concat!(
    "insert into explain (",
    columns!(),
    ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) on conflict do nothing"
);

async fn write(connection: &mut Connection, decisions: &[Explained]) -> Result<(), StoreError> {
    match connection {
        Connection::Postgres(connection) => {
            let text = |part: fn(&Explained) -> &str| decisions.iter().map(part).collect::<Vec<&str>>();
            let number = |part: fn(&Explained) -> i64| decisions.iter().map(part).collect::<Vec<i64>>();
            let maybe = |part: fn(&Explained) -> Option<i64>| decisions.iter().map(part).collect::<Vec<Option<i64>>>();
            sqlx::query::<Postgres>(WRITE_POSTGRES)
                .bind(number(|one| one.id))
                .bind(number(|one| one.at))
                .bind(text(|one| &one.host))
                .bind(text(|one| &one.verdict))
                .bind(text(|one| &one.reason))
                .bind(text(|one| &one.state))
                .bind(text(|one| &one.client))
                .bind(text(|one| &one.client_name))
                .bind(text(|one| &one.helo))
                .bind(text(|one| &one.sender))
                .bind(text(|one| &one.recipient))
                .bind(text(|one| &one.instance))
                .bind(text(|one| &one.key.client))
                .bind(text(|one| &one.key.sender))
                .bind(text(|one| &one.key.recipient))
                .bind(text(|one| &one.system))
                .bind(maybe(|one| one.left))
                .bind(maybe(|one| one.waited))
                .bind(text(|one| &one.trace))
                .bind(number(|one| one.expires))
                .bind(maybe(|one| one.delay))
                .execute(&mut **connection)
                .await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for one in decisions {
                let query = sqlx::query::<Sqlite>(WRITE_SQLITE)
                    .bind(one.id)
                    .bind(one.at)
                    .bind(&one.host)
                    .bind(&one.verdict)
                    .bind(&one.reason)
                    .bind(&one.state)
                    .bind(&one.client)
                    .bind(&one.client_name)
                    .bind(&one.helo)
                    .bind(&one.sender)
                    .bind(&one.recipient)
                    .bind(&one.instance)
                    .bind(&one.key.client)
                    .bind(&one.key.sender)
                    .bind(&one.key.recipient)
                    .bind(&one.system)
                    .bind(one.left)
                    .bind(one.waited)
                    .bind(&one.trace)
                    .bind(one.expires)
                    .bind(one.delay);
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

const CLEAN_POSTGRES: &str = "delete from explain where id = any (array( \
    select id from explain where expires <= (extract(epoch from clock_timestamp()) * 1000)::bigint \
    order by expires limit $1 for update skip locked))";

const CLEAN_SQLITE: &str = "delete from explain where id in ( \
    select id from explain where expires <= cast(unixepoch('subsec') * 1000 as integer) order by expires limit $1)";

/// Deletes up to `most` expired rows; several hosts may do so at once and do not wait for each other.
async fn clean(connection: &mut Connection, most: i64) -> Result<u64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query(CLEAN_POSTGRES).bind(most).execute(&mut **connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            sqlx::query(CLEAN_SQLITE).bind(most).execute(&mut **connection).await?.rows_affected()
        }
    })
}

#[derive(FromRow)]
struct Row {
    id: i64,
    at: i64,
    host: String,
    verdict: String,
    reason: String,
    state: String,
    client: String,
    client_name: String,
    helo: String,
    sender: String,
    recipient: String,
    instance: String,
    key_client: String,
    key_sender: String,
    key_recipient: String,
    system: String,
    left_ms: Option<i64>,
    waited_ms: Option<i64>,
    trace: String,
    expires: i64,
    delay_ms: Option<i64>,
}

impl From<Row> for Explained {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            host: row.host,
            verdict: row.verdict,
            reason: row.reason,
            state: row.state,
            client: row.client,
            client_name: row.client_name,
            helo: row.helo,
            sender: row.sender,
            recipient: row.recipient,
            instance: row.instance,
            key: Key { client: row.key_client, sender: row.key_sender, recipient: row.key_recipient },
            system: row.system,
            left: row.left_ms,
            waited: row.waited_ms,
            trace: row.trace,
            expires: row.expires,
            delay: row.delay_ms,
        }
    }
}

/// The decision of this id, if it is still kept.
pub async fn find(connection: &mut Connection, id: i64) -> Result<Option<Explained>, StoreError> {
    const FIND: &str = concat!("select ", columns!(), " from explain where id = $1");
    let row: Option<Row> = match connection {
        Connection::Postgres(connection) => sqlx::query_as(FIND).bind(id).fetch_optional(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(FIND).bind(id).fetch_optional(&mut **connection).await?,
    };
    Ok(row.map(Explained::from))
}

/// What the greylist knows of a key now; times in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Known {
    /// First try of this waiting time.
    pub first_seen: i64,
    /// Latest try that was written.
    pub last_seen: i64,
    /// Tries before it passed.
    pub tries: i64,
    /// 0 while it waits.
    pub passes: i64,
    /// Forgotten from then on.
    pub expires: i64,
}

/// What the greylist knows of a key.
pub async fn known(connection: &mut Connection, key: &Key) -> Result<Option<Known>, StoreError> {
    const KNOWN: &str = "select first_seen, last_seen, tries, passes, expires from greylist \
        where client = $1 and sender = $2 and recipient = $3";
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_as(KNOWN).bind(&key.client).bind(&key.sender).bind(&key.recipient);
            query.fetch_optional(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_as(KNOWN).bind(&key.client).bind(&key.sender).bind(&key.recipient);
            query.fetch_optional(&mut **connection).await?
        }
    })
}

/// $1 $2 $3 key, $4 the first try as it is made out to have been, $5 now, $6 when it is forgotten unless it comes again.
const ALLOW: &str = "insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    values ($1, $2, $3, $4, $5, 1, 0, $6) \
    on conflict (client, sender, recipient) do update set \
        first_seen = case \
            when g.expires > $5 and (g.passes > 0 or g.first_seen < $4) then g.first_seen else excluded.first_seen end, \
        tries = case when g.expires > $5 then g.tries else 1 end, \
        passes = case when g.expires > $5 then g.passes else 0 end, \
        expires = case when g.expires > $6 then g.expires else $6 end";

/// Makes the next try of a key pass: as if it had waited for `delay` already; `retry_window` is the time it has for it. The rest is the
/// daemon's, so that exactly one first pass is counted.
pub async fn allow(
    connection: &mut Connection,
    key: &Key,
    now: i64,
    delay: i64,
    retry_window: i64,
) -> Result<(), StoreError> {
    let (first_seen, expires) = (now.saturating_sub(delay), now.saturating_add(retry_window));
    match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query(ALLOW).bind(&key.client).bind(&key.sender).bind(&key.recipient);
            query.bind(first_seen).bind(now).bind(expires).execute(&mut **connection).await?;
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query(ALLOW).bind(&key.client).bind(&key.sender).bind(&key.recipient);
            query.bind(first_seen).bind(now).bind(expires).execute(&mut **connection).await?;
        }
    }
    Ok(())
}

/// What greylisting did to the triplets of one sender system, or of all.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Cost {
    /// The system; empty for all together.
    pub system: String,
    /// Triplets that were told to come again.
    pub triplets: i64,
    /// Of them, those that passed.
    pub came: i64,
    /// Of them, those that never came back.
    pub gone: i64,
    /// Replies "come again".
    pub deferrals: i64,
    /// Median of what those that passed had waited, in milliseconds.
    pub median: Option<i64>,
    /// 95 of 100 had waited at most so long, in milliseconds.
    pub p95: Option<i64>,
}

/// $1 since when, $2 who has not come since then never came back, $3 how many systems.
macro_rules! costs {
    ($system:literal) => {
        concat!(
            "with seen as ( \
                select ",
            $system,
            " as system, key_client, key_sender, key_recipient, min(at) as first_at, min(waited_ms) as waited, \
                    sum(case when waited_ms is null then 1 else 0 end) as deferrals \
                from explain where key_client <> '' and at >= $1 group by key_client, key_sender, key_recipient \
            ), judged as ( \
                select system, first_at, waited, deferrals, \
                    case when waited is not null or exists ( \
                        select 1 from greylist as g where g.client = key_client and g.sender = key_sender \
                            and g.recipient = key_recipient and g.passes > 0) then 1 else 0 end as came, \
                    row_number() over (partition by system order by waited is null, waited) as n, \
                    count(waited) over (partition by system) as timed \
                from seen \
            ) \
            select system, cast(count(*) as bigint) as triplets, cast(sum(came) as bigint) as came, \
                cast(sum(case when came = 0 and first_at < $2 then 1 else 0 end) as bigint) as gone, \
                cast(sum(deferrals) as bigint) as deferrals, \
                max(case when n = (timed + 1) / 2 then waited end) as median, \
                max(case when n = (timed * 95 + 99) / 100 then waited end) as p95 \
            from judged group by system order by gone desc, triplets desc, system limit $3"
        )
    };
}

/// What greylisting did since `since`, to all sender systems together and to those it stopped most; a triplet whose first try was
/// before `gone_before` and that has not passed never came back.
pub async fn costs(
    connection: &mut Connection,
    since: i64,
    gone_before: i64,
    most: i64,
) -> Result<(Option<Cost>, Vec<Cost>), StoreError> {
    const TOTAL: &str = costs!("''");
    const SYSTEMS: &str = costs!("max(system)");
    Ok(match connection {
        Connection::Postgres(connection) => {
            // Reading takes as long as it takes.
            sqlx::query("set statement_timeout = 0").execute(&mut **connection).await?;
            let total = sqlx::query_as(TOTAL).bind(since).bind(gone_before).bind(1_i64);
            let total = total.fetch_optional(&mut **connection).await?;
            let systems = sqlx::query_as(SYSTEMS).bind(since).bind(gone_before).bind(most);
            (total, systems.fetch_all(&mut **connection).await?)
        }
        Connection::Sqlite(connection) => {
            let total = sqlx::query_as(TOTAL).bind(since).bind(gone_before).bind(1_i64);
            let total = total.fetch_optional(&mut **connection).await?;
            let systems = sqlx::query_as(SYSTEMS).bind(since).bind(gone_before).bind(most);
            (total, systems.fetch_all(&mut **connection).await?)
        }
    })
}
