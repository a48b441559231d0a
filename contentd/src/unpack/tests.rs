// SPDX-License-Identifier: GPL-3.0-or-later
//! What holds for every format: members are listed where they belong, no bytes break a decoder, every limit is a finding.

use super::*;
use crate::budget;
use common::units::Size;
use proptest::prelude::*;
use std::io::Write;
use std::time::{Duration, Instant};

/// Opens one file as part 1 with this name.
fn opened(name: &str, bytes: Vec<u8>, limits: budget::Limits) -> View {
    opened_for(name, bytes, limits, &mut |_| {})
}

/// The same, and what is given to the scanners.
fn opened_for(name: &str, bytes: Vec<u8>, limits: budget::Limits, give: &mut dyn FnMut(Kept)) -> View {
    opened_by(Means::default(), name, bytes, limits, give)
}

fn opened_by(means: Means<'_>, name: &str, bytes: Vec<u8>, limits: budget::Limits, give: &mut dyn FnMut(Kept)) -> View {
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
    let mut budget = Budget::new(&limits, bytes.len() as u64, 1 << 20, Instant::now() + Duration::from_secs(20));
    let view = View {
        parts: vec![part],
        kept: vec![Kept { path: "1".into(), bytes: bytes.into(), alike: false }],
        ..View::default()
    };
    unpack_with(means, view, &Limits::default(), &mut budget, give)
}

/// How many members a scanner gets, and how many of them it may know from the archive.
fn given(bytes: Vec<u8>) -> (usize, usize) {
    let (mut all, mut alike) = (0, 0);
    opened_for("a.zip", bytes, budget::Limits::default(), &mut |kept| {
        all += 1;
        alike += usize::from(kept.alike);
    });
    (all, alike)
}

/// What a scanner gets when archives of which all members are given are left out: their paths.
fn given_of(name: &str, bytes: Vec<u8>, limits: budget::Limits) -> Vec<String> {
    let mut given = Vec::new();
    let means = Means { members_only: true, ..Means::default() };
    opened_by(means, name, bytes, limits, &mut |kept| given.push(kept.path));
    given.sort();
    given
}

#[test]
fn archives_that_are_opened_whole_are_left_out_as_configured() {
    let of = |name: &str, bytes: Vec<u8>| given_of(name, bytes, budget::Limits::default());
    let inner = zipped(&[("y.txt", b"y"), ("z.txt", &[1; 9000])]);
    let nested = zipped(&[("a.txt", b"one"), ("x.zip", &inner), ("b.gz", &gzipped(b"two"))]);
    let members = ["1/a.zip/a.txt", "1/a.zip/b.gz/b", "1/a.zip/x.zip/y.txt", "1/a.zip/x.zip/z.txt"];
    assert_eq!(of("a.zip", nested.clone()), members);
    assert_eq!(of("a.gz", gzipped(b"one")), ["1/a.gz/a"]);
    // A tar is given as it is, and what is in it as well.
    assert_eq!(of("a.tgz", gzipped(&tarred(&[("a.txt", b"one")]))), ["1/a.tgz/a.tar", "1/a.tgz/a.tar/a.txt"]);
    // Something strange anywhere: everything is given.
    let cut = zipped(&[("b.gz", &gzipped(b"x")[..10]), ("x.zip", &inner)]);
    let all = ["1", "1/a.zip/b.gz", "1/a.zip/x.zip", "1/a.zip/x.zip/y.txt", "1/a.zip/x.zip/z.txt"];
    assert_eq!(of("a.zip", cut), all);
}

