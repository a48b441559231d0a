// SPDX-License-Identifier: GPL-3.0-or-later
//! Everybody a message claims to be from or to, for lists of senders and recipients: collected from all fields in which mail systems
//! write them.

use std::rc::Rc;

use super::list;
use crate::context::Context;
use crate::domains;
use crate::message::is_space;

struct Senders(Rc<[String]>);
struct Recipients(Rc<[String]>);

/// All addresses of senders, each once. A resent message is from whoever sent it again.
pub(crate) fn senders(context: &Context<'_>) -> Rc<[String]> {
    context
        .memo(|context| {
            let resent = list(context, "Resent-From:first:addr");
            if !resent.is_empty() {
                return Senders(once(resent));
            }
            let fields = [
                "From:addr",
                "Envelope-Sender:addr",
                "Resent-Sender:addr",
                "X-Envelope-From:addr",
                "EnvelopeFrom:addr",
            ];
            let all = fields.iter().flat_map(|field| list(context, field)).filter(|a| !a.is_empty());
            Senders(once(all.map(|address| one_dot(&address)).collect()))
        })
        .0
        .clone()
}

/// All addresses of recipients, each once, those of the envelope first where a `Received` field tells them.
pub(crate) fn recipients(context: &Context<'_>) -> Rc<[String]> {
    context
        .memo(|context| {
            let mut all = list(context, "Resent-To:first:addr");
            all.extend(list(context, "Resent-Cc:first:addr"));
            if all.is_empty() {
                all = context
                    .message
                    .headers()
                    .all("Received")
                    .take(3)
                    .filter_map(|field| recipient(field.decoded()))
                    .collect();
                const FIELDS: [&str; 12] = [
                    "To:addr",
                    "Apparently-To:addr",
                    "Delivered-To:addr",
                    "Envelope-Recipients:addr",
                    "Apparently-Resent-To:addr",
                    "X-Envelope-To:addr",
                    "Envelope-To:addr",
                    "X-Delivered-To:addr",
                    "X-Original-To:addr",
                    "X-Rcpt-To:addr",
                    "X-Real-To:addr",
                    "Cc:addr",
                ];
                all.extend(FIELDS.iter().flat_map(|field| list(context, field)));
            }
            Recipients(once(all))
        })
        .0
        .clone()
}

fn once(addresses: Vec<String>) -> Rc<[String]> {
    let mut seen = std::collections::HashSet::new();
    addresses.into_iter().filter(|address| seen.insert(address.clone())).collect::<Vec<_>>().into()
}

/// `a..b@example.org` is `a.b@example.org`.
fn one_dot(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for letter in address.chars() {
        if letter != '.' || !out.ends_with('.') {
            out.push(letter);
        }
    }
    out
}

/// The recipient that a `Received` field tells: ` for <a@example.org>;`.
fn recipient(received: &[u8]) -> Option<String> {
    const SIGN: &[u8] = b" for ";
    memchr::memmem::find_iter(received, SIGN).find_map(|at| {
        let rest = received.get(at + SIGN.len()..)?;
        let rest = rest.strip_prefix(b"<").unwrap_or(rest);
        let word = &rest[..rest.iter().position(|b| is_space(*b)).unwrap_or(rest.len())];
        let sign = word.iter().rposition(|b| *b == b'@').filter(|sign| *sign > 0)?;
        let end = sign + 1 + word.get(sign + 1..)?.iter().position(|b| *b == b';')?;
        let end = if end > sign + 2 && word[end - 1] == b'>' { end - 1 } else { end };
        let host = std::str::from_utf8(word.get(sign + 1..end)?).ok()?;
        domains::is_well_formed(host).then(|| String::from_utf8_lossy(&word[..end]).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_of_received_fields() {
        let line = b"from a by b (Postfix) with ESMTP id 1 for <you@example.org>; Tue, 1 Jan 2002 00:00:00 +0000";
        assert_eq!(recipient(line).unwrap(), "you@example.org");
        assert_eq!(recipient(b"by b for you@example.org; x").unwrap(), "you@example.org");
        assert_eq!(recipient(b"by b for you@localhost; x"), None);
        assert_eq!(recipient(b"by b for <you@example.org> x"), None);
    }

    #[test]
    fn dots() {
        assert_eq!(one_dot("a...b@example..org"), "a.b@example.org");
    }
}
