// SPDX-License-Identifier: GPL-3.0-or-later
//! The texts that body and rawbody rules read.

pub(crate) mod charset;

use crate::context::Context;

/// Directives about texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {}

impl Settings {
    pub(crate) fn set(&mut self, _key: &str, _value: &str) -> Option<Result<(), String>> {
        None
    }
}

/// The texts of one message.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// What body rules read, one paragraph each; the subject is the first.
    pub(crate) body: Vec<Vec<u8>>,
    /// What rawbody rules read: chunks of decoded text with its line ends and tags.
    pub(crate) rawbody: Vec<Vec<u8>>,
}

impl Texts {
    pub(crate) fn new(_context: &Context<'_>) -> Texts {
        Texts::default()
    }
}
