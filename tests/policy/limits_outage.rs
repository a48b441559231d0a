// SPDX-License-Identifier: GPL-3.0-or-later
//! PostgreSQL goes away and comes back: what a host has charged by itself meanwhile is charged in the store, once, so that a quota of the day is
//! not given twice; through a restart of policyd, and when the same journal is taken over again.

use std::path::Path;
use std::time::{Duration, Instant};

use policyd::config::{GreylistMode, LimitSettings, OnStoreError, Settings};
use policyd::limits::unit::Unit;
use tests::postgres::Cluster;

use crate::gate::{Gate, PATIENCE, number, rcpt, store, strict};

const DOWN: &str = "ready: the store does not answer";
const UP: &str = "ready: the store answers";
const LEVEL: &str =
    "select coalesce(max(level), 0) / 1000000 from limit_bucket where bucket = 'sender week a@example.net'";

/// Ten recipients a week for each sender, on one of two hosts.
fn settings(url: &str, folder: &Path) -> Settings {
    let mut settings = strict(url);
    settings.greylist.mode = GreylistMode::Off;
    settings.limit = vec![LimitSettings {
        name: "sender".to_owned(),
        key: vec!["sender".to_owned()],
        unit: Unit::Recipients,
        rate: vec!["10/week".to_owned()],
        ..LimitSettings::default()
    }];
    settings.limits.hosts = 2;
    settings.policyd.on_store_error = OnStoreError::Local;
    settings.policyd.journal = folder.join("policyd.journal");
    settings.policyd.journal_size = "1MB".parse().unwrap();
    settings
}

/// Asks about these messages; gives how many may go on.
async fn send(gate: &Gate, instances: std::ops::Range<u32>) -> usize {
    let (mut client, mut passed) = (gate.client().await, 0);
    for instance in instances {
        let request = rcpt("192.0.2.1", "a@example.net", "r@example.org");
        let request = request.replace("instance=1.2.3.4", &format!("instance={instance}"));
        passed += usize::from(client.ask(&request).await.unwrap() == "DUNNO");
    }
    passed
}

/// Waits until the store holds so many units.
async fn until_level(url: &str, level: i64) {
    let (store, deadline) = (store(url).await, Instant::now() + PATIENCE);
    loop {
        let now = number(&store, LEVEL).await;
        if now == level {
            return;
        }
        assert!(Instant::now() < deadline, "{now} units instead of {level}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_gives_no_quota_twice() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let url = cluster.new_database().await;
    let settings = settings(&url, folder.path());
    let gate = Gate::ready(settings.clone()).await;
    assert_eq!(send(&gate, 0..3).await, 3);
    until_level(&url, 3).await;
    tokio::task::block_in_place(|| cluster.stop());
    assert_eq!(send(&gate, 10..18).await, 5, "its half of the limit");
    gate.until_ready_says(DOWN).await;
    gate.end().await;

    // The next process goes on from there, and a repetition is one.
    let gate = Gate::start(settings.clone()).await;
    assert_eq!(send(&gate, 20..23).await, 0, "its half is used up");
    assert_eq!(send(&gate, 10..15).await, 5, "repeated");
    let journal = folder.path().join("policyd.journal");
    let written = std::fs::read(&journal).unwrap();
    assert!(!written.is_empty());
    tokio::task::block_in_place(|| cluster.start_again());
    gate.until_ready_says(UP).await;
    until_level(&url, 8).await;
    assert_eq!(send(&gate, 10..15).await, 5, "repeated, now the store knows them");
    assert_eq!(send(&gate, 30..40).await, 2, "no more than ten in all");
    until_level(&url, 10).await;
    let metrics = gate.get("/metrics").await;
    assert!(metrics.contains("octroi_policyd_limit_handed_over_total{outcome=\"charged\"} 5"), "{metrics}");
    gate.end().await;
    assert_eq!(std::fs::metadata(&journal).unwrap().len(), 0, "all is in the store");

    // As if it had been broken off before the file went.
    std::fs::write(&journal, written).unwrap();
    let gate = Gate::ready(settings).await;
    let metrics = gate.get("/metrics").await;
    assert!(metrics.contains("octroi_policyd_limit_handed_over_total{outcome=\"repeated\"} 5"), "{metrics}");
    until_level(&url, 10).await;
    gate.end().await;
}
