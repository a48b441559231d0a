// SPDX-License-Identifier: GPL-3.0-or-later
//! The sub-commands of `policyd` that print for a person. Nothing here decides.

pub(crate) mod check;
pub(crate) mod test;

use std::io::{self, Write};

/// Writes to standard output; a reader that has gone away (`| head`) is no error of ours.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
