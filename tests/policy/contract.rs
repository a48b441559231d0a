// SPDX-License-Identifier: GPL-3.0-or-later
//! What the greylist store promises, the same on PostgreSQL and SQLite. Time is given by the tests, in milliseconds.

use std::collections::HashMap;

use common::store::{Store, StoreSettings};
use policyd::store::Connection;
use policyd::store::greylist::{Answer, Ask, Sighting, Times, ask, ask_many, clean};
use policyd::store::queue::GreylistQueue;
use policyd::triplet::Triplet;
use tests::postgres::Cluster;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::frame::contract;
use crate::gate::{PATIENCE, number, sql, store};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const TIMES: Times = Times { delay: 4 * MINUTE, retry_window: 3 * DAY, keep_passed: 36 * DAY };
/// Some moment.
const T: i64 = 1_700_000_000_000;

fn triplet(number: usize) -> Triplet {
    let sender = format!("sender{number:04}@example.net");
    Triplet::new([192, 0, 2, 1].into(), &sender, "rcpt@example.org", 24, 64)
}

async fn seen(store: &Store, number: usize, at: i64) -> Sighting {
    ask(store, &triplet(number), TIMES, Some(at)).await.unwrap()
}

contract!(
    a_triplet_waits_and_passes,
    a_retry_after_the_window_starts_again,
    a_passed_triplet_is_kept_while_it_is_used,
    a_passed_triplet_is_written_once_an_hour,
    a_batch_answers_every_request,
    first_tries_wait_for_the_disk_when_told_to,
    parallel_askers_are_told_exactly_once,
    two_hosts_under_load_are_told_exactly_once,
    only_what_has_expired_is_deleted,
    hosts_that_start_at_once_make_one_schema,
    the_clock_is_the_database_s,
);

async fn a_triplet_waits_and_passes(url: &str) {
    let store = store(url).await;
    assert_eq!(seen(&store, 1, T).await, Sighting::New { left: 4 * MINUTE });
    assert_eq!(seen(&store, 1, T).await, Sighting::Early { left: 4 * MINUTE });
    assert_eq!(seen(&store, 1, T + MINUTE).await, Sighting::Early { left: 3 * MINUTE });
    assert_eq!(seen(&store, 1, T + 4 * MINUTE - 1).await, Sighting::Early { left: 1 });
    assert_eq!(seen(&store, 1, T + 4 * MINUTE).await, Sighting::PassedNow { waited: 4 * MINUTE });
    assert_eq!(seen(&store, 1, T + 4 * MINUTE).await, Sighting::Passed);
    assert_eq!(seen(&store, 1, T + DAY).await, Sighting::Passed);
    assert_eq!(number(&store, "select tries from greylist").await, 4);
    assert_eq!(seen(&store, 2, T + DAY).await, Sighting::New { left: 4 * MINUTE }, "another triplet");
}

async fn a_retry_after_the_window_starts_again(url: &str) {
    let store = store(url).await;
    seen(&store, 1, T).await;
    seen(&store, 2, T).await;
    assert_eq!(seen(&store, 1, T + 3 * DAY - 1).await, Sighting::PassedNow { waited: 3 * DAY - 1 });
    assert_eq!(seen(&store, 2, T + 3 * DAY).await, Sighting::New { left: 4 * MINUTE });
    assert_eq!(seen(&store, 2, T + 3 * DAY + 5 * MINUTE).await, Sighting::PassedNow { waited: 5 * MINUTE });
}

async fn a_passed_triplet_is_kept_while_it_is_used(url: &str) {
    let store = store(url).await;
    seen(&store, 1, T).await;
    seen(&store, 1, T + HOUR).await;
    let (mut at, month) = (T + HOUR, 31 * DAY);
    for _ in 0..4 {
        at += month;
        assert_eq!(seen(&store, 1, at).await, Sighting::Passed);
    }
    assert_eq!(seen(&store, 1, at + 36 * DAY).await, Sighting::New { left: 4 * MINUTE });
}

async fn a_passed_triplet_is_written_once_an_hour(url: &str) {
    let store = store(url).await;
    seen(&store, 1, T).await;
    let passed = T + HOUR;
    seen(&store, 1, passed).await;
    assert_eq!(seen(&store, 1, passed + HOUR - 1).await, Sighting::Passed);
    assert_eq!(number(&store, "select last_seen from greylist").await, passed, "only read");
    assert_eq!(seen(&store, 1, passed + HOUR).await, Sighting::Passed);
    assert_eq!(number(&store, "select last_seen from greylist").await, passed + HOUR, "written");
    assert_eq!(number(&store, "select expires from greylist").await, passed + HOUR + 36 * DAY);
}

