// SPDX-License-Identifier: GPL-3.0-or-later
//! Selectors: how a rule names what it reads. `From:addr`, `Received:last:ip`, `ALL:raw`, `X-Spam-Relays-External`, `EnvelopeFrom`.

use crate::relays::Which;

/// Which value a header rule reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(super) source: Source,
    /// Not decoded.
    pub(super) raw: bool,
    /// Of several fields, one.
    pub(super) pick: Pick,
    /// Of a field, its addresses or display names.
    pub(super) part: Part,
    /// Of a text, the host, domain or address in it.
    pub(super) place: Place,
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The whole header.
    All,
    /// The fields on one side of the line between trusted and untrusted, or internal and external.
    Range(Which),
    EnvelopeFrom,
    Relays(Which),
    ToCc,
    MessageId,
    Field(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Every,
    First,
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Address,
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Whole,
    Host,
    Domain,
    Ip,
    ReversedIp,
}

impl Selector {
    /// Reads a selector as written in a rule; what stands behind a colon and is no modifier is ignored, as it always was.
    pub(crate) fn parse(text: &str) -> Result<Selector, String> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("no header field is named {text:?}"));
        }
        let mut selector =
            Selector { source: source(name), raw: false, pick: Pick::Every, part: Part::Whole, place: Place::Whole };
        let (mut last, mut first) = (false, false);
        for word in words {
            match word {
                "raw" => selector.raw = true,
                "first" => first = true,
                "last" => last = true,
                "addr" => selector.part = Part::Address,
                "name" if selector.part == Part::Whole => selector.part = Part::Name,
                "host" if selector.place != Place::Domain => selector.place = Place::Host,
                "domain" => selector.place = Place::Domain,
                "ip" if selector.place == Place::Whole => selector.place = Place::Ip,
                "revip" if !matches!(selector.place, Place::Host | Place::Domain) => selector.place = Place::ReversedIp,
                _ => {}
            }
        }
        selector.pick = if first {
            Pick::First
        } else if last {
            Pick::Last
        } else {
            Pick::Every
        };
        Ok(selector)
    }

    /// A selector of this crate's own.
    pub(crate) fn of(text: &str) -> Selector {
        Self::parse(text).unwrap_or(Selector {
            source: Source::Field(text.to_string()),
            raw: false,
            pick: Pick::Every,
            part: Part::Whole,
            place: Place::Whole,
        })
    }

    /// Whether values are parts of a field, which carry no line end.
    pub(super) fn is_part(&self) -> bool {
        self.part != Part::Whole || self.place != Place::Whole || self.source == Source::EnvelopeFrom
    }
}

fn source(name: &str) -> Source {
    let exact = match name {
        "ALL" => Some(Source::All),
        "ALL-TRUSTED" => Some(Source::Range(Which::Trusted)),
        "ALL-UNTRUSTED" => Some(Source::Range(Which::Untrusted)),
        "ALL-INTERNAL" => Some(Source::Range(Which::Internal)),
        "ALL-EXTERNAL" => Some(Source::Range(Which::External)),
        "MESSAGEID" => Some(Source::MessageId),
        _ => None,
    };
    static IN_ANY_CASE: [(&str, Source); 6] = [
        ("EnvelopeFrom", Source::EnvelopeFrom),
        ("ToCc", Source::ToCc),
        ("X-Spam-Relays-Trusted", Source::Relays(Which::Trusted)),
        ("X-Spam-Relays-Untrusted", Source::Relays(Which::Untrusted)),
        ("X-Spam-Relays-Internal", Source::Relays(Which::Internal)),
        ("X-Spam-Relays-External", Source::Relays(Which::External)),
    ];
    let known =
        || IN_ANY_CASE.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, source)| source.clone());
    exact.or_else(known).unwrap_or_else(|| Source::Field(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers() {
        let selector = Selector::parse("Received:last:revip").unwrap();
        assert_eq!((selector.pick, selector.place), (Pick::Last, Place::ReversedIp));
        let selector = Selector::parse("From:addr:domain").unwrap();
        assert_eq!((selector.part, selector.place), (Part::Address, Place::Domain));
        assert_eq!(selector.source, Source::Field("From".into()));
        assert!(Selector::parse("ALL:raw").unwrap().raw);
    }

    #[test]
    fn pseudo_fields_and_mistakes() {
        assert_eq!(Selector::parse("envelopefrom").unwrap().source, Source::EnvelopeFrom);
        assert_eq!(Selector::parse("all").unwrap().source, Source::Field("all".into()));
        assert!(Selector::parse("").is_err() && Selector::parse(":addr").is_err());
    }
}
