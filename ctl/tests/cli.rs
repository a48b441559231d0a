// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi` as an administrator calls it: exit status and messages of the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn octroi(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octroi"));
    command.args(arguments).env_remove("STATE_DIRECTORY");
    command.output().expect("the program starts")
}

fn with_config(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("octroi.toml");
    std::fs::write(&file, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    let mut all = vec!["--config", file.to_str().unwrap()];
    all.extend(arguments);
    octroi(&all)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_is_status_64() {
    for arguments in [&["nonsense"][..], &["check", "--loud"], &["--config"]] {
        assert_eq!(octroi(arguments).status.code(), Some(64), "{arguments:?}");
    }
    assert_eq!(octroi(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_good_configuration_is_status_0() {
    let output = with_config("[greylist]\ndelay = '5m'\n[antivirus.clamd]\naddress = '127.0.0.1:3310'\n", &["check"]);
    assert_eq!((output.status.code(), told(&output).as_str()), (Some(0), ""));
}

#[test]
fn mistakes_of_both_daemons_are_told_with_file_line_and_key() {
    let text = "[store]\nurl = 'mysql://x'\n[greylist]\ndelay = 5\n[access]\nclient_whitelist = ['/no/such/list']\n\
                [contentd]\ndeadline = '5m'\n[destiny]\nvirus = 'bounce'\n[log]\nlevel = 'loud'\n";
    let output = with_config(text, &["check"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    for (line, key) in [(2, "store.url"), (4, "greylist.delay"), (10, "destiny.virus"), (12, "log.level")] {
        assert!(told.contains(&format!("octroi.toml:{line}: {key}: ")), "{key} missing in:\n{told}");
        assert_eq!(told.matches(&format!("{key}: ")).count(), 1, "{key} told twice:\n{told}");
    }
    let told = self::told(&with_config("[access]\nclient_whitelist = ['/no/such/list']\n", &["check"]));
    assert!(told.contains("/no/such/list: cannot be read"), "{told}");
    let told = self::told(&with_config("[contentd]\ndeadline = '5m'\n", &["check"]));
    assert!(told.contains("octroi.toml:2: contentd.deadline: "), "{told}");
}

#[test]
fn migrate_makes_the_schema_and_may_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("[store]\nurl = 'sqlite:{}/octroi.db'\n", folder.path().display());
    for _ in 0..2 {
        let output = with_config(&url, &["migrate"]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    }
    assert!(folder.path().join("octroi.db").exists());
}

#[test]
fn migrate_says_when_the_store_is_not_there() {
    let output = with_config("[store]\nurl = 'postgres://u@127.0.0.1:1/d'\n", &["migrate"]);
    assert_eq!(output.status.code(), Some(69), "{}", told(&output));
    let output = with_config("[store]\nurl = 'sqlite:/no/such/folder/octroi.db'\n", &["migrate"]);
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
}
