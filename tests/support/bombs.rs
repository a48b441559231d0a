// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives, documents and messages made to exhaust whoever takes them apart: memory, processor time, or the number of things.
//!
//! All are made here, byte by byte where no packer would make them. `ALL` has them as messages, for `tests/scan` and `make bench-bombs`.

use std::io::{Cursor, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};
use zip::write::SimpleFileOptions;

use crate::letters::eicar;

/// A bomb: its name, and what makes the message.
pub type Bomb = (&'static str, fn() -> Vec<u8>);

/// The usual ones, then those that go for one decoder.
pub const ALL: [Bomb; 47] = [
    ("42.zip", || attached("42.zip", layers())),
    ("30 zips in each other", || attached("deep.zip", deep())),
    ("20 000 files in a zip", || attached("many.zip", copies("file.txt", b"x", 20_000))),
    ("zip, shared data", || attached("shared.zip", shared_data(250))),
    ("zip, quoted overlap", || attached("quoted.zip", quoted_overlap(200))),
    ("gz, 1 GiB", || attached("gz.gz", gzip(&zeros(1024)))),
    ("gz of gz of gz", || attached("gz.gz.gz", gzipped(&gzipped(&gzip(&zeros(1024)))))),
    ("xz, 4 GiB dictionary", || attached("dictionary.xz", xz_dictionary())),
    ("lzma, 4 GiB dictionary", || attached("dictionary.lzma", lzma_dictionary())),
    ("lzip, 512 MiB dictionary", || attached("dictionary.lz", lzip_dictionary())),
    ("zstd, 2 GiB window", || attached("window.zst", zstd_window())),
    ("zstd, 4 GiB", || attached("zeros.zst", zstd_zeros())),
    ("lz4, 4 GiB", || attached("zeros.lz4", lz4_zeros())),
    ("bzip2, 2 GiB", || attached("zeros.bz2", bzip2_zeros())),
    ("7z, 1.5 GiB dictionary", || attached("dictionary.7z", sevenz_dictionary())),
    ("rar5, 4 GiB dictionary", || attached("dictionary.rar", rar_dictionary())),
    ("tar.gz, 400 000 files", || attached("many.tar.gz", many_tar())),
    ("ar, 300 000 files", || attached("many.a", many_ar())),
    ("cpio, 300 000 files", || attached("many.cpio", many_cpio())),
    ("ole, chain without end", || attached("loop.doc", ole_loop())),
    ("pdf, objects in circles", || attached("loop.pdf", pdf_loop())),
    ("pdf, filters in a row", || attached("filters.pdf", pdf_filters())),
    ("pdf, 40 large streams", || attached("streams.pdf", pdf_streams())),
    ("rtf, 200 000 objects in each other", || attached("groups.rtf", rtf_groups())),
    ("rtf, 20 000 objects", || attached("objects.rtf", rtf_objects())),
    ("tnef, 25 in each other", || attached("winmail.dat", nested_tnef())),
    ("uuencode without end", || text(&uuencode_without_end())),
    ("200 000 uuencode blocks", || text(&"begin 644 x\r\n#0V%T\r\n`\r\nend\r\n".repeat(200_000))),
    ("3 000 nested multiparts", nested_multiparts),
    ("3 000 nested multiparts, one boundary", nested_alike),
    ("200 000 parts", many_parts),
    ("100 000 nested messages", nested_messages),
    ("60 nested messages, encoded", encoded_messages),
    ("4 million delimiters", delimiters),
    ("200 boundaries", several_boundaries),
    ("a line of 1 MB in the header", || format!("{HEAD}Subject: {}\r\n\r\nx\r\n", "x".repeat(1_000_000)).into_bytes()),
    ("a parameter of 1 MB", || with_type(&format!("text/plain; name=\"{}\"", "x".repeat(1_000_000)))),
    ("100 000 parameters", || with_type(&format!("text/plain{}", numbered(100_000, |n| format!("; name*{n}=x"))))),
    ("200 000 encoded words", || with_type(&format!("text/plain; name=\"{}\"", "=?utf-8?q?a?= ".repeat(200_000)))),
    ("1 million comments", || with_type(&format!("text/plain {}; name=x", "(".repeat(1_000_000)))),
    ("200 000 header fields", || {
        format!("{HEAD}{}\r\nx\r\n", numbered(200_000, |n| format!("X-{n}: x\r\n"))).into_bytes()
    }),
    ("200 000 Content-Type fields", || {
        format!("{HEAD}{}\r\nx\r\n", "Content-Type: text/plain\r\n".repeat(200_000)).into_bytes()
    }),
    ("stray lines in the header", stray_lines),
    ("100 MB of text", || {
        text(&"A hundred million bytes in lines of sixty-four characters each\r\n".repeat(1_562_500))
    }),
    ("100 MB of base64", || encoded("base64", &"QUJD".repeat(24_999_000))),
    ("100 MB of quoted-printable", || encoded("quoted-printable", &"=41=42=43=44=45=46=47=48=\r\n".repeat(3_700_000))),
    ("100 MB of soft line ends", || encoded("quoted-printable", &"=\r\n".repeat(33_000_000))),
];

/// Fields that every message should have.
const HEAD: &str = "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n";

/// A message with this attachment.
pub fn attached(name: &str, content: Vec<u8>) -> Vec<u8> {
    let mut message =
        with_type(&format!("application/octet-stream; name=\"{name}\"\r\nContent-Transfer-Encoding: base64"));
    message.truncate(message.len() - 3);
    for line in base64(&content).as_bytes().chunks(76) {
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    message
}

fn text(body: &str) -> Vec<u8> {
    format!("{HEAD}\r\n{body}").into_bytes()
}

fn encoded(encoding: &str, body: &str) -> Vec<u8> {
    format!("{HEAD}Content-Transfer-Encoding: {encoding}\r\n\r\n{body}").into_bytes()
}

fn with_type(kind: &str) -> Vec<u8> {
    format!("{HEAD}Content-Type: {kind}\r\n\r\nx\r\n").into_bytes()
}

fn numbered(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect()
}

fn nested_multiparts() -> Vec<u8> {
    let levels = |level| format!("Content-Type: multipart/mixed; boundary=B{level}\r\n\r\n--B{level}\r\n");
    format!("{HEAD}{}", numbered(3000, levels)).into_bytes()
}

fn nested_alike() -> Vec<u8> {
    format!("{HEAD}{}", "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n".repeat(3000)).into_bytes()
}

fn many_parts() -> Vec<u8> {
    let parts = "--A\r\n\r\nx\r\n".repeat(200_000);
    format!("{HEAD}Content-Type: multipart/mixed; boundary=A\r\n\r\n{parts}--A--\r\n").into_bytes()
}

fn nested_messages() -> Vec<u8> {
    format!("{HEAD}{}end\r\n", "Content-Type: message/rfc822\r\n\r\n".repeat(100_000)).into_bytes()
}

/// Messages in messages, each encoded as a whole.
fn encoded_messages() -> Vec<u8> {
    let head = format!("{HEAD}Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
    format!("{}the innermost\r\n", head.repeat(60)).into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0u32, |sum, at| sum << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn delimiters() -> Vec<u8> {
    format!("{HEAD}Content-Type: multipart/mixed; boundary=B\r\n\r\n{}", "--A\r\n".repeat(4_000_000)).into_bytes()
}

fn several_boundaries() -> Vec<u8> {
    let boundaries = numbered(200, |number| format!("; boundary=b{number}"));
    let lines = numbered(200_000, |number| format!("--b{}\r\n\r\n", number % 200));
    format!("{HEAD}Content-Type: multipart/mixed{boundaries}\r\n\r\n{lines}").into_bytes()
}

fn stray_lines() -> Vec<u8> {
    let stray = "stray\r\n \r\nA: b\rC: d\r\n".repeat(40_000);
    format!("{HEAD}{stray}Content-Type: multipart/mixed; boundary=A\r\n\r\nx").into_bytes()
}

fn uuencode_without_end() -> String {
    format!("begin 644 x\r\n{}", "M0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T0V%T\r\n".repeat(1_500_000))
}

/// Six layers of sixteen zips, with 16 MiB in each of the innermost.
fn layers() -> Vec<u8> {
    let mut layers = copies("zeros", &vec![0; 1 << 20], 16);
    for _ in 0..5 {
        layers = copies(".zip", &layers, 16);
    }
    layers
}

/// The file that every scanner knows, thirty zips down.
fn deep() -> Vec<u8> {
    let mut deep = copies("eicar.com.txt", &eicar(), 1);
    for _ in 0..30 {
        deep = copies(".zip", &deep, 1);
    }
    deep
}

/// An .lzma that asks for a dictionary of 4 GiB and does not say how long it is.
fn lzma_dictionary() -> Vec<u8> {
    [&b"\x5d\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], &[0; 64]].concat()
}

/// A .lz that asks for the largest dictionary of its format.
fn lzip_dictionary() -> Vec<u8> {
    [&b"LZIP\x01\x1d"[..], &[0; 64]].concat()
}

/// Blocks of 128 KiB of one byte each (RFC 8878 section 3.1.1.2), without end.
fn zstd_zeros() -> Vec<u8> {
    // RLE, not the last one, regenerated size 128 KiB.
    let block = (131_072u32 << 3 | 1 << 1).to_le_bytes();
    let block = [&block[..3], &[0]].concat();
    // Window of 128 KiB, no size, no checksum.
    [&b"\x28\xb5\x2f\xfd\0\x38"[..], &block.repeat(32_768), &[1, 0, 0]].concat()
}

/// Blocks of 4 MiB of one byte each (LZ4 frame format 1.6), without end.
fn lz4_zeros() -> Vec<u8> {
    // One literal, a match of all but the last five, which are literals.
    let mut block = vec![0x1f, 0, 1, 0];
    block.extend(std::iter::repeat_n(255, (4_194_304 - 6 - 19) / 255));
    block.push(u8::try_from((4_194_304 - 6 - 19) % 255).expect("a remainder"));
    block.extend([0x50, 0, 0, 0, 0, 0]);
    let size = u32::try_from(block.len()).expect("small").to_le_bytes();
    // Version 1, blocks on their own, 4 MiB; the header's checksum is XXH32 of these two, second byte.
    let blocks = [&size[..], &block].concat().repeat(1024);
    [&b"\x04\x22\x4d\x18\x60\x70\x73"[..], &blocks, &[0; 4]].concat()
}

/// bzip2 streams of 45 899 236 zeros each, one after the other; a stream of that many zeros is its smallest.
fn bzip2_zeros() -> Vec<u8> {
    let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    packer.write_all(&vec![0; 45_899_236]).expect("memory takes it");
    packer.finish().expect("memory takes it").repeat(45)
}

/// A RAR 5 archive whose one file asks for a dictionary of 4 GiB.
fn rar_dictionary() -> Vec<u8> {
    // Compression method 3, dictionary 128 KiB << 15.
    let method = 3 << 7 | 15 << 10;
    let information = [(method & 0x7f | 0x80) as u8, (method >> 7) as u8];
    let file = [&[2, 2, 32, 0, 0x80, 0x80, 0x80, 0x80, 8, 0][..], &information, &[0, 1, b'a']].concat();
    let block = |fields: &[u8]| {
        let sized = [&[u8::try_from(fields.len()).expect("short")][..], fields].concat();
        [&crc(&sized).to_le_bytes()[..], &sized].concat()
    };
    let main = block(&[1, 0, 0]);
    [&b"Rar!\x1a\x07\x01\0"[..], &main, &block(&file), &[0; 32], &block(&[5, 0, 0])].concat()
}

/// Empty files (POSIX.1-1988 ustar), packed.
fn many_tar() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..1].copy_from_slice(b"a");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(b"00000000000\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    gzipped(&header.repeat(400_000))
}

fn many_ar() -> Vec<u8> {
    let member = format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "a/", 0, 0, 0, 644, 0);
    format!("!<arch>\n{}", member.repeat(300_000)).into_bytes()
}

fn many_cpio() -> Vec<u8> {
    // Name "a" and its NUL: header and name end at a multiple of four.
    let fields = [0, 0o100_644, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0];
    let numbers: String = fields.iter().map(|field| format!("{field:08X}")).collect();
    format!("070701{numbers}a\0").repeat(300_000).into_bytes()
}

/// A compound file ([MS-CFB]) whose directory and whose streams follow a chain that never ends.
fn ole_loop() -> Vec<u8> {
    let mut header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    header.resize(24, 0);
    for word in [0x3eu16, 3, 0xfffe, 9, 6, 0, 0, 0] {
        header.extend(word.to_le_bytes());
    }
    // No directory count in version 3, one FAT sector, the directory begins in sector 1, no mini FAT, no DIFAT.
    for word in [0u32, 1, 1, 0, 4096, 0xffff_fffe, 0, 0xffff_fffe, 0, 0] {
        header.extend(word.to_le_bytes());
    }
    header.resize(512, 0xff);
    // Sector 1 leads to 2, that to 3, and that back to 1.
    let mut fat: Vec<u8> = [0xffff_fffdu32, 2, 3, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    fat.resize(512, 0xff);
    let entry = |name: &str, kind: u8, child: u32, size: u32| {
        let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry.resize(64, 0);
        entry.extend(u16::try_from(2 * name.len() + 2).expect("short").to_le_bytes());
        entry.extend([kind, 1]);
        [u32::MAX, u32::MAX, child].iter().for_each(|word| entry.extend(word.to_le_bytes()));
        entry.resize(116, 0);
        [1u32, size, 0].iter().for_each(|word| entry.extend(word.to_le_bytes()));
        entry
    };
    let root = entry("Root Entry", 5, 1, 4096);
    let streams = entry("Package", 2, u32::MAX, 0x7fff_0000).repeat(11);
    [header, fat, root, streams].concat()
}

/// Pages whose kids are their parents, streams whose length is themselves, object streams that extend each other.
fn pdf_loop() -> Vec<u8> {
    let mut pdf = String::from("%PDF-1.5\n1 0 obj <</Type/Catalog /Pages 2 0 R /Names 1 0 R>> endobj\n");
    for number in 2..50_000 {
        let next = number + 1;
        pdf += &format!(
            "{number} 0 obj <</Type/ObjStm /N 9999999 /First {number} 0 R /Extends {next} 0 R /Length {number} 0 R \
             /Kids[{next} 0 R 2 0 R] /EF<</F {number} 0 R>>>> stream\nendobj\n"
        );
    }
    (pdf + "trailer <</Root 1 0 R /Prev 0>>\nstartxref\n0\n%%EOF\n").into_bytes()
}

/// One stream that is packed again and again.
fn pdf_filters() -> Vec<u8> {
    let mut packed = vec![0; 20 << 20];
    for _ in 0..6 {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&packed).expect("memory takes it");
        packed = packer.finish().expect("memory takes it");
    }
    let filters = "/FlateDecode ".repeat(5000);
    let head = format!("%PDF-1.5\n1 0 obj <</Type/EmbeddedFile /Filter[{filters}] /Length {}>> stream\n", packed.len());
    [head.as_bytes(), &packed, b"\nendstream endobj\n%%EOF\n"].concat()
}

fn pdf_streams() -> Vec<u8> {
    let packed = [&b"\x78\xda"[..], &zeros(40)].concat();
    let mut pdf = b"%PDF-1.5\n".to_vec();
    for number in 1..=40 {
        let length = packed.len();
        let head = format!("{number} 0 obj <</Type/EmbeddedFile /Filter/FlateDecode /Length {length}>> stream\n");
        pdf.extend([head.as_bytes(), &packed, b"\nendstream endobj\n"].concat());
    }
    pdf.extend_from_slice(b"%%EOF\n");
    pdf
}

fn rtf_groups() -> Vec<u8> {
    format!("{{\\rtf1{}", "{\\object{\\*\\objdata ".repeat(200_000)).into_bytes()
}

fn rtf_objects() -> Vec<u8> {
    format!("{{\\rtf1{}}}", "{\\object\\objemb{\\*\\objdata 0105000002000000}}".repeat(20_000)).into_bytes()
}

/// TNEF streams ([MS-OXTNEF]) as attachments of each other.
fn nested_tnef() -> Vec<u8> {
    let attribute = |level: u8, id: u32, data: &[u8]| {
        let sum: u16 = data.iter().fold(0, |sum: u16, byte| sum.wrapping_add(u16::from(*byte)));
        let size = u32::try_from(data.len()).expect("small").to_le_bytes();
        [&[level][..], &id.to_le_bytes(), &size, data, &sum.to_le_bytes()].concat()
    };
    let mut inner = b"the innermost".to_vec();
    for _ in 0..25 {
        // attAttachRenddata, attAttachTitle, attAttachData.
        let parts = [
            attribute(2, 0x0006_9002, &[0; 14]),
            attribute(2, 0x0001_8010, b"winmail.dat\0"),
            attribute(2, 0x0006_800f, &inner),
        ];
        inner = [&b"\x78\x9f\x3e\x22\x01\0"[..], &parts.concat()].concat();
    }
    inner
}

fn crc(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// Deflated zeros, so many MiB of them: one block, again and again, since each ends at a byte and refers to none before.
pub fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut packer = Compress::new(Compression::best(), false);
    let (plain, mut block) = (vec![0; 1 << 20], vec![0; 1 << 16]);
    packer.compress(&plain, &mut block, FlushCompress::Full).expect("the buffer is large enough");
    block.truncate(usize::try_from(packer.total_out()).expect("it is small"));
    let mut packed = block.repeat(mebibytes);
    // The last block is empty.
    packed.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    packed
}

/// A gzip of what is deflated already.
pub fn gzip(deflated: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], deflated, &[0; 8]].concat()
}

/// Packs with gzip.
pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("memory takes it");
    packer.finish().expect("memory takes it")
}

