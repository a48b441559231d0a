// SPDX-License-Identifier: GPL-3.0-or-later
//! Addresses of services: where a daemon listens and which scanner, database or next hop it calls.
//! Not mail addresses; those are in `mail`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `host:port`, `[IPv6]:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A TCP port of a host, given by name or by IP address (without brackets).
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port number; 0 lets the system choose when listening.
        port: u16,
    },
    /// A UNIX-domain stream socket.
    Unix(PathBuf),
}

impl Address {
    /// A TCP address.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// True when nothing outside this machine can reach it: a loopback IP address, `localhost` or a UNIX socket.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(format!("{text:?}: a UNIX socket needs an absolute path, \"unix:/run/name.sock\"")),
            };
        }
        let wrong = || format!("{text:?} is not an address; write \"host:port\", \"[IPv6]:port\" or \"unix:/path\"");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                inner.strip_suffix(']').filter(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()).ok_or_else(wrong)?
            }
            None => host,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if host.is_empty() || !(host.bytes().all(plain) || host.parse::<IpAddr>().is_ok()) {
            return Err(wrong());
        }
        Ok(Self::tcp(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for text in ["127.0.0.1:10023", "[::1]:25", "mx.example.org:10025", "unix:/run/octroi/policy.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10023",
            "127.0.0.1",
            "127.0.0.1:port",
            "::1:25:",
            ":25",
            "[x]:25",
            "unix:relative",
            "a b:1",
            "h:70000",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (text, loopback) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("unix:/s", true),
            ("localhost:1", true),
            ("0.0.0.0:1", false),
            ("192.0.2.1:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
