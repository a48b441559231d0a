// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[unpack]`: how much of archives is opened. What becomes of a message that is not looked at wholly is
//! `destiny.unchecked`.

use crate::budget::Limits;
use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

/// Section `[unpack]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnpackSettings {
    /// Archives within archives.
    pub max_depth: usize,
    /// Parts of the message and members of archives together.
    pub max_objects: usize,
    /// Unpacked bytes as a multiple of the size of the message, between `min_total` and `max_total`.
    pub expansion: u64,
    /// Unpacked bytes that even the smallest message may have.
    pub min_total: Size,
    /// Unpacked bytes that even the largest message may have.
    pub max_total: Size,
    /// Largest single member.
    pub max_member: Size,
    /// Memory of one decoder for its dictionary, and of the archives that wait to be opened.
    pub memory: Size,
    /// Processor time for the parts and archives of one message.
    pub cpu: Period,
}

impl Default for UnpackSettings {
    fn default() -> UnpackSettings {
        let limits = Limits::default();
        UnpackSettings {
            max_depth: limits.depth,
            max_objects: limits.objects,
            expansion: limits.expansion,
            min_total: limits.min_bytes,
            max_total: limits.max_bytes,
            max_member: limits.member_bytes,
            memory: limits.memory,
            cpu: limits.cpu,
        }
    }
}

impl UnpackSettings {
    /// The limits of one message's budget.
    pub fn limits(&self) -> Limits {
        Limits {
            depth: self.max_depth,
            objects: self.max_objects,
            expansion: self.expansion,
            min_bytes: self.min_total,
            max_bytes: self.max_total,
            member_bytes: self.max_member,
            memory: self.memory,
            cpu: self.cpu,
        }
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let mut add = |key, found: bool, message: &str| {
            if found {
                wrong.push((key, message.to_owned()));
            }
        };
        add("max_objects", self.max_objects == 0, "must be at least 1: the message itself is one");
        add("expansion", self.expansion == 0, "must be at least 1");
        add("max_total", self.max_total < self.min_total, "is smaller than unpack.min_total");
        add("max_member", self.max_member.0 == 0, "must not be 0");
        add("max_member", self.max_member > self.max_total, "is larger than unpack.max_total");
        add("memory", self.memory.0 < 1 << 20, "must be at least 1 MiB: no dictionary is smaller");
        add("cpu", self.cpu.0.is_zero(), "must be longer than nothing");
        wrong
    }
}
