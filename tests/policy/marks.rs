// SPDX-License-Identifier: GPL-3.0-or-later
//! What is remembered for a while: replies to mail of ours are not greylisted, and a network that writes to a trap waits long on every
//! host. The statements, then the decisions.

use std::path::PathBuf;

use policyd::checks::marks::TRAP;
use policyd::config::{GreylistMode, Settings};
use policyd::request::PolicyRequest;
use policyd::store::Connection;
use policyd::store::marks::{Mark, any, clean, list, read, remove, write};
use tests::postgres::Cluster;

use crate::explain::{done, octroi};
use crate::gate::{Gate, number, patient, sql, sqlite, store, strict};
use crate::pool::{Host, from, promises};
use crate::trust::until;

promises!(
    a_mark_is_kept_for_its_time,
    marks_of_many_hosts_at_once_do_not_wait_for_each_other,
    a_reply_to_mail_of_ours_is_not_greylisted,
    only_mail_of_ours_is_remembered,
    who_writes_to_a_trap_waits_on_every_host,
    some_clients_are_never_trapped,
    a_running_daemon_remembers,
    the_command_shows_and_releases_who_is_trapped,
);

const MINUTE: i64 = 60_000;

fn mark(key: &str, keep: i64) -> Mark {
    Mark { key: key.to_owned(), keep, fact: format!("for {keep}") }
}

async fn a_mark_is_kept_for_its_time(url: &str) {
    let store = store(url).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let keys = ["a", "b", "c"].map(str::to_owned);
    assert!(!any(&mut connection).await.unwrap());
    // In one batch the longer of two counts, and later too.
    let marks = vec![mark("b", MINUTE), mark("a", MINUTE), mark("a", 9 * MINUTE), mark("gone", -1)];
    write(&mut connection, marks).await.unwrap();
    write(&mut connection, vec![mark("a", MINUTE)]).await.unwrap();
    let mut found = read(&mut connection, &keys).await.unwrap();
    found.sort();
    assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!((8 * MINUTE..=9 * MINUTE).contains(&found[0].1) && (1..=MINUTE).contains(&found[1].1), "{found:?}");
    assert_eq!(number(&store, "select count(*) from marks where key = 'a' and fact = 'for 540000'").await, 1);
    write(&mut connection, vec![mark("b", 20 * MINUTE)]).await.unwrap();
    assert!(read(&mut connection, &keys[1..2]).await.unwrap()[0].1 > 19 * MINUTE);
    assert!(any(&mut connection).await.unwrap());
    assert_eq!(clean(&mut connection, 10).await.unwrap(), 1, "what has expired");
    sql(&store, "update marks set expires = 5").await;
    assert!(read(&mut connection, &keys).await.unwrap().is_empty() && !any(&mut connection).await.unwrap());
    write(&mut connection, vec![mark("a", MINUTE)]).await.unwrap();
    assert_eq!(read(&mut connection, &keys).await.unwrap().len(), 1, "an expired mark is made anew");
    assert_eq!((clean(&mut connection, 1).await.unwrap(), clean(&mut connection, 1).await.unwrap()), (1, 0));
}

async fn marks_of_many_hosts_at_once_do_not_wait_for_each_other(url: &str) {
    let store = store(url).await;
    let hosts: Vec<_> = (0..8)
        .map(|host| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut connection = Connection::acquire(&store).await.unwrap();
                for round in 0..5 {
                    let mut marks: Vec<_> =
                        (0..100).map(|key| mark(&format!("k{key}"), MINUTE * (host + round + 1))).collect();
                    marks.rotate_left(usize::try_from(host * 12).unwrap());
                    write(&mut connection, marks).await.unwrap();
                }
            })
        })
        .collect();
    for host in hosts {
        host.await.unwrap();
    }
    assert_eq!(number(&store, "select count(*) from marks where fact = 'for 720000'").await, 100, "the longest");
}

async fn a_host(url: &str, zone: &str, change: impl FnOnce(&mut Settings)) -> Host {
    Host::start(url, zone, change).await
}

/// Ours writes to somebody, after it has logged in.
fn out<'a>(sender: &'a str, recipient: &'a str) -> PolicyRequest<'a> {
    PolicyRequest { sasl_username: "ann".into(), recipient: recipient.into(), ..from("198.51.100.7", "", sender) }
}

fn to<'a>(recipient: &'a str, request: PolicyRequest<'a>) -> PolicyRequest<'a> {
    PolicyRequest { recipient: recipient.into(), ..request }
}

