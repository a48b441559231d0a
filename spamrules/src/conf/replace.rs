// SPDX-License-Identifier: GPL-3.0-or-later
//! Replace tags: names in angle brackets within patterns, such as `<A>`, that stand for pieces of pattern.

use std::collections::{BTreeSet, HashMap};

use super::line::word;

/// Tags may stand for patterns with tags.
const MAX_PASSES: u32 = 6;
/// A pattern that grows further than this is left as it is.
const MAX_LENGTH: usize = 256 << 10;

/// All that is known about replace tags.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tags {
    tags: HashMap<Vec<u8>, Vec<u8>>,
    before: HashMap<Vec<u8>, Vec<u8>>,
    between: HashMap<Vec<u8>, Vec<u8>>,
    after: HashMap<Vec<u8>, Vec<u8>>,
    start: Option<u8>,
    end: Option<u8>,
    rules: BTreeSet<String>,
}

impl Tags {
    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> Option<Result<(), String>> {
        let map = match key {
            "replace_tag" => &mut self.tags,
            "replace_pre" => &mut self.before,
            "replace_inter" => &mut self.between,
            "replace_post" => &mut self.after,
            "replace_rules" => {
                self.rules.extend(String::from_utf8_lossy(value).split_whitespace().map(str::to_owned));
                return Some(Ok(()));
            }
            "replace_start" | "replace_end" => {
                let &[byte] = value else { return Some(Err("only a single character can mark a tag here".to_owned())) };
                *(if key == "replace_start" { &mut self.start } else { &mut self.end }) = Some(byte);
                return Some(Ok(()));
            }
            _ => return None,
        };
        let (name, text) = word(value);
        if text.is_empty() {
            return Some(Err("a tag needs a name and a pattern".to_owned()));
        }
        map.insert(name.to_vec(), text.to_vec());
        Some(Ok(()))
    }

    /// The rules in whose patterns tags are replaced.
    pub(crate) fn rules(&self) -> &BTreeSet<String> {
        &self.rules
    }

    /// The pattern with its tags replaced.
    pub(crate) fn expand(&self, pattern: &[u8]) -> Result<Vec<u8>, String> {
        let (start, end) = (self.start.unwrap_or(b'<'), self.end.unwrap_or(b'>'));
        let mut text = pattern.to_vec();
        for _ in 0..MAX_PASSES {
            let before = take_modifier(&mut text, start, end, b"pre ").and_then(|name| self.before.get(&name));
            let after = take_modifier(&mut text, start, end, b"post ").and_then(|name| self.after.get(&name));
            let between = take_modifier(&mut text, start, end, b"inter ").and_then(|name| self.between.get(&name));
            let (next, again) = self.pass(&text, start, end, [before, between, after]);
            if next.len() > MAX_LENGTH {
                return Err("the pattern grows too long".to_owned());
            }
            text = next;
            if !again {
                break;
            }
        }
        Ok(text)
    }

    /// Replaces every tag once; says whether the replacements bring tags of their own.
    fn pass(
        &self,
        text: &[u8],
        start: u8,
        end: u8,
        [before, between, after]: [Option<&Vec<u8>>; 3],
    ) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(text.len() * 4);
        let mut again = false;
        let mut last_was_tag = false;
        let pieces = pieces(text, start, end);
        for piece in pieces {
            let Piece::Tag(whole) = piece else {
                let Piece::Text(plain) = piece else { continue };
                out.extend_from_slice(plain);
                last_was_tag = false;
                continue;
            };
            if last_was_tag {
                out.extend_from_slice(between.map_or(&[], Vec::as_slice));
            }
            last_was_tag = true;
            out.extend_from_slice(before.map_or(&[], Vec::as_slice));
            let name = whole.get(1..whole.len().saturating_sub(1)).unwrap_or_default();
            match self.tags.get(name) {
                Some(replacement) => {
                    again |= self.has_tag(replacement, start, end);
                    out.extend_from_slice(replacement);
                }
                None => out.extend_from_slice(whole),
            }
            out.extend_from_slice(after.map_or(&[], Vec::as_slice));
        }
        (out, again)
    }

    fn has_tag(&self, text: &[u8], start: u8, end: u8) -> bool {
        pieces(text, start, end).iter().any(|piece| matches!(piece, Piece::Tag(_)))
    }
}

enum Piece<'a> {
    Text(&'a [u8]),
    /// With its marks.
    Tag(&'a [u8]),
}

/// Splits a pattern at its tags. Groups such as `(?<name>…)` look like tags too, but stand for nothing.
fn pieces(text: &[u8], start: u8, end: u8) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let found = rest.iter().enumerate().filter(|(_, byte)| **byte == start).find_map(|(at, _)| {
            let inner = rest.get(at + 1..)?;
            let length = inner.iter().position(|&byte| byte == start || byte == end)?;
            (length > 0 && inner.get(length) == Some(&end)).then_some((at, length + 2))
        });
        let Some((at, length)) = found else { break };
        let (plain, tail) = rest.split_at(at);
        let (tag, tail) = tail.split_at(length);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        pieces.push(Piece::Tag(tag));
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Takes the first `<pre NAME>`, `<inter NAME>` or `<post NAME>` out of a pattern.
fn take_modifier(text: &mut Vec<u8>, start: u8, end: u8, word: &[u8]) -> Option<Vec<u8>> {
    let head = [&[start], word].concat();
    let at = text.windows(head.len()).position(|window| window == head)?;
    let rest = text.get(at + head.len()..)?;
    let length = rest.iter().position(|&byte| byte == end).filter(|&length| length > 0)?;
    let name = rest.get(..length)?.to_vec();
    text.drain(at..at + head.len() + length + 1);
    Some(name)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn tags() -> Tags {
        let mut tags = Tags::default();
        for (key, value) in [
            ("replace_tag", "A [a@]"),
            ("replace_tag", "V (?:v|<W>)"),
            ("replace_tag", "W \\\\/"),
            ("replace_inter", "SP [ _]*"),
            ("replace_post", "P {1,3}"),
        ] {
            tags.set(key, value.as_bytes()).unwrap().unwrap();
        }
        tags
    }

    fn expand(text: &str) -> String {
        String::from_utf8(tags().expand(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn tags_are_replaced() {
        assert_eq!(expand("<V><A>"), "(?:v|\\\\/)[a@]");
        assert_eq!(expand("<inter SP><A><A>x"), "[a@][ _]*[a@]x");
        assert_eq!(expand("<post P>x<A>y"), "x[a@]{1,3}y");
        assert_eq!(expand("(?<!a)b<Q>"), "(?<!a)b<Q>");
    }

    #[test]
    fn a_tag_of_itself_ends() {
        let mut tags = Tags::default();
        tags.set("replace_tag", b"X <X><X>").unwrap().unwrap();
        assert!(tags.expand(b"<X>").is_ok());
    }
}
