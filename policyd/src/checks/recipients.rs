// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients: only insiders write to protected ones, and mail for somebody who does not exist is refused before it is taken.
//!
//! Asked at RCPT. Domains that we do not answer for pass untouched, and role accounts are never refused (RFC 5321 section 4.5.1). What
//! becomes of "cannot tell" is said by `recipients.on_unavailable`.

use std::borrow::Cow;

use common::mail;
use tokio::time::Instant;

use super::protected;
use crate::around::Around;
use crate::config::recipients::OnUnavailable;
use crate::course::{Answer, Course};
use crate::recipients::Standing;
use crate::recipients::book::{Book, Found, Recipients};
use crate::request::{PolicyRequest, ProtocolState};
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, Verdict, cannot_tell};

/// What is said to a request.
pub async fn check(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    _course: &mut Course,
) -> Result<Answer, QueueError> {
    if request.state != ProtocolState::Rcpt || request.recipient.is_empty() {
        return Ok(Answer::Nothing);
    }
    if let Some(finding) = protected::refusal(around.policy, request) {
        return Ok(finding.into());
    }
    let (Some(recipients), Some(book)) = (&around.policy.recipients, around.recipients) else {
        return Ok(Answer::Nothing);
    };
    if recipients.domains.find(&request.recipient).is_none() || is_role_account(recipients, &request.recipient) {
        return Ok(Answer::Nothing);
    }
    let Some(forms) = recipients.folding.forms(&request.recipient) else {
        return Ok(unknown(&recipients.settings.text, "it is no address").into());
    };
    let wait = Instant::now() + recipients.settings.wait.0;
    let found = Box::pin(Book::standing(book, recipients, &forms, wait.min(around.deadline))).await;
    Ok(answer(around, recipients, found))
}

fn answer(around: Around<'_>, recipients: &Recipients, found: Found) -> Answer {
    match (found.standing, recipients.settings.on_unavailable) {
        (Standing::Known, _) => Answer::Nothing,
        (Standing::Unknown, _) => unknown(&recipients.settings.text, found.from.word()).into(),
        (Standing::CannotTell, OnUnavailable::Dunno) => Finding::pass(Reason::RecipientUnverified).into(),
        (Standing::CannotTell, OnUnavailable::Defer) => {
            Finding { verdict: cannot_tell(around.id), ..Finding::pass(Reason::RecipientUnverified) }.into()
        }
    }
}

/// 550 as RFC 5321 section 4.2.3 has it; the code is said because Postfix would make REJECT a 554.
fn unknown(text: &str, fact: &str) -> Finding {
    let verdict = Verdict::RejectAs(Cow::Owned(format!("550 {text}")));
    Finding { verdict, ..Finding::pass(Reason::RecipientUnknown) }.because(fact)
}

fn is_role_account(recipients: &Recipients, recipient: &str) -> bool {
    let local = mail::split(recipient).0;
    recipients.settings.role_accounts.iter().any(|account| account.eq_ignore_ascii_case(local))
}
