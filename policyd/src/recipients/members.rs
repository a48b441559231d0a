// SPDX-License-Identifier: GPL-3.0-or-later
//! All recipients of one directory: a sorted list of numbers, eight bytes each, replaced as a whole.
//!
//! Pure. Entries are addresses, or `@domain` for a domain in which every address is known.

use super::address::{number, whole_domain};

/// Most recipients of one directory; beyond it a pull fails.
pub const MOST: usize = 4_000_000;

/// The recipients of one directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members(Box<[u64]>);

impl Members {
    /// Of addresses in any order and case, each counted once.
    pub fn of<T: AsRef<str>>(addresses: impl Iterator<Item = T>) -> Self {
        Self::from_numbers(addresses.map(|address| number(&address.as_ref().trim().to_lowercase())).collect())
    }

    /// Of numbers in any order.
    pub fn from_numbers(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers.into_boxed_slice())
    }

    /// True when this form of an address is listed, or its whole domain.
    pub fn contain(&self, form: &str) -> bool {
        let has = |form: &str| self.0.binary_search(&number(form)).is_ok();
        has(form) || has(&whole_domain(form))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As bytes for store and disk: each number with its highest byte first.
    pub fn packed(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// Back from bytes; none when they are no such list.
    pub fn unpacked(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Box<[u64]> = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
        (rest.is_empty() && numbers.is_sorted()).then_some(Self(numbers))
    }

    /// Whether so many recipients may take the place of these: not when so much as `percent` of these would be gone all at once, and never
    /// none at all. A directory that is being restored, or a query that has gone wrong, looks just like that.
    pub fn may_become(&self, len: usize, percent: u8) -> bool {
        // Numbers of recipients are far below the range of u64 even a hundredfold.
        let least = self.len() as u64 * u64::from(100 - percent.min(100));
        len > 0 && len as u64 * 100 >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_whole_domains_are_found() {
        let members = Members::of(["Ann@Example.org ", "bob@example.org", "@all.example", "ann@example.org"].iter());
        assert_eq!(members.len(), 3);
        assert!(members.contain("ann@example.org") && members.contain("bob@example.org"));
        assert!(members.contain("anybody@all.example"));
        assert!(!members.contain("carl@example.org") && !members.contain("ann@sub.all.example"));
    }

    #[test]
    fn what_was_packed_is_the_same_again() {
        let members = Members::of(["a@b", "c@d", "e@f"].iter());
        assert_eq!(Members::unpacked(&members.packed()), Some(members.clone()));
        assert_eq!(Members::unpacked(&[]), Some(Members::default()));
        assert_eq!(Members::unpacked(&members.packed()[1..]), None);
        let mut turned = members.packed();
        turned.rotate_left(8);
        assert_eq!(Members::unpacked(&turned), None);
    }

    #[test]
    fn a_list_does_not_shrink_all_at_once() {
        let members = Members::from_numbers((0..1000).collect());
        for (len, percent, good) in
            [(1000, 20, true), (5000, 20, true), (800, 20, true), (799, 20, false), (0, 100, false), (1, 100, true)]
        {
            assert_eq!(members.may_become(len, percent), good, "{len} {percent}");
        }
        assert!(Members::default().may_become(1, 20) && !Members::default().may_become(0, 20));
    }
}
