// SPDX-License-Identifier: GPL-3.0-or-later
//! The frames of tests about exactness: one promise on both databases, several real hosts on one PostgreSQL, chance that is the same each time.

use std::path::Path;

use tests::daemon::{Daemon, page};
use tests::ports::free_port;
use tests::postgres::Cluster;

/// Makes one test per promise and database, of functions that take the URL of an empty store.
macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (_folder, url) = crate::gate::sqlite();
                super::$promise(&url).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let cluster = tests::postgres::Cluster::shared();
                let url = cluster.new_database().await;
                super::$promise(&url).await;
            })+
        }
    };
}
pub(crate) use contract;

/// policyd as a program, one of several on a PostgreSQL.
pub struct Host {
    daemon: Daemon,
    pub port: u16,
    page: u16,
}

impl Host {
    /// So many of them; `rest` is configuration, first more lines of `[policyd]`.
    pub fn several(count: usize, folder: &Path, url: &str, rest: &str) -> Vec<Host> {
        (0..count).map(|number| Self::start(&folder.join(number.to_string()), url, rest)).collect()
    }

    fn start(folder: &Path, url: &str, rest: &str) -> Host {
        let (port, page) = (free_port(), free_port());
        std::fs::create_dir(folder).unwrap();
        let file = folder.join("octroi.toml");
        let text = format!(
            "[store]\nurl = \"{url}\"\n[policyd]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"127.0.0.1:{page}\"\n\
             on_store_error = \"defer\"\njournal = \"{}\"\n{rest}",
            folder.join("policyd.journal").display()
        );
        std::fs::write(&file, text).unwrap();
        let mut daemon = Daemon::new("policyd", folder, &file).unwrap().ready_page(page, "ready: the store answers");
        daemon.start().unwrap();
        Host { daemon, port, page }
    }

    /// Decisions with this reason.
    pub fn decided(&self, reason: &str) -> u64 {
        let page = page(self.page, "/metrics").unwrap();
        let label = format!("reason=\"{reason}\"");
        let decisions =
            page.lines().filter(|line| line.starts_with("octroi_policyd_decisions_total{") && line.contains(&label));
        decisions.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Ends them all, and PostgreSQL has had nothing to complain about.
    pub fn end_well(hosts: Vec<Host>, cluster: &Cluster) {
        for mut host in hosts {
            assert!(host.daemon.stop().unwrap().success());
        }
        let log = std::fs::read_to_string(cluster.log()).unwrap();
        assert!(!log.contains("ERROR") && !log.contains("deadlock") && !log.contains("PANIC"), "{log}");
    }
}

/// xorshift; the same on every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// The same as a signed number.
    pub fn signed(&mut self, limit: usize) -> i64 {
        self.below(limit) as i64
    }
}
