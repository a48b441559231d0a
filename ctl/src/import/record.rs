// SPDX-License-Identifier: GPL-3.0-or-later
//! What a line or row of another greylister says, whichever program wrote it, and the readings that several of them share.
//!
//! Pure. Times are milliseconds since 1970.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::choices::Choice;

/// One second, one day.
pub(crate) const SECOND: i64 = 1000;
pub(crate) const DAY: i64 = 86_400 * SECOND;
/// The last second of the year 9999, which some programs write for "never".
const LAST: i64 = 253_402_300_799 * SECOND;

/// A line or row that cannot be understood; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(pub(crate) String);

/// A line or row that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A triplet.
    Seen(Seen),
    /// A client that the other program had learnt to trust.
    Trusted(Trusted),
    /// A triplet of which only a sum was kept.
    SeenHash(SeenHash),
    /// The sum of a client's address, its counted passes (none when it was trusted) and its latest use.
    TrustedHash(String, Option<u32>, i64),
    /// A client that an administrator had listed.
    Listed(IpNet),
    /// A recipient that chose whether it is greylisted.
    Chosen(Choice),
    /// Past its own date.
    Expired,
    /// Nothing that can be taken over; why.
    Skipped(&'static str),
}

/// What came out of one line or row, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Line of the file, or row of the table, counted from 1.
    pub(crate) line: u64,
    /// What it says.
    pub(crate) entry: Result<Entry, Bad>,
}

/// A triplet as another greylister recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The address, or the network when only that was kept.
    pub(crate) client: IpNet,
    /// As recorded; empty for the null sender.
    pub(crate) sender: String,
    /// As recorded.
    pub(crate) recipient: String,
    /// First try.
    pub(crate) first: i64,
    /// Latest try.
    pub(crate) last: i64,
    /// Tries, as far as known.
    pub(crate) tries: i64,
    /// Whether it passed there.
    pub(crate) passed: bool,
}

/// A triplet of which another greylister kept only a sum of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenHash {
    /// The sum in hexadecimal digits.
    pub(crate) sum: String,
    /// First try.
    pub(crate) first: i64,
    /// Latest try.
    pub(crate) last: i64,
    /// Whether it passed there.
    pub(crate) passed: bool,
}

/// A client that the other program no longer greylisted, or was about to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trusted {
    /// Address or network.
    pub(crate) client: IpNet,
    /// The sender's domain for which it is trusted; none for any sender.
    pub(crate) domain: Option<String>,
    /// Passes that were counted for it; none when it was trusted.
    pub(crate) passes: Option<u32>,
    /// Latest use.
    pub(crate) last: i64,
}

/// What the files of the other program do not tell about it. Lengths of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Old {
    /// How long it made a triplet wait.
    pub(crate) delay: i64,
    /// How long it kept what had passed, since it was last seen.
    pub(crate) max_age: i64,
    /// From how many passes on it trusted a client.
    pub(crate) trust_after: u32,
    /// Offset of its zoneless times from UTC.
    pub(crate) utc_offset: i64,
    /// Now.
    pub(crate) now: i64,
}

/// An IP address, a network in CIDR form, one to three octets (`192.0.2` is a /24), or four groups of an IPv6 address (a /64).
pub(crate) fn client(text: &str) -> Result<IpNet, Bad> {
    let bad = || Bad(format!("{text:?} is not an address"));
    let plain = text.split('%').next().unwrap_or_default().trim();
    if let Ok(ip) = plain.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    if plain.contains('/') {
        return plain.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| bad());
    }
    if plain.contains(':') {
        let groups = plain.split(':').count();
        let net = format!("{plain}::/{}", groups * 16).parse::<IpNet>();
        return net.map_err(|_| bad());
    }
    let octets = plain.split('.').count();
    let net = format!("{plain}{}/{}", ".0".repeat(4_usize.saturating_sub(octets)), octets * 8);
    net.parse::<IpNet>().map_err(|_| bad())
}

/// An address of which some programs store only the network, without a prefix length: no host bits means the usual one.
pub(crate) fn address_or_network(ip: IpAddr) -> IpNet {
    let ip = ip.to_canonical();
    let prefix = match ip {
        IpAddr::V4(v4) if v4.octets()[3] == 0 && v4 != Ipv4Addr::UNSPECIFIED => 24,
        IpAddr::V4(_) => 32,
        IpAddr::V6(v6) if v6.segments()[4..] == [0; 4] && v6 != Ipv6Addr::UNSPECIFIED => 64,
        IpAddr::V6(_) => 128,
    };
    IpNet::new(ip, prefix).unwrap_or_else(|_| IpNet::from(ip))
}

