// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives and documents: any bytes, behind the mark of any format, are opened within the budget.
//!
//! The first byte of the input chooses the mark; `FUZZ_FORMAT=zip` holds it to one format, so that every decoder can be given time.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::units::{Period, Size};
use contentd::budget::{Budget, Limits};
use contentd::message::{self, parts};
use contentd::unpack;
use libfuzzer_sys::fuzz_target;

/// Formats and what their files begin with.
const MARKS: [(&str, &[u8]); 30] = [
    ("any", b""),
    ("zip", b"PK\x03\x04"),
    ("zip-end", b"PK\x05\x06"),
    ("gzip", b"\x1f\x8b\x08"),
    ("bzip2", b"BZh9"),
    ("xz", b"\xfd7zXZ\0"),
    ("lzma", b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("lzip", b"LZIP\x01"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("lz4", b"\x04\x22\x4d\x18"),
    ("compress", b"\x1f\x9d"),
    ("ar", b"!<arch>\n"),
    ("cpio", b"070701"),
    ("rpm", b"\xed\xab\xee\xdb\x03\0"),
    ("7z", b"7z\xbc\xaf\x27\x1c"),
    ("cab", b"MSCF\0\0\0\0"),
    ("rar", b"Rar!\x1a\x07\0"),
    ("rar5", b"Rar!\x1a\x07\x01\0"),
    ("arj", b"\x60\xea"),
    ("lha", b"\x20\0-lh5-"),
    ("tnef", b"\x78\x9f\x3e\x22"),
    ("ole", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    ("pdf", b"%PDF-1.4\n"),
    ("rtf", b"{\\rtf1"),
    ("chm", b"ITSF\x03\0\0\0"),
    ("szdd", b"SZDD\x88\xf0\x27\x33A"),
    ("xar", b"xar!\0\x1c\0\x01"),
    ("binhex", b"(This file must be converted with BinHex 4.0)\r\n:"),
    ("uuencode", b"begin 644 x\r\n"),
    ("exe", b"MZ"),
];

static CHOSEN: LazyLock<Option<usize>> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_FORMAT").ok().filter(|name| !name.is_empty())?;
    let found = MARKS.iter().position(|(mark, _)| *mark == name);
    Some(found.unwrap_or_else(|| panic!("no format {name}; there are {:?}", MARKS.map(|(mark, _)| mark))))
});

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let mark = MARKS[CHOSEN.unwrap_or(usize::from(*first) % MARKS.len())].1;
    let file = Bytes::from([mark, rest].concat());
    let budget_limits = Limits {
        max_bytes: Size(4_000_000),
        min_bytes: Size(4_000_000),
        member_bytes: Size(2_000_000),
        memory: Size(4_000_000),
        cpu: Period::seconds(5),
        objects: 200,
        ..Limits::default()
    };
    let size = file.len() as u64;
    let limits = message::Limits::default();
    let until = Instant::now() + Duration::from_secs(8);
    let mut budget = Budget::new(&budget_limits, size, limits.readings(size), until);
    let view = parts::View { kept: vec![parts::Kept { path: "1".to_owned(), bytes: file, alike: false }], ..parts::View::default() };
    let mut given = 0_u64;
    // What is encrypted is tried with a word.
    let words = || vec!["geheim".to_owned()];
    let means = unpack::Means { words: Some(&words), ..unpack::Means::default() };
    let opened = unpack::unpack_with(means, view, &limits, &mut budget, &mut |kept| given += kept.bytes.len() as u64);
    assert!(given <= budget_limits.max_bytes.0 + 2 * size, "{given} bytes given");
    assert!(opened.parts.len() <= budget_limits.objects + 1, "{} members", opened.parts.len());
});
