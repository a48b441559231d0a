// SPDX-License-Identifier: GPL-3.0-or-later
//! The access lists that are kept in the store: the statements for the administrator's command and for the daemons.
//!
//! Every change, whoever makes it, raises a version number by a trigger; a daemon that sees another number reads everything
//! anew. Changes are durable when the command says so: these commits wait for the disk, unlike those of the greylist.

use common::store::{Store, StoreError};
use sqlx::{Postgres, Sqlite};

use super::Connection;

/// A list, by the name of its option in `[access]` or `[greylist]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// Clients whose mail no check of ours stops.
    ClientWhitelist,
    /// Clients that are refused.
    ClientBlacklist,
    /// Senders whose mail is not greylisted.
    SenderWhitelist,
    /// Senders that are refused.
    SenderBlacklist,
    /// Recipients whose mail is not greylisted.
    RecipientWhitelist,
    /// Recipients that are refused.
    RecipientBlacklist,
    /// Recipients that want to be greylisted.
    Optin,
    /// Recipients that do not.
    Optout,
}

impl List {
    /// Every list.
    pub const ALL: [Self; 8] = [
        Self::ClientWhitelist,
        Self::ClientBlacklist,
        Self::SenderWhitelist,
        Self::SenderBlacklist,
        Self::RecipientWhitelist,
        Self::RecipientBlacklist,
        Self::Optin,
        Self::Optout,
    ];

    /// The name, as in the configuration and in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::ClientWhitelist => "client_whitelist",
            Self::ClientBlacklist => "client_blacklist",
            Self::SenderWhitelist => "sender_whitelist",
            Self::SenderBlacklist => "sender_blacklist",
            Self::RecipientWhitelist => "recipient_whitelist",
            Self::RecipientBlacklist => "recipient_blacklist",
            Self::Optin => "optin",
            Self::Optout => "optout",
        }
    }

    /// The list of this name.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.word() == word)
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The list it is in.
    pub list: List,
    /// As in a list file.
    pub entry: String,
    /// Why it is there.
    pub comment: String,
    /// Who put it there.
    pub author: String,
    /// When, in milliseconds since 1970.
    pub created: i64,
    /// From when on it is not in force any more.
    pub expires: Option<i64>,
}

/// An entry to be added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewEntry {
    /// As in a list file.
    pub entry: String,
    /// Why it is there.
    pub comment: String,
    /// Who puts it there.
    pub author: String,
    /// From when on it is not in force any more, in milliseconds since 1970.
    pub expires: Option<i64>,
}

/// What became of entries to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// New in the list.
    pub new: u64,
    /// In the list already; comment, author and expiry are now those given.
    pub changed: u64,
}

/// The channel on which PostgreSQL tells changes.
pub(super) const CHANNEL: &str = "octroi_acl";

/// How long an expired entry can still be shown, in milliseconds: 30 days.
const KEEP_EXPIRED: i64 = 30 * 86_400_000;

const VERSION: &str = "select version from acl_version";
const ALL: &str = "select list, entry, comment, author, created, expires from acl order by list, entry";

/// $1 list, $2 to $5 columns of the entries. `xmax` is zero for a row that was inserted just now.
const ADD_POSTGRES: &str = "insert into acl (list, entry, comment, author, expires) \
    select $1, a.entry, a.comment, a.author, a.expires \
    from unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) as a (entry, comment, author, expires) \
    order by a.entry collate \"C\" \
    on conflict (list, entry) do update set \
        comment = excluded.comment, author = excluded.author, created = excluded.created, expires = excluded.expires \
    returning (xmax = 0) as added";

const FORGET_POSTGRES: &str =
    "delete from acl where expires < (extract(epoch from clock_timestamp()) * 1000)::bigint - $1";

const ADD_SQLITE: &str = "insert into acl (list, entry, comment, author, expires) values ($1, $2, $3, $4, $5) \
    on conflict (list, entry) do update set \
        comment = excluded.comment, author = excluded.author, created = excluded.created, expires = excluded.expires";

const FORGET_SQLITE: &str = "delete from acl where expires < cast(unixepoch('subsec') * 1000 as integer) - $1";

/// The number of the lists as they are now.
pub async fn version(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => sqlx::query_scalar(VERSION).fetch_one(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_scalar(VERSION).fetch_one(&mut **connection).await?,
    })
}

type Row = (String, String, String, String, i64, Option<i64>);

