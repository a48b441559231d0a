// SPDX-License-Identifier: GPL-3.0-or-later
//! The protocols beside clamd's, each against a fake that misbehaves on order: every way to fail is a failure with its reason, in time,
//! and never "clean"; what is found is a virus however late it is said.

use crate::{Inspector, US, letter_of};
use contentd::findings::{Findings, Outcome};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::fake_icap::{self, FakeIcap};
use tests::fake_line::{self, FakeLine};
use tests::fake_sssp::{self, FakeSssp};
use tests::letters::zipped;
use tokio::time::Instant;

/// Limits that the tests which run into them wait for, and others do not even on a busy machine.
const SHORT: &str = "send_timeout = \"400ms\"\nscan_timeout = \"400ms\"\nconnect_timeout = \"400ms\"\nfailures = 100";
const PATIENT: &str = "failures = 100";

/// More than all socket buffers on the way hold.
const LARGE: usize = 12_000_000;

fn infected() -> Vec<u8> {
    letter("EICAR")
}

fn letter(text: &str) -> Vec<u8> {
    format!("From: a@b\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: x\r\n\r\n{text}\r\n").into_bytes()
}

fn found() -> Outcome {
    Outcome::Infected(vec!["Fake-Eicar".into()])
}

/// An engine that is the only one.
pub(crate) fn engine(kind: &str, lines: &str, limits: &str) -> Inspector {
    Inspector::new(&format!("[antivirus.it]\nkind = \"{kind}\"\n{lines}\n{limits}\n"))
}

async fn outcomes(inspector: &Inspector, message: &[u8]) -> Vec<Outcome> {
    inspector.inspect(message).await.0.scans.into_iter().map(|scan| scan.outcome).collect()
}

