// SPDX-License-Identifier: GPL-3.0-or-later
//! The daemon around the dialogue: drain, reload, idle limits, many sessions at once.

use std::time::Duration;

use tests::filter::{Filter, settings};
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;

#[tokio::test]
async fn a_stop_lets_messages_end_and_sends_idle_sessions_away() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut idle = SmtpClient::greeted(&filter.address).await;
    let mut busy = SmtpClient::in_data(&filter.address).await;
    busy.send(b"Subject: x\r\n\r\n").await;
    filter.begin_stop();
    assert_eq!(idle.answer().await.text(), "421 4.3.2 Service is closing\r\n");
    assert!(idle.is_closed().await);
    busy.send(b"the rest\r\n.\r\n").await;
    assert_eq!(busy.answer().await.code(), 250);
    assert_eq!(busy.answer().await.code(), 421);
    filter.stop().await;
    assert_eq!(hop.idle().await.completed(), 1);
}

#[tokio::test]
async fn a_reload_holds_for_new_sessions_only() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "max_size = \"1000B\"").await;
    let mut old = SmtpClient::greeted(&filter.address).await;
    let later = filter.daemon.replace(settings(hop.address(), "max_size = \"2000B\"\nlisten = [\"127.0.0.1:1\"]"));
    assert_eq!(later.expect("good settings"), ["contentd.listen"]);
    let mut new = SmtpClient::greeted(&filter.address).await;
    assert_eq!(old.command("MAIL FROM:<a@b> SIZE=1500").await.code(), 552);
    assert_eq!(new.command("MAIL FROM:<a@b> SIZE=1500").await.code(), 250);
    drop((old, new));
    filter.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "idle_timeout = \"200ms\"\ndata_timeout = \"200ms\"").await;
    let mut silent = SmtpClient::greeted(&filter.address).await;
    assert_eq!(silent.answer().await.text(), "421 4.4.2 Timeout\r\n");
    let mut stuck = SmtpClient::in_data(&filter.address).await;
    stuck.send(b"half").await;
    assert_eq!(stuck.answer().await.code(), 421);
    assert!(stuck.is_closed().await);
    assert_eq!(hop.idle().await.messages.len(), 0);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_deliver_each_message_once() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..20 {
        let address = filter.address.clone();
        clients.spawn(async move {
            for message in 0..10 {
                let text = format!("Subject: {client}-{message}\r\n\r\nx\r\n");
                assert_eq!(SmtpClient::deliver(&address, text.as_bytes()).await.code(), 250);
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), clients.join_all()).await.expect("in time");
    let seen = hop.idle().await;
    let subjects = seen.messages.iter().map(|message| {
        let text = String::from_utf8_lossy(&message.wire).into_owned();
        text.lines().find(|line| line.starts_with("Subject:")).expect("a subject").to_owned()
    });
    let different: std::collections::BTreeSet<_> = subjects.collect();
    assert_eq!((seen.completed(), different.len()), (200, 200));
    filter.stop().await;
}

/// The body of a page of the health listener, with its status line.
pub(crate) async fn page(filter: &Filter, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = common::net::Stream::connect(&filter.http).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

#[tokio::test]
async fn health_and_numbers_are_shown() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    assert!(page(&filter, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(page(&filter, "/ready").await.contains("no scanner configured"));
    let message = b"From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\n\r\nx\r\n";
    assert_eq!(SmtpClient::deliver(&filter.address, message).await.code(), 250);
    let metrics = page(&filter, "/metrics").await;
    for line in [
        "octroi_contentd_messages_total{category=\"clean\",destiny=\"pass\"} ",
        "octroi_contentd_outcomes_total{outcome=\"accepted\",reason=\"clean\"} ",
        "octroi_contentd_message_seconds_count ",
        "octroi_connections{service=\"contentd\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    filter.stop().await;
}
