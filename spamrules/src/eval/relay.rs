// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the relays that a message came through: were all trusted, do names and addresses agree.
//!
//! What each relay is was decided in `relays`; these functions only compare.

use std::net::Ipv4Addr;

use super::matching::has;
use super::{Argument, Eval};
use crate::context::Context;
use crate::relays::{Relay, Which, ip};

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_all_trusted" => check_all_trusted,
        "check_no_relays" => check_no_relays,
        "check_relays_unparseable" => |context, _| u32::from(context.relays().unparseable > 0),
        "check_for_numeric_helo" => check_for_numeric_helo,
        "check_for_illegal_ip" => |_, _| 0,
        "helo_ip_mismatch" => helo_ip_mismatch,
        "check_for_no_rdns_dotcom_helo" => check_for_no_rdns_dotcom_helo,
        "check_for_sender_no_reverse" => check_for_sender_no_reverse,
        "check_for_from_domain_in_received_headers" => check_for_from_domain_in_received_headers,
        "check_for_forged_received_trail" => |context, _| u32::from(trail(context).0 > 1),
        "check_for_forged_received_ip_helo" => |context, _| u32::from(trail(context).1 > 0),
        _ => return None,
    })
}

fn check_all_trusted(context: &Context<'_>, _: &[Argument]) -> u32 {
    let relays = context.relays();
    u32::from(!relays.trusted.is_empty() && relays.untrusted.is_empty() && relays.unparseable == 0)
}

fn check_no_relays(context: &Context<'_>, _: &[Argument]) -> u32 {
    let relays = context.relays();
    u32::from(relays.trusted.is_empty() && relays.untrusted.is_empty() && relays.unparseable == 0)
}

fn public_v4(text: &str) -> Option<Ipv4Addr> {
    text.parse::<Ipv4Addr>().ok().filter(|_| !ip::is_private(text))
}

/// A client that claimed an address for its name; a private one counts too.
fn check_for_numeric_helo(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(context.relays().untrusted.iter().any(|relay| relay.helo.parse::<Ipv4Addr>().is_ok()))
}

/// A client that claimed another address than it has, not even of the same /24.
fn helo_ip_mismatch(context: &Context<'_>, _: &[Argument]) -> u32 {
    let differs = |relay: &Relay| match (public_v4(&relay.helo), public_v4(&relay.ip)) {
        (Some(claimed), Some(real)) => claimed.octets()[..3] != real.octets()[..3],
        _ => false,
    };
    u32::from(context.relays().untrusted.iter().any(differs))
}

/// The oldest public client claims a name of a large provider, but has none at all.
fn check_for_no_rdns_dotcom_helo(context: &Context<'_>, _: &[Argument]) -> u32 {
    const PROVIDERS: [&str; 11] = [
        "lycos.com",
        "lycos.co.uk",
        "hotmail.com",
        "localhost.com",
        "excite.com",
        "caramail.com",
        "cs.com",
        "aol.com",
        "msn.com",
        "yahoo.com",
        "drizzle.com",
    ];
    let Some(relay) = context.relays().untrusted.iter().rfind(|relay| !relay.private) else { return 0 };
    let helo = relay.helo.to_ascii_lowercase();
    let claimed =
        PROVIDERS.iter().any(|p| helo.strip_suffix(p).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    u32::from(claimed && relay.no_rdns)
}

fn check_for_sender_no_reverse(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(context.relays().untrusted.last().is_some_and(|relay| relay.rdns.contains('.') && !relay.private))
}

/// `(domain, 'true')`: mail from the domain went through its servers; `'false'`: it did not.
fn check_for_from_domain_in_received_headers(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let [domain, rest @ ..] = arguments else { return 0 };
    let wanted = rest.first().is_some_and(|a| a.as_str() == "true");
    let domain = domain.as_str();
    let from = crate::headers::text(context, "From:addr").to_ascii_lowercase();
    if !ends_word(&from, &domain.to_ascii_lowercase()) {
        return 0;
    }
    let relays = context.relays();
    let through = [Which::Trusted, Which::Untrusted].iter().any(|which| {
        relays
            .text(*which)
            .split(']')
            .any(|relay| field_ends(relay, " rdns=", domain) && field_ends(relay, "by=", domain))
    });
    u32::from(through == wanted)
}

/// Whether the value of a field ends with a domain, at a boundary of a word.
fn field_ends(relay: &str, name: &str, domain: &str) -> bool {
    relay.find(name).is_some_and(|at| {
        let value = relay[at + name.len()..].split(' ').next().unwrap_or_default();
        value.strip_suffix(domain).is_some_and(|rest| !rest.bytes().next_back().is_some_and(ip::is_word))
    })
}

fn ends_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|i| text.as_bytes()[i]);
        before.is_some_and(ip::is_word) != word.bytes().next().is_some_and(ip::is_word)
    })
}

