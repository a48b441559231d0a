// SPDX-License-Identifier: GPL-3.0-or-later
//! Takes over triplets and trust that another greylister has recorded. Not a decision: nobody waits for its answer.
//!
//! Two records of one triplet become one: the earliest first seen, the latest last seen, passed when either has passed. The
//! order does not matter and repeating changes nothing, so an import may be broken off and run again.

use common::store::StoreError;
use sqlx::{Postgres, Sqlite, SqliteConnection};

use super::Connection;
use crate::triplet::Triplet;

/// What another greylister knew of a triplet. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The key, made with the prefix lengths of this configuration.
    pub triplet: Triplet,
    /// First try.
    pub first_seen: i64,
    /// Latest try.
    pub last_seen: i64,
    /// Tries before it passed, as far as known; at least 1.
    pub tries: i64,
    /// Whether it has waited long enough and come again.
    pub passed: bool,
    /// Forgotten from then on.
    pub expires: i64,
}

impl Past {
    /// Takes in another record of the same triplet.
    pub fn join(&mut self, other: &Self) {
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.tries = self.tries.max(other.tries);
        self.passed |= other.passed;
        self.expires = self.expires.max(other.expires);
    }
}

/// Merges a record into a row that exists already; a row that has expired counts as absent. A row that would stay as it is, is not
/// written. The same text for both databases: `now` is the parameter of that name.
macro_rules! merge_rule {
    ($now:literal) => {
        concat!(
            "on conflict (client, sender, recipient) do update set \
                first_seen = case when g.expires <= ",
            $now,
            " or excluded.first_seen < g.first_seen \
                    then excluded.first_seen else g.first_seen end, \
                last_seen = case when g.expires <= ",
            $now,
            " or excluded.last_seen > g.last_seen \
                    then excluded.last_seen else g.last_seen end, \
                tries = case when g.expires <= ",
            $now,
            " or excluded.tries > g.tries \
                    then excluded.tries else g.tries end, \
                passes = case when g.expires <= ",
            $now,
            " or excluded.passes > g.passes \
                    then excluded.passes else g.passes end, \
                expires = case when g.expires <= ",
            $now,
            " or excluded.expires > g.expires \
                    then excluded.expires else g.expires end \
            where g.expires <= ",
            $now,
            " or excluded.first_seen < g.first_seen or excluded.last_seen > g.last_seen \
                or excluded.tries > g.tries or excluded.passes > g.passes or excluded.expires > g.expires"
        )
    };
}

/// Many records in one statement. Rows are locked in the order of their keys, as in the statements of the greylist.
const MERGE_POSTGRES: &str = concat!(
    "insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) \
        as p (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    order by p.client collate \"C\", p.sender collate \"C\", p.recipient collate \"C\" ",
    merge_rule!("$9::bigint"),
);

const MERGE_SQLITE: &str = concat!(
    "insert into greylist as g (client, sender, recipient, first_seen, last_seen, tries, passes, expires) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) ",
    merge_rule!("$9"),
);

/// What another greylister knew of a client's reliability, as a key of trust. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The key, such as `192.0.2.0/24` or `192.0.2.0/24 example.org`.
    pub key: String,
    /// Counted passes.
    pub passes: i64,
    /// When the latest one was counted, or used.
    pub last_counted: i64,
    /// Forgotten from then on.
    pub expires: i64,
}

/// Merges into a key that exists already, as [`merge_rule`] does.
macro_rules! trust_rule {
    ($now:literal) => {
        concat!(
            "on conflict (key) do update set \
                passes = case when t.expires <= ",
            $now,
            " or excluded.passes > t.passes \
                    then excluded.passes else t.passes end, \
                last_counted = case when t.expires <= ",
            $now,
            " or excluded.last_counted > t.last_counted \
                    then excluded.last_counted else t.last_counted end, \
                expires = case when t.expires <= ",
            $now,
            " or excluded.expires > t.expires \
                    then excluded.expires else t.expires end \
            where t.expires <= ",
            $now,
            " or excluded.passes > t.passes \
                or excluded.last_counted > t.last_counted or excluded.expires > t.expires"
        )
    };
}

const TRUST_POSTGRES: &str = concat!(
    "insert into trust as t (key, passes, last_counted, expires) \
    select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as p (key, passes, last_counted, expires) \
    order by p.key collate \"C\" ",
    trust_rule!("$5::bigint"),
);

const TRUST_SQLITE: &str =
    concat!("insert into trust as t (key, passes, last_counted, expires) values ($1, $2, $3, $4) ", trust_rule!("$5"),);

