// SPDX-License-Identifier: GPL-3.0-or-later
//! A Postfix of our own beside the system's: own configuration, queue, data directory, log and ports.
//!
//! The front door and the reinjection service are the pieces of `deploy/postfix/`, applied to a minimal
//! configuration with other ports: what we ship is what is tested. Nothing leaves the machine: mail for the one test
//! domain goes to maildirs (virtual(8)), all else is refused by error(8), DNS is off, every listener is on loopback.
//! postfix(1), master(5), postconf(5).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ports::{Ports, is_free};
use crate::process::{Account, Trouble, await_that, run, tail};

const MAIN_PIECE: &str = include_str!("../../deploy/postfix/main.cf");
const MASTER_PIECE: &str = include_str!("../../deploy/postfix/master.cf");
const DAEMONS: &str = "/usr/lib/postfix/sbin";
const PATIENCE: Duration = Duration::from_secs(30);
/// Starts after the first one that are tried when Postfix does not log.
const STARTS: usize = 2;

/// The services every Postfix has, without the ones that read local submissions or reach out: no pickup, smtp, local.
const SERVICES: &str = "
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
";

/// What the private Postfix looks like.
#[derive(Debug)]
pub struct Plan<'a> {
    /// An existing directory that others may enter; everything goes into its `postfix` folder, the log beside it.
    pub directory: &'a Path,
    /// Where the doors and the daemons are.
    pub ports: &'a Ports,
    /// The only domain mail is accepted for.
    pub domain: &'a str,
    /// Local parts that exist there; each has a maildir `mail/NAME/`.
    pub users: &'a [String],
    /// More main.cf settings, after all others: name and value.
    pub settings: &'a [(String, String)],
}

/// The running Postfix; stopped and its files removed when dropped.
#[derive(Debug)]
pub struct Postfix {
    home: PathBuf,
    log: PathBuf,
    doors: [u16; 3],
    keeper: Option<Child>,
}

impl Postfix {
    /// Writes the configuration and starts the master; the front door answers at return, and what it does is in the log.
    pub fn start(plan: &Plan<'_>) -> Result<Postfix, Trouble> {
        let mut tries = 0;
        loop {
            let home = plan.directory.join("postfix");
            // The name makes the log readable by whoever started us: postlogd(8) appends to what exists.
            let log = plan.directory.join("mail.log");
            let mut postfix =
                Postfix { home, log, doors: [plan.ports.smtp, plan.ports.reinject, plan.ports.hold], keeper: None };
            postfix.lay_out(plan)?;
            postfix.launch()?;
            postfix.await_banner(plan.ports.smtp)?;
            // On a busy machine, once in some hundred starts of Postfix 3.7, nobody reads what is sent to postlogd(8), and every process of
            // Postfix waits in its second log line for ever. That is nothing to test ourselves against.
            match postfix.await_log() {
                Err(trouble) if tries == STARTS => return Err(trouble),
                Err(_) => tries += 1,
                Ok(()) => return Ok(postfix),
            }
        }
    }

