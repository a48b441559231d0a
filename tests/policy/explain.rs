// SPDX-License-Identifier: GPL-3.0-or-later
//! Deferrals explained by the id in their reply, on any host: `octroi why`, `octroi allow`, `octroi greylist stats`, with the real
//! command on both databases.

use std::time::Duration;

use common::store::Store;
use tests::daemon::binary;
use tests::postgres::Cluster;
use tokio::time::Instant;

use crate::gate::{Client, Gate, PATIENCE, number, rcpt, sql, sqlite, store, strict};

pub async fn octroi(url: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("octroi.toml");
    std::fs::write(&file, format!("[store]\nurl = \"{url}\"\n")).unwrap();
    let mut command = tokio::process::Command::new(binary("octroi").unwrap());
    let output = command.arg("--config").arg(&file).args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub async fn done(url: &str, arguments: &[&str]) -> String {
    let (status, told, wrong) = octroi(url, arguments).await;
    assert_eq!((status, wrong.as_str()), (0, ""), "octroi {arguments:?}");
    told
}

/// Asks for a sender that must wait, and gives the id in the reply.
async fn deferred(client: &mut Client, ip: &str, sender: &str) -> String {
    let answer = client.ask(&rcpt(ip, sender, "r@example.org")).await.unwrap();
    assert!(answer.starts_with("DEFER_IF_PERMIT 4.7.1 "), "{answer}");
    answer.rsplit_once("; id ").unwrap().1.to_owned()
}

/// Decisions are written a moment after they are made.
async fn until_kept(aside: &Store, decisions: i64) {
    let since = Instant::now();
    while number(aside, "select count(*) from explain").await < decisions {
        assert!(since.elapsed() < PATIENCE, "{decisions} decisions were never kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|at| at.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(line))
}

async fn a_deferral_is_explained_and_let_through(url: &str) {
    let (first, second) = (Gate::ready(strict(url)).await, Gate::ready(strict(url)).await);
    let (mut one, mut two) = (first.client().await, second.client().await);
    let aside = store(url).await;
    let id = deferred(&mut one, "192.0.2.1", "a@example.net").await;
    let again = deferred(&mut two, "192.0.2.1", "a@example.net").await;
    assert_ne!(id, again);
    until_kept(&aside, 2).await;

    let told = done(url, &["why", &id.to_uppercase()]).await;
    for line in [
        format!("id {id}").as_str(),
        "client 192.0.2.1 (mx.example.net), HELO mx.example.net",
        "sender <a@example.net>",
        "recipient <r@example.org>",
        "stage RCPT, instance 1.2.3.4",
        "verdict defer_if_permit",
        "reason greylist_new",
        "trace access: nothing to say",
        "greylist: defer_if_permit (greylist_new)",
        "recipient <r@example.org>",
        "first seen 2",
        "tries 2",
        "state waits; ",
        "would pass a try from this client key after 2",
        format!("or the next one, after: octroi allow {id}").as_str(),
    ] {
        assert!(has(&told, line), "{line:?} is missing in\n{told}");
    }
    assert!(has(&done(url, &["why", &again]).await, "reason greylist_early"));

    let told = done(url, &["allow", &id]).await;
    assert!(told.starts_with("the next try from ") && told.contains("sender <a@example.net>"), "{told}");
    assert!(has(&done(url, &["why", &id]).await, "state has waited long enough"));
    let request = rcpt("192.0.2.1", "a@example.net", "r@example.org");
    let passed = two.ask(&request).await.unwrap();
    assert!(passed.starts_with("PREPEND X-Greylist: delayed 24"), "{passed}");
    assert_eq!(one.ask(&request).await.as_deref(), Some("DUNNO"), "the first pass is one");
    until_kept(&aside, 3).await;
    assert!(has(&done(url, &["why", &id]).await, "state has passed"));
    done(url, &["allow", &id]).await;
    assert_eq!(one.ask(&request).await.as_deref(), Some("DUNNO"), "what has passed stays so");

    // Forgotten meanwhile: it is let through all the same.
    let id = deferred(&mut one, "192.0.2.1", "b@example.net").await;
    until_kept(&aside, 4).await;
    sql(&aside, "delete from greylist").await;
    assert!(has(&done(url, &["why", &id]).await, "state forgotten"));
    done(url, &["allow", &id]).await;
    let passed = one.ask(&rcpt("192.0.2.1", "b@example.net", "r@example.org")).await.unwrap();
    assert!(passed.starts_with("PREPEND ") || passed == "DUNNO", "{passed}");

    for arguments in [["why", "0000000000"], ["allow", "0000000000"]] {
        let (status, _, told) = octroi(url, &arguments).await;
        assert_eq!(status, 65);
        assert!(told.contains("nothing is known of 0000000000"), "{told}");
    }
    assert_eq!(octroi(url, &["why", "what?"]).await.0, 64);
    aside.close().await;
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_deferral_is_explained_and_let_through_with_postgres() {
    a_deferral_is_explained_and_let_through(&Cluster::shared().new_database().await).await;
}

#[tokio::test]
async fn a_deferral_is_explained_and_let_through_with_sqlite() {
    let (_folder, url) = sqlite();
    a_deferral_is_explained_and_let_through(&url).await;
}

async fn statistics(url: &str) {
    assert_eq!(done(url, &["greylist", "stats"]).await, "nothing was greylisted in the last 7days\n");
    let aside = store(url).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let hour = 3_600_000;
    let mut rows = Vec::new();
    let mut row = |triplet: &str, system: &str, at: i64, waited: Option<i64>| {
        let id = rows.len() + 1;
        let waited = waited.map_or_else(|| "null".to_owned(), |waited| waited.to_string());
        rows.push(format!(
            "({id}, {at}, 'mx1', 'v', 'r', 'RCPT', '', '', '', '', '', '', '{triplet}', '', '', '{system}', null, {waited}, '', {}, null)",
            now + hour
        ));
    };
    // A system of 20 that came after 1 to 20 minutes, one that never came, and one that may still come.
    for minute in 1..=20 {
        row(&format!("good{minute}"), "good.example", now - 10 * hour, None);
        row(&format!("good{minute}"), "good.example", now - 9 * hour, Some(minute * 60_000));
    }
    for number in 0..30 {
        row(&format!("bad{number}"), "bad.example", now - 5 * hour, None);
        row(&format!("bad{number}"), "bad.example", now - 5 * hour, None);
    }
    row("late", "late.example", now - hour, None);
    row("old", "old.example", now - 30 * 24 * hour, None);
    sql(&aside, &format!("insert into explain values {}", rows.join(", "))).await;
    let told = done(url, &["greylist", "stats"]).await;
    for line in [
        "In the last 7days: 51 triplets were told to come again, 81 times.",
        "stopped 30 never came again within 4h",
        "delayed 20 median 10m, 95 of 100 within 19m",
        "waiting 1 may still come",
        "SYSTEM TRIPLETS STOPPED DELAYED DEFERRALS MEDIAN P95",
        "bad.example 30 30 0 60 - -",
        "good.example 20 0 20 20 10m 19m",
        "late.example 1 0 0 1 - -",
    ] {
        assert!(has(&told, line), "{line:?} is missing in\n{told}");
    }
    assert!(!told.contains("old.example"));
    let told = done(url, &["greylist", "stats", "--never-after", "30m", "--systems", "1", "--last", "60d"]).await;
    assert!(has(&told, "stopped 32") && !told.contains("good.example"), "{told}");
    aside.close().await;
}

#[tokio::test]
async fn statistics_tell_what_was_stopped_and_delayed_with_postgres() {
    statistics(&Cluster::shared().new_database().await).await;
}

#[tokio::test]
async fn statistics_tell_what_was_stopped_and_delayed_with_sqlite() {
    let (_folder, url) = sqlite();
    statistics(&url).await;
}

#[tokio::test]
async fn nothing_is_kept_when_that_is_switched_off() {
    let (_folder, url) = sqlite();
    let mut settings = strict(&url);
    settings.greylist.keep_explained = "0s".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    let id = deferred(&mut client, "192.0.2.1", "a@example.net").await;
    gate.end().await;
    let aside = store(&url).await;
    assert_eq!(number(&aside, "select count(*) from explain").await, 0);
    assert_eq!(octroi(&url, &["why", &id]).await.0, 65);
}
