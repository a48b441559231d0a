// SPDX-License-Identifier: GPL-3.0-or-later
//! By what a limit counts: terms such as `sasl_username`, `client_address/24`, `domain(sender)` or `sasl_username|client_address`,
//! read from the configuration and filled from a request. Also the filters `only` and `except`, which use the same attributes.
//!
//! Values are compared in lower case. Mail addresses lose their `+extension`, so that a sub-address is no further account.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

use common::mail;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::request::PolicyRequest;

/// Longest key; the rest of a longer one is replaced by a digest of the whole.
const LONGEST: usize = 200;

/// An attribute of a request that can be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute(&'static str);

impl Attribute {
    const ALL: [&'static str; 19] = [
        "sasl_username",
        "sasl_method",
        "sasl_sender",
        "sender",
        "recipient",
        "client_address",
        "client_name",
        "reverse_client_name",
        "helo_name",
        "policy_context",
        "server_address",
        "server_port",
        "protocol_name",
        "encryption_protocol",
        "tls_sni",
        "ccert_subject",
        "ccert_issuer",
        "ccert_fingerprint",
        "ccert_pubkey_fingerprint",
    ];

    fn parse(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| *known == name).map(Self);
        known.ok_or_else(|| {
            format!("{name:?} is not an attribute that can be a key; there are {}", Self::ALL.join(", "))
        })
    }

    fn is_of_login(self) -> bool {
        matches!(self.0, "sasl_username" | "sasl_method" | "sasl_sender")
    }

    /// Its value; none when it has none.
    fn value<'r>(self, request: &'r PolicyRequest<'_>) -> Option<Cow<'r, str>> {
        let text: &str = match self.0 {
            "sasl_username" => &request.sasl_username,
            "sasl_method" => &request.sasl_method,
            "sasl_sender" => &request.sasl_sender,
            "sender" => return mailbox(&request.sender),
            "recipient" => return mailbox(&request.recipient),
            "client_address" => return Some(request.client_address?.to_string().into()),
            "client_name" => request.client_name.as_deref()?,
            "reverse_client_name" => request.reverse_client_name.as_deref()?,
            "helo_name" => &request.helo_name,
            "policy_context" => &request.policy_context,
            "server_address" => return Some(request.server_address?.to_string().into()),
            "server_port" if request.server_port != 0 => return Some(request.server_port.to_string().into()),
            "protocol_name" => &request.protocol_name,
            "encryption_protocol" => &request.encryption_protocol,
            "tls_sni" => &request.tls_sni,
            "ccert_subject" => &request.ccert_subject,
            "ccert_issuer" => &request.ccert_issuer,
            "ccert_fingerprint" => &request.ccert_fingerprint,
            "ccert_pubkey_fingerprint" => &request.ccert_pubkey_fingerprint,
            _ => return None,
        };
        (!text.is_empty()).then(|| lower(text))
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.chars().any(char::is_uppercase) {
        true => Cow::Owned(text.to_lowercase()),
        false => Cow::Borrowed(text),
    }
}

/// An address in lower case and without extension; none for the null sender.
fn mailbox(address: &str) -> Option<Cow<'_, str>> {
    if address.is_empty() {
        return None;
    }
    let (local, domain) = mail::split(address);
    let short = mail::without_extension(local);
    if short.len() == local.len() {
        return Some(lower(address));
    }
    Some(Cow::Owned(format!("{short}@{domain}").to_lowercase()))
}

/// What is known of where a client is, beyond its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geo {
    /// ISO 3166-1, two letters.
    Country,
    /// Number of the autonomous system.
    Asn,
}

/// Tells where the client of a request is; none when that is not known.
pub type WhereIs<'a> = &'a dyn Fn(Geo) -> Option<String>;

/// What the rest of the configuration gives to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Basis {
    /// Prefix lengths of `client_network`, IPv4 and IPv6.
    pub network: (u8, u8),
    /// There is a file that tells countries.
    pub countries: bool,
    /// There is a file that tells autonomous systems.
    pub asns: bool,
}