/// Handovers that do not fit together: servers whose name is not that of the client before, and clients that claimed an address of
/// quite another network.
fn trail(context: &Context<'_>) -> (u32, u32) {
    let relays = &context.relays().untrusted;
    let (mut names, mut addresses) = (0, 0);
    let mut before: Option<String> = None;
    for relay in relays {
        let mut from = Some(domain(&relay.rdns));
        let by = domain(&relay.by);
        if is_name(&by) {
            if matches!(from.as_deref(), Some("localhost" | "localhost.localdomain")) && relay.ip == "127.0.0.1" {
                from = None;
            }
            addresses += u32::from(claims_other_network(&domain(&relay.helo), &relay.ip));
            let differs = |previous: &String| {
                is_name(previous) && *previous != by && !(by == "msn.com" && previous == "hotmail.com")
            };
            names += u32::from(before.as_ref().is_some_and(differs));
        }
        before = from;
    }
    (names, addresses)
}

fn claims_other_network(claimed: &str, real: &str) -> bool {
    // Leading zeros are no valid address, but spelt by those who make addresses up.
    let half = |text: &str| {
        let parts: Vec<String> = text.split('.').map(str::to_string).collect();
        let numbers = parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
        (parts.len() == 4 && numbers).then(|| parts[..2].to_vec())
    };
    match (half(claimed), half(real)) {
        (Some(a), Some(b)) => a != b && !ip::is_private(claimed),
        _ => false,
    }
}

fn is_name(text: &str) -> bool {
    has!(r"^\w+(?:[\w.-]+\.)+\w+$", text)
}

/// The last two labels of a name, three below most country codes; a rough guess that rules count on.
fn domain(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if !name.bytes().any(|b| b.is_ascii_alphabetic()) {
        return name;
    }
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let generic = last.len() >= 3 || ["ie", "fr", "de"].contains(&last);
    match labels.len() {
        n if n > 1 && generic => labels[n - 2..].join("."),
        n if n > 2 => labels[n - 3..].join("."),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::eval;
    use super::*;

    #[test]
    fn domains_of_relays() {
        for (name, expected) in [
            ("mail.example.com", "example.com"),
            ("mail.example.co.uk", "example.co.uk"),
            ("mail.example.de", "example.de"),
            ("example.uk", "example.uk"),
            ("192.0.2.1", "192.0.2.1"),
            ("", ""),
        ] {
            assert_eq!(domain(name), expected);
        }
    }

    #[test]
    fn trust() {
        let inner = "Received: from a (a [10.0.0.1]) by b.example.org (Postfix) with SMTP id 1111\n";
        assert_eq!(eval(inner, "check_all_trusted", &[]), 1);
        assert_eq!(eval("Subject: x\n", "check_no_relays", &[]), 1);
        assert_eq!(eval("Received: from something odd\n", "check_relays_unparseable", &[]), 1);
        assert_eq!(eval("Received: from something odd\n", "check_all_trusted", &[]), 0);
    }

    #[test]
    fn names_and_addresses() {
        let odd =
            "Received: from 198.51.100.9 (x.example.org [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1111\n";
        assert_eq!(eval(odd, "helo_ip_mismatch", &[]), 1);
        assert_eq!(eval(odd, "check_for_numeric_helo", &[]), 1);
        let near =
            "Received: from 203.0.113.77 (x.example.org [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1111\n";
        assert_eq!(eval(near, "helo_ip_mismatch", &[]), 0);
        let nameless =
            "Received: from mx.hotmail.com (unknown [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1111\n";
        assert_eq!(eval(nameless, "check_for_no_rdns_dotcom_helo", &[]), 1);
    }

    #[test]
    fn trails() {
        let hop = |from: &str, by: &str| {
            format!("Received: from x ({from} [203.0.113.1]) by {by} (Postfix) with SMTP id 1111\n")
        };
        let forged =
            [hop("a.one.com", "mx.two.com"), hop("b.three.com", "mx.four.com"), hop("c.five.com", "mx.six.com")]
                .concat();
        assert_eq!(eval(&forged, "check_for_forged_received_trail", &[]), 1);
        let whole = [hop("a.four.com", "mx.two.com"), hop("b.six.com", "mx.four.com"), hop("c.five.com", "mx.six.com")]
            .concat();
        assert_eq!(eval(&whole, "check_for_forged_received_trail", &[]), 0);
    }

    #[test]
    fn mail_of_a_domain_through_its_servers() {
        let message = "Received: from a (m.example.com [203.0.113.1]) by mx.example.com (Postfix) with SMTP id 1111\nFrom: a@example.com\n";
        let name = "check_for_from_domain_in_received_headers";
        assert_eq!(eval(message, name, &["example.com", "true"]), 1);
        assert_eq!(eval(message, name, &["example.com", "false"]), 0);
        assert_eq!(eval(message, name, &["example.net", "false"]), 0);
    }
}
