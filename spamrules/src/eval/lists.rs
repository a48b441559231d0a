// SPDX-License-Identifier: GPL-3.0-or-later
//! The directives that put addresses and hosts on lists: `welcomelist_*`, `blocklist_*`, `more_spam_to`, `enlist_addrlist`,
//! `enlist_uri_host` and their like. The older names with `whitelist` and `blacklist` mean the same.

use std::collections::{BTreeMap, HashMap};

use super::matching::AddressList;

/// Lists of addresses and hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Addresses under the name of their directive or of their `enlist_addrlist`.
    plain: HashMap<String, AddressList>,
    /// Addresses with the relay that must have handed the mail over, or the domain that must have signed it.
    with_proof: HashMap<String, AddressList<String>>,
    /// Hosts of URIs by list, `false` for those that are excepted.
    pub(super) hosts: BTreeMap<String, HashMap<Box<str>, bool>>,
    /// Patterns of subjects, by list.
    subjects: HashMap<String, Vec<String>>,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let key = key.replace("whitelist", "welcomelist").replace("blacklist", "blocklist");
        let value = value.trim();
        Some(match key.as_str() {
            "welcomelist_from"
            | "blocklist_from"
            | "welcomelist_to"
            | "blocklist_to"
            | "more_spam_to"
            | "all_spam_to"
            | "welcomelist_auth"
            | "def_welcomelist_auth"
            | "welcomelist_allows_relays"
            | "welcomelist_bounce_relays"
            | "welcomelist_from_spf"
            | "def_welcomelist_from_spf" => self.add(&key, value),
            "unwelcomelist_from" | "unblocklist_from" => self.remove(&[&key[2..]], value),
            "unwelcomelist_auth" | "unwelcomelist_from_spf" => {
                self.remove(&[&key[2..], &format!("def_{}", &key[2..])], value)
            }
            "welcomelist_from_rcvd" | "def_welcomelist_from_rcvd" => self.add_pair(&key, value, false),
            "welcomelist_from_dkim" | "def_welcomelist_from_dkim" => self.add_pair(&key, value, true),
            "unwelcomelist_from_rcvd" => self.remove_pairs("welcomelist_from_rcvd", value),
            "unwelcomelist_from_dkim" => self.remove_signer(value),
            "enlist_addrlist" => named(value).and_then(|(list, addresses)| self.add(list, addresses)),
            "enlist_uri_host" => named(value).and_then(|(list, hosts)| self.add_hosts(list, hosts)),
            "blocklist_uri_host" => self.add_hosts("BLOCK", value),
            "welcomelist_uri_host" => self.add_hosts("WELCOME", value),
            "delist_uri_host" => self.remove_hosts(value),
            "welcomelist_subject" | "blocklist_subject" => self.add_subject(&key, value),
            _ => return None,
        })
    }

    fn add(&mut self, list: &str, value: &str) -> Result<(), String> {
        let list = self.plain.entry(list.to_string()).or_default();
        let mut any = false;
        for address in value.split_whitespace() {
            list.add(address, ());
            any = true;
        }
        if any { Ok(()) } else { Err("no address given".into()) }
    }

    fn remove(&mut self, lists: &[&str], value: &str) -> Result<(), String> {
        for list in lists {
            if let Some(list) = self.plain.get_mut(*list) {
                value.split_whitespace().for_each(|address| list.remove(address));
            }
        }
        if value.is_empty() { Err("no address given".into()) } else { Ok(()) }
    }

    fn add_pair(&mut self, list: &str, value: &str, alone: bool) -> Result<(), String> {
        let words: Vec<&str> = value.split_whitespace().collect();
        let (address, proof) = match words[..] {
            [address, proof] => (address, proof),
            [address] if alone => (address, ""),
            _ => return Err("an address and a host name are to be given".into()),
        };
        self.with_proof.entry(list.to_string()).or_default().add(address, proof.to_ascii_lowercase());
        Ok(())
    }

    fn remove_pairs(&mut self, list: &str, value: &str) -> Result<(), String> {
        for list in [list.to_string(), format!("def_{list}")] {
            if let Some(list) = self.with_proof.get_mut(&list) {
                value.split_whitespace().for_each(|address| list.remove(address));
            }
        }
        if value.is_empty() { Err("no address given".into()) } else { Ok(()) }
    }

    fn remove_signer(&mut self, value: &str) -> Result<(), String> {
        let mut words = value.split_whitespace();
        let address = words.next().ok_or("no address given")?;
        let signer = words.next().unwrap_or_default().to_ascii_lowercase();
        for list in ["welcomelist_from_dkim", "def_welcomelist_from_dkim"] {
            if let Some(list) = self.with_proof.get_mut(list) {
                list.remove_one(address, &signer);
            }
        }
        Ok(())
    }

    fn add_hosts(&mut self, list: &str, hosts: &str) -> Result<(), String> {
        let list = self.hosts.entry(list.to_string()).or_default();
        for host in hosts.to_ascii_lowercase().split_whitespace() {
            let (host, listed) = host.strip_prefix('!').map_or((host, true), |host| (host, false));
            list.insert(host.into(), listed);
        }
        if hosts.is_empty() { Err("no host given".into()) } else { Ok(()) }
    }

    fn remove_hosts(&mut self, value: &str) -> Result<(), String> {
        let (list, hosts) =
            if value.starts_with('(') { named(value).map(|(l, h)| (Some(l), h))? } else { (None, value) };
        for (name, known) in &mut self.hosts {
            if list.is_none_or(|list| list == name) {
                for host in hosts.to_ascii_lowercase().split_whitespace() {
                    known.remove(host.trim_start_matches('!'));
                }
            }
        }
        Ok(())
    }

    fn add_subject(&mut self, list: &str, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Err("no subject given".into());
        }
        self.subjects.entry(list.to_string()).or_default().push(format!("*{}*", value.to_ascii_lowercase()));
        Ok(())
    }

    /// Whether an address is on a list.
    pub(crate) fn holds(&self, list: &str, address: &str) -> bool {
        self.plain.get(list).is_some_and(|list| list.holds(address))
    }

    /// Whether a list has any entry.
    pub(super) fn any(&self, list: &str) -> bool {
        self.plain.get(list).is_some_and(|list| !list.is_empty())
    }

    /// What must be shown for an address of a list.
    pub(super) fn proofs<'l>(&'l self, list: &str, address: &str) -> impl Iterator<Item = &'l String> {
        self.with_proof.get(list).into_iter().flat_map(move |list| list.about(address))
    }

    pub(super) fn subjects(&self, list: &str) -> &[String] {
        self.subjects.get(list).map_or(&[], Vec::as_slice)
    }
}

