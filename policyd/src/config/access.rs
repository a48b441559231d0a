// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[access]`: list files of clients, senders and recipients.

use common::lookup::ListFile;
use common::units::Period;
use serde::{Deserialize, Serialize};

/// Section `[access]`: list files, each read from top to bottom as one list per kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// How often list files are looked at for changes; 0s: only at SIGHUP.
    pub watch: Period,
    /// Clients whose mail no check of ours stops.
    pub client_whitelist: Vec<ListFile>,
    /// Clients that are refused.
    pub client_blacklist: Vec<ListFile>,
    /// Senders whose mail is not greylisted.
    pub sender_whitelist: Vec<ListFile>,
    /// Senders that are refused.
    pub sender_blacklist: Vec<ListFile>,
    /// Recipients whose mail is not greylisted.
    pub recipient_whitelist: Vec<ListFile>,
    /// Recipients that are refused.
    pub recipient_blacklist: Vec<ListFile>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            watch: Period::seconds(10),
            client_whitelist: Vec::new(),
            client_blacklist: Vec::new(),
            sender_whitelist: Vec::new(),
            sender_blacklist: Vec::new(),
            recipient_whitelist: Vec::new(),
            recipient_blacklist: Vec::new(),
        }
    }
}

impl AccessSettings {
    /// The files of all lists.
    pub fn files(&self) -> impl Iterator<Item = &ListFile> {
        let clients = self.client_whitelist.iter().chain(&self.client_blacklist);
        let senders = self.sender_whitelist.iter().chain(&self.sender_blacklist);
        clients.chain(senders).chain(&self.recipient_whitelist).chain(&self.recipient_blacklist)
    }
}
