// SPDX-License-Identifier: GPL-3.0-or-later
//! What docs/ says is what the code does, where that can be checked: metrics, reasons, links.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

/// Every `octroi_name` in a text that stands behind `before`, blanks and line ends aside.
fn metric_names(text: &str, before: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("octroi_") {
        let name: String =
            text[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect();
        let stands: String = text[..at].chars().rev().filter(|c| !c.is_whitespace()).take(before.len()).collect();
        if stands.chars().rev().eq(before.chars()) {
            names.insert(name);
        }
    }
    names
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let documented = metric_names(&read("docs/metrics.md"), "`");
    let mut used = BTreeSet::new();
    for folder in ["common/src", "policyd/src", "contentd/src"] {
        for file in files(folder, ".rs") {
            used.extend(metric_names(&std::fs::read_to_string(file).unwrap(), "!(\""));
        }
    }
    let undocumented: Vec<_> = used.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&used).collect();
    assert!(
        undocumented.is_empty() && invented.is_empty(),
        "not in docs/metrics.md: {undocumented:?}; not in the code: {invented:?}"
    );
}

#[test]
fn every_reason_of_policyd_is_documented() {
    let source = read("policyd/src/verdict.rs");
    let (_, words) = source.split_once("impl Reason").expect("the reasons");
    let (_, words) = words.split_once("fn word").expect("their words");
    let (words, _) = words.split_once("\n    }\n").expect("the end of their words");
    let logging = read("docs/logging.md");
    let words: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
    assert!(words.len() > 15, "{words:?}");
    for word in words {
        assert!(logging.contains(&format!("`{word}`")), "reason {word} is not in docs/logging.md");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = files("docs", ".md");
    documents.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{}: link to {link}", document.display());
        }
    }
}
