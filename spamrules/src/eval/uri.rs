// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of URIs: redirectors, anchors that name another host than they lead to (SpamAssassin's plugins URIEval and HTTPSMismatch).

use super::html::number;
use super::matching::pattern;
use super::{Argument, Eval};
use crate::context::Context;
use crate::text::html::Link;
use crate::uri::host;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_for_http_redirector" => check_for_http_redirector,
        "check_https_ip_mismatch" => check_https_ip_mismatch,
        "check_uri_truncated" => |context, _| u32::from(context.uris().truncated),
        "check_https_http_mismatch" => check_https_http_mismatch,
        _ => return None,
    })
}

/// Longest chain of redirections that is looked at.
const MAX_CHAIN: usize = 10;

/// A URI leads through one host to another domain.
fn check_for_http_redirector(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(context.uris().list.iter().any(|uri| redirects(context, uri)))
}

fn redirects(context: &Context<'_>, uri: &[u8]) -> bool {
    let step = pattern!(r"(?i)^https?://([^/:?]+).+?(https?:/{0,2}?([^/:?]+).*)$");
    let domain = |name: &[u8]| {
        host::of_uri(name, &context.settings.domains)
            .map_or_else(|| String::from_utf8_lossy(name).into_owned(), |(domain, _)| domain)
    };
    let mut rest = uri;
    for _ in 0..MAX_CHAIN {
        let Some(found) = step.captures(rest) else { return false };
        let part = |group: usize| found.get(group).map_or(&b""[..], |part| part.as_bytes());
        if domain(part(1)) != domain(part(3)) {
            return true;
        }
        rest = part(2);
    }
    false
}

/// A link to an address under a text that names a secure host.
fn check_https_ip_mismatch(context: &Context<'_>, _: &[Argument]) -> u32 {
    let to_address = pattern!(r"(?i)^https?:/*(?:[^@/]+@)?\d+\.\d+\.\d+\.\d+");
    let secure_address = pattern!(r"(?i)^https:/*(?:[^@/]+@)?\d+\.\d+\.\d+\.\d+");
    let secure = pattern!(r"(?i)https:");
    let mismatch = |link: &Link| {
        to_address.is_match(link.uri.octets())
            && link.anchors.iter().any(|text| secure.is_match(text.octets()) && !secure_address.is_match(text.octets()))
    };
    u32::from(context.texts().html.iter().any(|facts| facts.links.iter().any(mismatch)))
}

/// A link under a text that names a secure host of another domain, among at least `min` and fewer than `max` links to names.
fn check_https_http_mismatch(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let min = number(arguments, 0).max(1.0);
    let max = arguments.get(1).map(Argument::number);
    let odd = context.texts().html.iter().any(|facts| {
        let named: Vec<_> = facts.links.iter().filter_map(|link| Some((link, link_domain(context, link)?))).collect();
        #[allow(clippy::cast_precision_loss)] // a count of one message
        let anchors = named.len() as f64;
        let in_range = anchors >= min && max.is_none_or(|max| anchors < max);
        in_range && named.iter().any(|(link, domain)| names_other(context, link, domain))
    });
    u32::from(odd)
}

/// The registered domain that an anchor leads to; `None` for addresses and for what does not exist.
fn link_domain(context: &Context<'_>, link: &Link) -> Option<String> {
    if link.anchors.is_empty() {
        return None;
    }
    let found = pattern!(r"(?i)^https?://([^/:?#]+)").captures(link.uri.octets())?;
    let name = std::str::from_utf8(found.get(1)?.as_bytes()).ok().filter(|name| !host::is_address(name))?;
    let domain = context.settings.domains.registered(name);
    let valid = host::of_uri(domain.as_bytes(), &context.settings.domains)
        .is_some_and(|(domain, _)| context.settings.domains.has_tld(&domain));
    valid.then_some(domain)
}

/// A text of the anchor names a secure host of another domain.
fn names_other(context: &Context<'_>, link: &Link, domain: &str) -> bool {
    let secure = pattern!(r"(?i)https://([^\s/:?#]+)");
    let domains = &context.settings.domains;
    link.anchors.iter().any(|text| {
        let found = secure.captures(text.octets()).and_then(|found| found.get(1));
        let Some(name) = found.and_then(|name| std::str::from_utf8(name.as_bytes()).ok()) else { return false };
        if host::is_address(name) {
            return name != domain;
        }
        let other = domains.registered(name);
        domains.has_tld(&other) && other != domain
    })
}

#[cfg(test)]
mod tests {
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(html: &str, name: &str, arguments: &[&str]) -> bool {
        with(&format!("Content-Type: text/html\n\n{html}"), &[], &NoAnswers, name, arguments) > 0
    }

    #[test]
    fn redirectors() {
        assert!(hits("<a href='http://www.a.com/?u=http://b.com/x'>", "check_for_http_redirector", &[]));
        assert!(!hits("<a href='http://www.a.com/?u=http://a.com/x'>", "check_for_http_redirector", &[]));
    }

    #[test]
    fn texts_that_name_another_host() {
        let name = "check_https_ip_mismatch";
        assert!(hits("<a href='http://10.0.0.1/'>https://bank.com/</a>", name, &[]));
        assert!(!hits("<a href='http://10.0.0.1/'>https://10.0.0.1/</a>", name, &[]));
        let name = "check_https_http_mismatch";
        assert!(hits("<a href='http://www.evil.com/'>https://www.bank.com/</a>", name, &["1", "10"]));
        assert!(!hits("<a href='http://www.bank.com/'>https://bank.com/</a>", name, &["1", "10"]));
        assert!(!hits("<a href='http://www.evil.com/'>https://www.bank.com/</a>", name, &["2", "10"]));
        assert!(!hits("<a href='http://www.evil.com/'>https://bank.invalid/</a>", name, &["1", "10"]));
    }

    #[test]
    fn long_uris() {
        assert!(hits(&format!("<a href='http://a.com/{}'>", "x".repeat(9000)), "check_uri_truncated", &[]));
        assert!(!hits("<a href='http://a.com/'>", "check_uri_truncated", &[]));
    }
}
