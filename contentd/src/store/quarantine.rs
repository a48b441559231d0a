// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of the quarantine's index: what is there, for whom, and who may release it now. No files here (`crate::quarantine`).
//!
//! A release takes its recipients with one conditional update each, under the row's lock: of two that begin at once, on whatever
//! hosts, one gets a recipient and the other does not.

use common::store::{Store, StoreError};
use sqlx::{Connection as _, FromRow};

use super::{durably, now, on_either};

/// One message in the quarantine. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Entry {
    /// The message's id.
    pub id: String,
    /// When it was taken in.
    pub at: i64,
    /// The host that has the file.
    pub host: String,
    /// The category's word.
    pub category: String,
    /// The reason's word.
    pub reason: String,
    /// What was found.
    pub detail: String,
    /// Address of the client.
    pub client: String,
    /// Envelope sender; empty: the null sender.
    pub sender: String,
    /// The sender as MAIL had it, with parameters.
    pub sender_path: String,
    /// Bytes of the message.
    pub size: i64,
    /// Bytes of the file.
    pub stored: i64,
    /// SHA-256 of the message, hexadecimal.
    pub digest: String,
    /// When it may be deleted.
    pub expires: i64,
}

/// One recipient of a message in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Recipient {
    /// Place among the recipients, from 0.
    pub position: i64,
    /// Address.
    pub address: String,
    /// As RCPT had it, with parameters.
    pub path: String,
    /// `held`, `releasing` or `released`.
    pub state: String,
    /// When the state changed.
    pub changed: i64,
    /// The next hop's reply to the last release.
    pub reply: String,
}

/// A recipient waits.
pub const HELD: &str = "held";
/// A release has taken the recipient and not told how it ended.
pub const RELEASING: &str = "releasing";
/// The next hop has taken the message for the recipient.
pub const RELEASED: &str = "released";

const COLUMNS: &str =
    "id, at, host, category, reason, detail, client, sender, sender_path, size, stored, digest, expires";

/// Enters a message; it is on the disk of the store when this returns. Doing so twice does no harm.
pub async fn insert(store: &Store, entry: &Entry, recipients: &[(String, String)]) -> Result<(), StoreError> {
    const ENTRY: &str = "insert into quarantine \
        (id, at, host, category, reason, detail, client, sender, sender_path, size, stored, digest, expires) \
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) on conflict do nothing";
    const RECIPIENT: &str = "insert into quarantine_recipient (id, position, address, path, state, changed, reply) \
        values ($1, $2, $3, $4, 'held', $5, '') on conflict do nothing";
    durably!(store, |connection| {
        let mut transaction = connection.begin().await?;
        let insert = sqlx::query(ENTRY)
            .bind(&entry.id)
            .bind(entry.at)
            .bind(&entry.host)
            .bind(&entry.category)
            .bind(&entry.reason)
            .bind(&entry.detail)
            .bind(&entry.client)
            .bind(&entry.sender)
            .bind(&entry.sender_path)
            .bind(entry.size)
            .bind(entry.stored)
            .bind(&entry.digest)
            .bind(entry.expires);
        insert.execute(&mut *transaction).await?;
        for (position, (address, path)) in (0_i64..).zip(recipients) {
            let insert = sqlx::query(RECIPIENT).bind(&entry.id).bind(position).bind(address).bind(path).bind(entry.at);
            insert.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    });
    Ok(())
}

/// One message.
pub async fn find(store: &Store, id: &str) -> Result<Option<Entry>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("select {COLUMNS} from quarantine where id = $1"));
    Ok(on_either!(store, |pool| sqlx::query_as(query).bind(id).fetch_optional(pool).await?))
}

/// Its recipients, in their order.
pub async fn recipients(store: &Store, id: &str) -> Result<Vec<Recipient>, StoreError> {
    const READ: &str = "select position, address, path, state, changed, reply from quarantine_recipient \
        where id = $1 order by position";
    Ok(on_either!(store, |pool| sqlx::query_as(READ).bind(id).fetch_all(pool).await?))
}

/// What is asked of the list; an empty text asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Taken in at this moment or later.
    pub since: i64,
    /// The category or the reason, a word.
    pub why: String,
    /// Envelope sender; `<>` the null sender.
    pub sender: String,
    /// One of the recipients.
    pub recipient: String,
    /// The host that has it.
    pub host: String,
    /// At most so many, the newest.
    pub most: i64,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Listed {
    /// The message's id.
    pub id: String,
    /// When it was taken in.
    pub at: i64,
    /// The host that has the file.
    pub host: String,
    /// The category's word.
    pub category: String,
    /// The reason's word.
    pub reason: String,
    /// Envelope sender.
    pub sender: String,
    /// Bytes of the message.
    pub size: i64,
    /// The first recipient.
    pub recipient: String,
    /// How many recipients there are.
    pub recipients: i64,
    /// How many of them wait.
    pub held: i64,
    /// How many have got it.
    pub released: i64,
}

