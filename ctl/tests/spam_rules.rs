// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules lint`, `list` and `test` on spam rules, by the real command: rules of a configuration, and rules that are named.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const RULES: &str = "body FREE /free/
describe FREE Something for nothing
score FREE 3
body __MONEY /money/
meta BOTH FREE && __MONEY
score BOTH 1.5
header LISTED eval:check_rbl('a', 'list.test.')
tflags LISTED net
body OFF /x/
score OFF 0
header UNKNOWN eval:there_is_no_such_function()
body WRONG /(/
report_contact nobody
";
const LETTER: &str = "From: a@example.org\r\nSubject: x\r\n\r\nfree money\r\n";

/// A folder with a configuration, rules and a message.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("as it should be");
        std::fs::write(file, text).expect("as it should be");
    };
    write("rules/10.cf", RULES);
    write("other/local.cf", "body OTHER /money/\n");
    write("mail/1.eml", LETTER);
    write("mail/below/2.eml", "Subject: y\r\n\r\nnothing\r\n");
    write("octroi.toml", &format!("[spam]\nrules = [\"{}\"]\n", folder.path().join("rules").display()));
    write("bare.toml", "");
    folder
}

/// Status, output and error output of `octroi rules …`.
fn octroi(folder: &Path, config: &str, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octroi"));
    command.current_dir(folder).args(["--config", config, "rules"]).args(arguments);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = streams.spawn().expect("started");
    running.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("read");
    let output = running.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn lint_tells_what_is_wrong_and_what_cannot_run() {
    let folder = place();
    let at = folder.path().join("rules/10.cf");
    let (status, out, err) = octroi(folder.path(), "octroi.toml", &["lint"], "");
    assert_eq!(status, Some(65), "{out}{err}");
    let told = |line: u32, words: &str| {
        let start = format!("{}:{line}: {words}", at.display());
        assert!(out.lines().any(|line| line.starts_with(&start)), "{start}: {out}");
    };
    told(12, "error: WRONG: ");
    told(11, "warning: UNKNOWN: ");
    told(7, "warning: LISTED: needs the network");
    let lines: Vec<usize> = ["10.cf:7:", "10.cf:11:", "10.cf:12:"].map(|place| out.find(place).expect("told")).into();
    assert!(lines.is_sorted(), "in the order of the file: {out}");
    assert!(out.starts_with("0 rules, 0 hints\n") && !out.contains(": note: "), "{out}");
    assert!(
        out.ends_with("6 spam rules of 1 files, 1 errors, 2 rules cannot run, 1 directives without effect\n"),
        "{out}"
    );
    let (_, out, _) = octroi(folder.path(), "octroi.toml", &["lint", "--notes"], "");
    assert!(out.contains("10.cf:13: note: report_contact"), "{out}");
    let (status, out, _) = octroi(folder.path(), "octroi.toml", &["lint", "--rules", "other"], "");
    assert_eq!(
        (status, out.lines().last()),
        (Some(0), Some("1 spam rules of 1 files, 0 errors, 0 rules cannot run, 0 directives without effect"))
    );
    let (status, out, _) = octroi(folder.path(), "bare.toml", &["lint"], "");
    assert_eq!((status, out.as_str()), (Some(0), "0 rules, 0 hints\n"));
    let (status, _, err) = octroi(folder.path(), "bare.toml", &["lint", "--rules", "missing"], "");
    assert!(status == Some(65) && err.contains("missing"), "{err}");
}

#[test]
fn list_shows_type_score_place_and_state() {
    let folder = place();
    let (status, out, err) = octroi(folder.path(), "octroi.toml", &["list"], "");
    assert_eq!(status, Some(0), "{err}");
    let of = |name: &str| out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned();
    assert!(
        of("FREE").contains("body")
            && of("FREE").contains("rules/10.cf:1")
            && of("FREE").ends_with("Something for nothing"),
        "{out}"
    );
    assert!(of("BOTH").contains("1.5") && of("LISTED").contains("needs the network"), "{out}");
    assert!(of("OFF").contains("score 0") && of("UNKNOWN").contains("idle") && !out.contains("__MONEY"), "{out}");
    assert!(out.ends_with("5 of 6 rules\n"), "{out}");
    let names = |arguments: &[&str]| -> Vec<String> {
        let (status, out, err) = octroi(folder.path(), "octroi.toml", &[&["list", "--json"], arguments].concat(), "");
        assert_eq!(status, Some(0), "{err}");
        let name = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).expect("as it should be")["rule"]
                .as_str()
                .expect("test")
                .to_owned()
        };
        out.lines().map(name).collect()
    };
    assert_eq!(names(&["*o*"]), ["__MONEY", "BOTH", "OFF", "UNKNOWN"]);
    assert_eq!(names(&["--off"]), ["LISTED", "OFF", "UNKNOWN"]);
    assert_eq!(names(&["--rules", "other"]), ["OTHER"]);
    let (status, _, err) = octroi(folder.path(), "bare.toml", &["list"], "");
    assert!(status == Some(65) && err.contains("no spam rules"), "{err}");
}

#[test]
fn test_runs_the_rules_over_messages() {
    let folder = place();
    let run = |arguments: &[&str], input: &str| {
        let (status, out, err) = octroi(folder.path(), "octroi.toml", &[&["test"], arguments].concat(), input);
        assert_eq!(status, Some(0), "{err}");
        out
    };
    let out = run(&["mail", "--subrules", "--cost"], "");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("mail/1.eml: score 4.5, required 5, 2 rules hit, "), "{out}");
    assert!(lines[1].trim_start().starts_with("3 FREE") && lines[1].ends_with("Something for nothing"), "{out}");
    assert!(lines[2].trim_start().starts_with("1.5 BOTH"), "{out}");
    assert_eq!(lines[3], "  sub-rules: __MONEY");
    assert!(lines[4].starts_with("mail/below/2.eml: score 0, required 5, 0 rules hit, "), "{out}");
    assert!(lines[5].starts_with("2 messages, ") && lines[6].starts_with("US/MESSAGE"), "{out}");
    assert!(lines.len() > 7 && lines[7..].iter().all(|line| line.contains("10.cf:")), "{out}");
    assert_eq!(run(&["-", "--rule", "__MONEY"], LETTER), "-: __MONEY hits\n");
    let all = run(&["mail/1.eml", "mail/below/2.eml", "--rule", "FREE"], "");
    assert_eq!(all, "mail/1.eml: FREE hits, count 1, score 3\nmail/below/2.eml: FREE does not hit\n");
    let wrong = [&["test", "mail", "--rule", "NONE"][..], &["test", "missing.eml"]];
    for arguments in wrong {
        let (status, _, err) = octroi(folder.path(), "octroi.toml", arguments, "");
        assert!(status == Some(65) && !err.is_empty(), "{arguments:?}: {err}");
    }
    assert_eq!(octroi(folder.path(), "octroi.toml", &["test"], "").0, Some(64));
}