/// A mail address, with or without angle brackets. What could not have come over SMTP is refused.
pub(crate) fn mailbox(text: &str) -> Result<String, Bad> {
    let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    match bare.chars().any(char::is_control) {
        true => Err(Bad(format!("{bare:?} is not a mail address"))),
        false => Ok(bare.to_owned()),
    }
}

/// Seconds since 1970 as milliseconds; a fraction is cut.
pub(crate) fn unix_time(text: &str) -> Result<i64, Bad> {
    let whole = text.trim().split('.').next().unwrap_or_default();
    let seconds = whole.parse::<i64>().map_err(|_| Bad(format!("{text:?} is not a time in seconds since 1970")))?;
    Ok(seconds.saturating_mul(SECOND).clamp(0, LAST))
}

/// Seconds since 1970, or `2026-01-31 23:59:59` in a zone that is `utc_offset` milliseconds ahead of UTC.
pub(crate) fn time(text: &str, utc_offset: i64) -> Result<i64, Bad> {
    let text = text.trim();
    match text.as_bytes().get(4) {
        Some(b'-') => date_time(text, utc_offset).ok_or_else(|| Bad(format!("{text:?} is not a date and time"))),
        _ => unix_time(text),
    }
}

fn date_time(text: &str, utc_offset: i64) -> Option<i64> {
    let (date, clock) = text.split_once([' ', 'T'])?;
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        // Days and months have no sign, and no one means the year 99999.
        let digits = |part: &str| part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split(by).map(|part| if digits(part) { part.parse().ok() } else { None }).collect()
    };
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let [hour, minute, second] = numbers(clock.split('.').next()?, ':')?[..] else { return None };
    // MySQL's "no date".
    if (year, month, day) == (0, 0, 0) {
        return Some(0);
    }
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds * SECOND - utc_offset).clamp(0, LAST))
}

/// Days from 1970-01-01 in the Gregorian calendar. The year is counted from March, so that the leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_of_months = (153 * month + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From 0000-03-01 to 1970-01-01 are 719468 days.
    year * 365 + leap_days + days_of_months + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_are_read_in_the_forms_of_all_programs() {
        for (text, net) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2", "192.0.2.0/24"),
            ("192.168", "192.168.0.0/16"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("2001:0db8:0001:0000:0000:0000:0000:0005", "2001:db8:1::5/128"),
            ("2001:0db8:0001:0000", "2001:db8:1::/64"),
            ("2001:470:ABCD:2:3:4:5:AF", "2001:470:abcd:2:3:4:5:af/128"),
            ("fe80::1%eth0", "fe80::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(client(text).unwrap().to_string(), net, "{text}");
        }
        for text in ["", "mail.example.org", "192.0.2.256", "1.2.3.4.5", "::/200", "g:1", "unknown", "...."] {
            assert!(client(text).is_err(), "{text}");
        }
        assert_eq!(address_or_network("203.0.113.0".parse().unwrap()).to_string(), "203.0.113.0/24");
        assert_eq!(address_or_network("203.0.113.9".parse().unwrap()).to_string(), "203.0.113.9/32");
        assert_eq!(address_or_network("2001:470:abcd:2:0:0:0:0".parse().unwrap()).to_string(), "2001:470:abcd:2::/64");
    }

    #[test]
    fn times_are_read_as_numbers_and_as_dates() {
        for (text, seconds) in [
            ("1795324438", 1_795_324_438),
            ("1795324438.75", 1_795_324_438),
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29 12:00:00", 951_825_600),
            ("2026-11-22T13:14:15.123", 1_795_353_255),
            ("0000-00-00 00:00:00", 0),
            ("9999-12-31 23:59:59", 253_402_300_799),
            ("-5", 0),
        ] {
            assert_eq!(time(text, 0).unwrap(), seconds * SECOND, "{text}");
        }
        assert_eq!(time("2026-11-22 13:14:15", 3_600_000).unwrap(), 1_795_349_655_000);
        for text in ["", "soon", "2026-13-01 00:00:00", "2026-01-01", "2026-01-01 25:00:00", "2026-1--1 0:0:0"] {
            assert!(time(text, 0).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "\\PC{0,40}|[0-9a-f:./%]{0,45}|[0-9: T.-]{0,30}", offset in -86_400_000i64..86_400_000) {
            let _ = (client(&text), unix_time(&text), mailbox(&text));
            if let Ok(time) = time(&text, offset) {
                prop_assert!((0..=LAST).contains(&time));
            }
        }
    }
}
