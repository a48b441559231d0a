// SPDX-License-Identifier: GPL-3.0-or-later
//! What a message is made of and how its header section is changed (RFC 5322, RFC 2045-2049, RFC 2231).
//!
//! Everything here is pure: bytes in, values out. No module calls itself: nesting is a work list with
//! limits, so that no message can exhaust the stack. Nothing here decides what happens to a message.

pub mod codec;
pub mod edit;
pub mod header;
pub mod kind;
mod multipart;
mod nesting;
pub mod own;
pub mod parameter;
pub mod parse;
pub mod parts;
pub mod rename;
pub mod settings;
pub mod syntax;
pub(crate) mod words;

/// How much of one message is looked at. What does not fit becomes a finding, and the message is "unchecked".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of multiparts, nested messages and encodings.
    pub depth: usize,
    /// MIME entities (containers and leaves together).
    pub parts: usize,
    /// Bytes of one header section.
    pub header_bytes: usize,
    /// Fields of one header section.
    pub header_fields: usize,
    /// Parameters of one structured field.
    pub parameters: usize,
    /// Readings beside the first one, of all header sections and multiparts together.
    pub readings: usize,
    /// Largest part, in decoded bytes.
    pub part_bytes: u64,
    /// Decoded bytes of all readings of all parts, as a multiple of the size of the message.
    pub expansion: u64,
    /// Whether parts get their SHA-256: it costs as much as all other work on a large part.
    pub sha256: bool,
    /// Whether text parts are kept, too, for a scanner that reads no mail.
    pub texts: bool,
}

/// Decoded bytes that even the largest message may have: they are in memory beside it.
const MOST_DECODED: u64 = 100_000_000;

impl Limits {
    /// Decoded bytes that all readings of a message of this size may have; several readings of a small one always fit.
    pub fn readings(&self, size: u64) -> u64 {
        size.saturating_mul(self.expansion).clamp(1 << 20, MOST_DECODED)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            depth: 50,
            parts: 1500,
            header_bytes: 1 << 20,
            header_fields: 5000,
            parameters: 200,
            readings: 20,
            part_bytes: 50_000_000,
            expansion: 4,
            sha256: true,
            texts: false,
        }
    }
}
