// SPDX-License-Identifier: GPL-3.0-or-later
//! The dialogs in `dialogs/*.txt`, each on SQLite and on PostgreSQL. A line begins with what it is:
//!
//! `= text` a line of the configuration; `@ file NAME text` a list file of one line (`{dir}` in the configuration is its folder);
//! `> text` is sent with LF; `< text` is received, `...` in it stands for anything; `x` the server has closed;
//! `@ connect` a new connection; `@ later MILLISECONDS` everything stored becomes so much older; `# text` a comment.

use std::path::{Path, PathBuf};

use common::config::Source;
use policyd::config::Settings;
use tests::postgres::Cluster;

use crate::gate::{Client, Gate, sql, sqlite, store};

fn dialogs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy/dialogs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the dialogs are there");
    files
}

#[tokio::test]
async fn every_dialog_holds_on_sqlite() {
    for file in dialogs() {
        let (_folder, url) = sqlite();
        play(&file, &url).await;
    }
}

#[tokio::test]
async fn every_dialog_holds_on_postgres() {
    let cluster = Cluster::shared();
    for file in dialogs() {
        play(&file, &cluster.new_database().await).await;
    }
}

async fn play(file: &Path, url: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let configuration: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("= "))
        .map(|line| format!("{}\n", line.replace("{dir}", &dir)))
        .collect();
    for words in text.lines().filter_map(|line| line.strip_prefix("@ file ")) {
        let (name, entry) = words.split_once(' ').unwrap();
        std::fs::write(folder.path().join(name), format!("{entry}\n")).unwrap();
    }
    let source = Source::from_text(&file.display().to_string(), &configuration).unwrap();
    let mut settings = Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    settings.store.url = url.to_owned();

    let gate = Gate::ready(settings).await;
    let aside = store(url).await;
    let mut client = gate.client().await;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{} ({})", file.display(), number + 1, aside.kind());
        act(line, &place, &gate, &mut client, &aside).await;
    }
    drop(client);
    aside.close().await;
    gate.end().await;
}

async fn act(line: &str, place: &str, gate: &Gate, client: &mut Client, aside: &common::store::Store) {
    match line.split_at_checked(1).unwrap_or_default() {
        ("", _) | ("#" | "=", _) => {}
        (">", text) => client.send(format!("{}\n", text.strip_prefix(' ').unwrap_or(text)).as_bytes()).await,
        ("<", text) => {
            let expected = text.strip_prefix(' ').unwrap_or(text);
            let received = client.line().await;
            assert!(received.as_deref().is_some_and(|received| fits(expected, received)), "{place}: {received:?}");
        }
        ("x", _) => assert_eq!(client.line().await, None, "{place}"),
        ("@", " connect") => *client = gate.client().await,
        ("@", order) if order.starts_with(" file ") => {}
        ("@", order) => {
            let age: u64 = order.strip_prefix(" later ").unwrap_or_else(|| panic!("{place}: {line}")).parse().unwrap();
            let older = format!(
                "update greylist set first_seen = first_seen - {age}, last_seen = last_seen - {age}, expires = expires - {age}"
            );
            sql(aside, &older).await;
        }
        _ => panic!("{place}: what is {line:?}?"),
    }
}

/// True when the pieces of `expected` around `...` occur in `line` in order, the first at its start and the last at its end.
fn fits(expected: &str, line: &str) -> bool {
    let pieces: Vec<&str> = expected.split("...").collect();
    let [first, between @ .., last] = pieces.as_slice() else { return expected == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}
