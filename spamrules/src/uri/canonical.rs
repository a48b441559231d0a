// SPDX-License-Identifier: GPL-3.0-or-later
//! All forms in which a URI is seen by rules: repaired, decoded, without port, as a mail program would open it, and where redirectors lead.
//!
//! Nesting of redirectors and the work that their patterns may cause are bounded.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::encode;
use crate::domains;
use crate::message::is_space;
use crate::regexes::Pattern;

/// How many URIs inside one URI are followed.
const MAX_NESTED: usize = 10;
/// Work that redirector patterns may cause per message: their cost can grow with the square of the length.
const MAX_WORK: u64 = 200_000_000;

/// The work done so far for one message.
#[derive(Debug, Default)]
pub(super) struct Work {
    spent: u64,
    /// More URIs inside one URI than are followed.
    cut: bool,
}

impl Work {
    /// Whether there is room for patterns over `len` bytes; notes that they ran.
    fn allow(&mut self, len: usize) -> bool {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.spent = self.spent.saturating_add(len.saturating_mul(len));
        self.spent <= MAX_WORK
    }

    /// Whether some patterns did not run or some URIs were not followed.
    pub(super) fn is_over(&self) -> bool {
        self.cut || self.spent > MAX_WORK
    }
}

/// All forms of a URI, itself among them, some perhaps twice.
pub(super) fn forms(uri: &[u8], redirectors: &[Pattern], domains: &domains::Settings, work: &mut Work) -> Vec<Vec<u8>> {
    let mut sources = vec![trimmed(uri)];
    let mut out = Vec::new();
    let mut place = 0;
    while let Some(source) = sources.get(place).cloned() {
        place += 1;
        if is_local(&source) {
            continue;
        }
        let nested = if is_mail(&source) {
            mail_forms(&source, &mut out);
            None
        } else {
            web_forms(&source, redirectors, domains, work, &mut out)
        };
        if sources.len() <= MAX_NESTED {
            sources.extend(nested.map(|nested| trimmed(&nested)));
        } else {
            work.cut |= nested.is_some();
        }
    }
    sources.append(&mut out);
    sources
}

/// Without line ends and without blanks around it.
fn trimmed(uri: &[u8]) -> Vec<u8> {
    // A line end is a blank, so it does not matter when it is taken out.
    let start = uri.iter().take_while(|&&byte| is_space(byte)).count();
    let tail = uri.iter().rev().take_while(|&&byte| is_space(byte)).count();
    let mut inner = uri.get(start..uri.len().saturating_sub(tail)).unwrap_or_default().to_vec();
    inner.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    inner
}

/// Points into the same page or host.
fn is_local(uri: &[u8]) -> bool {
    uri.len() <= 1 || matches!(uri, [b'#' | b'?' | b'&', ..]) || (uri.starts_with(b"/") && !uri.starts_with(b"//"))
}

fn starts_with(uri: &[u8], lower: &[u8]) -> bool {
    uri.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

fn is_mail(uri: &[u8]) -> bool {
    let sign = uri.iter().position(|byte| matches!(byte, b':' | b'@'));
    starts_with(uri, b"mailto:") || sign.and_then(|at| uri.get(at)) == Some(&b'@')
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern written here")
}

/// Addresses without what follows them, as mail programs read them.
fn mail_forms(uri: &[u8], out: &mut Vec<Vec<u8>>) {
    static ENDS: LazyLock<[Regex; 2]> =
        LazyLock::new(|| [pattern(r"(?s-u)^([^@]+@[^?]+)\?"), pattern(r"(?s-u)^([^@]+@[^?&]+)&")]);
    static INNER: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        [pattern(r"(?s-u)^(?:mailto:)?(?:%20)*([^@]+@[^?&%]+)"), pattern(r"(?s-u)^[^?&]*<([^@>]+@[^>]+)>")]
    });
    let group = |pattern: &Regex| pattern.captures(uri).and_then(|found| Some(found.get(1)?.as_bytes().to_vec()));
    out.extend(ENDS.iter().filter_map(group));
    let encoded = memchr::memmem::find(uri, b"%20").is_some();
    let inner = INNER.iter().skip(usize::from(!encoded)).filter_map(group);
    out.extend(inner.map(|address| [b"mailto:", address.as_slice()].concat()));
}

