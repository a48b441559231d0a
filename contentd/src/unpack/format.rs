// SPDX-License-Identifier: GPL-3.0-or-later
//! Which archives a file is or hides: by magic numbers at its start, and further inside where something else comes first.
//!
//! Programs that unpack themselves carry their archive behind their code; a picture with a zip at its end is a picture to
//! one program and an archive to another. Both are opened. Extensions and declared types play no part.

use super::field::le32;
use super::{arj, tar, zip_headers};
use memchr::memmem;

/// What can be opened, and what is known and cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ZIP, and all that is made of it: OOXML, ODF, JAR, APK, EPUB, KMZ.
    Zip,
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// The older .lzma.
    Lzma,
    /// lzip.
    Lzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4 frames.
    Lz4,
    /// compress(1), .Z.
    Compress,
    /// tar in all its dialects.
    Tar,
    /// cpio: newc, crc, odc, binary.
    Cpio,
    /// ar, and with it Debian packages.
    Ar,
    /// RPM packages.
    Rpm,
    /// 7-Zip.
    SevenZip,
    /// Microsoft cabinets.
    Cab,
    /// ISO 9660 with Joliet and Rock Ridge.
    Iso,
    /// RAR 1.3 to 7.
    Rar,
    /// LHA, LZH.
    Lha,
    /// ARJ.
    Arj,
    /// winmail.dat (MS-OXTNEF).
    Tnef,
    /// Compound files (MS-CFB): old Office documents, Outlook's .msg, Windows installers.
    Ole,
    /// PDF with files or programs in it.
    Pdf,
    /// RTF with objects in it.
    Rtf,
    /// uuencoded text.
    Uuencode,
    /// BinHex 4.0 (RFC 1741).
    Binhex,
    /// MS-DOS COMPRESS.EXE.
    Szdd,
    /// Compiled HTML help.
    Chm,
    /// Installers of the Nullsoft system.
    Nsis,
    /// xar, macOS packages.
    Xar,
    /// A message as a file.
    Mail,
    /// Known by its name and nothing else.
    Unknown(&'static str),
}

impl Format {
    /// The word for it in findings.
    pub fn word(self) -> &'static str {
        self.words().0
    }

    /// The media type that members show as their container.
    pub fn media_type(self) -> &'static str {
        self.words().1
    }

    /// Formats whose decoders are large or young, written by others, or full of unsafe code: files of theirs are taken apart by a helper, not
    /// in the daemon. The rest is safe code of ours around deflate. docs/decisions/0014.
    const CONFINED: &[Format] = &[
        Format::Bzip2,
        Format::Xz,
        Format::Lzma,
        Format::Lzip,
        Format::Zstd,
        Format::Lz4,
        Format::Rpm,
        Format::SevenZip,
        Format::Cab,
        Format::Rar,
        Format::Lha,
        Format::Arj,
        Format::Chm,
        Format::Nsis,
        Format::Xar,
        Format::Zip,
    ];

    /// Whether a helper takes this file apart. A zip needs one when a member is packed by anything but deflate, or encrypted.
    pub(super) fn is_confined(self, data: &[u8]) -> bool {
        Format::CONFINED.contains(&self) && (self != Format::Zip || zip_headers::is_exotic(data))
    }

    /// Whether words are worth a try as its password.
    pub(super) fn may_be_locked(self, data: &[u8]) -> bool {
        match self {
            Format::Zip => zip_headers::is_locked(data),
            // What they say of it may be packed or encrypted itself.
            Format::SevenZip | Format::Rar => true,
            _ => false,
        }
    }

    /// The format with this word, when it is one for helpers.
    pub(super) fn confined(word: &str) -> Option<Format> {
        Format::CONFINED.iter().copied().find(|format| format.word() == word)
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Format::Zip => ("zip", "application/zip"),
            Format::Gzip => ("gzip", "application/gzip"),
            Format::Bzip2 => ("bzip2", "application/x-bzip2"),
            Format::Xz => ("xz", "application/x-xz"),
            Format::Lzma => ("lzma", "application/x-lzma"),
            Format::Lzip => ("lzip", "application/x-lzip"),
            Format::Zstd => ("zstd", "application/zstd"),
            Format::Lz4 => ("lz4", "application/x-lz4"),
            Format::Compress => ("compress", "application/x-compress"),
            Format::Tar => ("tar", "application/x-tar"),
            Format::Cpio => ("cpio", "application/x-cpio"),
            Format::Ar => ("ar", "application/x-archive"),
            Format::Rpm => ("rpm", "application/x-rpm"),
            Format::SevenZip => ("7z", "application/x-7z-compressed"),
            Format::Cab => ("cab", "application/vnd.ms-cab-compressed"),
            Format::Iso => ("iso", "application/x-iso9660-image"),
            Format::Rar => ("rar", "application/vnd.rar"),
            Format::Lha => ("lha", "application/x-lzh-compressed"),
            Format::Arj => ("arj", "application/x-arj"),
            Format::Tnef => ("tnef", "application/ms-tnef"),
            Format::Ole => ("ole", "application/x-ole-storage"),
            Format::Pdf => ("pdf", "application/pdf"),
            Format::Rtf => ("rtf", "application/rtf"),
            Format::Uuencode => ("uuencode", "text/x-uuencode"),
            Format::Binhex => ("binhex", "application/mac-binhex40"),
            Format::Szdd => ("szdd", "application/x-ms-compress-szdd"),
            Format::Chm => ("chm", "application/vnd.ms-htmlhelp"),
            Format::Nsis => ("nsis", "application/x-nsis"),
            Format::Xar => ("xar", "application/x-xar"),
            Format::Mail => ("message", "message/rfc822"),
            Format::Unknown(name) => (name, "application/octet-stream"),
        }
    }
}

