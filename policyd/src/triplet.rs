// SPDX-License-Identifier: GPL-3.0-or-later
//! The greylist key: client network, sender and recipient in the form in which a retry is recognised.
//!
//! Pure. One function makes the key for daemon, command and reports alike. Senders that change with every message
//! or every try are brought to what stays: sub-address (RFC 5233), BATV tag (draft-levine-smtp-batv), the hash and
//! time stamp of SRS, and words of digits.

use std::fmt::Write;
use std::net::IpAddr;

use common::mail;

/// Longest part of a key in bytes. RFC 5321 section 4.5.3.1 allows 320 for a whole address; longer ones are told
/// apart by a hash, so that an index entry of the database always has room for all three parts.
const MAX_PART: usize = 255;

/// A greylist key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triplet {
    /// Client network, such as `192.0.2.0/24`.
    pub client: String,
    /// Sender in lower case and normal form; empty for the null sender.
    pub sender: String,
    /// Recipient in lower case; empty when Postfix named none (several recipients at DATA).
    pub recipient: String,
}

impl Triplet {
    /// The key of a client at the given prefix lengths in bits.
    pub fn new(client: IpAddr, sender: &str, recipient: &str, ipv4_prefix: u8, ipv6_prefix: u8) -> Self {
        Self {
            client: mail::network(client, ipv4_prefix, ipv6_prefix).to_string(),
            sender: bounded(normal_sender(sender)),
            recipient: bounded(recipient.to_ascii_lowercase()),
        }
    }
}

/// The sender as it stays the same over the tries of one message, and over the messages of one mailing list.
fn normal_sender(sender: &str) -> String {
    let sender = sender.to_ascii_lowercase();
    let (local, domain) = mail::split(&sender);
    let mut normal = String::with_capacity(sender.len());
    push_local(&mut normal, local);
    if !domain.is_empty() {
        normal.push('@');
        normal.push_str(domain);
    }
    normal
}

fn push_local(normal: &mut String, local: &str) {
    let local = without_batv(local);
    match srs(local) {
        Some((fixed, rest)) => {
            normal.push_str(&fixed);
            push_plain(normal, rest);
        }
        None => push_plain(normal, local),
    }
}

/// Cuts the sub-address and writes `#` for every word of digits. A local part that is all digits is somebody's
/// address and stays.
fn push_plain(normal: &mut String, local: &str) {
    let local = mail::without_extension(local);
    if local.bytes().all(|byte| byte.is_ascii_digit()) {
        normal.push_str(local);
        return;
    }
    let mut rest = local;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let digits = word > 0 && rest[..word].bytes().all(|byte| byte.is_ascii_digit());
        normal.push_str(if digits { "#" } else { &rest[..word] });
        let next = rest[word..].find(char::is_alphanumeric).map_or(rest.len(), |at| word + at);
        normal.push_str(&rest[word..next]);
        rest = &rest[next..];
    }
}

/// `prvs=TAG=local`, `prvs=local=TAG` and `btv1==TAG==local` without the tag, which is of hexadecimal digits.
fn without_batv(local: &str) -> &str {
    let is_tag = |text: &str| text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(rest) = local.strip_prefix("btv1==") {
        return rest
            .split_once("==")
            .filter(|(tag, inner)| is_tag(tag) && !inner.is_empty())
            .map_or(local, |(_, inner)| inner);
    }
    let Some(rest) = local.strip_prefix("prvs=") else { return local };
    match (rest.split_once('='), rest.rsplit_once('=')) {
        (Some((tag, inner)), _) if is_tag(tag) && !inner.is_empty() => inner,
        (_, Some((inner, tag))) if is_tag(tag) && !inner.is_empty() => inner,
        _ => local,
    }
}

/// Cuts `srs0=HASH=TT=domain=local` into `srs0=domain=` and `local`, and `srs1=HASH=relay==HASH=TT=domain=local`
/// into `srs1=relay==domain=` and `local`. The first separator may also be `+` or `-`.
fn srs(local: &str) -> Option<(String, &str)> {
    let (kind, rest) = local.split_at_checked(4)?;
    let rest = rest.strip_prefix(['=', '+', '-'])?;
    match kind {
        "srs0" => {
            let (domain, inner) = srs0(rest)?;
            Some((format!("srs0={domain}="), inner))
        }
        "srs1" => {
            let (_hash, rest) = rest.split_once('=')?;
            let (relay, rest) = rest.split_once('=')?;
            let (domain, inner) = srs0(rest.strip_prefix(['=', '+', '-'])?)?;
            Some((format!("srs1={relay}=={domain}="), inner))
        }
        _ => None,
    }
}

/// Domain and local part of `HASH=TT=domain=local`.
fn srs0(rest: &str) -> Option<(&str, &str)> {
    let (_hash, rest) = rest.split_once('=')?;
    let (_stamp, rest) = rest.split_once('=')?;
    rest.split_once('=').filter(|(domain, inner)| !domain.is_empty() && !inner.is_empty())
}

/// At most [`MAX_PART`] bytes; a longer part ends in a hash of the whole.
fn bounded(mut part: String) -> String {
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
    fn senders_are_brought_to_what_stays() {
        for (sender, normal) in [
            ("", ""),
            ("Joe@Example.ORG", "joe@example.org"),
            ("joe+list@example.org", "joe@example.org"),
            ("bounces+123-user=example.net@lists.example.org", "bounces@lists.example.org"),
            ("news-4711-8@example.org", "news-#-#@example.org"),
            ("news4711@example.org", "news4711@example.org"),
            ("12345678@example.org", "12345678@example.org"),
            ("-1-@example.org", "-#-@example.org"),
            ("prvs=4232ab1234=joe@example.org", "joe@example.org"),
            ("prvs=joe=4232ab1234@example.org", "joe@example.org"),
            ("prvs=4232ab1234=joe+x@example.org", "joe@example.org"),
            ("prvs=joe@example.org", "prvs=joe@example.org"),
            ("btv1==023da4d2fe1==joe@example.org", "joe@example.org"),
            ("SRS0=HHh1=TT=example.net=Joe@forward.example.org", "srs0=example.net=joe@forward.example.org"),
            ("SRS0+HHh1=TT=example.net=joe@forward.example.org", "srs0=example.net=joe@forward.example.org"),
            ("srs0=x4d=5b=example.net=news-7@forward.example.org", "srs0=example.net=news-#@forward.example.org"),
            (
                "SRS1=Ab2=relay.example.com==HHh1=TT=example.net=joe@fwd.example.org",
                "srs1=relay.example.com==example.net=joe@fwd.example.org",
            ),
            ("SRS0=broken@example.org", "srs0=broken@example.org"),
            ("postmaster", "postmaster"),
            ("ü+x@example.org", "ü@example.org"),
            ("é", "é"),
        ] {
            assert_eq!(key("192.0.2.1", sender, "r@example.com").sender, normal, "{sender}");
        }
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

        #[test]
        fn a_normal_sender_stays_as_it_is(sender in "(srs0=|prvs=)?[a-z0-9+=-]{0,12}@example.org") {
            let once = normal_sender(&sender);
            // BATV inside BATV is taken off one layer at a time; nobody signs twice.
            prop_assume!(!once.starts_with("prvs=") && !once.starts_with("srs"));
            prop_assert_eq!(normal_sender(&once), once);
        }
    }
}