/// The forms of any other URI; gives the URI that it leads to, where there is one inside it.
fn web_forms(
    source: &[u8],
    redirectors: &[Pattern],
    domains: &domains::Settings,
    work: &mut Work,
    out: &mut Vec<Vec<u8>>,
) -> Option<Vec<u8>> {
    let uri = repaired(source);
    if uri != source {
        out.push(uri.clone());
    }
    let parts = Parts::of(&uri)?;
    out.extend(parts.without_port());
    let mut host = parts.host.to_vec();
    if host.iter().any(|&byte| byte <= b' ') {
        host.retain(|&byte| byte > b' ');
        out.push(parts.with_host(&host));
    }
    let nested = leads_to(&parts, &host, redirectors, work);
    if let Some(at) = memchr::memchr(b'@', &host).filter(|&at| at > 0) {
        host.drain(..=at);
        out.push(parts.with_host(&host));
    }
    let end = host.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |at| at + 1);
    if end < host.len() {
        host.truncate(end);
        out.push(parts.with_host(&host));
    }
    match numeric(&host) {
        Some(address) => out.push(parts.with_host(address.as_bytes())),
        None => out.extend(parts.completed(domains)),
    }
    nested
}

/// The URI with its scheme, slashes and encoding as they should be.
fn repaired(source: &[u8]) -> Vec<u8> {
    let mut uri: Vec<u8> = source.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
    if let Some(scheme) =
        [&b"https:"[..], b"http:"].iter().find(|scheme| starts_with(&uri, scheme)).map(|scheme| scheme.len())
    {
        let slashes = uri.iter().skip(scheme).take(2).take_while(|&&byte| byte == b'/').count();
        uri.splice(scheme..scheme + slashes, *b"//");
    }
    if encode::has_encoded(&uri) {
        uri = encode::normal(&uri);
    }
    if !has_scheme(&uri) {
        let scheme: &[u8] = if uri.starts_with(b"ftp.") { b"ftp://" } else { b"http://" };
        uri.splice(0..0, scheme.iter().copied());
    }
    slash_after_host(&mut uri);
    if memchr::memmem::find(&uri, b"&#").is_some() { without_entities(&uri) } else { uri }
}

fn has_scheme(uri: &[u8]) -> bool {
    let len = uri.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count();
    len > 0 && uri.get(len) == Some(&b':')
}

/// `http://host?query` is `http://host/?query`.
fn slash_after_host(uri: &mut Vec<u8>) {
    let Some(start) = scheme_len(uri) else { return };
    let rest = uri.get(start..).unwrap_or_default();
    if let Some(len) = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        && len > 0
        && rest.get(len) != Some(&b'/')
    {
        uri.insert(start + len, b'/');
    }
}

/// Length of `http://` or `https://`.
fn scheme_len(uri: &[u8]) -> Option<usize> {
    [&b"https://"[..], b"http://"].iter().find(|scheme| starts_with(uri, scheme)).map(|scheme| scheme.len())
}

/// Character references of ASCII letters and of dots.
fn without_entities(uri: &[u8]) -> Vec<u8> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?-u)&#(?:0*(3[3-9]|[4-9]\d|1[01]\d|12[0-6])|x0*(2[1-9]|[3-6][a-fA-F0-9]|7[0-9a-eA-E]));")
    });
    static DOT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i-u)&#(?:x2e|12290|x3002|65294|xff0e|65377|xff61);"));
    let letter = |found: &regex::bytes::Captures<'_>| {
        let number = |group: usize, radix: u32| {
            let digits = std::str::from_utf8(found.get(group)?.as_bytes()).ok()?;
            u8::from_str_radix(digits, radix).ok()
        };
        number(1, 10).or_else(|| number(2, 16)).into_iter().collect::<Vec<u8>>()
    };
    let decoded = NUMBER.replace_all(uri, letter);
    DOT.replace_all(&decoded, &b"."[..]).into_owned()
}

