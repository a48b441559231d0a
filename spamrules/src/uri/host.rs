// SPDX-License-Identifier: GPL-3.0-or-later
//! Host and registered domain of a URI. Names in other scripts are not converted.

use std::borrow::Cow;

use crate::domains;
use crate::relays::ip;

/// The registered domain and the host of a URI; of an address both are the address. `None` when there is no valid host.
pub(crate) fn of_uri(uri: &[u8], domains: &domains::Settings) -> Option<(String, String)> {
    let uri = uri.to_ascii_lowercase();
    if [&b"javascript:"[..], b"cid:", b"file:"].iter().any(|scheme| uri.starts_with(scheme)) {
        return None;
    }
    let host = match uri.strip_prefix(b"mailto:") {
        Some(address) => mail_host(address)?,
        None => web_host(&uri),
    };
    if has_encoded_letter(host) {
        return None;
    }
    let host = std::str::from_utf8(host).ok()?;
    if is_address(host) {
        return Some((host.to_owned(), host.to_owned()));
    }
    let valid = domains::is_well_formed(host) && domains.has_tld(host);
    valid.then(|| (domains.registered(host), host.to_owned()))
}

/// Whether all of `host` is an IP address.
pub(crate) fn is_address(host: &str) -> bool {
    ip::length_at(host.as_bytes(), 0) == Some(host.len())
}

/// The host after the only `@`.
fn mail_host(address: &[u8]) -> Option<&[u8]> {
    let address = address.split(|&byte| byte == b'?').next()?;
    let mut parts = address.split(|&byte| byte == b'@');
    let (_, host) = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some(host)
}

fn web_host(uri: &[u8]) -> &[u8] {
    let scheme = uri.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let rest = match uri.get(scheme..).and_then(|rest| rest.strip_prefix(b":")).filter(|_| scheme > 0) {
        Some(rest) => rest.strip_prefix(b"//").or(rest.strip_prefix(b"/")).unwrap_or(rest),
        None => uri,
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let rest = rest.get(..end).unwrap_or_default();
    let rest = rest.get(memchr::memrchr(b'@', rest).map_or(0, |at| at + 1)..).unwrap_or_default();
    let port = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = rest.get(..rest.len() - port).unwrap_or_default();
    name.strip_suffix(b":").unwrap_or(rest)
}

/// A letter or sign that should not be encoded: the decoded form is seen, too.
fn has_encoded_letter(host: &[u8]) -> bool {
    memchr::memchr_iter(b'%', host).any(|at| {
        let digits = host.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(|octet| octet.is_ascii_graphic())
    })
}

/// The host part of a bare name or URI as text.
pub(crate) fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}
