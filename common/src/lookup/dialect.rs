// SPDX-License-Identifier: GPL-3.0-or-later
//! Whose list file it is: our own format, postgrey's or sqlgrey's. Each line is brought to a key of ours that matches what it
//! matched there.
//!
//! Pure. What the other program never matched, or matched differently from what one would think, is told as a notice and keeps
//! its meaning; in our own format the same line is a mistake.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// A format of list files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Our own; what is wrong in it is a mistake.
    #[default]
    Own,
    /// postgrey's `whitelist_clients` and `whitelist_recipients`.
    Postgrey,
    /// sqlgrey's `clients_ip_whitelist`.
    SqlgreyIp,
    /// sqlgrey's `clients_fqdn_whitelist`.
    SqlgreyFqdn,
    /// sqlgrey's `dyn_fqdn.regexp` and `smtp_server.regexp`.
    SqlgreyRegexp,
}

impl Dialect {
    const FOREIGN: [Self; 4] = [Self::Postgrey, Self::SqlgreyIp, Self::SqlgreyFqdn, Self::SqlgreyRegexp];

    /// The word in front of a path; empty for our own format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::Postgrey => "postgrey",
            Self::SqlgreyIp => "sqlgrey-ip",
            Self::SqlgreyFqdn => "sqlgrey-fqdn",
            Self::SqlgreyRegexp => "sqlgrey-regexp",
        }
    }
}

/// A list file and its format. Text form: `/path`, or `postgrey:/path`, `sqlgrey-ip:/path`, `sqlgrey-fqdn:/path`,
/// `sqlgrey-regexp:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFile {
    /// How its lines are read.
    pub dialect: Dialect,
    /// Where it is.
    pub path: PathBuf,
}

impl From<PathBuf> for ListFile {
    fn from(path: PathBuf) -> Self {
        Self { dialect: Dialect::Own, path }
    }
}

impl FromStr for ListFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((word, path)) = text.split_once(":/") else { return Ok(PathBuf::from(text).into()) };
        let dialect = Dialect::FOREIGN.into_iter().find(|dialect| dialect.word() == word);
        let path = PathBuf::from(format!("/{path}"));
        dialect.map(|dialect| Self { dialect, path }).ok_or_else(|| {
            format!("{word:?} is no format of list files; there are postgrey, sqlgrey-ip, sqlgrey-fqdn and sqlgrey-regexp, and ours without a word")
        })
    }
}

impl fmt::Display for ListFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect {
            Dialect::Own => self.path.display().fmt(f),
            dialect => write!(f, "{}:{}", dialect.word(), self.path.display()),
        }
    }
}

impl Serialize for ListFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What an entry is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key<K> {
    /// Found by a hash probe.
    Plain(K),
    /// A regular expression, searched anywhere in the text.
    Pattern(String),
}

/// How a line was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading<K> {
    /// As one would think.
    Entry(Key<K>),
    /// It has another meaning there than one would think, which is kept.
    Odd(Key<K>, String),
    /// It never matched anything there.
    Never(String),
    /// Not of this format.
    Wrong(String),
}

impl<K> Reading<K> {
    fn plain(key: K) -> Self {
        Self::Entry(Key::Plain(key))
    }
}

impl<K> From<Result<K, String>> for Reading<K> {
    fn from(read: Result<K, String>) -> Self {
        read.map_or_else(Self::Wrong, Self::plain)
    }
}

/// A client, as an entry names it. Names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientKey {
    Network(IpNet),
    /// The name and its sub-domains.
    Domain(String),
    /// The sub-domains only.
    Below(String),
    /// The name only.
    Name(String),
    /// The clients that a domain's SPF record lists.
    Authorised(String),
}

/// The text between the slashes of `/regular expression/`.
pub(super) fn pattern(entry: &str) -> Option<&str> {
    entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'))
}

