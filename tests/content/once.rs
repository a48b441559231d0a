// SPDX-License-Identifier: GPL-3.0-or-later
//! A message that the next hop has is not delivered again when its client, who does not know, sends it again: after a crash, after silence,
//! after the client left. And what crashed the daemon is not inspected for ever.

use std::path::Path;
use std::time::Duration;

use tests::daemon::Daemon;
use tests::fake_clamd::{FakeClamd, Manner};
use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Order, Stage};
use tests::postgres::Cluster;
use tests::process::{Signal, await_that};
use tests::smtp_client::{Answer, SmtpClient};

use crate::process::{contentd_with, start};

const PATIENCE: Duration = Duration::from_secs(60);
const ACCEPTED: &[u8] = b"250 2.0.0 Ok: queued as FAKE\r\n";

/// The n-th try of one message, as Postfix passes it on: with a trace of its own on top.
fn tried(number: usize) -> Vec<u8> {
    let trace = format!("Received: from client (client [192.0.2.1])\r\n\tby mx with ESMTP; try {number}\r\n");
    let rest =
        "From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n";
    format!("{trace}{rest}").into_bytes()
}

/// A next hop that follows orders in its first session only.
async fn at_first(order: Order) -> NextHop {
    NextHop::start_by_session(move |session| if session == 0 { vec![order.clone()] } else { Vec::new() }).await
}

fn late(seconds: u64) -> Order {
    (Stage::End, Act::Late(Duration::from_secs(seconds), ACCEPTED.to_vec()))
}

fn assert_known(answer: &Answer) {
    let text = answer.text();
    assert!(text.starts_with("250 2.0.0 id=") && text.contains("delivered before: 250 2.0.0 Ok: queued"), "{text}");
}

/// The witness of a daemon, among its children.
fn witness_of(daemon: &Daemon) -> u32 {
    let id = daemon.id().expect("it runs");
    let mut found = None;
    await_that("the witness", PATIENCE, || {
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
        let children = tasks.map(|task| std::fs::read_to_string(task.expect("a task").path().join("children")));
        let children: String = children.flatten().collect();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        found = children.into_iter().find(|child: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split('\0').nth(1) == Some("witness")
        });
        Ok(found)
    })
    .unwrap_or_else(|trouble| panic!("{trouble}"))
}

fn kill(id: u32) {
    let status = std::process::Command::new("kill").args(["-9", &id.to_string()]).status().expect("kill(1)");
    assert!(status.success());
}

