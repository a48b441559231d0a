// SPDX-License-Identifier: GPL-3.0-or-later
//! PostgreSQL goes away under load and comes back: nobody waits long, no triplet is told anything that it would not have been told
//! otherwise, and afterwards the store holds what it would have held. `OUTAGE=10m` makes it last as long as a real one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::store::Store;
use common::units::Period;
use policyd::config::OnStoreError;
use sqlx::Row;
use tests::postgres::Cluster;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gate::{Client, Gate, rcpt, store, strict};

/// Clients at once, triplets of each, and the pause of a client between two requests.
const LOAD: (usize, usize, Duration) = (32, 200, Duration::from_millis(20));
/// Of those triplets, so many of each client are new only when the store is there again.
const LATE: usize = 40;
/// What a triplet waits.
const DELAY: Duration = Duration::from_secs(3);
/// By how much the clock of the requests and that of the decision may differ: the time of a request.
const SLACK: Duration = Duration::from_secs(1);
const DOWN: &str = "ready: the store does not answer";
const UP: &str = "ready: the store answers";

/// What a client saw of one triplet.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    first: Option<(Instant, i64)>,
    passed: bool,
    headers: u32,
}

/// What a client saw.
struct Witness {
    triplets: Vec<Seen>,
    asked: usize,
    longest: Duration,
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn sender(client: usize, triplet: usize) -> String {
    // Letters: digits would be taken out.
    let letter = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap());
    let name = [client / 26, client, triplet / 676, triplet / 26, triplet].map(letter);
    format!("{}@example.net", String::from_iter(name))
}

/// What the clients go by.
#[derive(Clone, Default)]
struct Course {
    /// How long until there is a new triplet.
    pace: Duration,
    /// The store is there again.
    up: CancellationToken,
    stop: CancellationToken,
    /// First passes by the store since then.
    passed: Arc<AtomicUsize>,
}

/// Asks about its triplets in a shuffled order until it is told to stop, and holds every answer against what it must be.
async fn witness(mut client: Client, number: usize, course: Course) -> Witness {
    let begun = Instant::now();
    let mut told = Witness { triplets: vec![Seen::default(); LOAD.1], asked: 0, longest: Duration::ZERO };
    while !course.stop.is_cancelled() {
        let is_up = course.up.is_cancelled();
        let there = 1 + usize::try_from(begun.elapsed().as_nanos() / course.pace.as_nanos()).unwrap();
        let there = if is_up { LOAD.1 } else { there.min(LOAD.1 - LATE) };
        let triplet = told.asked.wrapping_mul(7919) % there;
        let instance = format!("instance={number}.{}", told.asked);
        let request =
            rcpt("192.0.2.1", &sender(number, triplet), "r@example.org").replace("instance=1.2.3.4", &instance);
        let (asked, at) = (Instant::now(), now());
        let answer = client.ask(&request).await.expect("an answer");
        told.longest = told.longest.max(asked.elapsed());
        told.asked += 1;
        let seen = &mut told.triplets[triplet];
        let passes = answer == "DUNNO" || answer.starts_with("PREPEND X-Greylist");
        assert!(passes || answer.starts_with("DEFER_IF_PERMIT 4.7.1"), "{answer}");
        let waited = seen.first.map(|(first, _)| asked.duration_since(first));
        match waited {
            None => assert!(!passes, "a triplet that is new waits"),
            Some(_) if seen.passed => assert!(passes, "a triplet that has passed passes: {answer}"),
            Some(waited) if passes => assert!(waited + SLACK >= DELAY, "passed after {waited:?}"),
            Some(waited) => assert!(waited <= DELAY + SLACK, "still waits after {waited:?}"),
        }
        seen.first.get_or_insert((asked, at));
        seen.passed |= passes;
        let first_pass = answer.starts_with("PREPEND");
        seen.headers += u32::from(first_pass);
        course.passed.fetch_add(usize::from(is_up && first_pass), Ordering::Relaxed);
        tokio::time::sleep(LOAD.2).await;
    }
    told
}

/// Sender, first try, tries and passes of every row.
async fn rows(store: &Store) -> Vec<(String, i64, i64)> {
    let Store::Postgres(pool) = store else { panic!("not PostgreSQL") };
    let rows = sqlx::query("select sender, first_seen, passes from greylist").fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_under_load_changes_no_answer_and_nothing_in_the_store() {
    let outage: Period =
        std::env::var("OUTAGE").map_or(Period::seconds(12), |text| text.parse().expect("OUTAGE is a time"));
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let url = cluster.new_database().await;
    let mut settings = strict(&url);
    settings.greylist.delay = Period(DELAY);
    settings.greylist.trust_after = 0;
    settings.greylist.max_pending_per_net = 0;
    settings.policyd.on_store_error = OnStoreError::Local;
    settings.policyd.journal = folder.path().join("policyd.journal");
    settings.policyd.journal_size = "64MB".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let pace = (outage.0 + 3 * DELAY) / u32::try_from(LOAD.1).unwrap();
    let course = Course { pace, ..Course::default() };
    let mut clients = Vec::new();
    for number in 0..LOAD.0 {
        clients.push(tokio::spawn(witness(gate.client().await, number, course.clone())));
    }
    // Triplets are new, wait and pass before, during and after it.
    tokio::time::sleep(DELAY).await;
    tokio::task::block_in_place(|| cluster.stop());
    gate.until_ready_says(DOWN).await;
    tokio::time::sleep(outage.0).await;
    tokio::task::block_in_place(|| cluster.start_again());
    gate.until_ready_says(UP).await;
    course.up.cancel();
    let passing = async {
        while course.passed.load(Ordering::Relaxed) < LOAD.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(20 * DELAY, passing).await.expect("the store says again what passes for the first time");
    course.stop.cancel();
    let mut seen = HashMap::new();
    for (number, client) in clients.into_iter().enumerate() {
        let told = client.await.unwrap();
        assert!(told.longest < Duration::from_secs(1), "a request took {:?}", told.longest);
        assert!(told.asked > LOAD.1, "{} requests only", told.asked);
        seen.extend(told.triplets.into_iter().enumerate().map(|(triplet, seen)| (sender(number, triplet), seen)));
    }
    gate.end().await;
    let journal = std::fs::metadata(folder.path().join("policyd.journal")).unwrap().len();
    assert_eq!(journal, 0, "all is in the store");

    let rows = rows(&store(&url).await).await;
    let known = seen.values().filter(|seen| seen.first.is_some()).count();
    assert_eq!(rows.len(), known, "a row for each triplet and no other");
    for (name, first_seen, passes) in rows {
        let seen = seen.get(&name).expect("somebody asked about it");
        let (_, first) = seen.first.expect("somebody asked about it");
        assert!((first_seen - first).abs() <= 1000, "{name} was first seen {} ms off", first_seen - first);
        assert_eq!(passes > 0, seen.passed, "{name}");
        assert!(seen.headers <= u32::from(seen.passed), "{name} passed for the first time {} times", seen.headers);
    }
    // A host by itself never says that a pass is the first of the farm.
    let first_passes = seen.values().filter(|seen| seen.headers == 1).count();
    assert!(first_passes > 0 && first_passes < known, "{first_passes} of {known} first passes by the store");
}
