// SPDX-License-Identifier: GPL-3.0-or-later
//! Access lists while the daemon runs: in the store, edited by the real command and in force on every host within a second, and in
//! files that change.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use policyd::config::Settings;
use tests::daemon::binary;
use tests::postgres::Cluster;
use tokio::time::Instant;

use crate::gate::{Client, Gate, PATIENCE, number, rcpt, sql, sqlite, store, strict};
use crate::pool::{Host, from};

const REFUSED: &str = "REJECT 5.7.1 Client host rejected: access denied";
/// How soon a change must be in force everywhere.
const SOON: Duration = Duration::from_secs(1);

/// The administrator's command on the store at `url`.
pub struct Admin {
    folder: tempfile::TempDir,
}

impl Admin {
    pub fn new(url: &str) -> Admin {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("octroi.toml"), format!("[store]\nurl = \"{url}\"\n")).unwrap();
        Admin { folder }
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary("octroi").unwrap());
        command.arg("--config").arg(self.folder.path().join("octroi.toml")).args(arguments);
        command.env("SUDO_USER", "ann").output().await.unwrap()
    }

    /// Runs it, expects success, and gives what it printed.
    pub async fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "octroi {arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn answer(client: &mut Client, ip: &str) -> String {
    client.ask(&rcpt(ip, "a@example.net", "r@example.org")).await.unwrap()
}

