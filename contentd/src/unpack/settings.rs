// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[unpack]`: how much of archives is opened. What becomes of a message that is not looked at wholly is
//! `destiny.unchecked`.

use crate::budget::Limits;
use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

/// Address space that a helper needs for itself.
const HELPER: u64 = 100_000_000;

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
    /// Whether words of the message are tried as passwords of encrypted archives.
    pub passwords: bool,
    /// Words that are tried besides.
    pub common_passwords: Vec<String>,
    /// Processes that take apart what the daemon does not; 0: one for each processor.
    pub helpers: usize,
    /// Address space of each.
    pub helper_memory: Size,
    /// Files after which one is replaced by a fresh one.
    pub helper_jobs: u64,
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
            passwords: true,
            common_passwords: ["infected", "virus", "malware"].map(str::to_owned).into(),
            helpers: 0,
            helper_memory: Size(600_000_000),
            helper_jobs: 1000,
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
        add("common_passwords", self.common_passwords.len() > 30, "must be at most 30 words: each costs time");
        add("helpers", self.helpers > 1000, "must be at most 1000");
        let least = self.memory.0.saturating_mul(2).saturating_add(self.max_member.0.saturating_mul(2));
        let too_small = self.helper_memory.0 < least.max(HELPER);
        let message =
            format!("must be at least {}: twice unpack.memory and twice unpack.max_member", Size(least.max(HELPER)));
        add("helper_memory", too_small, &message);
        add("helper_jobs", self.helper_jobs == 0, "must be at least 1");
        wrong
    }
}
