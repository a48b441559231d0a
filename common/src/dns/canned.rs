// SPDX-License-Identifier: GPL-3.0-or-later
//! Canned DNS: answers from memory instead of the network, for tests. A zone text has one record a line,
//! `name TYPE value`, with `#` comments; types A, AAAA, MX (`10 host`), NS, PTR, TXT, CNAME, and TIMEOUT or SERVFAIL without value,
//! which make every question for the name fail.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{Answer, DnsError, Mx};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Mail exchanger.
    Mx(Mx),
    /// Name server of a zone.
    Ns(String),
    /// Host name of an address.
    Ptr(String),
    /// Text, its strings joined.
    Txt(Vec<u8>),
    /// Another name for this one.
    Cname(String),
    /// No answer for this name.
    Fail,
}

/// Names and their records.
#[derive(Debug, Clone, Default)]
pub struct Zone(Arc<HashMap<String, Vec<Record>>>);

/// TTL of all canned records.
pub(super) const TTL: Duration = Duration::from_secs(300);

/// A chain of CNAME records longer than this is taken for a loop.
const MAX_ALIASES: usize = 8;

impl Zone {
    /// Reads a zone text; the error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut records = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                records.push(parse_line(line).ok_or_else(|| format!("line {number}: {line:?} is not a record"))?);
            }
        }
        Ok(records.into_iter().collect())
    }

    fn find(&self, name: &str) -> Result<&[Record], DnsError> {
        let mut key = canonical(name);
        for _ in 0..MAX_ALIASES {
            let records = self.0.get(&key).map(Vec::as_slice).unwrap_or_default();
            if records.contains(&Record::Fail) {
                return Err(DnsError::Temporary(format!("canned failure of {name}")));
            }
            match records {
                [Record::Cname(target)] => key = canonical(target),
                _ => return Ok(records),
            }
        }
        Err(DnsError::Temporary(format!("{name}: CNAME loop")))
    }

    fn select<T>(&self, name: &str, pick: impl Fn(&Record) -> Option<T>) -> Answer<T> {
        Ok(self.find(name)?.iter().filter_map(pick).collect())
    }

    pub(super) fn txt(&self, name: &str) -> Answer<Vec<u8>> {
        // A name may have texts and still fail for another type: a text that is there is given.
        let texts = |records: &[Record]| -> Vec<Vec<u8>> {
            records
                .iter()
                .filter_map(|record| if let Record::Txt(text) = record { Some(text.clone()) } else { None })
                .collect()
        };
        match self.0.get(&canonical(name)).map(|records| texts(records)) {
            Some(found) if !found.is_empty() => Ok(found),
            _ => self.find(name).map(texts),
        }
    }

    pub(super) fn a(&self, name: &str) -> Answer<Ipv4Addr> {
        self.select(name, |record| if let Record::A(ip) = record { Some(*ip) } else { None })
    }

    pub(super) fn aaaa(&self, name: &str) -> Answer<Ipv6Addr> {
        self.select(name, |record| if let Record::Aaaa(ip) = record { Some(*ip) } else { None })
    }

    pub(super) fn mx(&self, name: &str) -> Answer<Mx> {
        self.select(name, |record| if let Record::Mx(mx) = record { Some(mx.clone()) } else { None })
    }

    pub(super) fn ns(&self, name: &str) -> Answer<String> {
        self.select(name, |record| if let Record::Ns(host) = record { Some(canonical(host)) } else { None })
    }

    pub(super) fn ptr(&self, name: &str) -> Answer<String> {
        self.select(name, |record| if let Record::Ptr(host) = record { Some(canonical(host)) } else { None })
    }
}

impl FromIterator<(String, Record)> for Zone {
    fn from_iter<I: IntoIterator<Item = (String, Record)>>(records: I) -> Self {
        let mut zone: HashMap<String, Vec<Record>> = HashMap::new();
        for (name, record) in records {
            zone.entry(canonical(&name)).or_default().push(record);
        }
        Self(Arc::new(zone))
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_lowercase()
}

fn parse_line(line: &str) -> Option<(String, Record)> {
    let (name, rest) = line.split_once(char::is_whitespace)?;
    let (kind, value) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let value = value.trim();
    let record = match kind.to_ascii_uppercase().as_str() {
        "A" => Record::A(value.parse().ok()?),
        "AAAA" => Record::Aaaa(value.parse().ok()?),
        "MX" => {
            let (preference, exchange) = value.split_once(char::is_whitespace)?;
            Record::Mx(Mx { preference: preference.parse().ok()?, exchange: canonical(exchange.trim()) })
        }
        "NS" if !value.is_empty() => Record::Ns(value.to_owned()),
        "PTR" if !value.is_empty() => Record::Ptr(value.to_owned()),
        "CNAME" if !value.is_empty() => Record::Cname(value.to_owned()),
        "TXT" => Record::Txt(value.trim_matches('"').as_bytes().to_vec()),
        "TIMEOUT" | "SERVFAIL" => Record::Fail,
        _ => return None,
    };
    Some((name.to_owned(), record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_type_and_alias() {
        let zone = Zone::parse("example.org A 192.0.2.1 # web\nexample.org MX 10 MX.Example.org.\nwww.example.org CNAME example.org\nexample.org TXT \"v=spf1 -all\"\nslow.example TIMEOUT\nloop.example CNAME loop.example\n").unwrap();
        assert_eq!(zone.a("WWW.example.org.").unwrap(), [Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(zone.mx("example.org").unwrap(), [Mx { preference: 10, exchange: "mx.example.org".to_owned() }]);
        assert_eq!(zone.txt("www.example.org").unwrap(), [b"v=spf1 -all".to_vec()]);
        assert!(zone.aaaa("example.org").unwrap().is_empty() && zone.a("nowhere.example").unwrap().is_empty());
        assert!(zone.a("slow.example").is_err() && zone.a("loop.example").is_err());
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert_eq!(Zone::parse("a A 192.0.2.1\nb A x\n").unwrap_err(), "line 2: \"b A x\" is not a record");
    }
}