async fn first_tries_wait_for_the_disk_when_told_to(url: &str) {
    let store = store(url).await;
    for (durable, postgres, sqlite) in [(false, "off", 1), (true, "on", 2)] {
        match Connection::acquire_for_triplets(&store, durable).await.unwrap() {
            Connection::Postgres(mut connection) => {
                let commit: String =
                    sqlx::query_scalar("show synchronous_commit").fetch_one(&mut *connection).await.unwrap();
                assert_eq!(commit, postgres);
            }
            Connection::Sqlite(mut connection) => {
                let synchronous: i64 =
                    sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await.unwrap();
                assert_eq!(synchronous, sqlite);
            }
        }
    }
}

async fn a_batch_answers_every_request(url: &str) {
    let store = store(url).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    // One known and passed, one waiting, the rest new; several requests each.
    seen(&store, 1, T).await;
    seen(&store, 1, T + HOUR).await;
    seen(&store, 2, T + HOUR).await;
    let asks: Vec<Ask> = (0..100).map(|number| Ask { triplet: triplet(number), requests: 3 }).collect();
    let answers = ask_many(&mut connection, &asks, TIMES, Some(T + HOUR)).await.unwrap();
    let (new, early) = (Sighting::New { left: 4 * MINUTE }, Sighting::Early { left: 4 * MINUTE });
    for (number, answer) in answers.iter().enumerate() {
        let (first, others, keeps) = match number {
            1 => (Sighting::Passed, Sighting::Passed, 36 * DAY),
            2 => (early, early, 3 * DAY),
            _ => (new, early, 3 * DAY),
        };
        assert_eq!(*answer, Answer { first, others, keeps }, "triplet {number}");
    }
    assert_eq!(number(&store, "select tries from greylist where sender = 'sender0002@example.net'").await, 4);
    let later = ask_many(&mut connection, &asks, TIMES, Some(T + 2 * HOUR)).await.unwrap();
    assert_eq!((later[3].first, later[3].others), (Sighting::PassedNow { waited: HOUR }, Sighting::Passed));
}

async fn parallel_askers_are_told_exactly_once(url: &str) {
    let store = store(url).await;
    for (at, first) in [(T, Sighting::New { left: 4 * MINUTE }), (T + HOUR, Sighting::PassedNow { waited: HOUR })] {
        let askers: Vec<_> = (0..16)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { seen(&store, 1, at).await })
            })
            .collect();
        let mut told = 0;
        for asker in askers {
            told += usize::from(asker.await.unwrap() == first);
        }
        assert_eq!(told, 1, "{first:?}");
    }
    assert_eq!(number(&store, "select tries from greylist").await, 16, "counters are exact");
}

async fn two_hosts_under_load_are_told_exactly_once(url: &str) {
    let (store, stop) = (store(url).await, CancellationToken::new());
    let other = Store::open(&StoreSettings { url: url.to_owned(), ..StoreSettings::default() }).await.unwrap();
    let hosts = [GreylistQueue::start(&store, &stop), GreylistQueue::start(&other, &stop)];
    for host in &hosts {
        host.health().watch().wait_for(|up| *up).await.unwrap();
    }
    let ask_all = async |times: Times| {
        let askers: Vec<_> = (0..400)
            .map(|number: usize| {
                let (queue, triplet) = (hosts[number % 2].clone(), triplet(number / 20));
                tokio::spawn(async move { queue.ask(triplet, times, Instant::now() + PATIENCE).await.unwrap() })
            })
            .collect();
        let mut told: HashMap<&str, usize> = HashMap::new();
        for asker in askers {
            *told.entry(word(asker.await.unwrap())).or_default() += 1;
        }
        told
    };
    assert_eq!(ask_all(TIMES).await, HashMap::from([("new", 20), ("early", 380)]));
    assert_eq!(number(&store, "select cast(sum(tries) as bigint) from greylist").await, 400);
    sql(&store, "update greylist set first_seen = first_seen - 300000").await;
    assert_eq!(ask_all(TIMES).await, HashMap::from([("passed_now", 20), ("passed", 380)]));
    stop.cancel();
    for host in &hosts {
        host.ended().await;
    }
}

fn word(sighting: Sighting) -> &'static str {
    match sighting {
        Sighting::New { .. } => "new",
        Sighting::Early { .. } => "early",
        Sighting::PassedNow { .. } => "passed_now",
        Sighting::Passed => "passed",
    }
}

async fn only_what_has_expired_is_deleted(url: &str) {
    let store = store(url).await;
    for number in 0..30 {
        seen(&store, number, T).await;
    }
    for number in 0..10 {
        seen(&store, number, T + HOUR).await;
    }
    let mut connection = Connection::acquire(&store).await.unwrap();
    assert_eq!(clean(&mut connection, 100, Some(T + 3 * DAY - 1)).await.unwrap(), 0);
    assert_eq!(clean(&mut connection, 15, Some(T + 3 * DAY)).await.unwrap(), 15, "one batch");
    assert_eq!(clean(&mut connection, 15, Some(T + 3 * DAY)).await.unwrap(), 5, "the rest");
    assert_eq!(number(&store, "select count(*) from greylist where passes > 0").await, 10);
    assert_eq!(clean(&mut connection, 15, Some(T + HOUR + 36 * DAY)).await.unwrap(), 10);
    assert_eq!(number(&store, "select count(*) from greylist").await, 0);
}

