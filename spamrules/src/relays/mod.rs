// SPDX-License-Identifier: GPL-3.0-or-later
//! The relays that a message came through, read from its `Received:` lines.

use crate::context::Context;

/// Directives about networks and relays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {}

impl Settings {
    pub(crate) fn set(&mut self, _key: &str, _value: &str) -> Option<Result<(), String>> {
        None
    }
}

/// The relays of one message.
#[derive(Debug, Default)]
pub(crate) struct Relays {}

impl Relays {
    pub(crate) fn new(_context: &Context<'_>) -> Relays {
        Relays::default()
    }
}
