// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipient addresses as directories are asked about them: alias domains replaced, case folded, extension cut, and as one number for
//! the tables in memory and on disk.
//!
//! Pure. RFC 5321 section 4.1.2 (syntax), section 2.4 (only the mailbox's own host knows whether case matters; here it does not, as with
//! Postfix' tables), RFC 5233 (sub-addresses).

use std::collections::HashMap;

use common::mail;
use sha2::{Digest, Sha256};

/// Longest address that is looked up, in bytes: 64 before the `@`, 255 behind it (RFC 5321 section 4.5.3.1).
pub const LONGEST: usize = 320;

/// What a recipient is looked up by, the first that is known counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// Without its extension, in lower case.
    pub base: String,
    /// With it, when it has one: somebody may have a mailbox of that very name.
    pub whole: Option<String>,
}

/// How addresses are brought to one form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folding {
    /// Characters between mailbox and extension, as Postfix' `recipient_delimiter`.
    pub delimiters: Vec<char>,
    /// Domains whose mailboxes are those of another domain, in lower case.
    pub aliases: HashMap<String, String>,
}

impl Folding {
    /// The forms of a recipient; none for what cannot be a mailbox: no domain, control characters, too long.
    pub fn forms(&self, recipient: &str) -> Option<Forms> {
        if recipient.len() > LONGEST || recipient.chars().any(char::is_control) {
            return None;
        }
        let lower = recipient.to_lowercase();
        let (local, domain) = mail::split(&lower);
        if local.is_empty() || domain.is_empty() {
            return None;
        }
        let domain = self.aliases.get(domain).map_or(domain, String::as_str);
        let whole = format!("{local}@{domain}");
        Some(match self.without_extension(local) {
            Some(bare) => Forms { base: format!("{bare}@{domain}"), whole: Some(whole) },
            None => Forms { base: whole, whole: None },
        })
    }

    /// The local part before its extension, when it has one; a delimiter at the front is none, and Postfix never cuts these two
    /// (`split_addr`, ADDRESS_REWRITING_README: `mailer-daemon` and owner- names keep theirs).
    fn without_extension<'a>(&self, local: &'a str) -> Option<&'a str> {
        if local == "mailer-daemon" || local == "double-bounce" || local.starts_with("owner-") {
            return None;
        }
        let (at, _) = local.char_indices().skip(1).find(|(_, c)| self.delimiters.contains(c))?;
        Some(&local[..at])
    }
}

/// The number by which an address, in one of its forms, is kept: the first eight bytes of its SHA-256. Two of a million addresses share
/// one with a chance of 1 to 40 million; the file on disk holds no addresses that way.
pub fn number(form: &str) -> u64 {
    let digest = Sha256::digest(form.as_bytes());
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `@domain` of an address, as which a whole domain is listed.
pub fn whole_domain(form: &str) -> String {
    format!("@{}", mail::split(form).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folding(delimiters: &str) -> Folding {
        let aliases = [("alias.example".to_owned(), "real.example".to_owned())];
        Folding { delimiters: delimiters.chars().collect(), aliases: aliases.into() }
    }

    #[test]
    fn addresses_are_brought_to_one_form() {
        let forms =
            |base: &str, whole: Option<&str>| Some(Forms { base: base.to_owned(), whole: whole.map(str::to_owned) });
        for (recipient, delimiters, expected) in [
            ("Joe@Example.ORG", "+", forms("joe@example.org", None)),
            ("joe+list@example.org", "+", forms("joe@example.org", Some("joe+list@example.org"))),
            ("joe+list@example.org", "", forms("joe+list@example.org", None)),
            ("joe-a+b@example.org", "+-", forms("joe@example.org", Some("joe-a+b@example.org"))),
            ("+x@example.org", "+", forms("+x@example.org", None)),
            ("owner-list@example.org", "-", forms("owner-list@example.org", None)),
            ("ann@Alias.example", "+", forms("ann@real.example", None)),
            ("ann+x@alias.example", "+", forms("ann@real.example", Some("ann+x@real.example"))),
            ("\"a b\"@example.org", "+", forms("\"a b\"@example.org", None)),
            ("postmaster", "+", None),
            ("@example.org", "+", None),
            ("a@", "+", None),
            ("", "+", None),
            ("a\r\nb@example.org", "+", None),
            ("a\0@example.org", "+", None),
        ] {
            assert_eq!(folding(delimiters).forms(recipient), expected, "{recipient:?}");
        }
        assert_eq!(folding("+").forms(&format!("{}@example.org", "x".repeat(400))), None);
    }

    #[test]
    fn numbers_are_the_same_on_every_host() {
        assert_eq!(number("ann@example.org"), 0x438c_4c7a_fe60_0cdf);
        assert_ne!(number("ann@example.org"), number("ann@example.com"));
        assert_eq!(whole_domain("ann@example.org"), "@example.org");
    }

    proptest! {
        #[test]
        fn any_recipient_is_safe(recipient in "\\PC*", delimiters in "\\PC{0,3}") {
            if let Some(forms) = folding(&delimiters).forms(&recipient) {
                prop_assert!(!forms.base.contains(char::is_control));
                prop_assert!(forms.base.contains('@'));
            }
        }
    }
}
