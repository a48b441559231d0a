// SPDX-License-Identifier: GPL-3.0-or-later
//! The rate limiters that are Debian packages: postfwd (postfwd1: one process, counters in memory) and policyd-rate-limit (one process,
//! counters in SQLite), each with limits that the load never reaches.

use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::ports::free_port;
use ::tests::process::{Account, Process, Start, Trouble, await_that, tail};
use rustix::process::{Pid, Signal, kill_process};

use crate::measure::{Kind, Subject};

const PATIENCE: Duration = Duration::from_secs(20);

/// A process of ours, or one that has made itself a daemon.
#[derive(Debug)]
enum Held {
    Child(Process),
    Daemon(u32),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Daemon(id) = self
            && let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[derive(Debug)]
struct Other {
    name: &'static str,
    port: u16,
    held: Held,
}

/// Both, running; they end with this value.
#[derive(Debug)]
pub(crate) struct Limiters(Vec<Other>);

impl Limiters {
    /// Starts them below `root`, which their accounts must be able to enter.
    pub(crate) fn start(root: &Path) -> Result<Limiters, Trouble> {
        Ok(Limiters(vec![
            postfwd(&folder(root, "postfwd")?)?,
            policyd_rate_limit(&folder(root, "policyd-rate-limit")?)?,
        ]))
    }

    /// What is measured.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.0.iter().map(|Other { name, port, held }| {
            let process = match held {
                Held::Child(process) => process.id(),
                Held::Daemon(id) => *id,
            };
            Subject { name, port: *port, process, beside: None, kind: Kind::Limiter }
        })
    }
}

/// Its accounts may write there: nothing in it is a secret.
fn folder(root: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let folder = root.join(name);
    let made = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)));
    made.map_err(|error| Trouble::new(folder.display(), error))?;
    Ok(folder)
}

fn write(file: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(file, text).map_err(|error| Trouble::new(file.display(), error))
}

fn start(name: &str, command: &[String], account: Option<Account>, folder: &Path) -> Result<Process, Trouble> {
    let log = folder.join("log");
    Process::start(&Start { name, command, environment: &[], account, when_orphaned: "KILL", log: &log })
}

fn await_port(name: &str, port: u16, folder: &Path) -> Result<(), Trouble> {
    await_that(&format!("{name} to listen"), PATIENCE, || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
    })
    .map_err(|trouble| Trouble::new(trouble, tail(&folder.join("log"), 3)))
}

/// It serves only as a daemon, and leaves our process group; its own file tells its process.
fn postfwd(folder: &Path) -> Result<Other, Trouble> {
    let (port, rules, pidfile) = (free_port(), folder.join("rules"), folder.join("pid"));
    let limit = "450 4.7.1 Limit";
    write(
        &rules,
        &format!(
            "id=USER; sasl_username=~/./; action=rate(sasl_username/1000000/3600/{limit})\n\
             id=CLIENT; action=rate(client_address/1000000/3600/{limit})\n"
        ),
    )?;
    let (user, group) = if Account::ours().is_root() { ("nobody", "nogroup") } else { ("", "") };
    let mut command: Vec<String> = ["/usr/sbin/postfwd1", "-d", "-n", "-i", "127.0.0.1"].map(str::to_owned).into();
    command.extend(["-p".to_owned(), port.to_string(), "-f".to_owned(), rules.display().to_string()]);
    command.extend(["--pidfile".to_owned(), pidfile.display().to_string()]);
    if !user.is_empty() {
        command.extend(["-u", user, "-g", group].map(str::to_owned));
    }
    let mut starter = start("postfwd1", &command, None, folder)?;
    await_port("postfwd1", port, folder)?;
    let _ = starter.wait(PATIENCE);
    let id = await_that("the process id of postfwd1", PATIENCE, || {
        let text = std::fs::read_to_string(&pidfile).unwrap_or_default();
        Ok(text.split_whitespace().next().and_then(|id| id.parse().ok()))
    })?;
    Ok(Other { name: "postfwd", port, held: Held::Daemon(id) })
}

fn policyd_rate_limit(folder: &Path) -> Result<Other, Trouble> {
    let name = "policyd-rate-limit";
    let (port, file) = (free_port(), folder.join("limits.yaml"));
    let text = format!(
        "debug: False\nuser: \"{name}\"\ngroup: \"{name}\"\npidfile: \"{folder}/pid\"\nsqlite_config:\n    database: \"{folder}/db\"\n\
         backend: 0\nSOCKET: [\"127.0.0.1\", {port}]\nlimits:\n    - [1000000, 3600]\nlimits_by_id: {{}}\nlimit_by_sasl: True\n\
         limit_by_sender: False\nlimit_by_ip: False\nlimited_networks: []\nsuccess_action: \"dunno\"\n\
         fail_action: \"defer_if_permit Limit\"\ndb_error_action: \"defer_if_permit Trouble\"\nreport: False\ndelay_to_close: 300\n",
        folder = folder.display()
    );
    write(&file, &text)?;
    let command = ["/usr/bin/python3", "/usr/bin/policyd-rate-limit", "--file"].map(str::to_owned).into_iter();
    let command: Vec<String> = command.chain([file.display().to_string()]).collect();
    let process = start(name, &command, None, folder)?;
    await_port(name, port, folder)?;
    Ok(Other { name, port, held: Held::Child(process) })
}
