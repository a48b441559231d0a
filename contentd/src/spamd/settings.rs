// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[spamd]`: the listener for clients of SpamAssassin's daemon.

use std::net::IpAddr;

use common::address::Address;
use common::config::{Mistakes, Source};
use common::net::SocketOptions;
use common::units::{Period, Size};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Section `[spamd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpamdSettings {
    /// Where clients connect; empty: nowhere.
    pub listen: Vec<Address>,
    /// Permission bits of UNIX sockets, octal; empty: what the umask gives.
    pub socket_mode: String,
    /// Group of UNIX sockets; empty: that of the process.
    pub socket_group: String,
    /// Networks whose clients may ask. UNIX sockets are always allowed.
    pub allow: Vec<String>,
    /// Most requests at once; further clients wait.
    pub max_requests: usize,
    /// Largest message, decompressed; one over `contentd.max_size` is too large in any case.
    pub max_size: Size,
    /// Longest time for the command and the header lines to come.
    pub request_timeout: Period,
    /// Longest time for the message to come.
    pub data_timeout: Period,
    /// Longest wait for the client to take the answer.
    pub reply_timeout: Period,
    /// Whether clients may say what a message is (TELL).
    pub tell: bool,
}

impl Default for SpamdSettings {
    fn default() -> SpamdSettings {
        SpamdSettings {
            listen: Vec::new(),
            socket_mode: "0660".into(),
            socket_group: String::new(),
            allow: vec!["127.0.0.1".into(), "::1".into()],
            max_requests: 20,
            max_size: Size(100_000_000),
            request_timeout: Period::seconds(30),
            data_timeout: Period::seconds(300),
            reply_timeout: Period::seconds(60),
            tell: false,
        }
    }
}

impl SpamdSettings {
    /// The networks of `allow`; an address alone is a network of one.
    pub fn networks(&self) -> Vec<IpNet> {
        self.allow.iter().filter_map(|text| network(text)).collect()
    }

    /// Mode and group of UNIX sockets.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            mode: u32::from_str_radix(&self.socket_mode, 8).ok(),
            group: (!self.socket_group.is_empty()).then(|| self.socket_group.clone()),
        }
    }

    /// Looks for values and combinations that cannot work. `others`: addresses that are taken.
    pub fn check(&self, others: &[Address], source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, found: bool, message: &str| {
            if found {
                mistakes.push(source.mistake(&format!("spamd.{key}"), message));
            }
        };
        let open = self.listen.iter().any(|address| !address.is_loopback());
        let explicit = source.has_section("spamd.allow");
        wrong("listen", open && !explicit, "an address that is not loopback needs an explicit spamd.allow");
        let taken = self.listen.iter().any(|address| others.contains(address));
        wrong("listen", taken, "is an address of contentd.listen or contentd.reinject");
        for text in &self.allow {
            wrong("allow", network(text).is_none(), &format!("{text:?} is not an IP address or network"));
        }
        let mode =
            self.socket_mode.is_empty() || u32::from_str_radix(&self.socket_mode, 8).is_ok_and(|mode| mode <= 0o777);
        wrong("socket_mode", !mode, "is not an octal mode such as \"0660\"");
        wrong("max_requests", self.max_requests == 0, "must be at least 1");
        wrong("max_size", self.max_size.0 == 0, "must not be 0");
        let limits = [
            ("request_timeout", self.request_timeout),
            ("data_timeout", self.data_timeout),
            ("reply_timeout", self.reply_timeout),
        ];
        for (key, limit) in limits {
            wrong(key, limit.0.is_zero(), "must not be 0");
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use common::config::Source;

    fn read(text: &str) -> Result<Settings, String> {
        let source = Source::from_text("octroi.toml", text).map_err(|mistakes| mistakes.to_string())?;
        Settings::read(&source).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (line, told) in [
            ("listen = [\"0.0.0.0:783\"]", "octroi.toml:2: spamd.listen: an address that is not loopback"),
            ("listen = [\"127.0.0.1:10024\"]", "octroi.toml:2: spamd.listen: is an address of contentd.listen"),
            ("listen = [\"127.0.0.1:783\"]", "octroi.toml:2: spamd.listen: needs spam.rules"),
            ("allow = [\"localhost\"]", "octroi.toml:2: spamd.allow: \"localhost\" is not"),
            ("socket_mode = \"0999\"", "octroi.toml:2: spamd.socket_mode: "),
            ("max_requests = 0", "octroi.toml:2: spamd.max_requests: "),
            ("max_size = \"0B\"", "octroi.toml:2: spamd.max_size: "),
            ("request_timeout = \"0s\"", "octroi.toml:2: spamd.request_timeout: "),
            ("colour = 1", "octroi.toml:2: spamd.colour: "),
        ] {
            let mistakes = read(&format!("[spamd]\n{line}\n")).unwrap_err();
            assert!(mistakes.starts_with(told), "{line}: {mistakes}");
        }
    }

    #[test]
    fn an_open_address_with_its_networks_is_fine() {
        let settings =
            read("[spam]\nrules = [\"/usr\"]\n[spamd]\nlisten = [\"0.0.0.0:783\"]\nallow = [\"192.0.2.0/24\"]\n")
                .unwrap();
        assert_eq!(settings.spamd.networks().len(), 1);
        assert_eq!(settings.spamd.socket_options().mode, Some(0o660));
    }
}
