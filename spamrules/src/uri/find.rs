// SPDX-License-Identifier: GPL-3.0-or-later
//! URIs and mail addresses in running text, where mail programs make links of them: with a scheme, as an address, or as a bare host name
//! under a known top-level domain.
//!
//! Works on octets of one paragraph; each is looked at a bounded number of times.

use crate::domains;

/// Longest rest of a URI, and longest half of an address and longest host name, in bytes.
const MAX_REST: usize = 2048;
const MAX_HALF: usize = 251;

/// How a text looked like a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scheme,
    Mail,
    /// A bare host name of that length.
    Bare(usize),
}

/// Something that looked like a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'t> {
    /// The text without punctuation at its end.
    pub(super) text: &'t [u8],
    pub(super) kind: Kind,
    host: &'t [u8],
}

/// What ends a URI.
fn ends_uri(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b'>' | b'<' | b'"' | b'`' | b'}' | b']' | b'{' | b'[' | b'|' | 0x1b | 0xa0)
}

/// What ends an address.
fn ends_mail(byte: u8) -> bool {
    ends_uri(byte) || matches!(byte, b',' | b'(' | b'\'') || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    crate::message::is_space(byte)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// After these a bare host name may begin.
fn opens_bare(byte: u8) -> bool {
    is_space(byte)
        || matches!(byte, 0x1b | 0xa0)
        || (byte.is_ascii_punctuation() && !matches!(byte, b'%' | b'-' | b'.' | b'_'))
}

/// Gives everything in `text` that looks like a link to `take`.
pub(super) fn in_text<'t>(text: &'t [u8], domains: &domains::Settings, mut take: impl FnMut(Found<'t>)) {
    let mut at = 0;
    // a link has one of these signs
    while let Some(sign) = text.get(at..).and_then(|rest| memchr::memchr3(b'@', b'.', b':', rest)).map(|len| at + len) {
        let start = text
            .get(at..sign)
            .unwrap_or_default()
            .iter()
            .rposition(|&byte| ends_uri(byte))
            .map_or(at, |len| at + len + 1);
        let end = run_end(text, sign, ends_uri);
        at = match scan(text, start, end, domains) {
            Some((found, next)) => {
                take(found);
                next
            }
            None => end,
        };
    }
}

/// The first place from `from` on where `stop` holds.
fn run_end(text: &[u8], from: usize, stop: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.iter().position(|&byte| stop(byte)).map_or(text.len(), |len| from + len)
}

/// The first link in `start..end`, a stretch without anything that ends a URI, and where to go on.
fn scan<'t>(text: &'t [u8], start: usize, end: usize, domains: &domains::Settings) -> Option<(Found<'t>, usize)> {
    let mut half = 0;
    for at in start..end {
        let before = at.checked_sub(1).and_then(|before| text.get(before)).copied();
        let here = text.get(at).copied().unwrap_or(0);
        if !begins(text, at, before, here) {
            continue;
        }
        let stretch = text.get(at..end).unwrap_or_default();
        let found = if scheme_len(stretch).is_some_and(|len| (1..=MAX_REST).contains(&(stretch.len() - len))) {
            Some((end, Kind::Scheme))
        } else if let Some(end) = mail_end(text, at, end, &mut half) {
            Some((end, Kind::Mail))
        } else if before.is_none_or(opens_bare) && here.is_ascii_alphanumeric() {
            bare_len(stretch, domains).map(|len| (end, Kind::Bare(len)))
        } else {
            None
        };
        if let Some((end, kind)) = found {
            let raw = text.get(at..end).unwrap_or_default();
            let host = if let Kind::Bare(len) = kind { raw.get(..len).unwrap_or_default() } else { b"" };
            return Some((Found { text: without_tail(raw), kind, host }, end));
        }
    }
    None
}

