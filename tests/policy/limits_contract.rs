// SPDX-License-Identifier: GPL-3.0-or-later
//! What the store of limits promises, the same on PostgreSQL and SQLite: any lot of requests is settled as the pure rules say, askers
//! at the same moment never get more than there is, and none is charged in one level without the other. Time is given by the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::store::Store;
use policyd::limits::plan::{Charge, Order, PartOf};
use policyd::limits::rate::UNIT;
use policyd::limits::settle::{Batch, Bucket, InForce, Ledger, Level, Settled, settle};
use policyd::store::Connection;
use policyd::store::limits::{charge, claim, clean, peek};

use crate::frame::{Dice, contract};
use crate::gate::{number, sql, store};

/// Some moment.
const T: i64 = 1_700_000_000_000;

contract!(
    any_lot_is_settled_by_the_rules,
    askers_at_once_never_get_more_than_there_is,
    levels_are_charged_together_or_not_at_all,
    a_repetition_is_charged_once,
    a_refusal_leaves_nothing_behind,
    calendar_windows_begin_empty,
    reading_charges_nothing,
    what_has_expired_is_deleted,
    one_of_many_claims,
);

/// `units` of each bucket, as one part of this id.
fn order(id: i64, buckets: &[Bucket], units: i64) -> Order {
    let charge = |bucket: &Bucket| Charge {
        bucket: bucket.clone(),
        need: units * UNIT,
        units: units * UNIT,
        limit: 0,
        rate: 0,
        window_end: 0,
    };
    Order { parts: vec![PartOf { id: Some(id), keep: 60_000, charges: buckets.iter().map(charge).collect() }] }
}

/// A bucket that holds `holds` and loses one unit in `each` milliseconds.
fn bucket(name: &str, holds: i64, each: f64) -> Bucket {
    let drain = if each == 0.0 { 0.0 } else { UNIT as f64 / each };
    Bucket { name: name.to_owned(), capacity: holds * UNIT, drain, since: 0, keep: 60_000 }
}

async fn ask(store: &Store, orders: &[Order], now: i64) -> Vec<Settled> {
    let mut connection = Connection::acquire_losable(store).await.unwrap();
    charge(&mut connection, &Batch::of(orders.iter()), Some(now)).await.unwrap().settled
}

async fn level(store: &Store, name: &str) -> i64 {
    let text = format!("select coalesce(max(level), 0) / {UNIT} from limit_bucket where bucket = '{name}'");
    number(store, &text).await
}

fn any_order(dice: &mut Dice) -> Order {
    let part = |dice: &mut Dice| {
        let mut charges: Vec<Charge> = Vec::new();
        for _ in 0..=dice.signed(2) {
            let number = dice.signed(6);
            let drain = if number < 4 { 0.7 * UNIT as f64 * (number + 1) as f64 / 1000.0 } else { 0.0 };
            let since = if number < 4 { 0 } else { T };
            let bucket =
                Bucket { name: format!("limit 1h k{number}"), capacity: (3 + number) * UNIT, drain, since, keep: 1000 };
            let units = dice.signed(3) * UNIT;
            let need = if dice.signed(5) == 0 { 0 } else { units.max(UNIT) };
            if charges.iter().all(|charge| charge.bucket.name != bucket.name) {
                charges.push(Charge { bucket, need, units, limit: 0, rate: 0, window_end: 0 });
            }
        }
        let id = (dice.signed(4) > 0).then(|| dice.signed(60) - 30);
        PartOf { id, keep: 100_000, charges }
    };
    Order { parts: (0..=dice.signed(2)).map(|_| part(dice)).collect() }
}

