// SPDX-License-Identifier: GPL-3.0-or-later
//! postgrey, run with times of our own choice: its attribute `policy_test_time` replaces its clock.

use std::path::Path;
use std::process::Command;

use policyd::store::greylist::Sighting;
use tests::greylister::Greylister;
use tests::process::run;

use crate::old::{Target, count, now};

const HOUR: i64 = 3600;

fn start(folder: &Path, more: &[&str]) -> Greylister {
    Greylister::start("postgrey", folder, |port, [user, group]| {
        let fixed = [
            format!("--inet=127.0.0.1:{port}"),
            format!("--dbdir={}", folder.display()),
            format!("--user={user}"),
            format!("--group={group}"),
            "--delay=60".to_owned(),
        ];
        fixed.into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
    })
}

/// Asks as if it were then; true when the mail may pass.
fn passes(postgrey: &Greylister, client: &str, sender: &str, time: i64) -> bool {
    let action = postgrey.ask(client, sender, "R@our.test", &format!("policy_test_time={time}\n"));
    !action.starts_with("DEFER_IF_PERMIT")
}

/// What an administrator does: db_dump, to files beside the store.
fn dump(folder: &Path, target: &Target, flags: &[&str]) -> [String; 2] {
    ["postgrey.db", "postgrey_clients.db"].map(|name| {
        let text = run("db_dump", Command::new("db_dump").args(flags).arg(folder.join(name))).unwrap();
        let file = target.path(name).with_extension("dump");
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    })
}

#[tokio::test]
async fn what_passed_at_postgrey_passes_here() {
    let folder = tempfile::tempdir().unwrap();
    let postgrey = start(folder.path(), &[]);
    let now = now();
    let senders = [
        ("203.0.113.7", "Ann@X.test", "203.0.113.200", "ann@x.test"),
        ("203.0.113.7", "news-4711-8@lists.test", "203.0.113.7", "News-4712-9@lists.test"),
        ("203.0.113.7", "joe+list@x.test", "203.0.113.8", "joe+other@x.test"),
        ("203.0.113.7", "prvs=0123456789=bat@x.test", "203.0.113.8", "prvs=9876543210=bat@x.test"),
        ("203.0.113.7", "SRS0=HHh1=TT=o.test=joe@fwd.test", "203.0.113.7", "SRS0=xYz2=UU=o.test=joe@fwd.test"),
        ("203.0.113.7", "u_17-x@x.test", "203.0.113.7", "u_18-x@x.test"),
        ("2001:470:abcd:2:3:4:5:af", "ann@x.test", "2001:470:abcd:2::1", "ann@x.test"),
    ];
    for (client, sender, ..) in senders {
        assert!(!passes(&postgrey, client, sender, now - HOUR), "{sender} is new");
        assert!(passes(&postgrey, client, sender, now - HOUR + 120), "{sender} has waited");
    }
    assert!(!passes(&postgrey, "203.0.113.7", "waits@x.test", now - 100));
    assert!(!passes(&postgrey, "203.0.113.7", "ripe@x.test", now - HOUR));
    assert!(!passes(&postgrey, "203.0.113.7", "", now - 100));
    assert!(!passes(&postgrey, "203.0.113.7", "gone@x.test", now - 200 * HOUR));
    // One pass an hour counts, and after five postgrey trusts the client.
    for n in 0..5 {
        let (sender, time) = (format!("u@d{n}.test"), now - 20 * HOUR + 2 * n * HOUR);
        assert!(!passes(&postgrey, "198.51.100.9", &sender, time));
        assert!(passes(&postgrey, "198.51.100.9", &sender, time + 120));
    }
    assert!(passes(&postgrey, "198.51.100.9", "never@seen.test", now));
    postgrey.stop();

    for flags in [&["-p"][..], &[]] {
        let target = Target::sqlite();
        let [triplets, clients] = dump(folder.path(), &target, flags);
        let arguments = ["postgrey", "--delay", "1m", &triplets, &clients];
        let told = target.import(&arguments);
        let imported = senders.len() as u64 + 3 + 5;
        // Besides the five passes of its neighbour each pass of an hour counted for the other clients.
        let counts = ["imported", "clients", "expired", "bad"].map(|word| count(&told, word));
        assert_eq!(counts, [imported, 3, 1, 0], "{told}");
        assert_eq!(count(&target.import(&arguments), "imported"), 0, "again changes nothing");
        for (_, _, client, sender) in senders {
            assert_eq!(target.asked(client, sender, "r@our.test").await, Sighting::Passed, "{client} {sender}");
        }
        assert!(matches!(target.asked("203.0.113.7", "waits@x.test", "r@our.test").await, Sighting::Early { .. }));
        assert!(matches!(target.asked("203.0.113.7", "", "r@our.test").await, Sighting::Early { .. }));
        assert!(matches!(target.asked("203.0.113.7", "ripe@x.test", "r@our.test").await, Sighting::PassedNow { .. }));
        assert!(matches!(target.asked("203.0.113.7", "gone@x.test", "r@our.test").await, Sighting::New { .. }));
        // A client of the auto-whitelist is trusted, for mail that was never seen; the others are not.
        assert_eq!(target.answered("198.51.100.9", "new@y.test", "r@our.test").await, "DUNNO");
        assert!(target.answered("203.0.113.7", "new@y.test", "r@our.test").await.starts_with("DEFER_IF_PERMIT"));
    }
}

