// SPDX-License-Identifier: GPL-3.0-or-later
//! Messages that hide a file from one program or another, while some mail client shows it: what is known of differences between
//! MIME parsers (the CVEs of MIME-tools and amavis of 2024 to 2026 among them), each with a file of the caller's choice.

/// One message, and what it plays on.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What it plays on.
    pub name: &'static str,
    /// The message.
    pub message: Vec<u8>,
}

const HEAD: &str = "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n";

/// Base64 in lines of 76 characters.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (number, chunk) in bytes.chunks(3).enumerate() {
        if number > 0 && number % 19 == 0 {
            out.push_str("\r\n");
        }
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (group >> (18 - 6 * place)) as usize & 63;
            out.push(if place <= chunk.len() { ALPHABET[index] as char } else { '=' });
        }
    }
    out
}

/// Every byte as `=XX`, with soft line breaks.
fn quoted(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("={byte:02x}")).collect::<String>();
    bytes.chunks(20).map(line).collect::<Vec<_>>().join("=\r\n")
}

/// uuencode (POSIX.1-2017).
fn uuencoded(bytes: &[u8]) -> String {
    let character = |value: u32| char::from(if value == 0 { b'`' } else { b' ' + value as u8 });
    let mut out = "begin 644 x.com\r\n".to_owned();
    for line in bytes.chunks(45) {
        out.push(character(line.len() as u32));
        for group in line.chunks(3) {
            let bits = (0..3).fold(0u32, |bits, place| bits << 8 | u32::from(group.get(place).copied().unwrap_or(0)));
            (0..4).for_each(|place| out.push(character(bits >> (18 - 6 * place) & 63)));
        }
        out.push_str("\r\n");
    }
    out + "`\r\nend\r\n"
}

/// The encoded file as a message's only part, and as a part of a multipart.
struct Maker {
    base64: String,
    part: String,
}

impl Maker {
    /// These fields and this body.
    fn single(&self, fields: &str, body: &str) -> Vec<u8> {
        format!("{HEAD}{fields}\r\n\r\n{body}\r\n").into_bytes()
    }

    /// These fields and the file in base64.
    fn encoded(&self, fields: &str) -> Vec<u8> {
        self.single(fields, &self.base64)
    }

    /// Two parts between delimiters with this boundary.
    fn parts(&self, delimiter: &str) -> String {
        format!("--{delimiter}\r\n\r\ntext\r\n--{delimiter}\r\n{}\r\n--{delimiter}--\r\n", self.part)
    }

    /// These fields and the two parts.
    fn multipart(&self, fields: &str, delimiter: &str) -> Vec<u8> {
        self.single(fields, &self.parts(delimiter))
    }
}

/// All probes, each with `file` in it.
pub fn all(file: &[u8]) -> Vec<Probe> {
    let base64 = base64(file);
    let part = format!("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n{base64}");
    let make = Maker { base64, part };
    let probes =
        [boundaries(&make), delimiters(&make), sections(&make, file), encodings(&make, file), places(&make, file)];
    probes.into_iter().flatten().map(|(name, message)| Probe { name, message }).collect()
}