fn compiles(pattern: &str) -> Result<(), String> {
    regex::Regex::new(pattern).map(drop).map_err(|error| {
        // The crate draws a picture of several lines; the last one says it.
        error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// A pattern of our own format.
pub(super) fn own_pattern<K>(pattern: &str) -> Reading<K> {
    match compiles(pattern) {
        Ok(()) => Reading::Entry(Key::Pattern(format!("(?i){pattern}"))),
        Err(error) => Reading::Wrong(format!("/{pattern}/ is not a regular expression: {error}")),
    }
}

/// A pattern of Perl; few of its features are missing here (look-around and back-references).
pub(super) fn perl_pattern<K>(pattern: &str, flags: &str) -> Reading<K> {
    match compiles(pattern) {
        Ok(()) => Reading::Entry(Key::Pattern(format!("{flags}{pattern}"))),
        Err(error) => Reading::Never(format!("/{pattern}/ is left out, Octroi cannot evaluate it: {error}")),
    }
}

pub(super) fn client(dialect: Dialect, entry: &str) -> Reading<ClientKey> {
    match dialect {
        Dialect::Own => own_client(entry),
        Dialect::Postgrey => postgrey_client(entry),
        Dialect::SqlgreyIp => sqlgrey_ip(entry),
        Dialect::SqlgreyFqdn => sqlgrey_fqdn(entry),
        // A line is one expression, without slashes around it.
        Dialect::SqlgreyRegexp => perl_pattern(entry.trim(), "(?i)"),
    }
}

fn own_client(entry: &str) -> Reading<ClientKey> {
    let entry = entry.trim();
    if let Some(text) = pattern(entry) {
        return own_pattern(text);
    }
    if entry.contains('@') {
        return Reading::Wrong(format!("{entry:?} is a mail address, this is a list of clients"));
    }
    if let Some(name) = entry.strip_prefix("spf:") {
        return domain_name(&name.to_lowercase()).map(|name| ClientKey::Authorised(name.to_owned())).into();
    }
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Reading::plain(ClientKey::Network(IpNet::from(ip.to_canonical())));
    }
    if entry.contains('/') {
        let network = entry.parse::<IpNet>().map(|network| ClientKey::Network(network.trunc()));
        return network.map_err(|_| format!("{entry:?} is not a network; write for example 192.0.2.0/24")).into();
    }
    if is_numeric(entry) {
        // Three octets are a /24 in the lists of postgrey and sqlgrey; fewer mean different things in different programs.
        let network = three_octets(entry).map(ClientKey::Network);
        return network
            .ok_or_else(|| format!("{entry:?} is not an address; write a network as for example 10.1.0.0/16"))
            .into();
    }
    if entry.contains(':') {
        return Reading::Wrong(format!("{entry:?} is not an IPv6 address"));
    }
    let name = entry.to_lowercase();
    match name.strip_prefix("*.").or(name.strip_prefix('.')) {
        Some(parent) => domain_name(parent).map(|name| ClientKey::Below(name.to_owned())).into(),
        None => domain_name(&name).map(|name| ClientKey::Domain(name.to_owned())).into(),
    }
}

/// postgrey(8): `/re/` in any case, addresses with an optional prefix length, names with their sub-domains.
fn postgrey_client(entry: &str) -> Reading<ClientKey> {
    let entry = entry.trim();
    if entry.contains(char::is_whitespace) {
        return Reading::Never(format!("{entry:?} has a blank inside; postgrey passes over such lines"));
    }
    if let Some(text) = pattern(entry) {
        return perl_pattern(text, "(?i)");
    }
    let (address, prefix) = entry.split_once('/').map_or((entry, None), |(address, prefix)| (address, Some(prefix)));
    if is_numeric(address) {
        if let (2, None, Some(network)) = (address.split('.').count(), prefix, three_octets(&format!("{address}.0"))) {
            let told = format!(
                "{entry:?} is {network} to postgrey, and stays so here; if the whole {address}.0.0/16 is meant, write that"
            );
            return Reading::Odd(Key::Plain(ClientKey::Network(network)), told);
        }
        let network = if prefix.is_none() { three_octets(address) } else { None };
        return network_or_never(network.or_else(|| dotted(entry)), entry, "postgrey");
    }
    if address.matches(':').count() >= 2 {
        return network_or_never(colons(entry), entry, "postgrey");
    }
    if entry.contains('@') {
        let told = "is a mail address; postgrey compares it with names of clients and never finds it (it may belong into sender_whitelist)";
        return Reading::Never(format!("{entry:?} {told}"));
    }
    match domain_name(&entry.to_lowercase()) {
        Ok(name) => Reading::plain(ClientKey::Domain(name.to_owned())),
        Err(_) => Reading::Never(format!(
            "{entry:?} never matches a name in postgrey; example.org has its sub-domains with it"
        )),
    }
}

/// sqlgrey takes all blanks out of a line: an address, three octets, or either family with a prefix length.
fn sqlgrey_ip(entry: &str) -> Reading<ClientKey> {
    let entry: String = entry.chars().filter(|c| !c.is_whitespace()).collect();
    let network = if is_numeric(&entry) { three_octets(&entry) } else { None };
    network_or_never(network.or_else(|| dotted(&entry)).or_else(|| colons(&entry)), &entry, "sqlgrey")
}

/// sqlgrey takes the first run of blanks out of a line: `name` is that name alone, `*.name` what is below it, `/re/` minds the case.
fn sqlgrey_fqdn(entry: &str) -> Reading<ClientKey> {
    let blank = entry.find(char::is_whitespace).unwrap_or(entry.len());
    let after = entry[blank..].trim_start();
    let entry = format!("{}{after}", &entry[..blank]);
    if entry.contains(char::is_whitespace) {
        return Reading::Never(format!("{:?} keeps a blank in sqlgrey and never matches there", entry.trim()));
    }
    if let Some(text) = pattern(&entry) {
        return perl_pattern(text, "");
    }
    let name = entry.to_lowercase();
    let read = match name.strip_prefix("*.") {
        Some(parent) => domain_name(parent).map(|name| ClientKey::Below(name.to_owned())),
        None => domain_name(&name).map(|name| ClientKey::Name(name.to_owned())),
    };
    read.map_or_else(|_| Reading::Never(format!("{entry:?} never matches a name in sqlgrey")), Reading::plain)
}

fn network_or_never(network: Option<IpNet>, entry: &str, program: &str) -> Reading<ClientKey> {
    match network {
        Some(network) => Reading::plain(ClientKey::Network(network)),
        None => Reading::Never(format!("{entry:?} is not an address or network that {program} matches")),
    }
}

fn is_numeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// `192.0.2` as 192.0.2.0/24.
fn three_octets(text: &str) -> Option<IpNet> {
    format!("{text}.0/24").parse().ok()
}

/// `192.0.2.1` or `192.0.2.0/24`.
fn dotted(text: &str) -> Option<IpNet> {
    let alone = text.parse::<Ipv4Addr>().map(|ip| IpNet::from(IpAddr::from(ip)));
    alone.ok().or_else(|| text.parse::<ipnet::Ipv4Net>().ok().map(|network| IpNet::from(network.trunc())))
}

/// `2001:db8::1` or `2001:db8::/32`.
fn colons(text: &str) -> Option<IpNet> {
    let alone = text.parse::<Ipv6Addr>().map(|ip| IpNet::from(IpAddr::from(ip).to_canonical()));
    alone.ok().or_else(|| text.parse::<ipnet::Ipv6Net>().ok().map(|network| IpNet::from(network.trunc())))
}

/// A name of labels as DNS has them, underscores and letters of other scripts included.
pub(super) fn domain_name(name: &str) -> Result<&str, String> {
    let good = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    if name.split('.').all(good) { Ok(name) } else { Err(format!("{name:?} is not a domain name")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Reading<ClientKey> {
        Reading::plain(ClientKey::Network(text.parse().unwrap()))
    }

    fn domain(text: &str) -> Reading<ClientKey> {
        Reading::plain(ClientKey::Domain(text.to_owned()))
    }

    #[test]
    fn list_files_name_their_format() {
        for (text, dialect, path) in [
            ("/etc/octroi/clients", Dialect::Own, "/etc/octroi/clients"),
            ("lists/clients", Dialect::Own, "lists/clients"),
            ("postgrey:/etc/postgrey/whitelist_clients", Dialect::Postgrey, "/etc/postgrey/whitelist_clients"),
            ("sqlgrey-ip:/a", Dialect::SqlgreyIp, "/a"),
            ("sqlgrey-fqdn:/b:/c", Dialect::SqlgreyFqdn, "/b:/c"),
        ] {
            let file: ListFile = text.parse().unwrap();
            assert_eq!((file.dialect, file.path.to_str()), (dialect, Some(path)));
            assert_eq!(file.to_string(), text);
        }
        assert!("sqlgrey:/x".parse::<ListFile>().unwrap_err().contains("sqlgrey-fqdn"));
    }

    #[test]
    fn postgrey_lines_keep_their_meaning() {
        for (entry, reading) in [
            ("debian.org", domain("debian.org")),
            ("Debian.ORG", domain("debian.org")),
            ("66.216.126.174", network("66.216.126.174/32")),
            ("195.235.39", network("195.235.39.0/24")),
            ("51.4.80.0/27", network("51.4.80.0/27")),
            ("51.4.80.77/27", network("51.4.80.64/27")),
            ("2a01:4180:4051:0800::/64", network("2a01:4180:4051:800::/64")),
            ("2001:DB8::1", network("2001:db8::1/128")),
            ("/^fmr\\d+\\.intel\\.com$/", Reading::Entry(Key::Pattern("(?i)^fmr\\d+\\.intel\\.com$".to_owned()))),
        ] {
            assert_eq!(client(Dialect::Postgrey, entry), reading, "{entry}");
        }
        let Reading::Odd(Key::Plain(ClientKey::Network(two)), told) = client(Dialect::Postgrey, "10.1") else {
            panic!("two octets are odd");
        };
        assert_eq!(two.to_string(), "10.1.0.0/24");
        assert!(told.contains("10.1.0.0/16"), "{told}");
        for entry in [
            "joe@example.org",
            "*.example.org",
            ".example.org",
            "a b",
            "/a b/",
            "10",
            "10.1/16",
            "1.2.3.4/40",
            "/(?!x)y/",
        ] {
            assert!(matches!(client(Dialect::Postgrey, entry), Reading::Never(_)), "{entry}");
        }
    }

    #[test]
    fn sqlgrey_lines_keep_their_meaning() {
        for (entry, reading) in [
            ("12.5.136.141  ", network("12.5.136.141/32")),
            (" 64.12 .137", network("64.12.137.0/24")),
            ("10.0.0.0/8", network("10.0.0.0/8")),
            ("2001:db8::/32", network("2001:db8::/32")),
        ] {
            assert_eq!(client(Dialect::SqlgreyIp, entry), reading, "{entry}");
        }
        for entry in ["10.1", "mail.example.org", "1.2.3.4.5"] {
            assert!(matches!(client(Dialect::SqlgreyIp, entry), Reading::Never(_)), "{entry}");
        }
        for (entry, reading) in [
            ("*.southwest.com", Reading::plain(ClientKey::Below("southwest.com".to_owned()))),
            ("isp.belgacom.be ", Reading::plain(ClientKey::Name("isp.belgacom.be".to_owned()))),
            ("/^MX/", Reading::Entry(Key::Pattern("^MX".to_owned()))),
        ] {
            assert_eq!(client(Dialect::SqlgreyFqdn, entry), reading, "{entry}");
        }
        let dynamic = client(Dialect::SqlgreyRegexp, "(^|[0-9.x_-])(dsl|pool)[0-9.x_-]\n");
        assert_eq!(dynamic, Reading::Entry(Key::Pattern("(?i)(^|[0-9.x_-])(dsl|pool)[0-9.x_-]".to_owned())));
        for entry in ["  host.example.org ", "a b c", "a@b", "*"] {
            assert!(matches!(client(Dialect::SqlgreyFqdn, entry), Reading::Never(_)), "{entry}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read(entry in "\\PC*") {
            for dialect in Dialect::FOREIGN.into_iter().chain([Dialect::Own]) {
                let _ = client(dialect, &entry);
            }
        }
    }
}
