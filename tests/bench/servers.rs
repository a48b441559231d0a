// SPDX-License-Identifier: GPL-3.0-or-later
//! The servers of one run: the do-nothing ones (this program again, as a child), our daemons as an administrator runs
//! them, PostgreSQL and clamd. All on loopback, in one temporary directory; all gone when the value is dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::clamd::{Clamd, installed_signatures};
use ::tests::daemon::Daemon;
use ::tests::ports::free_port;
use ::tests::postgres::Cluster;
use ::tests::process::{Process, Start, Trouble, await_that, tail};
use common::store::{Store, StoreError, StoreSettings};
use tempfile::TempDir;

use crate::cpu;
use crate::greylisters::Greylisters;
use crate::limiters::Limiters;
use crate::measure::{Kind, Subject};
use crate::policy::{DELAY, WHITELISTED};

const PATIENCE: Duration = Duration::from_secs(10);

/// A do-nothing server.
#[derive(Debug)]
struct Peer {
    port: u16,
    process: Process,
}

impl Peer {
    /// Starts `bench SERVE --port PORT ..`; it listens at return.
    fn start(directory: &Path, serve: &str, more: &[String]) -> Result<Peer, Trouble> {
        let us = std::env::current_exe().map_err(|error| Trouble::new("cannot find our own program", error))?;
        let port = free_port();
        let mut command = vec![us.display().to_string(), serve.to_owned(), "--port".to_owned(), port.to_string()];
        command.extend_from_slice(more);
        let log = directory.join(format!("{serve}.log"));
        let (environment, account) = (&[], None);
        let start = Start { name: serve, command: &command, environment, account, when_orphaned: "KILL", log: &log };
        let mut process = Process::start(&start)?;
        await_that(&format!("{serve} listens"), PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble::new(format!("{serve} ended"), tail(&log, 3)));
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(()))
        })?;
        Ok(Peer { port, process })
    }

    fn subject(&self) -> Subject {
        let process = self.process.id();
        Subject { name: "do-nothing", port: self.port, process, beside: None, kind: Kind::Nothing }
    }
}

/// One of our daemons, running.
#[derive(Debug)]
pub(crate) struct Tested {
    name: &'static str,
    port: u16,
    beside: Option<u32>,
    daemon: Daemon,
}

impl Tested {
    /// Starts a daemon with the configuration that `write` makes from its port and its directory.
    pub(crate) fn start(
        name: &'static str,
        program: &'static str,
        root: &Path,
        write: impl Fn(u16, &Path) -> String,
    ) -> Result<Tested, Trouble> {
        let directory = root.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&directory).map_err(|error| Trouble::new(directory.display(), error))?;
        let (port, configuration) = (free_port(), directory.join("octroi.toml"));
        std::fs::write(&configuration, write(port, &directory))
            .map_err(|error| Trouble::new(configuration.display(), error))?;
        let mut daemon = Daemon::new(program, &directory, &configuration)?;
        daemon.start().map_err(|trouble| Trouble::new(name, trouble))?;
        Ok(Tested { name, port, beside: None, daemon })
    }

    /// What is measured.
    pub(crate) fn subject(&self) -> Result<Subject, Trouble> {
        let process = self.daemon.id().ok_or_else(|| Trouble::new(self.name, "does not run"))?;
        Ok(Subject { name: self.name, port: self.port, process, beside: self.beside, kind: Kind::Ours })
    }

    /// Ends and starts it again.
    pub(crate) fn restart(&mut self) -> Result<(), Trouble> {
        self.stop()?;
        self.daemon.start().map_err(|trouble| Trouble::new(self.name, trouble))
    }

    /// SIGTERM; a daemon that does not end well by itself is a failure.
    pub(crate) fn end(mut self) -> Result<(), Trouble> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Trouble> {
        match self.daemon.stop() {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(Trouble::new(self.name, format!("ended with {status}: {}", tail(&self.daemon.log(), 3))))
            }
            None => Err(Trouble::new(self.name, "did not end when told to")),
        }
    }
}

/// What stands in the store before anything is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Triplets.
    pub(crate) number: u64,
    /// Whether a third of them has expired.
    pub(crate) expired: bool,
}

impl Rows {
    /// Makes schema and triplets in the store at `url`.
    pub(crate) async fn fill(self, url: &str) -> Result<(), Trouble> {
        if self.number == 0 {
            return Ok(());
        }
        let failed = |error: StoreError| Trouble::new("filling the store", error);
        let store = Store::open(&StoreSettings { url: url.to_owned(), ..StoreSettings::default() }).await;
        let store = store.map_err(failed)?;
        store.migrate().await.map_err(failed)?;
        let first = if self.expired { "1000 + n" } else { "9000000000000 + n" };
        let text = format!(
            "with recursive c(n) as (select 1 union all select n + 1 from c where n < {}) \
             insert into greylist select '10.77.0.0/24', 's' || (100000000 + n) || '@example.net', 'r' || n || '@example.org', \
             n, n, 1, n % 2, case n % 3 when 0 then {first} else 9000000000000 + n end from c",
            self.number
        );
        let text = sqlx::AssertSqlSafe(text);
        let done = match &store {
            Store::Postgres(pool) => {
                let done = sqlx::query(text).execute(pool).await.map(drop);
                done.and(sqlx::query("vacuum analyze greylist").execute(pool).await.map(drop))
            }
            Store::Sqlite(pool) => sqlx::query(text).execute(pool).await.map(drop),
        };
        done.map_err(|error| Trouble::new("filling the store", error))?;
        store.close().await;
        Ok(())
    }
}

