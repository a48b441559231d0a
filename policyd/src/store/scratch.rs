// SPDX-License-Identifier: GPL-3.0-or-later
//! A throw-away SQLite store for `policyd test`: triplets are copied into it from the real store, which is only read, and the
//! requests are then decided on the copy.

use std::time::Duration;

use common::store::{Store, StoreError, StoreSettings};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::acl::{self, Entry};
use super::{Connection, greylist};
use crate::triplet::Triplet;

/// Time for the first contact with the real store.
const CONTACT_TIME: Duration = Duration::from_secs(3);

const READ: &str = "select first_seen, last_seen, tries, passes, expires from greylist \
    where client = $1 and sender = $2 and recipient = $3";

const COPY: &str = "insert into greylist (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing";

const READ_TRUST: &str = "select passes, last_counted, expires from trust where key = $1";

const COPY_TRUST: &str =
    "insert into trust (key, passes, last_counted, expires) values ($1, $2, $3, $4) on conflict do nothing";

const READ_LEVEL: &str = "select level, at, expires from limit_bucket where bucket = $1";

const COPY_LEVEL: &str =
    "insert into limit_bucket (bucket, level, at, expires) values ($1, $2, $3, $4) on conflict do nothing";

const READ_OVERRIDE: &str =
    "select number, period, burst, unlimited, until, extra, extra_until from limit_override where bucket = $1";

const COPY_OVERRIDE: &str = "insert into limit_override (bucket, number, period, burst, unlimited, until, extra, extra_until) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing";

/// Level, when it was right, end.
type Level = (i64, i64, i64);
/// Number, period, burst, unlimited, until, extra, until when.
type Set = (Option<i64>, Option<i64>, Option<i64>, bool, Option<i64>, i64, Option<i64>);
const READ_MARK: &str = "select fact, expires from marks where key = $1";

const COPY_MARK: &str = "insert into marks (key, fact, expires) values ($1, $2, $3) on conflict do nothing";

/// The copy, and the original if it can be read.
#[derive(Debug)]
pub struct Scratch {
    copy: Store,
    original: Option<Store>,
    told: String,
    /// Removed with everything in it at the end.
    _folder: tempfile::TempDir,
}

impl Scratch {
    /// An empty store that is a copy of nothing.
    pub async fn empty(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (copy, folder) = Self::copy(settings).await?;
        let told = "an empty store in memory of this command".to_owned();
        Ok(Self { copy, original: None, told, _folder: folder })
    }

    async fn copy(settings: &StoreSettings) -> Result<(Store, tempfile::TempDir), StoreError> {
        let failed = |error: std::io::Error| StoreError::Broken(format!("cannot make a temporary folder: {error}"));
        let folder = tempfile::tempdir().map_err(failed)?;
        let url = format!("sqlite:{}", folder.path().join("scratch.db").display());
        let copy = Store::open(&StoreSettings { url, url_file: None, ..settings.clone() }).await?;
        copy.migrate().await?;
        Ok((copy, folder))
    }