async fn a_reply_to_mail_of_ours_is_not_greylisted(url: &str) {
    let host = a_host(url, "", |_| {}).await;
    let reply = || to("Ann@our.test", from("192.0.2.1", "", "joe@their.test"));
    assert_eq!(host.reason(&out("ann+shop@our.test", "Joe@their.test")).await, "authenticated");
    assert_eq!(host.reason(&reply()).await, "reply", "known on this host at once");
    until(&host, "select count(*) from marks where key = 'reply ann@our.test joe@their.test'", 1).await;
    // A host that remembers nothing.
    let other = a_host(url, "", |_| {}).await;
    assert_eq!(other.reason(&reply()).await, "reply");
    for (recipient, sender) in
        [("bob@our.test", "joe@their.test"), ("ann@our.test", "jim@their.test"), ("joe@their.test", "ann@our.test")]
    {
        let found = other.reason(&to(recipient, from("192.0.2.1", "", sender))).await;
        assert_eq!(found, "greylist_new", "{sender} to {recipient}");
    }
    let off = a_host(url, "", |settings| settings.greylist.remember_recipients = "0s".parse().unwrap()).await;
    assert_eq!(off.reason(&reply()).await, "greylist_new");
    assert_eq!(off.reason(&out("ann@our.test", "new@their.test")).await, "authenticated");
    // What has expired is forgotten.
    host.sql("update marks set expires = 5").await;
    let late = a_host(url, "", |_| {}).await;
    assert_ne!(late.reason(&reply()).await, "reply");
    assert_eq!(host.number("select count(*) from marks where key like '%new@their.test'").await, 0);
    for host in [host, other, off, late] {
        host.end().await;
    }
}

async fn only_mail_of_ours_is_remembered(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [own, white, black] = [("own", "203.0.113.0/24\n"), ("white", "203.0.113.9\n"), ("black", "bad@our.test\n")]
        .map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
    let host = a_host(url, "", |settings| {
        settings.greylist.own_networks = vec![own.into()];
        settings.access.client_whitelist = vec![white.into()];
        settings.access.sender_blacklist = vec![black.into()];
    })
    .await;
    for (client, sender, recipient, reason) in [
        ("192.0.2.1", "a@our.test", "joe@their.test", "greylist_new"),
        ("203.0.113.1", "bad@our.test", "joe@their.test", "sender_blacklisted"),
        ("203.0.113.1", "", "joe@their.test", "waits_for_data"),
        ("203.0.113.1", "b@our.test", "joe@their.test", "own_network"),
        ("203.0.113.9", "c@our.test", "joe@their.test", "client_whitelisted"),
    ] {
        assert_eq!(host.reason(&to(recipient, from(client, "", sender))).await, reason, "{client} {sender}");
    }
    until(&host, "select count(*) from marks", 2).await;
    for sender in ["b", "c"] {
        let key = format!("select count(*) from marks where key = 'reply {sender}@our.test joe@their.test'");
        assert_eq!(host.number(&key).await, 1);
    }
    host.end().await;
}

/// A list with one trap, in a folder that goes with the test.
fn traps() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traps");
    std::fs::write(&file, "old@our.test\n").unwrap();
    (folder, file)
}

async fn who_writes_to_a_trap_waits_on_every_host(url: &str) {
    let (_folder, file) = traps();
    let start = |mode| {
        a_host(url, "", {
            let file = file.clone();
            move |settings| {
                settings.greylist.mode = mode;
                settings.greylist.traps = vec![file.into()];
            }
        })
    };
    let host = start(GreylistMode::Strict).await;
    let found = host.ask(&to("old@our.test", from("192.0.2.1", "", "x@spam.test"))).await;
    assert_eq!((found.reason.word(), found.verdict.word()), ("trap", "defer_if_permit"));
    assert!(found.fact.starts_with("old@our.test ("), "{}", found.fact);
    assert_eq!(host.reason(&from("192.0.2.200", "", "y@spam.test")).await, "trapped", "its network, at once");
    assert_eq!(host.reason(&from("192.0.3.1", "", "y@spam.test")).await, "greylist_new");
    until(
        &host,
        "select count(*) from marks where key = 'trap 192.0.2.0/24' and fact = '192.0.2.1 wrote to old@our.test'",
        1,
    )
    .await;
    assert_eq!(host.number("select count(*) from greylist").await, 1, "who is trapped is not recorded");
    // Another host, on which it shows no sign.
    let other = start(GreylistMode::Adaptive).await;
    let clean = from("192.0.2.3", "mail.example.net", "z@example.net");
    let found = other.ask(&clean).await;
    assert_eq!((found.reason.word(), found.verdict.word()), ("trapped", "defer_if_permit"));
    let elsewhere = from("192.0.3.3", "mail.example.net", "z@example.net");
    let found = other.ask(&elsewhere).await;
    assert_eq!((found.reason.word(), found.fact.as_str()), ("unsuspicious", ""));
    let abuse = to("abuse@our.test", from("192.0.2.3", "mail.example.net", "z@example.net"));
    assert_eq!(other.reason(&abuse).await, "role_account");
    // In learn mode it is only said, and without traps nothing.
    let learning = start(GreylistMode::Learn).await;
    let found = learning.ask(&clean).await;
    assert_eq!((found.reason.word(), found.verdict.word()), ("would_defer", "prepend"));
    let without = a_host(url, "", |_| {}).await;
    assert_eq!(without.reason(&clean).await, "greylist_new");
    // It was a mistake.
    let mut connection = Connection::acquire(&store(url).await).await.unwrap();
    let trapped = list(&mut connection, TRAP).await.unwrap();
    assert!(trapped.len() == 1 && trapped[0].0 == "trap 192.0.2.0/24" && trapped[0].2 > 86_000_000, "{trapped:?}");
    assert!(remove(&mut connection, "trap 192.0.2.0/24").await.unwrap());
    assert!(!remove(&mut connection, "trap 192.0.2.0/24").await.unwrap());
    let later = start(GreylistMode::Adaptive).await;
    assert_eq!(later.reason(&clean).await, "unsuspicious");
    for host in [host, other, learning, without, later] {
        host.end().await;
    }
}

