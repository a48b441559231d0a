// SPDX-License-Identifier: GPL-3.0-or-later
//! A whole mail gate in one temporary directory: clamd, policyd, contentd and Postfix, wired as `deploy/postfix/` says.
//!
//! `make run` shows it, the end-to-end tests break it. Its parts can be stopped, killed and started one by one. The
//! real binaries run, with a real configuration file; the only differences from an installation are ports, paths and
//! a greylist that waits seconds instead of minutes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml::{Table, Value};

use crate::clamd::Clamd;
use crate::daemon::Daemon;
use crate::mailbox::Mailbox;
use crate::ports::Ports;
use crate::postfix::{Plan, Postfix};
use crate::process::{Trouble, tail};

/// The only domain that exists. RFC 2606 keeps `test` free for this.
pub const DOMAIN: &str = "example.test";

/// What differs from one sandbox to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything listens.
    pub ports: Ports,
    /// Local parts of the mailboxes that exist.
    pub users: Vec<String>,
    /// Signatures for clamd; `None`: one for EICAR.
    pub signatures: Option<PathBuf>,
    /// Laid over the sandbox's `octroi.toml`, key by key.
    pub settings: Table,
    /// Laid over the sandbox's `main.cf`: name and value.
    pub postfix: Vec<(String, String)>,
}

impl Default for Options {
    /// As `make run` shows it: the documented ports, and a greylist that wants three seconds of patience.
    fn default() -> Options {
        Options {
            ports: Ports::default(),
            users: ["alice", "bob", "carol"].map(str::to_owned).to_vec(),
            signatures: None,
            settings: table("[greylist]\nmode = 'strict'\ndelay = '3s'\nkey = ['network']"),
            postfix: Vec::new(),
        }
    }
}

impl Options {
    /// For tests: free ports, and a greylist that watches without deferring anybody.
    pub fn for_tests() -> Options {
        Options {
            ports: Ports::free(),
            settings: table("[greylist]\nmode = 'learn'\nkey = ['network']"),
            ..Options::default()
        }
    }

    /// Lays more configuration over what is there; panics on text that is not TOML.
    pub fn with(mut self, settings: &str) -> Options {
        overlay(&mut self.settings, table(settings));
        self
    }

    /// Adds a main.cf setting.
    pub fn with_postfix(mut self, name: &str, value: &str) -> Options {
        self.postfix.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The running gate. Dropped, it stops the way it would be drained: the door first, the scanner last.
#[derive(Debug)]
pub struct Sandbox {
    /// Front door, reinjection and delivery.
    pub postfix: Postfix,
    /// The content daemon.
    pub contentd: Daemon,
    /// The policy daemon.
    pub policyd: Daemon,
    /// The virus scanner.
    pub clamd: Clamd,
    /// Where everything listens.
    pub ports: Ports,
    settings: Table,
    directory: TempDir,
}

impl Sandbox {
    /// Starts everything; mail can be sent at return. A failure on the way takes down what had started.
    pub fn start(options: &Options) -> Result<Sandbox, Trouble> {
        options.ports.must_be_free()?;
        let directory = tempfile::Builder::new()
            .prefix("octroi-")
            // The users postfix, clamav and nobody pass through.
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .map_err(|error| Trouble::new("no temporary directory", error))?;
        let clamd = Clamd::try_start(options.signatures.as_deref())?;
        write_secret(directory.path())?;
        let mut settings = settings(directory.path(), &options.ports, &clamd);
        overlay(&mut settings, options.settings.clone());
        let configuration = write_settings(directory.path(), &settings)?;
        let mut policyd = Daemon::new("policyd", directory.path(), &configuration)?
            .ready_page(options.ports.policy_http, "the store answers");
        policyd.start()?;
        let mut contentd = Daemon::new("contentd", directory.path(), &configuration)?;
        contentd.start()?;
        let postfix = Postfix::start(&Plan {
            directory: directory.path(),
            ports: &options.ports,
            domain: DOMAIN,
            users: &options.users,
            settings: &options.postfix,
        })?;
        Ok(Sandbox { postfix, contentd, policyd, clamd, ports: options.ports.clone(), settings, directory })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The mailbox of `user@example.test`.
    pub fn mailbox(&self, user: &str) -> Mailbox {
        Mailbox::at(&self.directory.path().join("mail").join(user))
    }

    /// The Postfix log so far.
    pub fn mail_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.postfix.log()).unwrap_or_default()).into_owned()
    }

    /// Changes the configuration file that both daemons read; they see it at their next start or reload.
    pub fn change_settings(&mut self, settings: &str) -> Result<(), Trouble> {
        overlay(&mut self.settings, table(settings));
        write_settings(self.directory.path(), &self.settings).map(drop)
    }
}

impl Drop for Sandbox {
    /// A test that fails shows what the parts had to say, before their logs go with the directory.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in [self.postfix.log().to_owned(), self.policyd.log(), self.contentd.log()] {
                eprintln!("---- {}:\n{}", log.display(), tail(&log, 40).replace(" | ", "\n"));
            }
        }
    }
}

/// The sandbox's own part of the configuration: where things are.
fn settings(directory: &Path, ports: &Ports, clamd: &Clamd) -> Table {
    let text = format!(
        "[store]\nurl = 'sqlite:{database}'\n\
         [policyd]\nlisten = ['127.0.0.1:{policy}']\nhttp = '127.0.0.1:{policy_http}'\n\
         [contentd]\nlisten = ['127.0.0.1:{content}']\nhttp = '127.0.0.1:{content_http}'\nreinject = '127.0.0.1:{reinject}'\n\
         [handover]\nsecret_file = '{secret}'\nhold = '127.0.0.1:{hold}'\n\
         [antivirus.clamd]\naddress = '{clamd}'\n\
         [quarantine]\ndirectory = '{quarantine}'\n[ledger]\ndirectory = '{ledger}'\n",
        database = directory.join("octroi.db").display(),
        policy = ports.policy,
        policy_http = ports.policy_http,
        content = ports.content,
        content_http = ports.content_http,
        reinject = ports.reinject,
        secret = directory.join("handover-secret").display(),
        hold = ports.hold,
        clamd = clamd.address(),
        quarantine = directory.join("quarantine").display(),
        ledger = directory.join("contentd").display(),
    );
    table(&text)
}

/// The secret that policyd and contentd share.
pub const SECRET: &str = "the secret of the sandbox, 32 characters or more";

fn write_secret(directory: &Path) -> Result<(), Trouble> {
    let path = directory.join("handover-secret");
    std::fs::write(&path, SECRET).map_err(|error| Trouble::new(path.display(), error))
}

fn write_settings(directory: &Path, settings: &Table) -> Result<PathBuf, Trouble> {
    let path = directory.join("octroi.toml");
    // In place at once: a daemon may be reading it.
    let draft = directory.join("octroi.toml.new");
    std::fs::write(&draft, settings.to_string())
        .and_then(|()| std::fs::rename(&draft, &path))
        .map_err(|error| Trouble::new(path.display(), error))?;
    Ok(path)
}

fn table(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("not TOML: {error}"))
}

/// Tables are merged, everything else is replaced.
fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => overlay(inner, value),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_laid_over_key_by_key() {
        let options = Options::default().with("[greylist]\ndelay = '1s'\n[contentd]\nmax_connections = 4");
        assert_eq!(options.settings["greylist"]["delay"].as_str(), Some("1s"));
        assert_eq!(options.settings["greylist"]["mode"].as_str(), Some("strict"));
        assert_eq!(options.settings["contentd"]["max_connections"].as_integer(), Some(4));
    }
}
