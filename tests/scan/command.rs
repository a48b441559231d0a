// SPDX-License-Identifier: GPL-3.0-or-later
//! `contentd scan` as an administrator runs it: the program itself, its output and its exit status.

use crate::{US, letter_of};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tests::clamd::Clamd;
use tests::daemon::binary;
use tests::letters::eicar;
use tests::probes::base64;

/// A folder with a configuration file, whose content is given, and room for messages.
struct Place(TempDir);

impl Place {
    fn new(configuration: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("octroi.toml", configuration.as_bytes());
        std::fs::create_dir(place.path().join("mail")).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn scan(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary("contentd").expect("make test builds it"))
            .args(["scan", "--config", "octroi.toml"])
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A child that reads nothing must not stop us.
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = feeder.join().unwrap();
        output
    }

    fn json(&self, arguments: &[&str]) -> (Vec<Value>, i32) {
        let output = self.scan(&[&["--json"], arguments].concat(), b"");
        (objects(&output), output.status.code().unwrap())
    }
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_object_a_line_with_exactly_these_fields() {
    let place = Place::new("");
    place.write("mail/a.eml", &US.attached("x", "setup.exe", b"MZ\x90\0".to_vec()).bytes);
    let (objects, status) = place.json(&["mail/a.eml"]);
    assert_eq!((objects.len(), status), (1, 0));
    let object = objects[0].as_object().unwrap();
    let mut fields: Vec<_> = object.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "action", "auth", "file", "findings", "parts", "required", "score", "symbols", "took_us", "verdict",
            "viruses"
        ]
    );
    assert_eq!(object["file"], "mail/a.eml");
    assert_eq!((object["verdict"].as_str(), object["action"].as_str()), (Some("banned"), Some("reject")));
    assert!(object["took_us"].as_u64().is_some_and(|us| us > 0));
    for name in ["spf", "dkim", "dmarc", "arc"] {
        assert!(object["auth"].get(name).is_some(), "{name}");
    }
    let part = object["parts"][1].as_object().unwrap();
    assert_eq!(part["path"], "2");
    assert_eq!(part["name"], "setup.exe");
    assert_eq!(part["type"], "application/octet-stream");
    assert_eq!(part["detected_type"], "application/x-dosexec");
    assert_eq!(part["size"], 4);
    assert_eq!(part["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(part.len(), 7);
}

#[test]
fn files_folders_and_standard_input_in_order() {
    let place = Place::new("");
    for name in ["mail/b/2.eml", "mail/b/1.eml", "mail/a.eml", "z.eml"] {
        place.write(name, format!("From: a@b\nDate: now\nSubject: {name}\n\nhi\n").as_bytes());
    }
    let output = place.scan(&["--json", "z.eml", "-", "mail"], b"From a@b Thu\nFrom: a@b\nDate: now\n\nhello\n");
    assert_eq!(output.status.code(), Some(0));
    let objects = objects(&output);
    let files: Vec<_> = objects.iter().map(|object| object["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["z.eml", "-", "mail/a.eml", "mail/b/1.eml", "mail/b/2.eml"]);
    assert!(objects.iter().all(|object| object["verdict"] == "clean"), "{objects:?}");
    assert_eq!((&objects[1]["parts"][0]["size"], &objects[0]["parts"][0]["size"]), (&6.into(), &3.into()));
}

#[test]
fn what_cannot_be_read_is_65_and_the_others_go_on() {
    let place = Place::new("");
    place.write("mail/a.eml", b"From: a@b\nDate: now\n\nhi\n");
    let output = place.scan(&["--json", "missing.eml", "mail/a.eml"], b"");
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(objects(&output).len(), 1);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("contentd: missing.eml: "), "{said}");
    assert_eq!(place.scan(&["--json"], b"").status.code(), Some(64));
}

#[test]
fn a_configured_scanner_that_is_away_is_69() {
    let place = Place::new("[antivirus.clamd]\naddress = \"unix:/nonexistent/clamd\"\n");
    place.write("mail/a.eml", b"From: a@b\nDate: now\n\nhi\n");
    let (objects, status) = place.json(&["mail"]);
    assert_eq!((status, objects[0]["verdict"].as_str()), (69, Some("unchecked")));
    assert_eq!(objects[0]["action"], "tempfail");
    assert_eq!(objects[0]["findings"][0]["name"], "scanner-failed");
}

#[test]
fn a_configured_scanner_is_asked() {
    let clamd = Clamd::start();
    let place = Place::new(&format!("[antivirus.clamd]\naddress = \"{}\"\n", clamd.address()));
    place.write("mail/a.eml", &US.attached("x", "x.txt", eicar()).bytes);
    let (objects, status) = place.json(&["mail"]);
    assert_eq!(status, 0);
    assert_eq!(objects[0]["verdict"], "virus");
    assert_eq!(objects[0]["viruses"][0], "Eicar-Test-Signature.UNOFFICIAL");
}

#[test]
fn without_json_there_is_a_summary() {
    let place = Place::new("");
    place.write("mail/a.eml", &US.attached("x", "setup.exe", b"MZ\x90\0".to_vec()).bytes);
    let output = place.scan(&["mail/a.eml"], b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("mail/a.eml: banned, reject (extension exe: setup.exe), "), "{text}");
    assert!(text.contains("  part 2 setup.exe application/octet-stream [application/x-dosexec] 4 bytes\n"), "{text}");
}

#[test]
fn nothing_is_written() {
    let place = Place::new("");
    place.write("mail/a.eml", &letter_of(5_000_000));
    let before = listing(place.path());
    assert_eq!(place.json(&["mail"]).1, 0);
    assert_eq!(listing(place.path()), before);
}

fn listing(folder: &Path) -> Vec<String> {
    let output = Command::new("find").arg(folder).args(["-printf", "%p %s %t\n"]).output().unwrap();
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Messages made to exhaust stack, memory or time. The program must answer in seconds and say that it did not see all.
#[test]
fn bombs_are_survived() {
    let place = Place::new("");
    let nested = |levels: usize| format!("{}\r\nend\r\n", "Content-Type: message/rfc822\r\n\r\n".repeat(levels));
    let mut multiparts = String::new();
    for level in 0..20_000 {
        multiparts += &format!("Content-Type: multipart/mixed; boundary=B{level}\r\n\r\n--B{level}\r\n");
    }
    let many =
        format!("Content-Type: multipart/mixed; boundary=A\r\n\r\n{}--A--\r\n", "--A\r\n\r\nx\r\n".repeat(200_000));
    let parameters = format!("Content-Type: text/plain{}\r\n\r\nx\r\n", "; a=b".repeat(100_000));
    let comments = format!("Content-Type: {}text/plain\r\n\r\nx\r\n", "(".repeat(500_000));
    let words = format!("Content-Disposition: attachment; filename=\"{}\"\r\n\r\nx\r\n", "=?".repeat(250_000));
    let languages: String = (0..60_000).map(|number| format!("; a{number}*=u'e'v")).collect();
    let languages = format!("Content-Type: text/plain{languages}\r\n\r\nx\r\n");
    let fields = format!("{}\r\nx\r\n", "a:b\r\n".repeat(600_000));
    let pieces: String = (0..100_000).map(|number| format!("; filename*{number}=x")).collect();
    let pieces = format!("Content-Disposition: attachment{pieces}\r\n\r\nx\r\n");
    // Nesting that is only there after decoding.
    let hidden = format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        base64(nested(100_000).as_bytes())
    );
    for (name, message) in [
        ("hidden", hidden),
        ("messages", nested(100_000)),
        ("multiparts", multiparts),
        ("parts", many),
        ("parameters", parameters),
        ("comments", comments),
        ("words", words),
        ("languages", languages),
        ("fields", fields),
        ("pieces", pieces),
    ] {
        place.write(&format!("mail/{name}"), message.as_bytes());
    }
    let started = std::time::Instant::now();
    let (objects, status) = place.json(&["mail"]);
    assert_eq!((objects.len(), status), (10, 0));
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    for object in objects {
        let findings = object["findings"].as_array().unwrap();
        let limited = findings.iter().any(|finding| finding["name"] == "over-limits");
        let file = object["file"].as_str().unwrap();
        assert!(limited && object["verdict"] == "unchecked", "{file}: {findings:?}");
    }
}

#[test]
fn a_score_is_shown_with_what_it_is_made_of() {
    let rules = "header __FROM From =~ /a\\@sender/\nmeta A __FROM && B\nscore A 9\ndescribe A Two signs\nbody B /text/\nscore B 8\n\
        header HOP X-Spam-Relays-Untrusted =~ /^\\[ ip=192\\.0\\.2\\.7 /\nscore HOP 1\nheader NONE ALL =~ /Received/\nscore NONE 0.5\n";
    let place = Place::new("[spam]\nrules = [\"rules\"]\n");
    place.write("rules/a.cf", rules.as_bytes());
    place.write("mail/m", b"From: a@sender.test\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\nsome text\n");
    let (reports, status) = place.json(&["mail/m"]);
    assert_eq!(status, 0);
    let report = &reports[0];
    assert_eq!((report["verdict"].as_str(), report["action"].as_str()), (Some("spam"), Some("reject")));
    assert_eq!((report["score"].as_f64(), report["required"].as_f64()), (Some(17.0), Some(5.0)));
    let names: Vec<_> =
        report["symbols"].as_array().unwrap().iter().map(|symbol| symbol["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["A", "B"], "all rules run, and the message is read as it is");
    assert_eq!(report["symbols"][0]["description"], "Two signs");
    // With a client the rules see its hop.
    let (reports, _) = place.json(&["--client", "192.0.2.7", "mail/m"]);
    assert_eq!(reports[0]["score"].as_f64(), Some(18.5));
    let told = String::from_utf8(place.scan(&["--explain", "mail/m"], b"").stdout).unwrap();
    assert!(told.contains("score 17: spam (tagged from 5, spam from 15)"), "{told}");
    assert!(told.contains(" 9 A ") && told.contains("Two signs") && told.contains("sub-rules: __FROM"), "{told}");
    // A folder without rules is a mistake of the configuration.
    std::fs::write(place.path().join("rules/a.cf"), "").unwrap();
    let refused = place.scan(&["mail/m"], b"");
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("spam.rules: no rule in 1 files"));
}
