// SPDX-License-Identifier: GPL-3.0-or-later
//! The URIs of a message, found in text and HTML, in all the forms that rules see.

use crate::context::Context;

/// Directives about URIs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {}

impl Settings {
    pub(crate) fn set(&mut self, _key: &str, _value: &str) -> Option<Result<(), String>> {
        None
    }
}

/// The URIs of one message.
#[derive(Debug, Default)]
pub(crate) struct Uris {
    /// What uri rules read.
    pub(crate) list: Vec<Vec<u8>>,
}

impl Uris {
    pub(crate) fn new(_context: &Context<'_>) -> Uris {
        Uris::default()
    }
}