/// A zip of so many copies of one file.
pub fn copies(name: &str, content: &[u8], count: usize) -> Vec<u8> {
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
pub fn shared_data(count: usize) -> Vec<u8> {
    let data = zeros(40);
    let mut archive = local_header("0", data.len());
    archive.extend_from_slice(&data);
    let members: Vec<_> = (0..count).map(|number| (number.to_string(), 0, data.len())).collect();
    let at = archive.len();
    archive.extend(directory(&members, at));
    archive
}

/// David Fifield's overlap: each member's data quotes the local header of the next one and goes on with its data.
pub fn quoted_overlap(count: usize) -> Vec<u8> {
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
pub fn xz_dictionary() -> Vec<u8> {
    let flags = [0, 0];
    let mut file = [&b"\xfd7zXZ\0"[..], &flags, &crc(&flags).to_le_bytes()].concat();
    let block = [2, 0, 0x21, 1, 40, 0, 0, 0];
    file.extend_from_slice(&block);
    file.extend_from_slice(&crc(&block).to_le_bytes());
    file.extend_from_slice(b"\x01\0\0x\0");
    file
}

/// A .zst that asks for a window of 2 GiB.
pub fn zstd_window() -> Vec<u8> {
    b"\x28\xb5\x2f\xfd\0\xa8\x02\0\0x\x01\0\0".to_vec()
}

/// A 7z that asks for a dictionary of 1.5 GiB.
pub fn sevenz_dictionary() -> Vec<u8> {
    let packed = [0u8; 32];
    let mut header = vec![1, 4, 6, 0, 1, 9, 32, 0, 7, 11, 1, 0, 1, 0x23, 3, 1, 1, 5, 0x5d];
    header.extend_from_slice(&0x6000_0000u32.to_le_bytes());
    header.extend_from_slice(&[12, 100, 0, 8, 0, 0, 5, 1, 17, 5, 0, b'a', 0, 0, 0, 0, 0]);
    let mut start = 32u64.to_le_bytes().to_vec();
    start.extend_from_slice(&(header.len() as u64).to_le_bytes());
    start.extend_from_slice(&crc(&header).to_le_bytes());
    [&b"7z\xbc\xaf\x27\x1c\0\x04"[..], &crc(&start).to_le_bytes(), &start, &packed, &header].concat()
}
