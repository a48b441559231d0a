// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements about recipients: what directories have said of them, and the full copies of directories, shared by the hosts of a farm.
//!
//! Times go in and out as distances from now, by the clock of the database: hosts need not agree with it.

use common::store::StoreError;
use sqlx::{Postgres, Sqlite};

use super::Connection;

/// What a directory has said of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// Its address, in the form it is asked by.
    pub address: String,
    /// For how many milliseconds it is known; 0: it is not.
    pub keep: i64,
}

/// What the store remembers of one recipient, in milliseconds from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its address.
    pub address: String,
    /// Since it was found, or found missing.
    pub age: i64,
    /// Until it is not known any more; 0 or less: it is not.
    pub left: i64,
}

/// What the store says of one full copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    /// Whose.
    pub directory: String,
    /// Counts replacements.
    pub version: i64,
    /// Milliseconds since it was taken.
    pub age: i64,
}

macro_rules! now_postgres {
    () => {
        "(extract(epoch from clock_timestamp()) * 1000)::bigint"
    };
}

macro_rules! now_sqlite {
    () => {
        "cast(unixepoch('subsec') * 1000 as integer)"
    };
}

/// $1 addresses, $2 keeps. Rows are locked in the order of their keys.
const WRITE_POSTGRES: &str = concat!(
    "with clock as materialized (select ",
    now_postgres!(),
    " as now) insert into recipients as r (address, checked, expires) \
    select k.address, clock.now, clock.now + k.keep from unnest($1::text[], $2::bigint[]) as k (address, keep) cross join clock \
    order by k.address collate \"C\" \
    on conflict (address) do update set checked = excluded.checked, expires = excluded.expires"
);

/// $1 address, $2 keep.
const WRITE_SQLITE: &str = concat!(
    "insert into recipients as r (address, checked, expires) select $1, clock.now, clock.now + $2 from (select ",
    now_sqlite!(),
    " as now) as clock where true \
    on conflict (address) do update set checked = excluded.checked, expires = excluded.expires"
);

/// $1 how long ago at most, in milliseconds; $2 how many at most. The youngest first.
const SINCE_POSTGRES: &str = concat!(
    "with clock as materialized (select ",
    now_postgres!(),
    " as now) select r.address, clock.now - r.checked, r.expires - clock.now from clock cross join recipients as r \
    where r.checked >= clock.now - $1 order by r.checked desc limit $2"
);

/// The same.
const SINCE_SQLITE: &str = concat!(
    "select r.address, clock.now - r.checked, r.expires - clock.now from recipients as r, (select ",
    now_sqlite!(),
    " as now) as clock where r.checked >= clock.now - $1 order by r.checked desc limit $2"
);

/// $1 how many at most. A row that says "not known any more" stays for an hour, so that every host reads it.
const CLEAN_POSTGRES: &str = concat!(
    "delete from recipients where address = any (array(select address from recipients where expires <= ",
    now_postgres!(),
    " - 3600000 order by expires limit $1 for update skip locked))"
);

/// The same.
const CLEAN_SQLITE: &str = concat!(
    "delete from recipients where address in (select address from recipients where expires <= ",
    now_sqlite!(),
    " - 3600000 order by expires limit $1)"
);

/// $1 directory, $2 pull, $3 lease, in milliseconds: one row is changed when it is due and nobody is at it.
const CLAIM_POSTGRES: &str = concat!(
    "with clock as materialized (select ",
    now_postgres!(),
    " as now) insert into recipient_copies as c (directory, version, pulled, entries, members, lease) \
    select $1, 0, 0, 0, '', clock.now + $3 from clock \
    on conflict (directory) do update set lease = excluded.lease \
    where c.lease <= excluded.lease - $3 and c.pulled <= excluded.lease - $3 - $2"
);

/// The same.
const CLAIM_SQLITE: &str = concat!(
    "insert into recipient_copies as c (directory, version, pulled, entries, members, lease) \
    select $1, 0, 0, 0, x'', clock.now + $3 from (select ",
    now_sqlite!(),
    " as now) as clock where true on conflict (directory) do update set lease = excluded.lease \
    where c.lease <= excluded.lease - $3 and c.pulled <= excluded.lease - $3 - $2"
);

/// $1 directory, $2 entries, $3 members.
const REPLACE_POSTGRES: &str = concat!(
    "update recipient_copies set version = version + 1, entries = $2, members = $3, lease = 0, pulled = ",
    now_postgres!(),
    " where directory = $1 returning version"
);

/// The same.
const REPLACE_SQLITE: &str = concat!(
    "update recipient_copies set version = version + 1, entries = $2, members = $3, lease = 0, pulled = ",
    now_sqlite!(),
    " where directory = $1 returning version"
);

/// $1 directory, $2 version: taken again and the same.
const CONFIRM_POSTGRES: &str = concat!(
    "update recipient_copies set lease = 0, pulled = ",
    now_postgres!(),
    " where directory = $1 and version = $2"
);

/// The same.
const CONFIRM_SQLITE: &str = concat!(
    "update recipient_copies set lease = 0, pulled = ",
    now_sqlite!(),
    " where directory = $1 and version = $2"
);

