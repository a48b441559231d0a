// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[dns]`: whom to ask and how long, for every daemon that looks something up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Resolver;
use crate::config::{Mistakes, Source};
use crate::units::Period;

/// Port of name servers (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// More answers than this would not leave room for anything else; one takes some 500 bytes.
const MAX_CACHE: u64 = 1_000_000;

/// Section `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSettings {
    /// Name servers, `address` or `address:port`; none means those of /etc/resolv.conf.
    pub servers: Vec<String>,
    /// Longest time for one question.
    pub timeout: Period,
    /// Answers kept in memory, each as long as its TTL says.
    pub cache: u64,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Period(Duration::from_millis(500)), cache: 10_000 }
    }
}

impl DnsSettings {
    /// Takes the section out of the layers and checks it.
    pub fn read(source: &Source, mistakes: &mut Mistakes) -> Self {
        let settings: Self = source.section("dns", mistakes);
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("dns.{key}"), message));
        for server in &settings.servers {
            if address(server).is_none() {
                wrong(
                    "servers",
                    format!("{server:?} is not an address such as \"192.0.2.53\" or \"[2001:db8::53]:53\""),
                );
            }
        }
        let timeout = settings.timeout.0;
        if timeout < Duration::from_millis(10) || timeout > Duration::from_secs(30) {
            wrong("timeout", format!("{} is not between 10ms and 30s", settings.timeout));
        }
        if settings.cache > MAX_CACHE {
            wrong("cache", format!("{} is more than {MAX_CACHE}", settings.cache));
        }
        settings
    }

    /// A resolver as the section says. Error: /etc/resolv.conf cannot be read.
    pub fn resolver(&self) -> Result<Resolver, String> {
        let servers: Vec<SocketAddr> = self.servers.iter().filter_map(|server| address(server)).collect();
        Resolver::live(&servers, self.timeout.0, self.cache)
    }
}

fn address(server: &str) -> Option<SocketAddr> {
    server.parse().ok().or_else(|| Some(SocketAddr::new(server.parse::<IpAddr>().ok()?, PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        let mut mistakes = Mistakes::new();
        DnsSettings::read(&Source::from_text("f", text).unwrap(), &mut mistakes);
        mistakes.to_string()
    }

    #[test]
    fn servers_are_addresses_with_or_without_a_port() {
        assert_eq!(address("192.0.2.53"), "192.0.2.53:53".parse().ok());
        assert_eq!(address("2001:db8::53"), "[2001:db8::53]:53".parse().ok());
        assert_eq!(address("[2001:db8::53]:5300"), "[2001:db8::53]:5300".parse().ok());
        assert_eq!(mistakes("[dns]\nservers = ['192.0.2.53', '127.0.0.1:5353']\ntimeout = '2s'\ncache = 0"), "");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(mistakes("[dns]\nservers = ['ns.example.org']").starts_with("f:2: dns.servers: "));
        assert!(mistakes("[dns]\ntimeout = '1ms'").starts_with("f:2: dns.timeout: "));
        assert!(mistakes("[dns]\ncache = 2000000").starts_with("f:2: dns.cache: "));
        assert!(mistakes("[dns]\nserver = []").starts_with("f:2: dns.server: "));
    }
}
