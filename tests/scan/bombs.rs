// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives made to exhaust memory, time or disk: `contentd scan` answers within its limits, and never "clean".

use crate::US;
use flate2::{Compress, Compression, Crc, FlushCompress};
use serde_json::Value;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::daemon::binary;
use tests::letters::eicar;
use zip::write::SimpleFileOptions;

/// Memory that a verdict may cost.
const MEMORY_KIB: u64 = 256 * 1024;

/// Processor time that a verdict may cost. Without optimisation one large member, which is looked at whole, takes longer.
const CPU: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 5 });

fn crc(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// Deflated zeros, so many MiB of them: one block, again and again, since each ends at a byte and refers to none before.
fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut packer = Compress::new(Compression::best(), false);
    let (plain, mut block) = (vec![0; 1 << 20], vec![0; 1 << 16]);
    packer.compress(&plain, &mut block, FlushCompress::Full).expect("the buffer is large enough");
    block.truncate(usize::try_from(packer.total_out()).expect("it is small"));
    let mut packed = block.repeat(mebibytes);
    // The last block is empty.
    packed.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    packed
}

fn gzip(deflated: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], deflated, &[0; 8]].concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("memory takes it");
    packer.finish().expect("memory takes it")
}

/// A zip of so many copies of one file.
fn copies(name: &str, content: &[u8], count: usize) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..count {
        archive.start_file(format!("{number}{name}"), SimpleFileOptions::default()).expect("memory takes it");
        archive.write_all(content).expect("memory takes it");
    }
    archive.finish().expect("memory takes it").into_inner()
}

fn local_header(name: &str, packed: usize) -> Vec<u8> {
    let mut header = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend_from_slice(&u32::try_from(packed).expect("small").to_le_bytes());
    header.extend_from_slice(&0x7fff_ffffu32.to_le_bytes());
    header.extend_from_slice(&u16::try_from(name.len()).expect("short").to_le_bytes());
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(name.as_bytes());
    header
}

/// Central directory and end for members at these places with this much data.
fn directory(members: &[(String, usize, usize)], at: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for (name, place, packed) in members {
        list.extend_from_slice(b"PK\x01\x02\x14\0");
        list.extend_from_slice(&local_header(name, *packed)[4..30]);
        list.extend_from_slice(&[0; 10]);
        list.extend_from_slice(&u32::try_from(*place).expect("small").to_le_bytes());
        list.extend_from_slice(name.as_bytes());
    }
    let (count, size) = (u16::try_from(members.len()).expect("few"), u32::try_from(list.len()).expect("small"));
    list.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    list.extend_from_slice(&count.to_le_bytes());
    list.extend_from_slice(&count.to_le_bytes());
    list.extend_from_slice(&size.to_le_bytes());
    list.extend_from_slice(&u32::try_from(at).expect("small").to_le_bytes());
    list.extend_from_slice(&[0, 0]);
    list
}

/// All entries of the directory point to the same data.
fn shared_data(count: usize) -> Vec<u8> {
    let data = zeros(40);
    let mut archive = local_header("0", data.len());
    archive.extend_from_slice(&data);
    let members: Vec<_> = (0..count).map(|number| (number.to_string(), 0, data.len())).collect();
    let at = archive.len();
    archive.extend(directory(&members, at));
    archive
}

/// David Fifield's overlap: each member's data quotes the local header of the next one and goes on with its data.
fn quoted_overlap(count: usize) -> Vec<u8> {
    let names: Vec<String> = (0..count).map(|number| format!("{number:04}")).collect();
    let mut data = zeros(20);
    let mut tail = local_header(&names[count - 1], data.len());
    tail.extend_from_slice(&data);
    let mut places = vec![(names[count - 1].clone(), tail.len(), data.len())];
    for name in names.iter().rev().skip(1) {
        let length = u16::try_from(tail.len().min(34)).expect("a header");
        // A stored block with the header of the next member in it.
        data = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &tail].concat();
        tail = [local_header(name, data.len()), data.clone()].concat();
        places.push((name.clone(), tail.len(), data.len()));
    }
    let end = tail.len();
    places.reverse();
    let members: Vec<_> = places.into_iter().map(|(name, from_end, packed)| (name, end - from_end, packed)).collect();
    tail.extend(directory(&members, end));
    tail
}