/// $1 directory, $2 pause in milliseconds until somebody tries again.
const RELEASE_POSTGRES: &str =
    concat!("update recipient_copies set lease = ", now_postgres!(), " + $2 where directory = $1");

/// The same.
const RELEASE_SQLITE: &str =
    concat!("update recipient_copies set lease = ", now_sqlite!(), " + $2 where directory = $1");

/// All copies there are.
const COPIES_POSTGRES: &str = concat!(
    "select directory, version, ",
    now_postgres!(),
    " - pulled from recipient_copies where version > 0 order by directory"
);

/// The same.
const COPIES_SQLITE: &str = concat!(
    "select directory, version, ",
    now_sqlite!(),
    " - pulled from recipient_copies where version > 0 order by directory"
);

const MEMBERS: &str = "select members from recipient_copies where directory = $1 and version = $2";

macro_rules! execute {
    ($connection:expr, $postgres:expr, $sqlite:expr $(, $value:expr)*) => {
        match $connection {
            Connection::Postgres(connection) => {
                sqlx::query::<Postgres>($postgres)$(.bind($value))*.execute(&mut **connection).await?.rows_affected()
            }
            Connection::Sqlite(connection) => {
                sqlx::query::<Sqlite>($sqlite)$(.bind($value))*.execute(&mut **connection).await?.rows_affected()
            }
        }
    };
}

/// Writes what directories have said, each address once, the last that was said of it.
pub async fn write(connection: &mut Connection, said: &[Said]) -> Result<(), StoreError> {
    let mut last: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
    for said in said {
        last.insert(&said.address, said.keep);
    }
    match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query::<Postgres>(WRITE_POSTGRES)
                .bind(last.keys().copied().collect::<Vec<&str>>())
                .bind(last.values().copied().collect::<Vec<i64>>());
            query.execute(&mut **connection).await?;
        }
        Connection::Sqlite(connection) => {
            let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
            for (address, keep) in last {
                sqlx::query::<Sqlite>(WRITE_SQLITE).bind(address).bind(keep).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// What was said within the last `age` milliseconds, the youngest first, `most` at most.
pub async fn since(connection: &mut Connection, age: i64, most: i64) -> Result<Vec<Row>, StoreError> {
    let rows: Vec<(String, i64, i64)> = match connection {
        Connection::Postgres(connection) => {
            sqlx::query_as(SINCE_POSTGRES).bind(age).bind(most).fetch_all(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            sqlx::query_as(SINCE_SQLITE).bind(age).bind(most).fetch_all(&mut **connection).await?
        }
    };
    Ok(rows.into_iter().map(|(address, age, left)| Row { address, age, left }).collect())
}

/// Deletes up to `most` rows that hold no more, none that another host has locked, and gives how many.
pub async fn clean(connection: &mut Connection, most: i64) -> Result<u64, StoreError> {
    Ok(execute!(connection, CLEAN_POSTGRES, CLEAN_SQLITE, most))
}

/// Makes this host the one that takes a copy, for `lease` milliseconds; false when none is due, or another host is at it.
pub async fn claim(connection: &mut Connection, directory: &str, pull: i64, lease: i64) -> Result<bool, StoreError> {
    Ok(execute!(connection, CLAIM_POSTGRES, CLAIM_SQLITE, directory, pull, lease) > 0)
}

/// Puts a new copy in the place of the old one and gives its version.
pub async fn replace(
    connection: &mut Connection,
    directory: &str,
    entries: i64,
    members: &[u8],
) -> Result<i64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_scalar(REPLACE_POSTGRES).bind(directory).bind(entries).bind(members);
            query.fetch_one(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_scalar(REPLACE_SQLITE).bind(directory).bind(entries).bind(members);
            query.fetch_one(&mut **connection).await?
        }
    })
}

/// The copy of this version is still right.
pub async fn confirm(connection: &mut Connection, directory: &str, version: i64) -> Result<(), StoreError> {
    execute!(connection, CONFIRM_POSTGRES, CONFIRM_SQLITE, directory, version);
    Ok(())
}

/// This host could not take a copy; another try may be made after `pause` milliseconds.
pub async fn release(connection: &mut Connection, directory: &str, pause: i64) -> Result<(), StoreError> {
    execute!(connection, RELEASE_POSTGRES, RELEASE_SQLITE, directory, pause);
    Ok(())
}

/// All copies there are.
pub async fn copies(connection: &mut Connection) -> Result<Vec<CopyRow>, StoreError> {
    let rows: Vec<(String, i64, i64)> = match connection {
        Connection::Postgres(connection) => sqlx::query_as(COPIES_POSTGRES).fetch_all(&mut **connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(COPIES_SQLITE).fetch_all(&mut **connection).await?,
    };
    Ok(rows.into_iter().map(|(directory, version, age)| CopyRow { directory, version, age }).collect())
}

/// The members of a copy; none when it has been replaced meanwhile.
pub async fn members(
    connection: &mut Connection,
    directory: &str,
    version: i64,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query_scalar(MEMBERS).bind(directory).bind(version).fetch_optional(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            sqlx::query_scalar(MEMBERS).bind(directory).bind(version).fetch_optional(&mut **connection).await?
        }
    })
}
