// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted Office documents, made here after the specification in all ways that are opened. Documents that Office itself has encrypted are in the corpus
//! (tests/corpus).

use crate::unpack::ciphers::{Hash, cbc_encrypt, rc4};
use crate::unpack::locked_tests::open;
use crate::unpack::tests::compound;
use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use proptest::prelude::*;
use std::io::Write;

const SALT: &[u8; 16] = b"salt of sixteen.";
const SWEATSHOP: &str = "VelvetSweatshop";

fn wide(word: &str) -> Vec<u8> {
    word.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let number = three.iter().chain(&[0, 0]).take(3).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let signs = (0..4).map(|place| char::from(ALPHABET[(number >> (18 - 6 * place)) as usize & 63]));
        signs.take(three.len() + 1).collect::<String>()
    };
    let text: String = bytes.chunks(3).map(group).collect();
    text + &"="[..].repeat((3 - bytes.len() % 3) % 3)
}

/// A document with macros of Excel 4, as a zip.
fn package() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [("[Content_Types].xml", &b"<Types/>"[..]), ("xl/macrosheets/sheet1.xml", b"<xml/>")] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    // More than one segment.
    zip.start_file(
        "xl/media/a.bin",
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
    )
    .unwrap();
    zip.write_all(&[7; 5000]).unwrap();
    zip.finish().unwrap().into_inner()
}

fn filled(data: &[u8]) -> Vec<u8> {
    let mut filled = data.to_vec();
    filled.resize(data.len().next_multiple_of(16), 0);
    filled
}

fn agile(word: &str, hash: Hash, name: &str, rounds: u32, asked: u32) -> Vec<u8> {
    let mut spun = hash.of(&[SALT, &wide(word)]);
    for round in 0..rounds {
        spun = hash.of(&[&round.to_le_bytes(), &spun]);
    }
    let with = |purpose: &[u8], data: &[u8]| {
        let key: [u8; 16] = hash.of(&[&spun, purpose])[..16].try_into().unwrap();
        base64(&cbc_encrypt(&key, SALT, &filled(data)))
    };
    let (input, key) = (b"any sixteen byte", b"the key of the d");
    let cipher = format!(
        "saltSize=\"16\" blockSize=\"16\" keyBits=\"128\" hashSize=\"1\" cipherAlgorithm=\"AES\" cipherChaining=\"ChainingModeCBC\" hashAlgorithm=\"{name}\" saltValue=\"{}\"",
        base64(SALT)
    );
    let xml = format!(
        "<?xml version=\"1.0\"?>\r\n<encryption xmlns:p=\"x\"><keyData {cipher}/><keyEncryptors><keyEncryptor uri=\"x\"><p:encryptedKey spinCount=\"{asked}\" {cipher} encryptedVerifierHashInput=\"{}\" encryptedVerifierHashValue=\"{}\" encryptedKeyValue=\"{}\"/></keyEncryptor></keyEncryptors></encryption>",
        with(b"\xfe\xa7\xd2\x76\x3b\x4b\x9e\x79", input),
        with(b"\xd7\xaa\x0f\x6d\x30\x61\x34\x4e", &hash.of(&[input])),
        with(b"\x14\x6e\x0b\xe7\xab\xac\xd0\xd6", key),
    );
    let mut content = (package().len() as u64).to_le_bytes().to_vec();
    for (number, segment) in (0u32..).zip(package().chunks(4096)) {
        let iv: [u8; 16] = hash.of(&[SALT, &number.to_le_bytes()])[..16].try_into().unwrap();
        content.extend(cbc_encrypt(key, &iv, &filled(segment)));
    }
    let info = [b"\x04\0\x04\0\x40\0\0\0", xml.as_bytes()].concat();
    compound("Root", &[("EncryptionInfo", info), ("EncryptedPackage", content)])
}

