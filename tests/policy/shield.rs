// SPDX-License-Identifier: GPL-3.0-or-later
//! The shield of a host: who asks far too often is deferred before anything is looked up, others and our own hosts are not.

use policyd::config::{GreylistMode, Settings};

use crate::gate::{Gate, number, patient, rcpt, sqlite, store, strict};

fn shielded(url: &str, action: &str) -> Settings {
    let mut settings = patient(strict(url));
    settings.policyd.shield.rate = "5/1h".to_owned();
    settings.policyd.shield.action = action.to_owned();
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_far_too_often_costs_the_store_nothing() {
    let (folder, url) = sqlite();
    let (own, friends) = (folder.path().join("own"), folder.path().join("friends"));
    std::fs::write(&own, "192.0.2.128/25\n").unwrap();
    std::fs::write(&friends, "192.0.2.50\n").unwrap();
    let mut settings = shielded(&url, "defer 4.7.1 slower, {seconds} seconds; id {id}");
    settings.greylist.own_networks = vec![own.into()];
    settings.access.client_whitelist = vec![friends.into()];
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    let mut deferred = async |ip: &str| {
        let mut count = 0;
        for attempt in 0..8 {
            // Another sender each time: without the shield each would be a row.
            let sender = format!("{}@x.example", ["a", "b", "c", "d", "e", "f", "g", "h"][attempt]);
            let answer = client.ask(&rcpt(ip, &sender, "r@our.test")).await.unwrap();
            count += usize::from(answer.starts_with("DEFER 4.7.1 slower, "));
            assert!(!answer.contains('{'), "{answer}");
        }
        count
    };
    assert_eq!(deferred("192.0.2.1").await, 3);
    assert_eq!(deferred("192.0.2.2").await, 3, "each has its own");
    assert_eq!(deferred("192.0.2.200").await, 0, "one of ours");
    assert_eq!(deferred("192.0.2.50").await, 0, "whitelisted");
    assert_eq!(number(&store(&url).await, "select count(*) from greylist").await, 5, "one network, five senders");
    let metrics = gate.get("/metrics").await;
    // No other test of this program has that reason.
    let line = "octroi_policyd_decisions_total{action=\"defer\",reason=\"shielded\"} 6";
    assert!(metrics.lines().any(|told| told == line), "{line} missing in\n{metrics}");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shield_may_only_count() {
    let (_folder, url) = sqlite();
    let mut settings = shielded(&url, "dunno");
    settings.greylist.mode = GreylistMode::Off;
    let gate = Gate::ready(settings).await;
    let before = over(&gate).await;
    let mut client = gate.client().await;
    for _ in 0..8 {
        assert_eq!(client.ask(&rcpt("192.0.2.1", "a@x.example", "r@our.test")).await.as_deref(), Some("DUNNO"));
    }
    // Other tests of this program count beside us.
    assert!(over(&gate).await >= before + 3);
    gate.end().await;
}

/// Requests above a shield so far.
async fn over(gate: &Gate) -> u64 {
    let metrics = gate.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("octroi_policyd_shield_over_total "));
    line.map_or(0, |number| number.parse().unwrap())
}