/// The servers of one table part.
#[derive(Debug)]
pub(crate) struct Field {
    peer: Peer,
    sink: Option<Peer>,
    tested: Vec<Tested>,
    greylisters: Option<Greylisters>,
    limiters: Option<Limiters>,
    // Behind the daemons: fields are dropped in order.
    _cluster: Option<Cluster>,
    _clamd: Option<Clamd>,
    _directory: TempDir,
}

impl Field {
    /// The policy servers, those of others among them when `peers` are wanted; without daemons only the do-nothing one.
    pub(crate) async fn policy(daemons: bool, rows: Rows, peers: bool) -> Result<Field, Trouble> {
        let directory = temporary()?;
        let root = directory.path();
        let peer = Peer::start(root, "serve-dunno", &[])?;
        if !daemons {
            return Ok(Field {
                peer,
                sink: None,
                tested: Vec::new(),
                greylisters: None,
                limiters: None,
                _cluster: None,
                _clamd: None,
                _directory: directory,
            });
        }
        let whitelist = whitelist(root)?;
        let file = sqlite_of(root, "octroi.db");
        rows.fill(&file).await?;
        let on_sqlite = Tested::start("policyd, SQLite", "policyd", root, |port, _| {
            Policyd::at(&file, &whitelist).configuration(port)
        })?;
        let cluster = Cluster::try_start()?;
        let url = cluster.new_database().await;
        rows.fill(&url).await?;
        let mut on_postgres = Tested::start("policyd, PostgreSQL", "policyd", root, |port, _| {
            Policyd::at(&url, &whitelist).configuration(port)
        })?;
        on_postgres.beside = cluster.id();
        let greylisters = if peers { Some(Greylisters::start(root).await?) } else { None };
        let limiters = if peers { Some(Limiters::start(root)?) } else { None };
        Ok(Field {
            peer,
            sink: None,
            tested: vec![on_sqlite, on_postgres],
            greylisters,
            limiters,
            _cluster: Some(cluster),
            _clamd: None,
            _directory: directory,
        })
    }

    /// policyd on PostgreSQL, several times, each with one setting that is not the usual one. `names` is a name server.
    pub(crate) async fn settings(names: SocketAddr) -> Result<Field, Trouble> {
        let directory = temporary()?;
        let root = directory.path();
        let whitelist = whitelist(root)?;
        let cluster = Cluster::try_start()?;
        let mut tested = Vec::new();
        for (name, greylist, dns) in [
            ("usual", "", String::new()),
            ("durable", "durable = true\n", String::new()),
            ("not explained", "keep_explained = '0s'\n", String::new()),
            ("key by SPF", "key = ['spf', 'network']\n", format!("[dns]\nservers = ['{names}']\n")),
        ] {
            let url = cluster.new_database().await;
            let policyd = Policyd { greylist, more: &dns, ..Policyd::at(&url, &whitelist) };
            let mut one = Tested::start(name, "policyd", root, |port, _| policyd.configuration(port))?;
            one.beside = cluster.id();
            tested.push(one);
        }
        let peer = Peer::start(root, "serve-dunno", &[])?;
        Ok(Field {
            peer,
            sink: None,
            tested,
            greylisters: None,
            limiters: None,
            _cluster: Some(cluster),
            _clamd: None,
            _directory: directory,
        })
    }

    /// The content filters and the sink behind them; without daemons only the do-nothing proxy.
    pub(crate) fn content(daemons: bool) -> Result<Field, Trouble> {
        let directory = temporary()?;
        let root = directory.path();
        let sink = Peer::start(root, "serve-sink", &[])?;
        let next = sink.port;
        let peer = Peer::start(root, "serve-proxy", &["--next".to_owned(), next.to_string()])?;
        if !daemons {
            return Ok(Field {
                peer,
                sink: Some(sink),
                tested: Vec::new(),
                greylisters: None,
                limiters: None,
                _cluster: None,
                _clamd: None,
                _directory: directory,
            });
        }
        let alone = Tested::start("contentd", "contentd", root, |port, directory| {
            contentd_configuration(port, next, directory, None)
        })?;
        let clamd = Clamd::try_start(installed_signatures().as_deref())?;
        let address = clamd.address();
        let mut scanning = Tested::start("contentd, clamd", "contentd", root, |port, directory| {
            contentd_configuration(port, next, directory, Some(&address))
        })?;
        scanning.beside = Some(cpu::our_child("clamd")?);
        Ok(Field {
            peer,
            sink: Some(sink),
            tested: vec![alone, scanning],
            greylisters: None,
            limiters: None,
            _cluster: None,
            _clamd: Some(clamd),
            _directory: directory,
        })
    }

