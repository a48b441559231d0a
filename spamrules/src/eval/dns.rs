// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests that ask DNS: lists of addresses (`check_rbl*`), domains of URIs (`check_uridnsbl`), anything else (`askdns`), and whether
//! the sender's domain can get mail. All go through [`Answers`](crate::Answers).
//!
//! What other rules and directives say of a list is gathered in [`super::zones`].

use super::zones::{Kind, UriList, fits};
use super::{Argument, Eval};
use crate::answers::Record;
use crate::context::Context;
use crate::domains;
use crate::headers::{author_domains, list, senders, text};
use crate::relays::ip;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_rbl" => |context, arguments| rbl(context, arguments, Record::A),
        "check_rbl_txt" => |context, arguments| rbl(context, arguments, Record::Txt),
        "check_rbl_sub" => check_rbl_sub,
        "check_rbl_from_host" => |context, arguments| names(context, arguments, from_hosts(context)),
        "check_rbl_from_domain" => check_rbl_from_domain,
        "check_dns_sender" => check_dns_sender,
        "check_uridnsbl" => check_uridnsbl,
        "check_askdns" => check_askdns,
        _ => return None,
    })
}

/// Most addresses of one message that are looked up in a list (`num_check_received`).
const MOST_ADDRESSES: usize = 9;

/// Most domains of one message that are looked up in a list.
const MOST_DOMAINS: usize = 20;

/// Whether an answer that a list gives counts at all: addresses in lists are in 127.0.0.0/8.
fn counts(answer: &str, record: Record) -> bool {
    record != Record::A || answer.starts_with("127.")
}

fn listed(context: &Context<'_>, name: &str, record: Record, wanted: Option<&str>) -> bool {
    let answers = context.answers.dns(name, record).unwrap_or_default();
    answers.iter().any(|answer| counts(answer, record) && wanted.is_none_or(|wanted| fits(answer, wanted)))
}

/// `(set, zone, answer)`: one of the relays is in the zone. The set says which relays are looked up.
fn rbl(context: &Context<'_>, arguments: &[Argument], record: Record) -> u32 {
    let [set, zone, rest @ ..] = arguments else { return 0 };
    u32::from(any_relay(context, set.as_str(), zone.as_str(), record, rest.first().map(Argument::as_str)))
}

/// `(set, answer)`: what the zones of a set say; which zones those are, other rules tell.
fn check_rbl_sub(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let [set, wanted, ..] = arguments else { return 0 };
    let zones = context.settings.zones.of_set(set.as_str());
    let hit = zones.iter().any(|(zone, record)| any_relay(context, set.as_str(), zone, *record, Some(wanted.as_str())));
    u32::from(hit)
}

fn any_relay(context: &Context<'_>, set: &str, zone: &str, record: Record, wanted: Option<&str>) -> bool {
    if context.settings.queries.skip_relays {
        return false;
    }
    let zone = zone.trim_end_matches('.');
    let mut addresses = addresses(context, set).into_iter();
    let found = addresses.find(|address| {
        ip::reversed(address).is_some_and(|name| listed(context, &format!("{name}.{zone}"), record, wanted))
    });
    if let Some(address) = &found {
        context.note(format!("{address} listed in {zone}"));
    }
    found.is_some()
}

/// The public addresses that a set looks up.
fn addresses(context: &Context<'_>, set: &str) -> Vec<String> {
    let relays = context.relays();
    let untrusted = || relays.untrusted.iter().map(|relay| relay.ip.clone());
    let outside =
        relays.trusted.iter().filter(|relay| !relay.internal).map(|relay| relay.ip.clone()).chain(untrusted());
    let trusted = context.settings.relays.trusted();
    let mut found = match set.rsplit_once('-').map(|(_, kind)| kind) {
        Some("lastexternal") => public(outside).into_iter().take(1).collect(),
        Some("notfirsthop") => {
            let mut found = public(outside);
            if found.len() > 1 {
                found.pop();
            }
            found
        }
        Some("firsttrusted") => public(untrusted()).into_iter().take(1).collect(),
        Some("untrusted") => public(untrusted()).into_iter().skip(1).collect(),
        _ => public(untrusted()).into_iter().rev().collect::<Vec<_>>(),
    };
    found.truncate(MOST_ADDRESSES);
    let inside = found.iter().take_while(|address| trusted.contains(address)).count();
    found.split_off(inside)
}

