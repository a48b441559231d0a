// SPDX-License-Identifier: GPL-3.0-or-later
//! Eight policyd processes on one PostgreSQL, one limit of 1000 a minute and a level above it, 20 000 messages of which many are asked
//! about again, often at another process: never more than the limit is let through, each is charged once, no level without the other,
//! and PostgreSQL has nothing to complain about.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use common::address::Address;
use tests::postgres::Cluster;

use crate::frame::{Dice, Host};
use crate::gate::{Client, number, store};

const HOSTS: usize = 8;
const CONNECTIONS: usize = 64;
const ATTEMPTS: usize = 20_000;

const LIMITS: &str = "budget = '30s'
[greylist]
mode = 'off'
[log]
level = 'warn'
[[limit]]
name = 'all'
key = []
unit = 'recipients'
rate = '1000/1m'
[[limit]]
name = 'user'
key = 'sasl_username'
unit = 'recipients'
rate = '400/day'
";

/// The same text for the same message, whoever is asked.
fn request(message: usize) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username=user{}\ninstance=1a.{message:x}\n\
         client_address=192.0.2.1\nclient_port={}\nsender=a@example.net\nrecipient=r@example.org\n\n",
        message % 4,
        1024 + message % 60_000
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hosts_never_let_more_through_than_the_limit() {
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    let folder = tempfile::tempdir().unwrap();
    let hosts = Host::several(HOSTS, folder.path(), &url, LIMITS);
    let ports: Vec<u16> = hosts.iter().map(|host| host.port).collect();
    let passed: Arc<Mutex<HashSet<usize>>> = Arc::default();
    let start = Instant::now();
    let mut running = Vec::new();
    for connection in 0..CONNECTIONS {
        let (ports, passed) = (ports.clone(), passed.clone());
        running.push(tokio::spawn(async move {
            let connect = |host: usize| Address::tcp("127.0.0.1", ports[host % HOSTS]);
            let mut clients =
                [Client::connect(&connect(connection)).await, Client::connect(&connect(connection + 3)).await];
            let mut dice = Dice(0x9e37_79b9 + connection as u64);
            let mut repeated = 0;
            for message in (0..ATTEMPTS).filter(|message| message % CONNECTIONS == connection) {
                let text = request(message);
                // Asked again here, there, or at both at the same moment.
                let askers: &[usize] = match dice.below(8) {
                    0 => &[0, 0],
                    1 => &[0, 1],
                    2 => &[1, 0, 1],
                    _ => &[0],
                };
                for asker in askers {
                    clients[*asker].send(text.as_bytes()).await;
                }
                repeated += askers.len() - 1;
                for asker in askers {
                    let answer = clients[*asker].reply().await.expect("an answer");
                    assert!(answer == "DUNNO" || answer.starts_with("DEFER 4.7.1 Limit "), "{answer}");
                    if answer == "DUNNO" {
                        passed.lock().unwrap().insert(message);
                    }
                }
            }
            repeated
        }));
    }
    let mut repeated = 0;
    for connection in running {
        repeated += connection.await.unwrap();
    }
    assert!(repeated > ATTEMPTS / 4, "{repeated}");
    let most = 1000 + start.elapsed().as_millis() as usize * 1000 / 60_000 + 1;
    let passed = passed.lock().unwrap().len();
    assert!((1000..=most).contains(&passed), "{passed} passed, at most {most} may");

    // The calendar windows do not run out: they tell what was charged. A day may have begun meanwhile.
    let store = store(&url).await;
    let charged = "select cast(sum(level) / 1000000 as bigint) from limit_bucket where bucket like 'user day %'";
    assert_eq!(number(&store, charged).await, passed as i64, "charged once each, with both levels");
    assert_eq!(number(&store, "select count(*) from limit_charged").await, passed as i64);
    let most_of_one = "select max(level) / 1000000 from limit_bucket where bucket like 'user day %'";
    assert!(number(&store, most_of_one).await <= 400);

    Host::end_well(hosts, &cluster);
}
