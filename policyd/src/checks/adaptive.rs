// SPDX-License-Identifier: GPL-3.0-or-later
//! Signs that a client may not be a mail server, from what Postfix already knows: greylist mode `adaptive` delays
//! only clients with at least one.
//!
//! Pure, no look-up. RFC 1912 section 2.1 asks for matching address and name; RFC 5321 section 4.1.1.1 for a fully
//! qualified name or an address literal in EHLO.

use std::net::IpAddr;

use crate::request::PolicyRequest;

/// One sign against a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Postfix could not confirm a host name for the address.
    NoConfirmedName,
    /// The name looks like one that a provider gives to a line or a rented machine.
    DynamicName,
    /// HELO is no host name.
    OddHelo,
}

impl Sign {
    /// The word for log and trace.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoConfirmedName => "no_confirmed_name",
            Self::DynamicName => "dynamic_name",
            Self::OddHelo => "odd_helo",
        }
    }
}

/// The signs seen on one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs([Option<Sign>; 3]);

impl Signs {
    /// True when nothing speaks against the client.
    pub fn is_empty(self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// How many there are.
    pub fn score(self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Their words with commas between.
    pub fn words(self) -> String {
        self.0.iter().flatten().map(|sign| sign.word()).collect::<Vec<_>>().join(",")
    }
}

/// What speaks against the client of this request.
pub fn signs(request: &PolicyRequest<'_>) -> Signs {
    let name = request.client_name.as_deref();
    let dynamic = name.is_some_and(|name| looks_dynamic(name, request.client_address));
    Signs([
        name.is_none().then_some(Sign::NoConfirmedName),
        dynamic.then_some(Sign::DynamicName),
        is_odd_helo(&request.helo_name).then_some(Sign::OddHelo),
    ])
}

/// Words that providers put into the names of lines without a mail server of their own.
const LINE_WORDS: [&str; 32] = [
    "adsl",
    "broadband",
    "cable",
    "catv",
    "client",
    "clients",
    "cpe",
    "cust",
    "customer",
    "customers",
    "dhcp",
    "dial",
    "dialin",
    "dialup",
    "dsl",
    "dyn",
    "dynamic",
    "fiber",
    "ftth",
    "gprs",
    "hsd",
    "ip",
    "lte",
    "mobile",
    "pool",
    "pools",
    "ppp",
    "pppoe",
    "res",
    "user",
    "vdsl",
    "wlan",
];

/// Words by which mail servers are named; they outweigh an address in the name.
const SERVER_WORDS: [&str; 17] = [
    "bounce", "email", "fixed", "gateway", "imap", "mail", "mailer", "mailout", "mta", "mx", "out", "outbound",
    "relay", "send", "smtp", "smtpout", "static",
];

/// True for a name with the client's address in it, or with a word of [`LINE_WORDS`] in a host label, unless a word
/// of [`SERVER_WORDS`] says otherwise. The last two labels, the registered domain in most cases, do not count.
fn looks_dynamic(name: &str, client: Option<IpAddr>) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let host = name.rmatch_indices('.').nth(1).map_or("", |(at, _)| &name[..at]);
    let words = || host.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    if words().any(|word| SERVER_WORDS.contains(&word)) {
        return false;
    }
    words().any(|word| LINE_WORDS.contains(&word)) || client.is_some_and(|client| holds_address(host, client))
}

/// True when the client's address is written in the host name: the last two numbers of an IPv4 address side by side in
/// either order, the whole of it in hexadecimal or in padded decimal, or the last 32 bits of an IPv6 address.
fn holds_address(host: &str, client: IpAddr) -> bool {
    let joined: String = host.chars().filter(char::is_ascii_alphanumeric).collect();
    match client {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let numbers: Vec<Option<u8>> = host
                .split(|c: char| !c.is_ascii_digit())
                .filter(|run| !run.is_empty())
                .map(|run| run.parse().ok())
                .collect();
            let pair = numbers.windows(2).any(|pair| pair == [Some(c), Some(d)] || pair == [Some(d), Some(c)]);
            pair || joined.contains(&format!("{a:02x}{b:02x}{c:02x}{d:02x}"))
                || joined.contains(&format!("{a:03}{b:03}{c:03}{d:03}"))
        }
        IpAddr::V6(v6) => {
            let [.., c, d] = v6.segments();
            let dashed = format!("{c:x}-{d:x}");
            // Small numbers such as ::1 occur in any name.
            c != 0 && (joined.contains(&format!("{c:04x}{d:04x}")) || host.contains(&dashed))
        }
    }
}

