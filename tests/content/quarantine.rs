// SPDX-License-Identifier: GPL-3.0-or-later
//! The quarantine, on both databases: 2xx only for what is in it, and out of it once for each recipient, whoever asks how often.

use std::path::Path;
use std::time::Duration;

use common::store::{Store, StoreSettings};
use contentd::quarantine::QuarantineSettings;
use contentd::quarantine::file;
use contentd::store::quarantine::{self as index, Question};
use tests::daemon::binary;
use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Stage};
use tests::postgres::Cluster;
use tests::smtp_client::{Answer, SmtpClient};

const PATIENCE: Duration = Duration::from_secs(30);
const BANNED: &[u8] = b"From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nSubject: \x1b[31mred\r\nContent-Type: application/octet-stream; name=x.exe\r\n\r\n..dots and a line\r\n";

/// A filter whose banned files go into a quarantine of its own.
struct Place {
    folder: tempfile::TempDir,
    filter: Filter,
    hop: NextHop,
    store: Store,
    lines: String,
}

impl Place {
    async fn new(url: Option<String>, hop: NextHop, more: &str) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let url = url.unwrap_or_else(|| format!("sqlite:{}", folder.path().join("octroi.db").display()));
        let lines = format!(
            "[store]\nurl = \"{url}\"\n[destiny]\nbanned = \"quarantine\"\n[quarantine]\ndirectory = \"{}\"\n{more}",
            folder.path().join("quarantine").display()
        );
        let filter = Filter::start(hop.address(), &lines).await;
        filter.store_opened().await;
        let store = Store::open(&StoreSettings { url, ..StoreSettings::default() }).await.expect("the store opens");
        Place { folder, filter, hop, store, lines }
    }

    async fn quarantined(&self) -> String {
        let answer = SmtpClient::deliver(&self.filter.address, BANNED).await;
        id_of(&answer)
    }

    fn settings(&self) -> QuarantineSettings {
        self.filter.daemon.running().settings.quarantine.clone()
    }

    /// The real command.
    async fn octroi(&self, arguments: &[&str]) -> (i32, String) {
        let file = self.folder.path().join("octroi.toml");
        let text = format!(
            "[contentd]\nreinject = \"{}\"\nreinject_idle = \"0s\"\nhostname = \"filter.test\"\n{}",
            self.hop.address(),
            self.lines
        );
        std::fs::write(&file, text).expect("written");
        let mut command = tokio::process::Command::new(binary("octroi").expect("built"));
        let output = command.arg("--config").arg(&file).arg("quarantine").args(arguments).output().await.expect("run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    async fn done(&self, arguments: &[&str]) -> String {
        let (status, told) = self.octroi(arguments).await;
        assert_eq!(status, 0, "octroi quarantine {arguments:?}: {told}");
        told
    }
}

fn id_of(answer: &Answer) -> String {
    let text = answer.text();
    assert!(text.starts_with("250 2.7.0 Ok, quarantined, id="), "{text}");
    text.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id").to_owned()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.expect("readable").path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Makes one test per promise and database.
macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(None).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let cluster = super::Cluster::shared();
                super::$promise(Some(cluster.new_database().await)).await;
            })+
        }
    };
}

contract!(
    what_is_kept_is_shown_and_released_once,
    recipients_are_released_one_by_one,
    a_release_without_an_end_is_not_repeated_by_itself,
    another_host_says_where_it_is,
    what_is_old_or_too_much_goes,
);

