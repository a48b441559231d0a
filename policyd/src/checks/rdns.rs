// SPDX-License-Identifier: GPL-3.0-or-later
//! The name of the client's address, as Postfix found it: none, one that does not lead back to the address, a confirmed one, and whether a
//! confirmed one looks like a line of a customer.
//!
//! Pure. Postfix does not tell a name that is not there from one that DNS could not give just now: a score fits these signs better than a
//! refusal.

use super::adaptive::looks_dynamic;
use super::perimeter::Sign;
use crate::config::ReverseNameSettings;
use crate::request::PolicyRequest;
use crate::verdict::Reason;

/// What the name is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReverseName {
    /// There is none.
    None,
    /// There is one, and it does not lead back to the address.
    Unmatched,
    /// Confirmed, and like a line of a customer.
    Dynamic,
    /// Confirmed.
    Confirmed,
}

impl ReverseName {
    /// The word for rules, log and trace.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unmatched => "unmatched",
            Self::Dynamic => "dynamic",
            Self::Confirmed => "confirmed",
        }
    }
}

/// What the name of this request's client is worth.
pub fn reverse_name(request: &PolicyRequest<'_>) -> ReverseName {
    match (request.client_name.as_deref(), &request.reverse_client_name) {
        (Some(name), _) if looks_dynamic(name, request.client_address) => ReverseName::Dynamic,
        (Some(_), _) => ReverseName::Confirmed,
        (None, Some(_)) => ReverseName::Unmatched,
        (None, None) => ReverseName::None,
    }
}

/// The sign in it, when it leads to something.
pub fn sign(settings: &ReverseNameSettings, request: &PolicyRequest<'_>) -> Option<Sign> {
    let (effect, told) = match reverse_name(request) {
        ReverseName::None => (settings.none, "its address has no name"),
        ReverseName::Unmatched => (settings.unmatched, "the name of its address does not lead back to it"),
        ReverseName::Dynamic => (settings.dynamic, "its name is that of a customer's line"),
        ReverseName::Confirmed => return None,
    };
    let fact = format!("reverse name: {}", reverse_name(request).word());
    Sign::new(effect, Reason::ReverseNameRefused, "7.25", fact, told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Effect;

    #[test]
    fn names_have_four_classes() {
        let settings = ReverseNameSettings { none: Effect::Score(3), unmatched: Effect::Reject, dynamic: Effect::NONE };
        for (name, reverse, word, effect) in [
            (None, None, "none", Some(Effect::Score(3))),
            (None, Some("mx.example.net"), "unmatched", Some(Effect::Reject)),
            (Some("7.2.0.192.dsl.example.net"), None, "dynamic", None),
            (Some("mx.example.net"), Some("mx.example.net"), "confirmed", None),
        ] {
            let request = PolicyRequest {
                client_address: "192.0.2.7".parse().ok(),
                client_name: name.map(Into::into),
                reverse_client_name: reverse.map(Into::into),
                ..PolicyRequest::default()
            };
            assert_eq!(reverse_name(&request).word(), word);
            assert_eq!(sign(&settings, &request).map(|sign| sign.effect), effect, "{word}");
        }
    }
}