#[test]
fn an_archive_is_left_out_only_when_nothing_else_can_be_in_it() {
    let plain = zipped(&[("a.txt", b"one"), ("b.txt", &[7; 5000])]);
    let limits = budget::Limits::default;
    assert_eq!(given_of("a.zip", plain.clone(), limits()), ["1/a.zip/a.txt", "1/a.zip/b.txt"]);
    for at in 0..plain.len() {
        // Time and version, system and attributes of a member tell nothing of what is in it.
        for bit in [1, 0x80] {
            let mut bytes = plain.clone();
            bytes[at] ^= bit;
            let given = given_of("a.zip", bytes.clone(), limits());
            let members = given.iter().filter(|path| path.starts_with("1/")).count();
            assert!(given.contains(&"1".to_owned()) || members == 2, "{at}: {given:?}");
        }
    }
    let mut crowd = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for number in 0..=alike::MEMBERS {
        crowd.start_file(number.to_string(), ::zip::write::SimpleFileOptions::default()).unwrap();
        crowd.write_all(b"x").unwrap();
    }
    for (bytes, limits, what) in [
        ([&b"MZ"[..], &plain].concat(), limits(), "something in front"),
        ([&plain[..], b"x"].concat(), limits(), "something behind"),
        ([plain.clone(), plain.clone()].concat(), limits(), "two behind each other"),
        (zipped(&[("a.txt", &vec![0; 21_000_000])]), limits(), "a large one"),
        (crowd.finish().unwrap().into_inner(), limits(), "many members"),
        (plain.clone(), budget::Limits { objects: 1, ..limits() }, "objects"),
        (plain.clone(), budget::Limits { member_bytes: Size(100), ..limits() }, "member"),
        (
            plain.clone(),
            budget::Limits { min_bytes: Size(100), expansion: 1, max_bytes: Size(100), ..limits() },
            "bytes",
        ),
        ([gzipped(b"x"), b"y".to_vec()].concat(), limits(), "behind a gzip"),
        ([gzipped(b"x"), gzipped(b"y")].concat(), limits(), "two gzips"),
    ] {
        assert!(given_of("a.zip", bytes, limits).contains(&"1".to_owned()), "{what}");
    }
    // Too deep to be opened.
    let nested = zipped(&[("x.zip", &zipped(&[("y.zip", &plain)]))]);
    let given = given_of("a.zip", nested, budget::Limits { depth: 2, ..limits() });
    assert_eq!(given, ["1", "1/a.zip/x.zip", "1/a.zip/x.zip/y.zip"]);
}

/// What is too large for a member, or for what is left, is no shorter member.
#[test]
fn what_is_cut_short_is_over_a_limit() {
    let zeros = |length: usize| {
        let mut out = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::ZlibEncoder::new(&vec![0; length][..], flate2::Compression::best()),
            &mut out,
        )
        .unwrap();
        out
    };
    let stream = |packed: &[u8]| {
        [b"1 0 obj <</Type/EmbeddedFile/Filter/FlateDecode>> stream\n", packed, b"\nendstream endobj\n"].concat()
    };
    let pdf = |streams: usize, length: usize| [b"%PDF-1.4\n".to_vec(), stream(&zeros(length)).repeat(streams)].concat();
    let rtf = |digits: usize| format!("{{\\rtf1{{\\object\\objdata {}}}}}", "41".repeat(digits)).into_bytes();
    let limits = budget::Limits {
        member_bytes: Size(100_000),
        min_bytes: Size(300_000),
        max_bytes: Size(300_000),
        ..budget::Limits::default()
    };
    let over = |name: &str, bytes: Vec<u8>| {
        let view = opened(name, bytes, limits);
        view.findings.iter().any(|finding| finding.kind == crate::findings::FindingKind::OverLimits)
    };
    assert!(!over("a.pdf", pdf(2, 90_000)));
    assert!(over("a.pdf", pdf(1, 200_000)), "one member");
    assert!(over("a.pdf", pdf(9, 90_000)), "all members");
    assert!(!over("a.rtf", rtf(50_000)));
    assert!(over("a.rtf", rtf(120_000)));
    let many = [b"%PDF-1.4\n".to_vec(), b"1 0 obj <<>> stream\nx\nendobj\n".repeat(20_001)].concat();
    assert!(over("a.pdf", many), "more streams than are looked at");
}