/// True unless HELO is a qualified host name outside the domains that exist only inside networks. An address literal is
/// allowed by RFC 5321, but it is not what mail servers of the Internet say.
fn is_odd_helo(helo: &str) -> bool {
    let helo = helo.trim_end_matches('.');
    let Some((host, top)) = helo.rsplit_once('.') else { return true };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let inner = ["local", "localdomain", "lan", "internal", "home", "localhost", "corp", "intranet", "invalid", "test"];
    helo.len() > 255
        || !host.split('.').all(is_label)
        || !is_label(top)
        || top.bytes().all(|byte| byte.is_ascii_digit())
        || inner.iter().any(|name| top.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(client: &str, name: Option<&'static str>, helo: &'static str) -> PolicyRequest<'static> {
        PolicyRequest {
            client_address: client.parse().ok(),
            client_name: name.map(Into::into),
            helo_name: helo.into(),
            ..PolicyRequest::default()
        }
    }

    #[test]
    fn mail_servers_show_no_sign() {
        for (client, name) in [
            ("192.0.2.10", "mx1.example.org"),
            ("209.85.167.44", "mail-lf1-f44.google.com"),
            ("40.107.7.103", "mail-eopbgr70103.outbound.protection.outlook.com"),
            ("54.240.8.30", "a8-30.smtp-out.amazonses.com"),
            ("167.89.1.2", "o1.ptr1234.sendgrid.net"),
            ("192.0.2.7", "static-192-0-2-7.example.net"),
            ("2a01:4f8::2", "mail.example.org"),
            ("2a01:4f8::2", "host-2.example.org"),
            ("192.0.2.10", "example.org"),
            ("192.0.2.10", "cust.org"),
        ] {
            assert!(signs(&request(client, Some(name), "mx1.example.org")).is_empty(), "{name}");
        }
    }

    #[test]
    fn names_of_lines_are_recognised() {
        for (client, name) in [
            ("192.0.2.7", "192-0-2-7.example.net"),
            ("192.0.2.7", "host7.2.0.192.example.net"),
            ("192.0.2.7", "ec2-192-0-2-7.compute-1.example.com"),
            ("192.0.2.7", "192000002007.example.net"),
            ("192.0.2.7", "c0000207.example.net"),
            ("192.0.2.9", "p5abc.dip0.dsl.example.de"),
            ("192.0.2.9", "dynamic-77.example.net"),
            ("192.0.2.9", "x.pool.example.net."),
            ("2001:db8::abcd:12", "2001-db8-0-0-0-0-abcd-12.example.net"),
            ("2001:db8::abcd:12", "h20010db8abcd0012.example.net"),
        ] {
            assert_eq!(signs(&request(client, Some(name), "mx.example.org")).words(), "dynamic_name", "{name}");
        }
    }

    #[test]
    fn helo_must_be_a_qualified_name() {
        for (helo, odd) in [
            ("mx.example.org", false),
            ("MX.Example.ORG.", false),
            ("mx1.xn--bcher-kva.example", false),
            ("", true),
            ("localhost", true),
            ("localhost.localdomain", true),
            ("desktop-1a2b", true),
            ("printer.local", true),
            ("192.0.2.1", true),
            ("[192.0.2.1]", true),
            ("[IPv6:2001:db8::1]", true),
            ("a_b.example.org", true),
            ("-a.example.org", true),
            ("a..example.org", true),
            ("ylmf pc.example.org", true),
            (".", true),
        ] {
            assert_eq!(is_odd_helo(helo), odd, "{helo:?}");
        }
    }

    #[test]
    fn signs_add_up_by_name() {
        let all = signs(&request("192.0.2.7", None, "pc"));
        assert_eq!((all.score(), all.words().as_str()), (2, "no_confirmed_name,odd_helo"));
        let two = signs(&request("192.0.2.7", Some("7.2.0.192.dsl.example.net"), "[192.0.2.7]"));
        assert_eq!(two.words(), "dynamic_name,odd_helo");
    }

    proptest! {
        #[test]
        fn any_names_are_judged(name in any::<String>(), helo in any::<String>(), address in any::<[u8; 16]>()) {
            let request = PolicyRequest { client_address: Some(IpAddr::from(address)), client_name: Some(name.into()), helo_name: helo.into(), ..PolicyRequest::default() };
            prop_assert!(signs(&request).score() <= 2);
        }
    }
}
