// SPDX-License-Identifier: GPL-3.0-or-later
//! What the store of the rules' account promises, the same on PostgreSQL and SQLite: hosts that add at the same moment are all counted, a
//! batch that is sent again is not counted again, and what is old goes.

use common::store::{Store, StoreSettings};
use contentd::store::rules::{Batch, DayRow, RuleRow, add, by_day, clean, days, totals};

/// Some day.
const DAY: i64 = 20_000;

async fn store(url: &str) -> Store {
    let settings = StoreSettings { url: url.to_owned(), ..StoreSettings::default() };
    let store = Store::open(&settings).await.expect("the store opens");
    store.migrate().await.expect("its schema is made");
    store
}

/// Makes one test per promise and database, of functions that take the URL of an empty store.
macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let folder = tempfile::tempdir().expect("a folder");
                super::$promise(&format!("sqlite:{}", folder.path().join("octroi.db").display())).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let cluster = tests::postgres::Cluster::shared();
                super::$promise(&cluster.new_database().await).await;
            })+
        }
    };
}

contract!(
    figures_are_added_up,
    a_batch_counts_once,
    hosts_at_once_lose_nothing_and_do_not_block_each_other,
    what_is_old_is_deleted_in_portions,
);

/// A rule with a different figure in each column.
fn rule(day: i64, name: &str, by: i64) -> RuleRow {
    RuleRow {
        day,
        rule: name.to_owned(),
        hits: by,
        decided: 2 * by,
        marginal: 3 * by,
        points: -4 * by,
        told_spam: 5 * by,
        told_ham: 6 * by,
        false_positives: 7 * by,
        false_negatives: 8 * by,
        cost: 9_000_000_000 * by,
    }
}

fn day(day: i64, by: i64) -> DayRow {
    DayRow {
        day,
        messages: by,
        tagged: 2 * by,
        spam: 3 * by,
        measured: 4 * by,
        told_spam: 5 * by,
        told_ham: 6 * by,
        false_positives: 7 * by,
        false_negatives: 8 * by,
    }
}

fn batch(id: &str, days: Vec<DayRow>, rules: Vec<RuleRow>) -> Batch {
    Batch { id: id.to_owned(), days, rules }
}

async fn figures_are_added_up(url: &str) {
    let store = store(url).await;
    let first = batch("1", vec![day(DAY, 1)], vec![rule(DAY, "A", 1), rule(DAY, "B", 10)]);
    let second = batch(
        "2",
        vec![day(DAY, 2), day(DAY + 1, 5)],
        vec![rule(DAY, "A", 2), rule(DAY + 1, "A", 4), rule(DAY + 1, "__C", 0)],
    );
    assert!(add(&store, &first).await.unwrap());
    assert!(add(&store, &second).await.unwrap());
    assert_eq!(days(&store, DAY, DAY + 9).await.unwrap(), [day(DAY, 3), day(DAY + 1, 5)]);
    assert_eq!(days(&store, DAY + 1, DAY + 1).await.unwrap(), [day(DAY + 1, 5)]);
    let all = totals(&store, DAY, DAY + 1).await.unwrap();
    assert_eq!(all, [rule(DAY + 1, "A", 7), rule(DAY, "B", 10), rule(DAY + 1, "__C", 0)]);
    assert_eq!(totals(&store, DAY, DAY).await.unwrap(), [rule(DAY, "A", 3), rule(DAY, "B", 10)]);
    assert_eq!(by_day(&store, "A", DAY, DAY + 9).await.unwrap(), [rule(DAY, "A", 3), rule(DAY + 1, "A", 4)]);
    assert_eq!(by_day(&store, "Z", DAY, DAY + 9).await.unwrap(), []);
    assert!(add(&store, &batch("3", Vec::new(), Vec::new())).await.unwrap(), "an empty one does no harm");
}

async fn a_batch_counts_once(url: &str) {
    let store = store(url).await;
    let sent = batch("host 1", vec![day(DAY, 1)], vec![rule(DAY, "A", 1)]);
    assert!(add(&store, &sent).await.unwrap());
    assert!(!add(&store, &sent).await.unwrap());
    assert!(add(&store, &batch("host 2", vec![day(DAY, 1)], vec![rule(DAY, "A", 1)])).await.unwrap());
    assert_eq!(days(&store, DAY, DAY).await.unwrap(), [day(DAY, 2)]);
    assert_eq!(totals(&store, DAY, DAY).await.unwrap(), [rule(DAY, "A", 2)]);
}

async fn hosts_at_once_lose_nothing_and_do_not_block_each_other(url: &str) {
    const HOSTS: i64 = 6;
    const ROUNDS: i64 = 8;
    let store = store(url).await;
    let names: Vec<String> = (0..300).map(|number| format!("RULE_{number:03}")).collect();
    let host = |host: i64| {
        let (store, names) = (store.clone(), names.clone());
        async move {
            for round in 0..ROUNDS {
                let rules = [DAY, DAY + 1].into_iter().flat_map(|day| names.iter().map(move |name| rule(day, name, 1)));
                let sent = batch(&format!("{host} {round}"), vec![day(DAY, 1), day(DAY + 1, 1)], rules.collect());
                assert!(add(&store, &sent).await.unwrap());
            }
        }
    };
    let hosts: Vec<_> = (0..HOSTS).map(|number| tokio::spawn(host(number))).collect();
    for host in hosts {
        host.await.expect("no host fails");
    }
    let all = HOSTS * ROUNDS;
    assert_eq!(days(&store, DAY, DAY + 1).await.unwrap(), [day(DAY, all), day(DAY + 1, all)]);
    let expected: Vec<RuleRow> = names.iter().map(|name| rule(DAY + 1, name, 2 * all)).collect();
    assert_eq!(totals(&store, DAY, DAY + 1).await.unwrap(), expected);
}

async fn what_is_old_is_deleted_in_portions(url: &str) {
    let store = store(url).await;
    let rules = (0..5).map(|number| rule(DAY, &format!("A{number}"), 1)).chain([rule(DAY + 1, "A0", 1)]);
    add(&store, &batch("1", vec![day(DAY, 1), day(DAY + 1, 1)], rules.collect())).await.unwrap();
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 3);
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 2);
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 0);
    assert_eq!(days(&store, 0, DAY + 9).await.unwrap(), [day(DAY + 1, 1)]);
    assert_eq!(totals(&store, 0, DAY + 9).await.unwrap(), [rule(DAY + 1, "A0", 1)]);
    assert!(!add(&store, &batch("1", vec![day(DAY, 1)], Vec::new())).await.unwrap(), "a batch is known for a day");
}