#[test]
fn only_what_every_program_reads_alike_is_left_to_the_scanner() {
    let plain = zipped(&[("a.txt", b"one"), ("b.txt", &[7; 5000])]);
    assert_eq!(given(plain.clone()), (3, 2), "the archive itself and its members");
    let nested = zipped(&[("c.txt", b"three"), ("x.zip", &zipped(&[("y.txt", &[1; 90_000])])), ("d", &[0; 70_000])]);
    assert!(given(nested).1 > 0);
    let place = |what: &[u8]| plain.windows(4).rposition(|window| window == what).unwrap();
    let (central, end) = (place(b"PK\x01\x02"), place(b"PK\x05\x06"));
    let changed = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] ^= byte;
        bytes
    };
    for (bytes, what) in [
        (changed(central + 20, 1), "packed size in the directory"),
        (changed(central + 24, 1), "size in the directory"),
        (changed(central + 10, 4), "method in the directory"),
        (changed(central + 8, 1), "encrypted in the directory"),
        (changed(central + 46, 1), "name in the directory"),
        (changed(18, 1), "packed size in the local header"),
        (changed(30, 1), "name in the local header"),
        (changed(end + 10, 1), "number of members"),
        (changed(end + 16, 1), "place of the directory"),
        ([&b"MZ"[..], &plain].concat(), "something in front"),
        ([&plain[..], b"x"].concat(), "something behind"),
        ([plain.clone(), plain.clone()].concat(), "two behind each other"),
        (zipped(&[("a.txt", b"one"), ("b.gz", &gzipped(b"x")[..10])]), "a damaged one inside"),
        (zipped(&[("a.txt", &vec![0; 21_000_000])]), "more than a scanner surely takes"),
        (tarred(&[("a.txt", b"one")]), "another format"),
    ] {
        assert_eq!(given(bytes).1, 0, "{what}");
    }
}

fn paths(view: &View) -> Vec<&str> {
    view.parts.iter().filter(|part| part.leaf).map(|part| part.path.as_str()).collect()
}

fn words(view: &View) -> Vec<String> {
    view.findings.iter().map(|finding| format!("{} {}", finding.kind.word(), finding.detail)).collect()
}

/// A zip of these files.
fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        archive.start_file(*name, ::zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(content).unwrap();
    packer.finish().unwrap()
}

/// A tar of these files.
fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[156] = b'0';
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&block);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[test]
fn members_follow_their_archive_with_paths_that_nest() {
    let inner = zipped(&[("a.js", b"x"), ("b.txt", b"y")]);
    let bytes = zipped(&[("one.txt", b"1"), ("inner.zip", &inner), ("two.txt", b"2")]);
    let view = opened("outer.zip", bytes, budget::Limits::default());
    assert_eq!(
        paths(&view),
        [
            "1",
            "1/outer.zip/one.txt",
            "1/outer.zip/inner.zip",
            "1/outer.zip/inner.zip/a.js",
            "1/outer.zip/inner.zip/b.txt",
            "1/outer.zip/two.txt",
        ]
    );
    assert_eq!(view.parts[3].container, Some("application/zip"));
    assert_eq!(words(&view), [""; 0]);
}

