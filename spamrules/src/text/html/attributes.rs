// SPDX-License-Identifier: GPL-3.0-or-later
//! The attributes of one start tag, decoded when they are asked for.

use super::entities;
use super::tokens::Attribute;
use crate::text::chars::Chars;

/// The attributes of one start tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    list: &'a [Attribute<'a>],
    wide: bool,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(list: &'a [Attribute<'a>], wide: bool) -> Attributes<'a> {
        Attributes { list, wide }
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.list.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The value of the first attribute of that name; one without a value has its name as value.
    pub(super) fn get(&self, name: &[u8]) -> Option<Chars> {
        self.list.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|attribute| self.value(attribute))
    }

    /// The value of `name`, or of a broken attribute that ends in `word/name`.
    pub(super) fn get_tolerantly(&self, name: &[u8]) -> Option<Chars> {
        let broken = |known: &[u8]| {
            memchr::memchr_iter(b'/', known).any(|at| {
                let word = at.checked_sub(1).and_then(|before| known.get(before)).copied().unwrap_or(b' ');
                let after = known.get(at + 1..at + 1 + name.len()).unwrap_or_default();
                (word.is_ascii_alphanumeric() || word == b'_') && after.eq_ignore_ascii_case(name)
            })
        };
        match self.list.iter().rfind(|(known, _)| broken(known)) {
            Some(attribute) => Some(self.value(attribute)),
            None => self.get(name),
        }
    }

    fn value(&self, &(name, value): &Attribute<'_>) -> Chars {
        let mut out = Chars::default();
        match value {
            Some(value) => entities::decode_octets(value, self.wide, false, &mut out),
            None => out.push_octets(name, self.wide),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_broken() {
        let list = [(&b"A"[..], None), (b"a", Some(&b"2"[..])), (b"x/HREF", Some(b"u&amp;v"))];
        let attributes = Attributes::new(&list, false);
        assert_eq!(attributes.get(b"a").unwrap().octets(), b"A");
        assert!(!attributes.has(b"href"));
        assert_eq!(attributes.get_tolerantly(b"href").unwrap().octets(), b"u&v");
    }
}
