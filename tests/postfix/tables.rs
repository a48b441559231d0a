// SPDX-License-Identifier: GPL-3.0-or-later
//! Tables of `[checks]`: what we find in `regexp:` and `pcre:` files is what Postfix's own postmap(1) finds in them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use contentd::checks::{Dialect, Table};

/// For both kinds.
const COMMON: [&str; 9] = [
    "/^Subject: (.*) free/ REJECT $1 is not ${1} or $(1)\n# comment\n/^Subject:/ WARN a\n  continued $$5\n",
    "!/^(Subject|From):/ DUNNO\n/./ HOLD\n",
    "if /^Subject/\n/money/ REJECT money\nif !/viagra/\n/pills/ WARN pills\nendif\n/./ INFO inner\nendif\n/x-/ PREPEND Y: z\n",
    "/CASE/i REJECT exact\n/case/ REJECT any\n",
    "|path/to| REJECT path\n\"quoted\" REJECT quoted\n",
    "/a{2,3}b+c?d*$/ X\n/\\.(exe|scr|pif)\"?$/ REJECT .$1\n/[[:digit:]]{3}-[^a-z]/ DIGITS\n",
    "/^(a|ab)(c|bcd)(d*)/ X $1 $2 $3\n/(x)?(y)?z/ Y [$1][$2]\n",
    "/[]x]/ BRACKET\n/[^]a-z0-9 ]/ OTHER\n",
    "/^$/ EMPTY\n/^ *$/ BLANK\n/\\$[0-9]+/ DOLLAR $$\n/\\\\/ BACKSLASH\n",
];

/// For `regexp:` (regexp_table(5)).
const REGEXP: [&str; 5] = [
    "/^Subject: (.*)/!/free/ WARN $1\n/free/!/free money/ REJECT\n",
    "/a(b|c)*d/x BASIC\n/a\\(b\\)*d/x BASIC $1\n/a+b/x PLUS\n",
    "/^second/m MULTI\n/first$/m MULTI\n",
    "/\\<word\\>/ WORD\n/\\w+@\\w+/ ADDRESS\n/a**b/ STARS\n",
    "/(a)\\1/ TWICE $1\n/a{,2}b/ UP TO\n",
];

/// For `pcre:` (pcre_table(5)).
const PCRE: [&str; 8] = [
    "/^(?=.*free)(?!.*money)Subject: (\\w++)/ WARN $1\n/(?<=-)exe(?!c)/ LOOK\n",
    "/ a b \\# c # comment/x EXTENDED\n/a.b/s DOT\n/^second$/m MULTI\n",
    "/free/A ANCHORED\n/money$/E END\n/<.+>/U UNGREEDY\n/(a+)(a*)/U U [$1] [$2]\n",
    "/(?<name>\\d{4})-\\k<name>/ NAMED $1\n/(['\"]).*?\\1/ QUOTED $1\n/\\bword\\b/ WORD\n",
    "/(?-i)Case/ EXACT\n/case/i AGAIN\n/(?i:CASE)x/i MIXED\n",
    "/\\(([^()]|(?R))*\\)$/ RECURSIVE\n/(?>a+)ab/ ATOMIC\n/(a)?(?(1)b|c)d/ CONDITION [$1]\n",
    "/\\Qa.b*c\\E/ LITERAL\n/\\x41\\x{42}\\103/ ESCAPES\n/foo\\Kbar/ KEEP\n/\\A\\s*\\z/ NOTHING\n/[[:alpha:]][^[:alnum:]]/ CLASSES\n",
    "/(?|(a)1|(b)2)/ RESET $1\n/(?#comment)x-y/ COMMENT\n/\\Rend|\\h{2}|\\N{3}q/ MORE\n/a(?=b)/ EARLY\n",
];

/// What is looked up. One a line, as postmap reads them.
const LINES: &[&str] = &[
    "Subject: beer free",
    "Subject: money and pills",
    "Subject: viagra pills",
    "From: x",
    "subject: free money",
    "x-mailer: y",
    "this is CASE",
    "Case",
    "case",
    "CASEx",
    "/path/to/file",
    "path/to",
    "a \"quoted\" b",
    "aab",
    "aaabbcdd",
    "abd",
    "acd",
    "a(b)d",
    "file.exe",
    "file.scr\"",
    "555-X",
    "555-x",
    "abcd",
    "abcdd",
    "xyz",
    "yz",
    "z",
    "]",
    "x",
    "100%",
    "  ",
    " ",
    "$100",
    "a\\b",
    "first",
    "second",
    "a word here",
    "swords",
    "user@host",
    "aab**",
    "*x",
    "aXbb",
    "aa",
    "{2}",
    "a{2}",
    "b",
    "aabb",
    "Subject: sure",
    "run-exe",
    "run-exec",
    "ab#c",
    "a b # c",
    "a\tb",
    "free beer",
    "money",
    "<a><b>",
    "aaaa",
    "2026-2026",
    "2026-2025",
    "'x'",
    "\"x'",
    "((a)(b))",
    "aaab",
    "abd",
    "cd",
    "a.b*c",
    "ABC",
    "foobar",
    "bar",
    "é",
    "naïve text",
    "a1",
    "b2",
    "X-Y",
    "--",
    "abcq",
    "a  b",
];

/// What postmap finds, line by line; none where it finds nothing.
fn asked(folder: &Path, kind: &str, table: &Path) -> Vec<Option<String>> {
    let program = ["/usr/sbin/postmap", "/usr/bin/postmap"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("Postfix is installed"));
    command.arg("-c").arg(folder).args(["-q", "-"]).arg(format!("{kind}:{}", table.display()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = LINES.join("\n");
    lines.push('\n');
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.is_empty(), "{kind}: {told}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Found ones only, in the order of the questions: `key TAB value`.
    let mut found = text.lines().peekable();
    let answer = |line: &&str| {
        let value = found.next_if(|answer| answer.strip_prefix(*line).is_some_and(|rest| rest.starts_with('\t')))?;
        Some(value[line.len() + 1..].to_owned())
    };
    let answers = LINES.iter().map(answer).collect();
    assert_eq!(found.next(), None, "an answer that nobody asked for");
    answers
}

fn compare(kind: &str, dialect: Dialect, tables: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    let file = folder.path().join("table");
    let mut found = 0;
    for text in COMMON.iter().chain(tables) {
        std::fs::write(&file, text).unwrap();
        let table = Table::parse("table", text, dialect).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
        for (line, expected) in LINES.iter().zip(asked(folder.path(), kind, &file)) {
            let ours = table.find(line.as_bytes()).map(|found| found.result);
            found += usize::from(ours.is_some());
            assert_eq!(ours, expected, "{line:?} in {kind}:\n{text}");
        }
    }
    assert!(found > 200, "{found} lines only are in a table");
}

#[test]
fn regexp_tables_are_read_as_postfix_reads_them() {
    compare("regexp", Dialect::Regexp, &REGEXP);
}

#[test]
fn pcre_tables_are_read_as_postfix_reads_them() {
    compare("pcre", Dialect::Pcre, &PCRE);
}
