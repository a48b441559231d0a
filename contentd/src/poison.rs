// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[poison]`: what becomes of a message that has ended the daemon, or used up its time, again and again.

use serde::{Deserialize, Serialize};

/// Section `[poison]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoisonSettings {
    /// So many times: it is not inspected again. 0: it is inspected whatever happens.
    pub after: usize,
    /// What becomes of it then.
    pub action: PoisonAction,
}

impl Default for PoisonSettings {
    fn default() -> PoisonSettings {
        PoisonSettings { after: 2, action: PoisonAction::Quarantine }
    }
}

/// What becomes of such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoisonAction {
    /// It is accepted and goes into the quarantine.
    Quarantine,
    /// It is refused for good.
    Reject,
    /// It is refused for now, until its sender gives up.
    Tempfail,
}

impl PoisonAction {
    /// The word of the destiny.
    pub fn word(self) -> &'static str {
        match self {
            PoisonAction::Quarantine => "quarantine",
            PoisonAction::Reject => "reject",
            PoisonAction::Tempfail => "tempfail",
        }
    }
}