/// Asks until the client at `ip` is refused, or is not any more; gives how long that took.
async fn until(client: &mut Client, ip: &str, refused: bool) -> Duration {
    let since = Instant::now();
    while (answer(client, ip).await == REFUSED) != refused {
        assert!(since.elapsed() < PATIENCE, "{ip}: refused = {refused} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

async fn in_force_on_both_hosts(url: &str) {
    let admin = Admin::new(url);
    let (first, second) = (Gate::ready(strict(url)).await, Gate::ready(strict(url)).await);
    let (mut one, mut two) = (first.client().await, second.client().await);
    for round in 0..3 {
        let ip = format!("192.0.2.{round}");
        assert_ne!(answer(&mut one, &ip).await, REFUSED);
        let told = admin.done(&["list", "add", "client_blacklist", &ip, "--comment", "a test"]).await;
        assert_eq!(told, "client_blacklist: 1 new, 0 changed\n");
        let (at_one, at_two) = tokio::join!(until(&mut one, &ip, true), until(&mut two, &ip, true));
        assert!(at_one < SOON && at_two < SOON, "in force after {at_one:?} and {at_two:?}");
    }
    let told = admin.done(&["list", "remove", "client_blacklist", "192.0.2.0"]).await;
    assert_eq!(told, "client_blacklist: 1 removed\n");
    let (at_one, at_two) = tokio::join!(until(&mut one, "192.0.2.0", false), until(&mut two, "192.0.2.0", false));
    assert!(at_one < SOON && at_two < SOON, "out of force after {at_one:?} and {at_two:?}");
    assert_eq!(answer(&mut one, "192.0.2.1").await, REFUSED, "the others stay");
    // A whitelisted client passes whatever else is listed.
    admin.done(&["list", "add", "client_whitelist", "192.0.2.0/24"]).await;
    assert!(until(&mut two, "192.0.2.1", false).await < SOON);
    assert_eq!(answer(&mut two, "192.0.2.1").await, "DUNNO");
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn an_entry_added_by_the_command_is_in_force_on_both_hosts_with_postgres() {
    in_force_on_both_hosts(&Cluster::shared().new_database().await).await;
}

#[tokio::test]
async fn an_entry_added_by_the_command_is_in_force_in_both_daemons_with_sqlite() {
    let (_folder, url) = sqlite();
    in_force_on_both_hosts(&url).await;
}

async fn expires_by_the_clock(url: &str) {
    let gate = Gate::ready(strict(url)).await;
    let mut client = gate.client().await;
    let aside = store(url).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let insert = format!(
        "insert into acl (list, entry, expires) values \
        ('client_blacklist', '192.0.2.1', {}), ('client_blacklist', '192.0.2.2', {now}), ('client_blacklist', 'what is this', null)",
        now + 1500
    );
    sql(&aside, &insert).await;
    assert!(until(&mut client, "192.0.2.1", true).await < SOON, "an entry made with SQL is in force as well");
    assert_ne!(answer(&mut client, "192.0.2.2").await, REFUSED, "this one has expired");
    // Nothing can be read any more; it is the clock that ends the entry.
    sql(&aside, "alter table acl rename to gone").await;
    until(&mut client, "192.0.2.1", false).await;
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!((now + 1500..now + 2500).contains(&ended), "ended {} ms after the start", ended - now);
    aside.close().await;
    gate.end().await;
}

#[tokio::test]
async fn entries_expire_by_the_clock_with_postgres() {
    expires_by_the_clock(&Cluster::shared().new_database().await).await;
}

#[tokio::test]
async fn entries_expire_by_the_clock_with_sqlite() {
    let (_folder, url) = sqlite();
    expires_by_the_clock(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_the_last_lists_stay_and_after_it_changes_come_again() {
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    let admin = Admin::new(&url);
    let mut settings = strict(&url);
    settings.access.client_blacklist = vec![admin.file("clients", "198.51.100.1\n").into()];
    let gate = Gate::ready(settings.clone()).await;
    let mut client = gate.client().await;
    admin.done(&["list", "add", "client_blacklist", "192.0.2.1"]).await;
    until(&mut client, "192.0.2.1", true).await;

    // The listening connection alone is lost.
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'octroi lists'";
    assert_eq!(number(&store(&url).await, ended).await, 1);
    admin.done(&["list", "add", "client_blacklist", "192.0.2.2"]).await;
    until(&mut client, "192.0.2.2", true).await;

    tokio::task::block_in_place(|| cluster.stop());
    assert_eq!(answer(&mut client, "192.0.2.1").await, REFUSED, "the last known lists stay in force");
    let late = Gate::start(settings).await;
    let mut fresh = late.client().await;
    assert_eq!(
        answer(&mut fresh, "198.51.100.1").await,
        REFUSED,
        "the files are in force at a start without the store"
    );
    assert_ne!(answer(&mut fresh, "192.0.2.1").await, REFUSED);
    let output = admin.run(&["list", "add", "client_blacklist", "192.0.2.3"]).await;
    assert_eq!(output.status.code(), Some(69), "the command says that it could not");

    tokio::task::block_in_place(|| cluster.start_again());
    late.until_ready_says("ready: the store answers").await;
    until(&mut fresh, "192.0.2.1", true).await;
    gate.until_ready_says("ready: the store answers").await;
    admin.done(&["list", "add", "client_blacklist", "192.0.2.3"]).await;
    tokio::join!(until(&mut client, "192.0.2.3", true), until(&mut fresh, "192.0.2.3", true));
    gate.end().await;
    late.end().await;
}

async fn the_command_keeps_lists(url: &str) {
    let admin = Admin::new(url);
    let list = admin.file(
        "list",
        "# exported elsewhere\n192.0.2.0/24 # author=joe the branch office\nExample.org\n/^MX[0-9]/ # expires=2001-01-01 long gone\n",
    );
    let list = list.to_str().unwrap();
    assert_eq!(admin.done(&["list", "import", "client_whitelist", list]).await, "client_whitelist: 2 new, 0 changed\n");
    assert_eq!(admin.done(&["list", "import", "client_whitelist", list]).await, "client_whitelist: 0 new, 2 changed\n");
    let shown = admin.done(&["list", "show", "client_whitelist"]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(
        lines[1].contains("192.0.2.0/24") && lines[1].contains("joe") && lines[1].ends_with("the branch office"),
        "{shown}"
    );
    assert!(lines[2].contains("example.org") && lines[2].contains("ann"), "who ran the command is the author: {shown}");
    let exported = admin.done(&["list", "export", "client_whitelist"]).await;
    assert_eq!(exported, "192.0.2.0/24 # author=joe the branch office\nexample.org # author=ann\n");

    let wrong = admin.file("wrong", "198.51.100.1\n10.1\nuser@example.org\n");
    let output = admin.run(&["list", "import", "client_whitelist", wrong.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{told}");
    assert!(told.contains("wrong:2: ") && told.contains("wrong:3: ") && told.contains("nothing was changed"), "{told}");
    assert!(!admin.done(&["list", "show"]).await.contains("198.51.100.1"));

    let far = ["list", "add", "sender_blacklist", "Bad@Example.org", "--expires", "2099-12-31", "--author", "eve"];
    admin.done(&far).await;
    assert!(admin.done(&["list", "show"]).await.contains("bad@example.org  2099-12-31T00:00:00Z"));
    let output = admin.run(&["list", "remove", "sender_blacklist", "BAD@example.org", "other@example.org"]).await;
    assert_eq!(output.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"other@example.org\" is not in sender_blacklist"));
    assert!(!admin.done(&["list", "show"]).await.contains("bad@example.org"));
    assert_eq!(admin.run(&["list", "add", "clients", "192.0.2.1"]).await.status.code(), Some(64));
    assert_eq!(
        admin.run(&["list", "add", "client_whitelist", "192.0.2.1", "--expires", "30"]).await.status.code(),
        Some(64)
    );
}

#[tokio::test]
async fn the_command_adds_removes_shows_imports_and_exports_with_postgres() {
    the_command_keeps_lists(&Cluster::shared().new_database().await).await;
}

#[tokio::test]
async fn the_command_adds_removes_shows_imports_and_exports_with_sqlite() {
    let (_folder, url) = sqlite();
    the_command_keeps_lists(&url).await;
}

#[tokio::test]
async fn list_files_that_change_are_read_again_and_wrong_ones_are_not() {
    let (folder, url) = sqlite();
    let path = folder.path().join("clients");
    std::fs::write(&path, "192.0.2.1\n").unwrap();
    let mut settings: Settings = strict(&url);
    settings.access.client_blacklist = vec![path.clone().into()];
    settings.access.watch = "50ms".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    assert_eq!(answer(&mut client, "192.0.2.1").await, REFUSED);
    std::fs::write(&path, "192.0.2.1\n192.0.2.22\n").unwrap();
    until(&mut client, "192.0.2.22", true).await;
    std::fs::write(&path, "192.0.2.33\nnot an entry\n").unwrap();
    // No event tells that a file was not taken: several looks go by.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(answer(&mut client, "192.0.2.1").await, REFUSED);
    assert_ne!(answer(&mut client, "192.0.2.33").await, REFUSED);
    std::fs::write(&path, "192.0.2.33\n").unwrap();
    until(&mut client, "192.0.2.33", true).await;
    assert_ne!(answer(&mut client, "192.0.2.1").await, REFUSED);
    gate.end().await;
}

#[tokio::test]
async fn a_sender_listed_with_spf_passes_only_from_clients_that_his_domain_authorises() {
    let (folder, url) = sqlite();
    let path = folder.path().join("senders");
    std::fs::write(&path, "spf:example.net\nspf:open.example\nspf:nothing.example\n").unwrap();
    let zone = "example.net. TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nopen.example. TXT \"v=spf1 +all\"\n";
    let host = Host::start(&url, zone, |settings| settings.access.sender_whitelist = vec![path.into()]).await;
    for (client, sender, reason) in [
        ("192.0.2.7", "a@example.net", "sender_whitelisted"),
        ("192.0.2.7", "A@Example.NET", "sender_whitelisted"),
        ("198.51.100.7", "a@example.net", "greylist_new"),
        ("192.0.2.7", "a@sub.example.net", "greylist_new"),
        ("192.0.2.7", "a@open.example", "greylist_new"),
        ("192.0.2.7", "a@nothing.example", "greylist_new"),
    ] {
        assert_eq!(host.reason(&from(client, "", sender)).await, reason, "{client} {sender}");
    }
    let finding = host.ask(&from("192.0.2.7", "", "a@example.net")).await;
    assert!(finding.fact.starts_with("spf:example.net (") && finding.fact.ends_with("senders:1)"), "{}", finding.fact);
    host.end().await;
}

#[tokio::test]
async fn policyd_check_tells_what_is_odd_in_lists_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let dir = folder.path().display();
    write("whitelist_clients", "debian.org\n10.1\njoe@example.org\n");
    write("fqdn", "*.example.com\n");
    write(
        "octroi.toml",
        &format!("[access]\nclient_whitelist = ['postgrey:{dir}/whitelist_clients', 'sqlgrey-fqdn:{dir}/fqdn']\n"),
    );
    let run = async |file: &Path| {
        let mut command = tokio::process::Command::new(binary("policyd").unwrap());
        command.arg("check").arg("--config").arg(file).output().await.unwrap()
    };
    let output = run(&folder.path().join("octroi.toml")).await;
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains(&format!("notice: {dir}/whitelist_clients:2: \"10.1\" is 10.1.0.0/24")), "{told}");
    assert!(
        told.contains(&format!("notice: {dir}/whitelist_clients:3: ")) && told.contains("3 list entries"),
        "{told}"
    );
    write("octroi.toml", &format!("[access]\nclient_whitelist = ['{dir}/whitelist_clients']\n"));
    assert_eq!(
        run(&folder.path().join("octroi.toml")).await.status.code(),
        Some(78),
        "in our own format they are mistakes"
    );
}
