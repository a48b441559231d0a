// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted PDF, made here after the specification, and made so that one reader sees it encrypted and another does not. What qpdf makes is tested in
//! tests/scan.

use crate::unpack::ciphers::{Hash, cbc_encrypt, rc4};
use crate::unpack::locked_tests::open;
use proptest::prelude::*;

const ID: &[u8] = b"an identifier of";
const OWNER: [u8; 32] = *b"any thirty-two bytes do for this";
const PROGRAM: &[u8] = b"MZ the program";
const PADDING: &[u8] = b"\x28\xbf\x4e\x5e\x4e\x75\x8a\x41\x64\x00\x4e\x56\xff\xfa\x01\x08\x2e\x2e\x00\xb6\xd0\x68\x3e\x80\x2f\x0c\xa9\xfe\x64\x53\x69\x7a";

/// A document in the making, with a key of 128 bits.
struct Writer {
    key: Vec<u8>,
    aes: bool,
    pdf: Vec<u8>,
    handler: String,
}

impl Writer {
    fn new(password: &str, aes: bool) -> Writer {
        let padded = [password.as_bytes(), PADDING].concat();
        let mut key = Hash::Md5.of(&[&padded[..32], &OWNER, &(-44i32).to_le_bytes(), ID]);
        for _ in 0..50 {
            key = Hash::Md5.of(&[&key]);
        }
        let mut user = Hash::Md5.of(&[PADDING, ID]);
        for round in 0..20 {
            let mixed: Vec<u8> = key.iter().map(|byte| byte ^ round).collect();
            user = rc4(&mixed, &user);
        }
        let version = if aes {
            "/V 4 /R 4 /CF <</StdCF <</CFM /AESV2 /AuthEvent /DocOpen /Length 16>>>> /StmF /StdCF /StrF /StdCF"
        } else {
            "/V 2 /R 3"
        };
        let handler = format!(
            "<</Filter /Standard {version} /Length 128 /P -44 /O <{}> /U <{}{}>>>",
            hex(&OWNER),
            hex(&user),
            "00".repeat(16)
        );
        Writer { key, aes, pdf: b"%PDF-1.6\n".to_vec(), handler }
    }

    fn encrypted(&self, number: u8, data: &[u8]) -> Vec<u8> {
        let salt: &[u8] = if self.aes { b"sAlT" } else { b"" };
        let key = Hash::Md5.of(&[&self.key, &[number, 0, 0, 0, 0], salt]);
        if !self.aes {
            return rc4(&key, data);
        }
        let fill = 16 - data.len() % 16;
        let filled = [data, &vec![fill as u8; fill]].concat();
        let iv = *b"sixteen of them.";
        [&iv[..], &cbc_encrypt(&key.try_into().unwrap(), &iv, &filled)].concat()
    }

    fn object(&mut self, number: u8, content: &[u8]) {
        self.pdf.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
        self.pdf.extend_from_slice(content);
        self.pdf.extend_from_slice(b"\nendobj\n");
    }

    /// A file specification in object `number`, and the file behind it, encrypted or not.
    fn file(&mut self, number: u8, dictionary: &str, data: &[u8], encrypt: bool) {
        let name = self.encrypted(number, b"setup(1).exe");
        let name =
            [b"<< /F <", hex(&name).as_bytes(), format!("> /EF << /F {} 0 R >> >>", number + 1).as_bytes()].concat();
        self.object(number, &name);
        let data = if encrypt { self.encrypted(number + 1, data) } else { data.to_vec() };
        let stream = [format!("<< {dictionary} >>\nstream\r\n").as_bytes(), &data, b"\nendstream"].concat();
        self.object(number + 1, &stream);
    }

