// SPDX-License-Identifier: GPL-3.0-or-later
//! List files: one entry a line, `#` begins a comment. Clients by address, network, name or regular expression; mail
//! addresses by address, local part, domain or regular expression. Look-ups cost a few hash probes whatever the length of the list.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use regex::{Regex, RegexSet, RegexSetBuilder};

use crate::config::{Mistake, Mistakes};
use crate::mail;

/// The entry that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<'a> {
    /// The entry as written in the file.
    pub entry: &'a str,
    /// `file:line`.
    pub origin: String,
}

/// One line of a list file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    file: u32,
    number: u32,
    text: Box<str>,
}

/// The lines of all files of one list, and its regular expressions; what both kinds of table share.
#[derive(Debug, Default)]
struct Lines {
    files: Vec<String>,
    lines: Vec<Line>,
    patterns: Vec<(String, u32)>,
    set: Option<RegexSet>,
}

impl Lines {
    /// Reads the files and hands each entry, lower-cased, with its index to `add`; what `add` refuses is a mistake.
    fn read(paths: &[PathBuf], mut add: impl FnMut(&str, u32) -> Result<(), String>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut lines = Self::default();
        for path in paths {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => lines.add_file(&name, &text, &mut add, &mut mistakes),
                Err(error) => mistakes.push(Mistake {
                    origin: name,
                    key: String::new(),
                    message: format!("cannot be read: {error}"),
                }),
            }
        }
        lines.compile(&mut mistakes);
        mistakes.into_result(lines)
    }

    fn add_file(
        &mut self,
        name: &str,
        text: &str,
        add: &mut impl FnMut(&str, u32) -> Result<(), String>,
        mistakes: &mut Mistakes,
    ) {
        let file = self.files.len() as u32;
        self.files.push(name.to_owned());
        for (number, line) in (1u32..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let index = self.lines.len() as u32;
            self.lines.push(Line { file, number, text: entry.into() });
            let added = match entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
                Some(pattern) => self.add_pattern(pattern, index),
                None => add(&entry.to_lowercase(), index),
            };
            if let Err(message) = added {
                mistakes.push(Mistake { origin: format!("{name}:{number}"), key: String::new(), message });
            }
        }
    }

    fn add_pattern(&mut self, pattern: &str, index: u32) -> Result<(), String> {
        Regex::new(pattern).map_err(|error| format!("/{pattern}/ is not a regular expression: {error}"))?;
        self.patterns.push((pattern.to_owned(), index));
        Ok(())
    }

    fn compile(&mut self, mistakes: &mut Mistakes) {
        if self.patterns.is_empty() {
            return;
        }
        match RegexSetBuilder::new(self.patterns.iter().map(|(pattern, _)| pattern)).case_insensitive(true).build() {
            Ok(set) => self.set = Some(set),
            Err(error) => {
                let origin = self.files.join(", ");
                mistakes.push(Mistake {
                    origin,
                    key: String::new(),
                    message: format!("the regular expressions are too large together: {error}"),
                });
            }
        }
    }

    fn find_pattern(&self, text: &str) -> Option<u32> {
        let hit = self.set.as_ref()?.matches(text).into_iter().next()?;
        self.patterns.get(hit).map(|(_, index)| *index)
    }

    fn get(&self, index: u32) -> Option<Match<'_>> {
        let line = self.lines.get(index as usize)?;
        let file = self.files.get(line.file as usize)?;
        Some(Match { entry: &line.text, origin: format!("{file}:{}", line.number) })
    }
}

/// Domain names: each matches itself and its sub-domains, or with a leading dot (or `*.`) its sub-domains only.
#[derive(Debug, Default)]
struct Domains {
    whole: HashMap<Box<str>, u32>,
    below: HashMap<Box<str>, u32>,
}

impl Domains {
    fn add(&mut self, text: &str, index: u32) -> Result<(), String> {
        let (table, name) = match text.strip_prefix("*.").or(text.strip_prefix('.')) {
            Some(name) => (&mut self.below, name),
            None => (&mut self.whole, text),
        };
        let good = |label: &str| {
            !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        };
        if !name.split('.').all(good) {
            return Err(format!("{text:?} is not a domain name"));
        }
        table.entry(name.into()).or_insert(index);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<u32> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(index) = self.whole.get(name) {
            return Some(*index);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(index) = self.below.get(parent).or_else(|| self.whole.get(parent)) {
                return Some(*index);
            }
            rest = parent;
        }
        None
    }
}

