// SPDX-License-Identifier: GPL-3.0-or-later
//! What is known of a triplet under another name of the same client is carried over to the name it goes by now: its network when it was
//! asked about without DNS, or by a version or another greylister that knew networks only; or the sum that another greylister kept of it.
//!
//! Two steps: most triplets have no other name, which one statement finds out for many of them without a lock; what is found is written
//! row by row, so that two hosts cannot wait for each other.

use common::store::StoreError;
use sqlx::SqliteConnection;

use super::Connection;
use crate::triplet::Triplet;

/// A row under another name, to be carried over to `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Older {
    /// The triplet as it is asked about now.
    pub to: Triplet,
    first_seen: i64,
    tries: i64,
    passes: i64,
    expires: i64,
}

type Row = (String, String, String, i64, i64, i64, i64);

/// $1 $2 $3 triplets asked about, $4 $5 $6 another name of each, $7 now or null. A row that has passed counts before one that waits.
const FIND_POSTGRES: &str = "with clock as materialized ( \
        select coalesce($7::bigint, (extract(epoch from clock_timestamp()) * 1000)::bigint) as now \
    ) \
    select distinct on (a.client, a.sender, a.recipient) \
        a.client, a.sender, a.recipient, o.first_seen, o.tries, o.passes, o.expires \
    from clock cross join unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
        as a (client, sender, recipient, other_client, other_sender, other_recipient) \
    cross join lateral ( \
        select * from greylist as g \
        where g.client = a.other_client and g.sender = a.other_sender and g.recipient = a.other_recipient \
            and g.expires > clock.now offset 0 \
    ) as o \
    order by a.client, a.sender, a.recipient, o.passes > 0 desc, o.first_seen";

/// $1 $2 $3 the triplet under another name, $4 now or null.
const FIND_SQLITE: &str = "select first_seen, tries, passes, expires from greylist \
    where client = $1 and sender = $2 and recipient = $3 \
        and expires > coalesce($4, cast(unixepoch('subsec') * 1000 as integer))";

/// $1 $2 $3 triplet, $4 first seen, $5 tries, $6 passes, $7 expires. A row that has passed, or is as old, stays.
const CARRY: &str = "update greylist set first_seen = $4, tries = $5, passes = $6, expires = $7 \
    where client = $1 and sender = $2 and recipient = $3 and passes = 0 and (first_seen > $4 or $6 > 0)";

/// What is known of these triplets under other names of their clients. `now` replaces the clock of the database.
pub async fn find(
    connection: &mut Connection,
    asked: &[(Triplet, Vec<Triplet>)],
    now: Option<i64>,
) -> Result<Vec<Older>, StoreError> {
    let pairs = || asked.iter().flat_map(|(triplet, others)| others.iter().map(move |other| (triplet, other)));
    let rows = match connection {
        Connection::Postgres(connection) => {
            let column = |part: fn(&Triplet) -> &str| pairs().map(|(triplet, _)| part(triplet)).collect::<Vec<_>>();
            let other = |part: fn(&Triplet) -> &str| pairs().map(|(_, other)| part(other)).collect::<Vec<_>>();
            sqlx::query_as(FIND_POSTGRES)
                .bind(column(|triplet| &triplet.client))
                .bind(column(|triplet| &triplet.sender))
                .bind(column(|triplet| &triplet.recipient))
                .bind(other(|triplet| &triplet.client))
                .bind(other(|triplet| &triplet.sender))
                .bind(other(|triplet| &triplet.recipient))
                .bind(now)
                .fetch_all(&mut **connection)
                .await?
        }
        Connection::Sqlite(connection) => find_sqlite(connection, asked, now).await?,
    };
    let older = |(client, sender, recipient, first_seen, tries, passes, expires): Row| Older {
        to: Triplet { client, sender, recipient },
        first_seen,
        tries,
        passes,
        expires,
    };
    Ok(rows.into_iter().map(older).collect())
}

async fn find_sqlite(
    connection: &mut SqliteConnection,
    asked: &[(Triplet, Vec<Triplet>)],
    now: Option<i64>,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut rows = Vec::new();
    for (triplet, others) in asked {
        let mut best: Option<(i64, i64, i64, i64)> = None;
        for other in others {
            let found: Option<(i64, i64, i64, i64)> = sqlx::query_as(FIND_SQLITE)
                .bind(&other.client)
                .bind(&other.sender)
                .bind(&other.recipient)
                .bind(now)
                .fetch_optional(&mut *connection)
                .await?;
            let rank = |row: &(i64, i64, i64, i64)| (row.2 == 0, row.0);
            best = best.into_iter().chain(found).min_by_key(rank);
        }
        if let Some((first_seen, tries, passes, expires)) = best {
            let Triplet { client, sender, recipient } = triplet.clone();
            rows.push((client, sender, recipient, first_seen, tries, passes, expires));
        }
    }
    Ok(rows)
}

/// Writes what was found into the row of the triplet, and tells whether that changed anything.
pub async fn carry(connection: &mut Connection, older: &Older) -> Result<bool, StoreError> {
    macro_rules! carried {
        ($connection:expr) => {
            sqlx::query(CARRY)
                .bind(&older.to.client)
                .bind(&older.to.sender)
                .bind(&older.to.recipient)
                .bind(older.first_seen)
                .bind(older.tries)
                .bind(older.passes)
                .bind(older.expires)
                .execute($connection)
                .await?
                .rows_affected()
        };
    }
    Ok(match connection {
        Connection::Postgres(connection) => carried!(&mut **connection),
        Connection::Sqlite(connection) => carried!(&mut **connection),
    } > 0)
}
