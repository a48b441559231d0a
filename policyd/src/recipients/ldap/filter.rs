// SPDX-License-Identifier: GPL-3.0-or-later
//! LDAP search filters with gaps for the address: `(&(objectClass=person)(mail=%s))`.
//!
//! Pure. RFC 4515 (string form of filters); the letters are those of Postfix' ldap_table(5): `%s` the address, `%u` its local part, `%d`
//! its domain, `%%` a percent sign.

use common::mail;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Address,
    Local,
    Domain,
}

/// A filter with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Text before each gap, and the gap.
    parts: Vec<(String, Gap)>,
    rest: String,
}

impl Filter {
    /// Cuts a filter at its gaps; the error says what is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), String::new());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                rest.push(letter);
                continue;
            }
            let gap = match letters.next() {
                Some('%') => {
                    rest.push('%');
                    continue;
                }
                Some('s') => Gap::Address,
                Some('u') => Gap::Local,
                Some('d') => Gap::Domain,
                Some(other) => return Err(format!("%{other} does not exist; there are %s, %u, %d and %%")),
                None => return Err("a percent sign is written %%".to_owned()),
            };
            parts.push((std::mem::take(&mut rest), gap));
        }
        let filter = Self { parts, rest };
        // The parser of the library is the one that will read it.
        match ldap3::parse_filter(filter.fill("a@example.org")) {
            Ok(_) => Ok(filter),
            Err(()) => Err(format!("{text:?} is not a search filter (RFC 4515)")),
        }
    }

    /// True when it has a gap, without which every address gets the same answer.
    pub fn has_gap(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The filter for an address.
    pub fn fill(&self, address: &str) -> String {
        let (local, domain) = mail::split(address);
        let mut filter = String::with_capacity(self.rest.len() + 2 * address.len() + 64);
        for (text, gap) in &self.parts {
            filter.push_str(text);
            escape(
                match gap {
                    Gap::Address => address,
                    Gap::Local => local,
                    Gap::Domain => domain,
                },
                &mut filter,
            );
        }
        filter.push_str(&self.rest);
        filter
    }
}

/// A value inside a filter (RFC 4515 section 3): NUL, parentheses, asterisk and backslash by their hexadecimal code. So is everything
/// that is not ASCII, which keeps the filter readable whatever it is printed on.
fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'\\' | b'*' | b'(' | b')' | 0..b' ' | 0x7f.. => {
                out.push('\\');
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
            _ => out.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaps_are_filled() {
        for (text, expected) in [
            ("(mail=%s)", "(mail=ann@example.org)"),
            ("(&(uid=%u)(associatedDomain=%d))", "(&(uid=ann)(associatedDomain=example.org))"),
            ("(|(mail=%s)(proxyAddresses=smtp:%s))", "(|(mail=ann@example.org)(proxyAddresses=smtp:ann@example.org))"),
            ("(description=100%%)", "(description=100%)"),
        ] {
            assert_eq!(Filter::new(text).unwrap().fill("ann@example.org"), expected);
        }
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for (text, told) in [
            ("(mail=%x)", "%x does not exist"),
            ("(mail=%s)%", "a percent sign"),
            ("(mail=%s", "is not a search filter"),
            ("(&(mail=%s)", "is not a search filter"),
            ("", "is not a search filter"),
        ] {
            let error = Filter::new(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(!Filter::new("(objectClass=*)").unwrap().has_gap());
    }

    #[test]
    fn nothing_escapes_from_its_gap() {
        let filter = Filter::new("(&(objectClass=person)(mail=%s))").unwrap();
        assert_eq!(
            filter.fill("*)(uid=*))(|(a=b@c\\"),
            "(&(objectClass=person)(mail=\\2a\\29\\28uid=\\2a\\29\\29\\28|\\28a=b@c\\5c))"
        );
        assert_eq!(filter.fill("é\0@x"), "(&(objectClass=person)(mail=\\c3\\a9\\00@x))");
    }

    proptest! {
        #[test]
        fn any_address_stays_one_value(address in "\\PC*|[()*\\\\|&!=@\0a]{0,20}") {
            let filter = Filter::new("(&(objectClass=person)(mail=%s))").unwrap().fill(&address);
            let value = &filter["(&(objectClass=person)(mail=".len()..filter.len() - "))".len()];
            prop_assert!(!value.contains(['(', ')', '*', '\0']));
            // Unescaped again it is the address.
            let (mut bytes, mut rest) = (Vec::new(), value.bytes());
            while let Some(byte) = rest.next() {
                bytes.push(match byte {
                    b'\\' => {
                        let digits: String = rest.by_ref().take(2).map(char::from).collect();
                        u8::from_str_radix(&digits, 16).unwrap()
                    }
                    byte => byte,
                });
            }
            prop_assert_eq!(bytes, address.into_bytes());
            prop_assert!(ldap3::parse_filter(filter).is_ok());
        }

        #[test]
        fn any_text_is_a_filter_or_refused(text in "\\PC*") {
            let _ = Filter::new(&text);
        }
    }
}