fn witness_files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("state/contentd")).expect("the folder of the witness").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_dot_and_its_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = at_first(late(1)).await;
    let (mut daemon, address) = contentd_with(folder.path(), &hop, "");
    start(&mut daemon);
    // A witness that dies is replaced.
    let first = witness_of(&daemon);
    kill(first);
    await_that("another witness", PATIENCE, || Ok((witness_of(&daemon) != first).then_some(()))).expect("one comes");
    let mut client = SmtpClient::in_data(&address).await;
    client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    daemon.kill();
    assert!(client.is_closed().await, "the client knows nothing");
    start(&mut daemon);
    assert_known(&SmtpClient::deliver(&address, &tried(2)).await);
    assert_known(&SmtpClient::deliver(&address, &tried(3)).await);
    let seen = hop.idle().await;
    assert_eq!((seen.messages.len(), seen.completed()), (1, 1));
    // A restart later it is still known, from the store; what the witness wrote has gone there.
    await_that("the files of old witnesses to go", PATIENCE, || Ok((witness_files(folder.path()) == 1).then_some(())))
        .expect("they go");
    assert!(daemon.stop().expect("ended").success());
    assert_eq!(witness_files(folder.path()), 0, "a witness with nothing to tell leaves nothing");
    start(&mut daemon);
    assert_known(&SmtpClient::deliver(&address, &tried(4)).await);
    assert_eq!(hop.idle().await.completed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_the_next_hop_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = at_first((Stage::End, Act::Late(Duration::from_secs(1), b"452 4.3.1 full\r\n".to_vec()))).await;
    let (mut daemon, address) = contentd_with(folder.path(), &hop, "");
    start(&mut daemon);
    witness_of(&daemon);
    let mut client = SmtpClient::in_data(&address).await;
    client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    daemon.kill();
    start(&mut daemon);
    assert_eq!(SmtpClient::deliver(&address, &tried(2)).await.0, ACCEPTED);
    assert_eq!(hop.idle().await.completed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_end_of_a_try_is_not_known_nothing_is_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    // Longer than a start waits.
    let hop = at_first(late(6)).await;
    let (mut daemon, address) = contentd_with(folder.path(), &hop, "");
    start(&mut daemon);
    witness_of(&daemon);
    let mut client = SmtpClient::in_data(&address).await;
    client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    daemon.kill();
    start(&mut daemon);
    let mut deferred = 0;
    let answer = loop {
        let answer = SmtpClient::deliver(&address, &tried(2)).await;
        if answer.code() != 451 {
            break answer;
        }
        assert!(answer.text().contains("the last try is not over yet"), "{}", answer.text());
        deferred += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_known(&answer);
    assert!(deferred > 0);
    assert_eq!(hop.idle().await.completed(), 1);
}

#[tokio::test]
async fn the_client_left_before_the_answer() {
    let hop = at_first(late(1)).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    drop(client);
    hop.idle().await;
    assert_known(&SmtpClient::deliver(&filter.address, &tried(2)).await);
    // Another recipient has not got it yet.
    let mut client = SmtpClient::greeted(&filter.address).await;
    for command in ["MAIL FROM:<sender@example.org>", "RCPT TO:<recipient@example.net>", "RCPT TO:<other@example.net>"]
    {
        assert_eq!(client.command(command).await.code(), 250);
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(&[&tried(3), &b".\r\n"[..]].concat()).await;
    assert_eq!(client.answer().await.0, ACCEPTED);
    assert_eq!(client.command("QUIT").await.code(), 221);
    let seen = hop.idle().await;
    assert_eq!(seen.completed(), 2);
    assert_eq!(seen.messages[1].lines("RCPT"), ["RCPT TO:<other@example.net>"]);
    filter.stop().await;
}

#[tokio::test]
async fn what_could_be_two_messages_is_delivered_twice() {
    let hop = at_first(late(1)).await;
    let filter = Filter::start(hop.address(), "").await;
    let alarm = b"Received: from app by mx; 10:00\r\nSubject: disk full\r\n\r\nagain\r\n";
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(&[&alarm[..], b".\r\n"].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    drop(client);
    hop.idle().await;
    assert_eq!(SmtpClient::deliver(&filter.address, alarm).await.0, ACCEPTED);
    assert_eq!(hop.idle().await.completed(), 2);
    filter.stop().await;
}

#[tokio::test]
async fn who_has_heard_may_send_the_same_again() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    for _ in 0..2 {
        let mut client = SmtpClient::in_data(&filter.address).await;
        client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
        assert_eq!(client.answer().await.0, ACCEPTED);
        assert_eq!(client.command("QUIT").await.code(), 221);
    }
    assert_eq!(hop.idle().await.completed(), 2, "the ledger is for what went wrong");
    filter.stop().await;
}

#[tokio::test]
async fn clients_that_always_leave_without_quit_cost_nothing() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let letter = |number: usize| String::from_utf8_lossy(&tried(1)).replace("<1@", &format!("<{number}@"));
    for number in 0..130 {
        let mut client = SmtpClient::in_data(&filter.address).await;
        client.send(letter(number).as_bytes()).await;
        client.send(b".\r\n").await;
        assert_eq!(client.answer().await.0, ACCEPTED);
    }
    // The first ones could have been crashes of a Postfix; the last ones are what is usual here.
    assert_known(&SmtpClient::deliver(&filter.address, letter(0).as_bytes()).await);
    assert_eq!(SmtpClient::deliver(&filter.address, letter(129).as_bytes()).await.0, ACCEPTED);
    assert_eq!(hop.idle().await.completed(), 131);
    filter.stop().await;
}

#[tokio::test]
async fn a_next_hop_that_answers_after_the_client_was_sent_away() {
    let hop = at_first(late(5)).await;
    // Answers are waited for until two seconds before Postfix would leave.
    let filter =
        Filter::start(hop.address(), "deadline = \"1s\"\nproxy_timeout = \"4s\"\nreinject_timeout = \"3s\"").await;
    let answer = SmtpClient::deliver(&filter.address, &tried(1)).await;
    assert!(answer.text().starts_with("451 4.4.2"), "{}", answer.text());
    let answer = SmtpClient::deliver(&filter.address, &tried(2)).await;
    assert!(answer.text().contains("the last try is not over yet"), "{}", answer.text());
    hop.wait("the answer", |seen| seen.completed() == 1).await;
    hop.idle().await;
    assert_known(&SmtpClient::deliver(&filter.address, &tried(3)).await);
    assert_eq!(hop.idle().await.completed(), 1);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_of_the_farm_knows_too() {
    let cluster = Cluster::shared();
    let store = format!("[store]\nurl = \"{}\"", cluster.new_database().await);
    let hop = at_first(late(1)).await;
    let (first, second) = (Filter::start(hop.address(), &store).await, Filter::start(hop.address(), &store).await);
    first.store_opened().await;
    second.store_opened().await;
    let mut client = SmtpClient::in_data(&first.address).await;
    client.send(&[&tried(1), &b".\r\n"[..]].concat()).await;
    hop.wait("the dot", |seen| seen.messages.len() == 1).await;
    drop(client);
    hop.idle().await;
    // Within a second, on a machine with nothing else to do.
    await_known(&second).await;
    assert_known(&SmtpClient::deliver(&second.address, &tried(2)).await);
    assert_eq!(hop.idle().await.completed(), 1);
    first.stop().await;
    second.stop().await;
}

/// Waits until a filter has read a row of the ledger.
async fn await_known(filter: &Filter) {
    let known = async {
        while filter.daemon.ledger.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("the other host's row is read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_mail_goes_on_or_waits_as_configured() {
    let hop = NextHop::start(Vec::new()).await;
    for (choice, code) in [("pass", 250), ("tempfail", 451)] {
        let filter = Filter::start(hop.address(), &format!("[ledger]\non_store_error = \"{choice}\"")).await;
        assert_eq!(SmtpClient::deliver(&filter.address, &tried(1)).await.code(), code, "{choice}");
        filter.stop().await;
    }
}

/// Waits until so many streams have come to the scanner.
async fn streams(clamd: &FakeClamd, number: usize) {
    let come = async {
        while clamd.streams() < number {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.expect("the message comes to the scanner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crashes_the_daemon_twice_is_not_inspected_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let clamd = FakeClamd::start(Manner::SilentTo(b"body")).await;
    let more = format!("[antivirus.clamd]\naddress = \"{}\"", clamd.address());
    let (mut daemon, address) = contentd_with(folder.path(), &hop, &more);
    for try_ in 1..=2 {
        start(&mut daemon);
        witness_of(&daemon);
        // Another message, inspected and done: it has nothing to do with what comes.
        let other = format!("From: a@b\r\nDate: d\r\nMessage-ID: <other{try_}@b>\r\n\r\nwell\r\n");
        assert_eq!(SmtpClient::deliver(&address, other.as_bytes()).await.code(), 250);
        let seen = clamd.streams();
        let mut client = SmtpClient::in_data(&address).await;
        client.send(&[&tried(try_), &b".\r\n"[..]].concat()).await;
        streams(&clamd, seen + 1).await;
        daemon.kill();
        assert!(client.is_closed().await);
    }
    start(&mut daemon);
    let seen = clamd.streams();
    let answer = SmtpClient::deliver(&address, &tried(3)).await;
    assert!(answer.text().starts_with("250 2.7.0 id=") && answer.text().contains("quarantined"), "{}", answer.text());
    assert_eq!(clamd.streams(), seen, "the scanner is not asked");
    assert_eq!(hop.idle().await.completed(), 2, "the two others");
    // Decisions are written a moment later.
    let told = || {
        let log = std::fs::read_to_string(daemon.log()).expect("readable");
        Ok((log.contains("reason=poison") && log.contains("crashed 2")).then_some(()))
    };
    await_that("the log of the decision", PATIENCE, told).expect("it is told");
    daemon.signal(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_all_its_time_while_others_are_well_is_poison_too() {
    let hop = NextHop::start(Vec::new()).await;
    let clamd = FakeClamd::start(Manner::SilentTo(b"body")).await;
    let lines = format!(
        "deadline = \"3s\"\n[poison]\naction = \"reject\"\n[antivirus.clamd]\nfailures = 100\naddress = \"{}\"",
        clamd.address()
    );
    let filter = Filter::start(hop.address(), &lines).await;
    // Alone it may be the scanner's fault.
    for _ in 0..3 {
        assert_eq!(SmtpClient::deliver(&filter.address, &tried(1)).await.code(), 450);
    }
    for number in 0..2 {
        let seen = clamd.streams();
        let mut client = SmtpClient::in_data(&filter.address).await;
        client.send(&[&tried(2), &b".\r\n"[..]].concat()).await;
        streams(&clamd, seen + 1).await;
        let other = format!("From: a@b\r\nDate: d\r\nMessage-ID: <other{number}@b>\r\n\r\nwell\r\n");
        assert_eq!(SmtpClient::deliver(&filter.address, other.as_bytes()).await.code(), 250);
        assert_eq!(client.answer().await.code(), 450);
    }
    let answer = SmtpClient::deliver(&filter.address, &tried(3)).await;
    assert!(answer.text().starts_with("554 5.7.0 id="), "{}", answer.text());
    filter.stop().await;
}
