// SPDX-License-Identifier: GPL-3.0-or-later
//! Trust: clients that have come again often enough are not greylisted any more. The statements with a time of the test, then the
//! decisions.

use policyd::config::TrustLevel;
use policyd::store::trust::{COUNT_EVERY, clean, count, read};
use policyd::store::{Connection, trust::Standing};
use tests::postgres::Cluster;

use crate::gate::{number, sqlite, store};
use crate::pool::{Host, from, promises};

const KEEP: i64 = 100 * COUNT_EVERY;
/// Some moment.
const T: i64 = 1_700_000_000_000;

promises!(
    a_key_earns_one_pass_an_hour,
    counting_is_exact_for_many_hosts_at_once,
    a_trusted_client_is_not_greylisted,
    trust_may_go_by_network_and_domain,
    trust_is_not_given_when_it_is_off,
    the_exempt_are_not_asked_about,
    a_flood_from_one_network_is_not_recorded,
);

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn a_key_earns_one_pass_an_hour(url: &str) {
    let store = store(url).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let (key, both) = (keys(&["192.0.2.0/24"]), keys(&["192.0.2.0/24", "spf:example.org"]));
    let standing = |key: &str, passes, due| Standing { key: key.to_owned(), passes, due };
    assert!(read(&mut connection, &both, Some(T)).await.unwrap().is_empty());
    for (after, passes) in [(0, 1), (1, 1), (COUNT_EVERY - 1, 1), (COUNT_EVERY, 2), (2 * COUNT_EVERY - 1, 2)] {
        count(&mut connection, &key, KEEP, Some(T + after)).await.unwrap();
        let found = read(&mut connection, &both, Some(T + after)).await.unwrap();
        assert_eq!(found, [standing("192.0.2.0/24", passes, false)], "after {after}");
    }
    let later = T + 2 * COUNT_EVERY;
    assert_eq!(read(&mut connection, &key, Some(later)).await.unwrap(), [standing("192.0.2.0/24", 2, true)]);
    count(&mut connection, &both, KEEP, Some(later)).await.unwrap();
    let mut found = read(&mut connection, &both, Some(later)).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, [standing("192.0.2.0/24", 3, false), standing("spf:example.org", 1, false)]);
    // Not used for so long, it begins anew.
    let gone = later + KEEP;
    assert!(read(&mut connection, &both, Some(gone)).await.unwrap().is_empty());
    count(&mut connection, &key, KEEP, Some(gone)).await.unwrap();
    assert_eq!(read(&mut connection, &key, Some(gone)).await.unwrap(), [standing("192.0.2.0/24", 1, false)]);
    assert_eq!(clean(&mut connection, 10, Some(gone)).await.unwrap(), 1);
    assert_eq!(number(&store, "select count(*) from trust").await, 1);
}

async fn counting_is_exact_for_many_hosts_at_once(url: &str) {
    let store = store(url).await;
    for hour in 1..=3 {
        let hosts: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut connection = Connection::acquire(&store).await.unwrap();
                    let keys: Vec<String> = (10..30).map(|number| format!("198.51.{number}.0/24")).collect();
                    count(&mut connection, &keys, KEEP, Some(T + hour * COUNT_EVERY)).await.unwrap();
                })
            })
            .collect();
        for host in hosts {
            host.await.unwrap();
        }
    }
    assert_eq!(number(&store, "select count(*) from trust where passes = 3").await, 20);
}

const ZONE: &str = "example.net TXT \"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all\"\n";

async fn a_trusted_client_is_not_greylisted(url: &str) {
    let host = Host::start(url, ZONE, |settings| settings.greylist.trust_after = 3).await;
    for pass in 1..=3 {
        let sender = format!("s{pass}x@example.net");
        assert_eq!(host.reason(&from("192.0.2.1", "", &sender)).await, "greylist_new");
        host.five_minutes_pass().await;
        assert_eq!(host.reason(&from("192.0.2.1", "", &sender)).await, "greylist_passed_now");
        until(&host, &format!("select count(*) from trust where passes = {pass}"), 2).await;
        if pass < 3 {
            host.sql("update trust set last_counted = last_counted - 3600000").await;
        }
    }
    // Each level by itself, asked by a host that remembers nothing.
    let fresh = Host::start(url, ZONE, |settings| settings.greylist.trust_after = 3).await;
    let by = |client: &'static str, sender: &'static str| {
        let (fresh, request) = (&fresh, from(client, "", sender));
        async move {
            let finding = fresh.ask(&request).await;
            (finding.reason.word(), finding.fact)
        }
    };
    assert_eq!(by("192.0.2.77", "new@other.test").await, ("trusted", "192.0.2.0/24".to_owned()));
    assert_eq!(by("198.51.100.1", "new@example.net").await, ("trusted", "spf:example.net".to_owned()));
    assert_eq!(by("198.51.100.1", "new@other.test").await.0, "greylist_new");
    assert_eq!(by("203.0.113.1", "new@example.net").await.0, "greylist_new", "the domain does not authorise it");
    fresh.sql("delete from trust").await;
    assert_eq!(by("192.0.2.77", "new@other.test").await.0, "trusted", "remembered for a while");
    for host in [host, fresh] {
        host.end().await;
    }
}

