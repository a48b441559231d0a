// SPDX-License-Identifier: GPL-3.0-or-later
//! `antivirus.originals`: what is given when message and archives are left out, that it is enough, and that whatever is not plain is given
//! all the same.

use crate::{Inspector, US};
use std::io::{Cursor, Write};
use tests::clamd::Clamd;
use tests::fake_clamd::{FakeClamd, Manner};
use tests::letters::{eicar, zipped};
use zip::write::SimpleFileOptions;

const BOTH: &str = "\"mail\", \"archives\"";

/// With a clamd at this address that gets these originals.
pub fn inspector(address: &str, originals: &str) -> Inspector {
    Inspector::new(&format!(
        "[antivirus]\noriginals = [{originals}]\n[banned]\nextensions = []\ntypes = []\n[antivirus.clamd]\naddress = \"{address}\"\n"
    ))
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// The same zip with its one member said to be encrypted.
fn locked(mut zip: Vec<u8>) -> Vec<u8> {
    zip[6] |= 1;
    let central = zip.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    zip[central + 8] |= 1;
    zip
}

/// What clamd was given: a word for each piece, sorted.
fn given(fake: &FakeClamd) -> String {
    let word = |piece: &Vec<u8>| {
        let has = |text: &[u8]| piece.windows(text.len()).any(|window| window == text);
        match () {
            () if has(b"Message-ID:") && has(b"See the attachment.") => "mail",
            () if has(b"Message-ID:") => "frame",
            () if piece.starts_with(b"See the attachment.") => "text",
            () if piece.starts_with(b"PK\x03\x04") => "zip",
            () if piece.starts_with(b"\x1f\x8b") => "gz",
            () => "member",
        }
    };
    let mut words: Vec<_> = fake.take_starts().iter().map(word).collect();
    words.sort_unstable();
    words.join(" ")
}

#[tokio::test]
async fn what_is_given_with_each_choice() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let zip = archive(&[("a.txt", b"one"), ("b.txt", b"two")]);
    let nested = archive(&[("a.txt", b"one"), ("b.zip", &zip)]);
    let text = |content: Vec<u8>| US.attached("x", "a.zip", content).bytes;
    let ambiguous = |letter: Vec<u8>| {
        let letter = String::from_utf8(letter).unwrap();
        letter.replacen("Content-Type: multipart/mixed;", "Content-Type: multipart/mixed; boundary=\"other\";", 1)
    };
    let cut = zipped("a.txt", &b"hello hello hello".repeat(100));
    let cases = [
        // Name, message; what is given of it with both, without archives, without mail, without both.
        (
            "zip",
            text(zip.clone()),
            [
                "mail member member zip",
                "mail member member",
                "frame member member text zip",
                "frame member member text",
            ],
        ),
        (
            "zip in zip",
            text(nested),
            [
                "mail member member member zip zip",
                "mail member member member",
                "frame member member member text zip zip",
                "frame member member member text",
            ],
        ),
        ("gzip", text(gzipped(b"one")), ["gz mail member", "mail member", "frame gz member text", "frame member text"]),
        (
            "cut zip",
            text(cut[..60].to_vec()),
            ["mail member zip", "mail member zip", "frame member text zip", "frame member text zip"],
        ),
        (
            "encrypted zip",
            text(locked(zipped("a.txt", b"x"))),
            ["mail zip", "mail zip", "frame text zip", "frame text zip"],
        ),
        (
            "encrypted zip beside a good one",
            text(archive(&[("a.zip", &locked(zipped("a.txt", b"x"))), ("b.zip", &zipped("b.txt", b"x"))])),
            [
                "mail member zip zip zip",
                "mail member zip zip zip",
                "frame member text zip zip zip",
                "frame member text zip zip zip",
            ],
        ),
        (
            "program with a zip behind it",
            text([b"MZ", &zip[..]].concat()),
            [
                "mail member member member",
                "mail member member member",
                "frame member member member text",
                "frame member member member text",
            ],
        ),
    ];
    let choices = [BOTH, "\"mail\"", "\"archives\"", ""];
    for (name, message, expected) in &cases {
        for (originals, expected) in choices.iter().zip(expected) {
            let inspector = inspector(fake.address(), originals);
            inspector.inspect(message).await;
            let given = given(&fake);
            assert_eq!(given, *expected, "{name} {originals}");
        }
    }
    // Two boundaries: mail and archive are given whatever is configured.
    let message = ambiguous(text(zip));
    let mut first = None;
    for originals in choices {
        inspector(fake.address(), originals).inspect(message.as_bytes()).await;
        let given = given(&fake);
        assert!(given.contains("mail") && given.contains("zip"), "{given}");
        assert_eq!(*first.get_or_insert_with(|| given.clone()), given, "{originals}");
    }
}

