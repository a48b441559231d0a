// SPDX-License-Identifier: GPL-3.0-or-later
//! Which answers of a DNS list count, written as Postfix's postscreen_dnsbl_sites has them (postconf(5)): an IPv4 address whose numbers may each be
//! `[2..11]`, `[4;8]` or both, `[2;4..6]`.
//!
//! Pure. It knows numbers, and no zone or weight.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// Ranges of one number; more than this is a mistake rather than a list.
const MAX_RANGES: usize = 64;

/// Ranges of numbers, both ends included.
type Ranges = Vec<(u8, u8)>;

/// A set of IPv4 addresses. Text form: `"127.0.0.[2..11]"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyMask {
    /// For each of the four numbers.
    numbers: [Ranges; 4],
}

impl ReplyMask {
    /// All of 127/8, where answers of DNS lists are (RFC 5782 section 2.1).
    pub fn any_listing() -> Self {
        let all = || vec![(0, 255)];
        Self { numbers: [vec![(127, 127)], all(), all(), all()] }
    }

    /// True when the address is in the set.
    pub fn matches(&self, address: Ipv4Addr) -> bool {
        let within =
            |ranges: &[(u8, u8)], number: u8| ranges.iter().any(|(low, high)| (*low..=*high).contains(&number));
        self.numbers.iter().zip(address.octets()).all(|(ranges, number)| within(ranges, number))
    }
}

impl FromStr for ReplyMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not a set of addresses such as \"127.0.0.[2..11]\": {why}");
        let mut numbers: [Ranges; 4] = Default::default();
        let mut rest = text;
        for (at, ranges) in numbers.iter_mut().enumerate() {
            if at > 0 {
                rest = rest.strip_prefix('.').ok_or_else(|| wrong("four numbers with dots between"))?;
            }
            (*ranges, rest) = number(rest).map_err(wrong)?;
        }
        if rest.is_empty() { Ok(Self { numbers }) } else { Err(wrong("something stands behind the fourth number")) }
    }
}

/// Takes a number, or ranges in brackets, off the front.
fn number(text: &str) -> Result<(Ranges, &str), &'static str> {
    if let Some(list) = text.strip_prefix('[') {
        let (list, rest) = list.split_once(']').ok_or("\"[\" without \"]\"")?;
        let ranges = list.split(';').map(range).collect::<Result<Vec<_>, _>>()?;
        return if ranges.len() <= MAX_RANGES { Ok((ranges, rest)) } else { Err("too many numbers in brackets") };
    }
    let end = text.find('.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let only = octet(digits)?;
    Ok((vec![(only, only)], rest))
}

fn range(text: &str) -> Result<(u8, u8), &'static str> {
    let (low, high) = match text.split_once("..") {
        Some((low, high)) => (octet(low)?, octet(high)?),
        None => (octet(text)?, octet(text)?),
    };
    if low <= high { Ok((low, high)) } else { Err("a range goes from the smaller to the larger number") }
}

fn octet(text: &str) -> Result<u8, &'static str> {
    // The parser of numbers would take a sign.
    match text.parse() {
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err("each number is from 0 to 255"),
    }
}

impl fmt::Display for ReplyMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ranges) in self.numbers.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            let words: Vec<String> = ranges
                .iter()
                .map(|(low, high)| if low == high { low.to_string() } else { format!("{low}..{high}") })
                .collect();
            match ranges.as_slice() {
                [(low, high)] if low == high => write!(f, "{low}")?,
                _ => write!(f, "[{}]", words.join(";"))?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ReplyMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for ReplyMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_as_postscreen_has_them() {
        for (mask, inside, outside) in [
            ("127.0.0.2", &["127.0.0.2"][..], &["127.0.0.3", "127.0.1.2", "128.0.0.2"][..]),
            ("127.0.0.[2..11]", &["127.0.0.2", "127.0.0.11"], &["127.0.0.1", "127.0.0.12"]),
            ("127.0.0.[4;8]", &["127.0.0.4", "127.0.0.8"], &["127.0.0.6"]),
            ("127.0.[0..255].[0;2..3]", &["127.0.9.0", "127.0.0.3"], &["127.0.0.1", "127.1.0.0"]),
            ("[127..128].0.0.1", &["128.0.0.1"], &["126.0.0.1"]),
        ] {
            let parsed: ReplyMask = mask.parse().unwrap();
            assert!(inside.iter().all(|address| parsed.matches(address.parse().unwrap())), "{mask}");
            assert!(outside.iter().all(|address| !parsed.matches(address.parse().unwrap())), "{mask}");
            assert_eq!(parsed.to_string(), mask);
        }
        assert!(ReplyMask::any_listing().matches(Ipv4Addr::new(127, 255, 1, 1)));
        assert!(!ReplyMask::any_listing().matches(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(ReplyMask::any_listing().to_string(), "127.[0..255].[0..255].[0..255]");
    }

    #[test]
    fn mistakes_are_told() {
        for (mask, told) in [
            ("", "0 to 255"),
            ("127.0.0", "four numbers"),
            ("127.0.0.2.3", "behind the fourth"),
            ("127.0.0.256", "0 to 255"),
            ("127.0.0.+2", "0 to 255"),
            ("127.0.0.[3..2]", "smaller"),
            ("127.0.0.[2", "without"),
            ("127.0.0.[]", "0 to 255"),
            ("127.0.0.[2]x", "behind the fourth"),
            ("127.0.0.2*3", "0 to 255"),
        ] {
            let error = mask.parse::<ReplyMask>().unwrap_err();
            assert!(error.contains(told), "{mask}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = text.parse::<ReplyMask>();
        }

        #[test]
        fn what_is_written_is_read_back(text in r"127\.[0-9]{1,2}\.\[[0-9]{1,2};1\.\.[1-9]\]\.\[0\.\.[0-9]{1,2}\]") {
            let mask: ReplyMask = text.parse().unwrap();
            prop_assert_eq!(mask.to_string().parse::<ReplyMask>().unwrap(), mask);
        }
    }
}