type Named = Vec<(&'static str, Vec<u8>)>;

/// The boundary is declared in a way that programs read differently.
fn boundaries(make: &Maker) -> Named {
    let typed = |parameters: &str, delimiter: &str| {
        make.multipart(&format!("Content-Type: multipart/mixed{parameters}"), delimiter)
    };
    let nested = "(".repeat(50) + &")".repeat(50);
    vec![
        ("two boundaries, the first real", typed("; boundary=A; boundary=B", "A")),
        ("two boundaries, the last real", typed("; boundary=B; boundary=A", "A")),
        ("two boundaries without blanks", typed(";boundary=B;boundary=\"A\"", "A")),
        ("two boundaries, a hyphen in one", typed("; boundary=x-y; boundary=\"A\"", "x-y")),
        ("a parameter without value before the boundary", typed("; nonsense; boundary=A", "A")),
        ("an illegal parameter before the boundary", typed("; a@b=\"c; boundary=A", "A")),
        ("a duplicate behind an illegal parameter", typed("; boundary=B; x y=z; boundary=A", "A")),
        ("an eight-bit parameter before the boundary", typed("; b\u{f6}x=y; boundary=A", "A")),
        ("a comment in the parameter's name", typed("; boun(x)dary=A", "A")),
        ("nested comments in the parameter's name", typed(&format!("; boun{nested}dary=A"), "A")),
        ("a comment before the value", typed("; boundary=(x)A", "A")),
        ("a comment behind the value", typed("; boundary=A (x)", "A")),
        ("a comment that does not end", typed("; boundary=A; x=(y", "A")),
        ("a comment that does not end before the boundary", typed(" (x; boundary=A", "A")),
        ("a blank at the boundary's end", typed("; boundary=\"A \"", "A")),
        ("a blank at the boundary's end and in the delimiter", typed("; boundary=\"A \"", "A ")),
        ("blanks behind the delimiter", typed("; boundary=A", "A \t ")),
        ("an encoded word", typed("; boundary=\"=?utf-8?Q?A?=\"", "A")),
        ("an encoded word in base64", typed("; boundary==?utf-8?B?QQ==?=", "A")),
        ("an encoded word that is meant as it is", typed("; boundary=\"=?utf-8?Q?A?=\"", "=?utf-8?Q?A?=")),
        ("a NUL in the boundary", typed("; boundary=\"A\0B\"", "A")),
        ("a NUL in boundary and delimiter", typed("; boundary=\"A\0B\"", "A\0B")),
        ("an empty boundary", typed("; boundary=\"\"", "")),
        ("a quote that does not end", typed("; boundary=\"A; x=y", "A")),
        ("an escaped character", typed("; boundary=\"\\A\"", "A")),
        ("a semicolon in quotes", typed("; boundary=\"A;B\"", "A;B")),
        ("RFC 2231: pieces", typed("; boundary*0=A; boundary*1=B", "AB")),
        ("RFC 2231: pieces in another order", typed("; boundary*1=B; boundary*0=A", "AB")),
        ("RFC 2231: pieces and a plain one", typed("; boundary=C; boundary*0=A; boundary*1=B", "AB")),
        ("RFC 2231: encoded", typed("; boundary*=us-ascii'en'%41", "A")),
        ("RFC 2231: hyphens in the language", typed("; boundary*=us-ascii'en-GB-x'%41", "A")),
        ("RFC 2231: one piece of two missing", typed("; boundary*0=A; boundary*2=B", "A")),
        ("no semicolon", typed(" boundary=A", "A")),
        ("folded in the middle", typed(";\r\n\tboundary\r\n =\r\n \"A\"", "A")),
        ("no boundary", typed("", "A")),
        ("another boundary than that of the parts", typed("; boundary=B", "A")),
        ("a boundary and a type that is none", make.multipart("Content-Type: ; boundary=A", "A")),
        ("a type without subtype", make.multipart("Content-Type: multipart; boundary=A", "A")),
        ("an empty type", make.multipart("Content-Type:", "A")),
        ("a boundary on another type", make.multipart("Content-Type: text/plain; boundary=A", "A")),
    ]
}

/// Delimiter lines that programs see or do not see.
fn delimiters(make: &Maker) -> Named {
    let typed = |body: String| make.single("Content-Type: multipart/mixed; boundary=A", &body);
    let part = &make.part;
    let inner = "Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\ninner\r\n";
    vec![
        ("no closing delimiter", typed(format!("--A\r\n\r\ntext\r\n--A\r\n{part}"))),
        ("no closing delimiter of an inner multipart", typed(format!("--A\r\n{inner}--A\r\n{part}\r\n--A--"))),
        ("parts behind the closing delimiter", typed(format!("--A\r\n\r\nx\r\n--A--\r\n--A\r\n{part}\r\n--A--"))),
        ("a delimiter with more behind it", typed(format!("--A\r\n\r\nx\r\n--Ax\r\n{part}\r\n--A--"))),
        ("a closing delimiter with more behind it", typed(format!("--A\r\n{part}\r\n--A--x\r\n#\r\n"))),
        ("delimiters between lone CRs", typed(format!("--A\r\n\r\nx\r--A\r{part}\r\n--A--"))),
        ("the part cut by another boundary", {
            let middle = make.base64.len() / 8 * 4;
            let (first, rest) = make.base64.split_at(middle);
            let head = part.strip_suffix(make.base64.as_str()).expect("it is at the end");
            // To a program that reads boundary A the line in the middle is junk and nothing else.
            let body = format!("--A\r\n{head}{first}\r\n--\u{e9}\r\n{rest}\r\n--A--");
            make.single("Content-Type: multipart/mixed; boundary=A; boundary=\u{e9}", &body)
        }),
        ("line ends without CR", {
            let text = String::from_utf8(typed(make.parts("A"))).expect("text");
            text.replace("\r\n", "\n").into_bytes()
        }),
        ("line ends of both kinds", {
            let text = String::from_utf8(typed(make.parts("A"))).expect("text");
            text.replace("--A\r\n", "--A\n").into_bytes()
        }),
    ]
}

/// Header sections whose end or whose fields programs see differently.
fn sections(make: &Maker, file: &[u8]) -> Named {
    const TYPE: &str = "Content-Type: multipart/mixed; boundary=A";
    const BASE64: &str = "Content-Transfer-Encoding: base64";
    let quoted = quoted(file);
    vec![
        ("two types, the first real", make.multipart(&format!("{TYPE}\r\nContent-Type: text/plain"), "A")),
        ("two types, the last real", make.multipart(&format!("Content-Type: text/plain\r\n{TYPE}"), "A")),
        (
            "two types, the file under the text",
            make.encoded(&format!("{TYPE}\r\nContent-Type: text/plain\r\n{BASE64}")),
        ),
        ("blank before the colon of the type", make.multipart("Content-Type : multipart/mixed; boundary=A", "A")),
        ("blank before the colon of the encoding", make.encoded("Content-Transfer-Encoding : base64")),
        ("a NUL in a field's name", make.encoded("Content-Transfer\0-Encoding: base64")),
        ("an eight-bit character in a field's name", make.encoded("Content-Transfer-Encoding\u{e9}: base64")),
        ("a lone CR ends a field", make.encoded("X: y\rContent-Transfer-Encoding: base64")),
        ("two lone CRs are the end", {
            let part = &make.part;
            format!("{HEAD}Content-Type: multipart/mixed; boundary=A\r\r--A\r\n{part}\r\n--A--\r\n").into_bytes()
        }),
        ("a line of blanks is no end", make.encoded(&format!("X: y\r\n \t\r\n{BASE64}"))),
        ("a line of blanks is the end", {
            make.single(&format!("{BASE64}\r\n \t\r\n{}\r\nContent-Transfer-Encoding: 8bit", make.base64), "")
        }),
        ("a stray line among the fields", make.encoded(&format!("stray\r\n{BASE64}"))),
        ("several stray lines among the fields", make.encoded(&format!("stray\r\nand\r\nmore\r\n{BASE64}"))),
        ("a stray line begins the body", make.single(&format!("{BASE64}\r\n{}", make.base64), "")),
        ("a mailbox line", [&b"From a@sender.test Thu Nov 22\r\n"[..], &make.encoded(BASE64)].concat()),
        ("two encodings, 7bit and base64", make.encoded(&format!("Content-Transfer-Encoding: 7bit\r\n{BASE64}"))),
        ("two encodings, base64 and 7bit", make.encoded(&format!("{BASE64}\r\nContent-Transfer-Encoding: 7bit"))),
        (
            "two encodings, base64 and quoted-printable",
            make.single(&format!("{BASE64}\r\nContent-Transfer-Encoding: quoted-printable"), &quoted),
        ),
    ]
}

/// Encodings that programs know, or decode, differently.
fn encodings(make: &Maker, file: &[u8]) -> Named {
    const BASE64: &str = "Content-Transfer-Encoding: base64";
    const FILE: &str = "Content-Type: application/octet-stream; name=x";
    let text = &make.base64;
    let (first, rest) = text.split_at(21);
    let padded: Vec<String> = file.chunks(10).map(base64).collect();
    let named = |value: &str| make.encoded(&format!("{FILE}\r\nContent-Transfer-Encoding: {value}"));
    let with = |body: &str| make.single(BASE64, body);
    let quoted = quoted(file);
    vec![
        ("encoding with a comment", named("base64 (x)")),
        ("encoding with a comment before it", named("(x) base64")),
        ("x-base64", named("x-base64")),
        ("base64;", named("base64;")),
        ("base64 in quotes", named("\"base64\"")),
        ("base64 in capitals", named("BASE64")),
        ("several words", named("base64, 7bit")),
        ("an unknown encoding", named("secret")),
        ("base64 that is not declared", make.encoded(FILE)),
        ("a junk character in base64", with(&format!("{first}#{rest}"))),
        ("an eight-bit character in base64", with(&format!("{first}\u{e9}{rest}"))),
        ("a NUL in base64", with(&format!("{first}\0{rest}"))),
        (
            "a footer behind the padding",
            with(&format!("{}\r\n-- \r\nfooter of a list", base64(&[file, b"x"].concat()))),
        ),
        ("data behind the padding", with(&format!("QQ==\r\n{text}"))),
        ("padding in the middle", with(&format!("{}{}", base64(&file[..4]), base64(&file[4..])))),
        ("each line padded", with(&padded.join("\r\n"))),
        ("a padding sign that pads nothing", with(&format!("={text}"))),
        ("blanks before the lines", with(&format!(" \t{first}\r\n \t{rest}"))),
        ("no padding", with(text.trim_end_matches('='))),
        ("quoted-printable", make.single("Content-Transfer-Encoding: quoted-printable", &quoted)),
        ("quoted-printable, blanks behind soft breaks", {
            make.single("Content-Transfer-Encoding: quoted-printable", &quoted.replace("=\r\n", "= \t\r\n"))
        }),
        ("quoted-printable, junk in between", {
            make.single("Content-Transfer-Encoding: quoted-printable", &format!("=ZZ=\r\n{quoted}"))
        }),
        ("x-uuencode", make.single(&format!("{FILE}\r\nContent-Transfer-Encoding: x-uuencode"), &uuencoded(file))),
    ]
}

/// Places where some programs do not look.
fn places(make: &Maker, file: &[u8]) -> Named {
    let typed = |body: String| make.single("Content-Type: multipart/mixed; boundary=A", &body);
    let text = "--A\r\n\r\ntext\r\n--A--\r\n";
    let (base64, part) = (&make.base64, &make.part);
    let uu = uuencoded(file);
    let message = format!("Subject: inner\r\n{part}");
    let as_message = |fields: &str, body: &str| make.single(&format!("Content-Type: message/rfc822{fields}"), body);
    let encoded = "\r\nContent-Transfer-Encoding: base64";
    vec![
        ("uuencoded in the text", make.single("Content-Type: text/plain", &format!("Look:\r\n{uu}"))),
        ("uuencoded in the preamble", typed(format!("{uu}{text}"))),
        ("uuencoded in the epilogue", typed(format!("{text}{uu}"))),
        ("base64 in the preamble", typed(format!("{base64}\r\n{text}"))),
        ("base64 in the epilogue", typed(format!("{text}{base64}\r\n"))),
        ("parts in the preamble", typed(format!("{}{text}", make.parts("B")))),
        ("parts in the epilogue", typed(format!("{text}{}", make.parts("B")))),
        ("a multipart in base64", {
            let body = self::base64(make.parts("A").as_bytes());
            make.single("Content-Type: multipart/mixed; boundary=A\r\nContent-Transfer-Encoding: base64", &body)
        }),
        ("a multipart in quoted-printable", {
            let body = quoted(make.parts("A").as_bytes());
            make.single(
                "Content-Type: multipart/mixed; boundary=A\r\nContent-Transfer-Encoding: quoted-printable",
                &body,
            )
        }),
        ("an attached message", as_message("", &message)),
        ("an attached message in base64", as_message(encoded, &self::base64(message.as_bytes()))),
        ("an attached message in base64 that is not declared", as_message("", &self::base64(message.as_bytes()))),
        ("an attached message that is not in base64", as_message(encoded, &message)),
        ("an attached message under two types", as_message("\r\nContent-Type: text/plain", &message)),
        ("a message as a file", {
            let body = self::base64(format!("{HEAD}{message}").as_bytes());
            make.single(
                "Content-Type: application/octet-stream; name=x.eml\r\nContent-Transfer-Encoding: base64",
                &body,
            )
        }),
        ("a digest", {
            make.single("Content-Type: multipart/digest; boundary=A", &format!("--A\r\n\r\n{message}\r\n--A--"))
        }),
        ("a fragment", as_message("", &message).replace_type("message/rfc822", "message/partial; number=1; id=x")),
        ("an inner multipart under the same boundary", {
            let inner = "Content-Type: multipart/alternative; boundary=A\r\n\r\n";
            typed(format!("--A\r\n{inner}--A\r\n\r\ntext\r\n--A\r\n{part}\r\n--A--\r\n--A--"))
        }),
    ]
}

/// Small changes of a message that is made.
trait Change {
    fn replace_type(self, from: &str, to: &str) -> Vec<u8>;
}

impl Change for Vec<u8> {
    fn replace_type(self, from: &str, to: &str) -> Vec<u8> {
        String::from_utf8(self).expect("text").replacen(from, to, 1).into_bytes()
    }
}

/// File names with a spelling that ends in `.exe`, each as the fields of a part.
pub const NAMES: [(&str, &str); 22] = [
    ("plain", "Content-Disposition: attachment; filename=x.exe"),
    ("of the type", "Content-Type: text/plain; name=x.exe"),
    (
        "of the type, with another of the disposition",
        "Content-Type: text/plain; name=x.exe\r\nContent-Disposition: attachment; filename=a.txt",
    ),
    ("two parameters", "Content-Disposition: attachment; filename=a.txt; filename=x.exe"),
    (
        "two dispositions",
        "Content-Disposition: attachment; filename=a.txt\r\nContent-Disposition: attachment; filename=x.exe",
    ),
    ("plain and RFC 2231", "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''x.exe"),
    ("RFC 2231 and plain", "Content-Disposition: attachment; filename*=utf-8''a.txt; filename=x.exe"),
    ("RFC 2231 in pieces", "Content-Disposition: attachment; filename*0=invoice; filename*1=.e; filename*2=xe"),
    ("RFC 2231, a piece twice", "Content-Disposition: attachment; filename*0=x; filename*1=.exe; filename*1=.txt"),
    ("RFC 2231, a piece missing", "Content-Disposition: attachment; filename*0=x.exe; filename*2=.txt"),
    ("RFC 2231, encoded pieces", "Content-Disposition: attachment; filename*0*=utf-8''x%2e; filename*1*=%65xe"),
    ("RFC 2231, hyphens in the language", "Content-Disposition: attachment; filename*=utf-8'en-GB-x'x.exe"),
    ("RFC 2231, unknown character set", "Content-Disposition: attachment; filename*=nonsense''x.exe"),
    ("RFC 2231, no quotes", "Content-Disposition: attachment; filename*=x%2eexe"),
    ("encoded word in quotes", "Content-Disposition: attachment; filename=\"=?utf-8?B?eC5leGU=?=\""),
    ("encoded word without quotes", "Content-Disposition: attachment; filename==?utf-8?Q?x=2Eexe?="),
    ("encoded word behind text", "Content-Disposition: attachment; filename=\"x=?utf-8?Q?.exe?=\""),
    ("two encoded words", "Content-Disposition: attachment; filename=\"=?utf-8?Q?x.?=\r\n =?utf-8?Q?exe?=\""),
    ("eight-bit", "Content-Disposition: attachment; filename=\"\u{e4}\u{f6}.exe\""),
    ("percent signs", "Content-Disposition: attachment; filename=x%2Eexe"),
    ("comment in the parameter's name", "Content-Disposition: attachment; file(x)name=x.exe"),
    ("quote that does not end", "Content-Disposition: attachment; filename=\"x.exe; a=b"),
];

/// A message with a part that has these fields.
pub fn named(fields: &str) -> Vec<u8> {
    format!("{HEAD}Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n{fields}\r\n\r\ntext\r\n--A--\r\n")
        .into_bytes()
}