/// EncryptionHeader and EncryptionVerifier.
fn crypto_api(algorithm: u32, bits: u32, verifier: &[u8]) -> Vec<u8> {
    let mut header: Vec<u8> =
        [4u32, 0, algorithm, 0x8004, bits, 1, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    header.extend(wide("Any Cryptographic Provider\0"));
    let length = (header.len() as u32).to_le_bytes();
    [
        b"\x04\0\x02\0\x04\0\0\0",
        &length[..],
        &header,
        &16u32.to_le_bytes(),
        SALT,
        &verifier[..16],
        &20u32.to_le_bytes(),
        &verifier[16..],
    ]
    .concat()
}

fn standard(word: &str) -> Vec<u8> {
    let mut spun = Hash::Sha1.of(&[SALT, &wide(word)]);
    for round in 0..50_000u32 {
        spun = Hash::Sha1.of(&[&round.to_le_bytes(), &spun]);
    }
    let last = Hash::Sha1.of(&[&spun, &[0; 4]]);
    let block: Vec<u8> = (0..64).map(|place| 0x36 ^ last.get(place).unwrap_or(&0)).collect();
    let key = &Hash::Sha1.of(&[&block])[..16];
    let cipher = Aes128::new(&Array::try_from(key).unwrap());
    let encrypt = |data: &[u8]| -> Vec<u8> {
        let block = |block: &[u8]| {
            let mut block = Array::try_from(block).unwrap();
            cipher.encrypt_block(&mut block);
            block
        };
        filled(data).chunks(16).flat_map(block).collect()
    };
    let verifier = b"any sixteen byte";
    let info = crypto_api(0x660e, 128, &[encrypt(verifier), encrypt(&Hash::Sha1.of(&[verifier]))].concat());
    let content = [&(package().len() as u64).to_le_bytes()[..], &encrypt(&package())].concat();
    compound("Root", &[("EncryptionInfo", info), ("EncryptedPackage", content)])
}

/// One of the two ways with RC4: what says so, and the key of each block.
fn ways(word: &str, windows: bool, bits: u32) -> (Vec<u8>, impl Fn(u32) -> Vec<u8> + use<>) {
    let bytes = bits as usize / 8;
    let base = if windows {
        Hash::Sha1.of(&[SALT, &wide(word)])
    } else {
        Hash::Md5.of(&[&[&Hash::Md5.of(&[&wide(word)])[..5], SALT].concat().repeat(16)])[..5].to_vec()
    };
    let key = move |block: u32| {
        let hash = if windows { Hash::Sha1 } else { Hash::Md5 };
        let mut key = hash.of(&[&base, &block.to_le_bytes()])[..bytes].to_vec();
        if bytes == 5 {
            key.resize(16, 0);
        }
        key
    };
    let verifier = b"any sixteen byte";
    let hash = if windows { Hash::Sha1 } else { Hash::Md5 }.of(&[verifier]);
    let verifier = rc4(&key(0), &[&verifier[..], &hash].concat());
    let info =
        if windows { crypto_api(0x6801, bits, &verifier) } else { [b"\x01\0\x01\0", &SALT[..], &verifier].concat() };
    (info, key)
}

const WAYS: [(bool, u32); 3] = [(false, 128), (true, 128), (true, 40)];

/// Each run of bytes with a key of its own.
fn in_blocks(data: &[u8], size: usize, key: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..).zip(data.chunks(size)).flat_map(|(block, piece)| rc4(&key(block), piece)).collect()
}

fn record(id: u16, content: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(content.len() as u16).to_le_bytes(), content].concat()
}

/// A workbook with a sheet of Excel 4 macros, behind a long record. In the mask everything that is encrypted is 1.
fn workbook(pass: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sheet = [&[0, 0, 0, 0, 0, 1][..], b"\x05\0Sheet"].concat();
    let (mut plain, mut mask) = (Vec::new(), Vec::new());
    for (id, content, clear) in [
        (0x809, vec![0, 6, 5, 0], 4),
        (0x2f, pass.to_vec(), pass.len()),
        (0x42, vec![9; 3000], 0),
        (0x85, sheet, 4),
        (0x0a, Vec::new(), 0),
    ] {
        plain.extend(record(id, &content));
        mask.extend(std::iter::repeat_n(0, 4 + clear).chain(std::iter::repeat_n(1, content.len() - clear)));
    }
    (plain, mask)
}