/// What is taken of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Where the client is.
    Geo(Geo),
    Whole(Attribute),
    /// The network of `client_address`: bits of an IPv4 and of an IPv6 address.
    Network(u8, u8),
    /// Behind the last `@`; all of a value without one.
    Domain(Attribute),
    /// Before the last `@`.
    Local(Attribute),
    /// The organisational domain (public suffix list) of an address or name.
    OrgDomain(Attribute),
}

/// One term of a key: the first of its parts that the request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term(Vec<Part>);

impl Term {
    /// Reads a term. The error names what does not exist.
    pub fn parse(text: &str, basis: Basis) -> Result<Self, String> {
        text.split('|').map(|part| Part::parse(part.trim(), basis)).collect::<Result<_, _>>().map(Self)
    }

    /// True when only a client that has logged in has it.
    pub fn needs_login(&self) -> bool {
        let of_login = |part: &Part| match part {
            Part::Whole(attribute) | Part::Domain(attribute) | Part::Local(attribute) | Part::OrgDomain(attribute) => {
                attribute.is_of_login()
            }
            Part::Network(..) | Part::Geo(_) => false,
        };
        self.0.iter().all(of_login)
    }
}

impl Part {
    fn parse(text: &str, basis: Basis) -> Result<Self, String> {
        match text {
            "client_network" => return Ok(Self::Network(basis.network.0, basis.network.1)),
            "country" if basis.countries => return Ok(Self::Geo(Geo::Country)),
            "country" => return Err("\"country\" needs perimeter.geo.country_db".to_owned()),
            "asn" if basis.asns => return Ok(Self::Geo(Geo::Asn)),
            "asn" => return Err("\"asn\" needs perimeter.geo.asn_db".to_owned()),
            _ => {}
        }
        if let Some(prefixes) = text.strip_prefix("client_address/") {
            let (v4, v6) = prefixes.split_once(',').unwrap_or((prefixes, "64"));
            return match (v4.trim().parse(), v6.trim().parse()) {
                (Ok(v4), Ok(v6)) if (1..=32).contains(&v4) && (1..=128).contains(&v6) => Ok(Self::Network(v4, v6)),
                _ => Err(format!(
                    "{text:?}: write \"client_address/24\", or \"client_address/24,56\" with the bits for IPv6"
                )),
            };
        }
        let Some((function, attribute)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
            return Attribute::parse(text).map(Self::Whole);
        };
        let attribute = Attribute::parse(attribute.trim())?;
        match function.trim() {
            "domain" => Ok(Self::Domain(attribute)),
            "local" => Ok(Self::Local(attribute)),
            "org_domain" => Ok(Self::OrgDomain(attribute)),
            other => Err(format!("{other:?} is not a part; there are domain(), local() and org_domain()")),
        }
    }

    fn value<'r>(&self, request: &'r PolicyRequest<'_>, whereis: WhereIs<'_>) -> Option<Cow<'r, str>> {
        let found = match self {
            Self::Geo(geo) => whereis(*geo)?.to_lowercase().into(),
            Self::Whole(attribute) => attribute.value(request)?,
            Self::Network(v4, v6) => mail::network(request.client_address?, *v4, *v6).to_string().into(),
            Self::Domain(attribute) => cut(attribute.value(request)?, |value| match mail::split(value) {
                (all, "") => all,
                (_, domain) => domain,
            }),
            Self::Local(attribute) => cut(attribute.value(request)?, |value| mail::split(value).0),
            Self::OrgDomain(attribute) => {
                let value = attribute.value(request)?;
                let name = value.rsplit('@').next().unwrap_or_default();
                common::dns::organisational_domain(name)?.into()
            }
        };
        (!found.is_empty()).then_some(found)
    }
}

fn cut<'r>(value: Cow<'r, str>, part: impl for<'a> Fn(&'a str) -> &'a str) -> Cow<'r, str> {
    match value {
        Cow::Borrowed(text) => Cow::Borrowed(part(text)),
        Cow::Owned(text) => Cow::Owned(part(&text).to_owned()),
    }
}