    fn finish(self, name: &str) -> Vec<u8> {
        let trailer = format!("9 0 obj {} endobj\ntrailer << /ID [<{}>] /{name} 9 0 R >>\n", self.handler, hex(ID));
        [&self.pdf[..], trailer.as_bytes()].concat()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(members: &[(String, u64)]) -> Vec<&str> {
    members.iter().map(|(path, _)| path.as_str()).collect()
}

#[test]
fn files_open_without_a_password_and_with_a_word() {
    for aes in [false, true] {
        for (password, words, expected) in
            [("", &["wrong"][..], &[][..]), ("Ge\u{e4}heim", &["wrong", "Ge\u{e4}heim"], &["password-found pdf"])]
        {
            let mut writer = Writer::new(password, aes);
            writer.file(3, "/Type /EmbeddedFile", PROGRAM, true);
            let (found, members) = open("a.pdf", writer.finish("Encrypt"), words);
            // The end of the line before `endstream` belongs to the data, as it does in an ordinary document.
            assert_eq!(members, [("1/a.pdf/setup(1).exe".to_owned(), PROGRAM.len() as u64 + 1)], "{aes} {password}");
            assert_eq!(found, expected);
        }
        let mut writer = Writer::new("unknown", aes);
        writer.file(3, "/Type /EmbeddedFile", PROGRAM, true);
        let (found, members) = open("a.pdf", writer.finish("Encrypt"), &["wrong"]);
        // The document and the file.
        assert_eq!((found, members), (vec!["encrypted pdf".to_owned(); 2], Vec::new()));
    }
}

#[test]
fn a_name_of_many_spellings_is_encryption_all_the_same() {
    let mut writer = Writer::new("", true);
    writer.file(3, "/Type /EmbeddedFile /Length 32", PROGRAM, true);
    let (_, members) = open("a.pdf", writer.finish("Encr#79pt"), &[]);
    assert_eq!(names(&members), ["1/a.pdf/setup(1).exe"]);
}

/// Readers for which the document is not encrypted see the stream as it stands; others decrypt it.
#[test]
fn what_is_not_encrypted_in_an_encrypted_document_is_seen() {
    let packed = {
        let mut out = Vec::new();
        let text = b"MZ this is what the attachment holds".repeat(9);
        std::io::Read::read_to_end(
            &mut flate2::read::ZlibEncoder::new(&text[..], flate2::Compression::best()),
            &mut out,
        )
        .unwrap();
        out
    };
    for (dictionary, data) in [("/Type /EmbeddedFile", PROGRAM), ("/Type /EmbeddedFile /Filter /FlateDecode", &packed)]
    {
        for password in ["", "unknown"] {
            let mut writer = Writer::new(password, false);
            writer.file(3, dictionary, data, false);
            let (_, members) = open("a.pdf", writer.finish("Encrypt"), &[]);
            assert!(members.iter().any(|(_, size)| [PROGRAM.len() as u64 + 1, 36 * 9].contains(size)), "{members:?}");
        }
    }
    let mut writer = Writer::new("", true);
    let crypt = "/Type /EmbeddedFile /Filter [/Crypt] /DecodeParms [<</Type/CryptFilterDecodeParms /Name /Identity>>]";
    writer.file(3, crypt, b"not a program", false);
    let (found, members) = open("a.pdf", writer.finish("Encrypt"), &[]);
    assert_eq!((found, names(&members)), (vec![], vec!["1/a.pdf/setup(1).exe"]));
}

/// To a reader that believes the table of objects, the parenthesis is no string, or the length of another stream is not what it says.
#[test]
fn objects_within_strings_and_streams_are_seen() {
    let mut inner = Writer::new("", false);
    inner.file(3, "/Type /EmbeddedFile", PROGRAM, true);
    let objects = inner.pdf.clone();
    inner.pdf = [b"%PDF-1.6\n1 0 obj << /X (", &objects[..], b") >> endobj\n"].concat();
    assert!(!open("a.pdf", inner.finish("Encrypt"), &[]).1.is_empty());
    let mut inner = Writer::new("", false);
    inner.file(3, "/Type /EmbeddedFile", PROGRAM, true);
    let length = inner.pdf.len();
    let head = format!("%PDF-1.6\n1 0 obj << /Length {length} >> stream\nendstream ");
    inner.pdf = [head.as_bytes(), &inner.pdf, b"endstream endobj\n"].concat();
    assert!(!open("a.pdf", inner.finish("Encrypt"), &[]).1.is_empty());
}

#[test]
fn strings_are_decrypted_for_the_scanners() {
    let mut writer = Writer::new("", true);
    let script = writer.encrypted(3, b"app.alert(')')\r\n\\");
    writer.object(3, &[b"<< /S /JavaScript /JS <", hex(&script).as_bytes(), b"> >>"].concat());
    let (found, _) = open("a.pdf", writer.finish("Encrypt"), &[]);
    assert_eq!(found, ["pdf-javascript "]);
}

#[test]
fn a_handler_that_is_not_known_stays_shut() {
    let pdf = b"%PDF-1.6\n3 0 obj <</Filter/Adobe.PubSec/V 4>> endobj 4 0 obj << /Type /EmbeddedFile >>\nstream\n\x01\x02\x03\nendstream\ntrailer <</Encrypt 3 0 R>>";
    assert_eq!(open("a.pdf", pdf.to_vec(), &[]).0, ["encrypted pdf"; 2]);
    let talk = b"%PDF-1.6\n3 0 obj (/Encrypt is a key) endobj trailer <<>>";
    assert_eq!(open("a.pdf", talk.to_vec(), &[]).0, Vec::<String>::new());
}

/// One of two descriptions opens and is a decoy: the other one is told.
#[test]
fn a_decoy_does_not_hide_what_is_shut() {
    for decoys in [1, 9] {
        let mut writer = Writer::new("unknown", true);
        writer.file(3, "/Type /EmbeddedFile", PROGRAM, true);
        let mut pdf = writer.finish("Encrypt");
        for number in 0..decoys {
            let decoy = Writer::new("", number % 2 == 0).handler.replace("/P -44", &format!("/P -44 /X {number}"));
            pdf.extend_from_slice(format!("trailer <</Encrypt {decoy}>>\n").as_bytes());
        }
        assert!(open("a.pdf", pdf, &[]).0.contains(&"encrypted pdf".to_owned()), "{decoys}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_end(
        text in "(3 0 obj|<<|>>|/Length 9|stream\n|endstream|endobj|\\(|\\)|\\\\|<41|>|obj|%|\n|/Crypt|/Filter|/ID \\[<00>\\]){0,40}",
        data: Vec<u8>, broken: prop::sample::Index, aes: bool,
    ) {
        let mut writer = Writer::new("", aes);
        writer.pdf.extend_from_slice(text.as_bytes());
        writer.pdf.extend_from_slice(&data);
        writer.file(3, "/Type /EmbeddedFile", PROGRAM, true);
        let mut pdf = writer.finish("Encrypt");
        open("a.pdf", pdf.clone(), &["word"]);
        let at = broken.index(pdf.len());
        pdf[at] = pdf[at].wrapping_add(1);
        pdf.truncate(pdf.len() - broken.index(8));
        open("a.pdf", pdf, &["word"]);
    }
}