/// An .xz that asks for a dictionary of 4 GiB.
fn xz_dictionary() -> Vec<u8> {
    let flags = [0, 0];
    let mut file = [&b"\xfd7zXZ\0"[..], &flags, &crc(&flags).to_le_bytes()].concat();
    let block = [2, 0, 0x21, 1, 40, 0, 0, 0];
    file.extend_from_slice(&block);
    file.extend_from_slice(&crc(&block).to_le_bytes());
    file.extend_from_slice(b"\x01\0\0x\0");
    file
}

/// A .zst that asks for a window of 2 GiB.
fn zstd_window() -> Vec<u8> {
    b"\x28\xb5\x2f\xfd\0\xa8\x02\0\0x\x01\0\0".to_vec()
}

/// A 7z that asks for a dictionary of 1.5 GiB.
fn sevenz_dictionary() -> Vec<u8> {
    let packed = [0u8; 32];
    let mut header = vec![1, 4, 6, 0, 1, 9, 32, 0, 7, 11, 1, 0, 1, 0x23, 3, 1, 1, 5, 0x5d];
    header.extend_from_slice(&0x6000_0000u32.to_le_bytes());
    header.extend_from_slice(&[12, 100, 0, 8, 0, 0, 5, 1, 17, 5, 0, b'a', 0, 0, 0, 0, 0]);
    let mut start = 32u64.to_le_bytes().to_vec();
    start.extend_from_slice(&(header.len() as u64).to_le_bytes());
    start.extend_from_slice(&crc(&header).to_le_bytes());
    [&b"7z\xbc\xaf\x27\x1c\0\x04"[..], &crc(&start).to_le_bytes(), &start, &packed, &header].concat()
}

/// What one verdict cost.
struct Cost {
    report: Value,
    memory_kib: u64,
    cpu: Duration,
}

/// Runs `contentd scan` on a message with this attachment, and watches it.
fn scan(folder: &Path, name: &str, bomb: Vec<u8>) -> Cost {
    scan_message(folder, name, &US.attached("x", name, bomb).bytes)
}