#[tokio::test]
async fn hashed_keys_are_told_and_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let postgrey = start(folder.path(), &["--privacy"]);
    assert!(!passes(&postgrey, "203.0.113.7", "ann@x.test", now() - HOUR));
    assert!(passes(&postgrey, "203.0.113.7", "ann@x.test", now()));
    postgrey.stop();
    let target = Target::sqlite();
    let [triplets, clients] = dump(folder.path(), &target, &["-p"]);
    let told = target.import(&["postgrey", &triplets, &clients]);
    assert_eq!(["imported", "skipped"].map(|word| count(&told, word)), [0, 2], "{told}");
    assert!(told.contains("postgrey --privacy"), "{told}");
    assert!(matches!(target.asked("203.0.113.7", "ann@x.test", "r@our.test").await, Sighting::New { .. }));
}

#[tokio::test]
async fn hashed_keys_are_found_by_the_same_request() {
    let folder = tempfile::tempdir().unwrap();
    let postgrey = start(folder.path(), &["--privacy"]);
    let now = now();
    let senders = [
        ("203.0.113.7", "Ann@X.test", "203.0.113.200", "ann@x.test"),
        ("203.0.113.7", "news-4711-8@lists.test", "203.0.113.7", "News-4712-9@lists.test"),
        ("203.0.113.7", "prvs=0123456789=bat@x.test", "203.0.113.8", "prvs=9876543210=bat@x.test"),
        ("203.0.113.7", "prvs=joe=0123456789+x@x.test", "203.0.113.8", "joe@x.test"),
        ("203.0.113.7", "SRS0=HHh1=TT=o.test=joe@fwd.test", "203.0.113.7", "SRS0=HHh1=TT=o.test=joe@fwd.test"),
        ("203.0.113.7", "u_17-x@x.test", "203.0.113.7", "u_17-x@x.test"),
        ("2001:470:abcd:2:3:4:5:af", "ann@x.test", "2001:470:abcd:2::1", "ann@x.test"),
    ];
    for (client, sender, ..) in senders {
        assert!(!passes(&postgrey, client, sender, now - HOUR), "{sender} is new");
        assert!(passes(&postgrey, client, sender, now - HOUR + 120), "{sender} has waited");
    }
    for client in ["198.51.100.9", "2001:db8:0:ab::c"] {
        for n in 0..5 {
            let (sender, time) = (format!("u@d{n}.test"), now - 20 * HOUR + 2 * n * HOUR);
            assert!(!passes(&postgrey, client, &sender, time));
            assert!(passes(&postgrey, client, &sender, time + 120));
        }
    }
    postgrey.stop();
    let target = Target::sqlite().with("postgrey_hashes = true");
    let [triplets, clients] = dump(folder.path(), &target, &["-p"]);
    let arguments = ["postgrey", "--delay", "1m", &triplets, &clients];
    let told = target.import(&arguments);
    assert_eq!(["imported", "clients", "skipped", "bad"].map(|word| count(&told, word)), [17, 4, 0, 0], "{told}");
    assert_eq!(count(&target.import(&arguments), "imported"), 0, "again changes nothing");
    for (_, _, client, sender) in senders {
        let answer = target.answered(client, sender, "r@our.test").await;
        assert!(answer == "DUNNO" || answer.starts_with("PREPEND "), "{client} {sender}: {answer}");
        assert_eq!(target.answered(client, sender, "r@our.test").await, "DUNNO", "it goes by its own key now");
    }
    for client in ["198.51.100.9", "2001:db8:0:ab::c"] {
        assert_eq!(target.answered(client, "new@y.test", "r@our.test").await, "DUNNO", "{client} is trusted");
    }
    for (client, sender) in
        [("203.0.113.7", "new@y.test"), ("198.51.100.10", "new@y.test"), ("203.0.114.7", "ann@x.test")]
    {
        let answer = target.answered(client, sender, "r@our.test").await;
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{client} {sender}: {answer}");
    }
}