/// A link may begin at the edge of a word, after certain signs, and after a shift of ISO 2022.
fn begins(text: &[u8], at: usize, before: Option<u8>, here: u8) -> bool {
    let Some(before) = before else { return is_word(here) };
    let opens = is_space(before)
        || matches!(before, b'>' | b'<' | b'"' | b'\'' | b'`' | b',' | b'{' | b'[' | b'(' | b'|' | 0x1b | 0xa0);
    let shifted = at >= 3 && text.get(at - 3..at - 1) == Some(b"\x1b(");
    is_word(before) != is_word(here) || opens || shifted
}

/// Length of what makes a URI of the text: a scheme, or the beginning of a usual host name.
fn scheme_len(text: &[u8]) -> Option<usize> {
    let starts = |lower: &[u8]| text.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower));
    match text.first()? {
        b'h' | b'H' => [&b"https://"[..], b"http://"].iter().find(|scheme| starts(scheme)).map(|scheme| scheme.len()),
        b'f' | b'F' => [&b"ftp://"[..], b"ftp."].iter().find(|scheme| starts(scheme)).map(|scheme| scheme.len()),
        b'w' | b'W' if starts(b"www") => {
            let digits = text.iter().skip(3).take(2).take_while(|byte| byte.is_ascii_digit()).count();
            (text.get(3 + digits) == Some(&b'.')).then_some(4 + digits)
        }
        _ => None,
    }
}

/// Where an address that begins at `at` ends. `half`: where the half before the `@` ended last time.
fn mail_end(text: &[u8], at: usize, end: usize, half: &mut usize) -> Option<usize> {
    let stretch = text.get(at..end)?;
    let mailto = b"mailto:";
    if stretch.get(..mailto.len()).is_some_and(|start| start.eq_ignore_ascii_case(mailto)) {
        let stop = run_end(text, at + mailto.len(), ends_mail);
        if (1..=MAX_REST).contains(&(stop - at - mailto.len())) {
            return Some(stop);
        }
    }
    if *half < at || *half == 0 {
        *half = run_end(text, at, |byte| byte == b'@' || ends_mail(byte));
    }
    if text.get(*half) != Some(&b'@') || !(1..=MAX_HALF).contains(&(*half - at)) {
        return None;
    }
    let stop = run_end(text, *half + 1, ends_mail);
    (1..=MAX_HALF).contains(&(stop - *half - 1)).then_some(stop)
}

/// Length of the host name, when `text` is nothing but a host name under a known top-level domain, perhaps with port and path.
fn bare_len(text: &[u8], domains: &domains::Settings) -> Option<usize> {
    let run = text.iter().position(|&byte| !is_host(byte)).unwrap_or(text.len());
    let (host, rest) = text.split_at(run);
    let host = host.strip_suffix(b".").unwrap_or(host);
    if !is_port_and_path(rest) {
        return None;
    }
    let dot = memchr::memrchr(b'.', host).filter(|dot| (1..=MAX_HALF + 1).contains(dot))?;
    let tld = std::str::from_utf8(host.get(dot + 1..)?).ok()?;
    domains.is_tld(tld).then_some(host.len())
}

fn is_port_and_path(rest: &[u8]) -> bool {
    let rest = match rest.strip_prefix(b":") {
        Some(port) => {
            let digits = port.iter().take_while(|byte| byte.is_ascii_digit()).count();
            match port.get(digits..).filter(|_| (1..=5).contains(&digits)) {
                Some(rest) => rest,
                None => return false,
            }
        }
        None => rest,
    };
    rest.is_empty() || (rest.starts_with(b"/") && (2..=MAX_REST + 1).contains(&rest.len()))
}

/// Without the last closing parenthesis that was not opened and what follows it, and without punctuation at the end.
fn without_tail(text: &[u8]) -> &[u8] {
    let opened = memchr::memchr(b'(', text).unwrap_or(text.len());
    let text = match text.get(..opened).and_then(|before| memchr::memrchr(b')', before)) {
        Some(at) => text.get(..at).unwrap_or_default(),
        None => text,
    };
    let tail = text.iter().rev().take_while(|byte| b"-~!@#^&*()_+=:;'?,.".contains(byte)).count();
    text.get(..text.len() - tail).unwrap_or_default()
}

