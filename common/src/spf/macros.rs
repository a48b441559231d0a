// SPDX-License-Identifier: GPL-3.0-or-later
//! Macro strings (RFC 7208 section 7): read once with the record, expanded when a term is evaluated. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use super::Query;

/// A text with macros in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro { letter: Letter, escape: bool, keep: Option<usize>, reverse: bool, delimiters: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Ip,
    ValidatedName,
    IpVersion,
    Helo,
    SmtpClient,
    Receiver,
    Time,
}

impl Letter {
    fn parse(letter: u8) -> Option<Self> {
        Some(match letter.to_ascii_lowercase() {
            b's' => Self::Sender,
            b'l' => Self::LocalPart,
            b'o' => Self::SenderDomain,
            b'd' => Self::Domain,
            b'i' => Self::Ip,
            b'p' => Self::ValidatedName,
            b'v' => Self::IpVersion,
            b'h' => Self::Helo,
            b'c' => Self::SmtpClient,
            b'r' => Self::Receiver,
            b't' => Self::Time,
            _ => return None,
        })
    }

    /// Only an explanation may use these (section 7.2).
    fn is_for_explanation(self) -> bool {
        matches!(self, Self::SmtpClient | Self::Receiver | Self::Time)
    }
}

/// What macros stand for during one evaluation.
pub(super) struct Values<'a> {
    pub(super) query: &'a Query<'a>,
    /// The current domain.
    pub(super) domain: &'a str,
    /// The validated name of the client (`%{p}`); asked for only when [`MacroString::needs_validated_name`].
    pub(super) validated: &'a str,
}

impl MacroString {
    /// Any macro string: the value of an unknown modifier.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse_parts(text, false).map(Self)
    }

    /// A domain-spec: a macro string without `c`, `r` and `t` that ends in a top label or a macro.
    pub(super) fn parse_domain(text: &str) -> Result<Self, String> {
        let parts = parse_parts(text, false)?;
        let ends_well = match parts.last() {
            Some(Part::Macro { .. }) => true,
            Some(Part::Literal(literal)) => ends_in_top_label(literal),
            None => false,
        };
        if ends_well { Ok(Self(parts)) } else { Err(format!("{} is not a domain", text.escape_default())) }
    }

    /// The text of an explanation, in which blanks and all macros are allowed.
    pub(super) fn parse_explanation(text: &str) -> Result<Self, String> {
        parse_parts(text, true).map(Self)
    }

    /// True when `%{p}` is in it, which costs look-ups.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Macro { letter: Letter::ValidatedName, .. }))
    }

    /// The text with its macros expanded.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Macro { letter, escape, keep, reverse, delimiters } => {
                    let value = transform(&value_of(*letter, values), *keep, *reverse, delimiters);
                    if *escape { push_escaped(&mut out, &value) } else { out.push_str(&value) }
                }
            }
        }
        out
    }

    /// Expanded as a domain when nothing in it depends on a client or a sender.
    pub(super) fn of_domain(&self, domain: &str) -> Option<String> {
        let fixed = |part: &Part| matches!(part, Part::Literal(_) | Part::Macro { letter: Letter::Domain, .. });
        let nobody = Query { ip: IpAddr::from([0, 0, 0, 0]), helo: "", sender: "", receiver: "", now: 0 };
        let values = Values { query: &nobody, domain, validated: "" };
        self.0.iter().all(fixed).then(|| self.expand_domain(&values))
    }

    /// Expanded as a domain: at most 253 characters, for which labels are dropped from the left (section 7.3).
    pub(super) fn expand_domain(&self, values: &Values<'_>) -> String {
        let full = self.expand(values);
        let mut name = full.strip_suffix('.').unwrap_or(&full);
        while name.len() > 253 {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => break,
            }
        }
        name.to_owned()
    }
}

/// `"." toplabel ["."]` at the end of a literal; a toplabel is alphanumeric with at least one letter, or has a hyphen inside.
fn ends_in_top_label(literal: &str) -> bool {
    let literal = literal.strip_suffix('.').unwrap_or(literal);
    let Some((_, label)) = literal.rsplit_once('.') else { return false };
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.iter().any(|byte| !byte.is_ascii_digit())
}

fn parse_parts(text: &str, explanation: bool) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        if first != b'%' {
            // Visible characters; an explanation may also have blanks (section 6.2).
            let allowed = (0x21..=0x7e).contains(&first) || explanation && first == b' ';
            if !allowed {
                return Err("has a character that is not printable ASCII".to_owned());
            }
            literal.push(char::from(first));
            rest = &rest[1..];
            continue;
        }
        let (part, used) = parse_percent(rest, explanation)?;
        match part {
            Part::Literal(text) => literal.push_str(&text),
            part => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(part);
            }
        }
        rest = &rest[used..];
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// What begins with `%`, and how long it is.
fn parse_percent(text: &str, explanation: bool) -> Result<(Part, usize), String> {
    let literal = |text: &str| Ok((Part::Literal(text.to_owned()), 2));
    match text.as_bytes().get(1) {
        Some(b'%') => literal("%"),
        Some(b'_') => literal(" "),
        Some(b'-') => literal("%20"),
        Some(b'{') => {
            let end = text.find('}').ok_or("\"%{\" without \"}\"")?;
            Ok((parse_macro(&text[2..end], explanation)?, end + 1))
        }
        _ => Err("\"%\" without a macro".to_owned()),
    }
}

