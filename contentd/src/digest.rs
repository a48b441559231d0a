// SPDX-License-Identifier: GPL-3.0-or-later
//! By what the bytes of a part are told from others: SHA-256 where somebody wants to see it, and otherwise a hash that costs a tenth and means
//! something in this process only.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// Keyed anew in each process: nobody outside can make two parts look the same.
static KEYS: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);

/// A hash of some bytes. Equal bytes have equal digests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// To compare parts of one message.
    Quick(u64),
}

impl Digest {
    /// Of these bytes: SHA-256 when `shown`.
    pub fn of(bytes: &[u8], shown: bool) -> Digest {
        if shown { Digest::Sha256(Sha256::digest(bytes).into()) } else { Digest::Quick(KEYS.hash_one(bytes)) }
    }

    /// The SHA-256, where it was wanted.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        match self {
            Digest::Sha256(digest) => Some(digest),
            Digest::Quick(_) => None,
        }
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest::Quick(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_have_equal_digests() {
        for shown in [false, true] {
            assert_eq!(Digest::of(b"abc", shown), Digest::of(b"abc", shown));
            assert_ne!(Digest::of(b"abc", shown), Digest::of(b"abd", shown));
            assert_eq!(Digest::of(b"abc", shown).sha256().is_some(), shown);
        }
    }
}
