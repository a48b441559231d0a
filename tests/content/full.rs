// SPDX-License-Identifier: GPL-3.0-or-later
//! File systems that are really full: the client is told to come later before anything was sent on, nothing is lost or left behind, log and
//! metrics say so, and with the room mail comes back.
//!
//! contentd runs in a mount namespace of its own (unshare(1)) in which the folder in question is a small tmpfs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::address::Address;
use tests::daemon::{Daemon, page};
use tests::nexthop::NextHop;
use tests::ports::free_port;
use tests::process::{Account, await_that};
use tests::smtp_client::{Answer, SmtpClient};

use crate::process::start;

const PATIENCE: Duration = Duration::from_secs(60);
/// Room in the small file system.
const ROOM: usize = 2 << 20;

/// contentd with a small file system.
struct Place {
    daemon: Daemon,
    address: Address,
    hop: NextHop,
    http: u16,
    /// Where the small file system is, as contentd sees it.
    small: PathBuf,
    folder: tempfile::TempDir,
}

impl Place {
    /// `sections` come before `[contentd]`, whose lines are `lines`; `SMALL` in either stands for the small file system, `LARGE` for a folder
    /// with room.
    async fn start(sections: &str, lines: &str) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let hop = NextHop::start(Vec::new()).await;
        let (small, large) = (folder.path().join("small"), folder.path().join("large"));
        std::fs::create_dir_all(&small).expect("a folder");
        std::fs::create_dir_all(&large).expect("a folder");
        let address = Address::Unix(folder.path().join("contentd.sock"));
        let http = free_port();
        let text = format!(
            "[ledger]\ndirectory = \"LARGE/ledger\"\n{sections}\n[contentd]\nlisten = [\"{address}\"]\n\
             http = \"127.0.0.1:{http}\"\nreinject = \"{}\"\n{lines}\n",
            hop.address()
        );
        let named = |path: &Path| path.display().to_string();
        let text = text.replace("SMALL", &named(&small)).replace("LARGE", &named(&large));
        let configuration = folder.path().join("octroi.toml");
        std::fs::write(&configuration, text).expect("configuration written");
        let mount = format!("mount -t tmpfs -o size={ROOM} tmpfs '{}' && exec \"$@\"", small.display());
        let mut within = vec!["unshare".to_owned(), "--mount".to_owned()];
        if !Account::ours().is_root() {
            within.push("--map-root-user".to_owned());
        }
        within.extend(["sh", "-c", &mount, "sh"].map(str::to_owned));
        let daemon = Daemon::new("contentd", folder.path(), &configuration);
        let mut daemon = daemon.unwrap_or_else(|trouble| panic!("{trouble}")).within(within);
        start(&mut daemon);
        Place { daemon, address, hop, http, small, folder }
    }

    /// A file in the small file system, seen from here.
    fn inside(&self, name: &str) -> PathBuf {
        let path = self.small.join(name);
        let id = self.daemon.id().expect("it runs");
        Path::new(&format!("/proc/{id}/root")).join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Leaves so many bytes of room.
    fn fill(&self, left: usize) {
        let filler = self.inside("filler");
        let mut size = ROOM;
        // As large as it goes, then smaller by what is to be left.
        while std::fs::write(&filler, vec![1; size]).is_err() {
            size -= 4096;
        }
        let file = std::fs::OpenOptions::new().write(true).open(&filler).expect("it is there");
        file.set_len((size - left.min(size)) as u64).expect("smaller");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.inside("filler")).expect("it is there");
    }

    /// Files in the small file system but the filler.
    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.inside("")).expect("it is there").flatten();
        files.filter(|file| file.file_name() != "filler").count()
    }

    async fn deliver(&self, message: &[u8]) -> Answer {
        SmtpClient::deliver(&self.address, message).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.daemon.log()).expect("it is there")
    }

    /// Waits until the log has this.
    fn logged(&self, words: &str) {
        await_that(&format!("the log to say {words}"), PATIENCE, || Ok(self.log().contains(words).then_some(())))
            .unwrap_or_else(|trouble| panic!("{trouble}\n{}", self.log()));
    }

    /// The sum of the metrics that begin so.
    fn metric(&self, name: &str) -> f64 {
        let text = page(self.http, "/metrics").unwrap_or_else(|trouble| panic!("{trouble}"));
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

fn large() -> Vec<u8> {
    of_lines(25_000)
}

fn of_lines(lines: usize) -> Vec<u8> {
    let head = b"From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.org>\r\n\r\n";
    [&head[..], &b"all work and no play makes a dull text\r\n".repeat(lines)].concat()
}

fn banned() -> Vec<u8> {
    let head = "From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <2@example.org>\r\nMIME-Version: 1.0\r\n";
    let kind = "Content-Type: application/octet-stream; name=a.exe\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    // Nothing that packs well.
    let mut number = 1u64;
    let noise = (0..40_000).map(|_| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let digit = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(number >> 58) as usize];
        char::from(digit)
    });
    let lines: Vec<char> = noise.collect();
    let lines: String = lines.chunks(76).map(|line| line.iter().collect::<String>() + "\r\n").collect();
    format!("{head}{kind}{lines}").into_bytes()
}

