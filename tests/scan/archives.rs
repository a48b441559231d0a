// SPDX-License-Identifier: GPL-3.0-or-later
//! What lies in archives meets the scanner and the list of banned files, and what cannot be opened is never clean.

use crate::{Inspector, US};
use contentd::findings::Outcome;
use std::io::{Cursor, Write};
use tests::fake_clamd::{FakeClamd, Manner};
use tests::letters::zipped;
use zip::write::SimpleFileOptions;

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A zip whose one member says that it is encrypted, in both headers.
fn encrypted(name: &str) -> Vec<u8> {
    let mut bytes = zipped(name, b"not really");
    bytes[6] |= 1;
    let central = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[central + 8] |= 1;
    bytes
}

/// The fake scanner opens nothing: what it finds, it was given decoded.
#[tokio::test]
async fn members_are_given_to_the_scanner() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let inspector = Inspector::with_clamd(fake.address(), "");
    let marked = b"a marker, EICAR, far down".repeat(3);
    let deep = gzipped(&zipped("inner.zip", &gzipped(&zipped("a.txt", &marked))));
    let (findings, verdict) = inspector.inspect(&US.attached("x", "a.gz", deep).bytes).await;
    assert_eq!(verdict.category.word(), "virus", "{findings:?}");
    let clean = gzipped(&zipped("a.txt", b"nothing here"));
    let (findings, verdict) = inspector.inspect(&US.attached("x", "a.gz", clean).bytes).await;
    assert_eq!((verdict.category.word(), &findings.scans[0].outcome), ("clean", &Outcome::Clean));
    // The message, the attachment, the zip, the text.
    let leaves: Vec<_> = findings.parts.iter().filter(|part| part.leaf).map(|part| part.path.as_str()).collect();
    assert_eq!(leaves, ["1", "2", "2/a.gz/a", "2/a.gz/a/a.txt"]);
}

#[tokio::test]
async fn a_member_larger_than_what_may_wait_still_reaches_the_scanner() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let inspector = Inspector::with_clamd(fake.address(), "[unpack]\ncpu = \"60s\"\nmin_total = \"200MB\"");
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..4 {
        archive.start_file(format!("{number}.bin"), SimpleFileOptions::default()).unwrap();
        archive.write_all(&vec![number; 20 << 20]).unwrap();
    }
    archive.start_file("last.txt", SimpleFileOptions::default()).unwrap();
    archive.write_all(b"EICAR").unwrap();
    let message = US.attached("x", "a.zip", archive.finish().unwrap().into_inner()).bytes;
    let (findings, verdict) = inspector.inspect(&message).await;
    assert_eq!(verdict.category.word(), "virus", "{:?}", findings.found);
}

#[tokio::test]
async fn names_in_archives_are_checked_even_of_encrypted_members() {
    let inspector = Inspector::new("");
    for (name, archive) in [
        ("a.zip", zipped("invoice.js", b"x")),
        ("a.gz", gzipped(&zipped("inner.zip", &zipped("setup.EXE. ", b"x")))),
        ("a.txt", zipped("invoice.pdf.scr", b"x")),
        ("a.zip", encrypted("setup.exe")),
    ] {
        let verdict = inspector.verdict(&US.attached("x", name, archive).bytes).await;
        assert_eq!(verdict, "banned reject banned", "{name}");
    }
}

#[tokio::test]
async fn what_stays_shut_is_unchecked_with_its_reason() {
    let inspector = Inspector::new("");
    let whole = zipped("a.txt", &b"hello hello hello".repeat(100));
    let mut unknown = zipped("a.txt", b"x");
    unknown[8] = 19;
    let central = unknown.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    unknown[central + 10] = 19;
    for (archive, verdict, finding) in [
        (encrypted("letter.txt"), "unchecked pass encrypted", "encrypted"),
        (whole[..40].to_vec(), "unchecked pass undecodable", "truncated-archive"),
        (unknown, "unchecked pass undecodable", "unsupported-archive"),
        (b"Rar!\x1a\x07\x01\0garbage garbage garbage".to_vec(), "unchecked pass undecodable", "damaged-archive"),
    ] {
        let message = US.attached("x", "a.zip", archive).bytes;
        let (findings, _) = inspector.inspect(&message).await;
        assert!(findings.found.iter().any(|found| found.kind.word() == finding), "{finding}: {:?}", findings.found);
        assert_eq!(inspector.verdict(&message).await, verdict, "{finding}");
    }
}
