// SPDX-License-Identifier: GPL-3.0-or-later
//! The names that an expression can use: every attribute of a policy request (Postfix SMTPD_POLICY_README) and what is derived
//! from them, with their types.
//!
//! Pure. What Postfix does not know is an empty text or 0, as in its own protocol; an unknown address is in no network.

use std::net::IpAddr;

use common::mail;

use crate::request::{PolicyRequest, ProtocolState};

/// What a number counts; a text in quotes that is compared with one is read accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Plain,
    /// Bytes: `"10MB"`.
    Bytes,
    /// Minutes since midnight: `"08:30"`.
    Time,
    /// A date as a number, year * 10000 + month * 100 + day: `"2026-12-24"`.
    Date,
}

impl Unit {
    /// True when numbers of both can be compared: a bare number may count bytes, but is no time.
    pub fn counts_like(self, other: Self) -> bool {
        self == other || [self, other].iter().all(|unit| matches!(unit, Self::Plain | Self::Bytes))
    }
}

/// Which lists know a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nature {
    /// A mail address.
    Mail,
    /// A name of a host or a domain, or any other word.
    Name,
}

/// One of the words of a closed list.
pub type Words = &'static [&'static str];

/// The words of `protocol_state`.
pub const STATES: Words =
    &["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "other"];
/// The words of `weekday`, from Monday on.
pub const WEEKDAYS: Words = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads a text of a request.
pub type ReadText = for<'r, 'q> fn(&'r PolicyRequest<'q>) -> &'r str;

/// How the value is read.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    /// A text.
    Text(Nature, ReadText),
    /// One of some words.
    Word(Words, ReadText),
    /// A number.
    Number(Unit, fn(&PolicyRequest<'_>) -> i64),
    /// True or false.
    Flag(fn(&PolicyRequest<'_>) -> bool),
    /// An IP address.
    Address(fn(&PolicyRequest<'_>) -> Option<IpAddr>),
    /// Of the moment: minutes since midnight, local time.
    Time,
    /// Of the moment: date, local time.
    Date,
    /// Of the moment: day of the week, local time.
    Weekday,
}

/// A name and how its value is read.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// As it is written.
    pub name: &'static str,
    /// How its value is read.
    pub reading: Reading,
}

impl Attribute {
    /// Finds a name.
    pub fn find(name: &str) -> Option<Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.name == name).copied()
    }
}

const fn mail_text(name: &'static str, read: ReadText) -> Attribute {
    Attribute { name, reading: Reading::Text(Nature::Mail, read) }
}

const fn text(name: &'static str, read: ReadText) -> Attribute {
    Attribute { name, reading: Reading::Text(Nature::Name, read) }
}

const fn number(name: &'static str, read: fn(&PolicyRequest<'_>) -> i64) -> Attribute {
    Attribute { name, reading: Reading::Number(Unit::Plain, read) }
}

const fn flag(name: &'static str, read: fn(&PolicyRequest<'_>) -> bool) -> Attribute {
    Attribute { name, reading: Reading::Flag(read) }
}

/// All names.
pub static ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "protocol_state", reading: Reading::Word(STATES, |request| state(request.state)) },
    text("protocol_name", |request| &request.protocol_name),
    text("helo_name", |request| &request.helo_name),
    text("queue_id", |request| &request.queue_id),
    text("instance", |request| &request.instance),
    mail_text("sender", |request| &request.sender),
    mail_text("recipient", |request| &request.recipient),
    number("recipient_count", |request| request.recipient_count.into()),
    Attribute { name: "client_address", reading: Reading::Address(|request| request.client_address) },
    text("client_name", |request| request.client_name.as_deref().unwrap_or_default()),
    text("reverse_client_name", |request| request.reverse_client_name.as_deref().unwrap_or_default()),
    number("client_port", |request| request.client_port.into()),
    Attribute { name: "server_address", reading: Reading::Address(|request| request.server_address) },
    number("server_port", |request| request.server_port.into()),
    Attribute {
        name: "size",
        reading: Reading::Number(Unit::Bytes, |request| i64::try_from(request.size).unwrap_or(i64::MAX)),
    },
    text("sasl_method", |request| &request.sasl_method),
    mail_text("sasl_username", |request| &request.sasl_username),
    mail_text("sasl_sender", |request| &request.sasl_sender),
    text("encryption_protocol", |request| &request.encryption_protocol),
    text("encryption_cipher", |request| &request.encryption_cipher),
    number("encryption_keysize", |request| request.encryption_keysize.into()),
    text("tls_sni", |request| &request.tls_sni),
    text("ccert_subject", |request| &request.ccert_subject),
    text("ccert_issuer", |request| &request.ccert_issuer),
    text("ccert_fingerprint", |request| &request.ccert_fingerprint),
    text("ccert_pubkey_fingerprint", |request| &request.ccert_pubkey_fingerprint),
    text("etrn_domain", |request| &request.etrn_domain),
    text("policy_context", |request| &request.policy_context),
    flag("stress", |request| request.stress),
    text("mail_version", |request| &request.mail_version),
    text("compatibility_level", |request| &request.compatibility_level),
    // Derived.
    flag("authenticated", |request| !request.sasl_username.is_empty()),
    flag("encrypted", |request| !request.encryption_protocol.is_empty()),
    flag("null_sender", |request| request.is_null_sender()),
    text("sender_local", |request| mail::split(&request.sender).0),
    text("sender_domain", |request| mail::split(&request.sender).1),
    text("recipient_local", |request| mail::split(&request.recipient).0),
    text("recipient_domain", |request| mail::split(&request.recipient).1),
    Attribute { name: "time", reading: Reading::Time },
    Attribute { name: "date", reading: Reading::Date },
    Attribute { name: "weekday", reading: Reading::Weekday },
];

