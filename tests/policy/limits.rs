// SPDX-License-Identifier: GPL-3.0-or-later
//! Rate limits as Postfix meets them.

use std::time::{Duration, Instant};

use policyd::config::{Amount, LimitSettings, OnStoreError, Settings};
use policyd::limits::unit::{Stage, Unit};
use tests::postgres::Cluster;

use crate::gate::{Gate, number, patient, rcpt, sql, sqlite, store, strict};

/// A limit of that unit, rate and key.
fn limit(name: &str, key: &str, unit: Unit, rate: &str) -> LimitSettings {
    LimitSettings {
        name: name.to_owned(),
        key: vec![key.to_owned()],
        unit,
        rate: vec![rate.to_owned()],
        ..LimitSettings::default()
    }
}

/// Nobody is greylisted, so that only limits decide.
fn only(url: &str, limits: Vec<LimitSettings>) -> Settings {
    let mut settings = patient(strict(url));
    settings.greylist.mode = policyd::config::GreylistMode::Off;
    settings.limit = limits;
    settings
}

struct Mail<'a> {
    state: &'a str,
    user: &'a str,
    instance: &'a str,
    recipient: &'a str,
    recipients: u32,
    size: u32,
}

const MAIL: Mail<'_> =
    Mail { state: "RCPT", user: "joe", instance: "1.2.3.4", recipient: "r@example.org", recipients: 0, size: 0 };

impl Mail<'_> {
    fn text(&self) -> String {
        let Mail { state, user, instance, recipient, recipients, size } = self;
        format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nsasl_username={user}\ninstance={instance}\n\
             client_address=192.0.2.1\nclient_port=4711\nclient_name=unknown\nsender={user}@example.com\n\
             recipient={recipient}\nrecipient_count={recipients}\nsize={size}\n\n"
        )
    }
}

/// Asks for so many messages; gives how many were let through.
async fn send(gate: &Gate, user: &str, messages: usize) -> usize {
    let mut client = gate.client().await;
    let mut passed = 0;
    for number in 0..messages {
        let instance = format!("{user}.{number}");
        if client.ask(&Mail { user, instance: &instance, ..MAIL }.text()).await.unwrap() == "DUNNO" {
            passed += 1;
        }
    }
    passed
}

async fn limits_of_a_user(url: &str) {
    let gate = Gate::ready(only(url, vec![limit("user", "sasl_username", Unit::Recipients, "5/day")])).await;
    assert_eq!(send(&gate, "joe", 8).await, 5);
    assert_eq!(send(&gate, "ann", 3).await, 3, "another key");
    let mut client = gate.client().await;
    let refused = client.ask(&Mail { instance: "x", ..MAIL }.text()).await.unwrap();
    assert!(refused.starts_with("DEFER 4.7.1 Limit user is reached, try again in "), "{refused}");
    assert!(!refused.contains('{') && refused.contains("; id "), "{refused}");
    assert_eq!(client.ask(&Mail { instance: "joe.2", ..MAIL }.text()).await.unwrap(), "DUNNO", "repeated");
    assert_eq!(
        client.ask(&Mail { user: "", instance: "x", ..MAIL }.text()).await.unwrap(),
        "DUNNO",
        "no key, no limit"
    );
    let page = gate.get("/metrics").await;
    assert!(page.contains("octroi_policyd_limit_over_total{limit=\"user\"} "), "{page}");
    assert!(page.contains("octroi_policyd_limit_cached_total "), "only the first refusal asked the store: {page}");
    gate.end().await;
}

#[tokio::test]
async fn a_user_sends_as_much_as_allowed_on_sqlite() {
    let (_folder, url) = sqlite();
    limits_of_a_user(&url).await;
}

#[tokio::test]
async fn a_user_sends_as_much_as_allowed_on_postgres() {
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    limits_of_a_user(&url).await;
}

