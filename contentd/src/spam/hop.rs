// SPDX-License-Identifier: GPL-3.0-or-later
//! The header lines that Postfix will write and rules expect: before the queue, the client's hop is not in the header yet. Pure.
//!
//! Rules on relays take the client from the topmost `Received` field, and the sender of the envelope from `Return-Path`. So both are put before
//! the copy of the message that the rules see, in Postfix's form (cleanup(8), smtpd.c), as amavis does. The message itself
//! keeps its bytes. A stored message without a known client is read as it is.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::envelope::{Client, Envelope};

/// Longest text of a client that is taken over.
const MAX_WORD: usize = 255;

/// The lines to be put before a message; empty when nothing is known about its hop. `hostname` is ours.
pub fn lines(envelope: &Envelope, hostname: &str, now: Timestamp, newline: &str) -> Vec<u8> {
    let client = envelope.client.ip();
    let mut text = String::new();
    if client.is_some() || !envelope.sender.is_null() {
        text += &format!("Return-Path: <{}>{newline}", safe(&envelope.sender.address));
    }
    if let Some(ip) = client {
        text += &received(envelope, ip, hostname, now, newline);
    }
    text.into_bytes()
}

/// How lines of this message end.
pub fn newline(message: &[u8]) -> &'static str {
    match memchr::memchr(b'\n', message) {
        Some(at) if at > 0 && message.get(at - 1) == Some(&b'\r') => "\r\n",
        Some(_) => "\n",
        None => "\r\n",
    }
}

fn received(envelope: &Envelope, ip: IpAddr, hostname: &str, now: Timestamp, newline: &str) -> String {
    let Client { name, helo, proto, ident, .. } = &envelope.client;
    let name = name.as_deref().map_or_else(|| "unknown".to_owned(), word);
    let helo = helo.as_deref().map_or_else(|| name.clone(), word);
    let address = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPv6:{ip}"),
    };
    let proto = proto.as_deref().map_or_else(|| "ESMTP".to_owned(), word);
    let id = ident.as_deref().map_or_else(|| envelope.id.to_string(), word);
    // With several recipients Postfix names none.
    let recipient = match envelope.recipients.as_slice() {
        [only] => format!("{newline}\tfor <{}>", safe(&only.address)),
        _ => String::new(),
    };
    let date = rfc2822::to_string(&now.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default();
    format!(
        "Received: from {helo} ({name} [{address}]){newline}\tby {hostname} (Postfix) with {proto} id {id}{recipient};{newline}\t{date}{newline}"
    )
}

/// A text that cannot end its line or look like more than one word.
fn word(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_graphic() && !"()[]<>;,".contains(c) { c } else { '?' };
    let mut word: String = text.chars().map(safe).take(MAX_WORD).collect();
    // A HELO may be an address literal.
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))
        && inner.strip_prefix("IPv6:").unwrap_or(inner).parse::<IpAddr>().is_ok()
    {
        word = text.to_owned();
    }
    if word.is_empty() { "unknown".to_owned() } else { word }
}

/// An address that cannot end its line or its brackets.
fn safe(address: &str) -> String {
    address.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).take(2 * MAX_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{MessageId, Path};
    use crate::smtp::xforward::Attribute;
    use proptest::prelude::*;

    fn envelope(sender: &str, client: &[(Attribute, &str)]) -> Envelope {
        let mut facts = Client::default();
        client.iter().for_each(|(attribute, value)| facts.set(*attribute, value.as_bytes()));
        Envelope::new(MessageId::generate(), Path::from_address(sender), facts)
    }

    fn text(envelope: &Envelope) -> String {
        String::from_utf8(lines(envelope, "mx.test", Timestamp::UNIX_EPOCH, "\n")).unwrap()
    }

    #[test]
    fn it_looks_as_postfix_writes_it() {
        use Attribute::{Addr, Helo, Ident, Name, Proto};
        let client = [(Addr, "192.0.2.1"), (Helo, "helo.test"), (Name, "name.test"), (Ident, "4F2"), (Proto, "ESMTP")];
        let mut known = envelope("a@sender.test", &client);
        known.recipients.push(Path::from_address("b@here.test"));
        let expected = "Return-Path: <a@sender.test>\nReceived: from helo.test (name.test [192.0.2.1])\n\tby mx.test (Postfix) with ESMTP id 4F2\n\tfor <b@here.test>;\n\tThu, 1 Jan 1970 00:00:00 +0000\n";
        assert_eq!(text(&known), expected);
        known.recipients.push(Path::from_address("c@here.test"));
        assert!(text(&known).contains("id 4F2;\n"));
        let nameless = text(&envelope("", &[(Addr, "IPV6:2001:db8::1"), (Helo, "[192.0.2.9]")]));
        assert!(nameless.starts_with("Return-Path: <>\nReceived: from [192.0.2.9] (unknown [IPv6:2001:db8::1])\n"));
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        assert_eq!(text(&envelope("", &[])), "");
        assert_eq!(text(&envelope("a@b.test", &[])), "Return-Path: <a@b.test>\n");
        assert_eq!(
            (newline(b"a\r\nb\n"), newline(b"a\nb\r\n"), newline(b"\n"), newline(b"")),
            ("\r\n", "\n", "\n", "\r\n")
        );
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_lines(helo in ".{0,300}", name in ".{0,300}", sender in ".{0,600}") {
            let mut envelope = envelope(&sender, &[(Attribute::Addr, "192.0.2.1")]);
            (envelope.client.helo, envelope.client.name) = (Some(helo), Some(name));
            let text = text(&envelope);
            prop_assert_eq!(text.lines().count(), 4);
            prop_assert!(text.bytes().all(|byte| byte != b'\r' && byte != 0));
        }
    }
}