/// Merges keys of trust in one transaction and gives how many rows were made or changed. The keys must be sorted and different; a
/// few thousand at a time. `now`, milliseconds since 1970, tells which rows have expired.
pub async fn merge_trust(connection: &mut Connection, standings: &[Standing], now: i64) -> Result<u64, StoreError> {
    let connection = match connection {
        Connection::Postgres(connection) => {
            let done = sqlx::query::<Postgres>(TRUST_POSTGRES)
                .bind(standings.iter().map(|standing| standing.key.as_str()).collect::<Vec<_>>())
                .bind(standings.iter().map(|standing| standing.passes).collect::<Vec<_>>())
                .bind(standings.iter().map(|standing| standing.last_counted).collect::<Vec<_>>())
                .bind(standings.iter().map(|standing| standing.expires).collect::<Vec<_>>())
                .bind(now);
            return Ok(done.execute(&mut **connection).await?.rows_affected());
        }
        Connection::Sqlite(connection) => connection,
    };
    let mut transaction = sqlx::Connection::begin_with(&mut **connection, "begin immediate").await?;
    let mut written = 0;
    for standing in standings {
        let query = sqlx::query::<Sqlite>(TRUST_SQLITE)
            .bind(&standing.key)
            .bind(standing.passes)
            .bind(standing.last_counted)
            .bind(standing.expires)
            .bind(now);
        written += query.execute(&mut *transaction).await?.rows_affected();
    }
    transaction.commit().await?;
    Ok(written)
}

/// The clock of the database, in milliseconds since 1970.
pub async fn clock(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(match connection {
        Connection::Postgres(connection) => {
            sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
                .fetch_one(&mut **connection)
                .await?
        }
        Connection::Sqlite(connection) => {
            sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)")
                .fetch_one(&mut **connection)
                .await?
        }
    })
}

/// Merges records in one transaction and gives how many rows were made or changed. The records must be sorted by triplet and
/// different; a few thousand at a time. `now`, milliseconds since 1970, tells which rows have expired.
pub async fn merge(connection: &mut Connection, records: &[Past], now: i64) -> Result<u64, StoreError> {
    match connection {
        Connection::Postgres(connection) => merge_postgres(connection, records, now).await,
        Connection::Sqlite(connection) => merge_sqlite(connection, records, now).await,
    }
}

async fn merge_postgres(
    connection: &mut sqlx::pool::PoolConnection<Postgres>,
    records: &[Past],
    now: i64,
) -> Result<u64, StoreError> {
    let text = |part: fn(&Triplet) -> &str| records.iter().map(|past| part(&past.triplet)).collect::<Vec<_>>();
    let number = |part: fn(&Past) -> i64| records.iter().map(part).collect::<Vec<_>>();
    let done = sqlx::query::<Postgres>(MERGE_POSTGRES)
        .bind(text(|triplet| &triplet.client))
        .bind(text(|triplet| &triplet.sender))
        .bind(text(|triplet| &triplet.recipient))
        .bind(number(|past| past.first_seen))
        .bind(number(|past| past.last_seen))
        .bind(number(|past| past.tries))
        .bind(number(|past| i64::from(past.passed)))
        .bind(number(|past| past.expires))
        .bind(now)
        .execute(&mut **connection)
        .await?;
    Ok(done.rows_affected())
}