/// Whether what was found is a link after all: the URI, with a scheme, and where it comes from.
pub(super) fn judge(found: &Found<'_>, domains: &domains::Settings) -> Option<(Vec<u8>, Vec<&'static str>)> {
    let text = found.text;
    let starts = |lower: &[u8]| text.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower));
    if found.kind == Kind::Mail && !text.contains(&b'@') {
        return None;
    }
    if matches!(found.kind, Kind::Bare(_)) && !std::str::from_utf8(found.host).is_ok_and(domains::is_well_formed) {
        return None;
    }
    if starts(b"cid:") || starts(b"mid:") || is_scheme_alone(text) {
        return None;
    }
    let mut types = vec!["parsed"];
    let with = |scheme: &[u8]| [scheme, text].concat();
    let uri = if [&b"http:"[..], b"https:", b"ftp:", b"mailto:"].iter().any(|scheme| starts(scheme)) {
        text.to_vec()
    } else {
        let web = scheme_len(text).is_some() || sign_after_slash(text);
        let uri = if web {
            with(if starts(b"ftp.") { b"ftp://" } else { b"http://" })
        } else if text.contains(&b'@') {
            mail_uri(text)?
        } else if text.contains(&b'.') {
            types.push("unlinked");
            with(b"http://")
        } else {
            return None;
        };
        types.push("schemeless");
        uri
    };
    if uri.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"mailto:")) {
        return mail_with_domain(uri, domains).map(|uri| (uri, types));
    }
    Some((uri, types))
}

/// `word:` with at most two slashes.
fn is_scheme_alone(text: &[u8]) -> bool {
    let word = text.iter().take_while(|&&byte| is_word(byte)).count();
    let rest = text.get(word..).and_then(|rest| rest.strip_prefix(b":"));
    word > 0 && rest.is_some_and(|rest| rest.len() <= 2 && rest.iter().all(|&byte| byte == b'/'))
}

/// `/…@`: not an address.
fn sign_after_slash(text: &[u8]) -> bool {
    let slash = memchr::memchr(b'/', text);
    slash.zip(memchr::memrchr(b'@', text)).is_some_and(|(slash, sign)| sign > slash + 1)
}

fn mail_uri(text: &[u8]) -> Option<Vec<u8>> {
    let dotted = memchr::memchr_iter(b'@', text).any(|at| text.get(at + 2..).is_some_and(|rest| rest.contains(&b'.')));
    if !dotted || memchr::memmem::find(text, b"&nbsp;").is_some() {
        return None;
    }
    let words = [&b"skype"[..], b"e-mail", b"email", b"-mail", b"mail"];
    let start = words.iter().find(|word| {
        let start = text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        start && text.get(word.len()) == Some(&b':')
    });
    let rest = text.get(start.map_or(0, |word| word.len())..)?;
    let colons = rest.iter().take_while(|&&byte| byte == b':').count();
    Some([b"mailto:", rest.get(colons..)?].concat())
}

/// The address with its encoding in one form, if its domain can exist.
fn mail_with_domain(uri: Vec<u8>, domains: &domains::Settings) -> Option<Vec<u8>> {
    let uri = if super::encode::has_encoded(&uri) { super::encode::normal(&uri) } else { uri };
    let rest = uri.get(memchr::memchr(b'@', &uri)? + 1..)?;
    let mut host = rest.get(..rest.iter().position(|byte| matches!(byte, b'?' | b'&' | b'>')).unwrap_or(rest.len()))?;
    while let Some(shorter) = host.strip_suffix(b"%20") {
        host = shorter;
    }
    domains.has_tld(&super::host::lossy(host)).then_some(uri)
}