async fn hosts_that_start_at_once_make_one_schema(url: &str) {
    let stop = CancellationToken::new();
    let mut hosts = Vec::new();
    for _ in 0..6 {
        let store = Store::open(&StoreSettings { url: url.to_owned(), ..StoreSettings::default() }).await.unwrap();
        hosts.push((GreylistQueue::start(&store, &stop), store));
    }
    for (queue, store) in &hosts {
        queue.health().watch().wait_for(|up| *up).await.unwrap();
        assert_eq!(number(store, "select count(*) from greylist").await, 0);
    }
    stop.cancel();
}

async fn the_clock_is_the_database_s(url: &str) {
    let store = store(url).await;
    assert_eq!(ask(&store, &triplet(1), TIMES, None).await.unwrap(), Sighting::New { left: 4 * MINUTE });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let seen = number(&store, "select first_seen from greylist").await;
    assert!((now - seen).abs() < MINUTE, "milliseconds since 1970: {seen} at {now}");
    sql(&store, "update greylist set first_seen = first_seen - 240000").await;
    assert!(matches!(ask(&store, &triplet(1), TIMES, None).await.unwrap(), Sighting::PassedNow { .. }));
}

/// What only PostgreSQL has: rows that others hold, and other cleaners.
#[tokio::test]
async fn a_cleaner_waits_for_nobody() {
    let cluster = Cluster::shared();
    let store = store(&cluster.new_database().await).await;
    for number in 0..3 {
        seen(&store, number, T).await;
    }
    let mut connection = Connection::acquire(&store).await.unwrap();
    let Store::Postgres(pool) = &store else { panic!("not PostgreSQL") };

    let mut holder = pool.begin().await.unwrap();
    sqlx::query("select 1 from greylist where sender like 'sender0001%' for update")
        .execute(&mut *holder)
        .await
        .unwrap();
    assert_eq!(clean(&mut connection, 100, Some(T + 3 * DAY)).await.unwrap(), 2, "the held row stays");
    holder.rollback().await.unwrap();

    let mut cleaner = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(x'6f6374726f690001'::bigint)").execute(&mut *cleaner).await.unwrap();
    assert_eq!(clean(&mut connection, 100, Some(T + 3 * DAY)).await.unwrap(), 0, "another host is cleaning");
    cleaner.rollback().await.unwrap();
    assert_eq!(clean(&mut connection, 100, Some(T + 3 * DAY)).await.unwrap(), 1);
}

/// Connections that died while nobody used them are replaced, however many the pool holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_in_the_pool_are_replaced() {
    let cluster = Cluster::start();
    let store = store(&cluster.new_database().await).await;
    let Store::Postgres(pool) = &store else { panic!("not PostgreSQL") };
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pool.acquire().await.unwrap());
    }
    for mut connection in held {
        connection.return_to_pool().await;
    }
    assert!(pool.num_idle() >= 5);
    tokio::task::block_in_place(|| {
        cluster.stop();
        cluster.start_again();
    });
    Connection::acquire(&store).await.expect("a living one");
}

/// A plan made while the table was small must not read a large one from end to end.
#[tokio::test]
async fn the_statement_finds_its_rows_by_the_key() {
    let cluster = Cluster::shared();
    let store = store(&cluster.new_database().await).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let asks = [Ask { triplet: triplet(1), requests: 1 }];
    ask_many(&mut connection, &asks, TIMES, None).await.unwrap();
    sql(&store, "alter table greylist set (autovacuum_enabled = off)").await;
    sql(&store, "analyze greylist").await;
    // More often than PostgreSQL tries custom plans, so that the generic one is in place.
    for _ in 0..10 {
        ask_many(&mut connection, &asks, TIMES, None).await.unwrap();
    }
    let many = "insert into greylist select '198.51.100.0/24', 's' || n, 'r', 0, 0, 1, 0, 9000000000000 \
                from generate_series(1, 100000) as n";
    sql(&store, many).await;
    let before = rows_read(&store, &mut connection).await;
    for _ in 0..10 {
        ask_many(&mut connection, &asks, TIMES, None).await.unwrap();
    }
    let read = rows_read(&store, &mut connection).await - before;
    assert!(read < 1000, "{read} rows were read from end to end");
}

/// Rows of the table that were read by scanning it, with those of this connection.
async fn rows_read(store: &Store, connection: &mut Connection) -> i64 {
    let Connection::Postgres(connection) = connection else { panic!("not PostgreSQL") };
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut **connection).await.unwrap();
    // Statistics are handed over between two statements.
    sqlx::query("select 1").execute(&mut **connection).await.unwrap();
    number(store, "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables where relname = 'greylist'")
        .await
}
