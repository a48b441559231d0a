// SPDX-License-Identifier: GPL-3.0-or-later
//! The store down, slow, silent or not there at the start: no request waits longer than its budget, and everything comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::store::Store;
use policyd::config::OnStoreError;
use tests::postgres::Cluster;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::gate::{Client, Gate, rcpt, sqlite, store, strict};

const FALLBACK: &str = "ready: the store does not answer";

/// Asks without a pause on several connections until told to stop; gives the longest wait and the number of answers.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(Duration, usize)>>,
}

impl Load {
    async fn start(gate: &Gate, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for number in 0..clients {
            let (mut client, stop) = (gate.client().await, stop.clone());
            running.push(tokio::spawn(async move {
                let (mut longest, mut answers) = (Duration::ZERO, 0);
                while !stop.load(Ordering::Relaxed) {
                    let sender = format!("s{number}x{}@example.net", answers % 50);
                    let asked = Instant::now();
                    let answer = client.ask(&rcpt("192.0.2.1", &sender, "r@example.org")).await;
                    assert!(answer.is_some(), "the connection stays open");
                    longest = longest.max(asked.elapsed());
                    answers += 1;
                }
                (longest, answers)
            }));
        }
        Load { stop, clients: running }
    }

    async fn end(self) -> (Duration, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut longest, mut answers) = (Duration::ZERO, 0);
        for client in self.clients {
            let (waited, answered) = client.await.unwrap();
            longest = longest.max(waited);
            answers += answered;
        }
        (longest, answers)
    }
}

async fn greylists(client: &mut Client, sender: &str) -> bool {
    client.ask(&rcpt("192.0.2.1", sender, "r@example.org")).await.unwrap().starts_with("DEFER_IF_PERMIT 4.7.1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_and_started_under_load() {
    let cluster = Cluster::start();
    let gate = Gate::ready(strict(&cluster.new_database().await)).await;
    let load = Load::start(&gate, 16).await;
    for round in 0..2 {
        let stopping =
            async { tokio::task::block_in_place(|| if round == 0 { cluster.stop() } else { cluster.crash() }) };
        stopping.await;
        gate.until_ready_says(FALLBACK).await;
        let mut client = gate.client().await;
        let asked = Instant::now();
        assert_eq!(client.ask(&rcpt("192.0.2.1", "down@example.net", "r@example.org")).await.as_deref(), Some("DUNNO"));
        assert!(asked.elapsed() < Duration::from_millis(500), "answered at once while it is down");
        tokio::task::block_in_place(|| cluster.start_again());
        gate.until_ready_says("ready: the store answers").await;
        assert!(greylists(&mut client, &format!("back{round}@example.net")).await, "greylisting goes on");
    }
    let (longest, answers) = load.end().await;
    assert!(longest < Duration::from_secs(2), "a request waited {longest:?}");
    assert!(answers > 100, "{answers} answers");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_requests_is_not_noticed() {
    let cluster = Cluster::start();
    let gate = Gate::ready(strict(&cluster.new_database().await)).await;
    let mut client = gate.client().await;
    assert!(greylists(&mut client, "before@example.net").await);
    tokio::task::block_in_place(|| {
        cluster.stop();
        cluster.start_again();
    });
    assert!(greylists(&mut client, "after@example.net").await, "the dead connection is replaced within the request");
    gate.end().await;
}

#[tokio::test]
async fn postgres_that_is_down_at_the_start_is_waited_for() {
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    tokio::task::spawn_blocking(move || {
        cluster.stop();
        cluster
    })
    .await
    .map(|cluster| async move {
        let mut settings = strict(&url);
        settings.policyd.on_store_error = OnStoreError::Defer;
        let gate = Gate::start(settings).await;
        let mut client = gate.client().await;
        let answer = client.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.unwrap();
        assert!(answer.starts_with("DEFER 4.3.0 "), "{answer}");
        assert!(gate.get("/ready").await.contains("on_store_error = \"defer\" decides"));
        cluster.start_again();
        gate.until_ready_says("ready: the store answers").await;
        assert!(greylists(&mut client, "a@example.net").await, "the schema was made meanwhile");
        gate.end().await;
    })
    .unwrap()
    .await;
}

#[tokio::test]
async fn a_store_that_accepts_and_says_nothing_costs_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let held = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            connections.push(connection);
        }
    });
    let gate = Gate::start(strict(&format!("postgres://octroi@127.0.0.1:{port}/octroi"))).await;
    let mut client = gate.client().await;
    // At the start requests wait for the store a little; this one is answered behind that.
    assert!(client.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.is_some());
    let asked = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.as_deref(), Some("DUNNO"));
    }
    assert!(asked.elapsed() < Duration::from_secs(1));
    gate.end().await;
    held.abort();
}

#[tokio::test]
async fn a_locked_table_costs_the_budget_and_then_nothing() {
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    let mut settings = strict(&url);
    settings.policyd.budget = "300ms".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let Store::Postgres(pool) = store(&url).await else { panic!("not PostgreSQL") };
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table greylist in access exclusive mode").execute(&mut *holder).await.unwrap();

    let mut client = gate.client().await;
    let mut waits = Vec::new();
    for number in 0..10 {
        let asked = Instant::now();
        let answer = client.ask(&rcpt("192.0.2.1", &format!("s{number}@example.net"), "r@example.org")).await;
        assert_eq!(answer.as_deref(), Some("DUNNO"));
        waits.push(asked.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait < Duration::from_millis(900)), "{waits:?}");
    assert!(waits[5..].iter().all(|wait| *wait < Duration::from_millis(100)), "the breaker is open: {waits:?}");
    gate.until_ready_says(FALLBACK).await;
    holder.rollback().await.unwrap();
    gate.until_ready_says("ready: the store answers").await;
    assert!(greylists(&mut client, "later@example.net").await);
    let page = gate.get("/metrics").await;
    assert!(page.contains("octroi_policyd_decisions_total{action=\"dunno\",reason=\"over_budget\"}"));
    assert!(page.contains("octroi_policyd_decisions_total{action=\"dunno\",reason=\"store_unavailable\"}"));
    gate.end().await;
}

#[tokio::test]
async fn learn_mode_never_defers_even_without_a_store() {
    let mut settings = strict("postgres://octroi@127.0.0.1:1/octroi");
    settings.greylist.mode = policyd::config::GreylistMode::Learn;
    settings.policyd.on_store_error = OnStoreError::Defer;
    let gate = Gate::start(settings).await;
    let mut client = gate.client().await;
    assert_eq!(client.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.as_deref(), Some("DUNNO"));
    gate.end().await;
}

#[tokio::test]
async fn a_sqlite_file_locked_by_another_program_is_waited_for_within_the_budget() {
    let (_folder, url) = sqlite();
    let mut settings = strict(&url);
    settings.policyd.budget = "300ms".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let Store::Sqlite(pool) = store(&url).await else { panic!("not SQLite") };
    let holder = pool.begin_with("begin immediate").await.unwrap();
    let mut client = gate.client().await;
    let asked = Instant::now();
    assert_eq!(client.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.as_deref(), Some("DUNNO"));
    assert!(asked.elapsed() < Duration::from_secs(1));
    holder.rollback().await.unwrap();
    gate.until_ready_says("ready: the store answers").await;
    let greylisted = async { while !greylists(&mut client, "c@example.net").await {} };
    tokio::time::timeout(Duration::from_secs(15), greylisted).await.expect("it goes on");
    gate.end().await;
}
