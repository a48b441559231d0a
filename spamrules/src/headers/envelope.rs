// SPDX-License-Identifier: GPL-3.0-or-later
//! The sender of the envelope, as far as the message itself tells: what servers left in their `Received` field or in a field for it.
//!
//! Which field can be believed depends on where it stands: one below a `Received` field was written before the last hop, whose
//! envelope may have had another sender. The field that the administrator names is always believed.

use crate::context::Context;
use crate::message::Headers;

/// The sender; empty for a bounce where a server said so, `None` when nothing can be believed.
pub(super) fn sender(context: &Context<'_>) -> Option<Vec<u8>> {
    context.memo(|context| Sender(find(context))).0.clone()
}

struct Sender(Option<Vec<u8>>);

fn find(context: &Context<'_>) -> Option<Vec<u8>> {
    if let Some(field) = &context.settings.relays.sender_field {
        return address(context, field).filter(|a| is_sender(a));
    }
    let relays = context.relays();
    if let Some(relay) = relays.untrusted.first().or_else(|| relays.trusted.last())
        && let Some(sender) = &relay.sender
        && is_sender(sender.as_bytes())
    {
        return Some(sender.clone().into_bytes());
    }
    let headers = context.message.headers();
    if fetchmail_guessed(context, headers) {
        return None;
    }
    if let Some(address) = address(context, "X-Envelope-From") {
        return (!below_received(headers, "X-Envelope-From")).then_some(address);
    }
    ["Envelope-Sender", "Return-Path"]
        .into_iter()
        .find_map(|field| address(context, field).filter(|_| !below_received(headers, field)))
}

fn is_sender(address: &[u8]) -> bool {
    address.is_empty() || address.iter().position(|b| *b == b'@').is_some_and(|at| at > 0)
}

fn address(context: &Context<'_>, field: &str) -> Option<Vec<u8>> {
    let field = context.message.headers().first(field)?;
    super::address::parse(&field.raw).into_iter().find_map(|mailbox| mailbox.address)
}

/// Mailing lists leave the original sender in `X-Sender`; fetchmail takes it for the sender of its own delivery.
fn fetchmail_guessed(context: &Context<'_>, headers: &Headers) -> bool {
    address(context, "X-Sender").is_some_and(|a| a.contains(&b'@'))
        && headers.all("Received").any(|field| memchr::memmem::find(field.decoded(), b"(fetchmail").is_some())
}

/// Whether a field of that name stands below a `Received` field.
fn below_received(headers: &Headers, name: &str) -> bool {
    headers
        .iter()
        .skip_while(|field| !field.name.eq_ignore_ascii_case(b"Received"))
        .any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
}
