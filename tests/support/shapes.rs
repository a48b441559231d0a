// SPDX-License-Identifier: GPL-3.0-or-later
//! Messages made to cost as much as possible: shapes known to slow down filters that read patterns, HTML, MIME or headers.

use std::fmt::Write as _;

/// A name for each shape, and the message.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut shapes = vec![
        ("one letter, 1 MB", plain(&"a".repeat(MB))),
        ("one letter, 1 MB in lines", plain(&format!("{}\n", "a".repeat(70)).repeat(MB / 71))),
        ("blanks, 1 MB", plain(&" ".repeat(MB))),
        ("line ends, 1 MB", plain(&"\n".repeat(MB))),
        ("dashes, 1 MB", plain(&"-_ ".repeat(MB / 3))),
        ("digits, 1 MB", plain(&"0123456789 ".repeat(MB / 11))),
        ("high bytes, 1 MB", [b"Subject: x\n\n".as_slice(), &vec![0xe9; MB]].concat()),
        ("words of a form", plain(&"your full name your city your age your country ".repeat(MB / 48))),
        ("words that almost spell", plain(&"v i a g r v!i!a!g!r c1al1 x-a-n-a ".repeat(MB / 35))),
        ("bait for nested repetition", plain(&format!("{}!\n", "a1 a1-a1 a_1 ".repeat(700)).repeat(100))),
        (
            "20,000 URIs",
            plain(
                &(0..20_000).fold(String::new(), |text, n| text + &format!("http://h{n}.example.com/{n}?a=b&c={n}\n")),
            ),
        ),
        ("one URI, 500 KB", plain(&format!("http://example.com/{}", "a/?b=%41&".repeat(MB / 18)))),
        ("redirectors", plain(&format!("http://e.com/?u={}\n", "http://e.org/?u=".repeat(100)).repeat(500))),
        ("percent signs", plain(&format!("http://e.com/{}\n", "%25".repeat(2000)).repeat(100))),
        (
            "20,000 addresses",
            plain(&(0..20_000).fold(String::new(), |text, n| text + &format!("user{n}@host{n}.example.com\n"))),
        ),
        (
            "20,000 recipients",
            header("To", &(0..20_000).fold(String::new(), |text, n| text + &format!("\"N, {n}\" <u{n}@e.com>,\n "))),
        ),
        ("a header field of 1 MB", header("X-Long", &"word=word; ".repeat(MB / 11))),
        ("a subject of 500 KB", header("Subject", &"=?utf-8?q?=41=42?= ".repeat(MB / 38))),
        ("a message id of 500 KB", header("Message-ID", &format!("<{}@e.com>", "a.1$".repeat(MB / 8)))),
        ("open comments in From", header("From", &"(".repeat(MB / 4))),
        ("open quotes in From", header("From", &"\"a\" <".repeat(MB / 20))),
        ("100,000 header fields", fields(100_000, |n| format!("X-{n}: {n}"))),
        (
            "100,000 Received",
            fields(100_000, |n| {
                format!(
                    "Received: from h{n}.e.com (h{n} [10.{}.{}.1]) by mx.e.com with ESMTP id {n}; Mon, 1 Jan 2024 00:00:00 +0000",
                    n / 250 % 250,
                    n % 250
                )
            }),
        ),
        ("20,000 open parentheses in Received", header("Received", &format!("from a ({} by b", "(".repeat(20_000)))),
        ("deep HTML", html(&"<div><b><font size=1>".repeat(MB / 21))),
        ("tables in tables", html(&"<table><tr><td>".repeat(MB / 15))),
        ("unclosed tag", html(&format!("<a href=\"{}", "x ".repeat(MB / 2)))),
        ("angle brackets", html(&"<".repeat(MB))),
        ("attributes", html(&format!("<a {}>", "b=c ".repeat(MB / 4)))),
        ("open comments", html(&"<!-- <!--".repeat(MB / 9))),
        ("entities", html(&"&amp;&#65;&#x41;&bogus&".repeat(MB / 23))),
        (
            "100,000 links",
            html(
                &(0..30_000)
                    .fold(String::new(), |text, n| text + &format!("<a href=http://h{n}.com/>http://g{n}.org</a>")),
            ),
        ),
        ("styles", html(&"<span style=\"color:#fff;background:#fff;font-size:1px\">x</span>".repeat(MB / 62))),
        (
            "base64 text, 4 MB",
            [
                b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n".as_slice(),
                &b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\n".repeat(4 * MB / 49),
            ]
            .concat(),
        ),
        (
            "quoted-printable",
            [
                b"Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n".as_slice(),
                &b"=41=42=\n".repeat(MB / 8),
            ]
            .concat(),
        ),
        ("mixed charsets", header("Subject", &"=?big5?b?pKSk5Q==?= =?koi8-r?q?=C1?= ".repeat(5000))),
        ("nested multiparts", nested(5000)),
        ("10,000 parts", parts(10_000)),
        ("10,000 HTML parts", html_parts(10_000)),
        ("boundary lines only", boundaries()),
        ("hashes", plain(&"deadbeef1234567890 abcdef0123456789abcdef0123456789 word ".repeat(MB / 57))),
        ("bitcoin addresses, almost", plain(&"1abcdefghijkmnopqrstuvwxyzABCDEFGH0 ".repeat(MB / 37))),
    ];
    shapes.push(("everything but the end of a line", plain(&"a=b@c.d/e?f&g#h%i$j!k*l~".repeat(MB / 25))));
    shapes
}

const MB: usize = 1 << 20;

fn plain(body: &str) -> Vec<u8> {
    format!("From: a@example.com\nTo: b@example.org\nSubject: x\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n{body}\n")
        .into_bytes()
}

fn html(body: &str) -> Vec<u8> {
    format!("From: a@example.com\nSubject: x\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n{body}\n")
        .into_bytes()
}

fn header(name: &str, value: &str) -> Vec<u8> {
    format!("{name}: {value}\nX-Other: y\n\nbody\n").into_bytes()
}

fn fields(count: usize, field: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = String::new();
    (0..count).for_each(|number| text.push_str(&(field(number) + "\n")));
    (text + "\nbody\n").into_bytes()
}

fn nested(depth: usize) -> Vec<u8> {
    let mut text = "MIME-Version: 1.0\n".to_owned();
    (0..depth).for_each(|n| {
        let _ = write!(text, "Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n");
    });
    (text + "\nx\n").into_bytes()
}

fn parts(count: usize) -> Vec<u8> {
    let part = "--b\nContent-Type: text/plain; name=\"a.txt\"\nContent-Disposition: attachment\n\nx\n";
    format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{}--b--\n", part.repeat(count))
        .into_bytes()
}

fn html_parts(count: usize) -> Vec<u8> {
    let part = "--b\nContent-Type: text/html\n\n<p>free money <a href=http://e.com/>here</a>\n";
    format!("MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n{}--b--\n", part.repeat(count))
        .into_bytes()
}

fn boundaries() -> Vec<u8> {
    format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{}", "--b\n".repeat(MB / 4)).into_bytes()
}