/// Writes the key of a request behind `out`; false, when it lacks one of the terms. Without terms everybody has the same key, `*`.
pub fn push_key(out: &mut String, terms: &[Term], request: &PolicyRequest<'_>, whereis: WhereIs<'_>) -> bool {
    let start = out.len();
    if terms.is_empty() {
        out.push('*');
    }
    for (number, term) in terms.iter().enumerate() {
        let Some(value) = term.0.iter().find_map(|part| part.value(request, whereis)) else { return false };
        if number > 0 {
            out.push('|');
        }
        push_escaped(out, &value);
    }
    shorten(out, start);
    true
}

/// Writes a key of these values behind `out`, as [`push_key`] does it of a request's.
pub fn push_values(out: &mut String, values: &[String]) {
    let start = out.len();
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            out.push('|');
        }
        push_escaped(out, &value.to_lowercase());
    }
    shorten(out, start);
}

/// An address as it stands in keys; none for the null sender.
pub fn mail_value(address: &str) -> Option<String> {
    mailbox(address).map(Cow::into_owned)
}

/// Nobody can put into a value what separates values.
fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '|' | '%' | ' ' => drop(write!(out, "%{:02x}", u32::from(c))),
            c if c.is_control() => drop(write!(out, "%{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

fn shorten(out: &mut String, start: usize) {
    if out.len() - start <= LONGEST {
        return;
    }
    let digest = Sha256::digest(&out.as_bytes()[start..]);
    let mut end = start + LONGEST - 34;
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out.push_str("..");
    for byte in &digest[..16] {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// A condition of `only` or `except`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Has logged in.
    Authenticated,
    /// Is in `greylist.own_networks`.
    OwnNetworks,
    /// Is in this network.
    Network(IpNet),
    /// The attribute has this value, or with `@domain` an address in that domain.
    Is(Attribute, String),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            _ if text == "authenticated" => Ok(Self::Authenticated),
            _ if text == "own_networks" => Ok(Self::OwnNetworks),
            Some((name, value)) if !value.trim().is_empty() => {
                Ok(Self::Is(Attribute::parse(name.trim())?, value.trim().to_lowercase()))
            }
            _ => match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
                (Ok(network), _) => Ok(Self::Network(network)),
                (_, Ok(address)) => Ok(Self::Network(address.into())),
                _ => Err(format!(
                    "{text:?} is none of: \"authenticated\", \"own_networks\", a network, \"attribute=value\", \"attribute=@domain\""
                )),
            },
        }
    }
}

impl Who {
    /// True when only a client that has logged in meets it.
    pub fn needs_login(&self) -> bool {
        match self {
            Self::Authenticated => true,
            Self::Is(attribute, _) => attribute.is_of_login(),
            Self::OwnNetworks | Self::Network(_) => false,
        }
    }

