// SPDX-License-Identifier: GPL-3.0-or-later
//! Signs that a client may not be a mail server: greylist mode `adaptive` delays only clients whose signs together weigh enough.
//!
//! Pure, no look-up: what Postfix already knows, and what SPF said when it was asked. RFC 1912 section 2.1 asks for matching address and
//! name; RFC 5321 section 4.1.1.1 for a fully qualified name or an address literal in EHLO.

use std::net::IpAddr;

use common::spf::SpfResult;
use serde::{Deserialize, Serialize};

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
    /// The sender's domain does not authorise the client (SPF fail or softfail).
    SpfFail,
    /// The sender's domain has no SPF record.
    SpfNone,
    /// No triplet of the client's network has ever passed.
    NewNetwork,
    /// Checks before this one have found something against the client: a weak DNS list, a rule.
    Score,
}

impl Sign {
    /// The word for log and trace.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoConfirmedName => "no_confirmed_name",
            Self::DynamicName => "dynamic_name",
            Self::OddHelo => "odd_helo",
            Self::SpfFail => "spf_fail",
            Self::SpfNone => "spf_none",
            Self::NewNetwork => "new_network",
            Self::Score => "score",
        }
    }
}

/// Section `[greylist.signs]`: what each sign weighs. A sign of weight 0 is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Weight of [`Sign::NoConfirmedName`].
    pub no_confirmed_name: u8,
    /// Weight of [`Sign::DynamicName`].
    pub dynamic_name: u8,
    /// Weight of [`Sign::OddHelo`].
    pub odd_helo: u8,
    /// Weight of [`Sign::SpfFail`].
    pub spf_fail: u8,
    /// Weight of [`Sign::SpfNone`].
    pub spf_none: u8,
    /// Weight of [`Sign::NewNetwork`].
    pub new_network: u8,
    /// Weight of [`Sign::Score`].
    pub score: u8,
}

impl Default for Weights {
    fn default() -> Self {
        Self { no_confirmed_name: 2, dynamic_name: 2, odd_helo: 2, spf_fail: 1, spf_none: 1, new_network: 0, score: 1 }
    }
}

impl Weights {
    fn of(&self, sign: Sign) -> u32 {
        u32::from(match sign {
            Sign::NoConfirmedName => self.no_confirmed_name,
            Sign::DynamicName => self.dynamic_name,
            Sign::OddHelo => self.odd_helo,
            Sign::SpfFail => self.spf_fail,
            Sign::SpfNone => self.spf_none,
            Sign::NewNetwork => self.new_network,
            Sign::Score => self.score,
        })
    }

    /// The most that SPF can add.
    pub fn most_of_spf(&self) -> u32 {
        self.of(Sign::SpfFail).max(self.of(Sign::SpfNone))
    }

    /// The most that look-ups can add, in DNS or in what is known of networks.
    pub fn most_of_lookups(&self) -> u32 {
        self.most_of_spf() + self.of(Sign::NewNetwork)
    }

    /// The most that all signs together can weigh; a client without a confirmed name has no dynamic one.
    pub fn most(&self) -> u32 {
        self.of(Sign::NoConfirmedName).max(self.of(Sign::DynamicName))
            + self.of(Sign::OddHelo)
            + self.most_of_lookups()
            + self.of(Sign::Score)
    }
}

/// The signs seen on one client, and what they weigh together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs {
    seen: [Option<Sign>; 6],
    score: u32,
}

impl Signs {
    /// True when nothing speaks against the client.
    pub fn is_empty(self) -> bool {
        self.seen.iter().all(Option::is_none)
    }

    /// What they weigh together.
    pub fn score(self) -> u32 {
        self.score
    }

    /// Their words with commas between.
    pub fn words(self) -> String {
        self.seen.iter().flatten().map(|sign| sign.word()).collect::<Vec<_>>().join(",")
    }

    /// The same signs of a client that has this score of checks before; from 1 on it is a sign.
    pub fn with_score(mut self, score: i32, weights: &Weights) -> Self {
        if score > 0 && weights.of(Sign::Score) > 0 {
            self.seen[5] = Some(Sign::Score);
            self.score += weights.of(Sign::Score);
        }
        self
    }

    /// The same signs of a client whose network is new.
    pub fn with_new_network(mut self, weights: &Weights) -> Self {
        if weights.of(Sign::NewNetwork) > 0 {
            self.seen[4] = Some(Sign::NewNetwork);
            self.score += weights.of(Sign::NewNetwork);
        }
        self
    }

