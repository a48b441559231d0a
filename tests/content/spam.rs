// SPDX-License-Identifier: GPL-3.0-or-later
//! Spam rules on messages that go through: what is tagged, what is refused, which fields are added, what becomes of rules that change.

use std::path::Path;

use tempfile::TempDir;
use tests::filter::Filter;
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;

use crate::service::page;

const RULES: &str = "\
header   HELLO     Subject =~ /hello/
describe HELLO     It says hello
score    HELLO     1.5
body     PILLS     /cheap pills/
score    PILLS     6
body     CASINO    /casino/
score    CASINO    10
header   FROM_CLIENT  X-Spam-Relays-Untrusted =~ /^\\[ ip=192\\.0\\.2\\.7 rdns=client\\.example\\.org helo=helo\\.example\\.org /
score    FROM_CLIENT  0.25
header   ENVELOPE  EnvelopeFrom =~ /^sender\\@example\\.org$/
score    ENVELOPE  0.125
";

pub(crate) fn folder(rules: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("50_test.cf"), rules).unwrap();
    folder
}

async fn filter(rules: &Path, lines: &str) -> (Filter, NextHop) {
    let hop = NextHop::start(Vec::new()).await;
    let filter =
        Filter::start(hop.address(), &format!("[spam]\nall = true\nrules = [\"{}\"]\n{lines}\n", rules.display()))
            .await;
    (filter, hop)
}

pub(crate) fn message(subject: &str, body: &str) -> String {
    format!(
        "X-Spam-Flag: NO\r\nFrom: a@example.org\r\nx-spam-status: No, score=-100\r\n\ttests=[]\r\n\
         Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: {subject}\r\nX-Spam-Whatever: 1\r\n\r\n{body}\r\n"
    )
}