async fn what_is_kept_is_shown_and_released_once(url: Option<String>) {
    let place = Place::new(url, NextHop::start(Vec::new()).await, "").await;
    let id = place.quarantined().await;
    assert_eq!(place.hop.idle().await.completed(), 0);
    let listed = place.done(&["list", "--recipient", "Recipient@example.net", "--why", "banned"]).await;
    assert!(listed.contains(&id) && listed.contains("held") && listed.contains("<sender@example.org>"), "{listed}");
    assert!(!place.done(&["list", "--sender", "<>"]).await.contains(&id));
    let shown = place.done(&["show", &id.to_lowercase()]).await;
    assert!(shown.contains("extension exe: x.exe") && shown.contains("Subject: ?[31mred"), "{shown}");
    let raw = place.done(&["show", "--raw", &id]).await;
    assert_eq!(raw.as_bytes(), String::from_utf8_lossy(BANNED).replace("\r\n..", "\r\n.").as_bytes());
    // Five at once: one delivers, whichever.
    let arguments = ["release", id.as_str()];
    let releases = (0..5).map(|_| place.octroi(&arguments));
    let told: Vec<(i32, String)> = join_all(releases).await;
    assert_eq!(told.iter().filter(|(_, told)| told.contains("> released: 250")).count(), 1, "{told:?}");
    let seen = place.hop.idle().await;
    assert_eq!(seen.completed(), 1, "{told:?}");
    let message = String::from_utf8_lossy(&seen.messages.last().expect("one").wire).into_owned();
    assert!(
        message.starts_with(&format!("X-Quarantine-ID: {id}\r\nFrom: "))
            && message.ends_with("\r\n..dots and a line\r\n"),
        "{message}"
    );
    assert!(place.done(&["release", &id]).await.contains("was released before: 250"));
    assert!(place.done(&["list"]).await.contains("released"));
    assert!(place.done(&["delete", &id]).await.contains("is deleted"));
    assert_eq!(files(&place.settings().folder()), Vec::<std::path::PathBuf>::new());
    let (status, told) = place.octroi(&["release", &id]).await;
    assert_eq!((status, told.contains("is not in the quarantine")), (65, true), "{told}");
    assert_eq!(place.hop.idle().await.completed(), 1);
    place.filter.stop().await;
}