/// The same for a message as it is.
fn scan_message(folder: &Path, name: &str, message: &[u8]) -> Cost {
    let file = folder.join(name);
    std::fs::write(&file, message).expect("room for it");
    // A pipe that nobody reads while it runs would stop it.
    let report = folder.join("report.json");
    let mut child = Command::new(binary("contentd").expect("make test builds it"))
        .args(["scan", "--json"])
        .arg(&file)
        .current_dir(folder)
        .env("OCTROI__CONTENTD__SPOOL_DIR", folder)
        .stdout(std::fs::File::create(&report).expect("room for it"))
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let (mut memory_kib, mut cpu) = (0, Duration::ZERO);
    while child.try_wait().expect("it is ours").is_none() {
        if let Some((memory, time)) = cost(&child) {
            (memory_kib, cpu) = (memory_kib.max(memory), cpu.max(time));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().expect("it has ended");
    assert!(status.success(), "{name}: {status:?}");
    let report = std::fs::read(report).expect("it was written");
    Cost { report: serde_json::from_slice(&report).expect("one object"), memory_kib, cpu }
}

/// The largest memory so far, and the processor time.
fn cost(child: &Child) -> Option<(u64, Duration)> {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).ok();
    let status = of("status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    let stat = of("stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((memory, Duration::from_millis(ticks * 10)))
}

#[test]
fn bombs_end_within_their_limits_and_are_never_clean() {
    let mut layers = copies("zeros", &vec![0; 1 << 20], 16);
    for _ in 0..5 {
        layers = copies(".zip", &layers, 16);
    }
    let mut deep = copies("eicar.com.txt", &eicar(), 1);
    for _ in 0..30 {
        deep = copies(".zip", &deep, 1);
    }
    let many = copies("file.txt", b"x", 20_000);
    let gz = gzip(&zeros(1024));
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bomb, word) in [
        ("42.zip", layers, "over-limits"),
        ("deep.zip", deep, "over-limits"),
        ("many.zip", many, "over-limits"),
        ("gz.gz.gz", gzipped(&gzipped(&gz)), "over-limits"),
        ("gz.gz", gz, "over-limits"),
        ("shared.zip", shared_data(250), "overlapping-members"),
        ("quoted.zip", quoted_overlap(200), "overlapping-members"),
        ("dictionary.xz", xz_dictionary(), "over-limits"),
        ("window.zst", zstd_window(), "over-limits"),
        ("dictionary.7z", sevenz_dictionary(), "over-limits"),
    ] {
        let Cost { report, memory_kib, cpu } = scan(folder.path(), name, bomb);
        let findings = report["findings"].as_array().expect("a list");
        println!("{name}: {memory_kib} KiB, {cpu:?}, {} parts", report["parts"].as_array().map_or(0, Vec::len));
        assert_eq!(report["verdict"], "unchecked", "{name}: {findings:?}");
        assert!(findings.iter().any(|finding| finding["name"] == word), "{name}: {findings:?}");
        assert!(memory_kib < MEMORY_KIB, "{name}: {memory_kib} KiB");
        assert!(cpu < CPU, "{name}: {cpu:?}");
    }
}

/// Messages made to exhaust whoever takes them apart.
#[test]
fn messages_that_are_bombs_end_within_their_limits_too() {
    const HEAD: &str = "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n";
    let mut nested = HEAD.to_owned();
    for level in 0..3000 {
        nested += &format!("Content-Type: multipart/mixed; boundary=B{level}\r\n\r\n--B{level}\r\n");
    }
    let parts = "--A\r\n\r\nx\r\n".repeat(200_000);
    let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
    let line = "x".repeat(1_000_000);
    let text = "A hundred million bytes in lines of sixty-four characters each\r\n".repeat(1_562_500);
    let dashes = "--A\r\n".repeat(4_000_000);
    let boundaries: String = (0..200).map(|number| format!("; boundary=b{number}")).collect();
    let several = format!("{HEAD}Content-Type: multipart/mixed{boundaries}\r\n\r\n");
    let several = several + &(0..200_000).map(|number| format!("--b{}\r\n\r\n", number % 200)).collect::<String>();
    let stray =
        format!("{HEAD}{}Content-Type: multipart/mixed; boundary=A\r\n", "stray\r\n \r\nA: b\rC: d\r\n".repeat(40_000));
    let folder = tempfile::tempdir().expect("a folder");
    for (name, message, category) in [
        ("nested multiparts", nested, "unchecked"),
        ("parts", format!("{HEAD}Content-Type: multipart/mixed; boundary=A\r\n\r\n{parts}--A--\r\n"), "unchecked"),
        ("nested messages", format!("{HEAD}{messages}end\r\n"), "unchecked"),
        ("a long line", format!("{HEAD}Subject: {line}\r\n\r\nx\r\n"), "bad-header"),
        ("a long parameter", format!("{HEAD}Content-Type: text/plain; name=\"{line}\"\r\n\r\nx\r\n"), "unchecked"),
        ("100 MB of text", format!("{HEAD}\r\n{text}"), "unchecked"),
        (
            "100 MB of base64",
            format!("{HEAD}Content-Transfer-Encoding: base64\r\n\r\n{}", "QUJD".repeat(24_999_000)),
            "unchecked",
        ),
        ("delimiters", format!("{HEAD}Content-Type: multipart/mixed; boundary=B\r\n\r\n{dashes}"), "bad-header"),
        ("several boundaries", several, "unchecked"),
        ("stray lines", stray + "\r\nx", "unchecked"),
    ] {
        let Cost { report, memory_kib, cpu } = scan_message(folder.path(), name, message.as_bytes());
        println!("{name}: {memory_kib} KiB, {cpu:?}, {} parts", report["parts"].as_array().map_or(0, Vec::len));
        let verdict = report["verdict"].as_str().expect("a category");
        assert!(verdict == category || verdict == "oversized", "{name}: {verdict} {:?}", report["findings"]);
        assert!(memory_kib < MEMORY_KIB, "{name}: {memory_kib} KiB");
        assert!(cpu < CPU, "{name}: {cpu:?}");
    }
}
