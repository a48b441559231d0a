// SPDX-License-Identifier: GPL-3.0-or-later
//! Bytes that are no policy request: each ends its own connection without a reply and disturbs nobody else. And requests in
//! fragments and heaps, which are all answered.

use std::time::Duration;

use policyd::config::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gate::{Client, Gate, rcpt, sqlite, strict};

/// A policyd without a greylist; the wire is the point here.
async fn gate(change: impl FnOnce(&mut Settings)) -> (tempfile::TempDir, Gate) {
    let (folder, url) = sqlite();
    let mut settings = strict(&url);
    settings.greylist.mode = policyd::config::GreylistMode::Off;
    change(&mut settings);
    let gate = Gate::start(settings).await;
    (folder, gate)
}

async fn works(client: &mut Client) {
    assert_eq!(client.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.as_deref(), Some("DUNNO"));
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let (_folder, gate) = gate(|_| {}).await;
    let mut neighbour = gate.client().await;
    works(&mut neighbour).await;
    let garbage: [(&str, Vec<u8>); 6] = [
        ("10 MB without a newline", vec![b'a'; 10_000_000]),
        ("10 MB in one endless request", b"x=y\n".repeat(2_500_000)),
        ("NUL", b"request=smtpd_access_policy\nsender=a\0b\n\n".to_vec()),
        ("no =", b"EHLO example.org\r\n".to_vec()),
        ("no request", b"protocol_state=RCPT\n\n".to_vec()),
        ("another request", b"request=junk\n\n".to_vec()),
    ];
    for (what, bytes) in garbage {
        let mut client = gate.client().await;
        // The server may close before everything is sent.
        let _ = client.stream.write_all(&bytes).await;
        assert_eq!(client.line().await, None, "{what}");
        works(&mut neighbour).await;
    }
    let page = gate.get("/metrics").await;
    for word in ["too_long", "too_many_attributes", "nul", "no_equals", "no_request", "other_request"] {
        assert!(page.contains(&format!("octroi_policyd_wire_errors_total{{error=\"{word}\"}}")), "{word} is counted");
    }
    gate.end().await;
}

#[tokio::test]
async fn requests_before_garbage_keep_their_replies() {
    let (_folder, gate) = gate(|_| {}).await;
    let mut client = gate.client().await;
    client.send(format!("{}garbage\n", rcpt("192.0.2.1", "a@b", "c@d")).as_bytes()).await;
    assert_eq!(client.reply().await.as_deref(), Some("DUNNO"));
    assert_eq!(client.line().await, None);
    gate.end().await;
}

#[tokio::test]
async fn an_unfinished_request_is_given_up() {
    let (_folder, gate) = gate(|settings| settings.policyd.request_timeout = "1s".parse().unwrap()).await;
    let mut neighbour = gate.client().await;
    let mut client = gate.client().await;
    let started = tokio::time::Instant::now();
    client.send(b"request=smtpd_access_policy\nsender=").await;
    works(&mut neighbour).await;
    assert_eq!(client.line().await, None);
    assert!(started.elapsed() >= Duration::from_secs(1));
    works(&mut neighbour).await;
    gate.end().await;
}

#[tokio::test]
async fn drip_feeding_does_not_extend_the_time() {
    let (_folder, gate) = gate(|settings| settings.policyd.request_timeout = "1s".parse().unwrap()).await;
    let mut client = gate.client().await;
    let started = tokio::time::Instant::now();
    loop {
        let gone = tokio::select! {
            read = client.stream.read_u8() => read.is_err(),
            () = tokio::time::sleep(Duration::from_millis(50)) => false,
        };
        if gone || client.stream.write_all(b"a=b\n").await.is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "still open");
    }
    gate.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_late() {
    let (_folder, gate) = gate(|settings| {
        settings.policyd.request_timeout = "100ms".parse().unwrap();
        settings.policyd.idle_timeout = "1500ms".parse().unwrap();
    })
    .await;
    let mut client = gate.client().await;
    works(&mut client).await;
    let answered = tokio::time::Instant::now();
    assert_eq!(client.line().await, None);
    assert!(
        answered.elapsed() >= Duration::from_millis(1400),
        "idle time and not request time: {:?}",
        answered.elapsed()
    );
    gate.end().await;
}

#[tokio::test]
async fn fragments_and_heaps_are_answered_in_order() {
    let (_folder, gate) = gate(|_| {}).await;
    let mut client = gate.client().await;
    for byte in rcpt("192.0.2.1", "a@b", "c@d").as_bytes() {
        client.send(&[*byte]).await;
    }
    assert_eq!(client.reply().await.as_deref(), Some("DUNNO"));
    let heap = rcpt("192.0.2.1", "a@b", "c@d").repeat(200);
    client.send(heap.as_bytes()).await;
    for _ in 0..200 {
        assert_eq!(client.reply().await.as_deref(), Some("DUNNO"));
    }
    gate.end().await;
}

#[tokio::test]
async fn values_that_are_not_utf8_are_decided() {
    let (_folder, gate) = gate(|_| {}).await;
    let mut client = gate.client().await;
    client.send(b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=\xff\xfe@b\nhelo_name=\x80\n\n").await;
    assert_eq!(client.reply().await.as_deref(), Some("DUNNO"));
    gate.end().await;
}

#[tokio::test]
async fn a_drain_answers_what_has_begun() {
    let (_folder, gate) = gate(|_| {}).await;
    let (mut idle, mut busy) = (gate.client().await, gate.client().await);
    works(&mut idle).await;
    works(&mut busy).await;
    let request = rcpt("192.0.2.1", "a@b", "c@d");
    let (first, second) = request.as_bytes().split_at(40);
    busy.send(first).await;
    // Answered on the same connection, so the server has read the fragment's packet when it reads the next.
    works(&mut idle).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.stop();
    assert_eq!(idle.line().await, None, "an idle connection is closed at once");
    busy.send(second).await;
    assert_eq!(busy.reply().await.as_deref(), Some("DUNNO"));
    assert_eq!(busy.line().await, None);
    gate.end().await;
}
