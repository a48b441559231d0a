// SPDX-License-Identifier: GPL-3.0-or-later
//! What rules and directives say of DNS lists: `uridnsbl`, `urirhsbl` and their like, which zones belong to a set, what answers mean.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::answers::Record;
use crate::regexes::Pattern;

/// Which names of a URI are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The domain.
    Domain,
    /// The addresses of the host or of its name servers.
    Address,
    /// The domains of the name servers.
    ServerDomain,
    /// The name servers.
    ServerName,
}

/// A list of URIs.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a directive, independent of each other")]
pub(super) struct UriList {
    pub(super) kind: Kind,
    pub(super) zone: String,
    pub(super) record: Record,
    pub(super) wanted: Option<String>,
    /// `tflags notrim`: hosts, not registered domains.
    pub(super) whole_host: bool,
    pub(super) domains_only: bool,
    pub(super) addresses_only: bool,
    /// `tflags a` and `ns`.
    pub(super) own_address: bool,
    pub(super) server_address: bool,
}

/// Directives about lists of URIs, and the zones that rules name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    uris: HashMap<String, UriList>,
    skipped: HashSet<String>,
    sets: HashMap<String, Vec<(String, Record)>>,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let (kind, wants_answer) = match key {
            "uridnsbl" => (Kind::Address, false),
            "uridnssub" => (Kind::Address, true),
            "urirhsbl" => (Kind::Domain, false),
            "urirhssub" => (Kind::Domain, true),
            "urinsrhsbl" => (Kind::ServerDomain, false),
            "urinsrhssub" => (Kind::ServerDomain, true),
            "urifullnsrhsbl" => (Kind::ServerName, false),
            "urifullnsrhssub" => (Kind::ServerName, true),
            "uridnsbl_skip_domain" => {
                self.skipped.extend(value.split_whitespace().map(str::to_ascii_lowercase));
                return Some(Ok(()));
            }
            "clear_uridnsbl_skip_domain" => {
                if value.trim().is_empty() {
                    self.skipped.clear();
                }
                value.split_whitespace().for_each(|domain| {
                    self.skipped.remove(&domain.to_ascii_lowercase());
                });
                return Some(Ok(()));
            }
            _ => return None,
        };
        Some(self.add(kind, wants_answer, value))
    }

    fn add(&mut self, kind: Kind, wants_answer: bool, value: &str) -> Result<(), String> {
        let words: Vec<&str> = value.split_whitespace().collect();
        let (rule, zone, record, wanted) = match words[..] {
            [rule, zone, record] if !wants_answer => (rule, zone, record, None),
            [rule, zone, record, wanted] if wants_answer => (rule, zone, record, Some(wanted.to_string())),
            _ => return Err("a rule, a zone, a type and, for the forms with `sub`, an answer are to be given".into()),
        };
        let record = match record.to_ascii_uppercase().as_str() {
            "A" => Record::A,
            "TXT" => Record::Txt,
            other => return Err(format!("{other} is neither A nor TXT")),
        };
        let list = UriList {
            kind,
            zone: zone.trim_end_matches('.').to_ascii_lowercase(),
            record,
            wanted,
            whole_host: false,
            domains_only: false,
            addresses_only: false,
            own_address: false,
            server_address: true,
        };
        self.uris.insert(rule.to_string(), list);
        Ok(())
    }

    /// What a rule itself says: which zone its set looks up, and the flags of its list.
    pub(crate) fn note(&mut self, rule: &str, function: &str, arguments: &[String], flags: &str) {
        match (function, arguments) {
            ("check_rbl" | "check_rbl_txt", [set, zone, ..]) => {
                let record = if function == "check_rbl" { Record::A } else { Record::Txt };
                let zones = self.sets.entry(set.clone()).or_default();
                let zone = (zone.trim_end_matches('.').to_string(), record);
                if !zones.contains(&zone) {
                    zones.push(zone);
                }
            }
            ("check_uridnsbl", _) => {
                if let Some(list) = self.uris.get_mut(rule) {
                    let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
                    list.whole_host = has("notrim");
                    list.domains_only = has("domains_only");
                    list.addresses_only = has("ips_only");
                    list.own_address = has("a");
                    list.server_address = has("ns") || !has("a");
                }
            }
            _ => {}
        }
    }

    pub(super) fn of_set(&self, set: &str) -> &[(String, Record)] {
        self.sets.get(set).map_or(&[], Vec::as_slice)
    }

    pub(super) fn uri_list(&self, rule: &str) -> Option<&UriList> {
        self.uris.get(rule)
    }

    pub(super) fn is_skipped(&self, domain: &str) -> bool {
        self.skipped.contains(domain)
    }
}

/// Whether an answer is the wanted one: `127.0.0.2`, a mask (`8`), a range (`127.0.0.2-127.0.0.9`), value and mask
/// (`127.0.1.0/0xffff00`), or a pattern, bare or between slashes.
pub(super) fn fits(answer: &str, wanted: &str) -> bool {
    let address = answer.parse::<Ipv4Addr>().ok().map(u32::from);
    if answer == wanted {
        return true;
    }
    if let (Some(address), Some(mask)) = (address, wanted.parse::<u32>().ok()) {
        return address & mask != 0 && address >> 24 == 127;
    }
    if let (Some(address), Some((low, high))) =
        (address, wanted.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?))))
    {
        return (low..=high).contains(&address);
    }
    if let (Some(address), Some((value, mask))) =
        (address, wanted.split_once('/').and_then(|(a, b)| Some((number(a)?, number(b)?))))
    {
        return address & mask == value & mask;
    }
    number(wanted).is_none() && Pattern::new(wanted).is_ok_and(|pattern| pattern.is_match(answer.as_bytes()))
}

/// A number: decimal, hexadecimal, or dotted.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(u32::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for wanted in ["127.0.0.6", "4", "127.0.0.2-127.0.0.9", "127.0.0.0/0xffffff00", "^127\\.0\\.0\\.[56]$"] {
            assert!(fits("127.0.0.6", wanted), "{wanted}");
        }
        for wanted in ["127.0.0.2", "8", "127.0.0.7-127.0.0.9", "127.0.1.0/0xffffff00", "^127\\.0\\.0\\.[45]$", "("] {
            assert!(!fits("127.0.0.6", wanted), "{wanted}");
        }
        assert!(fits("v=spf1 +all", "/\\+all$/"));
    }

    #[test]
    fn sets_and_flags() {
        let mut settings = Settings::default();
        settings.set("urirhsbl", "R uris.example. A").unwrap().unwrap();
        settings.note("R", "check_uridnsbl", &["R".into()], "net domains_only");
        assert!(settings.uri_list("R").unwrap().domains_only);
        settings.note("X", "check_rbl", &["s".into(), "list.example.".into()], "net");
        settings.note("Y", "check_rbl", &["s".into(), "list.example".into()], "net");
        assert_eq!(settings.of_set("s"), [("list.example".to_string(), Record::A)]);
    }

    #[test]
    fn mistakes() {
        let mut settings = Settings::default();
        for (key, value) in [("urirhsbl", "R zone"), ("urirhssub", "R zone A"), ("uridnsbl", "R zone MX")] {
            assert!(settings.set(key, value).unwrap().is_err(), "{key}");
        }
        assert!(settings.set("dns_server", "x").is_none());
    }
}