#[tokio::test]
async fn what_greylisting_defers_is_not_charged() {
    let (_folder, url) = sqlite();
    let mut settings = patient(strict(&url));
    settings.limit = vec![limit("client", "client_address", Unit::Recipients, "1/day")];
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        let answer = client.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.unwrap();
        assert!(answer.contains("Greylisted"), "{answer}");
    }
    assert_eq!(number(&store(&url).await, "select count(*) from limit_bucket").await, 0);
    sql(&store(&url).await, "update greylist set first_seen = first_seen - 240000").await;
    let passed = client.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.unwrap();
    assert!(passed.starts_with("PREPEND X-Greylist"), "the header of greylisting stays: {passed}");
    let other = rcpt("192.0.2.1", "a@example.net", "r@example.org").replace("instance=1.2.3.4", "instance=5");
    let over = client.ask(&other).await.unwrap();
    assert!(over.contains("Limit client is reached"), "{over}");
    gate.end().await;
}

#[tokio::test]
async fn units_are_counted_at_their_stages() {
    let (_folder, url) = sqlite();
    let recipients =
        LimitSettings { stage: Some(Stage::Data), ..limit("recipients", "sasl_username", Unit::Recipients, "10/day") };
    let bytes = limit("bytes", "sasl_username", Unit::Bytes, "10kB/day");
    let distinct = limit("distinct", "sasl_username", Unit::DistinctRecipients, "2/day");
    let connections = limit("connections", "client_address", Unit::Connections, "2/day");
    let gate = Gate::ready(only(&url, vec![recipients, bytes, distinct, connections])).await;
    let mut client = gate.client().await;
    let mut ask = async |mail: Mail<'_>| client.ask(&mail.text()).await.unwrap();
    // Many recipients at once do not fit, fewer do.
    assert_eq!(ask(Mail { state: "DATA", recipients: 8, instance: "a", ..MAIL }).await, "DUNNO");
    assert!(ask(Mail { state: "DATA", recipients: 3, instance: "b", ..MAIL }).await.contains("Limit recipients"));
    assert_eq!(ask(Mail { state: "DATA", recipients: 2, instance: "c", ..MAIL }).await, "DUNNO");
    assert_eq!(ask(Mail { state: "END-OF-MESSAGE", size: 9000, instance: "a", ..MAIL }).await, "DUNNO");
    assert!(ask(Mail { state: "END-OF-MESSAGE", size: 2000, instance: "b", ..MAIL }).await.contains("Limit bytes"));
    assert_eq!(ask(Mail { state: "END-OF-MESSAGE", size: 1000, instance: "c", ..MAIL }).await, "DUNNO");
    // Two recipients as often as one likes, and no third.
    for (recipient, instance, passes) in
        [("r", "1", true), ("s", "2", true), ("R", "3", true), ("t", "4", false), ("s", "5", true)]
    {
        let recipient = format!("{recipient}@example.org");
        let answer = ask(Mail { recipient: &recipient, instance, ..MAIL }).await;
        assert_eq!(answer == "DUNNO", passes, "{recipient}: {answer}");
    }
    // All of that was one connection.
    let connections = "select level / 1000000 from limit_bucket where bucket = 'connections day 192.0.2.1'";
    assert_eq!(number(&store(&url).await, connections).await, 1);
    gate.end().await;
}

