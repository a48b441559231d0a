// SPDX-License-Identifier: GPL-3.0-or-later
//! `on_store_error = "local"`: greylisting goes on while PostgreSQL is away, and afterwards the store is as if it had not been; and
//! whatever is killed at whatever moment, no triplet passes for the first time twice.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use common::address::Address;
use policyd::config::{OnStoreError, Settings};
use tests::daemon::Daemon;
use tests::ports::free_port;
use tests::postgres::Cluster;
use tokio::time::Instant;

use crate::gate::{Client, Gate, number, rcpt, sql, store, strict};

const DOWN: &str = "ready: the store does not answer";
const UP: &str = "ready: the store answers";
const DELAY: Duration = Duration::from_secs(1);

fn local(url: &str, folder: &Path) -> Settings {
    let mut settings = strict(url);
    settings.greylist.delay = "1s".parse().unwrap();
    settings.policyd.on_store_error = OnStoreError::Local;
    settings.policyd.journal = folder.join("policyd.journal");
    settings.policyd.journal_size = "1MB".parse().unwrap();
    settings
}

async fn ask(client: &mut Client, sender: &str) -> String {
    let asked = Instant::now();
    let answer = client.ask(&rcpt("192.0.2.1", sender, "r@example.org")).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{sender} waited {:?}", asked.elapsed());
    answer
}

async fn waits(client: &mut Client, sender: &str) -> bool {
    let answer = ask(client, sender).await;
    assert!(answer == "DUNNO" || answer.starts_with("DEFER_IF_PERMIT 4.7.1") || answer.starts_with("PREPEND"));
    answer.starts_with("DEFER_IF_PERMIT")
}

/// Asks again until the triplet passes, as a mail server does.
async fn until_it_passes(client: &mut Client, sender: &str) {
    let begun = Instant::now();
    while waits(client, sender).await {
        assert!(begun.elapsed() < 10 * DELAY, "{sender} never passes");
        tokio::time::sleep(DELAY / 10).await;
    }
}

/// A client that has been served: at its start a daemon lets requests wait for the store a little.
async fn served(address: &Address) -> Client {
    let mut client = Client::connect(address).await;
    assert_eq!(client.ask(&rcpt("192.0.2.1", "", "r@example.org")).await.as_deref(), Some("DUNNO"));
    client
}

fn blocking(work: impl FnOnce()) {
    tokio::task::block_in_place(work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_go_on_and_the_store_learns_of_them() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let url = cluster.new_database().await;
    let gate = Gate::ready(local(&url, folder.path())).await;
    let mut client = gate.client().await;
    assert!(waits(&mut client, "passed@x").await);
    until_it_passes(&mut client, "passed@x").await;
    assert!(waits(&mut client, "waits@x").await);

    blocking(|| cluster.stop());
    // Whoever asks first notices; nobody gets another answer because of it.
    for round in 0..10 {
        assert!(!waits(&mut client, "passed@x").await);
        assert!(waits(&mut client, &format!("flood{round}@x")).await);
    }
    gate.until_ready_says(DOWN).await;
    assert!(waits(&mut client, "new@x").await && waits(&mut client, "new@x").await);
    until_it_passes(&mut client, "new@x").await;
    until_it_passes(&mut client, "waits@x").await;
    assert!(waits(&mut client, "late@x").await);

    blocking(|| cluster.start_again());
    gate.until_ready_says(UP).await;
    let store = store(&url).await;
    let count =
        async |condition: &str| number(&store, &format!("select count(*) from greylist where {condition}")).await;
    assert_eq!(count("true").await, 14);
    assert_eq!(count("passes > 0 and sender in ('passed@x', 'waits@x', 'new@x')").await, 3);
    assert_eq!(count("passes = 0 and (sender = 'late@x' or sender like 'flood%')").await, 11);
    assert_eq!(count("sender = 'new@x' and tries >= 2 and last_seen - first_seen >= 1000").await, 1);
    assert_eq!(
        count("sender = 'new@x' and expires between last_seen + 3110390000 and last_seen + 3110410000").await,
        1
    );
    // Another host takes over from there.
    let other_folder = tempfile::tempdir().unwrap();
    let other = Gate::ready(local(&url, other_folder.path())).await;
    let mut there = other.client().await;
    for sender in ["passed@x", "waits@x", "new@x"] {
        assert_eq!(ask(&mut there, sender).await, "DUNNO", "{sender}");
    }
    until_it_passes(&mut there, "late@x").await;
    gate.end().await;
    other.end().await;
    assert_eq!(std::fs::metadata(folder.path().join("policyd.journal")).unwrap().len(), 0, "all is in the store");
}

/// The store hangs instead of failing: a request costs less than its budget, and later ones nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_costs_less_than_the_budget() {
    let (cluster, folder) = (Cluster::shared(), tempfile::tempdir().unwrap());
    let url = cluster.new_database().await;
    let mut settings = local(&url, folder.path());
    settings.greylist.delay = "10m".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let store = store(&url).await;
    let common::store::Store::Postgres(pool) = &store else { panic!("not PostgreSQL") };
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table greylist in access exclusive mode").execute(&mut *holder).await.unwrap();
    let mut client = gate.client().await;
    let mut waited = Vec::new();
    for number in 0..10 {
        let asked = Instant::now();
        assert!(waits(&mut client, &format!("s{number}@x")).await);
        waited.push(asked.elapsed());
    }
    assert!(waited[5..].iter().all(|wait| *wait < Duration::from_millis(200)), "{waited:?}");
    gate.until_ready_says(DOWN).await;
    holder.rollback().await.unwrap();
    gate.until_ready_says(UP).await;
    assert_eq!(number(&store, "select count(*) from greylist").await, 10);
    gate.end().await;
}

