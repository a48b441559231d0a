// SPDX-License-Identifier: GPL-3.0-or-later
//! Eight policyd processes on one PostgreSQL ask for the same triplets at the same time: exactly one is told that a triplet is new,
//! exactly one that it has passed, every try is counted, and PostgreSQL has nothing to complain about.

use common::address::Address;
use tests::postgres::Cluster;

use crate::frame::{Dice, Host};
use crate::gate::{Client, number, rcpt, sql, store};

const HOSTS: usize = 8;
const CONNECTIONS: usize = 64;
const TRIPLETS: usize = 20;

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
    let hosts = Host::several(HOSTS, folder.path(), &url, "[greylist]\nmode = \"strict\"\n");
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

    Host::end_well(hosts, &cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hosts_tell_new_and_passed_exactly_once() {
    exactly_once(60, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hosts_are_exact_for_messages_with_many_recipients() {
    exactly_once(20, TRIPLETS).await;
}
