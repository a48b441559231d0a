// SPDX-License-Identifier: GPL-3.0-or-later
//! What the client and the message are told: to come again, or the header of the first pass.

use crate::around::Around;
use crate::config::{GreylistAction, GreylistMode};
use crate::course::Course;
use crate::store::greylist::Sighting;
use crate::template::Values;
use crate::verdict::{Finding, Reason, Verdict};

/// What follows from what the store knows.
pub(super) fn finding(around: Around<'_>, course: &mut Course, sighting: Sighting) -> Finding {
    match sighting {
        Sighting::Passed => Finding::pass(Reason::GreylistPassed),
        Sighting::PassedNow { waited } => passed_now(around, course, waited),
        Sighting::New { left } => waits(around, course, left, Reason::GreylistNew),
        Sighting::Early { left } => waits(around, course, left, Reason::GreylistEarly),
    }
}

fn learns(around: Around<'_>) -> bool {
    around.policy.settings.greylist.mode == GreylistMode::Learn
}

/// It must come again; in learn mode that is only written down.
pub(super) fn waits(around: Around<'_>, course: &mut Course, left: i64, reason: Reason) -> Finding {
    if learns(around) {
        if around.policy.header.is_some() {
            course.headers.push(format!("{}: would_defer by {}", around.policy.header_name, around.host));
        }
        return Finding::pass(Reason::WouldDefer);
    }
    let text = around.policy.text.fill(values(&around, left));
    let verdict = match around.policy.settings.greylist.action {
        GreylistAction::DeferIfPermit => Verdict::DeferIfPermit(text),
        GreylistAction::Defer => Verdict::Defer(text),
    };
    Finding { verdict, ..Finding::pass(reason) }
}

/// The first pass. In learn mode nothing was delayed, and no header says that it was.
fn passed_now(around: Around<'_>, course: &mut Course, waited: i64) -> Finding {
    if let Some(header) = around.policy.header.as_ref().filter(|_| !learns(around)) {
        course.headers.push(header.fill(values(&around, waited)));
    }
    Finding::pass(Reason::GreylistPassedNow)
}

/// Milliseconds as the seconds of a text, rounded up: who comes again after them is not early.
fn values<'a>(around: &'a Around<'_>, milliseconds: i64) -> Values<'a> {
    let seconds = u64::try_from(milliseconds).unwrap_or_default().div_ceil(1000);
    Values { seconds, host: around.host, id: around.id.as_str() }
}