/// A list of clients. Entries: `192.0.2.1`, `192.0.2.0/24`, `192.0.2` (the same /24), `2001:db8::/32`, `example.org` (with its
/// sub-domains), `.example.org` (sub-domains only), `/regular expression/` (in the name, any case).
#[derive(Debug, Default)]
pub struct ClientTable {
    lines: Lines,
    networks: HashMap<IpNet, u32>,
    /// Prefix lengths in use, longest first; IPv4 and IPv6 apart.
    prefixes: [Vec<u8>; 2],
    names: Domains,
}

impl ClientTable {
    /// Reads the files as one list. Errors name `file:line`.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Mistakes> {
        let mut networks: HashMap<IpNet, u32> = HashMap::new();
        let mut names = Domains::default();
        let lines = Lines::read(paths, |entry, index| {
            match client_entry(entry)? {
                ClientEntry::Network(network) => drop(networks.entry(network).or_insert(index)),
                ClientEntry::Name => names.add(entry, index)?,
            }
            Ok(())
        })?;
        let mut prefixes = [Vec::new(), Vec::new()];
        for network in networks.keys() {
            let family: &mut Vec<u8> = &mut prefixes[usize::from(network.addr().is_ipv6())];
            if !family.contains(&network.prefix_len()) {
                family.push(network.prefix_len());
            }
        }
        prefixes.iter_mut().for_each(|family| family.sort_by(|a, b| b.cmp(a)));
        Ok(Self { lines, networks, prefixes, names })
    }

    /// Looks up a client: its address first (longest network first), then its name. Give only a name that was confirmed
    /// forward (Postfix `client_name`, not `reverse_client_name`): anyone may claim any reverse name.
    pub fn find(&self, ip: Option<IpAddr>, verified_name: Option<&str>) -> Option<Match<'_>> {
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

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.lines.lines.len()
    }

    /// True when the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.lines.lines.is_empty()
    }
}

enum ClientEntry {
    Network(IpNet),
    Name,
}

fn client_entry(entry: &str) -> Result<ClientEntry, String> {
    if entry.contains('@') {
        return Err(format!("{entry:?} is a mail address, this is a list of clients"));
    }
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Ok(ClientEntry::Network(IpNet::from(ip.to_canonical())));
    }
    if entry.contains('/') {
        let network = entry
            .parse::<IpNet>()
            .map_err(|_| format!("{entry:?} is not a network; write for example 192.0.2.0/24"))?;
        return Ok(ClientEntry::Network(network.trunc()));
    }
    if entry.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        // Three octets are a /24 in the lists of postgrey and sqlgrey; fewer mean different things in different programs.
        return format!("{entry}.0/24")
            .parse()
            .map(ClientEntry::Network)
            .map_err(|_| format!("{entry:?} is not an address; write a network as for example 10.1.0.0/16"));
    }
    if entry.contains(':') {
        return Err(format!("{entry:?} is not an IPv6 address"));
    }
    Ok(ClientEntry::Name)
}

/// A list of envelope addresses. Entries: `user@example.org` (also with `+extension`), `user@` (in any domain), `@example.org` (that
/// domain only), `example.org` (with its sub-domains), `.example.org` (sub-domains only), `<>` (the null sender), `/regular expression/`.
#[derive(Debug, Default)]
pub struct AddressTable {
    lines: Lines,
    full: HashMap<Box<str>, u32>,
    local: HashMap<Box<str>, u32>,
    domain: HashMap<Box<str>, u32>,
    domains: Domains,
}

impl AddressTable {
    /// Reads the files as one list. Errors name `file:line`.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Mistakes> {
        let (mut full, mut local, mut domain) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut domains = Domains::default();
        let lines = Lines::read(paths, |entry, index| {
            if entry == "<>" {
                insert(&mut full, "", index);
                return Ok(());
            }
            match entry.rsplit_once('@') {
                None => domains.add(entry, index),
                Some(("", "")) => Err("\"@\" is not an address".to_owned()),
                Some(("", only)) => {
                    insert(&mut domain, only, index);
                    Ok(())
                }
                Some((user, "")) => {
                    insert(&mut local, user, index);
                    Ok(())
                }
                Some(_) if entry.contains(char::is_whitespace) => Err(format!("{entry:?} is not an address")),
                Some(_) => {
                    insert(&mut full, entry, index);
                    Ok(())
                }
            }
        })?;
        Ok(Self { lines, full, local, domain, domains })
    }

    /// Looks up an envelope address as Postfix gives it (empty for the null sender), in any case.
    pub fn find(&self, address: &str) -> Option<Match<'_>> {
        let lower = address.to_lowercase();
        let (local, domain) = mail::split(&lower);
        let bare = mail::without_extension(local);
        let index =
            (self.full.get(lower.as_str()))
                .or_else(|| {
                    if bare.len() < local.len() { self.full.get(format!("{bare}@{domain}").as_str()) } else { None }
                })
                .or_else(|| self.local.get(local).or_else(|| self.local.get(bare)).filter(|_| !address.is_empty()))
                .or_else(|| self.domain.get(domain))
                .copied()
                .or_else(|| self.domains.find(domain))
                .or_else(|| self.lines.find_pattern(address))?;
        self.lines.get(index)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.lines.lines.len()
    }

    /// True when the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.lines.lines.is_empty()
    }
}