/// The rules on a model in memory, against the store, over many lots and some time.
async fn any_lot_is_settled_by_the_rules(url: &str) {
    let store = store(url).await;
    sql(&store, "insert into limit_override (bucket, number, period, burst, until) values ('limit 1h k1', 2, 1000, 5, 1700000001000)").await;
    sql(&store, "insert into limit_override (bucket, extra, extra_until) values ('limit 1h k2', 3, 1700000002000)")
        .await;
    sql(&store, "insert into limit_override (bucket, unlimited) values ('limit 1h k3', true)").await;
    let set = |name: &str| {
        let mut set = policyd::limits::settle::Override::default();
        match name {
            "limit 1h k1" => {
                (set.number, set.period, set.burst, set.until) = (Some(2), Some(1000), Some(5), Some(T + 1000));
            }
            "limit 1h k2" => (set.extra, set.extra_until) = (3, Some(T + 2000)),
            "limit 1h k3" => set.unlimited = true,
            _ => {}
        }
        set
    };
    let mut dice = Dice(0x1234_5678_9abc);
    let (mut levels, mut charged) = (std::collections::HashMap::new(), std::collections::HashSet::new());
    let mut kinds = [0; 3];
    for round in 0..60 {
        let now = T + round * 50;
        let orders: Vec<Order> = (0..=dice.signed(12)).map(|_| any_order(&mut dice)).collect();
        let batch = Batch::of(orders.iter());
        let in_force: Vec<InForce> =
            batch.buckets.iter().map(|bucket| set(&bucket.name).applied(bucket, now)).collect();
        let before = |(bucket, force): (&Bucket, &InForce)| {
            let known = levels.get(&bucket.name).copied().unwrap_or(Level { level: 0, at: bucket.since });
            known.at(now, force.drain, bucket.since)
        };
        let mut ledger = Ledger {
            levels: batch.buckets.iter().zip(&in_force).map(before).collect(),
            in_force,
            fresh: batch.parts.iter().map(|part| !charged.contains(&part.id)).collect(),
            changed: Vec::new(),
        };
        let expected = settle(&batch, &mut ledger);
        let mut connection = Connection::acquire_losable(&store).await.unwrap();
        let peeked = peek(&mut connection, &batch, Some(now)).await.unwrap();
        let outcome = charge(&mut connection, &batch, Some(now)).await.unwrap();
        assert_eq!(outcome.settled, expected, "round {round}: {batch:?}");
        assert_eq!(outcome.levels, ledger.levels.iter().map(|level| level.level).collect::<Vec<_>>(), "round {round}");
        assert_eq!(outcome.in_force, ledger.in_force, "round {round}");
        assert_eq!(peeked, outcome, "reading tells the same before");
        for (at, bucket) in batch.buckets.iter().enumerate().filter(|(at, _)| ledger.changed[*at]) {
            levels.insert(bucket.name.clone(), ledger.levels[at]);
        }
        charged.extend(batch.parts.iter().zip(&ledger.fresh).filter(|(_, fresh)| !**fresh).map(|(part, _)| part.id));
        for settled in expected {
            kinds[match settled {
                Settled::Charged => 0,
                Settled::Repeated => 1,
                Settled::Refused(_) => 2,
            }] += 1;
        }
    }
    assert!(kinds.iter().all(|number| *number > 20), "every answer came up: {kinds:?}");
    let known = number(&store, "select count(*) from limit_charged").await;
    assert_eq!(known, charged.len() as i64);
}

/// Runs `each` of the numbers below `number` on eight connections at once.
async fn at_once<F: Future<Output = ()> + Send>(number: i64, each: impl Fn(i64) -> F + Send + Sync + Clone + 'static) {
    let mut running = Vec::new();
    for asker in 0..8 {
        let each = each.clone();
        running.push(tokio::spawn(async move {
            for number in (0..number).filter(|number| number % 8 == asker) {
                each(number).await;
            }
        }));
    }
    for asker in running {
        asker.await.unwrap();
    }
}