/// What lies outside of all parts and members is given, too.
#[tokio::test]
async fn viruses_are_found_without_the_originals() {
    let clamd = Clamd::start();
    let inspector = inspector(&clamd.address(), "");
    let attached = |name: &str, content: Vec<u8>| US.attached("x", name, content).bytes;
    let virus = eicar();
    let text = String::from_utf8(eicar()).unwrap();
    let zip = zipped("a.txt", &virus);
    let docx = archive(&[
        ("[Content_Types].xml", b"<?xml version=\"1.0\"?><Types/>"),
        ("word/document.xml", b"<?xml version=\"1.0\"?><w:document/>"),
        ("word/embeddings/oleObject1.bin", &virus),
    ]);
    let mut comment = zip::ZipWriter::new(Cursor::new(Vec::new()));
    comment.set_comment(text.clone()).unwrap();
    comment.start_file("a.txt", SimpleFileOptions::default()).unwrap();
    comment.write_all(b"nothing").unwrap();
    let parts = |before: &str, body: &str, behind: &str| {
        format!(
            "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=A\r\n\r\n{before}\r\n--A\r\n\r\n{body}\r\n--A--\r\n{behind}\r\n"
        )
    };
    for (name, message) in [
        ("text", US.plain("x", &text).bytes),
        ("text part", parts("", &text, "").into_bytes()),
        ("in front of the parts", parts(&text, "hello", "").into_bytes()),
        ("behind the parts", parts("", "hello", &text).into_bytes()),
        ("field", parts("", "hello", "").replacen("MIME", &format!("X-Test: {text}\r\nMIME"), 1).into_bytes()),
        ("attachment", attached("a.bin", virus.clone())),
        ("zip", attached("a.zip", zip.clone())),
        ("zip in zip", attached("a.zip", zipped("b.zip", &zip))),
        ("zip in gzip in zip", attached("a.zip", zipped("b.gz", &gzipped(&zip)))),
        ("docx", attached("a.docx", docx)),
        ("comment of a zip", attached("a.zip", comment.finish().unwrap().into_inner())),
        ("behind a zip", attached("a.zip", [zipped("a.txt", b"nothing"), virus.clone()].concat())),
        ("behind a gzip", attached("a.gz", [gzipped(b"nothing"), virus.clone()].concat())),
    ] {
        assert_eq!(inspector.verdict(&message).await, "virus reject virus", "{name}");
    }
    for content in [zipped("a.txt", b"nothing"), zipped("b.zip", &zipped("a.txt", b"nothing")), b"\0nothing".to_vec()] {
        assert_eq!(inspector.verdict(&attached("a.bin", content)).await, "clean pass clean");
    }
}

/// What clamd would pass over is as unchecked as it is with the archive.
#[tokio::test]
async fn members_over_clamds_limits_are_unchecked() {
    let fake = FakeClamd::start(Manner::Proper).await;
    for originals in [BOTH, ""] {
        let lines = format!(
            "[antivirus]\noriginals = [{originals}]\n[antivirus.clamd]\naddress = \"{}\"\nmax_size = \"3kB\"",
            fake.address()
        );
        let letter = US.attached("x", "a.zip", zipped("a.txt", &[b'x'; 5000]));
        let verdict = Inspector::new(&lines).verdict(&letter.bytes).await;
        assert_eq!(verdict, "unchecked pass over-limits", "{originals}");
    }
}
