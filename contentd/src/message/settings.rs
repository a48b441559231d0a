// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[mime]`: how much of the structure of a message is looked at. What becomes of a message that goes beyond is
//! `destiny.unchecked`.

use super::Limits;
use common::units::Size;
use serde::{Deserialize, Serialize};

/// Section `[mime]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MimeSettings {
    /// Levels of multiparts and attached messages.
    pub max_depth: usize,
    /// Parts, those that hold others among them.
    pub max_parts: usize,
    /// Largest part, decoded.
    pub max_part: Size,
    /// Bytes of one header section.
    pub max_header: Size,
    /// Fields of one header section.
    pub max_fields: usize,
    /// Parameters of one field.
    pub max_parameters: usize,
    /// Readings beside the likeliest, of all header sections and multiparts together.
    pub max_readings: usize,
}

impl Default for MimeSettings {
    fn default() -> MimeSettings {
        let limits = Limits::default();
        MimeSettings {
            max_depth: limits.depth,
            max_parts: limits.parts,
            max_part: Size(limits.part_bytes),
            max_header: Size(limits.header_bytes as u64),
            max_fields: limits.header_fields,
            max_parameters: limits.parameters,
            max_readings: limits.readings,
        }
    }
}

impl MimeSettings {
    /// The limits of the walk.
    pub fn limits(&self) -> Limits {
        Limits {
            depth: self.max_depth,
            parts: self.max_parts,
            header_bytes: usize::try_from(self.max_header.0).unwrap_or(usize::MAX),
            header_fields: self.max_fields,
            parameters: self.max_parameters,
            readings: self.max_readings,
            part_bytes: self.max_part.0,
            ..Limits::default()
        }
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let counts = [
            ("max_parts", self.max_parts, 1_000_000),
            ("max_depth", self.max_depth, 1000),
            ("max_fields", self.max_fields, 1_000_000),
            ("max_parameters", self.max_parameters, 10_000),
            ("max_readings", self.max_readings, 1000),
        ];
        let outside = counts.into_iter().filter(|(_, value, most)| *value == 0 || value > most);
        let mut wrong: Vec<_> = outside.map(|(key, _, most)| (key, format!("must be 1 to {most}"))).collect();
        for (key, size) in [("max_part", self.max_part), ("max_header", self.max_header)] {
            if size.0 < 1000 {
                wrong.push((key, "must be at least 1 kB".to_owned()));
            }
        }
        wrong
    }
}
