// SPDX-License-Identifier: GPL-3.0-or-later
//! The links of an HTML text: where they point (relative ones made absolute, RFC 3986 section 5), from which elements, under which texts.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::text::chars::{Chars, space_len};

/// Longest URI, in characters.
pub(crate) const MAX_URI: usize = 8192;
/// Most different links that are kept.
const MAX_LINKS: usize = 10_000;

/// One link target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// The target.
    pub(crate) uri: Chars,
    /// Elements that link to it.
    pub(crate) types: Vec<&'static str>,
    /// Texts of anchors that name it, as it is written there.
    pub(crate) anchors: Vec<Chars>,
}

/// All links in the order in which they appear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    list: Vec<Link>,
    places: HashMap<Vec<u8>, usize>,
    base: Option<Vec<u8>>,
    /// A URI was longer than [`MAX_URI`].
    pub(crate) truncated: bool,
    /// There were more links than [`MAX_LINKS`]: some are missing.
    pub(crate) limited: bool,
}

impl Links {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.list.iter()
    }

    fn entry(&mut self, uri: Chars) -> Option<&mut Link> {
        let next = self.list.len();
        let place = match self.places.get(uri.octets()) {
            Some(&place) => place,
            None if next >= MAX_LINKS => {
                self.limited = true;
                return None;
            }
            None => {
                self.places.insert(uri.octets().to_vec(), next);
                self.list.push(Link { uri, ..Link::default() });
                next
            }
        };
        self.list.get_mut(place)
    }

    /// Notes a link from an element.
    pub(super) fn add(&mut self, element: &'static str, uri: &Chars) {
        let uri = self.trim(uri);
        if uri.is_empty() {
            return;
        }
        let target = if has_own_scheme(uri.octets()) { uri } else { self.absolute(uri) };
        if target.is_empty() {
            return;
        }
        if let Some(link) = self.entry(target)
            && !link.types.contains(&element)
        {
            link.types.push(element);
        }
    }

    /// Notes an anchor; gives its place for [`Links::add_text`].
    pub(super) fn add_anchor(&mut self, uri: Option<&Chars>) -> Option<usize> {
        let uri = uri.map(|uri| self.trim(uri)).unwrap_or_default();
        let key = uri.octets().to_vec();
        self.entry(uri)?.anchors.push(Chars::default());
        self.places.get(&key).copied()
    }

    /// Adds to the text of the last anchor at that place.
    pub(super) fn add_text(&mut self, place: usize, text: &Chars) {
        if let Some(anchor) = self.list.get_mut(place).and_then(|link| link.anchors.last_mut()) {
            anchor.push(text);
        }
    }

    /// `<base href>`: where relative links start from, when it is a usual URI.
    pub(super) fn set_base(&mut self, uri: &Chars) {
        static USUAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i-u)^(?:https?|ftp):/{0,2}"));
        static FILE: LazyLock<Regex> =
            LazyLock::new(|| pattern(r"(?i-u)^([a-z]+:/{0,2}[^/]+/.*?)[^/.]+\.[^/.]{2,4}\n?$"));
        let uri = self.trim(uri);
        if !USUAL.is_match(uri.octets()) {
            return;
        }
        let text = uri.octets();
        let mut base = match FILE.captures(text).and_then(|found| found.get(1)) {
            Some(folder) => folder.as_bytes().to_vec(),
            None => text.to_vec(),
        };
        if !base.ends_with(b"/") {
            base.push(b'/');
        }
        self.base = Some(base);
    }

    /// Without blanks around it, and not too long.
    fn trim(&mut self, uri: &Chars) -> Chars {
        let wide = uri.is_wide();
        let blank = |text: &[u8]| match space_len(text, wide) {
            0 if !wide && text.first() == Some(&0xa0) => 1,
            len => len,
        };
        let mut text = uri.octets();
        while let Some(rest) = Some(blank(text)).filter(|&len| len > 0).and_then(|len| text.get(len..)) {
            text = rest;
        }
        let mut end = text.len();
        for back in (0..text.len()).rev() {
            let rest = text.get(back..end).unwrap_or_default();
            match blank(rest) {
                len if len > 0 && len == rest.len() => end = back,
                _ if rest.len() < 3 && wide => {}
                _ => break,
            }
        }
        let text = text.get(..end).unwrap_or_default();
        let kept = first_chars(text, wide, MAX_URI);
        self.truncated |= kept.len() < text.len();
        let mut out = Chars::default();
        out.push_octets(kept, wide);
        out
    }

    fn absolute(&self, uri: Chars) -> Chars {
        let base = self.base.as_deref().unwrap_or_default();
        let target = target(base, uri.octets());
        let mut out = Chars::default();
        out.push_octets(&target, uri.is_wide());
        out
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern written here")
}

