// SPDX-License-Identifier: GPL-3.0-or-later
//! What is to be said about rule files: mistakes, rules that cannot run, directives without effect.

use std::fmt;

/// How grave a remark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is accepted and has no effect here.
    Note,
    /// A rule is loaded but will never hit.
    Warning,
    /// A line is wrong; it was skipped.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One remark about the rule files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// How grave it is.
    pub severity: Severity,
    /// The file, by the name under which it was given.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The rule in question, when there is one.
    pub rule: Option<String>,
    /// What is to be said, in words.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}: ", self.file, self.line, self.severity)?;
        if let Some(rule) = &self.rule {
            write!(out, "{rule}: ")?;
        }
        out.write_str(&self.message)
    }
}
