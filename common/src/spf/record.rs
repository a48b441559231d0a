// SPDX-License-Identifier: GPL-3.0-or-later
//! The text of an SPF record, read as a whole before any of it is evaluated: a syntax error anywhere is a
//! permerror (RFC 7208 sections 4.6 and 12). Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::SpfResult;
use super::macros::MacroString;

/// A record in order of its terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<MacroString>,
    pub(super) explanation: Option<MacroString>,
}

/// A mechanism and the result it gives when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
    /// As written, for log and header.
    pub(super) text: String,
}

/// Prefix lengths for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// The mechanisms of section 5. A domain of `None` stands for the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefixes),
    Mx(Option<MacroString>, Prefixes),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(MacroString),
}

/// True for a TXT record that is an SPF record (section 4.5).
pub(super) fn is_spf(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    text.get(..VERSION.len()).is_some_and(|start| start.eq_ignore_ascii_case(VERSION))
        && matches!(text.get(VERSION.len()), None | Some(b' '))
}

/// Reads a record for which [`is_spf`] holds. The error says which term is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii()).ok_or("the record is not ASCII")?;
    let mut record = Record::default();
    for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
        parse_term(term, &mut record).map_err(|reason| format!("{}: {reason}", term.escape_default()))?;
    }
    Ok(record)
}

fn parse_term(term: &str, record: &mut Record) -> Result<(), String> {
    if let Some((name, value)) = modifier(term) {
        return parse_modifier(name, value, record);
    }
    let (result, rest) = match term.as_bytes().first() {
        Some(b'+') => (SpfResult::Pass, &term[1..]),
        Some(b'-') => (SpfResult::Fail, &term[1..]),
        Some(b'~') => (SpfResult::Softfail, &term[1..]),
        Some(b'?') => (SpfResult::Neutral, &term[1..]),
        _ => (SpfResult::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let mechanism = parse_mechanism(&rest[..end], &rest[end..])?;
    record.directives.push(Directive { result, mechanism, text: term.to_owned() });
    Ok(())
}

/// Name and value when the term is a modifier: a name, then `=` before any `:` or `/`.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let mut bytes = name.bytes();
    let is_name = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name.then_some((name, value))
}

fn parse_modifier(name: &str, value: &str, record: &mut Record) -> Result<(), String> {
    let slot = if name.eq_ignore_ascii_case("redirect") {
        &mut record.redirect
    } else if name.eq_ignore_ascii_case("exp") {
        &mut record.explanation
    } else {
        // Unknown modifiers are ignored, but must be well formed.
        return MacroString::parse(value).map(drop);
    };
    if slot.is_some() {
        return Err("stands twice".to_owned());
    }
    *slot = Some(MacroString::parse_domain(value)?);
    Ok(())
}

fn parse_mechanism(name: &str, rest: &str) -> Result<Mechanism, String> {
    let bare = |mechanism| if rest.is_empty() { Ok(mechanism) } else { Err("takes no argument".to_owned()) };
    let required = || rest.strip_prefix(':').ok_or("needs a domain".to_owned()).and_then(MacroString::parse_domain);
    match name.to_ascii_lowercase().as_str() {
        "all" => bare(Mechanism::All),
        "include" => Ok(Mechanism::Include(required()?)),
        "exists" => Ok(Mechanism::Exists(required()?)),
        "a" => host_mechanism(rest).map(|(domain, prefixes)| Mechanism::A(domain, prefixes)),
        "mx" => host_mechanism(rest).map(|(domain, prefixes)| Mechanism::Mx(domain, prefixes)),
        "ptr" => match rest.strip_prefix(':') {
            Some(domain) => Ok(Mechanism::Ptr(Some(MacroString::parse_domain(domain)?))),
            None => bare(Mechanism::Ptr(None)),
        },
        "ip4" => network(rest, 32).map(|(ip, prefix)| Mechanism::Ip4(ip, prefix)),
        "ip6" => network(rest, 128).map(|(ip, prefix)| Mechanism::Ip6(ip, prefix)),
        _ => Err("is no mechanism".to_owned()),
    }
}

/// `[":" domain-spec] [dual-cidr-length]`
fn host_mechanism(rest: &str) -> Result<(Option<MacroString>, Prefixes), String> {
    let (domain, prefixes) = cut_prefixes(rest)?;
    let domain = match domain.strip_prefix(':') {
        Some(domain) => Some(MacroString::parse_domain(domain)?),
        None if domain.is_empty() => None,
        None => return Err("needs \":\" before the domain".to_owned()),
    };
    Ok((domain, prefixes))
}

/// Cuts `/n`, `//m` or `/n//m` off the end. A slash elsewhere belongs to the domain-spec (section 7.1: macro-literal).
fn cut_prefixes(text: &str) -> Result<(&str, Prefixes), String> {
    let mut prefixes = Prefixes { v4: 32, v6: 128 };
    let mut rest = text;
    if let Some((before, digits)) = rest.rsplit_once("//")
        && is_digits(digits)
    {
        prefixes.v6 = prefix(digits, 128)?;
        rest = before;
    }
    if let Some((before, digits)) = rest.rsplit_once('/')
        && is_digits(digits)
    {
        prefixes.v4 = prefix(digits, 32)?;
        rest = before;
    }
    Ok((rest, prefixes))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number without leading zeros, at most `most`.
fn prefix(digits: &str, most: u8) -> Result<u8, String> {
    let number =
        digits.parse::<u8>().ok().filter(|number| *number <= most && (digits == "0" || !digits.starts_with('0')));
    number.ok_or_else(|| format!("/{digits} is not a prefix length"))
}

/// `":" ip-network ["/" length]`
fn network<Ip: std::str::FromStr>(rest: &str, most: u8) -> Result<(Ip, u8), String> {
    let text = rest.strip_prefix(':').ok_or("needs an address")?;
    let (ip, length) = match text.split_once('/') {
        Some((ip, digits)) if is_digits(digits) => (ip, prefix(digits, most)?),
        Some(_) => return Err("has no valid prefix length".to_owned()),
        None => (text, most),
    };
    Ok((ip.parse().map_err(|_| format!("{ip} is not an address"))?, length))
}