    /// The same signs and what SPF said.
    pub fn with_spf(mut self, spf: SpfResult, weights: &Weights) -> Self {
        let sign = match spf {
            SpfResult::Fail | SpfResult::Softfail => Sign::SpfFail,
            SpfResult::None => Sign::SpfNone,
            _ => return self,
        };
        if weights.of(sign) > 0 {
            self.seen[3] = Some(sign);
            self.score += weights.of(sign);
        }
        self
    }
}

/// What lists of the administrator say of a client's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Named {
    /// Nothing: it is what it looks like.
    #[default]
    Unlisted,
    /// A line of a customer.
    Dynamic,
    /// A mail server.
    Server,
}

/// What speaks against the client of this request, without a look-up.
pub fn signs(request: &PolicyRequest<'_>, weights: &Weights, named: Named) -> Signs {
    let name = request.client_name.as_deref();
    let weighed = |sign: Sign, seen: bool| (seen && weights.of(sign) > 0).then_some(sign);
    let dynamic = || match named {
        Named::Unlisted => name.is_some_and(|name| looks_dynamic(name, request.client_address)),
        Named::Dynamic => true,
        Named::Server => false,
    };
    let seen = [
        weighed(Sign::NoConfirmedName, name.is_none()),
        weighed(Sign::DynamicName, dynamic()),
        weighed(Sign::OddHelo, is_odd_helo(&request.helo_name)),
        None,
        None,
        None,
    ];
    Signs { seen, score: seen.iter().flatten().map(|sign| weights.of(*sign)).sum() }
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

/// True for a name with the client's address in it, or with a word of `LINE_WORDS` in a host label, unless a word
/// of `SERVER_WORDS` says otherwise. The last two labels, the registered domain in most cases, do not count.
pub fn looks_dynamic(name: &str, client: Option<IpAddr>) -> bool {
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

    fn default_signs(request: &PolicyRequest<'_>) -> Signs {
        signs(request, &Weights::default(), Named::Unlisted)
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
            assert!(default_signs(&request(client, Some(name), "mx1.example.org")).is_empty(), "{name}");
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
            assert_eq!(default_signs(&request(client, Some(name), "mx.example.org")).words(), "dynamic_name", "{name}");
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
        let all = default_signs(&request("192.0.2.7", None, "pc"));
        assert_eq!((all.score(), all.words().as_str()), (4, "no_confirmed_name,odd_helo"));
        let two = default_signs(&request("192.0.2.7", Some("7.2.0.192.dsl.example.net"), "[192.0.2.7]"));
        assert_eq!(two.words(), "dynamic_name,odd_helo");
        assert_eq!(Weights::default().most(), 6);
        let scored = all.with_score(0, &Weights::default()).with_score(7, &Weights::default());
        assert_eq!((scored.score(), scored.words().as_str()), (5, "no_confirmed_name,odd_helo,score"));
    }

    #[test]
    fn spf_adds_its_sign_and_a_sign_without_weight_is_not_seen() {
        let weights = Weights { odd_helo: 0, spf_none: 3, spf_fail: 0, ..Weights::default() };
        let seen = signs(&request("192.0.2.7", None, "pc"), &weights, Named::Unlisted);
        assert_eq!((seen.score(), seen.words().as_str()), (2, "no_confirmed_name"));
        for (spf, score, words) in [
            (SpfResult::None, 5, "no_confirmed_name,spf_none"),
            (SpfResult::Fail, 2, "no_confirmed_name"),
            (SpfResult::Pass, 2, "no_confirmed_name"),
            (SpfResult::Temperror, 2, "no_confirmed_name"),
        ] {
            let seen = seen.with_spf(spf, &weights);
            assert_eq!((seen.score(), seen.words().as_str()), (score, words), "{spf:?}");
        }
        assert_eq!(seen.with_new_network(&weights), seen, "no weight by default");
        let weights = Weights { new_network: 1, ..weights };
        let new = seen.with_new_network(&weights).with_spf(SpfResult::None, &weights);
        assert_eq!((new.score(), new.words().as_str()), (6, "no_confirmed_name,spf_none,new_network"));
        assert_eq!((weights.most_of_lookups(), weights.most()), (4, 7));
        let soft = seen.with_spf(SpfResult::Softfail, &Weights::default());
        assert_eq!(soft.words(), "no_confirmed_name,spf_fail");
    }

    proptest! {
        #[test]
        fn any_names_are_judged(name in any::<String>(), helo in any::<String>(), address in any::<[u8; 16]>()) {
            let request = PolicyRequest { client_address: Some(IpAddr::from(address)), client_name: Some(name.into()), helo_name: helo.into(), ..PolicyRequest::default() };
            prop_assert!(default_signs(&request).score() <= 4);
        }
    }
}
