// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests whether senders, recipients, subjects and hosts of URIs are on the administrator's lists.
//!
//! The lists are in [`super::lists`]. Forms that want a proof from DNS (SPF, DKIM) are in [`super::auth`].

use std::net::IpAddr;

use super::lists::Settings;
use super::matching::glob;
use super::{Argument, Eval};
use crate::context::Context;
use crate::headers::{recipients, senders, text};
use crate::relays::{Networks, Relay};

pub(crate) fn find(name: &str) -> Option<Eval> {
    let name = name.replace("whitelist", "welcomelist").replace("blacklist", "blocklist");
    Some(match name.as_str() {
        "check_from_in_blocklist" => |context, _| from(context, "blocklist_from"),
        "check_to_in_blocklist" => |context, _| to(context, "blocklist_to"),
        "check_to_in_welcomelist" => |context, _| to(context, "welcomelist_to"),
        "check_to_in_more_spam" => |context, _| to(context, "more_spam_to"),
        "check_to_in_all_spam" => |context, _| to(context, "all_spam_to"),
        "check_from_in_list" => |context, arguments| arguments.first().map_or(0, |list| from(context, list.as_str())),
        "check_to_in_list" => |context, arguments| arguments.first().map_or(0, |list| to(context, list.as_str())),
        "check_replyto_in_list" => check_replyto_in_list,
        "check_from_in_welcomelist" => |context, _| u32::from(welcome(context) == Proof::Shown),
        "check_forged_in_welcomelist" => {
            |context, _| u32::from(welcome(context) == Proof::Missing && default_welcome(context) == Proof::NotAsked)
        }
        "check_from_in_default_welcomelist" => |context, _| u32::from(default_welcome(context) == Proof::Shown),
        "check_forged_in_default_welcomelist" => {
            |context, _| u32::from(default_welcome(context) == Proof::Missing && welcome(context) == Proof::NotAsked)
        }
        "check_mailfrom_matches_rcvd" => check_mailfrom_matches_rcvd,
        "check_uri_host_listed" => {
            |context, arguments| arguments.first().map_or(0, |list| uri_host(context, list.as_str()))
        }
        "check_uri_host_in_blocklist" => |context, _| uri_host(context, "BLOCK"),
        "check_uri_host_in_welcomelist" => |context, _| uri_host(context, "WELCOME"),
        "check_subject_in_welcomelist" => |context, _| subject(context, "welcomelist_subject"),
        "check_subject_in_blocklist" => |context, _| subject(context, "blocklist_subject"),
        _ => return None,
    })
}

fn lists<'c>(context: &'c Context<'_>) -> &'c Settings {
    &context.settings.lists
}

fn from(context: &Context<'_>, list: &str) -> u32 {
    u32::from(senders(context).iter().any(|address| lists(context).holds(list, address)))
}

fn to(context: &Context<'_>, list: &str) -> u32 {
    u32::from(recipients(context).iter().any(|address| lists(context).holds(list, address)))
}

fn check_replyto_in_list(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let address = text(context, "Reply-To:addr");
    u32::from(
        arguments.first().is_some_and(|list| !address.is_empty() && lists(context).holds(list.as_str(), &address)),
    )
}

/// Whether a listed sender's mail came from a host that the list allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// The sender is on no list.
    NotAsked,
    Shown,
    /// The sender is on a list, but the mail is not from there: perhaps forged.
    Missing,
}

fn welcome(context: &Context<'_>) -> Proof {
    let plain = from(context, "welcomelist_from") > 0;
    if plain { Proof::Shown } else { by_relay(context, "welcomelist_from_rcvd") }
}

fn default_welcome(context: &Context<'_>) -> Proof {
    by_relay(context, "def_welcomelist_from_rcvd")
}

fn by_relay(context: &Context<'_>, list: &str) -> Proof {
    let relays = relays(context);
    let mut all = Proof::NotAsked;
    if relays.is_empty() {
        return all;
    }
    for address in senders(context).iter() {
        let mut asked = false;
        for host in lists(context).proofs(list, address) {
            if relays.iter().any(|relay| is_from(relay, host)) {
                return Proof::Shown;
            }
            asked = true;
        }
        if asked && !lists(context).holds("welcomelist_allows_relays", address) {
            all = Proof::Missing;
        }
    }
    all
}

/// The first untrusted relay; all trusted ones when there is no untrusted, since then none can be forged.
fn relays<'c>(context: &'c Context<'_>) -> &'c [Relay] {
    let relays = context.relays();
    relays.untrusted.get(..1).unwrap_or(&relays.trusted)
}

/// Whether a relay is the host: a domain, or `[address]` with an optional prefix length.
fn is_from(relay: &Relay, host: &str) -> bool {
    let Some((address, length)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        let name = relay.rdns.to_ascii_lowercase();
        return name.strip_suffix(host).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    };
    if relay.ip.parse::<IpAddr>().is_err() {
        return false;
    }
    let mut network = Networks::default();
    network.add(&format!("{address}{length}")).is_ok() && network.contains(&relay.ip)
}