async fn assert_failure(inspector: &Inspector, message: &[u8], reason: &str, what: &str) {
    let (findings, verdict) = inspector.inspect(message).await;
    match &findings.scans[..] {
        [scan] => match &scan.outcome {
            Outcome::Failed(why) => assert!(why.starts_with(reason), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        },
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!((verdict.category.word(), verdict.destiny.word()), ("unchecked", "tempfail"), "{what}");
}

#[tokio::test]
async fn sssp() {
    use fake_sssp::Manner;
    for manner in [Manner::Proper, Manner::OneEach, Manner::LateVirus] {
        let fake = FakeSssp::start(manner).await;
        let inspector = engine("sssp", &format!("address = \"{}\"", fake.address()), PATIENT);
        for _ in 0..3 {
            assert_eq!(outcomes(&inspector, &letter("good")).await, [Outcome::Clean], "{manner:?}");
            assert_eq!(outcomes(&inspector, &infected()).await, [found()], "{manner:?}");
        }
        // A text of several parts: the message and each part, over one connection.
        assert_eq!(
            outcomes(&inspector, &US.attached("x", "a.bin", b"\0binary".to_vec()).bytes).await,
            [Outcome::Clean]
        );
        assert!(inspector.pipeline.ready().await.unwrap().starts_with("it: SSSP/1.0"));
    }
    for (manner, expected) in [
        (Manner::TooLarge, Outcome::Incomplete("larger than the scanner takes".into())),
        (Manner::Encrypted, Outcome::Encrypted("file".into())),
        (Manner::Corrupt, Outcome::Incomplete("the scanner says 0210 Corrupt".into())),
    ] {
        let fake = FakeSssp::start(manner).await;
        let inspector = engine("sssp", &format!("address = \"{}\"", fake.address()), PATIENT);
        for size in [1000, LARGE] {
            assert_eq!(
                outcomes(&inspector, &letter_of(size)).await,
                std::slice::from_ref(&expected),
                "{manner:?} {size}"
            );
        }
    }
}

#[tokio::test]
async fn sssp_going_wrong() {
    use fake_sssp::Manner;
    for (manner, size, limits, reason) in [
        (Manner::NoGreeting, 1000, SHORT, "no answer in time while waiting for the greeting"),
        (Manner::Stranger, 1000, PATIENT, "it sent something that is no answer: 220 mail.test"),
        (Manner::Silent, 1000, SHORT, "no answer in time while waiting for the answer"),
        (Manner::HalfAnswer, 1000, SHORT, "no answer in time while waiting for the answer"),
        (Manner::CutAnswer, 1000, PATIENT, "connection lost while waiting for the answer"),
        (Manner::Garbage, 1000, PATIENT, "it sent something that is no answer: ??gibberish"),
        (Manner::Endless, 1000, PATIENT, "it sent something that is no answer: xxx"),
        (Manner::CloseAfter(100), 1000, PATIENT, "connection lost while"),
        (Manner::CloseAfter(100_000), LARGE, PATIENT, "connection lost while"),
        (Manner::Rejects, 1000, PATIENT, "it says: REJ 2"),
    ] {
        let fake = FakeSssp::start(manner).await;
        let inspector = engine("sssp", &format!("address = \"{}\"", fake.address()), limits);
        assert_failure(&inspector, &letter_of(size), reason, &format!("{manner:?} {size}")).await;
    }
    let nobody = engine("sssp", "address = \"127.0.0.1:1\"", PATIENT);
    assert_failure(&nobody, &letter("x"), "cannot connect to 127.0.0.1:1", "nobody").await;
}

#[tokio::test]
async fn line_daemons() {
    use fake_line::Manner;
    for manner in [Manner::Proper, Manner::WithLineEnd, Manner::Dribble] {
        let fake = FakeLine::start(manner);
        let inspector = engine("line", &format!("preset = \"sophie\"\naddress = \"{}\"", fake.address()), PATIENT);
        assert_eq!(outcomes(&inspector, &letter("good")).await, [Outcome::Clean], "{manner:?}");
        let zip = US.attached("x", "../../etc/passwd", zipped("a b;c.txt", b"deep EICAR inside")).bytes;
        assert_eq!(outcomes(&inspector, &zip).await, [found()], "{manner:?}");
        for path in fake.asked() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(name.starts_with("part-") && name[5..].bytes().all(|byte| byte.is_ascii_digit()), "{name}");
            assert!(!path.exists() && !path.parent().unwrap().exists(), "{path:?} is left behind");
        }
    }
}

#[tokio::test]
async fn line_daemons_going_wrong() {
    use fake_line::Manner;
    for (manner, limits, reason) in [
        (Manner::Silent, SHORT, "no answer in time while waiting for the answer"),
        (Manner::Closes, PATIENT, "connection lost while waiting for the answer"),
        (Manner::Error, PATIENT, "it sent something that is no answer: -1:cannot open"),
        (Manner::Garbage, PATIENT, "it sent something that is no answer: what?"),
        (Manner::Endless, PATIENT, "it sent something that is no answer: xxx"),
    ] {
        let fake = FakeLine::start(manner);
        let inspector = engine("line", &format!("preset = \"sophie\"\naddress = \"{}\"", fake.address()), limits);
        assert_failure(&inspector, &letter("x"), reason, &format!("{manner:?}")).await;
        assert!(fake.asked().iter().all(|path| !path.exists()));
    }
    let nobody = engine("line", "preset = \"trophie\"\naddress = \"unix:/nonexistent/s\"", PATIENT);
    assert_failure(&nobody, &letter("x"), "cannot connect to unix:/nonexistent/s", "nobody").await;
}

fn icap(fake: &FakeIcap, lines: &str, limits: &str) -> Inspector {
    engine("icap", &format!("address = \"{}\"\nservice = \"avscan\"\n{lines}", fake.address()), limits)
}

#[tokio::test]
async fn icap_finds_and_passes() {
    use fake_icap::Manner;
    for method in ["respmod", "reqmod"] {
        let lines = format!("method = \"{method}\"");
        for manner in [
            Manner::Proper,
            Manner::Preview(0),
            Manner::Preview(20),
            Manner::Preview(100_000),
            Manner::GivesBack,
            Manner::OneEach,
        ] {
            let fake = FakeIcap::start(manner).await;
            let inspector = icap(&fake, &lines, PATIENT);
            for _ in 0..2 {
                assert_eq!(outcomes(&inspector, &letter("good")).await, [Outcome::Clean], "{method} {manner:?}");
                assert_eq!(outcomes(&inspector, &letter_of(300_000)).await, [Outcome::Clean], "{method} {manner:?}");
                assert_eq!(outcomes(&inspector, &infected()).await, [found()], "{method} {manner:?}");
            }
            assert!(inspector.pipeline.ready().await.unwrap().starts_with("it: Fake 1.0"));
        }
        let fake = FakeIcap::start(Manner::Changes).await;
        let changed = [Outcome::Infected(vec!["ICAP.modified".into()])];
        assert_eq!(outcomes(&icap(&fake, &lines, PATIENT), &letter("good")).await, changed, "{method}");
        let fake = FakeIcap::start(Manner::Blocks).await;
        let blocked = [Outcome::Infected(vec!["ICAP.blocked.403".into()])];
        assert_eq!(outcomes(&icap(&fake, &lines, PATIENT), &infected()).await, blocked, "{method}");
        let fake = FakeIcap::start(Manner::Violations).await;
        let both = [Outcome::Infected(vec!["Fake-Eicar".into(), "Fake-Other".into()])];
        assert_eq!(outcomes(&icap(&fake, &lines, PATIENT), &infected()).await, both, "{method}");
        // It says so while most of the body is still to come, and closes.
        let fake = FakeIcap::start(Manner::Early).await;
        let early = letter(&format!("EICAR{}", "\r\nmore and more".repeat(LARGE / 15)));
        assert_eq!(outcomes(&icap(&fake, &lines, PATIENT), &early).await, [found()], "{method}");
    }
}

/// What the preview holds is answered without the rest; one connection serves all.
#[tokio::test]
async fn icap_previews_and_connections() {
    let fake = FakeIcap::start(fake_icap::Manner::Preview(5000)).await;
    let inspector = icap(&fake, "", PATIENT);
    for _ in 0..3 {
        assert_eq!(outcomes(&inspector, &letter("good")).await, [Outcome::Clean]);
    }
    // The message and, since an ICAP server reads no mail, its text.
    assert_eq!(fake.seen(), (1, 6, 0));
    assert_eq!(outcomes(&inspector, &letter_of(50_000)).await, [Outcome::Clean]);
    assert_eq!(fake.seen(), (1, 8, 2));
}

#[tokio::test]
async fn icap_going_wrong() {
    use fake_icap::Manner;
    for (manner, limits, reason) in [
        (Manner::Silent, SHORT, "no answer in time while waiting for the answer"),
        (Manner::HalfAnswer, SHORT, "no answer in time while waiting for the answer"),
        (Manner::CutAnswer, PATIENT, "connection lost while waiting for the answer"),
        (Manner::CutBody, PATIENT, "connection lost while waiting for the answer"),
        (Manner::Garbage, PATIENT, "it sent something that is no answer: ??gibberish"),
        (Manner::Endless, PATIENT, "it sent something that is no answer: xxx"),
        (Manner::Error, PATIENT, "it says: ICAP status 500"),
        (Manner::NoService, PATIENT, "it says: OPTIONS is answered with 404"),
        (Manner::WrongMethod, PATIENT, "it says: the service has no RESPMOD"),
    ] {
        let fake = FakeIcap::start(manner).await;
        assert_failure(&icap(&fake, "", limits), &letter("x"), reason, &format!("{manner:?}")).await;
    }
}

/// A scanner of ours: a script that is called with the folder, and does what its text says.
fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("scanner");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn command(path: &Path, lines: &str) -> Inspector {
    engine("command", &format!("command = [\"{}\", \"--\", \"{{}}\"]\n{lines}", path.display()), PATIENT)
}

const GREP: &str = "if grep -rqs EICAR \"$2\"; then echo 'FOUND: Fake-Eicar in a file'; exit 1; fi";
const NAME: &str = "virus_name = \"FOUND: (\\\\S+)\"";

#[tokio::test]
async fn programs() {
    let folder = tempfile::tempdir().unwrap();
    let inspector = command(&program(folder.path(), GREP), NAME);
    assert_eq!(outcomes(&inspector, &letter("good")).await, [Outcome::Clean]);
    let zip = US.attached("x", "$(touch x).zip", zipped("; touch y", b"deep EICAR inside")).bytes;
    assert_eq!(outcomes(&inspector, &zip).await, [found()]);
    let inspector = command(
        &program(folder.path(), "exit $(($(ls \"$2\" | grep -c -v '^part-[0-9]*$') + 40))"),
        "clean_codes = [40]",
    );
    assert_eq!(outcomes(&inspector, &zip).await, [Outcome::Clean], "names are neutral");
    let inspector = command(&program(folder.path(), "exit 7"), "unchecked_codes = [7]");
    assert_eq!(outcomes(&inspector, &zip).await, [Outcome::Incomplete("exit code 7".into())]);
    let inspector = command(&program(folder.path(), "exit 9"), "infected_codes = [8, 9]");
    assert_eq!(outcomes(&inspector, &zip).await, [Outcome::Infected(vec!["unnamed".into()])]);
    // More output than anybody reads, and the environment is not ours.
    let text = "yes 'FOUND: Fake-Eicar' | head -n 200000; [ -z \"$CARGO_MANIFEST_DIR\" ] && exit 1";
    let inspector = command(&program(folder.path(), text), NAME);
    assert_eq!(outcomes(&inspector, &zip).await, [found()]);
}

#[tokio::test]
async fn programs_going_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (text, lines, reason) in [
        ("exit 2", "", "it ended with exit status: 2"),
        ("kill -9 $$", "", "it ended with signal: 9"),
        ("exec sleep 1000", "scan_timeout = \"300ms\"", "no answer in time while running"),
        ("while :; do :; done", "scan_timeout = \"300ms\"", "no answer in time while running"),
    ] {
        let inspector = command(&program(folder.path(), text), lines);
        assert_failure(&inspector, &letter("x"), reason, text).await;
    }
    let inspector = command(Path::new("/nonexistent/scanner"), "");
    assert_failure(&inspector, &letter("x"), "cannot run it: No such file", "no program").await;
    assert!(inspector.pipeline.ready().await.is_err());
}