fn insert<K: Hash + Eq + for<'a> From<&'a str>>(table: &mut HashMap<K, u32>, key: &str, index: u32) {
    table.entry(key.into()).or_insert(index);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn clients(text: &str) -> Result<ClientTable, Mistakes> {
        ClientTable::load(&[file(text).path().to_path_buf()])
    }

    fn addresses(text: &str) -> Result<AddressTable, Mistakes> {
        AddressTable::load(&[file(text).path().to_path_buf()])
    }

    #[test]
    fn clients_are_found_by_address_and_name() {
        let table = clients("# list\n192.0.2.1\n198.51.100.0/24 # net\n203.0.113\n2001:DB8::/32\nExample.org\n.sub.example.net\n*.star.example\n/^mx[0-9]+\\.pool\\./\n").unwrap();
        assert_eq!(table.len(), 8);
        for (ip, name, entry) in [
            ("192.0.2.1", "", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", "", Some("192.0.2.1")),
            ("192.0.2.2", "", None),
            ("198.51.100.99", "", Some("198.51.100.0/24")),
            ("203.0.113.9", "", Some("203.0.113")),
            ("2001:db8:9::1", "", Some("2001:DB8::/32")),
            ("10.0.0.1", "EXAMPLE.ORG", Some("Example.org")),
            ("10.0.0.1", "mail.example.org", Some("Example.org")),
            ("10.0.0.1", "badexample.org", None),
            ("10.0.0.1", "sub.example.net", None),
            ("10.0.0.1", "a.sub.example.net", Some(".sub.example.net")),
            ("10.0.0.1", "x.star.example", Some("*.star.example")),
            ("10.0.0.1", "MX7.pool.example", Some("/^mx[0-9]+\\.pool\\./")),
        ] {
            let found = table.find(Some(ip.parse().unwrap()), Some(name));
            assert_eq!(found.map(|found| found.entry), entry, "{ip} {name}");
        }
        assert!(table.find(None, None).is_none());
        assert!(table.find(Some("10.0.0.1".parse().unwrap()), Some("example.org")).unwrap().origin.ends_with(":6"));
    }

    #[test]
    fn addresses_are_found_by_all_their_parts() {
        let table = addresses(
            "Joe@Example.org\npostmaster@\n@only.example\nwide.example\n.below.example\n<>\n/^bounce-.*@lists\\./\n",
        )
        .unwrap();
        for (address, entry) in [
            ("joe@example.org", Some("Joe@Example.org")),
            ("JOE+tag@EXAMPLE.ORG", Some("Joe@Example.org")),
            ("joey@example.org", None),
            ("Postmaster@any.example", Some("postmaster@")),
            ("postmaster+x@any.example", Some("postmaster@")),
            ("x@only.example", Some("@only.example")),
            ("x@sub.only.example", None),
            ("x@wide.example", Some("wide.example")),
            ("x@sub.wide.example", Some("wide.example")),
            ("x@below.example", None),
            ("x@sub.below.example", Some(".below.example")),
            ("", Some("<>")),
            ("bounce-17@lists.example", Some("/^bounce-.*@lists\\./")),
            ("nobody@nowhere.example", None),
        ] {
            assert_eq!(table.find(address).map(|found| found.entry), entry, "{address}");
        }
    }

    #[test]
    fn wrong_entries_are_named_with_their_line() {
        let told = clients("ok.example\nuser@example.org\n10.1\n1.2.3.0/40\n/(/\nbad..name\n").unwrap_err().to_string();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 5, "{told}");
        for (line, number) in lines.iter().zip([2, 3, 4, 5, 6]) {
            assert!(line.contains(&format!(":{number}: ")), "{line}");
        }
        assert!(addresses("a b@c\n@\n").is_err());
        assert!(
            ClientTable::load(&[PathBuf::from("/no/such/list")])
                .unwrap_err()
                .to_string()
                .starts_with("/no/such/list: cannot be read")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_list_and_any_name_is_safe(text in "\\PC*", name in "\\PC*") {
            if let Ok(table) = clients(&text) { let _ = table.find(None, Some(&name)); }
            if let Ok(table) = addresses(&text) { let _ = table.find(&name); }
        }
    }
}
