// SPDX-License-Identifier: GPL-3.0-or-later
//! `deploy/octroi.toml` shows every option that exists, with its default, and no other.

use common::config::{Mistakes, Source};
use contentd::scan::settings::EngineSettings;
use serde::Serialize;

fn shipped() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/octroi.toml");
    std::fs::read_to_string(path).expect("deploy/octroi.toml is in the tree")
}

/// The file with its commented options switched on; text comments have a blank behind the `#`.
fn everything() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(option) if option.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => option.to_owned(),
        _ => line.to_owned(),
    };
    shipped().lines().map(on).collect::<Vec<_>>().join("\n")
}

/// The same without the files that are only there on a host that has them.
fn without_files() -> String {
    let everything = everything().replace("url_file = ", "#").replace("secret_file = ", "#");
    // A directory that is asked about no domain would be a mistake.
    everything.replacen("\ndomains = []", "\ndomains = ['@example.org']", 1)
}

/// The options of one section in the file.
fn options(text: &str, section: &str) -> toml::Table {
    let mut value: toml::Value = toml::Value::Table(text.parse().expect("the file is TOML"));
    for part in section.split('.') {
        value = value.get(part).cloned().unwrap_or_else(|| panic!("the file has no [{section}]"));
    }
    value.as_table().cloned().expect("a section is a table")
}

fn same_options<T: Serialize>(section: &str, defaults: &T, off: &[&str]) {
    let in_file = options(&everything(), section);
    let mut in_code = keys(defaults);
    in_code.extend(off.iter().map(|key| (*key).to_owned()));
    in_code.sort();
    let mut in_file: Vec<String> = in_file.keys().cloned().collect();
    in_file.sort();
    assert_eq!(in_file, in_code, "options of [{section}]: left the file, right the code");
}

/// The same for the first entry of an array of tables.
fn same_list_options<T: Serialize>(name: &str, example: &T, off: &[&str]) {
    let file: toml::Table = everything().parse().expect("the file is TOML");
    let shown = file[name][0].as_table().expect("an entry is a table");
    let mut in_file: Vec<&str> = shown.keys().map(String::as_str).collect();
    let in_code = toml::Table::try_from(example).expect("settings can be written");
    let mut in_code: Vec<&str> = in_code.keys().map(String::as_str).chain(off.iter().copied()).collect();
    in_file.sort_unstable();
    in_code.sort_unstable();
    assert_eq!(in_file, in_code, "options of [[{name}]]: left the file, right the code");
}

fn keys<T: Serialize>(settings: &T) -> Vec<String> {
    toml::Table::try_from(settings).expect("settings can be written").keys().cloned().collect()
}

#[test]
fn as_shipped_it_is_the_defaults() {
    let source = Source::from_text("deploy/octroi.toml", &shipped()).unwrap();
    assert_eq!(policyd::config::Settings::read(&source).unwrap(), policyd::config::Settings::default());
    let contentd = contentd::config::Settings::read(&source).unwrap();
    assert_eq!(contentd, contentd::config::Settings::default());
}

#[test]
fn what_is_off_shows_its_defaults_too() {
    let source = Source::from_text("deploy/octroi.toml", &without_files()).unwrap();
    let antivirus = contentd::config::Settings::read(&source).unwrap().antivirus;
    let defaults = toml::Table::try_from(EngineSettings::default()).expect("settings can be written");
    for (name, engine) in antivirus.engines {
        // A backup is shown as one.
        let engine = EngineSettings { group: EngineSettings::default().group, ..engine };
        let shown = toml::Table::try_from(engine).expect("settings can be written");
        for (key, default) in &defaults {
            assert_eq!(&shown[key], default, "antivirus.{name}.{key}");
        }
    }
}

