// SPDX-License-Identifier: GPL-3.0-or-later
//! ClamAV's harmless test file in its many packings, each as an attachment, through a real clamd.
//!
//! The signature is made here from the test file itself: its SHA-256, and the code of its DOS stub, which most
//! packings keep. What clamd cannot unpack with that is listed by name.

use crate::{Collection, Inspector};
use sha2::{Digest, Sha256};
use tests::clamd::{Clamd, Setup};
use tests::letters::Correspondents;

/// Packings that change the program itself, so that no signature of the original fits.
const UNKNOWN: [&str; 0] = [];

/// Where the code of the DOS stub lies in the test file.
const STUB: std::ops::Range<usize> = 0x40..0x84;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_test_file_is_found_in_its_packings() {
    let collection = Collection::unpack("av-dev");
    let program = std::fs::read(collection.path("av/clamav-testfiles/clam.exe")).expect("the test file is there");
    let digest = format!("{}:{}:Octroi-Test-File:73\n", hex(&Sha256::digest(&program)), program.len());
    let stub = format!("Octroi-Test-Stub:0:*:{}\n", hex(&program[STUB]));
    let clamd = Clamd::start_with(&Setup {
        more_signatures: &[("test.hsb", &digest), ("test.ndb", &stub)],
        ..Setup::default()
    });
    let us = Correspondents { from: "a@sender.test", to: "b@receiver.test" };
    // With message and archives beside what is decoded of them, and without.
    for originals in ["\"mail\", \"archives\"", ""] {
        let lines = format!(
            "[banned]\nextensions = []\ntypes = []\n[antivirus]\noriginals = [{originals}]\n[antivirus.clamd]\naddress = \"{}\"\n",
            clamd.address()
        );
        let inspector = Inspector::new(&lines);
        let (mut found, mut missed) = (0, Vec::new());
        for file in collection.files("av/clamav-testfiles") {
            let name = file.file_name().expect("a file").to_string_lossy().into_owned();
            let content = std::fs::read(&file).expect("it was listed");
            let letter = us.attached("sample", &name, content);
            let (_, verdict) = inspector.inspect(&letter.bytes).await;
            match verdict.category.word() {
                "virus" => found += 1,
                other => missed.push(format!("{name} ({other})")),
            }
        }
        println!("viruses [{originals}]: {found} found, {} not: {}", missed.len(), missed.join(", "));
        assert_eq!(missed, UNKNOWN);
    }
}

#[tokio::test]
async fn office_files_with_and_without_macros_are_scanned() {
    let collection = Collection::unpack("av-dev");
    let clamd = Clamd::start_with(&Setup { configuration: "AlertEncrypted yes", ..Setup::default() });
    let inspector = Inspector::new(&format!("[antivirus.clamd]\naddress = \"{}\"\n", clamd.address()));
    let us = Correspondents { from: "a@sender.test", to: "b@receiver.test" };
    let (mut unchecked, mut told) = (Vec::new(), Vec::new());
    for file in collection.files("av/oletools") {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let letter = us.attached("sample", &name, std::fs::read(&file).expect("it was listed"));
        let (findings, verdict) = inspector.inspect(&letter.bytes).await;
        assert_eq!(findings.viruses(), [""; 0], "{name}");
        if verdict.category.word() == "unchecked" {
            assert_eq!(verdict.reason.word(), "encrypted", "{name}");
            unchecked.push(name);
        } else if name.contains("encrypt-standardpassword") {
            let found = findings.found.iter().map(|found| found.kind.word());
            let active = found.filter(|word| word.starts_with("macro") || *word == "dde");
            told.push(format!("{name}: {}", active.collect::<Vec<_>>().join(" ")));
        }
    }
    println!("office: {} encrypted: {}; opened: {}", unchecked.len(), unchecked.join(", "), told.join(", "));
    // Five with passwords that nobody knows, two zips.
    assert_eq!(unchecked.len(), 7);
    // Those that Excel opens without asking.
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "autostart-encrypt-standardpassword.xlsb: macros macro-autorun",
            "dde-test-encrypt-standardpassword.xls: ",
            "dde-test-encrypt-standardpassword.xlsb: ",
            "dde-test-encrypt-standardpassword.xlsm: dde",
            "dde-test-encrypt-standardpassword.xlsx: dde",
        ]
    );
}
