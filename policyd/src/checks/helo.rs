// SPDX-License-Identifier: GPL-3.0-or-later
//! What the client calls itself in HELO or EHLO (RFC 5321 section 4.1.1.1): our own name, an address, no name at all, a name that DNS does not
//! know, and how many names it has had lately.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use common::dns::{DnsError, Resolver};

use super::perimeter::Sign;
use crate::config::{Effect, HeloSettings};
use crate::request::PolicyRequest;
use crate::verdict::Reason;

/// Clients remembered per generation.
const GENERATION: usize = 8192;

/// What HELO is, from the request alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helo {
    /// One of our names, or our address.
    Own,
    /// An address, in brackets or not.
    Literal,
    /// No host name.
    Invalid,
    /// A host name without a domain.
    Unqualified,
    /// A host name with a domain.
    Qualified,
}

/// What HELO is.
pub fn kind(settings: &HeloSettings, host: &str, request: &PolicyRequest<'_>) -> Helo {
    let helo = request.helo_name.trim_end_matches('.').to_lowercase();
    if let Some(address) = address(&helo) {
        // Port forwarding may show us the address of a gateway as our own.
        let own =
            request.server_address.is_some_and(|server| server == address && Some(server) != request.client_address);
        return if own { Helo::Own } else { Helo::Literal };
    }
    let own = settings.own_names.iter().any(|name| match name.strip_prefix('.') {
        Some(_) => helo.ends_with(&name.to_lowercase()),
        None => helo.eq_ignore_ascii_case(name),
    });
    if own || (helo.contains('.') && helo.eq_ignore_ascii_case(host)) {
        return Helo::Own;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    match helo.len() <= 255 && helo.split('.').all(label) {
        false => Helo::Invalid,
        true if helo.contains('.') => Helo::Qualified,
        true => Helo::Unqualified,
    }
}

/// The address that a literal (RFC 5321 section 4.1.3) or a bare address is.
fn address(helo: &str) -> Option<IpAddr> {
    let inside = helo.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(helo);
    let bare = inside.strip_prefix("ipv6:").unwrap_or(inside);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The sign in what HELO is, when it leads to something.
pub fn sign(settings: &HeloSettings, host: &str, request: &PolicyRequest<'_>) -> Option<Sign> {
    let (effect, word, told) = match kind(settings, host, request) {
        Helo::Own => (settings.own, "own", "it calls itself by our name"),
        Helo::Literal => (settings.literal, "literal", "it calls itself by an address"),
        Helo::Invalid => (settings.invalid, "invalid", "what it calls itself is no host name"),
        Helo::Unqualified => (settings.unqualified, "unqualified", "what it calls itself has no domain"),
        Helo::Qualified => return None,
    };
    made(effect, word, request, told)
}

/// The sign of a name that DNS does not know.
pub fn unresolvable(settings: &HeloSettings, request: &PolicyRequest<'_>) -> Option<Sign> {
    made(settings.unresolvable, "unresolvable", request, "what it calls itself is not in DNS")
}

/// The sign of too many names.
pub fn random(settings: &HeloSettings, helos: &Helos, request: &PolicyRequest<'_>) -> Option<Sign> {
    let client = request.client_address.filter(|_| settings.random != Effect::NONE && !request.helo_name.is_empty())?;
    let names = helos.names(client, &request.helo_name, settings, Instant::now());
    let told = "it calls itself by too many names";
    made(settings.random, "random", request, told).filter(|_| names > settings.random_after)
}

fn made(effect: Effect, word: &str, request: &PolicyRequest<'_>, told: &str) -> Option<Sign> {
    let fact = format!("HELO {word}: {}", request.helo_name);
    Sign::new(effect, Reason::HeloRefused, "7.1", fact, told.to_owned())
}

/// Whether DNS knows a host: an address or an MX, as Postfix's reject_unknown_helo_hostname wants it. Error: it cannot be told.
pub async fn is_in_dns(resolver: &Resolver, host: &str) -> Result<bool, DnsError> {
    let (a, aaaa, mx) = tokio::join!(resolver.a(host), resolver.aaaa(host), resolver.mx(host));
    let found = [some(&a), some(&aaaa), some(&mx)];
    if found.contains(&true) {
        return Ok(true);
    }
    match a.err().or(aaaa.err()).or(mx.err()) {
        None | Some(DnsError::BadName(_)) => Ok(false),
        Some(error) => Err(error),
    }
}

fn some<T>(answer: &common::dns::Answer<T>) -> bool {
    answer.as_ref().is_ok_and(|records| !records.is_empty())
}

/// Names as hashes, and when each was last used.
type Names = Vec<(u64, Instant)>;

/// By which names clients have called themselves lately: hashes, as many as matter, of a bounded number of clients.
#[derive(Debug, Default)]
pub struct Helos {
    hasher: RandomState,
    clients: Mutex<[HashMap<IpAddr, Names>; 2]>,
}

impl Helos {
    /// How many names this client has had within the period, this one included; counted up to one more than matter.
    fn names(&self, client: IpAddr, helo: &str, settings: &HeloSettings, now: Instant) -> usize {
        let name = self.hasher.hash_one(helo.to_ascii_lowercase());
        let (most, period) = (settings.random_after + 1, settings.random_period.0);
        // A panic of another thread leaves nothing half done here.
        let mut clients = self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *clients;
        let mut names = young.remove(&client).or_else(|| old.remove(&client)).unwrap_or_default();
        names.retain(|(known, at)| *known != name && now.duration_since(*at) < period);
        if names.len() >= most {
            names.remove(0);
        }
        names.push((name, now));
        let number = names.len();
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(client, names);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dns::Zone;
    use proptest::prelude::*;

    fn request(helo: &'static str) -> PolicyRequest<'static> {
        PolicyRequest {
            client_address: "198.31.7.5".parse().ok(),
            server_address: "192.0.2.25".parse().ok(),
            helo_name: helo.into(),
            ..PolicyRequest::default()
        }
    }

    #[test]
    fn helo_has_its_kinds() {
        let own_names = vec!["mx.example.org".to_owned(), ".in.example.org".to_owned()];
        let settings = HeloSettings { own_names, ..HeloSettings::default() };
        for (helo, expected) in [
            ("mx.example.net", Helo::Qualified),
            ("mx.example.net.", Helo::Qualified),
            ("mail_out.example.net", Helo::Qualified),
            ("MX.Example.org", Helo::Own),
            ("a.in.example.org", Helo::Own),
            ("in.example.org", Helo::Qualified),
            ("gate.example.com", Helo::Own),
            ("[192.0.2.25]", Helo::Own),
            ("192.0.2.25", Helo::Own),
            ("[198.31.7.5]", Helo::Literal),
            ("[IPv6:2001:db8::1]", Helo::Literal),
            ("198.31.7.5", Helo::Literal),
            ("pc", Helo::Unqualified),
            ("", Helo::Invalid),
            ("my computer", Helo::Invalid),
            ("-a.example.net", Helo::Invalid),
            ("a..example.net", Helo::Invalid),
            ("[300.1.1.1]", Helo::Invalid),
        ] {
            assert_eq!(kind(&settings, "gate.example.com", &request(helo)), expected, "{helo:?}");
        }
    }

    #[test]
    fn only_what_leads_to_something_is_a_sign() {
        let settings = HeloSettings { own: Effect::Reject, ..HeloSettings::default() };
        let own = sign(&settings, "gate.example.com", &request("gate.example.com")).unwrap();
        assert_eq!((own.effect, own.fact.as_str()), (Effect::Reject, "HELO own: gate.example.com"));
        assert!(sign(&settings, "gate.example.com", &request("pc")).is_none());
        assert!(unresolvable(&settings, &request("pc")).is_none());
    }

    #[tokio::test]
    async fn an_address_or_an_mx_makes_a_host_known() {
        let zone = "a.test A 192.0.2.1\nmx.test MX 10 a.test\nsix.test AAAA 2001:db8::1\nslow.test TIMEOUT\n";
        let dns = Resolver::Canned(Zone::parse(zone).unwrap());
        for (host, known) in
            [("a.test", true), ("mx.test", true), ("six.test", true), ("no.test", false), ("a..b", false)]
        {
            assert_eq!(is_in_dns(&dns, host).await, Ok(known), "{host}");
        }
        assert!(is_in_dns(&dns, "slow.test").await.is_err());
    }

    #[test]
    fn names_of_a_client_are_counted_and_forgotten() {
        let (helos, settings, now) = (Helos::default(), HeloSettings::default(), Instant::now());
        let client = "198.31.7.5".parse().unwrap();
        for (number, name) in ["a", "b", "A", "c", "b"].into_iter().enumerate() {
            assert_eq!(helos.names(client, name, &settings, now), [1, 2, 2, 3, 3][number], "{name}");
        }
        for number in 0..100 {
            let names = helos.names(client, &format!("n{number}"), &settings, now);
            assert!(names <= settings.random_after + 1);
        }
        assert_eq!(helos.names(client, "a", &settings, now + settings.random_period.0), 1);
        for client in 0..3 * GENERATION as u32 {
            helos.names(IpAddr::from(client.to_be_bytes()), "a", &settings, now);
        }
        assert!(helos.clients.lock().unwrap().iter().all(|clients| clients.len() <= GENERATION));
    }

    proptest! {
        #[test]
        fn any_helo_is_judged(helo in any::<String>()) {
            let request = PolicyRequest { helo_name: helo.into(), ..PolicyRequest::default() };
            kind(&HeloSettings::default(), "mx.example.org", &request);
        }
    }
}
