// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted 7z and RAR archives, with and without their names: a word of the message opens them, and nothing makes a try dear.

use super::*;
use crate::budget;
use common::units::Period;
use rars::{ArchiveVersion, Builder};
use sevenz_rust2::encoder_options::{AesEncoderOptions, EncoderOptions};
use sevenz_rust2::{ArchiveEntry, ArchiveWriter, EncoderConfiguration, EncoderMethod, Password};
use std::io::Cursor;
use std::time::Duration;

const PROGRAM: &[u8] = b"MZ the program";
const OTHER: &[u8] = b"MZ another program";

fn sevenz(word: &str, rounds: u8, names: bool) -> Vec<u8> {
    let mut aes = AesEncoderOptions::new(Password::from(word));
    aes.num_cycles_power = rounds;
    let mut archive = ArchiveWriter::new(Cursor::new(Vec::new())).unwrap();
    let aes = EncoderConfiguration::new(EncoderMethod::AES256_SHA256).with_options(EncoderOptions::Aes(aes));
    archive.set_content_methods(vec![aes, EncoderMethod::LZMA2.into()]);
    archive.set_encrypt_header(names);
    for (name, bytes) in [("a.exe", PROGRAM), ("b.exe", OTHER)] {
        archive.push_archive_entry(ArchiveEntry::new_file(name), Some(bytes)).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn rar(word: &str, version: ArchiveVersion, names: bool, solid: bool) -> Vec<u8> {
    let mut archive = Builder::new(version)
        .password(Some(word.into()))
        .header_encryption(names)
        .solid(solid)
        .compression_level(Some(3));
    for (name, bytes) in [("a.exe", PROGRAM), ("b.exe", OTHER)] {
        archive.add_bytes(name.into(), bytes.repeat(20), None, None).unwrap();
    }
    archive.to_bytes().unwrap()
}

/// Findings and members of an archive in a message with these words.
pub(super) fn open(name: &str, bytes: Vec<u8>, words: &[&str]) -> (Vec<String>, Vec<(String, u64)>) {
    let part = Part {
        path: "1".into(),
        names: vec![name.to_owned()],
        types: Vec::new(),
        detected_type: String::new(),
        size: bytes.len() as u64,
        digest: Default::default(),
        container: None,
        leaf: true,
    };
    // Keys take a hundred times as long without optimization.
    let limits = budget::Limits { cpu: Period::seconds(300), ..budget::Limits::default() };
    let until = std::time::Instant::now() + Duration::from_secs(600);
    let mut budget = Budget::new(&limits, bytes.len() as u64, 1 << 20, until);
    let kept = vec![Kept { path: "1".into(), bytes: bytes.into(), alike: false }];
    let view = View { parts: vec![part], kept, ..View::default() };
    let words = || words.iter().map(|word| (*word).to_owned()).collect();
    let means = Means { words: Some(&words), ..Means::default() };
    let view = unpack_with(means, view, &Limits::default(), &mut budget, &mut |_| {});
    let found = view.findings.iter().map(|finding| format!("{} {}", finding.kind.word(), finding.detail)).collect();
    (found, view.parts.into_iter().skip(1).filter(|part| part.leaf).map(|part| (part.path, part.size)).collect())
}

#[test]
fn a_word_of_the_message_opens_a_7z() {
    for names in [false, true] {
        let (found, members) = open("a.7z", sevenz("geheim", 12, names), &["wrong", "geheim", "other"]);
        assert_eq!(found, ["password-found 7z"], "names: {names}");
        let expected =
            [("1/a.7z/a.exe".to_owned(), PROGRAM.len() as u64), ("1/a.7z/b.exe".to_owned(), OTHER.len() as u64)];
        assert_eq!(members, expected);
        let (found, members) = open("a.7z", sevenz("geheim", 12, names), &["wrong", "other"]);
        assert!(!found.is_empty() && found.iter().all(|found| found == "encrypted 7z"), "{found:?}");
        assert_eq!(members, []);
    }
}

#[test]
fn a_word_of_the_message_opens_a_rar() {
    for version in [ArchiveVersion::Rar30, ArchiveVersion::Rar50] {
        for (names, solid) in [(false, false), (true, true)] {
            let archive = rar("geheim", version, names, solid);
            let (found, members) = open("a.rar", archive.clone(), &["wrong", "geheim", "other"]);
            let case = format!("{version:?}, names: {names}, solid: {solid}");
            assert_eq!(found, ["password-found rar"], "{case}");
            let expected = [("1/a.rar/a.exe", PROGRAM), ("1/a.rar/b.exe", OTHER)];
            assert_eq!(members, expected.map(|(path, bytes)| (path.to_owned(), 20 * bytes.len() as u64)), "{case}");
            // Without optimization the keys of the older format take half a minute.
            if version == ArchiveVersion::Rar50 {
                let (found, members) = open("a.rar", archive, &["wrong", "other"]);
                assert!(!found.is_empty() && found.iter().all(|found| found == "encrypted rar"), "{case}: {found:?}");
                assert_eq!(members, [], "{case}");
            }
        }
    }
}

#[test]
fn only_so_many_words_are_tried() {
    let wrong: Vec<String> = (0..passwords::SLOW_TRIES).map(|number| format!("wrong{number}")).collect();
    let mut words: Vec<&str> = wrong.iter().map(String::as_str).collect();
    words.push("geheim");
    let (found, _) = open("a.7z", sevenz("geheim", 1, false), &words[1..]);
    assert_eq!(found, ["password-found 7z"]);
    let (found, _) = open("a.7z", sevenz("geheim", 1, false), &words);
    assert_eq!(found, ["encrypted 7z", "encrypted 7z"]);
}

/// 16 million rounds for each word: nobody but who wants to keep us busy asks for that.
#[test]
fn a_key_that_takes_too_long_is_not_derived() {
    // The first byte of the parameters tells the rounds, so the archive need not be made with so many.
    let mut archive = sevenz("geheim", 3, true);
    let places: Vec<usize> = memchr::memmem::find_iter(&archive, b"\x06\xf1\x07\x01").collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| archive[at + 5] = archive[at + 5] & 0xc0 | 24);
    // The checksum of the header, and that of the header before it.
    let header = 32 + field::index(field::le64(&archive, 12).unwrap());
    let sum = crc(&archive[header..]);
    archive[28..32].copy_from_slice(&sum.to_le_bytes());
    let sum = crc(&archive[12..32]);
    archive[8..12].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(open("a.7z", archive, &["geheim"]), (vec!["encrypted 7z".to_owned()], Vec::new()));
    assert!(
        [0xc0 | 19, 20, 63].into_iter().all(sevenz::bearable) && ![21, 0xc0 | 24, 62].into_iter().any(sevenz::bearable)
    );
}

fn crc(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}
