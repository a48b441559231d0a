// SPDX-License-Identifier: GPL-3.0-or-later
//! `[[rule]]`: one entry of the administrator's rules. What stands in it is checked by `rules`.

use serde::{Deserialize, Serialize};

/// One rule as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// Its name, in log, metrics and trace.
    pub name: String,
    /// The condition; always, when there is none.
    #[serde(default = "always")]
    pub when: String,
    /// What is done, in this order.
    pub then: Vec<String>,
    /// Nothing is done, only counted and logged.
    #[serde(default)]
    pub shadow: bool,
}

fn always() -> String {
    "true".to_owned()
}
