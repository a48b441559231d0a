// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory of the real program, whose number of triplets in the store must not matter.

use std::path::Path;

use common::address::Address;
use common::store::Store;
use tests::daemon::Daemon;
use tests::ports::free_port;
use tests::postgres::Cluster;
use tokio::io::AsyncWriteExt;

use crate::gate::{Client, number, rcpt, sql, sqlite, store};

const TRIPLETS: i64 = 1_000_000;
/// 40 MB for the program as it is installed, whose own pages (RssFile, measured) are 13 MB of that. A program built for tests
/// has larger ones, so they are taken out on both sides.
const LIMIT_KIB: u64 = 40 * 1000 * 1000 / 1024 - 13_000;

/// Fills the table with triplets that wait, pass and have expired.
async fn fill(store: &Store) {
    let numbers = match store {
        Store::Postgres(_) => "generate_series(1, 1000000) as n".to_owned(),
        Store::Sqlite(_) => {
            "(with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000000) select n from c)"
                .to_owned()
        }
    };
    let expires = "case n % 3 when 0 then 1000 + n else 9000000000000 + n end";
    let text = format!(
        "insert into greylist select '198.51.100.0/24', 'sender' || n || '@example.net', 'rcpt' || n || '@example.org', \
         n, n, 1, n % 2, {expires} from {numbers}"
    );
    sql(store, &text).await;
    assert_eq!(number(store, "select count(*) from greylist").await, TRIPLETS);
}

/// The most that a process has had in memory, without the pages of its program file (proc(5): VmHWM, RssFile).
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (highest, file) = (value("VmHWM:"), value("RssFile:"));
    eprintln!("policyd at its highest: {highest} KiB, of which {file} KiB are the program");
    highest - file
}

async fn stays_small(url: &str, folder: &Path) {
    let store = store(url).await;
    fill(&store).await;
    store.close().await;
    let port = free_port();
    let file = folder.join("octroi.toml");
    let text = format!(
        "[store]\nurl = \"{url}\"\n[policyd]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"\"\n[greylist]\nmode = \"strict\"\nkey = [\"network\"]\nmax_pending_per_net = 0\n[log]\nlevel = \"warn\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut daemon = Daemon::new("policyd", folder, &file).unwrap();
    daemon.start().unwrap();

    let address = Address::tcp("127.0.0.1", port);
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = Client::connect(&address).await;
        clients.push(tokio::spawn(async move {
            for round in 0..100 {
                // New triplets, and some of the million.
                let known = (number * 100 + round) * 97;
                let (sender, recipient) = (format!("sender{known}@example.net"), format!("rcpt{known}@example.org"));
                assert!(client.ask(&rcpt("198.51.100.7", &sender, &recipient)).await.is_some());
                assert!(
                    client
                        .ask(&rcpt("192.0.2.1", &format!("{number}x{round}@example.net"), "r@example.org"))
                        .await
                        .is_some()
                );
            }
            // Kept open: a hundred idle connections count too.
            client
        }));
    }
    let mut open = Vec::new();
    for client in clients {
        open.push(client.await.unwrap());
    }
    misbehave(&address).await;
    let kib = resident_kib(daemon.id().unwrap());
    assert!(kib < LIMIT_KIB, "{kib} KiB beside the program, {LIMIT_KIB} are allowed");
    drop(open);
    assert!(daemon.stop().unwrap().success());
}

/// Ten clients send 10 MB without a newline, a hundred leave a long request unfinished.
async fn misbehave(address: &Address) {
    let garbage = vec![b'a'; 10_000_000];
    for _ in 0..10 {
        let mut client = Client::connect(address).await;
        // The server closes before everything is sent.
        let _ = client.stream.write_all(&garbage).await;
        assert_eq!(client.line().await, None);
    }
    let mut unfinished = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(address).await;
        client.send(&garbage[..60_000]).await;
        unfinished.push(client);
    }
    let mut neighbour = Client::connect(address).await;
    assert!(neighbour.ask(&rcpt("192.0.2.1", "a@example.net", "r@example.org")).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policyd_stays_under_40_mb_with_a_million_triplets_in_postgres() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().unwrap();
    stays_small(&cluster.new_database().await, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policyd_stays_under_40_mb_with_a_million_triplets_in_sqlite() {
    let (folder, url) = sqlite();
    stays_small(&url, folder.path()).await;
}