/// The outage takes longer than the daemon lives, and the daemon is killed in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_while_the_store_is_away_remembers_and_replays() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let url = cluster.new_database().await;
    let (port, page) = (free_port(), free_port());
    let text = format!(
        "[store]\nurl = \"{url}\"\n[policyd]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"127.0.0.1:{page}\"\n\
         journal = \"{}\"\n[greylist]\nmode = \"strict\"\ndelay = \"1s\"\n",
        folder.path().join("policyd.journal").display()
    );
    let file = folder.path().join("octroi.toml");
    std::fs::write(&file, text).unwrap();
    let address = Address::tcp("127.0.0.1", port);
    blocking(|| cluster.stop());
    let mut daemon = Daemon::new("policyd", folder.path(), &file).unwrap();
    daemon.start().unwrap();
    let mut client = served(&address).await;
    assert!(waits(&mut client, "a@x").await && waits(&mut client, "b@x").await);
    until_it_passes(&mut client, "a@x").await;
    // What the thread has taken is with the system at once; the answer may have been a moment faster.
    let journal = folder.path().join("policyd.journal");
    assert!(waits(&mut client, "d@x").await);
    until_it_holds(&journal, "d@x", 1).await;
    daemon.kill();

    daemon.start().unwrap();
    let mut client = served(&address).await;
    assert!(!waits(&mut client, "a@x").await, "it passed before the kill");
    assert!(!waits(&mut client, "b@x").await, "it has waited long enough");
    assert!(waits(&mut client, "c@x").await);
    until_it_holds(&journal, "c@x", 1).await;
    daemon.kill();
    blocking(|| cluster.start_again());
    let mut daemon = daemon.ready_page(page, UP);
    daemon.start().unwrap();
    let store = store(&url).await;
    assert_eq!(number(&store, "select count(*) from greylist where passes > 0").await, 2);
    assert_eq!(number(&store, "select count(*) from greylist").await, 4);
    assert!(daemon.stop().unwrap().success());
}

async fn until_it_holds(journal: &Path, sender: &str, times: usize) {
    let begun = Instant::now();
    let held = || {
        let bytes = std::fs::read(journal).unwrap_or_default();
        bytes.windows(sender.len()).filter(|window| *window == sender.as_bytes()).count()
    };
    while held() < times {
        assert!(begun.elapsed() < 10 * DELAY, "{sender} is not in the journal");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A request whose message has a header of its own: no other request shares its instance.
async fn ask_alone(client: &mut Client, sender: &str, instance: usize) -> Option<String> {
    let request =
        rcpt("192.0.2.1", sender, "r@example.org").replace("instance=1.2.3.4", &format!("instance={instance}"));
    client.send(request.as_bytes()).await;
    client.reply().await
}

/// PostgreSQL is killed while triplets pass. Which triplets are told "first pass" is counted by their header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_for_the_first_time_twice_when_postgres_is_killed() {
    const TRIPLETS: usize = 2000;
    const CLIENTS: usize = 8;
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    // With "dunno" no decision but the store's can be a first pass.
    let mut settings = strict(&url);
    settings.greylist.trust_after = 0;
    let gates = [Gate::ready(settings.clone()).await, Gate::ready(settings).await];
    let store = store(&url).await;
    let mut first_passes: HashMap<usize, usize> = HashMap::new();
    for round in 0..4 {
        let mut running = Vec::new();
        for number in 0..CLIENTS {
            let mut client = gates[number % 2].client().await;
            running.push(tokio::spawn(async move {
                let mut passed = Vec::new();
                for triplet in 0..TRIPLETS {
                    let instance = (round * CLIENTS + number) * TRIPLETS + triplet;
                    let answer = ask_alone(&mut client, &format!("t{triplet}z@x"), instance).await.expect("an answer");
                    if answer.starts_with("PREPEND X-Greylist") {
                        passed.push(triplet);
                    }
                }
                passed
            }));
        }
        if round == 1 || round == 2 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            blocking(|| cluster.crash());
            blocking(|| cluster.start_again());
        }
        for client in running {
            for triplet in client.await.unwrap() {
                *first_passes.entry(triplet).or_default() += 1;
            }
        }
        for gate in &gates {
            gate.until_ready_says(UP).await;
        }
        if round == 0 {
            assert!(first_passes.is_empty());
            sql(&store, "update greylist set first_seen = first_seen - 240000").await;
        }
    }
    assert!(first_passes.values().all(|times| *times == 1), "{first_passes:?}");
    // The connections of the first pool died with PostgreSQL.
    let store = crate::gate::store(&url).await;
    let waiting = number(&store, "select count(*) from greylist where passes = 0").await;
    assert_eq!(waiting, 0, "all have passed in the end");
    for gate in gates {
        gate.end().await;
    }
}