/// Each address once, without those that the internet does not route.
fn public(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    all.filter(|address| !address.is_empty() && !ip::is_private(address) && seen.insert(address.clone())).collect()
}

/// `(set, zone, answer)` for names instead of addresses.
fn names(context: &Context<'_>, arguments: &[Argument], names: Vec<String>) -> u32 {
    let [_, zone, rest @ ..] = arguments else { return 0 };
    if context.settings.queries.skip_relays {
        return 0;
    }
    let (zone, wanted) = (zone.as_str().trim_end_matches('.'), rest.first().map(Argument::as_str));
    let found = names.iter().find(|name| listed(context, &format!("{name}.{zone}"), Record::A, wanted));
    if let Some(name) = found {
        context.note(format!("{name} listed in {zone}"));
    }
    u32::from(found.is_some())
}

fn from_hosts(context: &Context<'_>) -> Vec<String> {
    let hosts = senders(context);
    let hosts =
        hosts.iter().filter_map(|address| Some(address.rsplit_once('@')?.1.trim_matches('.').to_ascii_lowercase()));
    hosts.filter(|host| is_name(context, host)).collect()
}

fn is_name(context: &Context<'_>, host: &str) -> bool {
    domains::is_well_formed(host) && context.settings.domains.has_tld(host)
}

fn check_rbl_from_domain(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let mut domains: Vec<String> =
        from_hosts(context).iter().map(|host| context.settings.domains.registered(host)).collect();
    domains.sort_unstable();
    domains.dedup();
    names(context, arguments, domains)
}

/// The sender's domain has neither mail servers nor an address.
fn check_dns_sender(context: &Context<'_>, _: &[Argument]) -> u32 {
    let sender = text(context, "EnvelopeFrom:addr").to_ascii_lowercase();
    let Some((_, host)) = sender.rsplit_once('@').filter(|(_, host)| host.contains('.')) else { return 0 };
    if context.settings.queries.skip_relays {
        return 0;
    }
    let none = |record| context.answers.dns(host, record).is_some_and(|found| found.is_empty());
    // Both are asked, whatever the first one says: who looks them up does it at once.
    u32::from(none(Record::A) & none(Record::Mx))
}

/// `(rule)`: a URI is in the list that a directive gave under the name of the rule.
fn check_uridnsbl(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(rule) = arguments.first() else { return 0 };
    let Some(list) = context.settings.zones.uri_list(rule.as_str()) else { return 0 };
    if context.settings.queries.skip_uris {
        return 0;
    }
    let names = uri_names(context, list).into_iter();
    let found: Vec<String> = names.filter(|name| in_uri_list(context, name, list)).collect();
    found.iter().for_each(|name| context.note(format!("URI: {name}")));
    u32::from(!found.is_empty())
}

/// Domains, or with `notrim` hosts, of the URIs, each once; addresses as they are.
fn uri_names(context: &Context<'_>, list: &UriList) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (host, domain) in context.uris().details.iter().flat_map(|uri| &uri.hosts) {
        let name = if list.whole_host { host } else { domain };
        let skipped = context.settings.zones.is_skipped(domain);
        if !name.is_empty() && !skipped && !names.contains(name) && names.len() < MOST_DOMAINS {
            names.push(name.clone());
        }
    }
    names
}

fn in_uri_list(context: &Context<'_>, name: &str, list: &UriList) -> bool {
    let ask = |name: &str| listed(context, &format!("{name}.{}", list.zone), list.record, list.wanted.as_deref());
    let address = |address: &str| ip::reversed(address).is_some_and(|name| ask(&name));
    if name.parse::<std::net::IpAddr>().is_ok() {
        return !list.domains_only && address(name);
    }
    let servers = || context.answers.dns(name, Record::Ns).unwrap_or_default();
    let addresses = |name: &str| context.answers.dns(name, Record::A).unwrap_or_default();
    match list.kind {
        Kind::Domain => !list.addresses_only && ask(name),
        Kind::ServerDomain => servers().iter().any(|server| ask(&context.settings.domains.registered(server))),
        Kind::ServerName => servers().iter().any(|server| ask(server.trim_end_matches('.'))),
        Kind::Address => {
            (list.own_address && addresses(name).iter().any(|a| address(a)))
                || (list.server_address && servers().iter().flat_map(|server| addresses(server)).any(|a| address(&a)))
        }
    }
}