fn workbook_rc4(word: &str, windows: bool, bits: u32) -> Vec<u8> {
    let (info, key) = ways(word, windows, bits);
    let (plain, mask) = workbook(&[b"\x01\0", &info[..]].concat());
    let encrypted = in_blocks(&plain, 1024, key);
    let mixed = plain
        .iter()
        .zip(&encrypted)
        .zip(&mask)
        .map(|((plain, encrypted), mask)| if *mask == 1 { *encrypted } else { *plain });
    compound("Root", &[("Workbook", mixed.collect())])
}

fn document(word: &str, windows: bool) -> Vec<u8> {
    let (info, key) = ways(word, windows, 128);
    let mut head = [0; 154];
    (head[10], head[11]) = (0, 3);
    head[152] = 0xb7;
    let plain = [&head[..], &b"text ".repeat(200), b"\x13 DDEAUTO c:\\cmd"].concat();
    let mut encrypted = in_blocks(&plain, 512, &key);
    encrypted[..68].copy_from_slice(&plain[..68]);
    let mut table = in_blocks(&vec![0; 1000], 512, &key);
    table[..info.len()].copy_from_slice(&info);
    compound("Root", &[("WordDocument", encrypted), ("1Table", table)])
}

fn presentation(word: &str) -> Vec<u8> {
    let (info, key) = ways(word, true, 128);
    let atom = |kind: u16, content: &[u8]| {
        [&[0, 0][..], &kind.to_le_bytes(), &(content.len() as u32).to_le_bytes(), content].concat()
    };
    let numbers = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
    let mut stream = rc4(&key(1), &atom(0x03e8, b"the document"));
    let object = stream.len() as u32;
    stream.extend(rc4(&key(2), &atom(0x1011, b"MZ a program in a slide")));
    let session = stream.len() as u32;
    stream.extend(atom(0x2f14, &info));
    let directory = stream.len() as u32;
    stream.extend(atom(0x1772, &numbers(&[3 << 20 | 1, 0, object, session])));
    let edit = stream.len() as u32;
    stream.extend(atom(0x0ff5, &numbers(&[0, 0, 0, directory, 1, 4, 0, 3])));
    let user = atom(0x0ff6, &numbers(&[0x14, 0xf3d1_c4df, edit, 0]));
    compound("Root", &[("Current User", user), ("PowerPoint Document", stream)])
}

/// Opened without a word, with one, and not at all.
fn opens(make: &dyn Fn(&str) -> Vec<u8>, found: &str, case: &str) {
    let others = |(found, _): (Vec<String>, Vec<(String, u64)>)| -> Vec<String> {
        found.into_iter().filter(|word| !word.starts_with("truncated")).collect()
    };
    let expected = |more: &[&str]| -> Vec<String> {
        more.iter()
            .chain([&found].into_iter().filter(|found| !found.is_empty()))
            .map(|word| (*word).to_owned())
            .collect()
    };
    assert_eq!(others(open("a.xls", make(SWEATSHOP), &[])), expected(&[]), "{case}");
    assert_eq!(
        others(open("a.xls", make("Geheim\u{e4}7"), &["wrong", "Geheim\u{e4}7"])),
        expected(&["password-found ole"]),
        "{case}"
    );
    assert_eq!(others(open("a.xls", make("Geheim7"), &["wrong"])), ["encrypted ole"], "{case}");
}

#[test]
fn packages() {
    for (hash, name) in
        [(Hash::Sha1, "SHA1"), (Hash::Sha256, "SHA256"), (Hash::Sha384, "SHA384"), (Hash::Sha512, "SHA512")]
    {
        opens(&|word| agile(word, hash, name, 100, 100), "excel4-macros sheet", name);
    }
    opens(&|word| standard(word), "excel4-macros sheet", "standard");
    let (_, members) = open("a.xlsx", agile(SWEATSHOP, Hash::Sha1, "SHA1", 10, 10), &[]);
    assert!(members.contains(&("1/a.xlsx/a.xlsx".to_owned(), package().len() as u64)), "{members:?}");
    assert!(members.contains(&("1/a.xlsx/a.xlsx/xl/media/a.bin".to_owned(), 5000)), "{members:?}");
}

