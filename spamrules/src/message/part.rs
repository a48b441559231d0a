// SPDX-License-Identifier: GPL-3.0-or-later
//! One part of a message: its header, its type, and its content decoded when it is first asked for.

use super::Headers;

/// A part of a message.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) headers: Headers,
}