async fn askers_at_once_never_get_more_than_there_is(url: &str) {
    let store = store(url).await;
    let (admitted, one) = (Arc::new(AtomicU32::new(0)), bucket("a 1h x", 100, 0.0));
    let (asked, counted) = (store.clone(), admitted.clone());
    at_once(400, move |id| {
        let (store, counted, one) = (asked.clone(), counted.clone(), one.clone());
        async move {
            if ask(&store, &[order(id, &[one], 1)], T).await == [Settled::Charged] {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    assert_eq!(admitted.load(Ordering::Relaxed), 100);
    assert_eq!(level(&store, "a 1h x").await, 100);
}

async fn levels_are_charged_together_or_not_at_all(url: &str) {
    let store = store(url).await;
    let (farm, admitted) = (bucket("farm 1h *", 150, 0.0), Arc::new(AtomicU32::new(0)));
    let (asked, counted) = (store.clone(), admitted.clone());
    at_once(600, move |id| {
        let (store, counted) = (asked.clone(), counted.clone());
        // Users in no order, the farm between them in the order of names.
        let user = bucket(&format!("{} 1h x", ["a", "z", "d", "p"][(id * 7 % 4) as usize]), 50, 0.0);
        let buckets = if id % 2 == 0 { [user, farm.clone()] } else { [farm.clone(), user] };
        async move {
            if ask(&store, &[order(id, &buckets, 1)], T).await == [Settled::Charged] {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    assert_eq!(admitted.load(Ordering::Relaxed), 150);
    assert_eq!(level(&store, "farm 1h *").await, 150);
    let users = format!("select cast(sum(level) / {UNIT} as bigint) from limit_bucket where bucket <> 'farm 1h *'");
    assert_eq!(number(&store, &users).await, 150);
}

async fn a_repetition_is_charged_once(url: &str) {
    let store = store(url).await;
    let one = bucket("a 1h x", 2, 1000.0);
    assert_eq!(ask(&store, &[order(1, std::slice::from_ref(&one), 1)], T).await, [Settled::Charged]);
    assert_eq!(ask(&store, &[order(1, std::slice::from_ref(&one), 1)], T + 1).await, [Settled::Repeated]);
    assert_eq!(level(&store, "a 1h x").await, 1);
    // Also when the bucket is full meanwhile, and not when so long ago that nobody repeats it.
    assert_eq!(ask(&store, &[order(2, std::slice::from_ref(&one), 1)], T + 2).await, [Settled::Charged]);
    let both = [order(1, std::slice::from_ref(&one), 1), order(3, std::slice::from_ref(&one), 1)];
    assert_eq!(ask(&store, &both, T + 3).await, [Settled::Repeated, Settled::Refused(0)]);
    assert_eq!(ask(&store, &[order(1, &[one], 1)], T + 62_000).await, [Settled::Charged]);
}

async fn a_refusal_leaves_nothing_behind(url: &str) {
    let store = store(url).await;
    let (small, large) = (bucket("a 1h x", 1, 0.0), bucket("b 1h x", 100, 0.0));
    assert_eq!(ask(&store, &[order(1, &[large, small], 2)], T).await, [Settled::Refused(0)]);
    assert_eq!(number(&store, "select count(*) from limit_charged").await, 0);
    assert_eq!(number(&store, "select cast(coalesce(sum(level), 0) as bigint) from limit_bucket").await, 0);
}

async fn calendar_windows_begin_empty(url: &str) {
    let store = store(url).await;
    let at = |since| Bucket { since, ..bucket("a day x", 1, 0.0) };
    assert_eq!(ask(&store, &[order(1, &[at(T)], 1)], T).await, [Settled::Charged]);
    assert_eq!(ask(&store, &[order(2, &[at(T)], 1)], T + 80_000_000).await, [Settled::Refused(0)]);
    assert_eq!(ask(&store, &[order(3, &[at(T + 86_400_000)], 1)], T + 86_400_000).await, [Settled::Charged]);
    // A host whose clock is behind does not open the old window again.
    assert_eq!(ask(&store, &[order(4, &[at(T)], 1)], T + 86_400_000).await, [Settled::Refused(0)]);
}

async fn reading_charges_nothing(url: &str) {
    let store = store(url).await;
    let orders = [order(1, &[bucket("a 1h x", 1, 0.0)], 1)];
    let mut connection = Connection::acquire(&store).await.unwrap();
    let batch = Batch::of(orders.iter());
    for _ in 0..2 {
        assert_eq!(peek(&mut connection, &batch, Some(T)).await.unwrap().settled, [Settled::Charged]);
    }
    assert_eq!(number(&store, "select count(*) from limit_bucket").await, 0);
    assert_eq!(number(&store, "select count(*) from limit_charged").await, 0);
}

async fn what_has_expired_is_deleted(url: &str) {
    let store = store(url).await;
    ask(&store, &[order(1, &[bucket("old 1h x", 1, 0.0)], 1)], T).await;
    let mut connection = Connection::acquire_losable(&store).await.unwrap();
    let orders = [order(2, &[bucket("new 1h x", 1, 0.0)], 1)];
    charge(&mut connection, &Batch::of(orders.iter()), None).await.unwrap();
    assert_eq!(clean(&mut connection, 10).await.unwrap(), 1);
    assert_eq!(clean(&mut connection, 10).await.unwrap(), 0);
    assert_eq!(level(&store, "new 1h x").await, 1);
    assert_eq!(number(&store, "select count(*) from limit_charged").await, 1);
}

async fn one_of_many_claims(url: &str) {
    let store = store(url).await;
    let (claimed, asked) = (Arc::new(AtomicU32::new(0)), store.clone());
    let counted = claimed.clone();
    at_once(32, move |_| {
        let (store, counted) = (asked.clone(), counted.clone());
        async move {
            let mut connection = Connection::acquire(&store).await.unwrap();
            if claim(&mut connection, 4711, 60_000).await.unwrap() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    assert_eq!(claimed.load(Ordering::Relaxed), 1);
}
