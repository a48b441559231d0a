// SPDX-License-Identifier: GPL-3.0-or-later
//! What follows from how the triplets of a network have fared: those that never come again have it trapped and keep it from trust, earlier
//! passes give more time for a retry. And the times and keys that some recipients and clients have of their own.

use policyd::checks::pool::KeyKind;
use policyd::config::{DelayRule, GreylistMode, Settings};
use policyd::request::PolicyRequest;
use policyd::store::Connection;
use policyd::store::never::{Never, Share, share};
use tests::postgres::Cluster;

use crate::explain::done;
use crate::gate::{Gate, PATIENCE, patient, rcpt, sql, sqlite, store, strict};
use crate::pool::{Host, from, promises};
use crate::trust::until;

promises!(
    what_never_came_again_is_counted,
    a_network_that_never_comes_again_is_trapped,
    who_comes_again_too_rarely_earns_no_trust,
    a_network_with_an_earlier_pass_has_longer_to_retry,
    a_new_network_may_be_a_sign,
    some_recipients_have_a_delay_of_their_own,
    a_smart_key_tells_lines_of_one_network_apart,
    a_delay_of_its_own_is_explained,
);

const HOUR: i64 = 3_600_000;
/// Some moment.
const T: i64 = 1_700_000_000_000;

/// Triplets of a client that were first seen at some moment and have passed or not.
fn rows(client: &str, number: usize, first_seen: &str, passes: u8) -> String {
    let row = |number| {
        format!(
            "('{client}', 's{number}p{passes}@x.test', 'r@our.test', {first_seen}, {first_seen}, 1, {passes}, 9000000000000)"
        )
    };
    format!("insert into greylist values {}", (0..number).map(row).collect::<Vec<_>>().join(", "))
}

/// So many hours ago, by the clock of this host, which is also the database's.
fn ago(hours: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    (now - hours * HOUR).to_string()
}

async fn what_never_came_again_is_counted(url: &str) {
    let store = store(url).await;
    let at = |hours: i64| (T - hours * HOUR).to_string();
    for (client, number, hours, passes) in
        [("a", 5, 5, 0), ("a", 3, 5, 1), ("b", 7, 3, 0), ("b", 1, 3, 1), ("c", 9, 30, 0), ("ab", 4, 5, 0)]
    {
        sql(&store, &rows(client, number, &at(hours), passes)).await;
    }
    sql(&store, "update greylist set expires = 5 where client = 'a' and sender = 's4p0@x.test'").await;
    let mut connection = Connection::acquire(&store).await.unwrap();
    let never = Never { after: 4 * HOUR, period: 24 * HOUR };
    for (client, found) in [
        ("a", Share { never: 4, all: 7 }),
        ("b", Share { never: 0, all: 1 }),
        ("c", Share { never: 0, all: 0 }),
        ("d", Share { never: 0, all: 0 }),
    ] {
        assert_eq!(share(&mut connection, client, never, Some(T)).await.unwrap(), found, "{client}");
    }
}

fn trapping(settings: &mut Settings) {
    settings.greylist.trap_never = 3;
    settings.greylist.trap_never_percent = 90;
}

async fn a_network_that_never_comes_again_is_trapped(url: &str) {
    let host = Host::start(url, "", trapping).await;
    for (client, never, passed) in [("203.0.113.0/24", 4, 0), ("198.51.100.0/24", 3, 0), ("192.0.2.0/24", 30, 4)] {
        host.sql(&rows(client, never, &ago(5), 0)).await;
        if passed > 0 {
            host.sql(&rows(client, passed, &ago(5), 1)).await;
        }
        let ip = client.replace(".0/24", ".7");
        assert_eq!(host.reason(&from(&ip, "", "new@y.test")).await, "greylist_new");
    }
    until(
        &host,
        "select count(*) from marks where key = 'trap 203.0.113.0/24' and fact = '4 of 4 triplets never came again'",
        1,
    )
    .await;
    assert_eq!(host.number("select count(*) from marks").await, 1, "too few, and too many that came again");
    // On another host too, whatever its signs.
    let other = Host::start(url, "", |settings| {
        trapping(settings);
        settings.greylist.mode = GreylistMode::Adaptive;
    })
    .await;
    let clean = from("203.0.113.99", "mail.example.net", "z@example.net");
    assert_eq!(other.reason(&clean).await, "trapped");
    let without = Host::start(url, "", |_| {}).await;
    assert_eq!(without.reason(&from("203.0.113.99", "", "z@example.net")).await, "greylist_new");
    assert!(done(url, &["greylist", "traps"]).await.contains("4 of 4 triplets never came again"));
    for host in [host, other, without] {
        host.end().await;
    }
}

