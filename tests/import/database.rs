// SPDX-License-Identifier: GPL-3.0-or-later
//! From PostgreSQL to PostgreSQL: sqlgrey's tables as it makes them there, with times in the zone of the server.

use policyd::store::greylist::Sighting;
use sqlx::Connection;
use tests::postgres::Cluster;

use crate::old::{Target, count, now};

/// Runs statements.
async fn sql(url: &str, text: String) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Sets the zone of a server far from UTC, and waits until new sessions see it.
async fn move_to_new_york(url: &str) {
    sql(url, "alter system set log_timezone = 'America/New_York'".to_owned()).await;
    sql(url, "select pg_reload_conf()".to_owned()).await;
    loop {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let zone: String = sqlx::query_scalar("show log_timezone").fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        if zone == "America/New_York" {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tables_in_postgresql_are_read_and_merged() {
    let cluster = Cluster::start();
    move_to_new_york(&cluster.url()).await;
    let (source, store) = (cluster.new_database().await, cluster.new_database().await);
    sql(
        &source,
        format!(
            "create table connect (sender_name varchar(64) not null, sender_domain varchar(255) not null, src varchar(39) not null, \
                 rcpt varchar(255) not null, first_seen timestamp not null); \
             insert into connect select 'u' || n, 'x.test', '192.0.' || n % 250, 'r@our.test', \
                 to_timestamp({0} - 60) at time zone 'America/New_York' from generate_series(1, 2500) as n; \
             insert into connect values ('u1', 'x.test', '192.0.1', 'r@our.test', \
                 to_timestamp({0} - 3600) at time zone 'America/New_York'); \
             create table from_awl (sender_name varchar(64) not null, sender_domain varchar(255) not null, src varchar(39) not null, \
                 first_seen timestamp not null, last_seen timestamp not null); \
             insert into from_awl select 'v' || n, 'y.test', '203.0.113', \
                 to_timestamp({0} - 7200) at time zone 'America/New_York', \
                 to_timestamp({0} - 3600) at time zone 'America/New_York' from generate_series(1, 5) as n",
            now()
        ),
    )
    .await;
    let target = Target::at(&store);
    let told = target.import(&["sqlgrey", &source]);
    let counts = ["read", "imported", "unchanged", "trusted", "bad"].map(|word| count(&told, word));
    // The duplicate is in another batch than its original, and makes it older.
    assert_eq!(counts, [2506, 2501, 0, 1, 0], "{told}");
    let again = target.import(&["sqlgrey", &source]);
    assert_eq!(["imported", "trusted"].map(|word| count(&again, word)), [0, 0], "again changes nothing");
    assert_eq!(target.answered("203.0.113.9", "new@z.test", "r@our.test").await, "DUNNO");
    assert!(matches!(
        target.asked("192.0.1.9", "u1@x.test", "r@our.test").await,
        Sighting::PassedNow { waited: 3_500_000..3_700_000 }
    ));
    assert!(matches!(
        target.asked("192.0.2.9", "u2@x.test", "r@our.test").await,
        Sighting::Early { left: 100_000..300_000 }
    ));
}
