// SPDX-License-Identifier: GPL-3.0-or-later
//! Sender Policy Framework, RFC 7208, complete: `check_host()` with all mechanisms, modifiers, macros and limits.
//!
//! It gives a result and the facts behind it and decides nothing. `record` and `macros` are pure; `check` asks the resolver.
//! The caller sets the time limit; every look-up is bounded in number here.

mod check;
mod expand;
mod macros;
mod record;

use std::net::IpAddr;

pub use check::check_host;
pub use expand::{ExpandError, Senders, expand};

/// The seven results (RFC 7208 section 2.6), in the words of RFC 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfResult {
    /// No record, or no domain to ask for.
    None,
    /// The domain says nothing about this client.
    Neutral,
    /// The client is authorised.
    Pass,
    /// The client is not authorised.
    Fail,
    /// The client is probably not authorised.
    Softfail,
    /// DNS gave no answer; a later try may.
    Temperror,
    /// The record cannot be understood or asks for too much.
    Permerror,
}

impl SpfResult {
    /// The word of RFC 8601.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Softfail => "softfail",
            Self::Temperror => "temperror",
            Self::Permerror => "permerror",
        }
    }

    /// The result for a word of RFC 8601.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Neutral, Self::Pass, Self::Fail, Self::Softfail, Self::Temperror, Self::Permerror]
            .into_iter()
            .find(|result| result.word() == word)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Address of the SMTP client.
    pub ip: IpAddr,
    /// What it said in HELO or EHLO.
    pub helo: &'a str,
    /// Envelope sender; empty for the null sender, whose identity is then `postmaster` at HELO (section 2.4).
    pub sender: &'a str,
    /// Name of this host, for the macro `r`.
    pub receiver: &'a str,
    /// Seconds since 1970, for the macro `t`.
    pub now: u64,
}

impl<'a> Query<'a> {
    /// The domain whose policy is asked for: of the sender, or HELO for the null sender.
    pub fn domain(&self) -> &'a str {
        match self.sender.rsplit_once('@') {
            Some((_, domain)) => domain,
            None if self.sender.is_empty() => self.helo,
            // A sender without a domain has no policy.
            None => "",
        }
    }

    /// The local part for macros; `postmaster` where there is none (section 4.3).
    fn local(&self) -> &'a str {
        match self.sender.rsplit_once('@') {
            Some((local, _)) if !local.is_empty() => local,
            _ => "postmaster",
        }
    }
}

/// The answer of [`check_host`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result.
    pub result: SpfResult,
    /// The term that decided, as written in the record; empty when none did.
    pub mechanism: String,
    /// What the domain wants told to the sender of a failed message (section 6.2): from a stranger, printable ASCII.
    pub explanation: Option<String>,
    /// What is wrong with the record, for log and header.
    pub problem: Option<String>,
    /// Look-ups of terms that were made, at most 10.
    pub lookups: u32,
}