fn state(state: ProtocolState) -> &'static str {
    state.word()
}

/// Reads a text as a number of this unit; the error says how it is written.
pub fn read_number(unit: Unit, text: &str) -> Result<i64, String> {
    let read = match unit {
        Unit::Plain => None,
        Unit::Bytes => {
            return text.parse().map(|common::units::Size(size)| i64::try_from(size).unwrap_or(i64::MAX));
        }
        Unit::Time => time_of_day(text),
        Unit::Date => date(text),
    };
    read.ok_or_else(|| match unit {
        Unit::Time => format!("{text:?} is not a time of day such as \"08:30\""),
        Unit::Date => format!("{text:?} is not a date such as \"2026-12-24\""),
        Unit::Plain | Unit::Bytes => format!("a number is compared with a number, not with {text:?}"),
    })
}

fn time_of_day(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    // "24:00" is the end of a day.
    (minutes < 60 && (hours < 24 || (hours, minutes) == (24, 0))).then_some(hours * 60 + minutes)
}

fn date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(year * 10_000 + month * 100 + day)
}

fn digits(text: &str, most: usize) -> Option<i64> {
    let good = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_request() {
        let words: Vec<&str> = ProtocolState::ALL.iter().map(|state| state.word()).collect();
        assert_eq!(words, STATES);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn texts_become_numbers_of_their_unit() {
        for (unit, text, number) in [
            (Unit::Bytes, "10MB", Some(10_000_000)),
            (Unit::Bytes, "64KiB", Some(65_536)),
            (Unit::Bytes, "10", None),
            (Unit::Time, "08:30", Some(510)),
            (Unit::Time, "8:05", Some(485)),
            (Unit::Time, "24:00", Some(1440)),
            (Unit::Time, "24:01", None),
            (Unit::Time, "12:60", None),
            (Unit::Time, "noon", None),
            (Unit::Time, "+1:00", None),
            (Unit::Date, "2026-12-24", Some(20_261_224)),
            (Unit::Date, "2026-13-01", None),
            (Unit::Date, "24.12.2026", None),
            (Unit::Plain, "5", None),
        ] {
            assert_eq!(read_number(unit, text).ok(), number, "{text:?}");
        }
    }
}