/// Letter, number of labels, `r`, delimiters.
fn parse_macro(inside: &str, explanation: bool) -> Result<Part, String> {
    let wrong = || format!("%{{{}}} is not a macro", inside.escape_default());
    let first = *inside.as_bytes().first().ok_or_else(wrong)?;
    let letter = Letter::parse(first).filter(|letter| explanation || !letter.is_for_explanation()).ok_or_else(wrong)?;
    let rest = &inside[1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let keep = match &rest[..digits] {
        "" => None,
        // A number that is longer than any name has labels keeps all of them.
        number => {
            Some(number.parse::<usize>().unwrap_or(usize::MAX)).filter(|keep| *keep > 0).map(Some).ok_or_else(wrong)?
        }
    };
    let rest = &rest[digits..];
    let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if !delimiters.bytes().all(|byte| b".-+,/_=".contains(&byte)) {
        return Err(wrong());
    }
    Ok(Part::Macro { letter, escape: first.is_ascii_uppercase(), keep, reverse, delimiters: delimiters.to_owned() })
}

fn value_of(letter: Letter, values: &Values<'_>) -> String {
    let query = values.query;
    match letter {
        Letter::Sender => format!("{}@{}", query.local(), query.domain()),
        Letter::LocalPart => query.local().to_owned(),
        Letter::SenderDomain => query.domain().to_owned(),
        Letter::Domain => values.domain.to_owned(),
        Letter::Ip => dotted(query.ip),
        Letter::ValidatedName => values.validated.to_owned(),
        Letter::IpVersion => if query.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
        Letter::Helo => query.helo.to_owned(),
        Letter::SmtpClient => query.ip.to_string(),
        Letter::Receiver => query.receiver.to_owned(),
        Letter::Time => query.now.to_string(),
    }
}

/// IPv4 as usual; IPv6 as 32 nibbles with dots between, in capitals as the test suites of the RFC have them.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let mut out: String = nibbles.map(|nibble| format!("{nibble:X}.")).collect();
            out.pop();
            out
        }
    }
}

/// Splits at the delimiters, reverses, keeps the rightmost parts, joins with dots (section 7.3).
fn transform(value: &str, keep: Option<usize>, reverse: bool, delimiters: &str) -> String {
    if keep.is_none() && !reverse && delimiters.is_empty() {
        return value.to_owned();
    }
    let delimiters = if delimiters.is_empty() { "." } else { delimiters };
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if reverse {
        parts.reverse();
    }
    let from = parts.len().saturating_sub(keep.unwrap_or(usize::MAX));
    parts[from..].join(".")
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn push_escaped(out: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7208 section 7.4.
    #[test]
    fn the_examples_of_the_rfc() {
        let v4 = Query {
            ip: "192.0.2.3".parse().unwrap(),
            helo: "mx.example.org",
            sender: "strong-bad@email.example.com",
            receiver: "mx",
            now: 1,
        };
        let v6 = Query { ip: "2001:db8::cb01".parse().unwrap(), ..v4 };
        for (query, text, expanded) in [
            (&v4, "%{s}", "strong-bad@email.example.com"),
            (&v4, "%{o}", "email.example.com"),
            (&v4, "%{d4}", "email.example.com"),
            (&v4, "%{d2}", "example.com"),
            (&v4, "%{d1}", "com"),
            (&v4, "%{dr}", "com.example.email"),
            (&v4, "%{d2r}", "example.email"),
            (&v4, "%{l-}", "strong.bad"),
            (&v4, "%{lr-}", "bad.strong"),
            (&v4, "%{l1r-}", "strong"),
            (&v4, "%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            (&v4, "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            (&v4, "%{S}%%%_%-", "strong-bad%40email.example.com% %20"),
            (
                &v6,
                "%{ir}.%{v}._spf.%{d2}",
                "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6._spf.example.com",
            ),
        ] {
            let values = Values { query, domain: "email.example.com", validated: "unknown" };
            assert_eq!(MacroString::parse(text).unwrap().expand(&values), expanded, "{text}");
        }
    }

    #[test]
    fn wrong_macros_are_refused() {
        for text in ["%", "%a", "%{", "%{x}", "%{d0}", "%{d2r!}", "%{c}", "a b", "\u{e9}"] {
            assert!(MacroString::parse(text).is_err(), "{text}");
        }
        for text in ["", "example", "example.1", "a.b-", "a./b"] {
            assert!(MacroString::parse_domain(text).is_err(), "{text}");
        }
        for text in ["a.b", "a.b.", "%{d}", "a.xn--b1"] {
            assert!(MacroString::parse_domain(text).is_ok(), "{text}");
        }
    }
}