/// `(template type answer)`: a name made from what is known of the message has such a record.
fn check_askdns(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(text) = arguments.first().map(Argument::as_str) else { return 0 };
    let mut words = text.trim().splitn(3, char::is_whitespace);
    let Some(template) = words.next() else { return 0 };
    let kinds = words.next().unwrap_or("A").to_ascii_uppercase();
    let wanted = words.next().map(str::trim).filter(|w| !w.is_empty());
    let records = kinds.split(',').filter_map(|kind| match kind {
        "A" => Some(Record::A),
        "AAAA" => Some(Record::Aaaa),
        "TXT" => Some(Record::Txt),
        "MX" => Some(Record::Mx),
        "NS" => Some(Record::Ns),
        _ => None,
    });
    let names = filled(context, template);
    let hit = records.into_iter().any(|record| {
        names.iter().filter(|name| domains::is_well_formed(name)).any(|name| {
            let name = name.trim_end_matches('.');
            let answers = context.answers.dns(name, record).unwrap_or_default();
            let found = answers.iter().find(|answer| wanted.is_none_or(|wanted| fits(answer, wanted)));
            if let Some(answer) = found {
                context.note(format!("{name} {}:{answer}", word(record)));
            }
            found.is_some()
        })
    });
    u32::from(hit)
}

/// The type of a record, as zone files write it.
fn word(record: Record) -> &'static str {
    match record {
        Record::A => "A",
        Record::Aaaa => "AAAA",
        Record::Txt => "TXT",
        Record::Mx => "MX",
        Record::Ns => "NS",
    }
}

/// The names that a template with `_TAG_` stands for: one for each value; none where a tag has no value.
fn filled(context: &Context<'_>, template: &str) -> Vec<String> {
    /// Most names that one template may give.
    const MOST: usize = 32;
    let mut names = vec![template.to_ascii_lowercase()];
    let mut rest = template;
    while let Some(found) =
        super::matching::pattern!(r"_([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*(?:\(.*?\))?)_").captures(rest.as_bytes())
    {
        let (Some(whole), Some(tag)) = (found.get(0), found.get(1)) else { break };
        let tag = String::from_utf8_lossy(tag.as_bytes()).into_owned();
        let values = tag_values(context, &tag);
        let hole = format!("_{tag}_").to_ascii_lowercase();
        names = names
            .iter()
            .flat_map(|name| {
                values.iter().map(|value| name.replace(&hole, &value.to_ascii_lowercase())).collect::<Vec<_>>()
            })
            .take(MOST)
            .collect();
        rest = rest.get(whole.end()..).unwrap_or_default();
    }
    names
}

