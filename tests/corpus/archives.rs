// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives of many programs and ages, each as an attachment: where two of bsdtar, 7z and unar agree on the members, exactly
//! those are found; whatever any of the three opens is opened or said not to be; damaged ones end within the limits.

use crate::{Collection, Inspector};
use contentd::findings::{Findings, Part};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tests::letters::Correspondents;

const US: Correspondents<'static> = Correspondents { from: "a@sender.test", to: "b@receiver.test" };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expectations(collection: &Collection) -> Vec<Value> {
    let text = std::fs::read_to_string(collection.path("archives-expected.jsonl")).expect("the expectations are there");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The file of an expectation; ClamAV's are in a collection of their own.
fn content(expected: &Value, archives: &Collection, viruses: &Collection) -> (String, Vec<u8>) {
    let file = expected["file"].as_str().expect("a name");
    let collection = if file.starts_with("av/") { viruses } else { archives };
    (file.to_owned(), std::fs::read(collection.path(file)).expect("it is listed"))
}

/// Everything in the attachment, each with what follows the attachment's own path.
fn members(findings: &Findings) -> Vec<(&str, &Part)> {
    let inside = |part: &Part| part.leaf && part.path.starts_with("2/");
    findings.parts.iter().filter(|part| inside(part)).map(|part| (part.path.as_str(), part)).collect()
}

/// Contents of what lies directly in each archive, by the path of the archive.
fn by_archive<'f>(findings: &'f Findings, root: &str) -> BTreeMap<String, Vec<(&'f str, String)>> {
    let members = members(findings);
    let mut archives: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (path, part) in &members {
        // The longest other member, or the attachment, that this one lies in.
        let holders = members.iter().map(|(other, _)| *other).filter(|other| path.starts_with(&format!("{other}/")));
        let holder = holders.max_by_key(|other| other.len()).unwrap_or(root);
        let name = part.names.first().map_or("", String::as_str);
        archives
            .entry(holder.to_owned())
            .or_default()
            .push((name, hex(part.digest.sha256().expect("SHA-256 is wanted"))));
    }
    archives
}

/// A message with these attachments from part 2 on.
fn letter(attachments: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut message = b"From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=\"=_octroi\"\r\n\r\n--=_octroi\r\n\r\nhello\r\n"
        .to_vec();
    for (name, content) in attachments {
        let head = format!(
            "--=_octroi\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        );
        message.extend_from_slice(head.as_bytes());
        message.extend_from_slice(content);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"--=_octroi--\r\n");
    message
}

/// Whether some archive within the attachment holds exactly the expected contents under the expected names.
fn agrees(expected: &Value, findings: &Findings, root: &str) -> bool {
    let mut wanted: Vec<(String, String)> = expected["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| {
            (
                member["path"].as_str().expect("a path").to_owned(),
                member["sha256"].as_str().expect("a digest").to_owned(),
            )
        })
        .collect();
    wanted.sort();
    by_archive(findings, root).values().any(|found| {
        let mut digests: Vec<&str> = found.iter().map(|(_, digest)| digest.as_str()).collect();
        let mut expected: Vec<&str> = wanted.iter().map(|(_, digest)| digest.as_str()).collect();
        digests.sort_unstable();
        expected.sort_unstable();
        let named = |(path, digest): &(String, String)| {
            // A name in an old character set is shown by every program in another way.
            path.contains('\u{fffd}') || found.iter().any(|(name, other)| same(name, path) && other == digest)
        };
        digests == expected && wanted.iter().all(named)
    })
}

/// Programs drop a leading `./` or `/`, and turn backslashes around.
fn same(name: &str, path: &str) -> bool {
    let plain = |name: &str| name.replace('\\', "/").trim_start_matches("./").trim_start_matches('/').to_owned();
    plain(name) == plain(path) || name.is_empty()
}

