// SPDX-License-Identifier: GPL-3.0-or-later
//! The real binary as a process: killed in the middle of a message, drained by SIGTERM, its memory under load.

use std::path::Path;
use std::time::Duration;

use common::address::Address;
use tests::daemon::Daemon;
use tests::nexthop::{Act, NextHop, Stage};
use tests::smtp_client::SmtpClient;

/// A contentd process that listens on a UNIX socket in `folder`.
fn contentd(folder: &Path, hop: &NextHop) -> (Daemon, Address) {
    contentd_with(folder, hop, "")
}

/// The same with these sections.
pub(crate) fn contentd_with(folder: &Path, hop: &NextHop, more: &str) -> (Daemon, Address) {
    let address = Address::Unix(folder.join("contentd.sock"));
    let configuration = folder.join("octroi.toml");
    let state = folder.join("state");
    std::fs::create_dir_all(&state).expect("a folder for what is kept");
    let text = format!(
        "[store]\nurl = \"sqlite:{}\"\n[ledger]\ndirectory = \"{}\"\n[quarantine]\ndirectory = \"{}\"\n{more}\n\
        [contentd]\nlisten = [\"{address}\"]\nhttp = \"\"\nreinject = \"{}\"\nreinject_idle = \"0s\"\nspool_dir = \"{}\"\n",
        state.join("octroi.db").display(),
        state.join("contentd").display(),
        state.join("quarantine").display(),
        hop.address(),
        folder.display(),
    );
    std::fs::write(&configuration, text).expect("configuration written");
    (Daemon::new("contentd", folder, &configuration).unwrap_or_else(|trouble| panic!("{trouble}")), address)
}

pub(crate) fn start(daemon: &mut Daemon) {
    daemon.start().unwrap_or_else(|trouble| panic!("{trouble}"));
}

#[tokio::test]
async fn killed_in_mid_message_the_retry_makes_one_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    // The first session stops reading inside the message; the second is well.
    let hop = NextHop::start_by_session(
        |session| if session == 0 { vec![(Stage::Body(10_000), Act::Hang)] } else { Vec::new() },
    )
    .await;
    let (mut daemon, address) = contentd(folder.path(), &hop);
    start(&mut daemon);
    let message = [b"Subject: once\r\n\r\n".to_vec(), b"0123456789\r\n".repeat(500_000)].concat();
    let mut client = SmtpClient::in_data(&address).await;
    client.send(&message).await;
    client.send(b".\r\n").await;
    hop.wait("the message begin", |seen| seen.bytes > 10_000).await;
    daemon.kill();
    assert!(client.is_closed().await, "no reply, so the client keeps the message");
    start(&mut daemon);
    assert_eq!(SmtpClient::deliver(&address, &message).await.code(), 250);
    let seen = hop.wait("the second copy", |seen| seen.completed() == 1).await;
    assert_eq!(seen.messages.len(), 1);
    assert!(seen.messages[0].wire.ends_with(&message[16..]));
    assert!(daemon.stop().expect("ended").success());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("entry").file_name()).collect();
    assert!(left.len() <= 5, "spool files are left behind: {left:?}");
}

#[tokio::test]
async fn sigterm_lets_the_message_in_progress_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, address) = contentd(folder.path(), &hop);
    start(&mut daemon);
    let mut idle = SmtpClient::greeted(&address).await;
    let mut client = SmtpClient::in_data(&address).await;
    client.send(b"Subject: x\r\n\r\n").await;
    daemon.signal(tests::process::Signal::TERM);
    assert_eq!(idle.answer().await.code(), 421);
    client.send(b"end\r\n.\r\n").await;
    assert_eq!(client.answer().await.code(), 250);
    let ended = tokio::task::spawn_blocking(move || daemon.wait()).await.expect("waited");
    assert!(ended.expect("ended").success());
    assert_eq!(hop.idle().await.completed(), 1);
}

#[tokio::test]
async fn a_wrong_configuration_at_reload_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, address) = contentd(folder.path(), &hop);
    start(&mut daemon);
    let file = folder.path().join("octroi.toml");
    let good = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, good.replace("reinject =", "reinjekt =")).expect("written");
    daemon.reload().unwrap_or_else(|trouble| panic!("{trouble}"));
    let log = std::fs::read_to_string(daemon.log()).expect("readable");
    assert!(log.contains("contentd.reinjekt") && log.contains("octroi.toml:11"), "{log}");
    assert_eq!(SmtpClient::deliver(&address, b"x\r\n").await.code(), 250);
    std::fs::write(&file, format!("{good}max_size = \"1kB\"\n")).expect("written");
    daemon.reload().unwrap_or_else(|trouble| panic!("{trouble}"));
    let mut client = SmtpClient::greeted(&address).await;
    assert_eq!(client.command("MAIL FROM:<a@b> SIZE=1001").await.code(), 552);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_sessions_of_ten_megabytes_stay_below_150_mb() {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, address) = contentd(folder.path(), &hop);
    start(&mut daemon);
    let message = std::sync::Arc::new(ten_megabytes());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (address, message) = (address.clone(), message.clone());
        clients.spawn(async move { SmtpClient::deliver(&address, &message).await });
    }
    let answers = tokio::time::timeout(Duration::from_secs(300), clients.join_all()).await.expect("in time");
    assert!(answers.iter().all(|answer| answer.code() == 250), "{answers:?}");
    assert_eq!(hop.idle().await.completed(), 16);
    let peak = peak_memory(daemon.id().expect("it runs"));
    println!("{peak} kB at the peak");
    assert!(peak < 150_000, "{peak} kB at the peak");
    assert!(peak > 3_000, "{peak} kB is no plausible figure");
}

/// A message as mail is: text and a large attachment in base64.
fn ten_megabytes() -> Vec<u8> {
    let mut message = b"From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\ntext\r\n--B\r\nContent-Type: application/octet-stream; name=data.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    while message.len() < 10_000_000 {
        message.extend_from_slice(b"SGVsbG8gd29ybGQhIFRoaXMgaXMgYSBsaW5lIG9mIGFuIGF0dGFjaG1lbnQgaW4gYmFzZTY0LiA=\r\n");
    }
    message.extend_from_slice(b"--B--\r\n");
    message
}

/// The most memory that a process has had, in kB (proc(5), VmHWM).
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