/// A package that is not what the key opens.
#[test]
fn another_package_stays_shut() {
    let mut bytes = agile(SWEATSHOP, Hash::Sha1, "SHA1", 10, 10);
    let package = package();
    let length = (package.len() as u64).to_le_bytes();
    let at = bytes.windows(8).rposition(|window| window == length).unwrap();
    bytes[at + 8] ^= 1;
    assert_eq!(open("a.xlsx", bytes, &[]).0, ["encrypted ole"]);
}

#[test]
fn rounds_without_end_are_not_run() {
    let (found, _) = open("a.xlsx", agile(SWEATSHOP, Hash::Sha1, "SHA1", 1, 4_000_000_000), &["word"]);
    assert_eq!(found, ["over-limits rounds"]);
}

#[test]
fn workbooks() {
    for (windows, bits) in WAYS {
        opens(&|word| workbook_rc4(word, windows, bits), "excel4-macros sheet", &format!("{windows} {bits}"));
    }
}

/// A workbook that Excel has obfuscated for nobody says `59 B3 0A 9A`.
#[test]
fn workbooks_that_are_obfuscated() {
    use super::xor::Mask;
    let (key, verifier) = super::xor::said(SWEATSHOP);
    assert_eq!((key, verifier), (0xb359, 0x9a0a));
    let pass = [&[0, 0][..], &key.to_le_bytes(), &verifier.to_le_bytes()].concat();
    let (plain, encrypted) = workbook(&pass);
    let mask = Mask::new(SWEATSHOP, key, verifier).unwrap();
    let mut bytes = plain.clone();
    let mut at = 0;
    while at + 4 <= plain.len() {
        let length = usize::from(u16::from_le_bytes([plain[at + 2], plain[at + 3]]));
        for place in at + 4..at + 4 + length {
            if encrypted[place] == 1 {
                // Unmasking a byte and its difference is the other way round.
                bytes[place] = (0..=255).find(|byte| mask.plain(*byte, place + length) == plain[place]).unwrap();
            }
        }
        at += 4 + length;
    }
    let (found, _) = open("a.xls", compound("Root", &[("Workbook", bytes.clone())]), &[]);
    assert_eq!(found, ["excel4-macros sheet"]);
    bytes[16] ^= 1;
    let (found, _) = open("a.xls", compound("Root", &[("Workbook", bytes)]), &["word"]);
    assert_eq!(found, ["encrypted ole"]);
}

#[test]
fn word_documents_and_presentations() {
    for windows in [false, true] {
        opens(&|word| document(word, windows), "dde field", &format!("{windows}"));
    }
    opens(&presentation, "", "presentation");
    let (_, members) = open("a.ppt", presentation("/01Hannes Ruescher/01"), &[]);
    assert!(members.contains(&("1/a.ppt/object".to_owned(), 23)), "{members:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_end(which in 0..6, places: [prop::sample::Index; 6], value: u8, info: Vec<u8>) {
        let mut bytes = match which {
            0 => agile(SWEATSHOP, Hash::Sha1, "SHA1", 10, 10),
            1 => workbook_rc4(SWEATSHOP, true, 40),
            2 => workbook_rc4(SWEATSHOP, false, 128),
            3 => document(SWEATSHOP, true),
            _ => presentation(SWEATSHOP),
        };
        for place in places {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        open("a.xls", bytes, &["word"]);
        for start in [&b"\x01\0\x01\0"[..], b"\x02\0\x02\0", b"\x04\0\x04\0"] {
            super::keys::Said::read(&[start, &info].concat());
        }
        super::ppt::Session::read(&info, 0);
    }
}
