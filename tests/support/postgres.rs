// SPDX-License-Identifier: GPL-3.0-or-later
//! A PostgreSQL server of our own: unprivileged, in a temporary directory, on a UNIX socket there and nowhere else.
//!
//! Debian's binaries are used without Debian's cluster tools, so the system's own server (if any) is never touched.
//! initdb(1), postgres(1): single user "postgres", trust inside the private socket directory, locale C. fsync stays
//! on as in production unless the caller wants only speed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sqlx::Connection;
use tempfile::TempDir;

use crate::process::{Account, Process, Signal, Start, Trouble, await_that, run, tail};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    server: Mutex<Option<Process>>,
    binaries: PathBuf,
    account: Account,
    databases: AtomicU32,
    root: TempDir,
}

impl Cluster {
    /// Makes and starts a cluster; ready for connections at return (1-2 s). Panics when PostgreSQL is not installed
    /// or does not start: a test without its server fails.
    pub fn start() -> Cluster {
        Cluster::try_start().unwrap_or_else(|trouble| panic!("PostgreSQL: {trouble}"))
    }

    /// One cluster for all tests that run at the moment: started by the first, stopped when the last lets go of it.
    /// Tests keep apart by [`Cluster::new_database`]. Do not stop this one.
    pub fn shared() -> Arc<Cluster> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// The same with an error instead of a panic.
    pub fn try_start() -> Result<Cluster, Trouble> {
        let binaries = newest_binaries()?;
        // The server refuses to run as root.
        let account = if Account::ours().is_root() { Account::named("postgres")? } else { Account::ours() };
        let root = tempfile::Builder::new()
            .prefix("octroi-pg-")
            .tempdir()
            .map_err(|error| Trouble::new("no temporary directory", error))?;
        account.own(root.path())?;
        let cluster = Cluster { server: Mutex::new(None), binaries, account, databases: AtomicU32::new(0), root };
        cluster.create()?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// The URL of the maintenance database, as `[store] url` takes it.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// A fresh, empty database; its URL. It goes with the cluster.
    pub async fn new_database(&self) -> String {
        let name = format!("octroi_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&self.url()).await.expect("the cluster answers");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await
            .expect("a database can be made");
        connection.close().await.expect("the connection closes");
        self.url_of(&name)
    }

    /// Stops the server as an administrator in a hurry does ("fast": sessions are cut, data is written). No-op when it
    /// is not running.
    pub fn stop(&self) {
        if let Some(server) = self.server().take() {
            server.stop(Signal::INT, PATIENCE).expect("PostgreSQL stops in time");
        }
    }

    /// Kills the server as a power cut would; the next start recovers from the log. At return its backends, which notice
    /// the loss by themselves, have ended too: while one lives, PostgreSQL does not start again.
    pub fn crash(&self) {
        if let Some(server) = self.server().take() {
            let backends = children_of(server.id());
            server.kill();
            let gone = || {
                backends.iter().all(|id| {
                    std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.is_empty())
                        || !Path::new(&format!("/proc/{id}")).exists()
                })
            };
            await_that("the backends' end", PATIENCE, || Ok(gone().then_some(()))).expect("the backends end");
        }
    }

    /// Starts it again after [`Cluster::stop`]; ready at return.
    pub fn start_again(&self) {
        self.launch().unwrap_or_else(|trouble| panic!("PostgreSQL: {trouble}"));
    }

    /// The postmaster's process; none when it is stopped.
    pub fn id(&self) -> Option<u32> {
        self.server().as_ref().map(Process::id)
    }

    /// The directory of its socket. Only the account that it runs as can enter: that of postgres for root, else ours.
    pub fn socket_directory(&self) -> &Path {
        self.root.path()
    }

    /// The server's log, for a test that wants to see that nothing was complained about.
    pub fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.root.path().display())
    }

    fn create(&self) -> Result<(), Trouble> {
        let mut command = Command::new("setpriv");
        command.args(self.drop_privileges()).arg("--").arg(self.binaries.join("initdb"));
        command.arg("--pgdata").arg(self.data());
        command.args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            "--no-instructions",
        ]);
        command.current_dir("/");
        run("initdb", &mut command).map(drop)
    }

    fn launch(&self) -> Result<(), Trouble> {
        let settings = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.root.path().display()),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
        ];
        let mut command = vec![self.binaries.join("postgres").display().to_string()];
        command.extend(["-D".to_owned(), self.data().display().to_string()]);
        command.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let log = self.log();
        let mut process = Process::start(&Start {
            name: "postgres",
            command: &command,
            environment: &[],
            account: Some(self.account),
            when_orphaned: "QUIT",
            log: &log,
        })?;
        // The line that pg_ctl(1) waits for as well.
        await_that("PostgreSQL ready", PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble(format!("ended: {}", tail(&log, 5))));
            }
            let pidfile = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let ours = pidfile.lines().next() == Some(process.id().to_string().as_str());
            Ok((ours && pidfile.lines().nth(7).is_some_and(|state| state.trim() == "ready")).then_some(()))
        })?;
        *self.server() = Some(process);
        Ok(())
    }

    fn drop_privileges(&self) -> Vec<String> {
        if !Account::ours().is_root() {
            return Vec::new();
        }
        vec![
            format!("--reuid={}", self.account.uid),
            format!("--regid={}", self.account.gid),
            "--init-groups".to_owned(),
        ]
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server().take() {
            // "Immediate": the data is thrown away anyway.
            let _ = server.stop(Signal::QUIT, PATIENCE);
        }
    }
}

/// The processes whose parent is this one (proc(5): the fourth field of stat, behind the name in parentheses).
fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&parent)
        })
        .collect()
}

/// Debian keeps each major version's server programs out of PATH.
fn newest_binaries() -> Result<PathBuf, Trouble> {
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql")).into_iter().flatten().flatten();
    versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, binaries)| binaries.join("initdb").exists())
        .max()
        .map(|(_, binaries)| binaries)
        .ok_or_else(|| Trouble("no server programs in /usr/lib/postgresql (Debian package postgresql)".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(url: &str) -> Result<i32, sqlx::Error> {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        sqlx::query_scalar("select 42").fetch_one(&mut connection).await
    }

    #[tokio::test]
    async fn a_cluster_serves_stops_and_serves_again() {
        let cluster = Cluster::start();
        let url = cluster.new_database().await;
        assert_ne!(url, cluster.new_database().await);
        assert_eq!(answer(&url).await.unwrap(), 42);
        cluster.stop();
        assert!(answer(&url).await.is_err());
        cluster.start_again();
        assert_eq!(answer(&url).await.unwrap(), 42);
        cluster.crash();
        cluster.start_again();
        assert_eq!(answer(&url).await.unwrap(), 42);
        let directory = cluster.root.path().to_owned();
        drop(cluster);
        assert!(!directory.exists());
    }
}
