// SPDX-License-Identifier: GPL-3.0-or-later
//! The log of decisions in the store, on both databases: what is written, what `octroi why` shows of it, and that it is forgotten by the day.

use std::time::Duration;

use policyd::store::Connection;
use policyd::store::decisions::{Logged, Question, clean, find, make_ahead, write};
use tests::postgres::Cluster;
use tokio::time::Instant;

use crate::explain::{done, octroi};
use crate::gate::{Gate, PATIENCE, number, rcpt, sqlite, store, strict};

const DAY: i64 = 86_400_000;
/// 2026-11-22, in days since 1970.
const TODAY: i64 = 20_779;

fn logged(at: i64, recipient: &str) -> Logged {
    let text = String::new;
    Logged {
        at,
        id: at % 1000,
        host: "mx1".to_owned(),
        client: "192.0.2.1".to_owned(),
        client_name: text(),
        helo: text(),
        sender: text(),
        recipient: recipient.to_owned(),
        instance: text(),
        queue_id: text(),
        state: "RCPT".to_owned(),
        decided_by: "none".to_owned(),
        verdict: "dunno".to_owned(),
        reason: "nothing_to_check".to_owned(),
        fact: text(),
        took_us: 7,
    }
}

async fn what_is_asked_for_is_found(url: &str) {
    let mut settings = strict(url);
    settings.decision_log.keep = "7d".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    for sender in ["a@example.net", "", "b@example.net"] {
        client.ask(&rcpt("192.0.2.1", sender, "r@example.org")).await.unwrap();
    }
    let aside = store(url).await;
    let since = Instant::now();
    while number(&aside, "select count(*) from decision_log").await < 3 {
        assert!(since.elapsed() < PATIENCE, "the decisions were never written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lines = |told: String| told.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(done(url, &["why", "--recipient", "r@example.org"]).await).len(), 3);
    assert_eq!(lines(done(url, &["why", "--client", "192.0.2.1", "--most", "2"]).await).len(), 2);
    let null = lines(done(url, &["why", "--sender", "<>"]).await);
    assert!(null.len() == 1 && null[0].contains("waits_for_data"), "{null:?}");
    let id = null[0].split_whitespace().nth(1).unwrap();
    assert!(done(url, &["why", id]).await.contains("waits_for_data"), "it is in the log only");
    let (status, _, told) = octroi(url, &["why", "--sender", "nobody@example.net"]).await;
    assert!(status == 65 && told.contains("decision_log.keep"), "{told}");
    assert_eq!(octroi(url, &["why"]).await.0, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_found_on_postgres() {
    what_is_asked_for_is_found(&Cluster::shared().new_database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_found_on_sqlite() {
    let (_folder, url) = sqlite();
    what_is_asked_for_is_found(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_made_ahead_by_many_hosts_and_dropped_whole() {
    let cluster = Cluster::shared();
    let store = store(&cluster.new_database().await).await;
    let now = TODAY * DAY + DAY / 2;
    let makers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { make_ahead(&mut Connection::acquire(&store).await.unwrap(), now).await.unwrap() })
    });
    for maker in makers.collect::<Vec<_>>() {
        assert_eq!(maker.await.unwrap(), (TODAY + 2) * DAY);
    }
    let partitions = "select count(*) from pg_inherits where inhparent = 'decision_log'::regclass";
    assert_eq!(number(&store, partitions).await, 4);
    let mut connection = Connection::acquire(&store).await.unwrap();
    let rows = [logged(now - DAY, "old@x.test"), logged(now, "new@x.test"), logged(now + DAY, "next@x.test")];
    write(&mut connection, &rows).await.unwrap();
    let all = Question { most: 10, ..Question::default() };
    assert_eq!(find(&mut connection, &all).await.unwrap().len(), 3);
    clean(&mut connection, now).await.unwrap();
    assert_eq!(number(&store, partitions).await, 3);
    let left = find(&mut connection, &all).await.unwrap();
    assert_eq!(left.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["next@x.test", "new@x.test"]);
    assert_eq!(left[1], rows[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_forgets_in_batches() {
    let (_folder, url) = sqlite();
    let store = store(&url).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let rows: Vec<Logged> = (0..1500).map(|at| logged(at, "x@x.test")).collect();
    write(&mut connection, &rows).await.unwrap();
    assert_eq!(clean(&mut connection, 1400).await.unwrap(), 1000);
    assert_eq!(clean(&mut connection, 1400).await.unwrap(), 400);
    assert_eq!(number(&store, "select count(*) from decision_log").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_logged_unless_it_is_wanted() {
    let (_folder, url) = sqlite();
    let gate = Gate::ready(strict(&url)).await;
    let mut client = gate.client().await;
    client.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.unwrap();
    drop((client, gate));
    assert_eq!(number(&store(&url).await, "select count(*) from decision_log").await, 0);
}
