// SPDX-License-Identifier: GPL-3.0-or-later
//! PDF that qpdf has encrypted, in every way that it knows: what opens without a password, or with a word of the message, is like the same document
//! in the open; what does not open is said to be encrypted.

use crate::{Inspector, US};
use contentd::findings::Findings;
use std::process::Command;
use tests::fake_clamd::{FakeClamd, Manner};

/// The file within the document.
const FILE: &[u8] = b"MZ this is a program that somebody has attached to the document";

/// A document with a file, a script that runs when it is opened, and a link. Without a table of objects: qpdf makes one.
fn document() -> Vec<u8> {
    let page = b"BT /F1 12 Tf 72 720 Td (Hello) Tj ET";
    let objects: Vec<Vec<u8>> = vec![
        b"<< /Type /Catalog /Pages 2 0 R /OpenAction 6 0 R /Names << /EmbeddedFiles << /Names [(file) 7 0 R] >> >> >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Annots [5 0 R] /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>".to_vec(),
        [format!("<< /Length {} >>\nstream\n", page.len()).as_bytes(), page, b"\nendstream"].concat(),
        b"<< /Type /Annot /Subtype /Link /Rect [0 0 100 100] /A << /S /URI /URI (http://a.example/) >> >>".to_vec(),
        b"<< /S /JavaScript /JS (app.alert\\('a marker, EICAR'\\)) >>".to_vec(),
        b"<< /Type /Filespec /F (setup.ex_) /UF (setup.ex_) /EF << /F 8 0 R >> >>".to_vec(),
        [format!("<< /Type /EmbeddedFile /Length {} >>\nstream\n", FILE.len()).as_bytes(), FILE, b"\nendstream"].concat(),
        b"<< /Type /Metadata /Subtype /XML /Length 10 >>\nstream\n<metadata>\nendstream".to_vec(),
    ];
    let mut pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
    for (number, object) in objects.iter().enumerate() {
        pdf.extend_from_slice(format!("{} 0 obj\n", number + 1).as_bytes());
        pdf.extend_from_slice(object);
        pdf.extend_from_slice(b"\nendobj\n");
    }
    pdf.extend_from_slice(b"trailer\n<< /Size 10 /Root 1 0 R /ID [<0102> <0304>] >>\nstartxref\n0\n%%EOF\n");
    pdf
}

/// What qpdf makes of the document.
fn qpdf(arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from.pdf"), folder.path().join("to.pdf"));
    std::fs::write(&from, document()).expect("written");
    let output = Command::new("qpdf").args(arguments).arg(&from).arg(&to).output().expect("qpdf(1)");
    // 3: it had to make the table of objects.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(&to).expect("made")
}

/// All ways to encrypt.
const WAYS: &[&[&str]] = &[
    &["40"],
    &["128", "--use-aes=n"],
    &["128", "--use-aes=y"],
    &["128", "--force-V4"],
    &["128", "--use-aes=y", "--cleartext-metadata"],
    &["256", "--force-R5"],
    &["256"],
    &["256", "--cleartext-metadata"],
];

fn encrypted(user: &str, owner: &str, way: &[&str], more: &[&str]) -> Vec<u8> {
    let weak = &["--allow-weak-crypto"][..];
    qpdf(&[weak, more, &["--encrypt", user, owner], way, &["--"]].concat())
}

/// Findings and members, the way that they can be compared.
fn seen(findings: &Findings) -> (Vec<String>, Vec<String>) {
    let found = findings.found.iter().map(|found| format!("{} {}", found.kind.word(), found.detail));
    let parts = findings.parts.iter().filter(|part| part.path.starts_with("2/"));
    (
        found.collect(),
        parts.map(|part| format!("{} {} {:?} {:?}", part.path, part.size, part.digest, part.leaf)).collect(),
    )
}

#[tokio::test]
async fn what_opens_without_a_password_is_like_any_other() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let (plain_eyes, scanner) = (Inspector::new(""), Inspector::with_clamd(fake.address(), ""));
    for more in [&["--object-streams=disable"][..], &["--object-streams=generate"]] {
        let message = US.attached("x", "a.pdf", qpdf(more)).bytes;
        let expected = seen(&plain_eyes.inspect(&message).await.0);
        assert!(expected.0.iter().any(|found| found.starts_with("pdf-javascript")), "{expected:?}");
        assert!(expected.1.iter().any(|part| part.starts_with("2/a.pdf/setup.ex_ ")), "{expected:?}");
        for way in WAYS {
            let message = US.attached("x", "a.pdf", encrypted("", "owner", way, more)).bytes;
            let found = plain_eyes.inspect(&message).await.0;
            assert_eq!(seen(&found), expected, "{way:?} {more:?}");
            if more[0].ends_with("disable") {
                let (findings, verdict) = scanner.inspect(&message).await;
                assert_eq!(
                    verdict.category.word(),
                    "virus",
                    "the script is shown to the scanner: {way:?} {findings:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_word_of_the_message_opens_it_or_it_is_encrypted() {
    let inspector = Inspector::new("");
    for way in WAYS {
        let locked = encrypted("Geheim7", "owner", way, &["--object-streams=generate"]);
        for (text, word) in [("The password is: Geheim7.", "user"), ("Password: owner", "owner")] {
            let (findings, _) = inspector.inspect(&US.attached(text, "a.pdf", locked.clone()).bytes).await;
            let (found, parts) = seen(&findings);
            assert!(found.contains(&"password-found pdf".to_owned()), "{word} {way:?}: {found:?}");
            assert!(parts.iter().any(|part| part.starts_with("2/a.pdf/setup.ex_ ")), "{word} {way:?}: {parts:?}");
        }
        let message = US.attached("no word for it", "a.pdf", locked).bytes;
        let (findings, _) = inspector.inspect(&message).await;
        assert!(seen(&findings).0.contains(&"encrypted pdf".to_owned()), "{way:?}");
        assert_eq!(inspector.verdict(&message).await, "unchecked pass encrypted", "{way:?}");
    }
}