/// One way to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// As what.
    pub format: Format,
    /// From where on.
    pub offset: usize,
    /// Whether the file is of this format beyond doubt, so that failing to open it is worth a finding.
    pub certain: bool,
}

/// Formats whose first bytes are enough.
const MAGICS: &[(&[u8], Format)] = &[
    (b"PK\x03\x04", Format::Zip),
    (b"PK\x05\x06", Format::Zip),
    (b"PK\x06\x06", Format::Zip),
    (b"PK00PK\x03\x04", Format::Zip),
    (b"PK\x07\x08PK\x03\x04", Format::Zip),
    (b"\x1f\x8b", Format::Gzip),
    (b"\x1f\x9d", Format::Compress),
    (b"\xfd7zXZ\x00", Format::Xz),
    (b"LZIP\x01", Format::Lzip),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
    (b"\x04\x22\x4d\x18", Format::Lz4),
    (b"\x02\x21\x4c\x18", Format::Lz4),
    (b"070701", Format::Cpio),
    (b"070702", Format::Cpio),
    (b"070707", Format::Cpio),
    (b"\xc7\x71", Format::Cpio),
    (b"\x71\xc7", Format::Cpio),
    (b"!<arch>\n", Format::Ar),
    (b"\xed\xab\xee\xdb", Format::Rpm),
    (b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
    (b"MSCF\0\0\0\0", Format::Cab),
    (b"Rar!\x1a\x07", Format::Rar),
    (b"RE~^", Format::Rar),
    (b"\x78\x9f\x3e\x22", Format::Tnef),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Format::Ole),
    (b"{\\rt", Format::Rtf),
    (b"SZDD\x88\xf0\x27\x33", Format::Szdd),
    (b"SZ \x88\xf0\x27\x33\xd1", Format::Szdd),
    (b"ITSF\x03\0\0\0", Format::Chm),
    (b"xar!", Format::Xar),
    (b"\x89LZO\x00\x0d\x0a\x1a\x0a", Format::Unknown("lzop")),
    (b"LRZI", Format::Unknown("lrzip")),
    (b"GRZipII\x00", Format::Unknown("grzip")),
    (b"KWAJ\x88\xf0\x27\xd1", Format::Unknown("kwaj")),
    (b"ZOO ", Format::Unknown("zoo")),
    (b"ISc(", Format::Unknown("installshield")),
    (b"MSWIM\0\0\0", Format::Unknown("wim")),
    (b"ALZ\x01", Format::Unknown("alz")),
    (b"EGGA", Format::Unknown("egg")),
    (b"hsqs", Format::Unknown("squashfs")),
    (b"StuffIt (c)1997-", Format::Unknown("stuffit")),
    (b"\x1f\xa0", Format::Unknown("lzh")),
    (b"\x1f\x1e", Format::Unknown("pack")),
];

/// Magic numbers so long that they mean an archive wherever they stand.
const INSIDE: &[(&[u8], usize, Format)] = &[
    (b"7z\xbc\xaf\x27\x1c", 0, Format::SevenZip),
    (b"Rar!\x1a\x07", 0, Format::Rar),
    (b"MSCF\0\0\0\0", 0, Format::Cab),
    (b"\xef\xbe\xad\xdeNullsoftInst", 4, Format::Nsis),
];

