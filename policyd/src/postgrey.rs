// SPDX-License-Identifier: GPL-3.0-or-later
//! The keys of postgrey's databases, as `postgrey --privacy` stores them: SHA-1 sums (FIPS 180-4) of what it makes of a request. They
//! cannot be turned back, but a request that comes again makes the same sum, and so finds what was imported.
//!
//! Pure. Written after what postgrey 1.37 was seen to store; its default prefix lengths are ours.

use std::fmt::Write;
use std::net::IpAddr;

use common::mail;
use sha1::{Digest, Sha1};

use crate::triplet::Triplet;

/// What stands for the client in triplets that are known by their sum only, and begins the keys of trust.
const CLIENT: &str = "postgrey:sha1";

/// The triplet of a sum; the sum is all there is of it.
pub fn hashed_triplet(sum: &str) -> Triplet {
    Triplet { client: CLIENT.to_owned(), sender: sum.to_ascii_lowercase(), recipient: String::new() }
}

/// The key of trust of a sum.
pub fn hashed_client(sum: &str) -> String {
    format!("{CLIENT} {}", sum.to_ascii_lowercase())
}

/// The triplet under which postgrey may have known this request.
pub fn triplet(client: IpAddr, sender: &str, recipient: &str, prefixes: (u8, u8)) -> Triplet {
    let network = address(mail::network(client, prefixes.0, prefixes.1).network());
    hashed_triplet(&sum(&format!("{network}/{}/{recipient}", substituted(sender)).to_ascii_lowercase()))
}

/// The key of trust under which postgrey may have known this client.
pub fn client(client: IpAddr) -> String {
    hashed_client(&sum(&address(client)))
}

/// An address as postgrey writes it: upper case, no group of zeros left out.
fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|segment| format!("{segment:X}")).join(":"),
    }
}

/// A sender without BATV tag and extension, and with `#` for words of digits.
fn substituted(sender: &str) -> String {
    let Some((user, domain)) = sender.split_once('@') else { return sender.to_owned() };
    let user = without_batv(user);
    let user = user.split('+').next().unwrap_or_default();
    let mut out = String::with_capacity(sender.len());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = user;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        out.push_str(if number { "#" } else { word });
        let (between, next) = after.split_at(after.find(is_word).unwrap_or(after.len()));
        out.push_str(between);
        rest = next;
    }
    out.push('@');
    out.push_str(domain);
    out
}

/// `prvs=TAG=user` or `prvs=user=TAG`, where a tag begins with ten digits or small letters; when both look so, the first is the tag.
fn without_batv(user: &str) -> &str {
    let parts: Vec<&str> = user.trim_end_matches('=').split('=').collect();
    let is_tag = |part: &str| {
        part.len() >= 10 && part.bytes().take(10).all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    };
    match parts[..] {
        ["prvs", one, two] if is_tag(two) && !is_tag(one) => one,
        ["prvs", _, two] => two,
        _ => user,
    }
}

fn sum(text: &str) -> String {
    let mut hex = String::with_capacity(40);
    for byte in Sha1::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_are_those_of_postgrey() {
        // sha1sum of "203.0.113.0/user@x.test/r@our.test", as seen in its database.
        let known = hashed_triplet(&sum("203.0.113.0/user@x.test/r@our.test"));
        let asked = |client: &str, sender: &str| triplet(client.parse().unwrap(), sender, "R@our.test", (24, 64));
        assert_eq!(asked("203.0.113.7", "User+list@X.test"), known);
        assert_eq!(asked("203.0.113.200", "prvs=0123456789=user@x.test"), known);
        assert_ne!(asked("203.0.114.7", "user@x.test"), known);
        assert_eq!(sum("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d", "FIPS 180-4");
        assert_eq!(address("2001:470:abcd:2:3:4:5:af".parse().unwrap()), "2001:470:ABCD:2:3:4:5:AF");
        assert_eq!(address("2001:db8::".parse().unwrap()), "2001:DB8:0:0:0:0:0:0");
        assert_eq!(client("::ffff:192.0.2.1".parse().unwrap()), hashed_client(&sum("192.0.2.1")));
    }

    #[test]
    fn senders_are_substituted_as_there() {
        for (sender, expected) in [
            ("", ""),
            ("postmaster", "postmaster"),
            ("a@b@c", "a@b@c"),
            ("news-4711-8@x", "news-#-#@x"),
            ("u_17-x@x", "u_17-x@x"),
            ("17@x", "#@x"),
            ("joe+17@x", "joe@x"),
            ("prvs=joe=0123456789@x", "joe@x"),
            ("prvs=0123456789=joe@x", "joe@x"),
            ("prvs=0123456789=9876543210@x", "#@x"),
            ("prvs=a=b=c@x", "prvs=a=b=c@x"),
            ("prvs=a=@x", "prvs=a=@x"),
            ("srs0=h=tt=o.test=joe@x", "srs0=h=tt=o.test=joe@x"),
        ] {
            assert_eq!(substituted(sender), expected, "{sender}");
        }
    }

    proptest! {
        #[test]
        fn any_request_has_a_sum(sender in any::<String>(), recipient in any::<String>(), ip in any::<[u8; 16]>()) {
            prop_assert_eq!(triplet(IpAddr::from(ip), &sender, &recipient, (24, 64)).sender.len(), 40);
        }
    }
}