/// Every entry, expired ones included, by list and entry.
pub async fn all(connection: &mut Connection) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<Row> = match connection {
        Connection::Postgres(connection) => sqlx::query_as(ALL).fetch_all(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(ALL).fetch_all(&mut **connection).await?,
    };
    let entry = |(list, entry, comment, author, created, expires): Row| {
        // A later version may know more lists.
        Some(Entry { list: List::named(&list)?, entry, comment, author, created, expires })
    };
    Ok(rows.into_iter().filter_map(entry).collect())
}

/// Adds entries, all or none. Of two equal ones the last counts.
pub async fn add(store: &Store, list: List, entries: &[NewEntry]) -> Result<Added, StoreError> {
    let last: std::collections::BTreeMap<&str, &NewEntry> =
        entries.iter().map(|entry| (entry.entry.as_str(), entry)).collect();
    let entries: Vec<&NewEntry> = last.into_values().collect();
    match Connection::acquire(store).await? {
        Connection::Postgres(mut connection) => {
            let column = |part: fn(&NewEntry) -> &str| entries.iter().map(|entry| part(entry)).collect::<Vec<_>>();
            let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
            durable_postgres(&mut transaction).await?;
            let added: Vec<bool> = sqlx::query_scalar(ADD_POSTGRES)
                .bind(list.word())
                .bind(column(|entry| &entry.entry))
                .bind(column(|entry| &entry.comment))
                .bind(column(|entry| &entry.author))
                .bind(entries.iter().map(|entry| entry.expires).collect::<Vec<_>>())
                .fetch_all(&mut *transaction)
                .await?;
            sqlx::query::<Postgres>(FORGET_POSTGRES).bind(KEEP_EXPIRED).execute(&mut *transaction).await?;
            transaction.commit().await?;
            let new = added.iter().filter(|added| **added).count() as u64;
            Ok(Added { new, changed: added.len() as u64 - new })
        }
        Connection::Sqlite(mut connection) => {
            durable_sqlite(&mut connection).await?;
            let mut transaction = sqlx::Connection::begin_with(&mut *connection, "begin immediate").await?;
            let before = count_sqlite(&mut transaction).await?;
            for entry in &entries {
                sqlx::query::<Sqlite>(ADD_SQLITE)
                    .bind(list.word())
                    .bind(&entry.entry)
                    .bind(&entry.comment)
                    .bind(&entry.author)
                    .bind(entry.expires)
                    .execute(&mut *transaction)
                    .await?;
            }
            let new = (count_sqlite(&mut transaction).await? - before).max(0) as u64;
            sqlx::query::<Sqlite>(FORGET_SQLITE).bind(KEEP_EXPIRED).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(Added { new, changed: (entries.len() as u64).saturating_sub(new) })
        }
    }
}

/// Removes entries, and gives those that were not there.
pub async fn remove<'a>(store: &Store, list: List, entries: &'a [String]) -> Result<Vec<&'a str>, StoreError> {
    const REMOVE: &str = "delete from acl where list = $1 and entry = $2";
    let mut missing = Vec::new();
    match Connection::acquire(store).await? {
        Connection::Postgres(mut connection) => {
            let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
            durable_postgres(&mut transaction).await?;
            for entry in entries {
                let query = sqlx::query::<Postgres>(REMOVE).bind(list.word()).bind(entry);
                if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                    missing.push(entry.as_str());
                }
            }
            transaction.commit().await?;
        }
        Connection::Sqlite(mut connection) => {
            durable_sqlite(&mut connection).await?;
            let mut transaction = sqlx::Connection::begin_with(&mut *connection, "begin immediate").await?;
            for entry in entries {
                let query = sqlx::query::<Sqlite>(REMOVE).bind(list.word()).bind(entry);
                if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                    missing.push(entry.as_str());
                }
            }
            transaction.commit().await?;
        }
    }
    Ok(missing)
}

async fn count_sqlite(connection: &mut sqlx::SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("select count(*) from acl").fetch_one(connection).await?)
}

/// Whatever the database or the role has set: what an administrator was told to be done stays done.
async fn durable_postgres(connection: &mut sqlx::PgConnection) -> Result<(), StoreError> {
    // A long import takes the time it takes.
    sqlx::raw_sql("set local synchronous_commit = on; set local statement_timeout = 0").execute(connection).await?;
    Ok(())
}

/// With WAL, "normal" may lose the last commits in a power cut (SQLite, PRAGMA synchronous).
async fn durable_sqlite(connection: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("pragma synchronous = full").execute(connection).await?;
    Ok(())
}
