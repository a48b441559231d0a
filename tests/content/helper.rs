// SPDX-License-Identifier: GPL-3.0-or-later
//! The helpers of a real contentd: stopped and killed with an archive in hand, sent signals, left behind by the daemon.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::daemon::{Daemon, page};
use tests::nexthop::NextHop;
use tests::ports::free_port;
use tests::process::await_that;
use tests::smtp_client::SmtpClient;

use crate::process::{contentd_with, start};

const PATIENCE: Duration = Duration::from_secs(120);

/// The helpers of a daemon, by what the kernel says of its children.
fn helpers(daemon: &Daemon) -> Vec<Pid> {
    let id = daemon.id().expect("it runs");
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let children: Vec<i32> = children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let is_helper = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"helper"))
    };
    children.into_iter().filter(is_helper).filter_map(Pid::from_raw).collect()
}

/// The one helper, as soon as it serves.
fn helper(daemon: &Daemon) -> Pid {
    let serves = || {
        let log = std::fs::read_to_string(daemon.log()).unwrap_or_default();
        Ok(helpers(daemon).first().copied().filter(|_| log.contains("decoders run in helpers")))
    };
    await_that("a helper", PATIENCE, serves).unwrap_or_else(|trouble| panic!("{trouble}"))
}

/// A message with `hello` packed by bzip2. No two are the same: what was delivered once would not be looked at again.
fn message(number: u32) -> Vec<u8> {
    format!(
        "From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <{number}@example.org>\r\n\
        Content-Type: application/x-bzip2; name=a.bz2\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        QlpoOTFBWSZTWRkxZT0AAACBAAJEoAAhmmgzTQczi7kinChIDJiynoA=\r\n"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_with_a_file_in_hand_costs_that_message_a_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let port = free_port();
    let lines = "[unpack]\nhelpers = 1\n[destiny]\nunchecked = \"reject\"\n";
    let (mut daemon, address) = contentd_with(folder.path(), &hop, lines);
    let file = folder.path().join("octroi.toml");
    let text = std::fs::read_to_string(&file)
        .expect("written")
        .replace("http = \"\"", &format!("http = \"127.0.0.1:{port}\""));
    std::fs::write(&file, text).expect("written");
    start(&mut daemon);
    let first = helper(&daemon);
    // systemd sends this to all processes of a service, and messages in progress still need it.
    kill_process(first, Signal::TERM).expect("it runs");
    assert_eq!(SmtpClient::deliver(&address, &message(1)).await.code(), 250);
    assert_eq!(helpers(&daemon), [first]);

    kill_process(first, Signal::STOP).expect("it runs");
    let wire = message(2);
    let at = address.clone();
    let sent = tokio::spawn(async move { SmtpClient::deliver(&at, &wire).await });
    let busy = || Ok(page(port, "/metrics")?.contains("\noctroi_contentd_helpers_busy 1").then_some(()));
    tokio::task::block_in_place(|| await_that("the helper at work", PATIENCE, busy)).unwrap_or_else(|t| panic!("{t}"));
    kill_process(first, Signal::KILL).expect("it runs");
    let answer = sent.await.expect("answered");
    assert_eq!(answer.code(), 554, "{}", answer.text());
    let log = std::fs::read_to_string(daemon.log()).expect("readable");
    assert!(log.contains("the decoder was killed; its file stays unchecked"), "{log}");
    let metrics = page(port, "/metrics").unwrap_or_else(|trouble| panic!("{trouble}"));
    let counted = "octroi_contentd_helper_jobs_total{format=\"bzip2\",outcome=\"killed\"} 1";
    assert!(metrics.contains(counted), "{metrics}");

    assert_eq!(SmtpClient::deliver(&address, &message(3)).await.code(), 250, "the next one");
    assert_ne!(helper(&daemon), first);
    assert_eq!(hop.idle().await.completed(), 2);
}

#[tokio::test]
async fn none_outlives_its_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, _) = contentd_with(folder.path(), &hop, "[unpack]\nhelpers = 1\n");
    start(&mut daemon);
    let pid = helper(&daemon).as_raw_nonzero();
    daemon.kill();
    let runs = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let gone = || Ok((!runs()).then_some(()));
    await_that("its end", PATIENCE, gone).unwrap_or_else(|trouble| panic!("{trouble}"));
}