async fn recipients_are_released_one_by_one(url: Option<String>) {
    let hop = NextHop::start_by_session(|session| {
        if session == 2 { vec![(Stage::Rcpt, Act::Say(b"550 5.1.1 gone\r\n".to_vec()))] } else { Vec::new() }
    })
    .await;
    let place = Place::new(url, hop, "").await;
    let mut client = SmtpClient::greeted(&place.filter.address).await;
    for command in ["MAIL FROM:<> BODY=8BITMIME", "RCPT TO:<a@example.net>", "RCPT TO:<b@example.net> NOTIFY=NEVER"] {
        assert_eq!(client.command(command).await.code(), 250);
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(&[BANNED, b".\r\n"].concat()).await;
    let id = id_of(&client.answer().await);
    let (status, told) = place.octroi(&["release", &id, "--to", "c@example.net"]).await;
    assert_eq!((status, told.contains("<c@example.net> is not a recipient")), (64, true), "{told}");
    assert!(place.done(&["release", &id, "--to", "B@example.net"]).await.starts_with("<b@example.net> released: 250"));
    assert!(place.done(&["list"]).await.contains("1/2 released"));
    let (status, told) = place.octroi(&["release", &id]).await;
    assert_eq!(status, 69, "{told}");
    assert!(
        told.contains("<b@example.net> was released before")
            && told.contains("<a@example.net> not released: 550 5.1.1 gone"),
        "{told}"
    );
    assert!(place.done(&["release", &id]).await.contains("<a@example.net> released: 250"));
    let seen = place.hop.idle().await;
    let lines: Vec<String> = seen.messages.iter().flat_map(|message| message.lines("RCPT")).collect();
    assert_eq!(lines, ["RCPT TO:<b@example.net> NOTIFY=NEVER", "RCPT TO:<a@example.net>"]);
    assert_eq!(seen.messages[0].lines("MAIL"), ["MAIL FROM:<> BODY=8BITMIME"]);
    place.filter.stop().await;
}

async fn a_release_without_an_end_is_not_repeated_by_itself(url: Option<String>) {
    let hop =
        NextHop::start_by_session(|session| if session == 1 { vec![(Stage::End, Act::Drop)] } else { Vec::new() })
            .await;
    let place = Place::new(url, hop, "").await;
    let id = place.quarantined().await;
    let (status, told) = place.octroi(&["release", &id]).await;
    assert_eq!((status, told.contains("--again sends it once more")), (69, true), "{told}");
    let (status, told) = place.octroi(&["release", &id]).await;
    assert_eq!((status, told.contains("a release has begun")), (69, true), "{told}");
    assert_eq!(place.hop.idle().await.opened, 2, "the second release asks nobody");
    assert!(place.done(&["release", "--again", &id]).await.contains("> released: 250"));
    assert_eq!(place.hop.idle().await.completed(), 1);
    place.filter.stop().await;
}

async fn another_host_says_where_it_is(url: Option<String>) {
    let place = Place::new(url, NextHop::start(Vec::new()).await, "").await;
    let id = place.quarantined().await;
    let text = "update quarantine set host = 'mx2'";
    match &place.store {
        Store::Postgres(pool) => drop(sqlx::query(text).execute(pool).await.expect("changed")),
        Store::Sqlite(pool) => drop(sqlx::query(text).execute(pool).await.expect("changed")),
    }
    for action in ["release", "delete"] {
        let (status, told) = place.octroi(&[action, &id]).await;
        assert_eq!((status, told.contains("is kept on mx2: run the command there")), (65, true), "{told}");
    }
    assert!(place.done(&["show", &id]).await.contains("is kept on mx2"));
    place.filter.stop().await;
}

async fn what_is_old_or_too_much_goes(url: Option<String>) {
    let place = Place::new(url, NextHop::start(Vec::new()).await, "").await;
    let (first, second) = (place.quarantined().await, place.quarantined().await);
    let quarantine = &place.filter.daemon.quarantine;
    let all = Question { most: 10, ..Question::default() };
    let ids = async || {
        let listed = index::list(&place.store, &all).await.expect("listed");
        listed.into_iter().map(|listed| listed.id).collect::<Vec<_>>()
    };
    let stored = index::find(&place.store, &first).await.expect("asked").expect("there").stored;
    let mut settings = place.settings();
    settings.max_size = common::units::Size(stored as u64 + 10);
    quarantine.round(&place.store, &settings, true).await.expect("cleaned");
    assert_eq!(ids().await, [second], "the older one has made room");
    let text = "update quarantine set expires = at";
    match &place.store {
        Store::Postgres(pool) => drop(sqlx::query(text).execute(pool).await.expect("changed")),
        Store::Sqlite(pool) => drop(sqlx::query(text).execute(pool).await.expect("changed")),
    }
    quarantine.round(&place.store, &settings, false).await.expect("cleaned");
    assert!(ids().await.is_empty());
    // What a crash leaves: a file without a row, and one that was never finished. Both go when their day is over.
    let before = contentd::store::now() - 2 * 86_400_000;
    let stray = settings.folder().join(file::name("1STRAY", before).expect("an id"));
    std::fs::create_dir_all(stray.parent().expect("a folder")).expect("made");
    std::fs::write(&stray, "x").expect("written");
    std::fs::write(stray.with_file_name("2STRAY.eml.new"), "x").expect("written");
    quarantine.round(&place.store, &settings, true).await.expect("cleaned");
    assert_eq!(files(&settings.folder()), Vec::<std::path::PathBuf>::new());
    place.filter.stop().await;
}

#[tokio::test]
async fn what_cannot_be_kept_stays_with_the_client() {
    let hop = NextHop::start(Vec::new()).await;
    let folder = tempfile::tempdir().expect("a folder");
    // No store.
    let directory = folder.path().join("quarantine");
    let lines = format!("[destiny]\nbanned = \"discard\"\n[quarantine]\ndirectory = \"{}\"", directory.display());
    let filter = Filter::start(hop.address(), &lines).await;
    let answer = SmtpClient::deliver(&filter.address, BANNED).await;
    assert!(answer.text().starts_with("451 4.3.0 id="), "{}", answer.text());
    let clean = b"From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\n\r\nx\r\n";
    assert_eq!(SmtpClient::deliver(&filter.address, clean).await.code(), 250, "mail needs no store");
    filter.stop().await;
    assert_eq!(files(&directory), Vec::<std::path::PathBuf>::new());

    // No place for files.
    let place = Place::new(None, NextHop::start(Vec::new()).await, "").await;
    std::fs::write(place.settings().folder(), "in the way").expect("written");
    let answer = SmtpClient::deliver(&place.filter.address, BANNED).await;
    assert!(answer.text().starts_with("451 4.3.0 id="), "{}", answer.text());
    assert_eq!(index::list(&place.store, &Question { most: 1, ..Question::default() }).await.expect("listed"), []);
    assert_eq!(place.hop.idle().await.completed(), 0);
    place.filter.stop().await;
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    let all = std::future::poll_fn(|context| {
        for (future, done) in waiting.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
    done.into_iter().flatten().collect()
}
