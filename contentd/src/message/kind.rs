// SPDX-License-Identifier: GPL-3.0-or-later
//! The type of a file by its content, whatever its name and its header say.
//!
//! The `file-format` crate knows the signatures; a few that matter to a mail filter and that it misses in
//! damaged files are checked here first to last. The answer is a media type as in the IANA registry.

use file_format::FileFormat;

/// Signatures that decide when the crate sees nothing: a damaged archive is still one to the client that repairs it.
const SIGNATURES: &[(&[u8], &str)] = &[
    (b"\x78\x9f\x3e\x22", "application/ms-tnef"),
    (b"PK\x03\x04", "application/zip"),
    (b"MZ", "application/x-dosexec"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
];

/// What programs are called; no program is without control characters.
const PROGRAMS: [&str; 2] = ["application/x-dosexec", "application/vnd.microsoft.portable-executable"];

/// How many bytes are looked at to tell text from other data.
const TEXT_SAMPLE: usize = 4096;

/// The media type that the content shows, `application/x-empty` for none, `application/octet-stream` when nothing is known.
pub fn detect(content: &[u8]) -> String {
    if content.is_empty() {
        return "application/x-empty".to_owned();
    }
    match FileFormat::from_bytes(content) {
        FileFormat::ArbitraryBinaryData | FileFormat::PlainText => by_signature(content).to_owned(),
        known => {
            let kind = known.media_type();
            // Two letters, MZ, make a program for the crate; a sentence may begin with them.
            let sentence = PROGRAMS.contains(&kind) && is_text(&content[..content.len().min(TEXT_SAMPLE)]);
            if sentence { "text/plain".to_owned() } else { kind.to_owned() }
        }
    }
}

fn by_signature(content: &[u8]) -> &'static str {
    if is_text(&content[..content.len().min(TEXT_SAMPLE)]) {
        return "text/plain";
    }
    let known = SIGNATURES.iter().find(|(magic, _)| content.starts_with(magic));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

/// Text in any of the usual 8-bit character sets: no control characters but white space, ESC (ISO 2022) and form feed.
fn is_text(sample: &[u8]) -> bool {
    !sample.iter().any(|byte| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31 | 127))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn types_by_content() {
        for (content, kind) in [
            (&b""[..], "application/x-empty"),
            (b"Hello\r\n", "text/plain"),
            (b"caf\xe9 au lait", "text/plain"),
            (b"\x00\x01\x02", "application/octet-stream"),
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"%PDF-1.4\n", "application/pdf"),
            (b"PK\x03\x04 cut short", "application/zip"),
            (b"MZ\x90\x00", "application/x-dosexec"),
            (b"MZ is short for Marktzettel.", "text/plain"),
            (b"\x78\x9f\x3e\x22\x01\x00", "application/ms-tnef"),
        ] {
            assert_eq!(detect(content), kind, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_type(bytes: Vec<u8>) {
            prop_assert!(detect(&bytes).contains('/'));
        }
    }
}
