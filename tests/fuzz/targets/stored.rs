// SPDX-License-Identifier: GPL-3.0-or-later
//! What lies on our own disk and may have been cut or overwritten: files of the quarantine, records and packets of the witness. The first
//! byte chooses.

#![no_main]

use std::io::Write;

use contentd::fuzzing;
use contentd::quarantine::file;
use contentd::witness::record;
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;

fn quarantined(bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("octroi-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("file");
    std::fs::write(&path, bytes).expect("a file");
    // The digest of nothing: only a message of no bytes has it.
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    if let Ok(message) = file::read(&path, digest) {
        assert!(message.is_empty());
    }
    std::fs::remove_dir_all(&folder).expect("our own folder");
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).expect("memory");
    out.finish().expect("memory")
}

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    match first % 5 {
        0 => quarantined(bytes),
        1 => quarantined(&packed(bytes)),
        2 => {
            let text = String::from_utf8_lossy(bytes);
            record::findings(&text);
            for fact in text.lines().filter_map(record::Fact::read) {
                let line = fact.line();
                assert_eq!(record::Fact::read(line.trim_end_matches('\n')), Some(fact));
            }
        }
        3 => fuzzing::witness_packet(bytes),
        _ => {
            let (keys, rest) = bytes.as_chunks::<16>();
            fuzzing::witness_dot(&String::from_utf8_lossy(rest), keys.to_vec());
        }
    }
});
