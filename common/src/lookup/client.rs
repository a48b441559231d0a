// SPDX-License-Identifier: GPL-3.0-or-later
//! A list of clients, found by address and network or by confirmed name.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Match;
use super::dialect::{self, ClientKey, Dialect, ListFile, Reading};
use super::table::{self, Domains, Lines, Table, insert};
use crate::config::Mistakes;
use crate::mail;

/// A list of clients. Entries: `192.0.2.1`, `192.0.2.0/24`, `192.0.2` (the same /24), `2001:db8::/32`, `example.org` (with its
/// sub-domains), `.example.org` (sub-domains only), `/regular expression/` (in the name, any case), `spf:example.org` (the addresses that
/// this domain's SPF record authorises; who reads the list finds out which these are, see [`ClientTable::authorised`]).
#[derive(Debug, Default)]
pub struct ClientTable {
    lines: Lines,
    networks: HashMap<IpNet, u32>,
    /// Prefix lengths in use, longest first; IPv4 and IPv6 apart.
    prefixes: [Vec<u8>; 2],
    names: Domains,
    /// Domains whose SPF records list the clients.
    authorised: Vec<(Box<str>, u32)>,
}

impl ClientTable {
    /// Reads the files as one list. Errors name `file:line`.
    pub fn load<F: Clone + Into<ListFile>>(files: &[F]) -> Result<Self, Mistakes> {
        table::from_files(files.iter().cloned().map(Into::into))
    }

    /// Makes a list of entries in our own format that are kept elsewhere; `origin` is what a match names. Wrong entries are left out
    /// and told.
    pub fn from_entries<'a>(origin: &str, entries: impl Iterator<Item = &'a str>) -> (Self, Mistakes) {
        table::from_entries(origin, entries)
    }

    /// Looks up a client: its address first (longest network first), then its name. Give only a name that was confirmed
    /// forward (Postfix `client_name`, not `reverse_client_name`): anyone may claim any reverse name.
    pub fn find(&self, ip: Option<IpAddr>, verified_name: Option<&str>) -> Option<Match<'_>> {
        if self.is_empty() {
            return None;
        }
        let by_address = ip.map(|ip| ip.to_canonical()).and_then(|ip| {
            let family = &self.prefixes[usize::from(ip.is_ipv6())];
            family.iter().find_map(|prefix| self.networks.get(&mail::network(ip, *prefix, *prefix)))
        });
        let by_name = || {
            let name = verified_name.filter(|name| !name.is_empty())?;
            let found = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.names.find(&name.to_lowercase())
            } else {
                self.names.find(name)
            };
            found.or_else(|| self.lines.find_pattern(name))
        };
        self.lines.get(by_address.copied().or_else(by_name)?)
    }

    /// The entries `spf:domain`, each with its domain in lower case.
    pub fn authorised(&self) -> impl Iterator<Item = (&str, Match<'_>)> {
        self.authorised.iter().filter_map(|(domain, index)| Some((&**domain, self.lines.get(*index)?)))
    }

    /// What was odd in lists of other programs, with file and line; it is in force as it was there.
    pub fn notices(&self) -> &Mistakes {
        &self.lines.notices
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.lines.len() == 0
    }
}

impl Table for ClientTable {
    type Key = ClientKey;

    fn reading(dialect: Dialect, entry: &str) -> Reading<ClientKey> {
        dialect::client(dialect, entry)
    }

    fn insert(&mut self, key: ClientKey, index: u32) {
        match key {
            ClientKey::Network(network) => insert(&mut self.networks, network, index),
            ClientKey::Domain(name) => insert(&mut self.names.whole, name, index),
            ClientKey::Below(name) => insert(&mut self.names.below, name, index),
            ClientKey::Name(name) => insert(&mut self.names.exact, name, index),
            ClientKey::Authorised(name) => {
                if !self.authorised.iter().any(|(known, _)| **known == *name) {
                    self.authorised.push((name.into(), index));
                }
            }
        }
    }

    fn finish(&mut self, lines: Lines) {
        for network in self.networks.keys() {
            let family: &mut Vec<u8> = &mut self.prefixes[usize::from(network.addr().is_ipv6())];
            if !family.contains(&network.prefix_len()) {
                family.push(network.prefix_len());
            }
        }
        self.prefixes.iter_mut().for_each(|family| family.sort_by(|a, b| b.cmp(a)));
        self.lines = lines;
    }
}
