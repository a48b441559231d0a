// SPDX-License-Identifier: GPL-3.0-or-later
//! Eight policyd processes on one PostgreSQL ask for the same triplets at the same time: exactly one is told that a triplet is new,
//! exactly one that it has passed, every try is counted, and PostgreSQL has nothing to complain about.

use std::path::Path;

use tests::daemon::{Daemon, page};
use tests::ports::free_port;
use tests::postgres::Cluster;

use common::address::Address;

use crate::gate::{Client, number, rcpt, sql, store};

const HOSTS: usize = 8;
const CONNECTIONS: usize = 64;
const TRIPLETS: usize = 20;

struct Host {
    daemon: Daemon,
    port: u16,
    page: u16,
}

impl Host {
    fn start(folder: &Path, number: usize, url: &str) -> Host {
        let (port, page) = (free_port(), free_port());
        let folder = folder.join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("octroi.toml");
        let text = format!(
            "[store]\nurl = \"{url}\"\n[policyd]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"127.0.0.1:{page}\"\n\
             on_store_error = \"defer\"\njournal = \"{}\"\n[greylist]\nmode = \"strict\"\n",
            folder.join("policyd.journal").display()
        );
        std::fs::write(&file, text).unwrap();
        let mut daemon = Daemon::new("policyd", &folder, &file).unwrap().ready_page(page, "ready: the store answers");
        daemon.start().unwrap();
        Host { daemon, port, page }
    }

    /// Decisions with this reason.
    fn decided(&self, reason: &str) -> u64 {
        let page = page(self.page, "/metrics").unwrap();
        let label = format!("reason=\"{reason}\"");
        let decisions =
            page.lines().filter(|line| line.starts_with("octroi_policyd_decisions_total{") && line.contains(&label));
        decisions.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// xorshift; the same on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// One message: its recipients, different ones in any order.
fn recipients(dice: &mut Dice, most: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..TRIPLETS).collect();
    for at in 0..TRIPLETS {
        all.swap(at, at + dice.below(TRIPLETS - at));
    }
    all.truncate(1 + dice.below(most));
    all
}

/// Every connection sends `messages`, the requests for the recipients of one all at once. Gives the number of requests.
async fn storm(hosts: &[Host], messages: usize, most: usize) -> u64 {
    let mut running = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut client = Client::connect(&Address::tcp("127.0.0.1", hosts[connection % HOSTS].port)).await;
        running.push(tokio::spawn(async move {
            let mut dice = Dice(0x9e37_79b9 + connection as u64);
            let mut asked = 0;
            for _ in 0..messages {
                let recipients = recipients(&mut dice, most);
                let request = |recipient| rcpt("192.0.2.1", "a@example.net", &format!("r{recipient}@example.org"));
                let requests: String = recipients.iter().map(request).collect();
                client.send(requests.as_bytes()).await;
                for _ in &recipients {
                    let answer = client.reply().await.expect("an answer");
                    assert!(!answer.starts_with("DEFER 4.3.0"), "{answer}");
                    asked += 1;
                }
            }
            asked
        }));
    }
    let mut asked = 0;
    for connection in running {
        asked += connection.await.unwrap();
    }
    asked
}

async fn exactly_once(messages: usize, most: usize) {
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    let folder = tempfile::tempdir().unwrap();
    let mut hosts: Vec<Host> = (0..HOSTS).map(|number| Host::start(folder.path(), number, &url)).collect();
    let sum = |hosts: &[Host], reason: &str| hosts.iter().map(|host| host.decided(reason)).sum::<u64>();
    let store = store(&url).await;

    let asked = storm(&hosts, messages, most).await;
    assert_eq!(sum(&hosts, "greylist_new"), TRIPLETS as u64);
    assert_eq!(sum(&hosts, "greylist_early"), asked - TRIPLETS as u64);
    assert_eq!(number(&store, "select count(*) from greylist").await, TRIPLETS as i64);
    assert_eq!(number(&store, "select sum(tries)::bigint from greylist").await as u64, asked, "every try is counted");

    sql(&store, "update greylist set first_seen = first_seen - 240000").await;
    let asked = storm(&hosts, messages, most).await;
    assert_eq!(sum(&hosts, "greylist_passed_now"), TRIPLETS as u64);
    assert_eq!(sum(&hosts, "greylist_passed"), asked - TRIPLETS as u64);
    assert_eq!(number(&store, "select count(*) from greylist where passes > 0").await, TRIPLETS as i64);

    for host in &mut hosts {
        assert!(host.daemon.stop().unwrap().success());
    }
    let log = std::fs::read_to_string(cluster.log()).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("deadlock") && !log.contains("PANIC"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hosts_tell_new_and_passed_exactly_once() {
    exactly_once(60, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hosts_are_exact_for_messages_with_many_recipients() {
    exactly_once(20, TRIPLETS).await;
}