    /// Makes an empty copy and looks whether the original can be read.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (copy, folder) = Self::copy(settings).await?;
        let (original, told) = match read_only(settings).await {
            Ok(store) => {
                let told = format!("a copy of the {} store, which is only read", store.kind());
                (Some(store), told)
            }
            Err(error) => (None, format!("an empty store in memory of this command ({error})")),
        };
        Ok(Self { copy, original, told, _folder: folder })
    }

    /// The store to decide on.
    pub fn store(&self) -> &Store {
        &self.copy
    }

    /// What requests are decided on, in words.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Takes over what the original knows of a triplet, unless the copy knows it already.
    pub async fn fetch(&self, triplet: &Triplet) -> Result<(), StoreError> {
        let Some(row) = self.read(triplet).await? else { return Ok(()) };
        let Store::Sqlite(pool) = &self.copy else { return Ok(()) };
        let (first_seen, last_seen, tries, passes, expires) = row;
        sqlx::query(COPY)
            .bind(&triplet.client)
            .bind(&triplet.sender)
            .bind(&triplet.recipient)
            .bind(first_seen)
            .bind(last_seen)
            .bind(tries)
            .bind(passes)
            .bind(expires)
            .execute(pool)
            .await?;
        Ok(())
    }

    /// Takes over how far a key is trusted, unless the copy knows it already.
    pub async fn fetch_trust(&self, key: &str) -> Result<(), StoreError> {
        let row: Option<(i64, i64, i64)> = match &self.original {
            None => None,
            Some(Store::Postgres(pool)) => sqlx::query_as(READ_TRUST).bind(key).fetch_optional(pool).await?,
            Some(Store::Sqlite(pool)) => sqlx::query_as(READ_TRUST).bind(key).fetch_optional(pool).await?,
        };
        let (Some((passes, last_counted, expires)), Store::Sqlite(pool)) = (row, &self.copy) else { return Ok(()) };
        let copy = sqlx::query(COPY_TRUST).bind(key).bind(passes).bind(last_counted).bind(expires);
        copy.execute(pool).await?;
        Ok(())
    }

    /// Takes over how full a bucket is and what is set for it, unless the copy knows it already.
    pub async fn fetch_limit(&self, bucket: &str) -> Result<(), StoreError> {
        let (level, set): (Option<Level>, Option<Set>) = match &self.original {
            None => return Ok(()),
            Some(Store::Postgres(pool)) => (
                sqlx::query_as(READ_LEVEL).bind(bucket).fetch_optional(pool).await?,
                sqlx::query_as(READ_OVERRIDE).bind(bucket).fetch_optional(pool).await?,
            ),
            Some(Store::Sqlite(pool)) => (
                sqlx::query_as(READ_LEVEL).bind(bucket).fetch_optional(pool).await?,
                sqlx::query_as(READ_OVERRIDE).bind(bucket).fetch_optional(pool).await?,
            ),
        };
        let Store::Sqlite(pool) = &self.copy else { return Ok(()) };
        if let Some((level, at, expires)) = level {
            let copy = sqlx::query(COPY_LEVEL).bind(bucket).bind(level).bind(at).bind(expires);
            copy.execute(pool).await?;
        }
        if let Some((number, period, burst, unlimited, until, extra, extra_until)) = set {
            let copy = sqlx::query(COPY_OVERRIDE).bind(bucket).bind(number).bind(period).bind(burst).bind(unlimited);
            copy.bind(until).bind(extra).bind(extra_until).execute(pool).await?;
        }
        Ok(())
    }

    /// Takes over a mark, unless the copy has it already.
    pub async fn fetch_mark(&self, key: &str) -> Result<(), StoreError> {
        let row: Option<(String, i64)> = match &self.original {
            None => None,
            Some(Store::Postgres(pool)) => sqlx::query_as(READ_MARK).bind(key).fetch_optional(pool).await?,
            Some(Store::Sqlite(pool)) => sqlx::query_as(READ_MARK).bind(key).fetch_optional(pool).await?,
        };
        let (Some((fact, expires)), Store::Sqlite(pool)) = (row, &self.copy) else { return Ok(()) };
        sqlx::query(COPY_MARK).bind(key).bind(fact).bind(expires).execute(pool).await?;
        Ok(())
    }

    /// The entries of the lists in the original.
    pub async fn lists(&self) -> Result<Vec<Entry>, StoreError> {
        match &self.original {
            None => Ok(Vec::new()),
            Some(store) => acl::all(&mut Connection::acquire(store).await?).await,
        }
    }

    async fn read(&self, triplet: &Triplet) -> Result<Option<(i64, i64, i64, i64, i64)>, StoreError> {
        let (client, sender, recipient) = (&triplet.client, &triplet.sender, &triplet.recipient);
        Ok(match &self.original {
            None => None,
            Some(Store::Postgres(pool)) => {
                sqlx::query_as(READ).bind(client).bind(sender).bind(recipient).fetch_optional(pool).await?
            }
            Some(Store::Sqlite(pool)) => {
                sqlx::query_as(READ).bind(client).bind(sender).bind(recipient).fetch_optional(pool).await?
            }
        })
    }
}

/// The configured store, opened so that nothing in it can change and no file comes into being.
async fn read_only(settings: &StoreSettings) -> Result<Store, StoreError> {
    let store = match settings.sqlite_file() {
        None => Store::open(settings).await?,
        Some(path) if !path.exists() => {
            return Err(StoreError::Unavailable(format!("{} does not exist yet", path.display())));
        }
        Some(path) => {
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            Store::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
        }
    };
    let late = || StoreError::Unavailable(format!("no answer within {} seconds", CONTACT_TIME.as_secs()));
    let contact = async { greylist::probe(&mut Connection::acquire(&store).await?).await };
    tokio::time::timeout(CONTACT_TIME, contact).await.map_err(|_| late())??;
    Ok(store)
}
