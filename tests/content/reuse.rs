// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections to the next hop that carry one message after the other: what a message must not notice of the one before it.

use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Received, Stage};
use tests::smtp_client::{Answer, SmtpClient};

fn message(number: usize) -> Vec<u8> {
    let head = format!("From: a@b\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <{number}@b>\r\n");
    format!("{head}\r\nmessage {number}\r\n").into_bytes()
}

/// One session of a client: XFORWARD when it has any, one message, QUIT.
async fn session(filter: &Filter, xforward: &str, recipients: &[&str], number: usize) -> Answer {
    let mut client = SmtpClient::greeted(&filter.address).await;
    if !xforward.is_empty() {
        assert_eq!(client.command(&format!("XFORWARD {xforward}")).await.code(), 250);
    }
    assert_eq!(client.command("MAIL FROM:<sender@example.org>").await.code(), 250);
    for recipient in recipients {
        client.command(&format!("RCPT TO:<{recipient}>")).await;
    }
    let mut answer = client.command("DATA").await;
    if answer.code() == 354 {
        client.send(&[&message(number), &b".\r\n"[..]].concat()).await;
        answer = client.answer().await;
    }
    assert_eq!(client.command("QUIT").await.code(), 221);
    answer
}

async fn started(hop: &NextHop) -> Filter {
    Filter::start(hop.address(), "reinject_idle = \"20s\"").await
}

/// What the next hop was told for a message that came over the connection of an earlier one.
fn told(received: &Received) -> Vec<String> {
    received.commands.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_share_a_connection_and_nothing_else() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = started(&hop).await;
    let known = "NAME=one.test ADDR=192.0.2.1 IDENT=4AB";
    assert_eq!(session(&filter, known, &["x@example.net"], 1).await.code(), 250);
    assert_eq!(session(&filter, "ADDR=192.0.2.2", &["y@example.net"], 2).await.code(), 250);
    assert_eq!(session(&filter, "", &["z@example.net"], 3).await.code(), 250);
    let seen = hop.wait("three messages", |seen| seen.completed() == 3).await;
    assert_eq!(seen.opened, 1);
    let second = ["XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.2 IDENT=[UNAVAILABLE]", "MAIL FROM:<sender@example.org>"];
    assert_eq!(told(&seen.messages[1]), [&second[..], &["RCPT TO:<y@example.net>"]].concat());
    let third = "XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] IDENT=[UNAVAILABLE]";
    assert_eq!(told(&seen.messages[2]), [third, "MAIL FROM:<sender@example.org>", "RCPT TO:<z@example.net>"]);
    for (place, received) in seen.messages.iter().enumerate() {
        assert!(String::from_utf8_lossy(&received.wire).contains(&format!("message {}", place + 1)));
    }
    filter.stop().await;
    hop.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_came_to_nothing_is_taken_back() {
    let refusal = b"550 5.1.1 No such user\r\n".to_vec();
    let hop = NextHop::start(vec![(Stage::RcptFor("nobody@"), Act::Say(refusal))]).await;
    let filter = started(&hop).await;
    assert_eq!(session(&filter, "", &["nobody@example.net"], 1).await.code() / 100, 5);
    // A client that leaves in the middle of its message.
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(b"Subject: half").await;
    drop(client);
    assert_eq!(session(&filter, "", &["x@example.net"], 2).await.code(), 250);
    let seen = hop.wait("the message", |seen| seen.completed() == 1).await;
    assert_eq!(seen.messages[0].lines("RCPT").last().map(String::as_str), Some("RCPT TO:<x@example.net>"));
    assert_eq!((seen.messages.len(), seen.unfinished), (1, 0));
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_closed_meanwhile_costs_no_message() {
    let hop = NextHop::start(vec![(Stage::End, Act::SayAndDrop(b"250 2.0.0 Ok: queued\r\n".to_vec()))]).await;
    let filter = started(&hop).await;
    for number in 1..=5 {
        assert_eq!(session(&filter, "", &["x@example.net"], number).await.code(), 250);
    }
    assert_eq!(hop.wait("all messages", |seen| seen.messages.len() == 5).await.opened, 5);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_hop_that_says_421_to_the_second_message_is_asked_anew() {
    let closing = (Stage::Mail, Act::SayAndDrop(b"421 4.3.2 Service shutting down\r\n".to_vec()));
    let hop =
        NextHop::start_by_session(move |session| if session == 1 { vec![closing.clone()] } else { Vec::new() }).await;
    let filter = started(&hop).await;
    // The first one waits; the second session opens another, which says 421 on a new connection and is passed on.
    let mut first = SmtpClient::in_data(&filter.address).await;
    let mut second = SmtpClient::greeted(&filter.address).await;
    assert_eq!(second.command("MAIL FROM:<sender@example.org>").await.code(), 421);
    first.send(&[&message(1), &b".\r\n"[..]].concat()).await;
    assert_eq!(first.answer().await.code(), 250);
    assert_eq!(session(&filter, "", &["x@example.net"], 2).await.code(), 250);
    assert_eq!(hop.seen().completed(), 2);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_so_long_and_no_longer() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "reinject_idle = \"200ms\"").await;
    assert_eq!(session(&filter, "", &["x@example.net"], 1).await.code(), 250);
    hop.idle().await;
    assert_eq!(session(&filter, "", &["x@example.net"], 2).await.code(), 250);
    let seen = hop.idle().await;
    assert_eq!((seen.opened, seen.completed()), (2, 2));
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_be_taken_back_costs_no_message() {
    let orders = vec![
        (Stage::RcptFor("nobody@"), Act::Say(b"550 5.1.1 No such user\r\n".to_vec())),
        (Stage::Rset, Act::Say(b"421 4.3.2 Service shutting down\r\n".to_vec())),
    ];
    let hop = NextHop::start(orders).await;
    let filter = started(&hop).await;
    assert_eq!(session(&filter, "", &["nobody@example.net"], 1).await.code() / 100, 5);
    assert_eq!(session(&filter, "", &["x@example.net"], 2).await.code(), 250);
    let seen = hop.wait("the message", |seen| seen.completed() == 1).await;
    assert_eq!((seen.opened, seen.messages.len()), (2, 1));
    filter.stop().await;
}
