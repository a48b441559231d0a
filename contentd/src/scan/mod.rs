// SPDX-License-Identifier: GPL-3.0-or-later
//! The scanners: what looks into a message for viruses and unwanted files.
//!
//! A scanner answers with an [`crate::findings::Outcome`]; what that means for the message is decided in `verdict`.

pub mod banned;
pub mod clamd;

use crate::verdict::OnFailure;
use serde::{Deserialize, Serialize};

/// Section `[antivirus]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AntivirusSettings {
    /// What a scanner that gives no answer means for the message.
    pub on_failure: OnFailure,
    /// The ClamAV daemon; none is asked when the section is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamd: Option<clamd::ClamdSettings>,
}

impl Default for AntivirusSettings {
    fn default() -> AntivirusSettings {
        AntivirusSettings { on_failure: OnFailure::Tempfail, clamd: None }
    }
}

impl AntivirusSettings {
    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let clamd = self.clamd.iter().flat_map(|clamd| clamd.mistakes());
        clamd.map(|(key, message)| (format!("clamd.{key}"), message)).collect()
    }
}