    /// Whether a request meets it; `own` says whether its client is one of ours.
    pub fn is(&self, request: &PolicyRequest<'_>, own: &dyn Fn() -> bool) -> bool {
        match self {
            Self::Authenticated => !request.sasl_username.is_empty(),
            Self::OwnNetworks => own(),
            Self::Network(network) => request.client_address.is_some_and(|client| network.contains(&client)),
            Self::Is(attribute, wanted) => {
                attribute.value(request).is_some_and(|value| match wanted.strip_prefix('@') {
                    Some(domain) => mail::split(&value).1 == domain,
                    None => value == wanted.as_str(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASIS: Basis = Basis { network: (24, 64), countries: true, asns: true };

    /// Everybody is in Austria, in no known autonomous system.
    fn whereis(geo: Geo) -> Option<String> {
        (geo == Geo::Country).then(|| "AT".to_owned())
    }

    fn request() -> PolicyRequest<'static> {
        PolicyRequest {
            client_address: "192.0.2.77".parse().ok(),
            client_name: Some("Mail.Example.co.uk".into()),
            sender: "Joe+list@Example.ORG".into(),
            policy_context: "submission".into(),
            ..PolicyRequest::default()
        }
    }

    fn key(terms: &[&str], request: &PolicyRequest<'_>) -> Option<String> {
        let terms: Vec<Term> = terms.iter().map(|term| Term::parse(term, BASIS).unwrap()).collect();
        let mut out = String::new();
        push_key(&mut out, &terms, request, &whereis).then_some(out)
    }

    #[test]
    fn keys_are_made_of_attributes_and_parts() {
        for (terms, made) in [
            (&["sender"] as &[&str], Some("joe@example.org")),
            (&["domain(sender)"], Some("example.org")),
            (&["local(sender)"], Some("joe")),
            (&["client_address"], Some("192.0.2.77")),
            (&["client_network"], Some("192.0.2.0/24")),
            (&["client_address/16"], Some("192.0.0.0/16")),
            (&["org_domain(client_name)"], Some("example.co.uk")),
            (&["policy_context", "client_address/25"], Some("submission|192.0.2.0/25")),
            (&["sasl_username|sender|client_address"], Some("joe@example.org")),
            (&["sasl_username"], None),
            (&["country", "policy_context"], Some("at|submission")),
            (&["asn"], None),
            (&["asn|country"], Some("at")),
            (&[], Some("*")),
        ] {
            assert_eq!(key(terms, &request()).as_deref(), made, "{terms:?}");
        }
    }

    #[test]
    fn values_cannot_pretend_to_be_two() {
        let mut one = request();
        one.helo_name = "a|b c%".into();
        assert_eq!(key(&["helo_name"], &one).as_deref(), Some("a%7cb%20c%25"));
    }

    #[test]
    fn given_values_make_the_same_key_as_those_of_a_request() {
        let mut one = request();
        one.helo_name = "A|b c%".into();
        let mut out = String::new();
        push_values(&mut out, &[mail_value(&one.sender).unwrap(), one.helo_name.to_string()]);
        assert_eq!(Some(out), key(&["sender", "helo_name"], &one));
        assert_eq!(mail_value(""), None);
    }

    #[test]
    fn where_a_client_is_needs_a_file_that_tells() {
        let none = Basis { network: (24, 64), ..Basis::default() };
        for (term, told) in [("country", "country_db"), ("sender|asn", "asn_db")] {
            assert!(Term::parse(term, none).unwrap_err().contains(told), "{term}");
        }
    }

    #[test]
    fn long_values_stay_apart() {
        let long = |end: &str| {
            let mut request = request();
            request.helo_name = format!("{}{end}", "é".repeat(500)).into();
            key(&["helo_name"], &request).unwrap()
        };
        assert!(long("a").len() <= LONGEST && long("a") != long("b"));
    }

    #[test]
    fn wrong_terms_are_refused() {
        for term in [
            "",
            "user",
            "domain(user)",
            "tail(sender)",
            "client_address/",
            "client_address/33",
            "sender|",
            "domain(sender",
        ] {
            assert!(Term::parse(term, BASIS).is_err(), "{term:?}");
        }
    }

    #[test]
    fn filters_are_met() {
        for (who, met) in [
            ("authenticated", false),
            ("own_networks", true),
            ("192.0.2.0/24", true),
            ("192.0.2.78", false),
            ("sender=@example.org", true),
            ("sender=joe@EXAMPLE.org", true),
            ("sender=@ample.org", false),
            ("policy_context=submission", true),
            ("sasl_username=joe", false),
        ] {
            assert_eq!(who.parse::<Who>().unwrap().is(&request(), &|| true), met, "{who}");
        }
        for text in ["", "everybody", "sender=", "user=x", "300.1.1.1"] {
            assert!(text.parse::<Who>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_term_and_no_value_panics(term in "[a-z_()/|,0-9 ]{0,30}", sender in ".{0,300}") {
            let request = PolicyRequest { sender: sender.clone().into(), ..PolicyRequest::default() };
            let terms: Vec<Term> = [term.as_str(), "sender", "domain(sender)", "local(sender)", "org_domain(sender)"]
                .iter().filter_map(|term| Term::parse(term, BASIS).ok()).collect();
            for term in terms {
                let mut out = String::new();
                if push_key(&mut out, &[term], &request, &whereis) {
                    prop_assert!(out.len() <= LONGEST && !out.contains(' ') && !out.contains('\n'));
                }
            }
        }
    }
}
