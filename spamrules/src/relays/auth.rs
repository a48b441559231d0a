// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a `Received` field says that the client had logged in, and how: RFC 3848's `with` protocols (ESMTPA …), and what
//! servers write that have other ways to say it.

use std::sync::LazyLock;

use super::shape::{Field, Shape};

/// A sign of an authentication: text that is looked for first, the shape, and what the method is then called.
struct Sign {
    mark: &'static str,
    shape: Shape,
    method: Method,
}

enum Method {
    Found,
    Fixed(&'static str),
    Gmail,
    Gmx,
    Postfix,
}

static SIGNS: LazyLock<Vec<Sign>> = LazyLock::new(|| {
    use Method::*;
    let rows: [(&'static str, &str, Method); 10] = [
        (" by mx.google.com with ESMTPS id ", "{..}(version={helo:{^ +}} cipher={ident:{^)+}})", Gmail),
        (" (AUTH: ", "from {..}{=])|)]} (AUTH: {auth:{=LOGIN|PLAIN|DIGEST-MD5|CRAM-MD5}} {_}{?, {..}}) by ", Found),
        ("authenticated", "from {..}]{? ({^)*})}) {..}({..}authenticated{..}){..} by", Fixed("Sendmail")),
        ("authenticated", "from {..})] {..}({..}authenticated{..}){..} by", Fixed("Sendmail")),
        (
            "mail.gmx.",
            "{..}from {_*} ({=HELO|EHLO} {_*}) [{ip}] by {by:mail.gmx.{=net|com}} ({^)+}) with {auth:{=ESMTP|SMTP}}",
            Gmx,
        ),
        (
            " (authenticated as ",
            "{..}) by {..} ({#}.{#}.{#}{?.{#}}) (authenticated as {..}) id ",
            Fixed("CriticalPath"),
        ),
        ("(Authenticated sender: ", "{..}) (Authenticated sender: {_}) by {_} ({by:{^)+}}) with ", Postfix),
        ("CommuniGate Pro ", "{&{..} (account }{..}CommuniGate Pro {=HTTP|SMTP|XIMSS|IMAP}", Fixed("Communigate")),
        ("HTTP-DAV", "{..} with Microsoft Exchange Server HTTP-DAV{b}", Fixed("HTTP-DAV")),
        // the last one needs no shape: see `via_http`
        ("\u{0}", "", Found),
    ];
    rows.into_iter()
        .map(|(mark, shape, method)| Sign { mark, shape: Shape::new(shape).expect("a shape of this file"), method })
        .collect()
});

/// The method by which the client had logged in; empty when the line does not say so.
pub(super) fn method(line: &str) -> String {
    let by = line.contains(" by ");
    if by && let Some(protocol) = protocol(line) {
        return protocol.to_string();
    }
    SIGNS.iter().find_map(|sign| sign.read(line)).or_else(|| via_http(line).filter(|_| by)).unwrap_or_default()
}

impl Sign {
    fn read(&self, line: &str) -> Option<String> {
        if !line.contains(self.mark) {
            return None;
        }
        let found = self.shape.find(line.as_bytes())?;
        let get = |field| found.get(field, line).unwrap_or_default();
        Some(match self.method {
            Method::Found => get(Field::Auth).to_string(),
            Method::Fixed(name) => name.to_string(),
            Method::Gmail if gmail_id(line) => {
                format!("GMail - transport={} cipher={}", get(Field::Helo), get(Field::Ident))
            }
            Method::Gmail => return None,
            Method::Gmx => format!("GMX ({} / {})", get(Field::Auth), get(Field::By)),
            Method::Postfix if get(Field::By) == "Postfix" => "Postfix".to_string(),
            Method::Postfix => format!("Postfix ({})", get(Field::By)),
        })
    }
}

/// `with ESMTPA`, `with HTTPS` and their like; letters' case is ignored.
fn protocol(line: &str) -> Option<&str> {
    let lower = line.to_ascii_lowercase();
    super::received::ends_of(&lower, " with ").find_map(|at| {
        let rest = line.get(at..)?;
        let word = &rest[..rest.find([' ', ';']).unwrap_or(rest.len())];
        matches!(
            word.to_ascii_uppercase().as_str(),
            "ESMTPA"
                | "ESMTPSA"
                | "LMTPA"
                | "LMTPSA"
                | "UTF8SMTPA"
                | "UTF8SMTPSA"
                | "UTF8LMTPA"
                | "UTF8LMTPSA"
                | "ASMTP"
                | "HTTP"
                | "HTTPS"
                | "HTTPU"
        )
        .then_some(word)
    })
}

/// `(via HTTP)` with at most one letter after it.
fn via_http(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    lower.match_indices(" (via http").find_map(|(at, _)| {
        let rest = line.get(at + " (via ".len()..)?;
        let word = &rest[..rest.find(')')?];
        let after = rest.as_bytes().get(word.len() + 1);
        (word.chars().count() <= 5 && after.is_none_or(|b| matches!(b, b' ' | b';'))).then(|| word.to_string())
    })
}

/// Google's ids of mail from its own users hold `sm` and a time: `a1sm12345678abc.12.2020.01.02.03.04.05`.
fn gmail_id(line: &str) -> bool {
    let Some((_, rest)) = line.split_once(" by mx.google.com with ESMTPS id ") else { return false };
    let word = rest.split(' ').next().unwrap_or_default();
    let mut parts = word.split('.');
    let head = parts.next().unwrap_or_default();
    let digits = |text: Option<&str>, least: usize, most: usize| {
        text.is_some_and(|t| (least..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit()))
    };
    head_of_gmail_id(head)
        && digits(parts.next(), 1, 3)
        && digits(parts.next(), 4, 4)
        && (0..5).all(|_| digits(parts.next(), 2, 2))
}

fn head_of_gmail_id(head: &str) -> bool {
    head.match_indices("sm").any(|(at, _)| {
        let (before, after) = (&head[..at], &head[at + 2..]);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (1..=4).contains(&before.len())
            && lower(before)
            && (2..=9).contains(&digits)
            && after.len() == digits + 3
            && after.bytes().skip(digits).all(|b| b.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_by_server() {
        let cases = [
            ("from a ([192.0.2.1]) by mx.example.org with ESMTPSA id 1", "ESMTPSA"),
            ("from a ([192.0.2.1]) by mx.example.org with esmtpa", "esmtpa"),
            ("from a ([192.0.2.1]) by mx.example.org with ESMTP id 1", ""),
            ("from a (b [192.0.2.1]) (authenticated bits=0) by mx.example.org (8.12)", "Sendmail"),
            ("from a ([192.0.2.1]) (AUTH: LOGIN user) by mx.example.org with esmtp", "LOGIN"),
            ("from a (b [192.0.2.1]) (Authenticated sender: u@x) by mx (Postfix) with ESMTP", "Postfix"),
            ("from a (b [192.0.2.1]) (Authenticated sender: u@x) by mx (Mail 1) with ESMTP", "Postfix (Mail 1)"),
            ("from [192.0.2.1] (account u HELO x) by mx (CommuniGate Pro SMTP 5)", "Communigate"),
            ("from x (EHLO y) [192.0.2.1] by mail.gmx.net (mp010) with SMTP", "GMX (SMTP / mail.gmx.net)"),
            ("from a by mx.example.org (via HTTP); x", "HTTP"),
            (
                "from a ([192.0.2.1]) by mx.google.com with ESMTPS id a1sm12345abc.12.2020.01.02.03.04.05 (version=TLS1 cipher=AES bits=1)",
                "GMail - transport=TLS1 cipher=AES bits=1",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(method(line), expected, "{line}");
        }
    }
}
