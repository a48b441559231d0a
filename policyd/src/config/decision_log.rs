// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[decision_log]`: how long every decision is kept in the store.

use common::units::Period;
use serde::{Deserialize, Serialize};

/// Section `[decision_log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionLogSettings {
    /// How long decisions are kept; 0s: none are.
    pub keep: Period,
}

impl Default for DecisionLogSettings {
    fn default() -> Self {
        Self { keep: Period::seconds(0) }
    }
}