/// How far a PDF may begin behind the start of its file.
const PDF_START: usize = 1024;
/// How much of a text is looked at for something encoded.
const TEXT: usize = 4 << 20;

/// All ways in which a file can be opened; empty for one that holds nothing.
pub fn candidates(data: &[u8]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let primary = at_start(data);
    if let Some(format) = primary {
        found.push(Candidate { format, offset: 0, certain: true });
    }
    let mut add = |format, offset| {
        if !found.iter().any(|other| other.format == format) {
            found.push(Candidate { format, offset, certain: false });
        }
    };
    // A zip is read from its end: one that stands at the end of another file is a zip to every program that opens zips.
    if zip_headers::ends_a_file(data) {
        add(Format::Zip, 0);
    }
    if primary.is_none() && may_have_magic(data) {
        inside(data, &mut add);
    }
    found
}

/// Whether a file that reads as text holds something all the same.
pub fn may_hold(data: &[u8]) -> bool {
    !candidates(data).is_empty()
}

fn at_start(data: &[u8]) -> Option<Format> {
    if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| data.starts_with(magic)) {
        return Some(*format);
    }
    let checks: [(bool, Format); 9] = [
        (is_bzip2(data), Format::Bzip2),
        (tar::is_header(data), Format::Tar),
        (data.get(0x8001..0x8006) == Some(b"CD001"), Format::Iso),
        (data.get(0x8001..0x8006) == Some(b"BEA01"), Format::Unknown("udf")),
        (is_lha(data), Format::Lha),
        (arj::is_header(data), Format::Arj),
        (data.get(7..14) == Some(b"**ACE**"), Format::Unknown("ace")),
        (is_skippable_zstd(data), Format::Zstd),
        (is_lzma(data), Format::Lzma),
    ];
    if let Some((_, format)) = checks.into_iter().find(|(found, _)| *found) {
        return Some(format);
    }
    if memmem::find(&data[..data.len().min(PDF_START)], b"%PDF-").is_some() {
        return Some(Format::Pdf);
    }
    text(&data[..data.len().min(TEXT)])
}

/// Every magic number looked for inside has one of these bytes; text has none. Most of mail is text.
fn may_have_magic(data: &[u8]) -> bool {
    memchr::memchr3(0, 7, 0x1c, data).is_some() || memchr::memchr2(3, 5, data).is_some()
}

fn inside(data: &[u8], add: &mut dyn FnMut(Format, usize)) {
    for (magic, back, format) in INSIDE {
        if let Some(at) = memmem::find(data, magic) {
            add(*format, at.saturating_sub(*back));
        }
    }
    if zip_headers::first_local(data).is_some() || zip_headers::has_end(data) {
        add(Format::Zip, 0);
    }
    if data.starts_with(b"MZ") {
        if let Some(at) = memmem::find_iter(data, b"-lh").map(|at| at.saturating_sub(2)).find(|at| is_lha(&data[*at..]))
        {
            add(Format::Lha, at);
        }
        if let Some(at) = memmem::find_iter(data, b"\x60\xea").find(|at| arj::is_header(&data[*at..])) {
            add(Format::Arj, at);
        }
    }
}

/// A level and the magic number of a block, or of the end when nothing was packed.
fn is_bzip2(data: &[u8]) -> bool {
    data.starts_with(b"BZh")
        && matches!(data.get(3), Some(b'1'..=b'9'))
        && matches!(data.get(4..10), Some(b"\x31\x41\x59\x26\x53\x59" | b"\x17\x72\x45\x38\x50\x90"))
}

/// `-lh5-` and its like behind two bytes, in a header of one of the four levels.
fn is_lha(data: &[u8]) -> bool {
    let Some(method) = data.get(2..7) else { return false };
    let known = matches!(method, [b'-', b'l', b'h' | b'z', _, b'-'] | [b'-', b'p', b'm', _, b'-']);
    known && data.get(20).is_some_and(|level| *level <= 3)
}

fn is_skippable_zstd(data: &[u8]) -> bool {
    let skipped = le32(data, 0).is_some_and(|magic| magic & 0xffff_fff0 == 0x184d_2a50);
    let length = le32(data, 4).map_or(0, |length| length as usize);
    skipped && data.get(length.saturating_add(8)..).is_some_and(|rest| rest.starts_with(b"\x28\xb5\x2f\xfd"))
}