#[test]
fn packed_files_are_named_after_their_archive() {
    let bytes = gzipped(&tarred(&[("x/a.exe", b"MZ"), ("b", b"")]));
    let view = opened("a.tgz", bytes, budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/a.tgz/a.tar", "1/a.tgz/a.tar/x/a.exe", "1/a.tgz/a.tar/b"]);
}

#[test]
fn names_are_never_more_than_text() {
    let bytes = tarred(&[("../../etc/passwd", b"x"), ("a\r\nb\x1b[2J", b"y")]);
    let view = opened("a.tar", bytes, budget::Limits::default());
    assert_eq!(paths(&view)[1..], ["1/a.tar/../../etc/passwd", "1/a.tar/a\\r\\nb\\u{1b}[2J"]);
    assert_eq!(view.parts[2].names, ["a\r\nb\u{1b}[2J"]);
}

#[test]
fn what_one_list_of_a_zip_hides_is_found() {
    let two = zipped(&[("seen.txt", b"a"), ("hidden.exe", b"b")]);
    // The last name in the central directory, without its entry.
    let central = memchr::memmem::rfind(&two, b"PK\x01\x02").unwrap();
    let end = memchr::memmem::rfind(&two, b"PK\x05\x06").unwrap();
    let mut one = [&two[..central], &two[end..]].concat();
    let (at, size) = (central + 8, (central - memchr::memmem::find(&two, b"PK\x01\x02").unwrap()) as u8);
    (one[at], one[at + 2], one[at + 4]) = (1, 1, size);
    let view = opened("a.zip", one, budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/a.zip/seen.txt", "1/a.zip/hidden.exe"]);
    assert_eq!(words(&view), ["hidden-members zip"]);
}

#[test]
fn without_its_end_a_zip_is_opened_and_said_to_be_cut() {
    let whole = zipped(&[("a.txt", &[b'x'; 500]), ("b.txt", b"b")]);
    let cut = whole[..whole.len() - 60].to_vec();
    let view = opened("a.zip", cut, budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/a.zip/a.txt", "1/a.zip/b.txt"]);
    assert_eq!(words(&view), ["truncated-archive zip"]);
}

#[test]
fn archives_behind_something_else_and_behind_each_other() {
    let (first, second) = (zipped(&[("a", b"1")]), zipped(&[("b", b"2")]));
    let view = opened("both.zip", [&first[..], &second].concat(), budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/both.zip/a", "1/both.zip/b"]);
    let picture = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &first[..]].concat();
    let view = opened("p.png", picture, budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/p.png/a"]);
    assert_eq!(words(&view), ["archive-inside zip"]);
}

#[test]
fn duplicate_names_are_all_there() {
    let view = opened("a.tar", tarred(&[("a", b"1"), ("a", b"2"), ("a", b"2")]), budget::Limits::default());
    assert_eq!(paths(&view), ["1", "1/a.tar/a", "1/a.tar/a"]);
    assert_eq!(words(&view), ["duplicate-names tar"]);
}

/// A compound file with one storage of streams, each padded to 4096 bytes and more, so that there are no small ones.
pub(super) fn compound(storage: &str, streams: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entry = |name: &str, kind: u8, right: u32, child: u32, start: u32, size: u32| {
        let mut entry = vec![0u8; 128];
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry[..wide.len()].copy_from_slice(&wide);
        entry[64] = wide.len() as u8 + 2;
        entry[66] = kind;
        for (at, number) in [(68, u32::MAX), (72, right), (76, child), (116, start), (120, size)] {
            entry[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        entry
    };
    let end = 0xffff_fffe_u32;
    let mut directory = [entry("Root Entry", 5, u32::MAX, 1, end, 0), entry(storage, 1, u32::MAX, 2, end, 0)].concat();
    // The first sector is the table, two are the directory.
    let (mut table, mut content) = (vec![0xffff_fffd, 2, end], Vec::new());
    for (number, (name, bytes)) in streams.iter().enumerate() {
        let right = if number + 1 < streams.len() { number as u32 + 3 } else { u32::MAX };
        let sectors = bytes.len().max(4096).div_ceil(512);
        let start = table.len() as u32;
        directory.extend(entry(name, 2, right, u32::MAX, start, sectors as u32 * 512));
        content.extend_from_slice(bytes);
        content.resize((start as usize - 3 + sectors) * 512, 0);
        table.extend((1..sectors as u32).map(|next| start + next));
        table.push(end);
    }
    directory.resize(1024, 0);
    table.resize(128, u32::MAX);
    let mut header = vec![0u8; 512];
    header[..8].copy_from_slice(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1");
    (header[30], header[32]) = (9, 6);
    for (at, number) in [(48, 1), (56, 4096), (60, end), (68, end), (76, 0)] {
        header[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
    }
    header[80..].fill(0xff);
    [header, table.iter().flat_map(|number| number.to_le_bytes()).collect(), directory, content].concat()
}

#[test]
fn macros_of_old_and_new_documents() {
    // Eight plain characters behind each byte of flags (MS-OVBA 2.4.1).
    let source = b"Attribute VB_Name = \"Module1\"\r\nSub Document_Open()\r\nShell \"x\"\r\nEnd Sub\r\n";
    let tokens: Vec<u8> = source.chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
    let packed = [&[1][..], &(0xb000 | (tokens.len() as u16 - 1)).to_le_bytes(), &tokens].concat();
    let project = compound("VBA", &[("dir", vec![1]), ("Module1", packed)]);
    let told = ["macros 1 module", "macro-autorun Document_Open", "macro-calls Shell"];
    let mut given = Vec::new();
    let view = opened_for("a.doc", project.clone(), budget::Limits::default(), &mut |kept| given.push(kept.bytes));
    assert_eq!(words(&view), told);
    assert!(given.iter().any(|bytes| bytes[..] == source[..]), "the source is scanned");
    assert_eq!(paths(&view), ["1", "1/a.doc/VBA/dir", "1/a.doc/VBA/Module1"]);
    let relation =
        b"<Relationship Type=\"x/attachedTemplate\" Target=\"https://a.test/t.dotm\" TargetMode=\"External\"/>";
    let files = [("word/vbaProject.bin", &project[..]), ("word/_rels/settings.xml.rels", relation)];
    let view = opened("a.docm", zipped(&files), budget::Limits::default());
    assert_eq!(words(&view), [&["remote-template template"], &told[..]].concat());
    let empty = compound("VBA", &[("dir", vec![1]), ("Module1", vec![0])]);
    assert_eq!(words(&opened("a.doc", empty, budget::Limits::default())), ["macros no source"]);
}

#[test]
fn a_word_of_the_message_opens_an_encrypted_zip() {
    let locked = |word: &'static str| {
        let mut archive = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let plain = ::zip::write::SimpleFileOptions::default();
        let aes = plain.with_aes_encryption(::zip::AesMode::Aes256, word);
        let old = ::zip::unstable::write::FileOptionsExt::with_deprecated_encryption(plain, word.as_bytes()).unwrap();
        for (name, options) in [("aes.exe", aes), ("old.exe", old)] {
            archive.start_file(name, options).unwrap();
            archive.write_all(b"MZ the program").unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    let open = |bytes: Vec<u8>, words: &[&str]| {
        let words = || words.iter().map(|word| (*word).to_owned()).collect();
        opened_by(
            Means { words: Some(&words), ..Means::default() },
            "a.zip",
            bytes,
            budget::Limits::default(),
            &mut |_| {},
        )
    };
    let view = open(locked("geheim"), &["wrong", "geheim", "other"]);
    assert_eq!(words(&view), ["password-found zip"]);
    assert_eq!(paths(&view), ["1", "1/a.zip/aes.exe", "1/a.zip/old.exe"]);
    assert!(view.parts[1..].iter().all(|part| part.size == 14));
    let view = open(locked("geheim"), &["wrong", "other"]);
    assert_eq!(words(&view), ["encrypted zip", "encrypted zip"]);
    assert!(view.parts[1..].iter().all(|part| !part.leaf), "names only");
}

#[test]
fn what_a_pdf_does() {
    let pdf = b"%PDF-1.4\n1 0 obj << /OpenAction << /S /JavaScript /JS (x) >> /URI (http://a.test) >> endobj\n";
    let view = opened("a.pdf", pdf.to_vec(), budget::Limits::default());
    assert_eq!(words(&view), ["pdf-javascript ", "pdf-open-action ", "pdf-links 1"]);
}

#[test]
fn every_limit_is_a_finding() {
    let small = |change: &dyn Fn(&mut budget::Limits)| {
        let mut limits = budget::Limits { expansion: 1, min_bytes: Size(1 << 20), ..budget::Limits::default() };
        change(&mut limits);
        limits
    };
    let many: Vec<(String, Vec<u8>)> = (0..50).map(|number| (format!("f{number}"), vec![b'x'; 10])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let mut nested = b"x".to_vec();
    for _ in 0..30 {
        nested = zipped(&[("n.zip", &nested)]);
    }
    let zeros = gzipped(&vec![0; 3 << 20]);
    for (bytes, limits, word) in [
        (zipped(&many), small(&|limits| limits.objects = 10), "over-limits parts"),
        (nested, small(&|_| {}), "over-limits depth"),
        (zeros.clone(), small(&|_| {}), "over-limits expansion"),
        (
            zeros.clone(),
            small(&|limits| (limits.min_bytes, limits.member_bytes) = (Size(9 << 20), Size(1000))),
            "over-limits member",
        ),
        (zeros, small(&|limits| limits.cpu = common::units::Period(Duration::ZERO)), "over-limits cpu"),
        (zipped(&[("a.zip", &zipped(&many))]), small(&|limits| limits.memory = Size(100)), "over-limits memory"),
    ] {
        let view = opened("a.zip", bytes, limits);
        assert!(words(&view).iter().any(|found| found == word), "{word}: {:?}", words(&view));
    }
}

/// The beginning of a file of every format, behind which anything may follow.
const BEGINNINGS: &[&[u8]] = &[
    b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a",
    b"PK\x03\x04\x14\0\0\0\x0e\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a",
    b"PK\x03\x04\x14\0\0\0\x62\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a",
    b"PK\x03\x04\x14\0\0\0\x06\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a",
    b"\x1f\x8b\x08\0\0\0\0\0\0\0",
    b"\x1f\x9d\x90",
    b"BZh91AY&SY",
    b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36",
    b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0",
    b"LZIP\x01\x0c",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"0707010000000100008",
    b"070707",
    b"\xc7\x71",
    b"\x71\xc7",
    b"!<arch>\n",
    b"\xed\xab\xee\xdb",
    b"7z\xbc\xaf\x27\x1c\0\x04",
    b"MSCF\0\0\0\0",
    b"Rar!\x1a\x07\0",
    b"Rar!\x1a\x07\x01\0",
    b"RE~^",
    b"\x20\x20-lh5-",
    b"\x60\xea",
    b"\x78\x9f\x3e\x22\0\0",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"%PDF-1.4\n1 0 obj << /EF << /F 1 0 R >> /F (a) >> stream\n",
    b"{\\rtf1{\\objdata ",
    b"begin 644 a\n#0V%T\n",
    b"(This file must be converted with BinHex 4.0)\n:",
    b"SZDD\x88\xf0\x27\x33",
    b"ITSF\x03\0\0\0",
    b"MZ\0\0\xef\xbe\xad\xdeNullsoftInst",
    b"xar!\0\x1c\0\x01",
    b"From: a\nSubject: b\nContent-Type: multipart/mixed; boundary=A\n\n--A\n",
];

proptest! {
    #[test]
    fn any_bytes_behind_any_beginning_break_nothing(rest: Vec<u8>, which in 0..BEGINNINGS.len()) {
        let limits = budget::Limits { expansion: 1, min_bytes: Size(1 << 20), memory: Size(8 << 20), ..budget::Limits::default() };
        let view = opened("a", [BEGINNINGS[which], &rest].concat(), limits);
        let broke = view.findings.iter().find(|finding| finding.kind == FindingKind::StageFailed);
        prop_assert!(broke.is_none(), "{:?}", broke);
    }

    #[test]
    fn changed_archives_break_nothing(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8)) {
        let tar = tarred(&[("a.zip", &zipped(&[("a", b"hello"), ("b", &[0; 2000])])), ("b.gz", &gzipped(b"hello"))]);
        let mut zip = zipped(&[("a.tar", &tar), ("b.txt", b"x")]);
        for (place, byte) in changes {
            let at = place.index(zip.len());
            zip[at] = byte;
        }
        let view = opened("a", zip, budget::Limits::default());
        prop_assert!(!view.findings.iter().any(|finding| finding.kind == FindingKind::StageFailed));
    }
}
