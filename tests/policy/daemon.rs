// SPDX-License-Identifier: GPL-3.0-or-later
//! policyd as a process: readiness, SIGHUP, SIGTERM, what it logs.

use std::path::PathBuf;

use common::address::Address;
use tests::daemon::Daemon;
use tests::ports::free_port;
use tests::postgres::Cluster;

use crate::gate::{Client, number, rcpt, sql, store};

struct Set {
    folder: tempfile::TempDir,
    port: u16,
}

impl Set {
    fn new() -> Set {
        Set { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, rest: &str, blacklist: &str) {
        let (store, list) = (self.path("octroi.db"), self.path("clients"));
        let text = format!(
            "[store]\nurl = \"sqlite:{}\"\n[policyd]\nlisten = [\"127.0.0.1:{}\"]\nhttp = \"\"\n\
             [access]\nclient_blacklist = [\"{}\"]\n{rest}",
            store.display(),
            self.port,
            list.display()
        );
        std::fs::write(self.path("octroi.toml"), text).unwrap();
        std::fs::write(list, blacklist).unwrap();
    }

    async fn answer(&self, client: &str) -> String {
        let mut asker = Client::connect(&Address::tcp("127.0.0.1", self.port)).await;
        asker.ask(&rcpt(client, "a@example.net", "r@example.org")).await.unwrap()
    }
}

#[tokio::test]
async fn a_reload_takes_over_good_lists_and_keeps_the_old_instead_of_wrong_ones() {
    let set = Set::new();
    set.write("", "192.0.2.1\n");
    let mut daemon = Daemon::new("policyd", set.folder.path(), &set.path("octroi.toml")).unwrap();
    daemon.start().unwrap();
    let refused = "REJECT 5.7.1 Client host rejected: access denied";
    assert_eq!(set.answer("192.0.2.1").await, refused);
    assert_eq!(set.answer("192.0.2.2").await, "DUNNO");

    set.write("", "192.0.2.1\n192.0.2.2\n");
    daemon.reload().unwrap();
    assert_eq!(set.answer("192.0.2.2").await, refused);

    set.write("", "192.0.2.3\nnot an entry\n");
    daemon.reload().unwrap();
    assert_eq!(set.answer("192.0.2.1").await, refused, "the old list holds");
    assert_eq!(set.answer("192.0.2.3").await, "DUNNO");

    set.write("[greylist]\nmode = \"sometimes\"\n", "192.0.2.3\n");
    daemon.reload().unwrap();
    assert_eq!(set.answer("192.0.2.3").await, "DUNNO", "list and settings change together or not at all");

    set.write("[greylist]\nmode = \"off\"\n", "192.0.2.3\n");
    let text =
        std::fs::read_to_string(set.path("octroi.toml")).unwrap().replace("http = \"\"", "http = \"127.0.0.1:1\"");
    std::fs::write(set.path("octroi.toml"), text).unwrap();
    daemon.reload().unwrap();
    assert_eq!(set.answer("192.0.2.3").await, refused);

    assert!(daemon.stop().unwrap().success());
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    assert!(log.contains(&format!("{}:2: ", set.path("clients").display())), "{log}");
    assert!(log.contains(&format!("{}:9: greylist.mode: ", set.path("octroi.toml").display())), "{log}");
    assert!(log.contains("key=policyd.http"), "{log}");
}

#[tokio::test]
async fn every_decision_is_one_line_with_its_fields() {
    let set = Set::new();
    set.write("[greylist]\nmode = \"strict\"\n", "192.0.2.1\n");
    let mut daemon = Daemon::new("policyd", set.folder.path(), &set.path("octroi.toml")).unwrap();
    daemon.start().unwrap();
    set.answer("192.0.2.1").await;
    let mut asker = Client::connect(&Address::tcp("127.0.0.1", set.port)).await;
    let forged = "request=smtpd_access_policy\nprotocol_state=CONNECT\nclient_address=192.0.2.9\nhelo_name=x verdict=reject\r\x1b[31m\n\n";
    assert_eq!(asker.ask(forged).await.as_deref(), Some("DUNNO"));
    daemon.stop().unwrap();
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    let decisions: Vec<&str> = log.lines().filter(|line| line.contains("msg=policy ")).collect();
    assert_eq!(decisions.len(), 2, "{log}");
    for field in [
        " client=192.0.2.1 ",
        " helo=mx.example.net ",
        " sender=a@example.net ",
        " rcpt=r@example.org ",
        " instance=1.2.3.4 ",
        " state=RCPT ",
        " check=access ",
        " verdict=reject ",
        " reason=client_blacklisted ",
        " took_us=",
    ] {
        assert!(decisions[0].contains(field), "{field}: {}", decisions[0]);
    }
    assert!(decisions[1].contains("helo=\"x verdict=reject"), "a value cannot pass for a field: {}", decisions[1]);
}

#[tokio::test]
async fn a_unix_socket_gets_its_mode_and_goes_at_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let set = Set::new();
    let socket = set.path("policy.sock");
    let text = format!(
        "[store]\nurl = \"sqlite:{}\"\n[policyd]\nlisten = [\"unix:{}\"]\nsocket_mode = \"0600\"\nhttp = \"\"\n[greylist]\nmode = \"off\"\n",
        set.path("octroi.db").display(),
        socket.display()
    );
    std::fs::write(set.path("octroi.toml"), text).unwrap();
    let mut daemon = Daemon::new("policyd", set.folder.path(), &set.path("octroi.toml")).unwrap();
    daemon.start().unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut asker = Client::connect(&Address::Unix(socket.clone())).await;
    assert_eq!(asker.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.as_deref(), Some("DUNNO"));
    daemon.kill();
    daemon.start().unwrap();
    let mut asker = Client::connect(&Address::Unix(socket.clone())).await;
    assert_eq!(
        asker.ask(&rcpt("192.0.2.1", "a@b", "c@d")).await.as_deref(),
        Some("DUNNO"),
        "a stale socket is replaced"
    );
    drop(asker);
    assert!(daemon.stop().unwrap().success());
    assert!(!socket.exists());
}

#[tokio::test]
async fn the_test_command_reads_postgres_and_changes_nothing() {
    let cluster = Cluster::shared();
    let set = Set::new();
    let url = cluster.new_database().await;
    let store = store(&url).await;
    let many =
        "insert into greylist values ('192.0.2.0/24', 'a@example.net', 'r@example.org', 0, 0, 1, 1, 9000000000000)";
    sql(&store, many).await;
    std::fs::write(set.path("octroi.toml"), format!("[store]\nurl = \"{url}\"\n[greylist]\nmode = \"strict\"\n"))
        .unwrap();
    let two =
        rcpt("192.0.2.1", "a@example.net", "r@example.org") + &rcpt("192.0.2.1", "b@example.net", "r@example.org");
    std::fs::write(set.path("requests"), two).unwrap();
    let mut command = tokio::process::Command::new(tests::daemon::binary("policyd").unwrap());
    command.arg("test").arg("--config").args([set.path("octroi.toml"), set.path("requests")]);
    let output = command.output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with("store: a copy of the postgres store, which is only read\n"), "{out}");
    assert!(
        out.contains("greylist: dunno (greylist_passed)") && out.contains("greylist: defer_if_permit (greylist_new)"),
        "{out}"
    );
    assert_eq!(number(&store, "select count(*) from greylist").await, 1);
    assert_eq!(number(&store, "select last_seen + passes from greylist").await, 1);
}