async fn some_clients_are_never_trapped(url: &str) {
    let (folder, file) = traps();
    let white = folder.path().join("white");
    std::fs::write(&white, "192.0.2.0/24\n").unwrap();
    sql(&store(url).await, "insert into trust values ('203.0.113.0/24', 9, 0, 9000000000000)").await;
    let host = a_host(url, "4.3.2.198.wl.test A 127.0.5.2\n5.3.2.198.wl.test TIMEOUT\n", |settings| {
        settings.greylist.traps = vec![file.into()];
        settings.access.client_whitelist = vec![white.into()];
        settings.greylist.dnswl = vec![policyd::checks::dnswl::Dnswl { zone: "wl.test".to_owned(), min_level: 1 }];
    })
    .await;
    let trap = |client: &'static str| to("old@our.test", from(client, "", "x@spam.test"));
    assert_eq!(host.reason(&trap("192.0.2.1")).await, "client_whitelisted");
    assert_eq!(host.reason(&trap("203.0.113.1")).await, "trusted");
    assert_eq!(host.reason(&trap("198.2.3.4")).await, "dns_whitelisted");
    assert_eq!(host.reason(&trap("198.2.3.5")).await, "trap");
    assert_eq!(host.reason(&from("198.2.3.6", "", "x@spam.test")).await, "greylist_new", "nobody could tell");
    let user = PolicyRequest { sasl_username: "ann".into(), ..trap("100.64.1.1") };
    assert_eq!(host.reason(&user).await, "authenticated");
    assert_eq!(host.reason(&to("old@our.test", from("100.64.1.1", "", ""))).await, "waits_for_data");
    until(&host, "select count(*) from marks", 1).await;
    assert_eq!(host.number("select count(*) from marks where key like 'reply %'").await, 1, "only what the user wrote");
    // A network of strangers is trapped; trust in one of its domains, or mail that one of ours wrote, still counts.
    assert_eq!(host.reason(&trap("100.96.1.1")).await, "trap");
    assert_eq!(host.reason(&out("ann@our.test", "joe@their.test")).await, "authenticated");
    let reply = to("ann@our.test", from("100.96.1.2", "", "joe@their.test"));
    assert_eq!(host.reason(&reply).await, "reply");
    assert_eq!(host.reason(&from("100.96.1.2", "", "joe@their.test")).await, "trapped");
    host.end().await;
}

async fn a_running_daemon_remembers(url: &str) {
    let gate = Gate::ready(patient(strict(url))).await;
    let mut client = gate.client().await;
    let request = |user: &str, sender: &str, recipient: &str| {
        format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\nhelo_name=x\n\
             sasl_username={user}\nsender={sender}\nrecipient={recipient}\n\n"
        )
    };
    assert_eq!(client.ask(&request("ann", "ann@our.test", "joe@their.test")).await.as_deref(), Some("DUNNO"));
    // The end of the daemon writes what waits.
    gate.end().await;
    let store = store(url).await;
    assert_eq!(number(&store, "select count(*) from marks").await, 1);
    let gate = Gate::ready(patient(strict(url))).await;
    let mut client = gate.client().await;
    assert_eq!(client.ask(&request("", "joe@their.test", "ann@our.test")).await.as_deref(), Some("DUNNO"));
    let other = client.ask(&request("", "jim@their.test", "ann@our.test")).await.unwrap();
    assert!(other.starts_with("DEFER_IF_PERMIT 4.7.1 Greylisted"), "{other}");
    gate.end().await;
}

async fn the_command_shows_and_releases_who_is_trapped(url: &str) {
    assert_eq!(done(url, &["greylist", "traps"]).await, "nobody is trapped\n");
    let store = store(url).await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let marks = vec![mark("trap 192.0.2.0/24", 90 * MINUTE), mark("reply a@b c@d", MINUTE)];
    write(&mut connection, marks).await.unwrap();
    let told = done(url, &["greylist", "traps"]).await;
    assert!(told.contains("192.0.2.0/24") && told.contains("for 5400000") && !told.contains("a@b"), "{told}");
    let told = done(url, &["greylist", "release", "192.0.2.0/24"]).await;
    assert!(told.starts_with("192.0.2.0/24 is released"), "{told}");
    let (status, _, told) = octroi(url, &["greylist", "release", "192.0.2.0/24"]).await;
    assert!(status == 65 && told.contains("192.0.2.0/24 is not trapped"), "{status} {told}");
    assert_eq!(number(&store, "select count(*) from marks").await, 1);
}