    fn await_log(&self) -> Result<(), Trouble> {
        await_that("Postfix to log", PATIENCE, || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            Ok(log.contains("daemon started").then_some(()))
        })
    }

    /// The log file, in the usual maillog format.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Configuration directory, for `postfix -c`, `postconf -c`, `postqueue -c`.
    pub fn configuration(&self) -> PathBuf {
        self.home.join("etc")
    }

    /// Number of messages Postfix holds (postqueue(1) -j prints one object a line).
    pub fn queued(&self) -> Result<usize, Trouble> {
        let configuration = self.configuration();
        let mut command = privileged("postqueue");
        run("postqueue", command.arg("-c").arg(configuration).arg("-j")).map(|out| out.lines().count())
    }

    fn lay_out(&self, plan: &Plan<'_>) -> Result<(), Trouble> {
        let account = mailbox_account()?;
        let mail = plan.directory.join("mail");
        make(&mail)?;
        account.own(&mail)?;
        // Written as ourselves, then handed over: Postfix wants its configuration and queue to be root's.
        let draft = plan.directory.join("postfix.draft");
        make(&draft.join("etc"))?;
        make(&draft.join("spool"))?;
        make(&draft.join("data"))?;
        write(&draft.join("etc/main.cf"), &self.main_cf(plan, account))?;
        write(&draft.join("etc/master.cf"), &master_cf(plan))?;
        write(&draft.join("etc/mailboxes"), &mailboxes(plan))?;
        write(&self.log, "")?;
        run("cannot hand the Postfix files to root", privileged("chown").arg("-R").arg("root:root").arg(&draft))?;
        run("cannot hand Postfix its data directory", privileged("chown").arg("postfix").arg(draft.join("data")))?;
        run("cannot place the Postfix files", privileged("mv").arg(&draft).arg(&self.home))?;
        Ok(())
    }

    fn main_cf(&self, plan: &Plan<'_>, account: Account) -> String {
        let mut text = MAIN_PIECE.replace("127.0.0.1:10023", &format!("127.0.0.1:{}", plan.ports.policy));
        let home = self.home.display();
        let directory = plan.directory.display();
        let fixed: [(&str, String); 28] = [
            ("compatibility_level", "3.6".into()),
            ("queue_directory", format!("{home}/spool")),
            ("data_directory", format!("{home}/data")),
            ("command_directory", "/usr/sbin".into()),
            ("daemon_directory", DAEMONS.into()),
            ("mail_owner", "postfix".into()),
            ("setgid_group", "postdrop".into()),
            ("maillog_file", self.log.display().to_string()),
            ("maillog_file_prefixes", directory.to_string()),
            ("myhostname", format!("mx.{}", plan.domain)),
            ("mydestination", String::new()),
            ("alias_maps", String::new()),
            ("alias_database", String::new()),
            ("local_recipient_maps", String::new()),
            ("inet_interfaces", "127.0.0.1".into()),
            ("inet_protocols", "ipv4".into()),
            // The senders of the tests are on this host, and must not count as ours.
            ("mynetworks", "192.0.2.254/32".into()),
            ("smtpd_authorized_xclient_hosts", "127.0.0.0/8".into()),
            ("smtpd_client_connection_count_limit", "0".into()),
            ("smtp_dns_support_level", "disabled".into()),
            ("smtpd_peername_lookup", "no".into()),
            ("default_transport", "error:the sandbox relays nothing".into()),
            ("virtual_mailbox_domains", plan.domain.into()),
            ("virtual_mailbox_base", format!("{directory}/mail")),
            ("virtual_mailbox_maps", format!("texthash:{home}/etc/mailboxes")),
            ("virtual_mailbox_limit", "0".into()),
            ("virtual_uid_maps", format!("static:{}", account.uid)),
            ("virtual_gid_maps", format!("static:{}", account.gid)),
        ];
        for (name, value) in fixed {
            text.push_str(&format!("{name} = {value}\n"));
        }
        for (name, value) in plan.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }

    /// The master runs under a small shell that stops it, and removes its files, when our end of its standard input
    /// is gone. So it ends with us even when we are killed, also where sudo(8) stands between and no signal of ours
    /// would reach it, or has long forgotten the password.
    fn launch(&mut self) -> Result<(), Trouble> {
        let script = r#"postfix -c "$1/etc" start-fg & starter=$!
            read -r _
            # Told to stop while it is still starting: the master tells its number a little later.
            until master=$(head -n 1 "$1/spool/pid/master.pid" 2>/dev/null) && [ -n "$master" ]; do
                kill -0 "$starter" 2>/dev/null || break
                sleep 0.1
            done
            [ -z "$master" ] || kill -TERM $master
            wait "$starter"
            rm -rf "$1""#;
        let output = |name: &str| {
            std::fs::File::create(self.home.with_file_name(name)).map_err(|error| Trouble::new("Postfix", error))
        };
        let keeper = privileged("sh")
            .args(["-c", script, "postfix-keeper"])
            .arg(&self.home)
            .stdin(Stdio::piped())
            .stdout(output("postfix.out")?)
            .stderr(output("postfix.err")?)
            .process_group(0)
            .spawn()
            .map_err(|error| Trouble::new("cannot start Postfix", error))?;
        self.keeper = Some(keeper);
        Ok(())
    }

    fn await_banner(&mut self, port: u16) -> Result<(), Trouble> {
        let errors = self.home.with_file_name("postfix.err");
        let log = self.log.clone();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        await_that("Postfix answers", PATIENCE, || {
            let said = [&log, &errors].map(|file| std::fs::read_to_string(file).unwrap_or_default()).concat();
            if let Some(fatal) = said.lines().find(|line| line.contains("fatal:")) {
                return Err(Trouble::new("Postfix does not start", fatal));
            }
            if !matches!(self.keeper.as_mut().map(Child::try_wait), Some(Ok(None))) {
                return Err(Trouble::new("Postfix does not start", tail(&errors, 3)));
            }
            let Ok(mut stream) = TcpStream::connect(address) else { return Ok(None) };
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let mut banner = [0; 4];
            let greeted = stream.read_exact(&mut banner).is_ok() && &banner == b"220 ";
            let _ = stream.write_all(b"QUIT\r\n");
            Ok(greeted.then_some(()))
        })
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
            // The master ends before the last of its children, which hold the ports as well.
            let closed = || Ok(self.doors.iter().all(|&port| is_free(port)).then_some(()));
            let _ = await_that("closed ports", PATIENCE, closed);
        }
        // The keeper has removed its files; this is for a start that did not get so far.
        if self.home.exists() {
            let _ = run("cannot remove the Postfix files", privileged("rm").arg("-rf").arg(&self.home));
        }
    }
}

