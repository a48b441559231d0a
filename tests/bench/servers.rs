// SPDX-License-Identifier: GPL-3.0-or-later
//! The servers of one run: the do-nothing ones (this program again, as a child), our daemons as an administrator runs
//! them, PostgreSQL and clamd. All on loopback, in one temporary directory; all gone when the value is dropped.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use ::tests::clamd::{Clamd, installed_signatures};
use ::tests::daemon::Daemon;
use ::tests::ports::free_port;
use ::tests::postgres::Cluster;
use ::tests::process::{Process, Start, Trouble, await_that, tail};
use common::store::{Store, StoreError, StoreSettings};
use tempfile::TempDir;

use crate::cpu;
use crate::measure::Subject;
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
        Subject { name: "do-nothing", port: self.port, process, beside: None, does_nothing: true }
    }
}

/// One of our daemons, running.
#[derive(Debug)]
struct Tested {
    name: &'static str,
    port: u16,
    beside: Option<u32>,
    daemon: Daemon,
}

impl Tested {
    fn start(
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

    fn subject(&self) -> Result<Subject, Trouble> {
        let process = self.daemon.id().ok_or_else(|| Trouble::new(self.name, "does not run"))?;
        Ok(Subject { name: self.name, port: self.port, process, beside: self.beside, does_nothing: false })
    }

    /// SIGTERM; a daemon that does not end well by itself is a failure.
    fn end(mut self) -> Result<(), Trouble> {
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
    async fn fill(self, url: &str) -> Result<(), Trouble> {
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
    // Behind the daemons: fields are dropped in order.
    _cluster: Option<Cluster>,
    _clamd: Option<Clamd>,
    _directory: TempDir,
}

impl Field {
    /// The policy servers; without daemons only the do-nothing one.
    pub(crate) async fn policy(daemons: bool, rows: Rows) -> Result<Field, Trouble> {
        let directory = temporary()?;
        let root = directory.path();
        let peer = Peer::start(root, "serve-dunno", &[])?;
        if !daemons {
            return Ok(Field {
                peer,
                sink: None,
                tested: Vec::new(),
                _cluster: None,
                _clamd: None,
                _directory: directory,
            });
        }
        let whitelist = root.join("whitelist");
        std::fs::write(&whitelist, format!("{WHITELISTED}\n"))
            .map_err(|error| Trouble::new(whitelist.display(), error))?;
        let file = format!("sqlite:{}", root.join("octroi.db").display());
        rows.fill(&file).await?;
        let on_sqlite = Tested::start("policyd, SQLite", "policyd", root, |port, _| {
            policyd_configuration(port, &file, &whitelist)
        })?;
        let cluster = Cluster::start();
        let url = cluster.new_database().await;
        rows.fill(&url).await?;
        let mut on_postgres = Tested::start("policyd, PostgreSQL", "policyd", root, |port, _| {
            policyd_configuration(port, &url, &whitelist)
        })?;
        on_postgres.beside = Some(cpu::our_child("postgres")?);
        let tested = vec![on_sqlite, on_postgres];
        Ok(Field { peer, sink: None, tested, _cluster: Some(cluster), _clamd: None, _directory: directory })
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
            _cluster: None,
            _clamd: Some(clamd),
            _directory: directory,
        })
    }

    /// All servers under test, the do-nothing one first.
    pub(crate) fn subjects(&self) -> Result<Vec<Subject>, Trouble> {
        std::iter::once(Ok(self.peer.subject())).chain(self.tested.iter().map(Tested::subject)).collect()
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

fn temporary() -> Result<TempDir, Trouble> {
    tempfile::Builder::new()
        .prefix("octroi-bench-")
        .tempdir()
        .map_err(|error| Trouble::new("no temporary directory", error))
}

fn sqlite_url(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("octroi.db").display())
}

/// `on_store_error = "defer"`: an answer that did not come from the store shall not look like a right one. The key is the network,
/// as with other greylisters: no DNS.
fn policyd_configuration(port: u16, url: &str, whitelist: &Path) -> String {
    format!(
        "[store]\nurl = '{url}'\n[policyd]\nlisten = ['127.0.0.1:{port}']\nhttp = ''\non_store_error = 'defer'\njournal_size = '0B'\n\
         [greylist]\nmode = 'strict'\ndelay = '{}s'\nkey = ['network']\nmax_pending_per_net = 0\n[access]\nclient_whitelist = ['{}']\n",
        DELAY.as_secs(),
        whitelist.display(),
    )
}

fn contentd_configuration(port: u16, next: u16, directory: &Path, clamd: Option<&str>) -> String {
    let mut text = format!(
        "[store]\nurl = '{}'\n[contentd]\nlisten = ['127.0.0.1:{port}']\nhttp = ''\nreinject = '127.0.0.1:{next}'\n\
         hostname = 'filter.test'\n",
        sqlite_url(directory),
    );
    if let Some(address) = clamd {
        text.push_str(&format!("[antivirus.clamd]\naddress = '{address}'\n"));
    }
    text
}
