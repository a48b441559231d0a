// SPDX-License-Identifier: GPL-3.0-or-later
//! `regexp:` tables give what Postfix' own postmap(1) gives, for a table of everyday rules and for many made-up expressions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use contentd::checks::{Dialect, Table};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Results by text, from postmap.
fn postmap(folder: &Path, table: &str, texts: &[String]) -> HashMap<String, String> {
    std::fs::write(folder.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    std::fs::write(folder.join("table"), table).unwrap();
    let program = ["/usr/sbin/postmap", "/usr/bin/postmap"].into_iter().find(|path| Path::new(path).exists());
    let mut child = Command::new(program.expect("postmap of Debian's postfix"))
        .args(["-c", folder.to_str().unwrap(), "-q", "-", &format!("regexp:{}/table", folder.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((texts.join("\n") + "\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn compare(folder: &Path, table: &str, texts: &[String]) -> usize {
    let theirs = postmap(folder, table, texts);
    let ours = Table::parse("table", table, Dialect::Regexp).unwrap_or_else(|mistakes| panic!("{mistakes}\n{table}"));
    for text in texts {
        let found = ours.find(text.as_bytes()).map(|found| found.result);
        assert_eq!(found.as_ref(), theirs.get(text), "{text:?} in\n{table}");
    }
    theirs.len()
}

#[test]
fn everyday_rules() {
    let table = r#"# what administrators write
/^Subject: .*(free|cheap) +(v[i1]agra|rolex)/    REJECT 5.7.1 No $2, $1 or not
/^(To|Cc):.*<?undisclosed/i                      WARN case
!/^[[:alnum:]-]+:/                               REJECT no header
if /^Received:/
/from (\[?[0-9.]+\]?)/                           INFO from $1
if !/by mx/
/./                                              IGNORE
endif
endif
/^Content-(Type|Disposition):.*name[[:space:]]*=[[:space:]]*"?(.*\.(exe|scr|pif))"?[[:space:]]*(;|$)/
    REJECT Attachment "$2" of type ".${3}" is not $(3)$$ allowed
/^From: .*@example\.org/!/boss/                  HOLD
/^X-Word: \<word\>/                              PREPEND X-Found: y
/^X-Two: (.)\1/                                  OK
/^X-Set: [\d]$/                                  backslash or d
/^X-Count: a{2,3}$/                              count
"#;
    let texts = [
        "Subject: get CHEAP  v1agra now",
        "Subject: nothing",
        "To: undisclosed-recipients:;",
        "to: undisclosed-recipients:;",
        "no header at all",
        "Received: from [192.0.2.1] by mx",
        "Received: from host by mx",
        "Received: from host by other",
        "Content-Type: application/x; name=\"a b.exe\"",
        "Content-Disposition: attachment; filename = x.SCR ; size=1",
        "Content-Type: text/plain; name=exe",
        "From: me@example.org",
        "From: boss@example.org",
        "X-Word: word",
        "X-Word: wordy",
        "X-Two: aa",
        "X-Two: ab",
        "X-Set: d",
        "X-Set: 5",
        "X-Set: \\",
        "X-Count: aa",
        "X-Count: aaaa",
    ];
    let folder = tempfile::tempdir().unwrap();
    let found = compare(folder.path(), table, &texts.map(str::to_owned));
    assert!(found > 12, "{found}");
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn expression(&mut self, depth: usize) -> String {
        let mut out = String::new();
        for _ in 0..1 + self.below(4) {
            let atom = match self.below(if depth == 0 { 6 } else { 8 }) {
                0..=2 => self.of(&["a", "b", "c", "1", " ", "-"]).to_owned(),
                3 => self.of(&[".", "\\.", "\\\\", "\\w", "\\W", "\\$", "\\{", "\\/"]).to_owned(),
                4 => self
                    .of(&["[abc]", "[^a]", "[]a]", "[^]b]", "[a-c1]", "[\\.]", "[a\\]", "[[:digit:]-]", "[^[:space:]]"])
                    .to_owned(),
                5 => self.of(&["[[:alpha:]]", "[[.-.]]", "[[=a=]b]", "x", "A"]).to_owned(),
                _ => format!("({}|{})", self.expression(depth - 1), self.expression(depth - 1)),
            };
            out += &atom;
            out += self.of(&["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"]);
        }
        out
    }
}

#[test]
fn made_up_expressions() {
    let mut numbers = Numbers(42);
    let folder = tempfile::tempdir().unwrap();
    let mut found = 0;
    for _ in 0..15 {
        let mut table = String::new();
        for rule in 0..8 {
            let (start, end) = (numbers.of(&["", "^"]), numbers.of(&["", "$"]));
            let flags = numbers.of(&["", "", "i", "m"]);
            let not = numbers.of(&["", "", "", "", "", "!"]);
            table += &format!("{not}/{start}{}{end}/{flags} rule {rule}\n", numbers.expression(2));
        }
        let letters = ["a", "b", "c", "1", "2", " ", "-", ".", "\\", "x", "A", "B", "$", "{", "/", "]", "[", "ab"];
        let mut texts: Vec<String> =
            (0..40).map(|_| (0..1 + numbers.below(8)).map(|_| numbers.of(&letters)).collect()).collect();
        texts.retain(|text: &String| !text.trim().is_empty() && !text.contains('\t'));
        found += compare(folder.path(), &table, &texts);
    }
    assert!(found > 200, "{found}");
}