/// `(NAME) rest`.
pub(super) fn named(value: &str) -> Result<(&str, &str), String> {
    let inside = value.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    match inside.map(|(name, rest)| (name.trim(), rest.trim_start())) {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => Ok((name, rest)),
        _ => Err("a list name in parentheses and its entries are to be given".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directives: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        directives.iter().for_each(|(key, value)| settings.set(key, value).unwrap().unwrap());
        settings
    }

    #[test]
    fn old_names_mean_the_same() {
        let settings =
            settings(&[("whitelist_from", "*@example.org a@example.net"), ("unwelcomelist_from", "a@example.net")]);
        assert!(
            settings.holds("welcomelist_from", "X@example.org") && !settings.holds("welcomelist_from", "a@example.net")
        );
    }

    #[test]
    fn hosts_and_exceptions() {
        let settings =
            settings(&[("enlist_uri_host", "(L) example.org !ok.example.org"), ("delist_uri_host", "(L) example.org")]);
        assert_eq!(settings.hosts["L"].get("ok.example.org"), Some(&false));
        assert_eq!(settings.hosts["L"].get("example.org"), None);
    }

    #[test]
    fn mistakes() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("whitelist_from", ""),
            ("enlist_addrlist", "NAME a@b"),
            ("welcomelist_from_rcvd", "a@b"),
            ("blocklist_subject", ""),
        ] {
            assert!(settings.set(key, value).unwrap().is_err(), "{key}");
        }
        assert!(settings.set("report_safe", "1").is_none());
    }
}