/// Sends a message as Postfix passes it on for a client; the reply.
pub(crate) async fn deliver(filter: &Filter, message: &str) -> String {
    let mut client = SmtpClient::greeted(&filter.address).await;
    let xforward = "XFORWARD NAME=client.example.org ADDR=192.0.2.7 HELO=helo.example.org PROTO=ESMTP IDENT=4F2";
    for command in [xforward, "MAIL FROM:<sender@example.org>", "RCPT TO:<b@example.net>"] {
        assert_eq!(client.command(command).await.code(), 250, "{command}");
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(message.as_bytes()).await;
    client.send(b".\r\n").await;
    let answer = client.answer().await.text();
    client.command("QUIT").await;
    answer
}

/// The last message that the next hop has got.
pub(crate) async fn received(hop: &NextHop) -> String {
    String::from_utf8(hop.idle().await.messages.last().expect("a message").message()).unwrap()
}

#[tokio::test]
async fn messages_are_rated_and_forged_ratings_are_gone() {
    let rules = folder(RULES);
    let (filter, hop) = filter(rules.path(), "").await;
    assert!(deliver(&filter, &message("hello", "text")).await.starts_with("250 2.0.0"));
    let text = received(&hop).await;
    assert!(text.contains("X-Spam-Flag: NO\r\n"), "{text}");
    let status =
        "X-Spam-Status: No, score=1.875 required=5 tests=[HELLO=1.5, FROM_CLIENT=0.25,\r\n ENVELOPE=0.125]\r\n";
    assert!(text.contains(status), "{text}");
    assert!(text.contains("X-Spam-Level: *\r\n"), "{text}");
    assert_eq!(text.to_ascii_lowercase().matches("x-spam-").count(), 3, "what came with it is gone: {text}");
    assert!(!text.contains("Return-Path"), "what the rules see stays with them: {text}");

    assert!(deliver(&filter, &message("hello", "Buy cheap pills")).await.starts_with("250 2.0.0"), "tagged and passed");
    let text = received(&hop).await;
    assert!(text.contains("X-Spam-Flag: YES\r\n") && text.contains("X-Spam-Status: Yes, score=7.875 "), "{text}");
    assert!(text.contains("X-Spam-Level: *******\r\n") && text.contains("\r\nSubject: hello\r\n"), "{text}");
    filter.stop().await;
}

#[tokio::test]
async fn spam_is_refused_while_its_client_waits() {
    let rules = folder(RULES);
    let (filter, hop) = filter(rules.path(), "").await;
    let reply = deliver(&filter, &message("x", "casino and cheap pills")).await;
    assert!(reply.starts_with("554 5.7.0 Reject, id=") && reply.trim_end().ends_with(" - SPAM"), "{reply}");
    assert_eq!(hop.idle().await.completed(), 0);
    let page = page(&filter, "/metrics").await;
    assert!(page.contains("octroi_contentd_messages_total{category=\"spam\",destiny=\"reject\"}"), "{page}");
    assert!(page.contains("octroi_contentd_spam_cpu_seconds_count"), "{page}");
    filter.stop().await;
}

#[tokio::test]
async fn levels_fields_and_the_subject_are_configured() {
    let rules = folder(RULES);
    let lines = "tag_level = 1.5\nkill_level = 100\nheader_level = 1\nsubject_tag = \"***SPAM***\"\nmax_size = \"1KiB\"\n\
        [headers]\nadd = [\"X-Spam-Score\", \"X-Spam-Report\", \"X-Spam-Status\"]\n";
    let (filter, hop) = filter(rules.path(), lines).await;
    let pills = format!("{}cheap pills", "x".repeat(2000));
    assert!(deliver(&filter, &message("hello", &pills)).await.starts_with("250 2.0.0"));
    let text = received(&hop).await;
    // The pills are behind the end of what the rules see, and that is told.
    assert!(text.contains("X-Spam-Score: 1.875\r\nX-Spam-Report: * 1.5 HELLO It says hello"), "{text}");
    assert!(text.contains("ENVELOPE=0.125] partial=size\r\n"), "{text}");
    assert!(text.contains("\r\nSubject: ***SPAM*** hello\r\n"), "{text}");
    assert!(deliver(&filter, &message("x", "text")).await.starts_with("250 2.0.0"));
    let text = received(&hop).await;
    assert!(!text.contains("X-Spam-") && text.contains("\r\nSubject: x\r\n"), "below the level of fields: {text}");
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_costs_too_much_again_and_again_is_switched_off_and_named() {
    let rules = folder("header BAIT Subject =~ /^(?!b)(?:a|aa)+$/\nheader FINE Subject =~ /a/\nscore FINE 0.5\n");
    let (filter, _hop) = filter(rules.path(), "").await;
    // Each another one: what was delivered is not inspected again.
    let crafted = |number: u32| message(&format!("{}c", "a".repeat(400)), &format!("text {number}"));
    for number in 1..100 {
        deliver(&filter, &crafted(number)).await;
    }
    assert!(!page(&filter, "/metrics").await.contains("octroi_contentd_spam_rule_off{"));
    deliver(&filter, &crafted(100)).await;
    let shown = page(&filter, "/metrics").await;
    assert!(shown.contains("octroi_contentd_spam_rule_off{rule=\"BAIT\"} 1\n"), "{shown}");
    assert!(shown.contains("octroi_contentd_spam_set_aside_total{reason=\"steps\"} 100\n"), "{shown}");
    deliver(&filter, &crafted(101)).await;
    let shown = page(&filter, "/metrics").await;
    assert!(shown.contains("octroi_contentd_spam_set_aside_total{reason=\"steps\"} 100\n"), "it did not run: {shown}");
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_change_are_read_again_and_the_last_good_ones_stay() {
    let rules = folder(RULES);
    let (filter, _hop) = filter(rules.path(), "watch = \"100ms\"\n").await;
    let spam = message("x", "casino and cheap pills");
    assert!(deliver(&filter, &spam).await.starts_with("554 "));
    let generation = || filter.daemon.rules.current().map(|set| set.generation);
    let wait_for = async |metric: &str| {
        while !page(&filter, "/metrics").await.contains(metric) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let file = rules.path().join("50_test.cf");
    std::fs::write(&file, "# no rule any more\n").unwrap();
    wait_for("octroi_contentd_spam_reloads_total{outcome=\"failed\"}").await;
    assert_eq!(generation(), Some(1));
    assert!(deliver(&filter, &spam).await.starts_with("554 "), "the last good rules stay");

    std::fs::write(&file, RULES.replace("CASINO    10", "CASINO    0.5")).unwrap();
    wait_for("octroi_contentd_spam_reloads_total{outcome=\"loaded\"}").await;
    assert!(generation() > Some(1));
    assert!(deliver(&filter, &spam).await.starts_with("250 "), "the new ones are in force");

    // A reload with the same rules takes what is good, one with others is a mistake when they are not.
    let mut settings = filter.daemon.running().settings.clone();
    std::fs::write(&file, "").unwrap();
    let (daemon, same) = (filter.daemon.clone(), settings.clone());
    tokio::task::spawn_blocking(move || daemon.replace(same)).await.unwrap().unwrap();
    settings.spam.rules = vec![rules.path().join("missing")];
    let mistakes = filter.daemon.replace(settings).unwrap_err().to_string();
    assert!(mistakes.contains("spam.rules") && mistakes.contains("missing"), "{mistakes}");
    assert!(deliver(&filter, &spam).await.starts_with("250 "));
    filter.stop().await;
}