pub(super) fn tag_values(context: &Context<'_>, tag: &str) -> Vec<String> {
    let known = context.tag(tag);
    if !known.is_empty() {
        return known;
    }
    let last = context.relays().external.first();
    let of_relay = |text: Option<String>| text.filter(|t| !t.is_empty()).into_iter().collect();
    match tag {
        "SENDERDOMAIN" => list(context, "EnvelopeFrom:first:addr:host").into_iter().take(1).collect(),
        "AUTHORDOMAIN" => author_domains(context),
        "DKIMDOMAIN" => {
            let mut domains: Vec<String> =
                context.answers.dkim().unwrap_or_default().into_iter().filter(|s| s.valid).map(|s| s.domain).collect();
            domains.dedup();
            domains
        }
        "LASTEXTERNALIP" => of_relay(last.map(|relay| relay.ip.clone())),
        "LASTEXTERNALREVIP" => of_relay(last.and_then(|relay| ip::reversed(&relay.ip))),
        "LASTEXTERNALRDNS" => of_relay(last.map(|relay| relay.rdns.clone())),
        "LASTEXTERNALHELO" => of_relay(last.map(|relay| relay.helo.clone())),
        _ => tag
            .strip_prefix("HEADER(")
            .and_then(|rest| rest.strip_suffix(')'))
            .map_or_else(Vec::new, |name| list(context, name)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tests::with;
    use crate::answers::{Answers, Record};

    #[derive(Default)]
    struct Zone(HashMap<(&'static str, Record), Vec<&'static str>>);

    impl Answers for Zone {
        fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
            let found = self.0.iter().find(|((known, kind), _)| *known == name && *kind == record)?;
            Some(found.1.iter().map(ToString::to_string).collect())
        }
    }

    fn zone(records: &[(&'static str, Record, &'static [&'static str])]) -> Zone {
        Zone(records.iter().map(|(name, record, values)| ((*name, *record), values.to_vec())).collect())
    }

    const MESSAGE: &str = "Received: from a (a.example.org [203.0.113.7]) by mx.example.com (Postfix) with SMTP id 1111 (envelope-from <a@example.org>)\n\
                           From: a@www.example.net\n\nsee http://www.bad.org/ and http://203.0.113.9/\n";

    #[test]
    fn lists_of_addresses() {
        let zone = zone(&[
            ("7.113.0.203.list.example", Record::A, &["127.0.0.4"]),
            ("7.113.0.203.text.example", Record::Txt, &["Listed"]),
        ]);
        let hit = |name, arguments: &[&str]| with(MESSAGE, &[], &zone, name, arguments);
        assert_eq!(hit("check_rbl", &["x-lastexternal", "list.example."]), 1);
        assert_eq!(hit("check_rbl", &["x", "list.example.", "^127\\.0\\.0\\.[34]$"]), 1);
        assert_eq!(hit("check_rbl", &["x", "list.example.", "127.0.0.2"]), 0);
        assert_eq!(hit("check_rbl", &["x", "list.example.", "4"]), 1);
        assert_eq!(hit("check_rbl", &["x-untrusted", "list.example."]), 0);
        assert_eq!(hit("check_rbl_txt", &["x", "text.example.", "(?i:listed)"]), 1);
        assert_eq!(hit("check_rbl", &["x", "other.example."]), 0);
    }

    #[test]
    fn domains_of_uris() {
        let zone = zone(&[
            ("bad.org.uris.example", Record::A, &["127.0.0.6"]),
            ("9.113.0.203.uris.example", Record::A, &["127.0.0.8"]),
        ]);
        let hit = |directive| with(MESSAGE, &[directive], &zone, "check_uridnsbl", &["R"]);
        assert_eq!(hit(("urirhssub", "R uris.example. A 2")), 1);
        assert_eq!(hit(("urirhssub", "R uris.example. A 8")), 1);
        assert_eq!(hit(("urirhssub", "R uris.example. A 16")), 0);
        assert_eq!(hit(("urirhsbl", "R uris.example. A")), 1);
        assert_eq!(hit(("urirhsbl", "OTHER uris.example. A")), 0);
    }

    #[test]
    fn questions_with_tags() {
        let zone = zone(&[
            ("www.example.net.new.example", Record::A, &["127.2.0.2"]),
            ("example.org", Record::Txt, &["v=spf1 +all"]),
        ]);
        let hit = |question| with(MESSAGE, &[], &zone, "check_askdns", &[question]);
        assert_eq!(hit("_AUTHORDOMAIN_.new.example. A /^127\\.2\\.0\\.2$/"), 1);
        assert_eq!(hit("_AUTHORDOMAIN_.new.example A 127.2.0.3"), 0);
        assert_eq!(hit("_SENDERDOMAIN_ TXT /^v=spf1 \\+all$/"), 1);
        assert_eq!(hit("_DKIMDOMAIN_.new.example A"), 0);
    }

    #[test]
    fn questions_that_are_not_permitted() {
        let zone = zone(&[
            ("7.113.0.203.list.example", Record::A, &["127.0.0.4"]),
            ("bad.org.uris.example", Record::A, &["127.0.0.2"]),
        ]);
        let hits = |directive: (&str, &str)| {
            let directives = [("urirhsbl", "R uris.example A"), directive];
            [
                with(MESSAGE, &directives, &zone, "check_rbl", &["x", "list.example"]),
                with(MESSAGE, &directives, &zone, "check_uridnsbl", &["R"]),
            ]
        };
        assert_eq!(hits(("skip_rbl_checks", "0")), [1, 1]);
        assert_eq!(hits(("skip_rbl_checks", "1")), [0, 1]);
        assert_eq!(hits(("skip_uribl_checks", "1")), [1, 0]);
        assert_eq!(hits(("dns_query_restriction", "deny list.example")), [0, 1]);
        assert_eq!(hits(("dns_query_restriction", "deny *")), [0, 0]);
    }

    #[test]
    fn a_sender_that_cannot_get_mail() {
        let none = zone(&[("example.org", Record::A, &[]), ("example.org", Record::Mx, &[])]);
        assert_eq!(with(MESSAGE, &[], &none, "check_dns_sender", &[]), 1);
        assert_eq!(with(MESSAGE, &[], &zone(&[("example.org", Record::A, &[])]), "check_dns_sender", &[]), 0);
    }
}
