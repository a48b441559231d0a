// SPDX-License-Identifier: GPL-3.0-or-later
//! sqlgrey on its SQLite backend. Time passes by moving its rows into the past.

use std::path::Path;

use policyd::store::greylist::Sighting;
use sqlx::Connection;
use tests::greylister::Greylister;

use crate::old::{Target, count};

fn start(folder: &Path) -> Greylister {
    Greylister::start("sqlgrey", folder, |port, [user, group]| {
        let text = format!(
            "inet = 127.0.0.1:{port}\nuser = {user}\ngroup = {group}\ndb_type = SQLite\ndb_name = {}\nreconnect_delay = 1\n\
             greymethod = classc\nadmin_mail =\n",
            folder.join("sqlgrey.db").display()
        );
        let config = folder.join("sqlgrey.conf");
        std::fs::write(&config, text).unwrap();
        vec!["-f".to_owned(), config.display().to_string()]
    })
}

/// Moves what waits into the past.
async fn wait(folder: &Path, seconds: i64) {
    let url = format!("sqlite:{}", folder.join("sqlgrey.db").display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let moved = sqlx::query("update connect set first_seen = first_seen - $1").bind(seconds);
    assert!(moved.execute(&mut database).await.unwrap().rows_affected() > 0);
    database.close().await.unwrap();
}

fn passes(sqlgrey: &Greylister, client: &str, sender: &str) -> bool {
    let action = sqlgrey.ask(client, sender, "r@our.test", "");
    !action.starts_with("defer_if_permit")
}

#[tokio::test]
async fn what_passed_at_sqlgrey_passes_here() {
    let folder = tempfile::tempdir().unwrap();
    let sqlgrey = start(folder.path());
    let passed = [
        ("203.0.113.7", "ann@x.test"),
        ("203.0.113.7", "bob@x.test"),
        ("203.0.113.8", ""),
        ("198.51.100.9", "single@y.test"),
    ];
    let waits = [("192.0.2.7", "News+77@x.test"), ("2001:db8::5", "joe@x.test"), ("192.0.2.7", "")];
    for (client, sender) in passed.iter().chain(&waits) {
        assert!(!passes(&sqlgrey, client, sender), "{client} {sender} is new");
    }
    wait(folder.path(), 600).await;
    for (client, sender) in passed {
        assert!(passes(&sqlgrey, client, sender), "{client} {sender} has waited");
        assert!(passes(&sqlgrey, client, sender), "{client} {sender} has passed before");
    }
    assert!(!passes(&sqlgrey, "192.0.2.7", "late@x.test"));
    sqlgrey.stop();

    let target = Target::sqlite();
    let database = folder.path().join("sqlgrey.db");
    let arguments = ["sqlgrey", database.to_str().unwrap()];
    let told = target.import(&arguments);
    // Two senders of one domain became one row of the domain.
    let counts = ["imported", "clients", "trusted", "bad"].map(|word| count(&told, word));
    assert_eq!(counts, [4, 3, 2, 0], "{told}");
    assert_eq!(count(&target.import(&arguments), "imported"), 0, "again changes nothing");
    // Who waits there goes on waiting, or has waited long enough; who has passed there counts for trust.
    assert!(matches!(target.asked("192.0.2.9", "news@x.test", "r@our.test").await, Sighting::PassedNow { .. }));
    assert!(matches!(target.asked("2001:db8::9", "joe@x.test", "r@our.test").await, Sighting::PassedNow { .. }));
    assert!(matches!(target.asked("192.0.2.9", "", "r@our.test").await, Sighting::PassedNow { .. }));
    assert!(matches!(target.asked("192.0.2.9", "late@x.test", "r@our.test").await, Sighting::Early { .. }));
    // Three senders have passed from this network, which is not enough; two more are.
    let unknown = ("203.0.113.99", "new@z.test", "r@our.test");
    assert!(target.answered(unknown.0, unknown.1, unknown.2).await.starts_with("DEFER_IF_PERMIT"));
    let sqlgrey = start(folder.path());
    for sender in ["cid@y.test", "dan@z.test"] {
        assert!(!passes(&sqlgrey, "203.0.113.7", sender));
    }
    wait(folder.path(), 600).await;
    for sender in ["cid@y.test", "dan@z.test"] {
        assert!(passes(&sqlgrey, "203.0.113.7", sender));
    }
    sqlgrey.stop();
    assert_eq!(count(&target.import(&arguments), "trusted"), 1);
    assert_eq!(target.answered(unknown.0, unknown.1, unknown.2).await, "DUNNO");
    assert!(target.answered("198.51.100.9", unknown.1, unknown.2).await.starts_with("DEFER_IF_PERMIT"));
}

#[tokio::test]
async fn who_chose_at_sqlgrey_has_chosen_here() {
    let folder = tempfile::tempdir().unwrap();
    let sqlgrey = start(folder.path());
    assert!(!passes(&sqlgrey, "192.0.2.7", "joe@x.test"), "it has made its tables");
    sqlgrey.stop();
    let path = folder.path().join("sqlgrey.db");
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    for text in [
        "insert into optout_domain (domain) values ('Quiet.test')",
        "insert into optin_email (email) values ('ann@quiet.test')",
    ] {
        sqlx::query(text).execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();
    let target = Target::sqlite();
    let told = target.import(&["sqlgrey", path.to_str().unwrap()]);
    assert_eq!((count(&told, "chosen"), count(&told, "skipped")), (0, 2), "only on request: {told}");
    let told = target.import(&["sqlgrey", "--opt-method", "optout", path.to_str().unwrap()]);
    assert_eq!((count(&told, "chosen"), count(&told, "skipped"), count(&told, "bad")), (3, 0, 0), "{told}");
    let url = format!("sqlite:{}", target.path("octroi.db").display());
    let mut ours = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let entries: Vec<(String, String)> =
        sqlx::query_as("select list, entry from acl order by list, entry").fetch_all(&mut ours).await.unwrap();
    let entries: Vec<String> = entries.into_iter().map(|(list, entry)| format!("{list} {entry}")).collect();
    assert_eq!(entries, ["optin *", "optin ann@quiet.test", "optout @quiet.test"], "who was greylisted stays so");
    ours.close().await.unwrap();
    assert_eq!(count(&target.import(&["sqlgrey", "--opt-method", "optout", path.to_str().unwrap()]), "chosen"), 0);
}
