// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[policyd]`: where Postfix asks, how long things may take, and what is answered when the store cannot tell.

use std::path::PathBuf;
use std::time::Duration;

use common::address::Address;
use common::config::{Mistakes, Source};
use common::net::SocketOptions;
use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

use super::ShieldSettings;

/// Postfix closes idle connections to a policy server after this time (`smtpd_policy_service_max_idle`); one that we
/// close first costs its next request a second and a try.
const POSTFIX_MAX_IDLE: Duration = Duration::from_secs(300);

/// What is answered when the store cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreError {
    /// Greylisting goes on from what this host remembers.
    Local,
    /// The mail goes on.
    Dunno,
    /// The client is told to come again.
    Defer,
}

impl OnStoreError {
    /// The word of the option.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Dunno => "dunno",
            Self::Defer => "defer",
        }
    }
}

/// Who carries out orders of rules (hold, redirect ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrdersBy {
    /// contentd, which hears of them by a header line.
    Header,
    /// Postfix itself: only where no contentd is behind it.
    Postfix,
}

/// Section `[policyd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicydSettings {
    /// Where Postfix asks: `host:port` or `unix:/path`.
    pub listen: Vec<Address>,
    /// Permission bits of UNIX sockets, octal.
    pub socket_mode: String,
    /// Group of UNIX sockets, by name or number; empty leaves the group of the process.
    pub socket_group: String,
    /// Address of `/health`, `/ready` and `/metrics`; empty for none.
    pub http: String,
    /// Connections at once; Postfix needs one per smtpd process and distinct `check_policy_service`.
    pub max_connections: usize,
    /// How long a connection may stay without a request.
    pub idle_timeout: Period,
    /// How long the rest of a request may take once it has begun, and how long Postfix may take to read a reply.
    pub request_timeout: Period,
    /// How long one decision may take before the fallback is answered.
    pub budget: Period,
    /// How long connections may go on when the daemon is told to end.
    pub drain: Period,
    /// The fallback when the store is down or too slow.
    pub on_store_error: OnStoreError,
    /// File for what is decided without the store; empty for `policyd.journal` in $STATE_DIRECTORY, else in /var/lib/octroi.
    pub journal: PathBuf,
    /// How large it may grow; 0B for no journal.
    pub journal_size: Size,
    /// Who carries out orders.
    pub orders: OrdersBy,
    /// The shield of this host against clients that ask far too often.
    pub shield: ShieldSettings,
}

impl Default for PolicydSettings {
    fn default() -> Self {
        Self {
            listen: vec![Address::tcp("127.0.0.1", 10023)],
            socket_mode: "0660".to_owned(),
            socket_group: String::new(),
            http: "127.0.0.1:9123".to_owned(),
            max_connections: 2000,
            idle_timeout: Period::seconds(1100),
            request_timeout: Period::seconds(60),
            budget: Period::seconds(1),
            drain: Period::seconds(10),
            on_store_error: OnStoreError::Local,
            journal: PathBuf::new(),
            journal_size: Size(64_000_000),
            orders: OrdersBy::Header,
            shield: ShieldSettings::default(),
        }
    }
}

impl PolicydSettings {
    /// Mode and group of UNIX sockets.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            mode: u32::from_str_radix(&self.socket_mode, 8).ok(),
            group: Some(self.socket_group.clone()).filter(|group| !group.is_empty()),
        }
    }

    /// The file of the journal; none when it is off.
    pub fn journal_path(&self) -> Option<PathBuf> {
        let configured = match self.journal.as_os_str().is_empty() {
            true => common::store::state_folder().join("policyd.journal"),
            false => self.journal.clone(),
        };
        (self.journal_size.0 > 0).then_some(configured)
    }

    /// Where the health page listens; none when it is off.
    pub fn http_address(&self) -> Option<Address> {
        self.http.parse().ok()
    }

    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("policyd.{key}"), message));
        if self.listen.is_empty() {
            wrong("listen", "needs at least one address".to_owned());
        }
        if !u32::from_str_radix(&self.socket_mode, 8).is_ok_and(|mode| mode <= 0o777) {
            wrong("socket_mode", format!("{:?} is not an octal mode such as \"0660\"", self.socket_mode));
        }
        match self.http.parse() {
            _ if self.http.is_empty() => {}
            Ok(Address::Tcp { .. }) => {}
            Ok(Address::Unix(_)) => wrong("http", "must be \"host:port\", or empty for none".to_owned()),
            Err(error) => wrong("http", error),
        }
        if self.max_connections == 0 {
            wrong("max_connections", "must be at least 1".to_owned());
        }
        if self.idle_timeout.0 <= POSTFIX_MAX_IDLE {
            wrong(
                "idle_timeout",
                format!("{} must be longer than 300s, for which Postfix keeps an idle connection", self.idle_timeout),
            );
        }
        if self.request_timeout.0.is_zero() {
            wrong("request_timeout", "must be longer than 0s".to_owned());
        }
        if self.budget.0.is_zero() || self.budget.0 >= Duration::from_secs(100) {
            wrong(
                "budget",
                format!("{} must be longer than 0s and shorter than the 100s that Postfix waits", self.budget),
            );
        }
    }
}