/// A web URI in parts.
struct Parts<'a> {
    scheme: &'a [u8],
    has_user: bool,
    host: &'a [u8],
    /// The port and all that follows.
    rest: &'a [u8],
    port: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(uri: &'a [u8]) -> Option<Parts<'a>> {
        let (scheme, after) = uri.split_at(scheme_len(uri)?);
        let stop = after.iter().position(|byte| matches!(byte, b'@' | b'/' | b'?' | b'#'));
        let user = stop.filter(|&at| after.get(at) == Some(&b'@')).map_or(0, |at| at + 1);
        let host_len =
            |from: usize| after.iter().skip(from).take_while(|byte| !matches!(byte, b'/' | b'?' | b'#' | b':')).count();
        let user = if host_len(user) > 0 { user } else { 0 };
        let len = host_len(user);
        if len == 0 {
            return None;
        }
        let (host, rest) = after.get(user..)?.split_at(len);
        let port = rest.strip_prefix(b":").unwrap_or_default();
        let digits = port.iter().take_while(|byte| byte.is_ascii_digit()).count();
        Some(Parts { scheme, has_user: user > 0, host, rest, port: port.get(..digits)? })
    }

    fn with_host(&self, host: &[u8]) -> Vec<u8> {
        [self.scheme, host, self.rest].concat()
    }

    fn usual_port(&self) -> &'static [u8] {
        if self.scheme == b"http://" { b"80" } else { b"443" }
    }

    /// Without a port that is the usual one.
    fn without_port(&self) -> Option<Vec<u8>> {
        if self.port.is_empty() || self.port != self.usual_port() {
            return None;
        }
        let rest = self.rest.get(1 + self.port.len()..)?;
        let word = rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        (!word).then(|| [self.scheme, self.host, rest].concat())
    }

    /// `http://example/` may be opened as `http://www.example.com/`.
    fn completed(&self, domains: &domains::Settings) -> Option<Vec<u8>> {
        let host = self.host.to_ascii_lowercase();
        let plain =
            self.scheme == b"http://" && !self.has_user && matches!(self.port, b"" | b"80") && host != b"localhost";
        let name = host.strip_prefix(b"www.").filter(|name| !name.contains(&b'.') && !name.is_empty()).unwrap_or(&host);
        if !plain || name.contains(&b'.') || domains.has_tld(&super::host::lossy(&host)) {
            return None;
        }
        Some([self.scheme, b"www.", name, b".com", self.rest].concat())
    }
}

/// Where the URI leads: by a pattern, or because it holds another URI.
fn leads_to(parts: &Parts<'_>, host: &[u8], redirectors: &[Pattern], work: &mut Work) -> Option<Vec<u8>> {
    static INSIDE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i-u)https?:/{0,2}[^&#]+"));
    if !parts.rest.is_empty() && !redirectors.is_empty() {
        let uri = [parts.scheme, host, parts.rest].concat();
        if work.allow(uri.len()) {
            let group = |pattern: &Pattern| pattern.group(&uri, 1).filter(|found| found.contains(&b'.'));
            if let Some(found) = redirectors.iter().find_map(group) {
                return Some(found.to_vec());
            }
        }
    }
    let found = INSIDE.find(parts.rest)?.as_bytes();
    found.contains(&b'.').then(|| found.to_vec())
}

/// An address written as numbers (decimal, octal, hexadecimal; four or one), in the usual form.
fn numeric(host: &[u8]) -> Option<String> {
    let host = std::str::from_utf8(host).ok()?;
    let hex = |text: &str| text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    let is_number = |text: &str| {
        let digits = if hex(text) { text.get(2..).unwrap_or_default() } else { text };
        !digits.is_empty()
            && digits.bytes().all(|byte| if hex(text) { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() })
    };
    if !host.split('.').all(is_number) {
        return None;
    }
    let parts: Vec<&str> = host.split('.').collect();
    match *parts {
        [_, _, _, _] => Some(parts.iter().map(|part| number(part)).collect::<Vec<_>>().join(".")),
        [whole] => Some(single(whole, hex(whole))),
        _ => None,
    }
}

/// One of four numbers as decimal; zero is left out.
fn number(text: &str) -> String {
    let value = match text.get(..2) {
        Some("0x" | "0X") => u64::from_str_radix(text.get(2..).unwrap_or_default(), 16).unwrap_or(u64::MAX).to_string(),
        _ => {
            let digits = text.trim_start_matches('0');
            let octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
                && match digits.as_bytes() {
                    [b'1'..=b'3', ..] => digits.len() <= 3,
                    [b'4'..=b'7', ..] => digits.len() <= 2,
                    _ => false,
                };
            if octal && digits.len() < text.len() {
                u64::from_str_radix(digits, 8).unwrap_or(0).to_string()
            } else {
                digits.to_owned()
            }
        }
    };
    value.trim_start_matches('0').to_owned()
}

/// One number for the whole address; of a longer one the first 32 bits count when it is decimal, the last ones when it is hexadecimal.
fn single(text: &str, hex: bool) -> String {
    let value = if hex {
        let digits = text.get(text.len().saturating_sub(8).max(2)..).unwrap_or_default();
        u32::from_str_radix(digits, 16).unwrap_or(0)
    } else {
        let digits = format!("{:08x}", text.parse::<u64>().unwrap_or(u64::MAX));
        u32::from_str_radix(digits.get(..8).unwrap_or_default(), 16).unwrap_or(0)
    };
    std::net::Ipv4Addr::from(value).to_string()
}
