// SPDX-License-Identifier: GPL-3.0-or-later
//! Debian's spamc against contentd: whatever it asks for, the verdict, the score and the rules are those of `contentd scan`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::daemon::binary;
use tests::letters::Correspondents;
use tests::spamc::{Said, spamc};

use crate::Gate;

impl Gate {
    /// Runs spamc with these arguments, this message on its standard input.
    async fn spamc(&self, arguments: &[&str], message: &[u8]) -> Said {
        let port = self.port().to_string();
        let place = ["-d", "127.0.0.1", "-p", &port];
        spamc(&[&place, arguments].concat(), message).await
    }

    /// What `contentd scan` says about each of these messages.
    fn scan(&self, messages: &[Vec<u8>]) -> Vec<Value> {
        let mail = self.folder.path().join("mail");
        std::fs::create_dir_all(&mail).unwrap();
        for (number, message) in messages.iter().enumerate() {
            std::fs::write(mail.join(format!("{number:03}")), message).unwrap();
        }
        let configuration = self.folder.path().join("octroi.toml");
        let rules = self.folder.path().join("local.cf");
        std::fs::write(&configuration, format!("[spam]\nrules = [\"{}\"]\n", rules.display())).unwrap();
        scan(&configuration, &mail)
    }
}

/// One report for each file of a folder, in the order of their names.
fn scan(configuration: &Path, folder: &Path) -> Vec<Value> {
    let output = Command::new(binary("contentd").expect("make test builds it"))
        .args(["scan", "--json", "--config"])
        .arg(configuration)
        .arg(folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Messages that hit every set of the rules, with both line ends.
fn messages() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for number in 0..32 {
        let has = |bit: u32| number >> bit & 1 == 1;
        let subject = if has(0) { "You won the LOTTERY" } else { "Minutes" };
        let list = if has(2) { "List-Id: <all.example.net>\n" } else { "" };
        let text = if has(1) { "Buy cheap pills" } else { "See you" };
        let link = if has(3) { "http://www.example.org/x" } else { "" };
        let message = format!(
            "From: a@example.net\nTo: b@example.net\nSubject: {subject}\n{list}Date: Mon, 2 Feb 2026 10:00:00 +0000\n\
             Message-ID: <{number}.long.enough@example.net>\nX-Spam-Status: No, forged\n\n{text}\n{link}\n"
        );
        all.push(if has(4) { message.replace('\n', "\r\n") } else { message }.into_bytes());
    }
    all
}

/// Names of the rules that hit, with commas.
fn symbols(report: &Value) -> String {
    let mut names: Vec<&str> =
        report["symbols"].as_array().unwrap().iter().map(|symbol| symbol["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.join(",")
}

/// `5.8/5.0` and whether that is spam.
fn score(report: &Value) -> (String, bool) {
    let (score, required) = (report["score"].as_f64().unwrap(), report["required"].as_f64().unwrap());
    let sign = if score < 0.0 && score > -0.05 { "-0.0".to_owned() } else { format!("{score:.1}") };
    (format!("{sign}/{required:.1}"), score >= required)
}

fn without_markup(message: &str) -> String {
    let (head, body) = message.split_once("\n\n").unwrap_or((message, ""));
    let mut ours = false;
    let kept = head.lines().filter(|line| {
        ours = if line.starts_with(['\t', ' ']) { ours } else { line.starts_with("X-Spam-") };
        !ours
    });
    format!("{}\n\n{body}", kept.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_the_answer_of_scan() {
    let gate = Gate::start("").await;
    let messages = messages();
    let reports = gate.scan(&messages);
    assert_eq!(reports.len(), messages.len());
    let mut spam = 0;
    for (message, report) in messages.iter().zip(&reports) {
        let (symbols, (score, is_spam)) = (symbols(report), score(report));
        spam += usize::from(is_spam);
        let status = i32::from(is_spam);
        let check = gate.spamc(&["-c"], message).await;
        assert_eq!((check.text.as_str(), check.status), (format!("{score}\n").as_str(), status), "{report}");
        let names = gate.spamc(&["-y"], message).await;
        assert_eq!((names.text.trim_end(), names.status), (symbols.as_str(), 0), "{report}");
        let full = gate.spamc(&["-R", "-E"], message).await;
        assert!(full.text.starts_with(&format!("{score}\n")) && full.status == status, "{}", full.text);
        let listed: Vec<&str> = symbols.split(',').filter(|name| !name.is_empty()).collect();
        assert!(listed.iter().all(|name| full.text.contains(&format!(" {name} "))), "{}", full.text);
        let if_spam = gate.spamc(&["-r", "-E"], message).await;
        assert_eq!(if_spam.text == full.text, is_spam, "{}", if_spam.text);
        let processed = gate.spamc(&["-E"], message).await;
        let headers = gate.spamc(&["--headers", "-E"], message).await;
        for said in [&processed, &headers] {
            marked(said, message, report, &symbols, (&score, is_spam));
        }
    }
    assert_eq!(spam, 4, "lottery and pills, and no list");
    gate.filter.stop().await;
}

/// The message has come back with the right fields and is else unchanged.
fn marked(said: &Said, message: &[u8], report: &Value, symbols: &str, (score, is_spam): (&str, bool)) {
    let text = said.text.replace("\r\n", "\n");
    let sent = String::from_utf8_lossy(message).replace("\r\n", "\n").replace("X-Spam-Status: No, forged\n", "");
    assert_eq!(said.status, i32::from(is_spam), "{text}");
    assert_eq!(without_markup(&text), sent, "{report}");
    assert!(!text.contains("forged"), "{text}");
    let unfolded = text.replace("\n\t", " ");
    let yes = if is_spam { "Yes" } else { "No" };
    let (points, required) = score.split_once('/').unwrap();
    let tests = if symbols.is_empty() { "none" } else { symbols };
    let wanted = format!("X-Spam-Status: {yes}, score={points} required={required} tests={tests} autolearn=no");
    assert!(unfolded.replace(", T_", ",T_").contains(&wanted), "{wanted}: {unfolded}");
    assert_eq!(text.contains("X-Spam-Flag: YES\n"), is_spam, "{text}");
    let crs = message.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(said.text.contains("\r\n"), crs > 0, "line ends are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_unix_socket_and_a_ping() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("spamd.sock").display().to_string();
    let gate = Gate::start(&format!("listen = [\"unix:{socket}\"]\nsocket_mode = \"0600\"")).await;
    let said = spamc(&["-U", &socket, "-y"], &messages()[3]).await;
    assert_eq!((said.text.trim_end(), said.status), ("T_LOTTERY,T_PILLS", 0));
    let pong = spamc(&["-U", &socket, "-K"], b"").await;
    assert_eq!((pong.text.as_str(), pong.status), ("SPAMD/1.5 0\n", 0));
    gate.filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_worse_than_spam_is_spam_to_spamc() {
    let correspondents = Correspondents { from: "a@example.net", to: "b@example.net" };
    let letter = correspondents.attached("Minutes", "a.exe", b"MZ".to_vec());
    for destiny in ["reject", "tempfail", "discard", "pass"] {
        let gate = Gate::start(&format!("[banned]\nextensions = [\"exe\"]\n[destiny]\nbanned = \"{destiny}\"")).await;
        let said = gate.spamc(&["-c"], &letter.bytes).await;
        assert_eq!((said.text.as_str(), said.status), ("1000.0/5.0\n", 1), "{destiny}");
        let said = gate.spamc(&["-R"], &letter.bytes).await;
        assert!(said.text.contains("\n1000 OCTROI_BANNED          banned: "), "{}", said.text);
        gate.filter.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_an_error_of_spamc() {
    let gate = Gate::start("max_size = \"10KB\"").await;
    let large = [b"Subject: x\n\n".as_slice(), &b"x".repeat(3_000_000)].concat();
    let said = gate.spamc(&["-s", "10000000", "-y"], &large).await;
    assert_eq!((said.text.trim_end(), said.status), ("", 74), "EX_IOERR is what spamc makes of any refusal");
    let learn = gate.spamc(&["-L", "spam"], &messages()[3]).await;
    assert_eq!(learn.status, 74, "{}", learn.text);
    gate.filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_say_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("octroi.db").display());
    let gate = Gate::start(&format!("tell = true\n[store]\nurl = \"{url}\"")).await;
    gate.filter.store_opened().await;
    let messages = messages();
    let (ham, spam) = (&messages[0], &messages[3]);
    assert_eq!(gate.spamc(&["-c"], spam).await.status, 1);
    for (class, message) in [("spam", ham), ("spam", spam), ("ham", spam)] {
        let said = gate.spamc(&["-L", class], message).await;
        assert_eq!((said.text.as_str(), said.status), ("Message successfully un/learned\n", 0), "{class}");
    }
    for nothing in [["-L", "forget"], ["-C", "report"], ["-C", "revoke"]] {
        let said = gate.spamc(&nothing, spam).await;
        assert!(!said.text.contains("successfully"), "{nothing:?}: {}", said.text);
    }
    let daemon = gate.filter.daemon.clone();
    assert!(daemon.account.write(true).await);
    let store = daemon.store.store().unwrap();
    let days = contentd::store::rules::days(&store, 0, i64::MAX).await.unwrap();
    let sum = |of: fn(&contentd::store::rules::DayRow) -> i64| days.iter().map(of).sum::<i64>();
    assert_eq!(
        (sum(|day| day.messages), sum(|day| day.told_spam), sum(|day| day.told_ham)),
        (1, 3, 2),
        "-C speaks of the local database, too"
    );
    assert_eq!((sum(|day| day.false_positives), sum(|day| day.false_negatives)), (2, 1));
    drop(store);
    gate.filter.stop().await;
}