/// The whole master.cf: the shipped piece with this sandbox's ports, then the usual services. Who sets `smtpd_proxy_filter` in main.cf, to nothing
/// perhaps, means the front door.
fn master_cf(plan: &Plan<'_>) -> String {
    let ports = plan.ports;
    let front = format!("127.0.0.1:{} inet", ports.smtp);
    let piece = match plan.settings.iter().any(|(name, _)| name == "smtpd_proxy_filter") {
        true => MASTER_PIECE.replace("\n    -o smtpd_proxy_filter=127.0.0.1:10024", ""),
        false => MASTER_PIECE.to_owned(),
    };
    let piece = piece
        .replace("\nsmtp      inet", &format!("\n{front}"))
        .replace("127.0.0.1:10024", &format!("127.0.0.1:{}", ports.content))
        .replace("127.0.0.1:10025", &format!("127.0.0.1:{}", ports.reinject))
        .replace("127.0.0.1:10026", &format!("127.0.0.1:{}", ports.hold));
    format!("{piece}{SERVICES}")
}

fn mailboxes(plan: &Plan<'_>) -> String {
    plan.users.iter().map(|user| format!("{user}@{} {user}/\n", plan.domain)).collect()
}

/// Who owns the maildirs: we, so that we can read them; but virtual(8) does not deliver as root.
fn mailbox_account() -> Result<Account, Trouble> {
    match Account::ours() {
        root if root.is_root() => Account::named("nobody"),
        ours => Ok(ours),
    }
}

/// A command as root: directly, or through sudo that has been asked for its password before.
fn privileged(program: &str) -> Command {
    if Account::ours().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}

fn make(directory: &Path) -> Result<(), Trouble> {
    std::fs::create_dir_all(directory)
        .map_err(|error| Trouble::new(format!("cannot make {}", directory.display()), error))
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(path, text).map_err(|error| Trouble::new(format!("cannot write {}", path.display()), error))
}
