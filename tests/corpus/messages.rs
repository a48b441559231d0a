// SPDX-License-Identifier: GPL-3.0-or-later
//! Real and torture messages through the pipeline: none breaks it, the parts are those that two other parsers agree
//! on, and honest mail is not refused.

use crate::{Collection, Inspector};
use contentd::findings::{FindingKind, Findings};
use contentd::verdict::Destiny;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Every message of a folder, inspected; panics when a stage broke off.
async fn inspect_all(collection: &Collection, folder: &str, each: &mut dyn FnMut(&Path, &Findings, Destiny)) -> usize {
    let inspector = Inspector::new("");
    let files = collection.files(folder);
    for file in &files {
        let message = std::fs::read(file).expect("it was listed");
        let (findings, verdict) = inspector.inspect(&message).await;
        let broken = findings.out_of_time || findings.found.iter().any(|f| f.kind == FindingKind::StageFailed);
        assert!(!broken, "{}: {:?}", file.display(), findings.found);
        assert!(!findings.parts.is_empty(), "{}: no parts", file.display());
        each(file, &findings, verdict.destiny);
    }
    files.len()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Leaves by content, with their number.
fn contents(findings: &Findings) -> HashMap<String, usize> {
    let mut contents = HashMap::new();
    for part in findings.parts.iter().filter(|part| part.leaf) {
        *contents.entry(hex(part.digest.sha256().expect("SHA-256 is wanted"))).or_default() += 1;
    }
    contents
}

/// Whether all parts of an expectation were found, with their names.
fn agrees(expected: &Value, findings: &Findings) -> bool {
    let mut found = contents(findings);
    let names: Vec<&str> = findings.parts.iter().flat_map(|part| &part.names).map(String::as_str).collect();
    expected["parts"].as_array().expect("a list of parts").iter().all(|part| {
        let content = match part["sha256"].as_str() {
            Some(digest) => found.get_mut(digest).is_some_and(|left| {
                let there = *left > 0;
                *left = left.saturating_sub(1);
                there
            }),
            // Only known up to its line ends.
            None => true,
        };
        content && part["filename"].as_str().is_none_or(|name| names.contains(&name))
    })
}

#[tokio::test]
async fn parts_are_those_that_others_see() {
    let collection = Collection::unpack("mime-dev");
    let mut seen = HashMap::new();
    let root = collection.path("mime");
    let count = inspect_all(&collection, "mime", &mut |file, findings, _| {
        let name = file.strip_prefix(&root).expect("it is below").display().to_string();
        seen.insert(name, findings.clone());
    })
    .await;
    let text = std::fs::read_to_string(collection.path("mime-expected.jsonl")).expect("the expectations are there");
    let expectations: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let file = |expected: &Value| expected["file"].as_str().expect("a name").to_owned();
    let differing: Vec<String> =
        expectations.iter().filter(|expected| !agrees(expected, &seen[&file(expected)])).map(file).collect();
    println!("mime: {count} messages, {} of {} agree", expectations.len() - differing.len(), expectations.len());
    assert_eq!((count, expectations.len()), (334, 268));
    assert!(differing.is_empty(), "{differing:?}");
}

#[tokio::test]
async fn no_mail_of_the_public_corpus_is_refused_for_its_form() {
    let collection = Collection::unpack("mail-dev");
    let (mut refused, mut odd) = (Vec::new(), 0);
    let count = inspect_all(&collection, "mail/spamassassin-public", &mut |file, findings, destiny| {
        odd += usize::from(!findings.found.is_empty());
        if destiny != Destiny::Pass {
            refused.push(file.display().to_string());
        }
    })
    .await;
    println!("mail: {count} messages, {odd} with a finding");
    assert_eq!(count, 2994);
    assert_eq!(refused, [] as [String; 0]);
}

/// Not messages at all, and still nothing breaks.
#[tokio::test]
async fn archives_taken_for_messages_break_nothing() {
    let collection = Collection::unpack("archives-dev");
    let count = inspect_all(&collection, "archives", &mut |_, _, _| {}).await;
    assert!(count > 250, "{count}");
}
