// SPDX-License-Identifier: GPL-3.0-or-later
//! A greylister of somebody else in a private folder on a free port, a client of the policy protocol for it, and the commands
//! around it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreSettings};
use policyd::store::greylist::{self, Sighting, Times};
use policyd::triplet::Triplet;
use tests::daemon::binary;
use tests::ports::free_port;
use tests::process::{Account, Process, Signal, Start, await_that, run, tail};

use crate::gate::{Gate, patient, rcpt, strict};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running greylister; it ends with this value.
pub struct Greylister {
    process: Process,
    port: u16,
}

impl Greylister {
    /// Starts a program as the account that its package made; the arguments are made from the port and that account's names.
    pub fn start(name: &str, folder: &Path, arguments: impl Fn(u16, &[String; 2]) -> Vec<String>) -> Self {
        let port = free_port();
        let (account, names) = account(name);
        account.own(folder).unwrap();
        let program = [format!("/usr/sbin/{name}")];
        let command: Vec<String> = program.into_iter().chain(arguments(port, &names)).collect();
        let log = folder.join("log");
        let mut process = Process::start(&Start {
            name,
            command: &command,
            environment: &[],
            account: Some(account),
            when_orphaned: "TERM",
            log: &log,
        })
        .unwrap();
        await_that(&format!("{name} to listen"), PATIENCE, || {
            assert!(process.ended().is_none(), "{name} ended: {}", tail(&log, 5));
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })
        .unwrap();
        Self { process, port }
    }

    /// Asks at RCPT, and gives the action. `more` are further attributes.
    pub fn ask(&self, client: &str, sender: &str, recipient: &str, more: &str) -> String {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=mx.x.test\nclient_address={client}\n\
             client_name=unknown\nreverse_client_name=unknown\nsender={sender}\nrecipient={recipient}\ninstance=1.2.3\n{more}\n"
        );
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        let mut byte = [0];
        while !reply.ends_with(b"\n\n") {
            stream.read_exact(&mut byte).unwrap();
            reply.push(byte[0]);
        }
        let reply = String::from_utf8(reply).unwrap();
        reply.trim_end().strip_prefix("action=").expect("a reply is an action").to_owned()
    }

    /// Stops it in order, so that all it knows is in its files. Perl heeds a signal only when the call it waits in returns, and one that
    /// came just before that call is heeded with the next connection; so we knock.
    pub fn stop(mut self) {
        self.process.signal(Signal::TERM);
        await_that("the greylister to end", PATIENCE, || {
            let _knock = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
            Ok(self.process.ended())
        })
        .unwrap();
    }
}

/// The program's own account for root, else ours; with the names of user and group.
fn account(name: &str) -> (Account, [String; 2]) {
    if Account::ours().is_root() {
        return (Account::named(name).unwrap(), [name.to_owned(), name.to_owned()]);
    }
    let ours = |flag| run("id", Command::new("id").arg(flag)).unwrap().trim().to_owned();
    (Account::ours(), [ours("-un"), ours("-gn")])
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A store to import into.
pub struct Target {
    folder: tempfile::TempDir,
    url: String,
}

impl Target {
    /// On a SQLite file of its own.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("octroi.db").display());
        Self { folder, url }
    }

    /// On a database that is there.
    pub fn at(url: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), url: url.to_owned() }
    }

    /// A file beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `octroi import`, which must succeed; gives its report.
    pub fn import(&self, arguments: &[&str]) -> String {
        let config = self.path("octroi.toml");
        std::fs::write(&config, format!("[store]\nurl = '{}'\n", self.url)).unwrap();
        let mut command = Command::new(binary("octroi").unwrap());
        command.arg("--config").arg(&config).arg("import").args(arguments);
        run("octroi import", &mut command).unwrap()
    }

    /// What policyd learns about a request now.
    pub async fn asked(&self, client: &str, sender: &str, recipient: &str) -> Sighting {
        const DAY: i64 = 86_400_000;
        let store = Store::open(&StoreSettings { url: self.url.clone(), ..StoreSettings::default() }).await.unwrap();
        let triplet = Triplet::new(client.parse().unwrap(), sender, recipient, 24, 64);
        let times = Times { delay: 300_000, retry_window: 3 * DAY, keep_passed: 36 * DAY };
        let sighting = greylist::ask(&store, &triplet, times, None).await.unwrap();
        store.close().await;
        sighting
    }

    /// What a whole policyd on this store answers to one request.
    pub async fn answered(&self, client: &str, sender: &str, recipient: &str) -> String {
        let gate = Gate::ready(patient(strict(&self.url))).await;
        let answer = gate.client().await.ask(&rcpt(client, sender, recipient)).await.expect("an answer");
        gate.end().await;
        answer
    }
}

/// A number of a report.
pub fn count(told: &str, word: &str) -> u64 {
    let line = told.lines().find(|line| line.split_whitespace().next() == Some(word));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {word} in: {told}"))
}