/// What a program has started ends with it, in time and out of time, and its files are gone.
#[tokio::test]
async fn nothing_of_a_program_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (pids, seen) = (folder.path().join("pids"), folder.path().join("seen"));
    for (end, lines) in [("exit 0", ""), ("exec sleep 1000", "scan_timeout = \"700ms\"")] {
        let text = format!("sleep 1000 & echo $! >> '{}'; echo \"$2\" >> '{}'; {end}", pids.display(), seen.display());
        let inspector = command(&program(folder.path(), &text), lines);
        inspector.inspect(&letter("x")).await;
        let started = Instant::now();
        let listed = std::fs::read_to_string(&pids).unwrap();
        // A killed process that nobody has waited for is a zombie until init does.
        let runs = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        while listed.split_whitespace().any(runs) {
            assert!(started.elapsed() < Duration::from_secs(20), "{end}: {listed}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for path in std::fs::read_to_string(&seen).unwrap().lines() {
            assert!(path.contains("octroi-scan-") && !Path::new(path).exists(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_program_has_limits() {
    let folder = tempfile::tempdir().unwrap();
    let text = "ulimit -v > \"$0.limit\"; ulimit -n >> \"$0.limit\"; ulimit -c >> \"$0.limit\"";
    // The limits are set from outside, right after the program has begun.
    let path = program(folder.path(), &format!("sleep 0.3; {text}"));
    let inspector = command(&path, "max_memory = \"500MB\"");
    assert_eq!(outcomes(&inspector, &letter("x")).await, [Outcome::Clean]);
    let limits = std::fs::read_to_string(folder.path().join("scanner.limit")).unwrap();
    assert_eq!(limits.lines().collect::<Vec<_>>(), ["488281", "1024", "0"]);
}

/// Words of each engine: name and outcome.
fn told(findings: &Findings) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Clean => "clean",
        Outcome::Infected(_) => "infected",
        Outcome::Failed(_) => "failed",
        Outcome::Incomplete(_) => "incomplete",
        Outcome::Encrypted(_) => "encrypted",
    };
    findings.scans.iter().map(|scan| format!("{} {}", scan.scanner, word(&scan.outcome))).collect()
}

#[tokio::test]
async fn several_engines_are_asked_at_once_and_a_backup_only_when_all_have_failed() {
    let good = FakeSssp::start(fake_sssp::Manner::Proper).await;
    let other = FakeIcap::start(fake_icap::Manner::Proper).await;
    let spare = FakeSssp::start(fake_sssp::Manner::Proper).await;
    let bad = FakeSssp::start(fake_sssp::Manner::Garbage).await;
    let sssp = |name: &str, address: &common::address::Address, lines: &str| {
        format!("[antivirus.{name}]\nkind = \"sssp\"\naddress = \"{address}\"\n{lines}\n")
    };
    let icap = format!("[antivirus.b]\nkind = \"icap\"\naddress = \"{}\"\nservice = \"avscan\"\n", other.address());
    let backup = sssp("spare", spare.address(), "group = \"backup\"");
    let all = Inspector::new(&(sssp("a", good.address(), "") + &icap + &backup));
    let (findings, verdict) = all.inspect(&letter("good")).await;
    assert_eq!((told(&findings), verdict.category.word()), (vec!["a clean".into(), "b clean".into()], "clean"));
    let (findings, _) = all.inspect(&infected()).await;
    assert_eq!(
        (told(&findings), findings.viruses()),
        (vec!["a infected".into(), "b infected".into()], vec!["Fake-Eicar"])
    );
    assert_eq!(spare.seen(), (0, 0));

    // One of two has failed: that is its own affair, not the backup's.
    let one = Inspector::new(&(sssp("a", bad.address(), "") + &icap + &backup));
    let (findings, verdict) = one.inspect(&letter("good")).await;
    assert_eq!((told(&findings), verdict.destiny.word()), (vec!["a failed".into(), "b clean".into()], "tempfail"));
    let (_, verdict) = one.inspect(&infected()).await;
    assert_eq!((verdict.category.word(), verdict.destiny.word()), ("virus", "reject"));
    let next = Inspector::new(&(sssp("a", bad.address(), "on_failure = \"next\"") + &icap + &backup));
    let (findings, verdict) = next.inspect(&letter("good")).await;
    assert_eq!((told(&findings), verdict.destiny.word()), (vec!["a failed".into(), "b clean".into()], "pass"));
    assert_eq!(spare.seen(), (0, 0));

    // All have failed.
    let none = Inspector::new(&(sssp("a", bad.address(), "failures = 100") + &backup));
    let (findings, verdict) = none.inspect(&letter("good")).await;
    assert_eq!((told(&findings), verdict.category.word()), (vec!["a failed".into(), "spare clean".into()], "clean"));
    let zip = US.attached("x", "a.zip", zipped("a.txt", b"deep EICAR inside")).bytes;
    let (findings, verdict) = none.inspect(&zip).await;
    assert_eq!((told(&findings), verdict.category.word()), (vec!["a failed".into(), "spare infected".into()], "virus"));
    let parts = findings.parts.iter().filter(|part| part.leaf).count();
    assert_eq!(parts, 3, "the message was taken apart twice, its parts are listed once");
    assert!(spare.seen().1 > 0);
}

#[tokio::test]
async fn an_engine_that_fails_again_and_again_is_set_aside_and_tried_later() {
    let fake = FakeSssp::start(fake_sssp::Manner::Silent).await;
    let lines = format!("address = \"{}\"\nscan_timeout = \"200ms\"\nfailures = 2\npause = \"1s\"", fake.address());
    let inspector = engine("sssp", &lines, "");
    let silent = "no answer in time while waiting for the answer";
    assert_failure(&inspector, &letter("x"), silent, "first").await;
    assert_failure(&inspector, &letter("x"), silent, "second").await;
    let (connections, _) = fake.seen();
    assert_failure(&inspector, &letter("x"), "set aside for", "third").await;
    assert_eq!(fake.seen().0, connections, "it is not even connected to");
    // After the pause one message tries it: it greets, so it is asked again, and fails again.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_failure(&inspector, &letter("x"), silent, "after the pause").await;
    assert!(fake.seen().0 > connections);
}

#[tokio::test]
async fn names_with_a_score_are_signs_of_spam_and_no_viruses() {
    let fake = FakeSssp::start(fake_sssp::Manner::Proper).await;
    let scores = "[antivirus]\nvirus_scores = [{ name = \"Fake-*\", score = 3.5 }]\n";
    let lines = format!("{scores}[antivirus.it]\nkind = \"sssp\"\naddress = \"{}\"\n", fake.address());
    let (findings, verdict) = Inspector::new(&lines).inspect(&infected()).await;
    assert_eq!((verdict.category.word(), findings.viruses().len()), ("clean", 0));
    let symbols: Vec<_> = findings.symbols.iter().map(|symbol| (symbol.name.as_str(), symbol.score)).collect();
    assert_eq!(symbols, [("Fake-Eicar", 3.5)]);
}