/// The sender of the envelope and the relay have the same registered domain.
fn check_mailfrom_matches_rcvd(context: &Context<'_>, _: &[Argument]) -> u32 {
    let sender = text(context, "EnvelopeFrom:addr");
    let Some((_, host)) = sender.rsplit_once('@').filter(|(_, host)| host.trim_matches('.').contains('.')) else {
        return 0;
    };
    let domains = &context.settings.domains;
    let domain = domains.registered(host);
    let same = |relay: &Relay| !relay.rdns.is_empty() && domains.registered(&relay.rdns) == domain;
    u32::from(relays(context).iter().any(same))
}

fn subject(context: &Context<'_>, list: &str) -> u32 {
    let subject = text(context, "Subject").to_ascii_lowercase();
    let listed = |pattern: &String| glob(pattern.as_bytes(), subject.trim_end_matches('\n').as_bytes());
    u32::from(!subject.is_empty() && lists(context).subjects(list).iter().any(listed))
}

fn uri_host(context: &Context<'_>, list: &str) -> u32 {
    let Some(list) = lists(context).hosts.get(list) else { return 0 };
    let details = context
        .uris()
        .details
        .iter()
        .filter(|uri| !uri.raw.get(..7).is_some_and(|s| s.eq_ignore_ascii_case(b"mailto:")));
    u32::from(details.flat_map(|uri| &uri.hosts).any(|(host, _)| is_listed(list, host)))
}

/// The longest of a host and its parent domains that the list knows decides.
fn is_listed(list: &std::collections::HashMap<Box<str>, bool>, host: &str) -> bool {
    /// Most labels that are looked at, the last ones.
    const MOST: usize = 11;
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return list.get(literal) == Some(&true);
    }
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return list.get(host) == Some(&true);
    }
    let labels = host.split('.').count();
    let parents = std::iter::successors(Some(host), |name| name.split_once('.').map(|(_, rest)| rest));
    parents.skip(labels.saturating_sub(MOST)).find_map(|name| list.get(name)).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use crate::answers::NoAnswers;

    const MESSAGE: &str = "Received: from mail.example.org (mail.example.org [203.0.113.5]) by mx.example.com (Postfix) with SMTP id 1111\n\
                           Return-Path: <a@lists.example.org>\n\
                           X-Envelope-From: <b@example.net>\n\
                           From: Alice <alice@example.org>\nReply-To: r@example.net\nTo: you@example.com\nSubject: Buy Now\n\n\
                           see http://bad.example.org/x and http://ok.bad.example.org/y\n";

    fn hit(directive: (&str, &str), name: &str, arguments: &[&str]) -> u32 {
        with(MESSAGE, &[directive], &NoAnswers, name, arguments)
    }

    #[test]
    fn senders_and_recipients() {
        assert_eq!(hit(("blocklist_from", "*@Example.ORG"), "check_from_in_blacklist", &[]), 1);
        assert_eq!(hit(("welcomelist_from", "alice@example.net"), "check_from_in_welcomelist", &[]), 0);
        assert_eq!(hit(("more_spam_to", "you@example.com"), "check_to_in_more_spam", &[]), 1);
        assert_eq!(hit(("enlist_addrlist", "(L) *@example.net"), "check_replyto_in_list", &["L"]), 1);
        assert_eq!(hit(("enlist_addrlist", "(L) *@example.net"), "check_from_in_list", &["M"]), 0);
    }

    #[test]
    fn with_the_relay() {
        for (host, expected) in
            [("example.org", 1), ("ample.org", 0), ("[203.0.113.5]", 1), ("[203.0.113.0/24]", 1), ("[203.0.114]", 0)]
        {
            let value = format!("alice@example.org {host}");
            assert_eq!(hit(("welcomelist_from_rcvd", &value), "check_from_in_whitelist", &[]), expected, "{host}");
            assert_eq!(
                hit(("def_welcomelist_from_rcvd", &value), "check_from_in_default_welcomelist", &[]),
                expected,
                "{host}"
            );
            assert_eq!(
                hit(("def_welcomelist_from_rcvd", &value), "check_forged_in_default_welcomelist", &[]),
                1 - expected,
                "{host}"
            );
        }
    }

    #[test]
    fn subjects_and_domains() {
        assert_eq!(hit(("blocklist_subject", "buy ?ow"), "check_subject_in_blocklist", &[]), 1);
        assert_eq!(hit(("blocklist_subject", "sell"), "check_subject_in_blocklist", &[]), 0);
        let told = "Received: from m.example.org (m.example.org [203.0.113.5]) by mx (Postfix) with SMTP id 1111 (envelope-from <a@l.example.org>)\n\nx\n";
        assert_eq!(with(told, &[], &NoAnswers, "check_mailfrom_matches_rcvd", &[]), 1);
    }

    #[test]
    fn hosts_of_uris() {
        assert_eq!(hit(("blocklist_uri_host", "example.org"), "check_uri_host_in_blocklist", &[]), 1);
        assert_eq!(hit(("enlist_uri_host", "(L) org !bad.example.org"), "check_uri_host_listed", &["L"]), 0);
        assert_eq!(hit(("enlist_uri_host", "(L) ok.bad.example.org"), "check_uri_host_listed", &["L"]), 1);
    }
}