/// The messages that fit, the newest first.
pub async fn list(store: &Store, question: &Question) -> Result<Vec<Listed>, StoreError> {
    const LIST: &str = "select q.id, q.at, q.host, q.category, q.reason, q.sender, q.size, \
        max(case when r.position = 0 then r.address else '' end) as recipient, \
        count(*) as recipients, \
        cast(sum(case when r.state = 'held' then 1 else 0 end) as bigint) as held, \
        cast(sum(case when r.state = 'released' then 1 else 0 end) as bigint) as released \
        from quarantine as q join quarantine_recipient as r on r.id = q.id \
        where q.at >= $1 and ($2 = '' or q.category = $2 or q.reason = $2) \
        and ($3 = '' or lower(q.sender) = $3 or ($3 = '<>' and q.sender = '')) \
        and ($4 = '' or exists (select 1 from quarantine_recipient as o where o.id = q.id and lower(o.address) = $4)) \
        and ($5 = '' or q.host = $5) \
        group by q.id, q.at, q.host, q.category, q.reason, q.sender, q.size order by q.at desc limit $6";
    Ok(on_either!(store, |pool| {
        let query = sqlx::query_as(LIST).bind(question.since).bind(&question.why);
        let query = query.bind(question.sender.to_lowercase()).bind(question.recipient.to_lowercase());
        query.bind(&question.host).bind(question.most).fetch_all(pool).await?
    }))
}

/// Takes a recipient for a release, out of `from`; false when it is in another state, because somebody else was faster for one.
pub async fn take(store: &Store, id: &str, position: i64, from: &str) -> Result<bool, StoreError> {
    const TAKE: &str = "update quarantine_recipient set state = 'releasing', changed = $4 \
        where id = $1 and position = $2 and state = $3";
    let taken = durably!(store, |connection| {
        let take = sqlx::query(TAKE).bind(id).bind(position).bind(from).bind(now());
        take.execute(connection).await?.rows_affected()
    });
    Ok(taken > 0)
}

/// Says how a release ended for a recipient: it is `held` again, or `released`.
pub async fn settle(store: &Store, id: &str, position: i64, state: &str, reply: &str) -> Result<(), StoreError> {
    const SETTLE: &str = "update quarantine_recipient set state = $3, changed = $4, reply = $5 \
        where id = $1 and position = $2 and state = 'releasing'";
    durably!(store, |connection| {
        sqlx::query(SETTLE).bind(id).bind(position).bind(state).bind(now()).bind(reply).execute(connection).await?;
    });
    Ok(())
}

/// Forgets a message; false when there is none.
pub async fn remove(store: &Store, id: &str) -> Result<bool, StoreError> {
    const REMOVE: &str = "delete from quarantine where id = $1";
    Ok(on_either!(store, |pool| sqlx::query(REMOVE).bind(id).execute(pool).await?.rows_affected()) > 0)
}

/// A file of this host that may go.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Old {
    /// The message's id.
    pub id: String,
    /// When it was taken in.
    pub at: i64,
    /// Bytes of the file.
    pub stored: i64,
}

/// Messages of this host that have expired, the oldest first.
pub async fn expired(store: &Store, host: &str, now: i64, most: i64) -> Result<Vec<Old>, StoreError> {
    const EXPIRED: &str =
        "select id, at, stored from quarantine where host = $1 and expires <= $2 order by expires limit $3";
    Ok(on_either!(store, |pool| sqlx::query_as(EXPIRED).bind(host).bind(now).bind(most).fetch_all(pool).await?))
}

/// The oldest messages of this host.
pub async fn oldest(store: &Store, host: &str, most: i64) -> Result<Vec<Old>, StoreError> {
    const OLDEST: &str = "select id, at, stored from quarantine where host = $1 order by at limit $2";
    Ok(on_either!(store, |pool| sqlx::query_as(OLDEST).bind(host).bind(most).fetch_all(pool).await?))
}

/// How many messages this host keeps, and the bytes of their files.
pub async fn total(store: &Store, host: &str) -> Result<(i64, i64), StoreError> {
    const TOTAL: &str = "select count(*), cast(coalesce(sum(stored), 0) as bigint) from quarantine where host = $1";
    Ok(on_either!(store, |pool| sqlx::query_as(TOTAL).bind(host).fetch_one(pool).await?))
}