/// The volumes of the set that a file begins, in their order, itself included.
fn volumes(collection: &Collection, file: &str) -> Vec<(String, Vec<u8>)> {
    let (stem, _) = file.rsplit_once(".part").expect("a first volume");
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let all = collection.files(folder).into_iter();
    let set = all.filter(|path| path.to_string_lossy().contains(&format!("{stem}.part")));
    set.map(|path| {
        (path.file_name().expect("a file").to_string_lossy().into_owned(), std::fs::read(&path).expect("listed"))
    })
    .collect()
}

#[tokio::test]
async fn members_are_those_that_others_see() {
    let (archives, viruses) = (Collection::unpack("archives-dev"), Collection::unpack("av-dev"));
    let inspector = Inspector::new("");
    let (mut right, mut wrong) = (0, Vec::new());
    for expected in expectations(&archives).iter().filter(|expected| expected["members"].is_array()) {
        let (file, bytes) = content(expected, &archives, &viruses);
        let name = file.rsplit('/').next().expect("a name").to_owned();
        let message = if file.contains(".part") {
            letter(&volumes(&archives, &file))
        } else {
            US.attached("sample", &name, bytes).bytes
        };
        let (findings, _) = inspector.inspect(&message).await;
        if agrees(expected, &findings, &format!("2/{name}")) {
            right += 1;
        } else {
            let found = findings.found.iter().map(|finding| finding.to_string()).collect::<Vec<_>>().join("; ");
            let leaves: Vec<_> =
                members(&findings).iter().take(6).map(|(path, part)| format!("{path} {}", part.size)).collect();
            wrong.push(format!("{file}: {found} {leaves:?}"));
        }
    }
    println!("archives: {right} right, {} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(wrong.is_empty());
    assert_eq!(right, 161);
}

/// Nothing of the damaged, encrypted and split ones is taken for clean, unless it was opened.
#[tokio::test]
async fn every_archive_is_opened_or_said_not_to_be() {
    let (archives, viruses) = (Collection::unpack("archives-dev"), Collection::unpack("av-dev"));
    let inspector = Inspector::new("");
    let (mut slowest, mut silent) = ((Duration::ZERO, String::new()), Vec::new());
    for expected in &expectations(&archives) {
        let (file, bytes) = content(expected, &archives, &viruses);
        let name = file.rsplit('/').next().expect("a name").to_owned();
        let started = Instant::now();
        let (findings, verdict) = inspector.inspect(&US.attached("sample", &name, bytes).bytes).await;
        slowest = slowest.max((started.elapsed(), file.clone()));
        let broke = findings.found.iter().find(|finding| finding.kind.word() == "stage-failed");
        assert!(broke.is_none(), "{file}: {broke:?}");
        if expected["encrypted_per_7z"] == true {
            assert_eq!(verdict.category.word(), "unchecked", "{file}: {:?}", findings.found);
        }
        let opened = ["bsdtar", "7z", "unar"].iter().any(|tool| expected["exit"][tool] == 0);
        if opened && members(&findings).is_empty() && verdict.category.word() == "clean" {
            silent.push(file);
        }
    }
    println!("slowest: {slowest:?}; opened by others, nothing found here: {silent:?}");
    assert!(slowest.0 < Duration::from_secs(60), "{slowest:?}");
}

/// A helper finds what the same decoder finds in the daemon. What that costs is printed.
#[tokio::test]
async fn helpers_find_what_is_found_without_them() {
    let (archives, viruses) = (Collection::unpack("archives-dev"), Collection::unpack("av-dev"));
    let (with, without) = (Inspector::new(""), Inspector::alone());
    let (mut differ, mut count, mut took) = (Vec::new(), 0, [Duration::ZERO; 2]);
    for expected in &expectations(&archives) {
        let (file, bytes) = content(expected, &archives, &viruses);
        let name = file.rsplit('/').next().expect("a name").to_owned();
        let message = US.attached("sample", &name, bytes).bytes;
        let mut found = Vec::new();
        for (inspector, took) in [&without, &with].into_iter().zip(&mut took) {
            let started = Instant::now();
            let (findings, _) = inspector.inspect(&message).await;
            *took += started.elapsed();
            found.push((findings.parts, findings.found));
        }
        count += 1;
        // Which limit of time comes first is chance.
        let late = found
            .iter()
            .any(|(_, found)| found.iter().any(|finding| matches!(finding.detail.as_str(), "cpu" | "time")));
        if found[0] != found[1] && !late {
            differ.push(format!("{file}: {:?} but {:?}", found[0].1, found[1].1));
        }
    }
    println!("{count} archives: {:?} in process, {:?} with helpers; differ: {differ:#?}", took[0], took[1]);
    assert!(differ.is_empty());
}

/// ClamAV's test file is in each of its containers that one of the three opens; packed programs are not containers.
#[tokio::test]
async fn the_test_file_is_taken_out_of_its_containers() {
    let viruses = Collection::unpack("av-dev");
    let archives = Collection::unpack("archives-dev");
    let program = std::fs::read(viruses.path("av/clamav-testfiles/clam.exe")).expect("the test file is there");
    let inspector = Inspector::new("");
    let (mut opened, mut shut, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for expected in &expectations(&archives) {
        let (file, bytes) = content(expected, &archives, &viruses);
        let Some(name) = file.strip_prefix("av/clamav-testfiles/") else { continue };
        let (findings, _) = inspector.inspect(&US.attached("sample", name, bytes).bytes).await;
        let inside = members(&findings);
        let is_program = |part: &Part| part.size == program.len() as u64 && part.detected_type.contains("exec");
        let tools = ["bsdtar", "7z", "unar"].iter().any(|tool| expected["exit"][tool] == 0);
        if inside.iter().any(|(_, part)| is_program(part) || part.detected_type.contains("portable-exec")) {
            opened.push(name.to_owned());
        } else if !inside.is_empty() {
            empty.push(name.to_owned());
        } else if tools {
            shut.push(name.to_owned());
        }
    }
    println!("test file: found in {opened:?}; opened: {empty:?}; not opened: {shut:?}");
    let packed: Vec<&String> = shut.iter().filter(|name| !name.ends_with(".exe")).collect();
    assert!(packed.is_empty(), "{packed:?}");
}

/// Small archives with bytes changed at random: nothing breaks, nothing hangs.
#[tokio::test]
async fn changed_archives_break_nothing() {
    let (archives, viruses) = (Collection::unpack("archives-dev"), Collection::unpack("av-dev"));
    let inspector = Inspector::new("");
    // A generator of one's own, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 1).unwrap_or(0) % below
    };
    let files = archives.files("archives").into_iter().chain(viruses.files("av"));
    let (mut count, mut broken, mut slowest) = (0, Vec::new(), (Duration::ZERO, String::new()));
    for file in files {
        let content = std::fs::read(&file).expect("it was listed");
        if content.is_empty() || content.len() > 20_000 {
            continue;
        }
        for round in 0..8 {
            let mut changed = content.clone();
            for _ in 0..=random(6) {
                // The structure is at the start and at the end.
                let at = match random(3) {
                    0 => random(changed.len().min(100)),
                    1 => changed.len() - 1 - random(changed.len().min(100)),
                    _ => random(changed.len()),
                };
                changed[at] = [0, 0xff, 0x7f, 1][random(4)] ^ if random(2) == 0 { changed[at] } else { 0 };
            }
            let started = Instant::now();
            let (findings, _) = inspector.inspect(&US.attached("sample", "a.bin", changed).bytes).await;
            let name = format!("{} round {round}", file.display());
            slowest = slowest.max((started.elapsed(), name.clone()));
            if let Some(finding) = findings.found.iter().find(|finding| finding.kind.word() == "stage-failed") {
                broken.push(format!("{name}: {finding}"));
            }
            count += 1;
        }
    }
    println!("changed archives: {count}, slowest {slowest:?}, broken: {broken:?}");
    assert!(broken.is_empty(), "{broken:?}");
    assert!(slowest.0 < Duration::from_secs(60), "{slowest:?}");
}