async fn who_comes_again_too_rarely_earns_no_trust(url: &str) {
    let host = Host::start(url, "", |settings| {
        settings.greylist.trust_never_percent = 50;
        settings.greylist.trust_after = 1;
    })
    .await;
    host.sql(&rows("203.0.113.0/24", 5, &ago(5), 0)).await;
    host.sql(&rows("198.51.100.0/24", 1, &ago(5), 0)).await;
    for ip in ["203.0.113.7", "198.51.100.7"] {
        assert_eq!(host.reason(&from(ip, "", "a@y.test")).await, "greylist_new");
        host.five_minutes_pass().await;
        assert_eq!(host.reason(&from(ip, "", "a@y.test")).await, "greylist_passed_now");
    }
    // Counts are made in order: the first was refused before the second was made.
    until(&host, "select count(*) from trust where key = '198.51.100.0/24'", 1).await;
    assert_eq!(host.number("select count(*) from trust").await, 1);
    assert_eq!(host.reason(&from("203.0.113.8", "", "b@y.test")).await, "greylist_new");
    host.end().await;
}

/// What other hosts have seen shows after a look, and no event tells of it.
async fn until_asked(host: &Host, ip: &str, name: &str, question: &str, answer: i64) -> usize {
    let asked = async {
        for number in 0.. {
            host.ask(&from(ip, name, &format!("s{number}@y.test"))).await;
            if host.number(&question.replace("{}", &format!("s{number}@y.test"))).await == answer {
                return number;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        unreachable!("it asks for ever")
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{question}: never {answer}"))
}

async fn a_network_with_an_earlier_pass_has_longer_to_retry(url: &str) {
    sql(&store(url).await, "insert into trust values ('192.0.2.0/24', 1, 0, 9000000000000)").await;
    let host = Host::start(url, "", |settings| settings.greylist.max_pending_per_net = 0).await;
    let window = "select coalesce(max(expires - first_seen), 0) from greylist where sender = '{}'";
    let number = until_asked(&host, "192.0.2.1", "", window, 120 * HOUR).await;
    host.ask(&from("203.0.113.1", "", "x@y.test")).await;
    assert_eq!(host.number(&window.replace("{}", "x@y.test")).await, 72 * HOUR);
    // A retry after four days.
    host.sql(&format!("update greylist set first_seen = first_seen - {0}, expires = expires - {0}", 96 * HOUR)).await;
    assert_eq!(host.reason(&from("203.0.113.1", "", "x@y.test")).await, "greylist_new");
    let late = format!("s{number}@y.test");
    assert_eq!(host.reason(&from("192.0.2.1", "", &late)).await, "greylist_passed_now");
    host.end().await;
}

async fn a_new_network_may_be_a_sign(url: &str) {
    sql(&store(url).await, "insert into trust values ('192.0.2.0/24', 1, 0, 9000000000000)").await;
    let host = Host::start(url, "", |settings| {
        settings.greylist.mode = GreylistMode::Adaptive;
        settings.greylist.signs.new_network = 2;
    })
    .await;
    let known = "select count(*) from greylist where sender = '{}'";
    until_asked(&host, "203.0.113.1", "mx.example.org", known, 1).await;
    let found = host.ask(&from("203.0.113.1", "mx.example.org", "a@z.test")).await;
    assert!(found.reason.word() == "greylist_new" && found.fact.contains("new_network"), "{found:?}");
    assert_eq!(host.reason(&from("192.0.2.9", "mx.example.org", "a@z.test")).await, "unsuspicious");
    let default = Host::start(url, "", |settings| settings.greylist.mode = GreylistMode::Adaptive).await;
    assert_eq!(default.reason(&from("203.0.113.1", "mx.example.org", "b@z.test")).await, "unsuspicious");
    host.end().await;
    default.end().await;
}

async fn some_recipients_have_a_delay_of_their_own(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slow");
    std::fs::write(&file, "slow.example\n").unwrap();
    let rule = |recipients: &str, delay: &str| DelayRule {
        recipients: vec![recipients.to_owned().try_into().unwrap()],
        delay: delay.parse().unwrap(),
    };
    let host = Host::start(url, "", |settings| {
        settings.greylist.delays = vec![rule("quick@slow.example", "1s"), rule(&file.display().to_string(), "10m")];
    })
    .await;
    let to =
        |recipient: &'static str| PolicyRequest { recipient: recipient.into(), ..from("192.0.2.1", "", "a@y.test") };
    for (recipient, text) in [
        ("ann@slow.example", "in 10 minutes"),
        ("quick@slow.example", "in 1 second"),
        ("ann@example.org", "in 4 minutes"),
    ] {
        let finding = host.ask(&to(recipient)).await;
        let mut action = String::new();
        finding.verdict.action(&mut action);
        assert!(action.contains(text), "{recipient}: {action}");
    }
    host.five_minutes_pass().await;
    for (recipient, reason) in [
        ("ann@slow.example", "greylist_early"),
        ("quick@slow.example", "greylist_passed_now"),
        ("ann@example.org", "greylist_passed_now"),
    ] {
        assert_eq!(host.reason(&to(recipient)).await, reason, "{recipient}");
    }
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&to("ann@slow.example")).await, "greylist_passed_now");
    host.end().await;
}

async fn a_smart_key_tells_lines_of_one_network_apart(url: &str) {
    let host = Host::start(url, "", |settings| {
        settings.greylist.key = vec![KeyKind::Smart];
        settings.greylist.max_pending_per_net = 4;
    })
    .await;
    // A line must come again from its own address, a server from its network.
    assert_eq!(host.reason(&from("192.0.2.1", "", "a@y.test")).await, "greylist_new");
    assert_eq!(host.reason(&from("192.0.2.2", "", "a@y.test")).await, "greylist_new");
    assert_eq!(host.reason(&from("198.51.100.1", "mx1.example.org", "a@y.test")).await, "greylist_new");
    assert_eq!(host.reason(&from("198.51.100.2", "mx2.example.org", "a@y.test")).await, "greylist_early");
    assert_eq!(host.number("select count(*) from greylist where client = '192.0.2.2/32'").await, 1);
    // What was known by the network goes on.
    host.sql(&rows("192.0.2.0/24", 1, &ago(1), 0)).await;
    let known = PolicyRequest { recipient: "r@our.test".into(), ..from("192.0.2.3", "", "s0p0@x.test") };
    assert_eq!(host.reason(&known).await, "greylist_passed_now");
    // A flood is one of the network, whatever the addresses.
    for number in 10..16 {
        host.ask(&from(&format!("203.0.113.{number}"), "", "b@y.test")).await;
    }
    assert_eq!(host.number("select count(*) from greylist where client like '203.0.113.%'").await, 4);
    host.end().await;
}

async fn a_delay_of_its_own_is_explained(url: &str) {
    let mut settings = patient(strict(url));
    let recipients = vec!["slow.example".to_owned().try_into().unwrap()];
    settings.greylist.delays = vec![DelayRule { recipients, delay: "2h".parse().unwrap() }];
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    let request = rcpt("192.0.2.1", "a@y.test", "ann@slow.example");
    let answer = client.ask(&request).await.unwrap();
    let id = answer.rsplit_once("; id ").unwrap().1.to_owned();
    let told = tokio::time::timeout(PATIENCE, async {
        while crate::gate::number(&store(url).await, "select count(*) from explain").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        done(url, &["why", &id]).await
    });
    let told = told.await.unwrap();
    assert!(told.contains("waits; 1h 59m") || told.contains("waits; 2h left"), "{told}");
    done(url, &["allow", &id]).await;
    let passed = client.ask(&request).await.unwrap();
    assert!(passed.starts_with("PREPEND X-Greylist: delayed 72"), "{passed}");
    gate.end().await;
}
