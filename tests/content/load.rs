// SPDX-License-Identifier: GPL-3.0-or-later
//! Too much, too slow, too many: what contentd does with more than it has room for, and that a long day costs it no memory.

use std::time::Duration;

use tests::filter::Filter;
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;

use crate::process::{contentd_with, start};

#[tokio::test]
async fn more_messages_than_there_is_room_for_come_later() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "max_messages = 2").await;
    let mut first = SmtpClient::in_data(&filter.address).await;
    let mut second = SmtpClient::greeted(&filter.address).await;
    assert_eq!(second.command("MAIL FROM:<a@b>").await.code(), 250);
    let mut third = SmtpClient::greeted(&filter.address).await;
    let told = third.command("MAIL FROM:<a@b>").await.text();
    assert!(told.starts_with("452 4.3.2 "), "{told}");
    // Whoever goes makes room: by RSET, by leaving, by being done.
    assert_eq!(second.command("RSET").await.code(), 250);
    assert_eq!(third.command("MAIL FROM:<a@b>").await.code(), 250);
    assert_eq!(second.command("MAIL FROM:<a@b>").await.code(), 452);
    drop(third);
    until_taken(&mut second).await;
    assert_eq!(second.command("RSET").await.code(), 250);
    first.send(b"x\r\n.\r\n").await;
    assert_eq!(first.answer().await.code(), 250);
    for client in [&mut first, &mut second] {
        assert_eq!(client.command("MAIL FROM:<a@b>").await.code(), 250);
    }
    drop((first, second));
    filter.stop().await;
}

/// The other side notices a moment later that a client has gone.
async fn until_taken(client: &mut SmtpClient) {
    let taken = async {
        while client.command("MAIL FROM:<a@b>").await.code() != 250 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken).await.expect("room again");
}

#[tokio::test]
async fn no_message_begins_while_memory_is_short() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "max_memory = \"1kB\"").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    let told = client.command("MAIL FROM:<a@b>").await.text();
    assert!(told.starts_with("452 4.3.2 "), "{told}");
    assert_eq!(hop.seen().opened, 0);
    filter.stop().await;
}

#[tokio::test]
async fn drops_are_no_message() {
    let hop = NextHop::start(Vec::new()).await;
    let lines = "command_timeout = \"2s\"\nidle_timeout = \"1s\"\ndata_timeout = \"60s\"\ndata_limit = \"1s\"";
    let filter = Filter::start(hop.address(), lines).await;
    // A command that comes letter by letter has to be there in time all the same.
    let mut slow = SmtpClient::greeted(&filter.address).await;
    let mut sent = 0;
    while slow.try_send(b"N").await.is_ok() && sent < 600 {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sent < 600, "it was never sent away");
    // And so has a message.
    let mut slow = SmtpClient::in_data(&filter.address).await;
    let drip = async {
        loop {
            if slow.try_send(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), drip).await.expect("it is sent away");
    assert_eq!(hop.idle().await.messages.len(), 0);
    filter.stop().await;
}

/// `LOAD=10000` makes it as many messages as the name says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_over_sixteen_sessions() {
    let messages: usize = std::env::var("LOAD").ok().and_then(|number| number.parse().ok()).unwrap_or(1600);
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, address) = contentd_with(folder.path(), &hop, "");
    start(&mut daemon);
    let mut sizes = Vec::new();
    for part in 0..4 {
        let mut clients = tokio::task::JoinSet::new();
        for session in 0..16 {
            let address = address.clone();
            let count = messages / 64;
            clients.spawn(async move {
                for number in 0..count {
                    let id = format!("{part}.{session}.{number}");
                    let text =
                        format!("From: a@b\r\nDate: d\r\nMessage-ID: <{id}@b>\r\n\r\n{}", "line\r\n".repeat(500));
                    let mut client = SmtpClient::in_data(&address).await;
                    client.send(text.as_bytes()).await;
                    client.send(b".\r\n").await;
                    assert_eq!(client.answer().await.code(), 250);
                    assert_eq!(client.command("QUIT").await.code(), 221);
                }
            });
        }
        clients.join_all().await;
        sizes.push(memory(daemon.id().expect("it runs")));
    }
    let seen = hop.idle().await;
    let ids = seen.messages.iter().filter(|message| message.completed).map(|message| {
        let text = String::from_utf8_lossy(&message.wire).into_owned();
        text.lines().find(|line| line.starts_with("Message-ID:")).expect("an id").to_owned()
    });
    let ids: Vec<String> = ids.collect();
    let different: std::collections::HashSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (messages / 64 * 64, messages / 64 * 64));
    println!("{} messages; kB after each quarter: {sizes:?}", ids.len());
    assert!(sizes[3] < sizes[0] + 8_000, "memory grows: {sizes:?} kB");
}

/// Resident memory of a process, in kB (proc(5), VmRSS).
fn memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