/// The first `most` characters.
pub(crate) fn first_chars(text: &[u8], wide: bool, most: usize) -> &[u8] {
    if text.len() <= most {
        return text;
    }
    let end = if wide {
        let starts = text.iter().enumerate().filter(|&(_, &octet)| octet & 0xc0 != 0x80);
        starts.map(|(at, _)| at).nth(most).unwrap_or(text.len())
    } else {
        most
    };
    text.get(..end).unwrap_or_default()
}

fn has_own_scheme(uri: &[u8]) -> bool {
    [&b"data:"[..], b"mailto:", b"file:", b"cid:", b"tel:"]
        .iter()
        .any(|scheme| uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// The parts of a URI.
#[derive(Debug, Default, Clone, Copy)]
struct Parts<'a> {
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
    fragment: Option<&'a [u8]>,
}

fn split_at_any<'a>(text: &'a [u8], stops: &[u8]) -> (&'a [u8], &'a [u8]) {
    text.split_at(text.iter().position(|byte| stops.contains(byte)).unwrap_or(text.len()))
}

impl<'a> Parts<'a> {
    fn of(uri: &'a [u8]) -> Parts<'a> {
        let mut parts = Parts::default();
        let mut rest = uri;
        let (scheme, after) = split_at_any(uri, b":/?#");
        if after.starts_with(b":") && !scheme.is_empty() {
            parts.scheme = Some(scheme);
            rest = after.get(1..).unwrap_or_default();
        }
        if let Some(after) = rest.strip_prefix(b"//") {
            let (authority, after) = split_at_any(after, b"/?#");
            parts.authority = Some(authority);
            rest = after;
        }
        (parts.path, rest) = split_at_any(rest, b"?#");
        if let Some(after) = rest.strip_prefix(b"?") {
            let (query, after) = split_at_any(after, b"#");
            parts.query = Some(query);
            rest = after;
        }
        if let Some(after) = rest.strip_prefix(b"#") {
            parts.fragment = Some(split_at_any(after, b"\n").0);
        }
        parts
    }
}

/// Where `uri` points, seen from `base`.
fn target(base: &[u8], uri: &[u8]) -> Vec<u8> {
    let mut own = Parts::of(uri);
    let base = Parts::of(base);
    if own.scheme == base.scheme {
        own.scheme = None;
    }
    let (scheme, authority, path, query);
    if own.scheme.is_some() || own.authority.is_some() {
        scheme = own.scheme.or(base.scheme);
        (authority, path, query) = (own.authority, without_dots(own.path), own.query);
    } else {
        (scheme, authority) = (base.scheme, base.authority);
        (path, query) = match own.path {
            b"" => (base.path.to_vec(), own.query.or(base.query)),
            [b'/', ..] => (without_dots(own.path), own.query),
            _ => (without_dots(&merged(&base, own.path)), own.query),
        };
    }
    let mut out = Vec::with_capacity(uri.len() + 16);
    match (scheme.filter(|scheme| *scheme != b"0"), authority) {
        (Some(scheme), _) => out.extend([scheme, b":"].concat()),
        (None, Some(authority)) if is_host_named(authority, b"www") => out.extend(b"http:"),
        (None, Some(authority)) if is_host_named(authority, b"ftp") => out.extend(b"ftp:"),
        _ => {}
    }
    let mut part = |mark: &[u8], part: Option<&[u8]>| {
        if let Some(part) = part {
            out.extend_from_slice(mark);
            out.extend_from_slice(part);
        }
    };
    part(b"//", authority);
    part(b"", Some(&path));
    part(b"?", query);
    part(b"#", own.fragment);
    out
}

/// `www2.…`
fn is_host_named(authority: &[u8], name: &[u8]) -> bool {
    let Some(start) = authority.get(..name.len()) else { return false };
    let rest = authority.get(name.len()..).unwrap_or_default();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    start.eq_ignore_ascii_case(name) && rest.get(digits) == Some(&b'.')
}

fn merged(base: &Parts<'_>, path: &[u8]) -> Vec<u8> {
    if base.authority.is_some() && base.path.is_empty() {
        return [b"/", path].concat();
    }
    let folder = memchr::memrchr(b'/', base.path).map_or(0, |at| at + 1);
    [base.path.get(..folder).unwrap_or_default(), path].concat()
}

/// Resolves `.` and `..` in a path.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut rest = match path {
        [b'.', b'.', b'/', ..] => path.get(2..).unwrap_or_default(),
        [b'.', b'/', ..] => path.get(1..).unwrap_or_default(),
        _ => path,
    };
    while !rest.is_empty() && rest != b"0" {
        if rest == b"/." || rest.starts_with(b"/./") {
            rest = if rest.len() == 2 { b"/" } else { rest.get(2..).unwrap_or_default() };
        } else if rest == b"/.." || rest.starts_with(b"/../") {
            rest = if rest.len() == 3 { b"/" } else { rest.get(3..).unwrap_or_default() };
            out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0));
        } else {
            let slash = usize::from(rest.starts_with(b"/"));
            let len = memchr::memchr(b'/', rest.get(slash..).unwrap_or_default()).map_or(rest.len(), |len| slash + len);
            let (segment, after) = rest.split_at(len);
            out.extend_from_slice(segment);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen_from(base: &str, uri: &str) -> String {
        String::from_utf8(target(base.as_bytes(), uri.as_bytes())).unwrap()
    }

    #[test]
    fn relative_links_become_absolute() {
        let base = "http://a/b/c/";
        assert_eq!(seen_from(base, "g"), "http://a/b/c/g");
        assert_eq!(seen_from(base, "../g?y#s"), "http://a/b/g?y#s");
        assert_eq!(seen_from(base, "/./g/.."), "http://a/");
        assert_eq!(seen_from(base, "//g"), "http://g");
        assert_eq!(seen_from(base, "?y"), "http://a/b/c/?y");
        assert_eq!(seen_from(base, "http:g"), "http://a/b/c/g");
        assert_eq!(seen_from(base, "https://x/../y"), "https://x/y");
        assert_eq!(seen_from("", "//www2.x/y"), "http://www2.x/y");
        assert_eq!(seen_from("", "//x/y"), "//x/y");
        assert_eq!(seen_from("", "a/b.html"), "a/b.html");
    }

    #[test]
    fn a_base_ends_in_a_folder() {
        let mut links = Links::default();
        links.set_base(&Chars::from_octets(b"http://a/b/index.html"));
        links.add("a", &Chars::from_octets(b" c \n"));
        links.add("img", &Chars::from_octets(b"c"));
        links.set_base(&Chars::from_octets(b"mailto:x"));
        links.add("a", &Chars::from_octets(b"mailto:x@y"));
        let found: Vec<_> = links.iter().map(|link| (link.uri.octets(), link.types.clone())).collect();
        assert_eq!(found, [(&b"http://a/b/c"[..], vec!["a", "img"]), (b"mailto:x@y", vec!["a"])]);
    }

    #[test]
    fn long_links_are_cut() {
        let mut links = Links::default();
        links.add("a", &Chars::from_text("é".repeat(9000)));
        assert!(links.truncated);
        assert_eq!(links.iter().next().unwrap().uri.count(), MAX_URI);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(base in proptest::collection::vec(any::<u8>(), 0..60), uri in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = target(&base, &uri);
            let mut links = Links::default();
            links.add("a", &Chars::from_octets(&uri));
            links.add("a", &Chars::from_text(String::from_utf8_lossy(&uri).into_owned()));
        }

        #[test]
        fn any_dots_never_panic(path in "[./a0]{0,30}") {
            let _ = without_dots(path.as_bytes());
        }
    }
}