async fn trust_may_go_by_network_and_domain(url: &str) {
    let host = Host::start(url, ZONE, |settings| {
        settings.greylist.trust_after = 1;
        settings.greylist.trust = vec![TrustLevel::NetworkDomain];
    })
    .await;
    host.ask(&from("192.0.2.1", "", "a@example.net")).await;
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("192.0.2.1", "", "a@example.net")).await, "greylist_passed_now");
    until(&host, "select count(*) from trust", 1).await;
    let found = host.ask(&from("192.0.2.9", "", "b@example.net")).await;
    assert_eq!((found.reason.word(), found.fact.as_str()), ("trusted", "192.0.2.0/24 example.net"));
    assert_eq!(host.reason(&from("192.0.2.9", "", "b@other.test")).await, "greylist_new");
    host.end().await;
}

/// Passes are counted after the answer.
pub async fn until(host: &Host, question: &str, answer: i64) {
    let answered = async {
        while host.number(question).await != answer {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::gate::PATIENCE, answered)
        .await
        .unwrap_or_else(|_| panic!("{question}: never {answer}"));
}

async fn trust_is_not_given_when_it_is_off(url: &str) {
    let host = Host::start(url, ZONE, |settings| settings.greylist.trust_after = 0).await;
    host.sql("insert into trust values ('192.0.2.0/24', 9, 0, 9000000000000)").await;
    assert_eq!(host.reason(&from("192.0.2.1", "", "a@example.net")).await, "greylist_new");
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("192.0.2.1", "", "a@example.net")).await, "greylist_passed_now");
    let on = Host::start(url, ZONE, |settings| settings.greylist.trust_after = 9).await;
    assert_eq!(on.reason(&from("192.0.2.1", "", "b@example.net")).await, "trusted");
    // Its use is counted after the hour, so that it stays trusted; nothing else was.
    until(&on, "select count(*) from trust where passes = 10", 1).await;
    assert_eq!(on.number("select count(*) from trust").await, 1);
    host.end().await;
    on.end().await;
}

async fn the_exempt_are_not_asked_about(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::write(&out, "example.com\n").unwrap();
    let host = Host::start(url, ZONE, |settings| settings.greylist.optout = vec![out.clone().into()]).await;
    for (recipient, reason) in
        [("abuse@example.org", "role_account"), ("joe@example.com", "opted_out"), ("joe@example.org", "greylist_new")]
    {
        let request =
            policyd::request::PolicyRequest { recipient: recipient.into(), ..from("192.0.2.1", "", "a@b.test") };
        assert_eq!(host.reason(&request).await, reason, "{recipient}");
    }
    assert_eq!(host.number("select count(*) from greylist").await, 1);
    host.end().await;
}

async fn a_flood_from_one_network_is_not_recorded(url: &str) {
    let host = Host::start(url, ZONE, |settings| settings.greylist.max_pending_per_net = 3).await;
    let at = |number: usize| format!("s{number}x@other.test");
    for (number, reason) in [
        (0, "greylist_new"),
        (1, "greylist_new"),
        (2, "greylist_new"),
        (3, "too_many_pending"),
        (4, "too_many_pending"),
        (0, "greylist_early"),
        (3, "too_many_pending"),
    ] {
        let finding = host.ask(&from("203.0.113.1", "", &at(number))).await;
        assert_eq!(finding.reason.word(), reason, "{number}");
        assert_eq!(finding.verdict.word(), "defer_if_permit");
    }
    assert_eq!(host.number("select count(*) from greylist").await, 3);
    assert_eq!(host.reason(&from("198.18.1.1", "", &at(5))).await, "greylist_new", "another network");
    for number in 6..12 {
        let sender = format!("s{number}x@example.net");
        assert_eq!(host.reason(&from("192.0.2.1", "", &sender)).await, "greylist_new", "a pool has no limit");
    }
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("203.0.113.1", "", &at(1))).await, "greylist_passed_now");
    assert_eq!(host.reason(&from("203.0.113.1", "", &at(3))).await, "greylist_new", "they are mail servers after all");
    host.end().await;
}
