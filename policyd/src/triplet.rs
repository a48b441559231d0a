// SPDX-License-Identifier: GPL-3.0-or-later
//! The greylist key: client, sender and recipient in the form in which a retry is recognised.
//!
//! Pure. One function makes the key for daemon, command and reports alike. How a sender becomes its normal form is told in
//! [`crate::sender`], and who the client is in [`crate::checks::pool`].

use std::fmt::Write;
use std::net::IpAddr;

use common::mail;

use crate::sender::{self, Step};

/// Longest part of a key in bytes. RFC 5321 section 4.5.3.1 allows 320 for a whole address; longer ones are told
/// apart by a hash, so that an index entry of the database always has room for all three parts.
const MAX_PART: usize = 255;

/// A greylist key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triplet {
    /// Who the client is: its network, such as `192.0.2.0/24`, or its pool, such as `spf:example.org` or `name:example.org`.
    pub client: String,
    /// Sender in lower case and normal form; empty for the null sender.
    pub sender: String,
    /// Recipient in lower case; empty when Postfix named none (several recipients at DATA).
    pub recipient: String,
}

impl Triplet {
    /// The key of a client's network at the given prefix lengths in bits, with all steps of normalisation.
    pub fn new(client: IpAddr, sender: &str, recipient: &str, ipv4_prefix: u8, ipv6_prefix: u8) -> Self {
        let client = mail::network(client, ipv4_prefix, ipv6_prefix).to_string();
        Self::of(client, sender, recipient, &Step::ALL)
    }

    /// The key of a client that goes by the name `client`.
    pub fn of(client: String, sender: &str, recipient: &str, steps: &[Step]) -> Self {
        Self {
            client: bounded(client),
            sender: bounded(sender::normal(sender, recipient, steps)),
            recipient: bounded(recipient.to_ascii_lowercase()),
        }
    }

    /// The same mail from a client that goes by another name.
    pub fn from_client(&self, client: String) -> Self {
        Self { client: bounded(client), ..self.clone() }
    }
}

/// At most [`MAX_PART`] bytes; a longer part ends in a hash of the whole.
pub(crate) fn bounded(mut part: String) -> String {
    if part.len() <= MAX_PART {
        return part;
    }
    let hash = fnv1a(part.as_bytes());
    part.truncate(part.floor_char_boundary(MAX_PART - 17));
    // Writing to a String cannot fail.
    let _ = write!(part, "~{hash:016x}");
    part
}

/// FNV-1a, 64 bits: the same on every host and in every version, which the hashers of the standard library are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(client: &str, sender: &str, recipient: &str) -> Triplet {
        Triplet::new(client.parse().unwrap(), sender, recipient, 24, 64)
    }

    #[test]
    fn clients_of_one_network_share_a_key() {
        assert_eq!(key("192.0.2.1", "a@b", "c@D"), key("192.0.2.200", "A@B", "C@d"));
        assert_ne!(key("192.0.2.1", "a@b", "c@d"), key("192.0.3.1", "a@b", "c@d"));
        assert_eq!(key("2001:db8::1", "", "").client, "2001:db8::/64");
        assert_eq!(Triplet::new("192.0.2.1".parse().unwrap(), "", "", 32, 64).client, "192.0.2.1/32");
    }

    #[test]
    fn recipients_keep_their_extension() {
        assert_eq!(key("192.0.2.1", "", "Joe+Shop-1@Example.com").recipient, "joe+shop-1@example.com");
    }

    #[test]
    fn long_parts_are_bounded_and_still_differ() {
        let long = |last: &str| key("192.0.2.1", "a@b", &format!("{}{last}@example.org", "é".repeat(5000))).recipient;
        assert!(long("a").len() <= MAX_PART);
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
    }

    proptest! {
        #[test]
        fn any_addresses_give_bounded_keys(sender in any::<String>(), recipient in any::<String>()) {
            let triplet = key("192.0.2.1", &sender, &recipient);
            prop_assert!(triplet.sender.len() <= MAX_PART && triplet.recipient.len() <= MAX_PART);
        }
    }
}
