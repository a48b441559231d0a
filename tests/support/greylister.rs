// SPDX-License-Identifier: GPL-3.0-or-later
//! A greylister of somebody else (postgrey, sqlgrey) in a private folder on a free port, and a client of the policy protocol for it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::ports::free_port;
use crate::process::{Account, Process, Signal, Start, Trouble, await_that, run, tail};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running greylister; it ends with this value.
#[derive(Debug)]
pub struct Greylister {
    process: Process,
    port: u16,
}

impl Greylister {
    /// Starts a program as the account that its package made; the arguments are made from the port and that account's names. Panics when
    /// it cannot: a test without its server fails.
    pub fn start(name: &str, folder: &Path, arguments: impl Fn(u16, &[String; 2]) -> Vec<String>) -> Self {
        let started = Self::try_start(name, name, folder, |port, names| Ok(arguments(port, names)));
        started.unwrap_or_else(|trouble| panic!("{trouble}"))
    }

    /// The same as the account `user`, and with an error instead of a panic. The folder is given to that account.
    pub fn try_start(
        name: &str,
        user: &str,
        folder: &Path,
        arguments: impl Fn(u16, &[String; 2]) -> Result<Vec<String>, Trouble>,
    ) -> Result<Self, Trouble> {
        let port = free_port();
        let (account, names) = account(user)?;
        account.own(folder)?;
        let mut command = vec![format!("/usr/sbin/{name}")];
        command.extend(arguments(port, &names)?);
        let log = folder.join("log");
        let mut process = Process::start(&Start {
            name,
            command: &command,
            environment: &[],
            account: Some(account),
            when_orphaned: "TERM",
            log: &log,
        })?;
        await_that(&format!("{name} to listen"), PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble::new(format!("{name} ended"), tail(&log, 5)));
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        Ok(Self { process, port })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks at RCPT, and gives the action. `more` are further attributes.
    pub fn ask(&self, client: &str, sender: &str, recipient: &str, more: &str) -> String {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=mx.x.test\nclient_address={client}\n\
             client_name=unknown\nreverse_client_name=unknown\nsender={sender}\nrecipient={recipient}\ninstance=1.2.3\n{more}\n"
        );
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reply = Vec::new();
        let mut byte = [0];
        while !reply.ends_with(b"\n\n") {
            stream.read_exact(&mut byte).expect("it answers");
            reply.push(byte[0]);
        }
        let reply = String::from_utf8(reply).expect("a reply is text");
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
        .expect("it ends");
    }
}

/// This account for root, else ours; with the names of user and group.
fn account(user: &str) -> Result<(Account, [String; 2]), Trouble> {
    if Account::ours().is_root() {
        return Ok((Account::named(user)?, [user.to_owned(), user.to_owned()]));
    }
    let ours = |flag| run("id", Command::new("id").arg(flag)).map(|name| name.trim().to_owned());
    Ok((Account::ours(), [ours("-un")?, ours("-gn")?]))
}