#[tokio::test]
async fn refusals_are_counted_and_then_nothing_passes() {
    let (folder, url) = sqlite();
    let file = folder.path().join("senders");
    std::fs::write(&file, "bad@example.com\n").unwrap();
    let mut settings = only(&url, vec![limit("rejects", "client_address", Unit::Rejects, "2/day")]);
    settings.access.sender_blacklist = vec![file.display().to_string().parse().unwrap()];
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    for instance in ["1", "2"] {
        assert_eq!(client.ask(&Mail { instance, ..MAIL }.text()).await.unwrap(), "DUNNO");
        let refused = client.ask(&Mail { user: "bad", instance, ..MAIL }.text()).await.unwrap();
        assert!(refused.starts_with("REJECT 5.7.1 Sender address rejected"), "{refused}");
    }
    // Refusals are counted behind the back of the request.
    let deadline = Instant::now() + crate::gate::PATIENCE;
    while client.ask(&Mail { instance: "3", ..MAIL }.text()).await.unwrap() == "DUNNO" {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.end().await;
}

#[tokio::test]
async fn without_the_store_each_host_keeps_its_share() {
    let mut settings =
        only("postgres://nobody@127.0.0.1:1/none", vec![limit("user", "sasl_username", Unit::Recipients, "9/day")]);
    settings.policyd.on_store_error = OnStoreError::Local;
    settings.policyd.budget = "1s".parse().unwrap();
    settings.limits.hosts = 3;
    let gate = Gate::start(settings).await;
    assert_eq!(send(&gate, "joe", 6).await, 3);
    let page = gate.get("/metrics").await;
    assert!(page.contains("octroi_policyd_limit_local_total "), "{page}");
    gate.end().await;
}

#[tokio::test]
async fn an_override_holds_at_once() {
    let (_folder, url) = sqlite();
    let gate = Gate::ready(only(&url, vec![limit("user", "sasl_username", Unit::Recipients, "2/day")])).await;
    let store = store(&url).await;
    assert_eq!(send(&gate, "joe", 4).await, 2);
    sql(&store, "insert into limit_override (bucket, extra, extra_until) values ('user day joe', 3, 9000000000000)")
        .await;
    sql(&store, "insert into limit_override (bucket, unlimited) values ('user day ann', 1)").await;
    assert_eq!(send(&gate, "ann", 9).await, 9);
    // What is known of a full bucket is confirmed after two seconds.
    let (mut client, deadline) = (gate.client().await, Instant::now() + crate::gate::PATIENCE);
    while client.ask(&Mail { instance: "a", ..MAIL }.text()).await.unwrap() != "DUNNO" {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let level = "select level / 1000000 from limit_bucket where bucket = 'user day joe'";
    assert_eq!(number(&store, level).await, 3);
    gate.end().await;
}

#[tokio::test]
async fn a_warning_and_a_block_have_buckets_of_their_own() {
    let (_folder, url) = sqlite();
    let watched = LimitSettings {
        warn_at: Some(Amount(2)),
        block_at: Some(Amount(4)),
        ..limit("user", "sasl_username", Unit::Recipients, "1/day")
    };
    let gate = Gate::ready(only(&url, vec![watched])).await;
    assert_eq!(send(&gate, "joe", 6).await, 4);
    let store = store(&url).await;
    assert_eq!(number(&store, "select level / 1000000 from limit_bucket where bucket = 'user day joe'").await, 4);
    assert_eq!(number(&store, "select level / 1000000 from limit_bucket where bucket = 'user warn:day joe'").await, 3);
    gate.end().await;
}

/// A server that takes one HTTP request and answers 204, and gives what it read.
async fn hook(listener: tokio::net::TcpListener) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_is_told_once_for_two_hosts_by_mail_and_webhook() {
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mails = tests::nexthop::NextHop::start(Vec::new()).await;
    let watched =
        LimitSettings { warn_at: Some(Amount(2)), ..limit("watched", "sasl_username", Unit::Recipients, "50/day") };
    let mut settings = only(&url, vec![watched]);
    settings.notify.webhook = format!("http://127.0.0.1:{port}/hook?x=1");
    settings.notify.mail_to = vec!["postmaster@example.org".to_owned()];
    settings.notify.mail_server = mails.address().clone();
    let gates = [Gate::ready(settings.clone()).await, Gate::ready(settings).await];
    for (number, gate) in gates.iter().enumerate() {
        for message in 0..4 {
            let instance = format!("{number}.{message}");
            let answer = gate.client().await.ask(&Mail { instance: &instance, ..MAIL }.text()).await;
            assert_eq!(answer.as_deref(), Some("DUNNO"));
        }
    }
    let read = tokio::time::timeout(crate::gate::PATIENCE, hook(listener)).await.expect("a POST in time");
    assert!(read.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{read}");
    let json: serde_json::Value = serde_json::from_str(read.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&json["event"], &json["key"], &json["limit"]), (&"warning".into(), &"joe".into(), &"watched".into()));
    assert_eq!(json["rate"], "2/day");
    let seen = mails.wait("a mail", |seen| seen.completed() == 1).await;
    let text = String::from_utf8_lossy(&seen.messages[0].message()).into_owned();
    assert!(
        text.contains("Subject: octroi: joe passed the number of warning") && text.contains("octroi limit show 'joe'"),
        "{text}"
    );
    for gate in gates {
        gate.end().await;
    }
    assert_eq!(
        number(&store(&url).await, "select count(*) from limit_charged").await,
        9,
        "eight charges and one claim"
    );
}
