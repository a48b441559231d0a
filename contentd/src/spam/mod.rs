// SPDX-License-Identifier: GPL-3.0-or-later
//! SpamAssassin's rules in contentd: which files (`settings`, `folder`), the set in force (`set`, `watch`), what they see of a message (`hop`,
//! `job`), what they ask the network (`notebook`, `lookup`), the stage of the pipeline (`stage`), which of them are switched off (`off`), what is shown of it (`headers`, `explain`), what they have done so far (`account`, `tally`). The rules
//! themselves are the library spamrules; what follows from a score is `verdict`.

pub mod account;
pub mod clock;
pub mod explain;
pub mod folder;
pub mod headers;
pub mod hop;
pub mod job;
pub mod lookup;
pub mod notebook;
mod off;
pub mod set;
pub mod settings;
pub mod stage;
mod tally;
pub mod watch;

/// The name of the stage in findings, log and metrics.
pub const STAGE: &str = "spam";

/// A score as it is shown and compared: thousandths, so that the order of additions does not matter.
pub fn rounded(score: f64) -> f64 {
    (score * 1000.0).round() / 1000.0 + 0.0
}
