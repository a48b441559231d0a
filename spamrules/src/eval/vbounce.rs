// SPDX-License-Identifier: GPL-3.0-or-later
//! Bounces of mail that we really sent: the returned message went through one of our relays (`welcomelist_bounce_relays`).

use super::matching::{has, pattern};
use super::{Argument, Eval};
use crate::context::Context;

const LIST: &str = "welcomelist_bounce_relays";

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "have_any_bounce_relays" => |context, _| u32::from(context.settings.lists.any(LIST)),
        "check_welcomelist_bounce_relays" | "check_whitelist_bounce_relays" => check,
        _ => return None,
    })
}

fn check(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(context.settings.lists.any(LIST) && (in_text(context) || in_returned_header(context)))
}

fn is_ours(context: &Context<'_>, name: &[u8]) -> bool {
    context.settings.lists.holds(LIST, &String::from_utf8_lossy(name))
}

/// Whether a line names one of our relays.
fn names_us(context: &Context<'_>, line: &[u8]) -> bool {
    pattern!(r"\s(\S+\.\S+)\s")
        .captures_iter(line)
        .filter_map(|c| c.get(1))
        .any(|name| is_ours(context, name.as_bytes()))
}

fn in_text(context: &Context<'_>) -> bool {
    context.texts().body.iter().any(|line| has!(r"(?i)^[> ]*Received:", line) && names_us(context, line))
}

/// The header of the returned message, in the body as it came; from its first `Received` field on.
fn in_returned_header(context: &Context<'_>) -> bool {
    /// Longest field with its folding, in bytes.
    const LONGEST: usize = 8192;
    let is_received = |line: &[u8]| has!(r"(?i)^[> ]*Received:", line);
    let mut field: Vec<u8> = Vec::new();
    for line in context.message.raw_body().split(|b| *b == b'\n').skip_while(|line| !is_received(line)) {
        let folded = line.first().is_some_and(u8::is_ascii_whitespace);
        if !folded {
            field.clear();
        }
        if field.len() < LONGEST {
            field.extend_from_slice(line);
        }
        if is_received(&field) && names_us(context, &field) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use crate::answers::NoAnswers;

    #[test]
    fn returned_mail() {
        let bounce = "Subject: returned\n\nyour mail:\n\nReceived: from pc by relay.example.org\n (Postfix) id 1\nSubject: x\n\ny\n";
        let ours = [("welcomelist_bounce_relays", "relay*.example.org")];
        assert_eq!(with(bounce, &ours, &NoAnswers, "check_whitelist_bounce_relays", &[]), 1);
        assert_eq!(with(bounce, &ours, &NoAnswers, "have_any_bounce_relays", &[]), 1);
        let others = [("welcomelist_bounce_relays", "x.example.org")];
        assert_eq!(with(bounce, &others, &NoAnswers, "check_welcomelist_bounce_relays", &[]), 0);
        assert_eq!(with(bounce, &[], &NoAnswers, "have_any_bounce_relays", &[]), 0);
    }
}