async fn merge_sqlite(connection: &mut SqliteConnection, records: &[Past], now: i64) -> Result<u64, StoreError> {
    let mut transaction = sqlx::Connection::begin_with(connection, "begin immediate").await?;
    let mut written = 0;
    for past in records {
        let done = sqlx::query::<Sqlite>(MERGE_SQLITE)
            .bind(&past.triplet.client)
            .bind(&past.triplet.sender)
            .bind(&past.triplet.recipient)
            .bind(past.first_seen)
            .bind(past.last_seen)
            .bind(past.tries)
            .bind(i64::from(past.passed))
            .bind(past.expires)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        written += done.rows_affected();
    }
    transaction.commit().await?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::greylist::{self, Sighting, Times};
    use crate::store::trust;
    use common::store::{Store, StoreSettings};
    use proptest::prelude::*;

    const TIMES: Times = Times { delay: 100, retry_window: 1000, keep_passed: 100_000 };

    fn past(sender: &str, first_seen: i64, last_seen: i64, passed: bool) -> Past {
        let expires = if passed { last_seen + TIMES.keep_passed } else { first_seen + TIMES.retry_window };
        let triplet = Triplet::new([192, 0, 2, 1].into(), sender, "r@example.org", 24, 64);
        Past { triplet, first_seen, last_seen, tries: 1, passed, expires }
    }

    async fn empty() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("o.db").display());
        let store = Store::open(&StoreSettings { url, ..StoreSettings::default() }).await.unwrap();
        store.migrate().await.unwrap();
        (folder, store)
    }

    async fn merge_at(store: &Store, records: &[Past], now: i64) -> u64 {
        merge(&mut Connection::acquire(store).await.unwrap(), records, now).await.unwrap()
    }

    async fn asked(store: &Store, sender: &str, now: i64) -> Sighting {
        let triplet = Triplet::new([192, 0, 2, 99].into(), sender, "R@example.org", 24, 64);
        greylist::ask(store, &triplet, TIMES, Some(now)).await.unwrap()
    }

    #[tokio::test]
    async fn what_passed_there_passes_here_and_who_waits_goes_on_waiting() {
        let (_folder, store) = empty().await;
        let records =
            [past("passed@x", 0, 500, true), past("ripe@x", 800, 800, false), past("young@x", 950, 950, false)];
        assert_eq!(merge_at(&store, &records, 1000).await, 3);
        assert_eq!(merge_at(&store, &records, 1000).await, 0, "again changes nothing");
        assert_eq!(asked(&store, "passed@x", 1000).await, Sighting::Passed);
        assert_eq!(asked(&store, "ripe@x", 1000).await, Sighting::PassedNow { waited: 200 });
        assert_eq!(asked(&store, "young@x", 1000).await, Sighting::Early { left: 50 });
        assert_eq!(asked(&store, "other@x", 1000).await, Sighting::New { left: 100 });
        assert_eq!(merge_at(&store, &records, 1000).await, 0, "and nothing that was learnt since is lost");
        assert_eq!(asked(&store, "ripe@x", 1001).await, Sighting::Passed);
    }

    #[tokio::test]
    async fn a_row_of_our_own_is_merged_and_an_expired_one_replaced() {
        let (_folder, store) = empty().await;
        assert_eq!(asked(&store, "a@x", 1000).await, Sighting::New { left: 100 });
        assert_eq!(merge_at(&store, &[past("a@x", 920, 930, false)], 1010).await, 1);
        assert_eq!(asked(&store, "a@x", 1010).await, Sighting::Early { left: 10 });
        assert_eq!(merge_at(&store, &[past("a@x", 920, 930, true)], 1010).await, 1);
        assert_eq!(asked(&store, "a@x", 1011).await, Sighting::Passed);
        // Long after both have been forgotten a new wait is recorded elsewhere.
        let later = 1_000_000;
        assert_eq!(merge_at(&store, &[past("a@x", later - 50, later - 50, false)], later).await, 1);
        assert_eq!(asked(&store, "a@x", later).await, Sighting::Early { left: 50 });
    }

    #[tokio::test]
    async fn trust_is_merged_once_and_for_all() {
        let (_folder, store) = empty().await;
        let standing = |key: &str, passes| Standing { key: key.to_owned(), passes, last_counted: 500, expires: 5000 };
        let standings = [standing("192.0.2.0/24", 5), standing("198.51.100.0/24 x.test", 2)];
        let mut connection = Connection::acquire(&store).await.unwrap();
        assert_eq!(merge_trust(&mut connection, &standings, 1000).await.unwrap(), 2);
        assert_eq!(merge_trust(&mut connection, &standings, 1000).await.unwrap(), 0);
        let more = [standing("192.0.2.0/24", 4), standing("198.51.100.0/24 x.test", 3)];
        assert_eq!(merge_trust(&mut connection, &more, 1000).await.unwrap(), 1);
        let keys = ["192.0.2.0/24", "198.51.100.0/24 x.test"].map(str::to_owned);
        let mut known = trust::read(&mut connection, &keys, Some(1000)).await.unwrap();
        known.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(known.iter().map(|standing| standing.passes).collect::<Vec<_>>(), [5, 3]);
        // What was forgotten begins anew.
        let late = [Standing { last_counted: 9000, expires: 90_000, ..standing("192.0.2.0/24", 1) }];
        assert_eq!(merge_trust(&mut connection, &late, 9000).await.unwrap(), 1);
        let known = trust::read(&mut connection, &keys, Some(9000)).await.unwrap();
        assert_eq!(known.iter().map(|standing| standing.passes).collect::<Vec<_>>(), [1]);
    }

    proptest! {
        #[test]
        fn joining_is_the_same_in_any_order(a in (0i64..9, 0i64..9, any::<bool>()), b in (0i64..9, 0i64..9, any::<bool>())) {
            let (a, b) = (past("a@x", a.0, a.1, a.2), past("a@x", b.0, b.1, b.2));
            let (mut one, mut two) = (a.clone(), b.clone());
            one.join(&b);
            two.join(&a);
            prop_assert_eq!(&one, &two);
            let once = one.clone();
            one.join(&a);
            prop_assert_eq!(one, once);
        }
    }
}
