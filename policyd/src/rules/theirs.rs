// SPDX-License-Identifier: GPL-3.0-or-later
//! The answer of another policy server (access(5), SMTPD_POLICY_README) as ours.
//!
//! Pure. What we never answer ourselves we do not pass on either: `OK` is "go on" here, because later restrictions and checks still count,
//! and the orders that Postfix does not carry out behind a proxy filter are an answer that cannot be followed.

use std::borrow::Cow;

use crate::template::{header_mistake, reply_mistake_of};
use crate::verdict::Verdict;

/// Longest text taken over, in bytes.
const MAX_TEXT: usize = 500;

/// What another server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Theirs {
    /// The mail may go on.
    GoesOn,
    /// It may go on with this header line.
    Header(String),
    /// It is refused.
    Refuses(Verdict),
}

impl Theirs {
    /// Reads an action; the error says why it cannot be followed.
    pub fn read(action: &str) -> Result<Self, String> {
        let action = action.trim();
        let (word, text) = action.split_once(' ').unwrap_or((action, ""));
        let (word, text) = (word.to_ascii_uppercase(), text.trim());
        match word.as_str() {
            "" | "DUNNO" | "OK" | "PERMIT" | "WARN" | "INFO" | "DEFER_IF_REJECT" => Ok(Self::GoesOn),
            "REJECT" => Ok(Self::Refuses(Verdict::Reject(Cow::Owned(reply(text, '5', "5.7.1"))))),
            "DEFER" => Ok(Self::Refuses(Verdict::Defer(reply(text, '4', "4.7.1")))),
            "DEFER_IF_PERMIT" => Ok(Self::Refuses(Verdict::DeferIfPermit(reply(text, '4', "4.7.1")))),
            "PREPEND" => match header_mistake(text) {
                None if !text.is_empty() && text.len() <= MAX_TEXT => Ok(Self::Header(text.to_owned())),
                _ => Err("its header line is none".to_owned()),
            },
            code if code.bytes().all(|byte| byte.is_ascii_digit()) => match (code.len(), code.as_bytes()[0]) {
                (3, b'4') => Ok(Self::Refuses(Verdict::Defer(reply(text, '4', "4.7.1")))),
                (3, b'5') => Ok(Self::Refuses(Verdict::Reject(Cow::Owned(reply(text, '5', "5.7.1"))))),
                // Any other number permits (access(5)).
                _ => Ok(Self::GoesOn),
            },
            word => Err(format!("{:?} is not passed on", word.chars().take(40).collect::<String>())),
        }
    }

    /// The class in which answers are compared: what becomes of the mail now.
    pub fn class(&self) -> &'static str {
        match self {
            Self::GoesOn | Self::Header(_) => "goes_on",
            Self::Refuses(verdict) => class(verdict),
        }
    }
}

/// The same of a verdict of ours.
pub fn class(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass | Verdict::PassWithHeader(_) | Verdict::PassWithOrder(_) => "goes_on",
        Verdict::Reject(_) | Verdict::RejectAs(_) => "reject",
        Verdict::Defer(_) | Verdict::DeferIfPermit(_) => "defer",
    }
}

/// A reply text that we may give: printable, with a code of its class.
fn reply(text: &str, class: char, code: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let text: String = text.chars().take(MAX_TEXT).map(printable).collect();
    match reply_mistake_of(&text, class) {
        None => text,
        Some(_) if text.is_empty() => format!("{code} Access denied"),
        Some(_) => format!("{code} {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_become_ours() {
        let reject = |text: &'static str| Ok(Theirs::Refuses(Verdict::Reject(text.into())));
        for (action, ours) in [
            ("DUNNO", Ok(Theirs::GoesOn)),
            ("ok", Ok(Theirs::GoesOn)),
            ("", Ok(Theirs::GoesOn)),
            ("250 fine", Ok(Theirs::GoesOn)),
            ("REJECT", reject("5.7.1 Access denied")),
            ("reject 5.7.23 no", reject("5.7.23 no")),
            ("554 5.7.1 no", reject("5.7.1 no")),
            ("550 no\u{7}", reject("5.7.1 no?")),
            ("451 later", Ok(Theirs::Refuses(Verdict::Defer("4.7.1 later".into())))),
            ("DEFER_IF_PERMIT 4.2.0 wait", Ok(Theirs::Refuses(Verdict::DeferIfPermit("4.2.0 wait".into())))),
            ("PREPEND X-A: b", Ok(Theirs::Header("X-A: b".into()))),
            ("PREPEND nonsense", Err("its header line is none".into())),
            ("HOLD", Err("\"HOLD\" is not passed on".into())),
        ] {
            assert_eq!(Theirs::read(action), ours, "{action}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(action in "(REJECT|DEFER|PREPEND|[45][0-9]{2})? ?\\PC{0,40}") {
            if let Ok(Theirs::Refuses(verdict)) = Theirs::read(&action) {
                let mut out = String::new();
                verdict.action(&mut out);
                prop_assert!(out.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{:?}", out);
            }
        }
    }
}
