// SPDX-License-Identifier: GPL-3.0-or-later
//! Texts of actions with names in braces: `{id}`, `{host}`, `{rule}`, or an attribute of the request such as `{sender}`.
//!
//! Pure. Values come from strangers and go into replies and header lines, so what is not printable ASCII becomes `?` and long values
//! are cut.

use std::fmt::Write;

use super::attribute::{ATTRIBUTES, Attribute, ReadText, Reading};
use super::compile::meant;
use crate::request::PolicyRequest;

/// Longest value that is filled in, in characters.
const MAX_VALUE: usize = 200;

/// What is filled in besides attributes.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The request.
    pub request: &'a PolicyRequest<'a>,
    /// Id of the decision.
    pub id: &'a str,
    /// Name of this host.
    pub host: &'a str,
    /// Name of the rule.
    pub rule: &'a str,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<str>),
    Id,
    Host,
    Rule,
    Read(ReadText),
    Number(fn(&PolicyRequest<'_>) -> i64),
    Address(fn(&PolicyRequest<'_>) -> Option<std::net::IpAddr>),
}

/// A text with gaps.
#[derive(Debug, Clone)]
pub struct Template(Box<[Part]>);

impl Template {
    /// Cuts a text at its braces; the error says which name does not exist.
    pub fn new(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("\"{\" without \"}\"")?;
            parts.push(Part::Text(before.into()));
            parts.push(part(name)?);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self(parts.into_boxed_slice()))
    }

    /// The text with its gaps filled.
    pub fn fill(&self, values: Values<'_>) -> String {
        let mut out = String::with_capacity(96);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Id => out.push_str(values.id),
                Part::Host => out.push_str(values.host),
                Part::Rule => out.push_str(values.rule),
                Part::Read(read) => push_foreign(&mut out, read(values.request)),
                // Writing to a String cannot fail.
                Part::Number(read) => drop(write!(out, "{}", read(values.request))),
                Part::Address(read) => match read(values.request) {
                    Some(address) => drop(write!(out, "{address}")),
                    None => out.push_str("unknown"),
                },
            }
        }
        out
    }
}

fn part(name: &str) -> Result<Part, String> {
    let unknown = || {
        let names = ["id", "host", "rule"].into_iter().chain(ATTRIBUTES.iter().map(|attribute| attribute.name));
        format!(
            "{{{name}}} does not exist; there are {{id}}, {{host}}, {{rule}} and the attributes{}",
            meant(name, names)
        )
    };
    Ok(match name {
        "id" => Part::Id,
        "host" => Part::Host,
        "rule" => Part::Rule,
        name => match Attribute::find(name).ok_or_else(unknown)?.reading {
            Reading::Text(_, read) | Reading::Word(_, read) => Part::Read(read),
            Reading::Number(_, read) => Part::Number(read),
            Reading::Address(read) => Part::Address(read),
            Reading::Flag(_) | Reading::Time | Reading::Date | Reading::Weekday => {
                return Err(format!("{{{name}}} is nothing to be told in a text"));
            }
        },
    })
}

fn push_foreign(out: &mut String, value: &str) {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    out.extend(value.chars().take(MAX_VALUE).map(printable));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_with_what_can_be_printed() {
        let request = PolicyRequest {
            sender: "a\u{7}é@x.example".into(),
            client_address: "192.0.2.1".parse().ok(),
            helo_name: "h".repeat(1000).into(),
            size: 7,
            ..PolicyRequest::default()
        };
        let values = Values { request: &request, id: "0123456789", host: "mx1.example", rule: "bulk" };
        let fill = |text: &str| Template::new(text).unwrap().fill(values);
        assert_eq!(fill("5.7.1 <{sender}> [{client_address}] {size}"), "5.7.1 <a??@x.example> [192.0.2.1] 7");
        assert_eq!(fill("{rule} at {host}; id {id}{server_address}"), "bulk at mx1.example; id 0123456789unknown");
        assert_eq!(fill("{helo_name}").len(), MAX_VALUE);
        assert_eq!(fill(""), "");
    }

    #[test]
    fn unknown_names_are_refused() {
        for (text, told) in [
            ("{sendr}", "did you mean \"sender\"?"),
            ("{authenticated}", "is nothing to be told"),
            ("{", "without"),
            ("{}", "does not exist"),
        ] {
            let message = Template::new(text).unwrap_err();
            assert!(message.contains(told), "{message}");
        }
    }
}
