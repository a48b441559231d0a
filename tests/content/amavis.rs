// SPDX-License-Identifier: GPL-3.0-or-later
//! What amavisd-new did wrong in the same situations (docs of the baseline: a bounce of its own, 421 in the middle, a second copy), done right.

use std::time::Duration;

use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Stage};
use tests::process::Signal;
use tests::smtp_client::SmtpClient;

use crate::process::{contentd_with, start};

#[tokio::test]
async fn one_refused_recipient_of_two_is_refused_at_its_own_command() {
    for code in ["550", "450"] {
        let refusal = format!("{code} 4.1.1 not here\r\n").into_bytes();
        let hop = NextHop::start(vec![(Stage::RcptFor("<b@example.net>"), Act::Say(refusal.clone()))]).await;
        let filter = Filter::start(hop.address(), "").await;
        let mut client = SmtpClient::greeted(&filter.address).await;
        assert_eq!(client.command("MAIL FROM:<a@example.org>").await.code(), 250);
        assert_eq!(client.command("RCPT TO:<a@example.net>").await.code(), 250);
        assert_eq!(client.command("RCPT TO:<b@example.net>").await.0, refusal, "its client is told, nobody else");
        assert_eq!(client.command("DATA").await.code(), 354);
        client.send(b"From: a@example.org\r\n\r\nx\r\n.\r\n").await;
        assert_eq!(client.answer().await.code(), 250);
        assert_eq!(client.command("QUIT").await.code(), 221);
        let seen = hop.idle().await;
        assert_eq!((seen.opened, seen.completed()), (1, 1), "one message, no notice of our own");
        filter.stop().await;
    }
}

#[tokio::test]
async fn no_room_for_a_message_is_told_at_its_end() {
    let hop = NextHop::start(Vec::new()).await;
    let spool = tempfile::tempdir().expect("a folder");
    let lines = format!("spool_dir = \"{}\"\nspool_memory = \"1kB\"", spool.path().display());
    let filter = Filter::start(hop.address(), &lines).await;
    // From now on no file can be made.
    spool.close().expect("removed");
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(&b"0123456789abcde\r\n".repeat(100_000)).await;
    client.send(b".\r\n").await;
    let answer = client.answer().await;
    assert!(answer.text().starts_with("452 4.3.1 "), "{}", answer.text());
    assert_eq!(client.command("NOOP").await.code(), 250, "the session goes on");
    assert_eq!(client.command("QUIT").await.code(), 221);
    assert_eq!(hop.idle().await.completed(), 0);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_while_the_next_hop_has_the_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let queued = b"250 2.0.0 Ok: queued as LATE\r\n".to_vec();
    let hop = NextHop::start(vec![(Stage::End, Act::Late(Duration::from_secs(2), queued.clone()))]).await;
    let (mut daemon, address) = contentd_with(folder.path(), &hop, "");
    start(&mut daemon);
    let mut client = SmtpClient::in_data(&address).await;
    client.send(b"From: a@example.org\r\nDate: d\r\n\r\nx\r\n.\r\n").await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(client.answer().await.0, queued, "the answer of the next hop, not one of ours before it");
    drop(client);
    let ended = tokio::task::spawn_blocking(move || daemon.wait()).await.expect("waited");
    assert!(ended.expect("ended").success());
    assert_eq!(hop.idle().await.completed(), 1);
}
