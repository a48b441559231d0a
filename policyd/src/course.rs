// SPDX-License-Identifier: GPL-3.0-or-later
//! One request on its way through the checks: what has been found out about it, and what each check leaves to those after it.
//!
//! Pure. Look-ups are done by the checks, at most once a request: who needs a fact first puts it here.

use std::sync::Arc;

use common::address::Address;
use common::units::Period;

use crate::checks::pool::Spf;
use crate::classes::Check;
use crate::orders::Order;
use crate::perimeter::Found;
use crate::verdict::{Finding, PostfixOrder};

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the request does not concern it.
    Nothing,
    /// The mail may go on as far as this check is concerned; those after it may still refuse.
    Pass(Finding),
    /// This decides, and no further check is asked.
    Final(Finding),
}

impl From<Finding> for Answer {
    /// Whoever refuses decides.
    fn from(finding: Finding) -> Self {
        match finding.verdict.goes_on() {
            true => Self::Pass(finding),
            false => Self::Final(finding),
        }
    }
}

/// How a request is greylisted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GreylistOrder {
    /// As `[greylist]` says.
    #[default]
    AsConfigured,
    /// Not at all.
    Skip,
    /// Whatever the mode, unless it is off; who is trusted still is.
    Force {
        /// Instead of the configured delay.
        delay: Option<Period>,
        /// For log and trace.
        why: String,
    },
}

/// What was looked up. None: not asked yet.
#[derive(Debug, Default)]
pub struct Facts {
    /// What SPF says of client and sender; none inside when there is nothing to ask for.
    pub spf: Option<Option<Spf>>,
    /// What the perimeter has looked up, shared by the requests of a message.
    pub perimeter: Option<Arc<Found>>,
}

/// The request's course so far.
#[derive(Debug, Default)]
pub struct Course {
    /// What was looked up.
    pub facts: Facts,
    /// Points for (below zero) and against the client.
    pub score: i32,
    /// How it is to be greylisted.
    pub greylist: GreylistOrder,
    /// Names of limits that it must meet beyond those that everybody meets.
    pub limits: Vec<String>,
    /// Header lines (`Name: value`) for the message, each name once per message.
    pub headers: Vec<String>,
    /// Other policy servers with which the decision is compared.
    pub compare: Vec<Address>,
    /// Names of the rules that matched, with commas between them.
    pub rules: String,
    /// Names of shadow rules that matched, each with what it would have done.
    pub shadow_rules: String,
    /// Names of rules of which could not be told whether they match.
    pub untold_rules: String,
    /// What contentd, or Postfix, is to do with the message.
    pub orders: Vec<Order>,
    /// To which content filter Postfix is to pass the message (`transport:destination`).
    pub filter: Option<String>,
    /// What Postfix is told to do with the message, one order per reply.
    pub postfix_orders: Vec<PostfixOrder>,
    /// Who had something to say that did not decide.
    said: Vec<(Check, Finding)>,
    /// Who asks for a trace gets these lines too.
    notes: Option<Vec<String>>,
    /// And also those about what did not happen.
    tells_all: bool,
}

impl Course {
    /// A course; `traced` when somebody wants to see it.
    pub fn new(traced: bool) -> Self {
        Self { notes: traced.then(Vec::new), ..Self::default() }
    }

    /// The same with lines about what did not happen.
    #[must_use]
    pub fn telling_all(self, tells_all: bool) -> Self {
        Self { tells_all, ..self }
    }

    /// True when the trace tells also what did not happen.
    pub fn tells_all(&self) -> bool {
        self.tells_all
    }

    /// Writes a line of the trace, when somebody wants to see it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(line());
        }
    }

    /// The lines written since they were last taken.
    pub fn take_notes(&mut self) -> Vec<String> {
        self.notes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps what a check said that did not decide.
    pub fn keep(&mut self, check: Check, finding: Finding) {
        self.said.push((check, finding));
    }

    /// What a check said that did not decide.
    pub fn said_by(&self, check: Check) -> Option<&Finding> {
        self.said.iter().find(|(by, _)| *by == check).map(|(_, finding)| finding)
    }

    /// The last that was said, when nothing decided.
    pub fn last_word(&mut self) -> Option<(Check, Finding)> {
        self.said.pop()
    }
}