/// The header of .lzma has no magic number: properties as every packer writes them, a round dictionary, a sane size.
fn is_lzma(data: &[u8]) -> bool {
    let (Some(&properties), Some(dictionary)) = (data.first(), le32(data, 1)) else { return false };
    let size = super::field::le64(data, 5).unwrap_or_default();
    let round = dictionary.is_power_of_two() || (dictionary / 3).is_power_of_two() && dictionary.is_multiple_of(3);
    properties == 0x5d
        && (dictionary == u32::MAX || round && dictionary >= 4096)
        && (size == u64::MAX || size < 1 << 38)
        && data.len() > 13
        && data.get(13) == Some(&0)
}

/// Something encoded within text, or a message.
fn text(data: &[u8]) -> Option<Format> {
    let head = &data[..data.len().min(4096)];
    if head.iter().filter(|byte| matches!(byte, 0..=8)).count() > 0 {
        return None;
    }
    if memmem::find(head, b"(This file must be converted with BinHex").is_some() {
        return Some(Format::Binhex);
    }
    if is_mail(head) {
        return Some(Format::Mail);
    }
    super::uuencode::first(data).map(|_| Format::Uuencode)
}

/// Fields of which two say that a text is a message.
const FIELDS: [&str; 14] = [
    "received",
    "from",
    "to",
    "date",
    "subject",
    "message-id",
    "mime-version",
    "content-type",
    "return-path",
    "content-transfer-encoding",
    "reply-to",
    "delivered-to",
    "dkim-signature",
    "x-mailer",
];

/// Whether a text begins with a header section: all lines are fields, two different ones at least are well known.
fn is_mail(head: &[u8]) -> bool {
    let mut known = Vec::new();
    for (number, line) in head.split(|byte| *byte == b'\n').take(60).enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") || number == 0 && line.starts_with(b"From ") {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { break };
        let name = line[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if FIELDS.contains(&name.as_str()) && !known.contains(&name) {
            known.push(name);
        }
        if known.len() > 1 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn formats(data: &[u8]) -> Vec<(Format, usize)> {
        candidates(data).iter().map(|candidate| (candidate.format, candidate.offset)).collect()
    }

    #[test]
    fn by_the_first_bytes() {
        for (data, format) in [
            (&b"PK\x03\x04\x14\0"[..], Format::Zip),
            (b"\x1f\x8b\x08\0", Format::Gzip),
            (b"BZh91AY&SY", Format::Bzip2),
            (b"\xfd7zXZ\0\0\0", Format::Xz),
            (b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0\x20", Format::Lzma),
            (b"7z\xbc\xaf\x27\x1c\0\x04", Format::SevenZip),
            (b"{\\rtf1 x}", Format::Rtf),
            (b"junk\n%PDF-1.4", Format::Pdf),
            (b"a text\nbegin 644 a.exe\n#86%T\n`\nend\n", Format::Uuencode),
            (b"Received: from a\r\n by b\r\nSubject: x\r\n\r\nhello", Format::Mail),
            (b"From a@b Thu\nFrom: a\nTo: b\n\nhello", Format::Mail),
            (b"\x89LZO\x00\x0d\x0a\x1a\x0a", Format::Unknown("lzop")),
        ] {
            assert_eq!(formats(data), [(format, 0)], "{data:?}");
        }
    }

    #[test]
    fn what_is_no_archive() {
        for data in [
            &b""[..],
            b"Hello\r\n",
            b"To begin 7 days late is late.\n",
            b"begin with the end\n",
            b"Note: this is no message\nSubject\n",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            b"MZ\x90\0",
            b"PK\x03",
        ] {
            assert_eq!(formats(data), [], "{data:?}");
        }
    }

    #[test]
    fn behind_something_else() {
        let behind = |start: &[u8], rest: &[u8]| formats(&[start, rest].concat());
        assert_eq!(behind(b"MZ\x90\0code", b"7z\xbc\xaf\x27\x1c"), [(Format::SevenZip, 8)]);
        assert_eq!(behind(b"\x89PNG\r\n", b"Rar!\x1a\x07\0"), [(Format::Rar, 6)]);
        let end = [&b"PK\x05\x06"[..], &[0; 18]].concat();
        assert_eq!(behind(b"%PDF-1.4\n", &end), [(Format::Pdf, 0), (Format::Zip, 0)]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_candidates_within_them(data: Vec<u8>) {
            for candidate in candidates(&data) {
                prop_assert!(candidate.offset <= data.len());
            }
        }
    }
}
