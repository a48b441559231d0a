// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi limit` on a SQLite store: what it shows, and that what it changes holds for the next charge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use common::store::{Store, StoreSettings};
use policyd::limits::plan::{Charge, Order, PartOf};
use policyd::limits::rate::UNIT;
use policyd::limits::settle::{Batch, Bucket, Settled};
use policyd::store::Connection;
use policyd::store::limits::charge;

const CONFIG: &str = "
[[limit]]
name = 'user'
key = 'sasl_username'
unit = 'recipients'
rate = ['2/1h', '5/month']
";

fn octroi(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octroi"));
    command.arg("--config").arg(folder.join("octroi.toml")).arg("limit").args(arguments);
    command.env("USER", "ann").env_remove("SUDO_USER").output().unwrap()
}

/// What it prints when all goes well.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = octroi(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Its exit status and what it complains about.
fn refused(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = octroi(folder, arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Charges joe one unit of two an hour; true when there was room.
async fn send(store: &Store) -> bool {
    let bucket = Bucket {
        name: "user 1h joe".to_owned(),
        capacity: 2 * UNIT,
        drain: 2.0 * UNIT as f64 / 3_600_000.0,
        since: 0,
        keep: 3_600_000,
    };
    let charge_one = Charge { bucket, need: UNIT, units: UNIT, limit: 0, rate: 0, window_end: 0 };
    let orders = [Order { parts: vec![PartOf { id: None, keep: 0, charges: vec![charge_one] }] }];
    let mut connection = Connection::acquire(store).await.unwrap();
    charge(&mut connection, &Batch::of(orders.iter()), None).await.unwrap().settled == [Settled::Charged]
}

#[tokio::test]
async fn a_key_is_shown_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("o.db").display());
    std::fs::write(folder.path().join("octroi.toml"), format!("[store]\nurl = '{url}'\n{CONFIG}")).unwrap();
    let folder = folder.path();
    let store = Store::open(&StoreSettings { url, ..StoreSettings::default() }).await.unwrap();
    store.migrate().await.unwrap();

    let (status, told) = refused(folder, &["show", "joe"]);
    assert!(status == Some(65) && told.contains("no limit knows \"joe\""), "{told}");
    assert!(send(&store).await && send(&store).await && !send(&store).await);
    let shown = said(folder, &["show", "JOE"]);
    let line: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..5], ["user", "1h", "joe", "2", "2"], "{shown}");
    assert!(line[5].ends_with('m'), "the next in half an hour: {shown}");

    let granted = said(folder, &["grant", "joe", "+1", "--for", "2h"]);
    assert!(granted.starts_with("+1 until ") && granted.contains(": user 1h joe"), "{granted}");
    assert!(send(&store).await && !send(&store).await, "one more, and no second one");
    said(folder, &["grant", "joe", "+1"]);
    assert!(send(&store).await && !send(&store).await, "grants add up");
    let shown = said(folder, &["show"]);
    assert!(shown.contains("+2 until ") && shown.contains("(ann)"), "{shown}");

    assert!(said(folder, &["reset", "joe"]).contains("emptied: user 1h joe"));
    assert!(send(&store).await);
    assert!(said(folder, &["set", "joe", "unlimited", "--limit", "user"]).contains("unlimited"));
    for _ in 0..9 {
        assert!(send(&store).await);
    }
    assert!(said(folder, &["show", "joe"]).contains("unlimited"));
    assert!(said(folder, &["unset", "joe"]).contains("as configured again: user 1h joe"));
    assert!(!send(&store).await);
    let set = said(folder, &["set", "joe", "50/1h", "--limit", "user", "--until", "30d"]);
    assert!(set.starts_with("50 in 1h until "), "{set}");
    assert!(send(&store).await);

    let (status, told) = refused(folder, &["set", "joe", "50/day", "--limit", "user"]);
    assert!(status == Some(64) && told.contains("it has: 1h, month"), "{told}");
    let (status, told) = refused(folder, &["reset", "joe", "--limit", "other"]);
    assert!(status == Some(65) && told.contains("there are: user"), "{told}");
    assert_eq!(refused(folder, &["grant", "joe", "+0"]).0, Some(64));
    store.close().await;
}