const STORE: &str = "[store]\nurl = \"sqlite:LARGE/octroi.db\"";

#[tokio::test]
async fn no_room_for_the_spool() {
    let place = Place::start(STORE, "spool_dir = \"SMALL\"\nspool_memory = \"64KiB\"").await;
    let small = b"Message-ID: <3@example.org>\r\n\r\nsmall\r\n";
    place.fill(100_000);
    let answer = place.deliver(&large()).await;
    assert!(answer.text().starts_with("452 4.3.1 "), "{}", answer.text());
    place.logged("reason=spool-error");
    assert!(place.metric("octroi_contentd_spool_errors_total") >= 1.0);
    let seen = place.hop.idle().await;
    assert!(seen.messages.iter().all(|message| message.wire.is_empty()), "something was sent on");
    assert_eq!(place.files(), 0, "something is left behind");
    // What needs no room goes on.
    assert_eq!(place.deliver(small).await.code(), 250);
    place.make_room();
    assert_eq!(place.deliver(&large()).await.code(), 250);
    assert_eq!(place.hop.idle().await.completed(), 2);
}

#[tokio::test]
async fn no_room_for_the_quarantine() {
    let sections = format!("{STORE}\n[destiny]\nbanned = \"quarantine\"\n[quarantine]\ndirectory = \"SMALL\"");
    let place = Place::start(&sections, "spool_dir = \"LARGE\"").await;
    // The folders of the day can be made, the file cannot be written.
    place.fill(16_384);
    let answer = place.deliver(&banned()).await;
    assert!(answer.text().starts_with("451 4.3.0 "), "{}", answer.text());
    place.logged("reason=quarantine-failed");
    assert!(place.metric("octroi_contentd_quarantine_errors_total{at=\"file\"}") >= 1.0);
    assert!(!files_below(&place.inside("")).iter().any(|file| file.contains(".eml")), "something is left behind");
    place.make_room();
    let answer = place.deliver(&banned()).await;
    assert!(answer.text().starts_with("250 2.7.0 Ok, quarantined"), "{}", answer.text());
    assert_eq!(files_below(&place.inside("")).iter().filter(|file| file.ends_with(".eml.gz")).count(), 1);
    assert_eq!(place.hop.idle().await.completed(), 0);
}

fn files_below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path.display().to_string()] }).collect()
}

#[tokio::test]
async fn no_room_for_the_store() {
    let sections = "[store]\nurl = \"sqlite:SMALL/octroi.db\"\n[destiny]\nbanned = \"quarantine\"\n\
                    [quarantine]\ndirectory = \"LARGE/quarantine\"";
    let place = Place::start(sections, "spool_dir = \"LARGE\"").await;
    place.logged("the store answers");
    place.fill(0);
    let answer = place.deliver(&banned()).await;
    assert!(answer.text().starts_with("451 4.3.0 "), "{}", answer.text());
    place.logged("reason=quarantine-failed");
    assert!(place.metric("octroi_contentd_quarantine_errors_total{at=\"index\"}") >= 1.0);
    let quarantine = place.folder.path().join("large/quarantine");
    assert!(!files_below(&quarantine).iter().any(|file| file.contains(".eml")), "a file without a row");
    // Mail that needs no row goes on.
    assert_eq!(place.deliver(&large()).await.code(), 250);
    place.make_room();
    let answer = place.deliver(&banned()).await;
    assert!(answer.text().starts_with("250 2.7.0 Ok, quarantined"), "{}\n{}", answer.text(), place.log());
    assert_eq!(files_below(&quarantine).len(), 1);
    assert_eq!(place.hop.idle().await.completed(), 1);
}

/// An engine that is a program gets files; without room for them it is not asked, and that is never "clean".
#[tokio::test]
async fn no_room_for_what_a_scanner_is_to_read() {
    let sections = format!("{STORE}\n[antivirus.true]\nkind = \"command\"\ncommand = [\"/bin/true\", \"{{}}\"]");
    let place = Place::start(&sections, "spool_dir = \"SMALL\"\nspool_memory = \"512KiB\"").await;
    let message = of_lines(2500);
    place.fill(16_384);
    let answer = place.deliver(&message).await;
    assert_eq!(answer.code(), 450, "{}", answer.text());
    place.logged("reason=scanner-failed");
    assert!(place.metric("octroi_contentd_engine_scans_total{engine=\"true\",outcome=\"scratch\"}") >= 1.0);
    place.make_room();
    assert_eq!(place.deliver(&message).await.code(), 250);
    assert_eq!(place.hop.idle().await.completed(), 1);
    assert_eq!(place.files(), 0, "something is left behind");
}