#[test]
fn every_option_is_shown_and_no_other() {
    let policyd = policyd::config::Settings::default();
    same_options("store", &policyd.store, &["url_file"]);
    same_options("log", &policyd.log, &[]);
    same_options("dns", &policyd.dns, &[]);
    same_options("policyd", &policyd.policyd, &[]);
    same_options("policyd.shield", &policyd.policyd.shield, &[]);
    same_options("greylist", &policyd.greylist, &[]);
    same_options("greylist.signs", &policyd.greylist.signs, &[]);
    same_options("access", &policyd.access, &[]);
    let perimeter = &policyd.perimeter;
    same_options("perimeter", perimeter, &[]);
    same_options("list.partners", &policyd::config::ListSettings::default(), &[]);
    same_options("perimeter.helo", &perimeter.helo, &[]);
    same_options("perimeter.reverse_name", &perimeter.reverse_name, &[]);
    same_options("perimeter.sender", &perimeter.sender, &[]);
    same_options("perimeter.spf", &perimeter.spf, &[]);
    same_options("perimeter.geo", &perimeter.geo, &[]);
    same_options("decision_log", &policyd.decision_log, &[]);
    same_options("handover", &policyd.handover, &["secret_file"]);
    same_options("limits", &policyd.limits, &[]);
    same_options("notify", &policyd.notify, &[]);
    same_list_options("limit", &policyd::config::LimitSettings::default(), &["burst", "stage", "warn_at", "block_at"]);
    same_options("recipients", &policyd.recipients, &[]);
    let contentd = contentd::config::Settings::default();
    same_options("contentd", &contentd.contentd, &[]);
    let engines = ["clamd", "clamscan", "icap", "sophie", "sophos"];
    same_options("antivirus", &contentd.antivirus, &engines);
    every_option_of_an_engine(&engines);
    same_options("banned", &contentd.banned, &[]);
    same_options("headers", &contentd.headers, &[]);
    same_options("destiny", &contentd.destiny, &["ambiguous", "encrypted"]);
    same_options("unpack", &contentd.unpack, &[]);
    same_options("checks", &contentd.checks, &["mime_header_checks", "nested_header_checks"]);
    same_options("mime", &contentd.mime, &[]);
    same_options("ambiguity", &contentd.ambiguity, &[]);
    same_options("active", &contentd.active, &[]);
    same_options("quarantine", &contentd.quarantine, &[]);
    same_options("ledger", &contentd.ledger, &[]);
    same_options("poison", &contentd.poison, &[]);
    same_options("spam", &contentd.spam, &["header_level", "tag_level"]);
    same_options("spamd", &contentd.spamd, &[]);
}

/// Each option of an engine is shown in the section of an engine that has it.
fn every_option_of_an_engine(engines: &[&str]) {
    let mut in_file: Vec<String> = engines
        .iter()
        .flat_map(|engine| options(&everything(), &format!("antivirus.{engine}")))
        .map(|(key, _)| key)
        .collect();
    in_file.sort();
    in_file.dedup();
    let mut in_code = keys(&EngineSettings::default());
    in_code.extend(EngineSettings::OPTIONAL.map(str::to_owned));
    in_code.sort();
    assert_eq!(in_file, in_code, "options of [antivirus.NAME]: left the file, right the code");
}

#[test]
fn every_key_of_a_list_is_shown_and_the_examples_are_right() {
    let everything = without_files();
    let settings = policyd::config::Settings::read(&Source::from_text("f", &everything).unwrap()).unwrap();
    let file: toml::Table = everything.parse().unwrap();
    let same = |list: &str, in_code: Vec<String>| {
        let in_file = file[list].as_array().unwrap().iter().flat_map(|entry| entry.as_table().unwrap().keys());
        let in_file: std::collections::BTreeSet<&String> = in_file.collect();
        assert_eq!(in_file, in_code.iter().collect(), "keys of [[{list}]]: left the file, right the code");
    };
    same("rule", keys(&settings.rules[0].value));
    same("protected", keys(&policyd::config::ProtectedSettings::default()));
    let mut directory = policyd::config::recipients::DirectoryTable::options();
    // They stand for another option of theirs.
    directory.retain(|key| key != "password_file" && key != "url_file");
    same("directory", directory);
}

#[test]
fn every_section_that_exists_is_shown() {
    let file: toml::Table = everything().parse().unwrap();
    let mut shown: Vec<&str> = file.keys().map(String::as_str).collect();
    let mut known = common::config::SECTIONS.to_vec();
    known.extend(common::config::LISTS);
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
    let mut mistakes = Mistakes::new();
    common::store::StoreSettings::read(&Source::from_text("f", &shipped()).unwrap(), &mut mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
}