    /// All servers under test, the do-nothing one first.
    pub(crate) fn subjects(&self) -> Result<Vec<Subject>, Trouble> {
        let ours = self.tested.iter().map(Tested::subject);
        let others = self.greylisters.iter().flat_map(Greylisters::subjects).map(Ok);
        let limiters = self.limiters.iter().flat_map(Limiters::subjects).map(Ok);
        std::iter::once(Ok(self.peer.subject())).chain(ours).chain(others).chain(limiters).collect()
    }

    /// Port of the next hop; content only.
    pub(crate) fn sink(&self) -> Option<u16> {
        self.sink.as_ref().map(|sink| sink.port)
    }

    /// Adds to what went wrong which daemon has ended and what it said last.
    pub(crate) fn explain(&self, mut trouble: Trouble) -> Trouble {
        for tested in &self.tested {
            let lives = tested.daemon.id().is_some_and(|id| cpu::memory(id).is_ok());
            if !lives {
                trouble.0.push_str(&format!(
                    "\n{} has ended; last it said: {}",
                    tested.name,
                    tail(&tested.daemon.log(), 1)
                ));
            }
        }
        trouble
    }

    /// Ends the daemons in order; everything else goes with the value.
    pub(crate) fn end(self) -> Result<(), Trouble> {
        self.tested.into_iter().try_for_each(Tested::end)
    }
}

/// A folder for everything of a run.
pub(crate) fn temporary() -> Result<TempDir, Trouble> {
    tempfile::Builder::new()
        .prefix("octroi-bench-")
        .tempdir()
        .map_err(|error| Trouble::new("no temporary directory", error))
}

fn sqlite_of(directory: &Path, name: &str) -> String {
    format!("sqlite:{}", directory.join(name).display())
}

/// A list of the clients that are whitelisted.
fn whitelist(root: &Path) -> Result<PathBuf, Trouble> {
    let file = root.join("whitelist");
    std::fs::write(&file, format!("{WHITELISTED}\n")).map_err(|error| Trouble::new(file.display(), error))?;
    Ok(file)
}

/// What differs between the policyds that are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policyd<'a> {
    /// Its store.
    pub(crate) url: &'a str,
    /// A list of clients.
    pub(crate) whitelist: Option<&'a Path>,
    /// Port of its page of metrics; 0 for none.
    pub(crate) http: u16,
    /// More keys of `[greylist]`, a line each; they may name the client's key.
    pub(crate) greylist: &'a str,
    /// More sections.
    pub(crate) more: &'a str,
}

impl<'a> Policyd<'a> {
    fn at(url: &'a str, whitelist: &'a Path) -> Policyd<'a> {
        Policyd { url, whitelist: Some(whitelist), http: 0, greylist: "", more: "" }
    }

    /// `on_store_error = "defer"`: an answer that did not come from the store shall not look like a right one. The key is the network,
    /// as with other greylisters: no DNS.
    pub(crate) fn configuration(&self, port: u16) -> String {
        let http = if self.http == 0 { String::new() } else { format!("127.0.0.1:{}", self.http) };
        let key = if self.greylist.contains("key = ") { "" } else { "key = ['network']\n" };
        let whitelist = self.whitelist.map(|path| format!("[access]\nclient_whitelist = ['{}']\n", path.display()));
        format!(
            "[store]\nurl = '{}'\n[policyd]\nlisten = ['127.0.0.1:{port}']\nhttp = '{http}'\non_store_error = 'defer'\n\
             journal_size = '0B'\n{}{}\
             [greylist]\nmode = 'strict'\ndelay = '{}s'\n{key}{}max_pending_per_net = 0\n\
             [[limit]]\nname = 'user'\nkey = ['sasl_username']\nunit = 'recipients'\nrate = '1000000/1h'\n",
            self.url,
            whitelist.unwrap_or_default(),
            self.more,
            DELAY.as_secs(),
            self.greylist,
        )
    }
}

fn contentd_configuration(port: u16, next: u16, directory: &Path, clamd: Option<&str>) -> String {
    let mut text = format!(
        "[store]\nurl = '{}'\n[ledger]\ndirectory = '{}'\n[contentd]\nlisten = ['127.0.0.1:{port}']\nhttp = ''\nreinject = '127.0.0.1:{next}'\n\
         hostname = 'filter.test'\n",
        sqlite_of(directory, "octroi.db"),
        directory.join("contentd").display(),
    );
    if let Some(address) = clamd {
        text.push_str(&format!("[antivirus.clamd]\naddress = '{address}'\n"));
    }
    text
}
