// SPDX-License-Identifier: GPL-3.0-or-later
//! What a header rule reads: a field or a pseudo field, whole or a part of it.
//!
//! [`selector`] reads how a rule names it; this file finds the values. Fields themselves are `message::headers`, relays are `relays`.

pub(crate) mod address;
pub(crate) mod date;
mod envelope;
mod people;
mod places;
mod range;
mod selector;

use std::borrow::Cow;

use crate::context::Context;
use crate::message::{Header, decode_words, is_space};

pub(crate) use people::{recipients, senders};
pub(crate) use selector::Selector;
use selector::{Part, Pick, Place, Source};

/// The value of a selector as a rule matches it: several values are one text. `None` when the message has no such field.
pub(crate) fn get<'a>(context: &'a Context<'_>, selector: &Selector) -> Option<Cow<'a, [u8]>> {
    if let Source::Relays(which) = selector.source
        && !selector.is_part()
    {
        return Some(Cow::Borrowed(context.relays().text(which).as_bytes()));
    }
    let values = values(context, selector);
    let separator: &[u8] = if values.first()?.ends_with(b"\n") { b"" } else { b"\n" };
    Some(Cow::Owned(values.join(separator)))
}

/// The values of a selector, each by itself.
pub(crate) fn values(context: &Context<'_>, selector: &Selector) -> Vec<Vec<u8>> {
    let mut values = whole(context, selector);
    match (&selector.source, selector.pick) {
        (Source::All | Source::Range(_), _) => return values,
        (_, Pick::Every) => {}
        (_, Pick::First) => values.truncate(1),
        (_, Pick::Last) => values = values.pop().into_iter().collect(),
    }
    match selector.part {
        Part::Whole => {}
        Part::Address => values = values.iter().flat_map(|v| address::parse(v)).filter_map(|m| m.address).collect(),
        Part::Name => {
            let names = values.iter().flat_map(|v| address::parse(v)).filter_map(|m| m.name);
            values = if selector.raw { names.collect() } else { names.map(|name| readable(&name)).collect() };
        }
    }
    if selector.place == Place::Whole {
        values
    } else {
        values.iter().filter_map(|v| place(context, selector, v)).collect()
    }
}

/// The values as text, for eval functions.
pub(crate) fn list(context: &Context<'_>, selector: &str) -> Vec<String> {
    let values = values(context, &Selector::of(selector));
    values.into_iter().map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
}

/// One text for eval functions: all fields in a row, or the first of several parts; empty when there is none.
pub(crate) fn text(context: &Context<'_>, selector: &str) -> String {
    found(context, selector).unwrap_or_default()
}

/// The same, `None` when there is none.
pub(crate) fn found(context: &Context<'_>, selector: &str) -> Option<String> {
    let selector = Selector::of(selector);
    let mut values = values(context, &selector);
    if values.is_empty() {
        return None;
    }
    let value = if selector.is_part() {
        let mut value = values.swap_remove(0);
        if value.ends_with(b"\n") {
            value.pop();
        }
        value
    } else {
        values.concat()
    };
    Some(String::from_utf8_lossy(&value).into_owned())
}

fn whole(context: &Context<'_>, selector: &Selector) -> Vec<Vec<u8>> {
    let headers = context.message.headers();
    match &selector.source {
        Source::All if selector.raw => range::raw_fields(context.message.raw_header()),
        Source::All => Some(headers.text(false).0).filter(|text| !text.is_empty()).into_iter().collect(),
        Source::Range(which) => range::fields(context, *which, selector.raw),
        Source::EnvelopeFrom => envelope::sender(context).into_iter().collect(),
        Source::Relays(which) => vec![context.relays().text(*which).as_bytes().to_vec()],
        Source::ToCc => headers.all("To").chain(headers.all("Cc")).map(|field| unfolded(field, selector.raw)).collect(),
        Source::MessageId => ["X-Message-Id", "Resent-Message-Id", "X-Original-Message-ID", "Message-Id"]
            .into_iter()
            .flat_map(|name| headers.all(name))
            .map(|field| unfolded(field, selector.raw))
            .filter(|value| !value.is_empty())
            .collect(),
        Source::Field(name) => field(context, name, selector),
    }
}

fn field(context: &Context<'_>, name: &str, selector: &Selector) -> Vec<Vec<u8>> {
    let fields = context.message.headers().all(name);
    let values: Vec<Vec<u8>> = if selector.raw || selector.part != Part::Whole {
        fields.map(|field| field.raw.to_vec()).collect()
    } else {
        fields.map(line).collect()
    };
    if values.is_empty() { made(context, name).into_iter().collect() } else { values }
}

/// Fields that no message has, but which are read like fields.
fn made(context: &Context<'_>, name: &str) -> Option<Vec<u8>> {
    let hosts = match name.to_ascii_lowercase().as_str() {
        "x-senderdomain" => list(context, "EnvelopeFrom:first:addr:host").into_iter().take(1).collect(),
        "x-authordomain" => author_domains(context),
        "x-languages" => context.tag("LANGUAGES"),
        _ => return context.made_header(name),
    };
    if hosts.is_empty() {
        return context.made_header(name);
    }
    Some(hosts.join(" ").to_ascii_lowercase().into_bytes())
}

/// The hosts of the addresses in `From`, each once.
pub(crate) fn author_domains(context: &Context<'_>) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for host in list(context, "From:addr:host") {
        let host = host.to_ascii_lowercase();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// A decoded value with its line end.
fn line(field: &Header) -> Vec<u8> {
    let value = field.decoded();
    let mut line = Vec::with_capacity(value.len() + 1);
    line.extend_from_slice(value);
    line.push(b'\n');
    line
}

fn unfolded(field: &Header, raw: bool) -> Vec<u8> {
    if raw { field.unfolded() } else { line(field) }
}

/// A display name as a reader sees it: decoded, blanks joined, without a pair of single quotes.
fn readable(name: &[u8]) -> Vec<u8> {
    let name = decode_words(name);
    if name.iter().all(|b| is_space(*b)) {
        return name;
    }
    let words: Vec<&[u8]> = name.split(|b| is_space(*b)).filter(|word| !word.is_empty()).collect();
    let name = words.join(&b' ');
    match name.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")) {
        Some(inside) => inside.to_vec(),
        None => name,
    }
}

fn place(context: &Context<'_>, selector: &Selector, value: &[u8]) -> Option<Vec<u8>> {
    let domains = &context.settings.domains;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match selector.place {
        Place::Whole => None,
        Place::Ip => places::address(value).map(<[u8]>::to_vec),
        Place::ReversedIp => crate::relays::ip::reversed(&text(places::address(value)?)).map(String::into_bytes),
        Place::Host | Place::Domain => {
            let host = match selector.part {
                Part::Address => places::host_of_address(value)?,
                _ => places::host(value, domains)?,
            };
            Some(if selector.place == Place::Host {
                host.to_vec()
            } else {
                domains.registered(&text(host)).into_bytes()
            })
        }
    }
}

#[cfg(test)]
mod tests;
