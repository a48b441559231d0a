// SPDX-License-Identifier: GPL-3.0-or-later
//! The rule language of SpamAssassin, evaluated natively and without side effects.
//!
//! The caller gives the texts of the rule files, the bytes of a message, the answers to what only a network or a database knows,
//! and a budget; it gets the rules that hit, with their scores. There is no I/O and no clock in here.

mod answers;
mod autolearn;
mod check;
mod conf;
mod context;
mod digest;
mod domains;
mod eval;
mod extension;
mod headers;
mod learnt;
mod lint;
mod listed;
mod markup;
mod message;
mod meta;
mod plan;
mod queries;
mod range;
mod regexes;
mod relays;
mod rule;
mod ruleset;
mod scores;
mod settings;
mod text;
mod uri;
mod view;

pub use answers::{
    Adsp, Answers, Arc, Dcc, Dmarc, NoAnswers, Razor, Record, Signature, SpfIdentity, SpfQuestion, SpfResult,
};
pub use autolearn::Autolearn;
pub use check::{Bound, Budget, Checked, Clock, Hit, Reason, Report, SetAside, Waiting};
pub use conf::Options;
pub use context::Environment;
pub use extension::Extension;
pub use lint::{Remark, Severity};
pub use listed::{Listed, State};
pub use markup::without_markup;
pub use message::Message;
pub use ruleset::Ruleset;
pub use view::{PartView, View};

/// The example of the README, compiled and run with the other tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
