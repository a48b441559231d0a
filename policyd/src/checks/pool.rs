// SPDX-License-Identifier: GPL-3.0-or-later
//! Who the client is, for the greylist key: the domain for which SPF authorises it (RFC 7208), else the organisational domain that
//! its confirmed name and its HELO share, else its network. A large sender tries again from any of its addresses, and one key covers them.
//!
//! SPF gives a key and no free pass: whoever publishes a record gets a key under his own domain, and waits like everybody. A pass by
//! `all` authorises everybody and tells nobody apart; it makes no key. Look-ups are part of the decision's budget; when they fail the
//! next identity counts, which is at worst one delay more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::dns::{Resolver, organisational_domain};
use common::mail;
use common::spf::{self, Outcome, Query, SpfResult};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::adaptive;
use super::dnswl::{self, Dnswl, Listing};
use crate::around::Around;
use crate::course::Course;
use crate::request::PolicyRequest;

/// A kind of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// The sender's domain, when SPF passes.
    Spf,
    /// The organisational domain of confirmed name and HELO.
    Name,
    /// The network of the client's address.
    Network,
    /// The network for a client whose confirmed name looks like a mail server's, else the whole address.
    Smart,
}

/// What SPF says about a client and a sender's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spf {
    /// The result; temperror also when the time was over.
    pub result: SpfResult,
    /// The pass comes from a term that every client meets.
    pub everybody: bool,
}

/// How long an answer is used for the same client, domain and HELO.
const KEPT: Duration = Duration::from_secs(300);
/// Answers per generation.
const GENERATION: usize = 8192;
/// Share of the time left that look-ups may take; the store needs the rest.
const SHARE: f64 = 0.6;
/// So many failures in a row, of any domains, and nothing is asked for [`PAUSE`]: name servers that are down must not cost every request
/// its time.
const FAILURES: u32 = 8;
const PAUSE: Duration = Duration::from_secs(5);

/// Looks up what SPF says, and remembers it for a while.
#[derive(Debug, Default)]
pub struct Pools {
    resolver: Option<Resolver>,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Young and old; the old one is forgotten when the young one is full.
    answers: [HashMap<u64, (Instant, Arc<Outcome>)>; 2],
    failures: u32,
    paused_until: Option<Instant>,
}

/// What SPF says about the client and the sender's domain, asked at most once a request.
pub async fn spf_of(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    until: Instant,
) -> Option<Spf> {
    if let Some(known) = course.facts.spf {
        return known;
    }
    let spf = around.pools.spf(request, around.host, until).await;
    course.facts.spf = Some(spf);
    spf
}

impl Pools {
    /// Asks `resolver`; without one nothing is looked up.
    pub fn new(resolver: Option<Resolver>) -> Self {
        Self { resolver, ..Self::default() }
    }

    /// What the whitelists say of the client.
    pub async fn whitelisted(&self, lists: &[Dnswl], client: IpAddr, deadline: Instant) -> Listing {
        match &self.resolver {
            _ if lists.is_empty() => Listing::NotListed,
            // Boxed, as SPF below: every connection has room for the checks of a request, few need this much.
            Some(resolver) => Box::pin(dnswl::find(resolver, lists, client, deadline)).await,
            None => Listing::NoAnswer,
        }
    }

    /// What SPF says about the client and the sender's domain. None without anything to ask for: no resolver, the null sender (its
    /// identity would be HELO, which differs from host to host of a pool), an unknown client.
    pub async fn spf(&self, request: &PolicyRequest<'_>, host: &str, deadline: Instant) -> Option<Spf> {
        let client = request.client_address?;
        if mail::split(&request.sender).1.is_empty() {
            return None;
        }
        let found = self.evaluate(client, &request.helo_name, &request.sender, host, deadline).await?;
        let everybody = found.mechanism.trim_start_matches('+').eq_ignore_ascii_case("all");
        Some(Spf { result: found.result, everybody })
    }

    /// What SPF says about a client and a sender, or HELO for the null sender; a temperror when that is not known until `deadline`. None
    /// without a resolver.
    pub async fn evaluate(
        &self,
        ip: IpAddr,
        helo: &str,
        sender: &str,
        host: &str,
        deadline: Instant,
    ) -> Option<Arc<Outcome>> {
        let resolver = self.resolver.as_ref()?;
        let domain = mail::split(sender).1.to_ascii_lowercase();
        let key = self.hasher.hash_one((ip, &domain, helo));
        match self.remembered(key) {
            Remembered::Answer(outcome) => return Some(outcome),
            Remembered::Paused => return Some(count(no_answer("look-ups fail"), "paused")),
            Remembered::Nothing => {}
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let query = Query { ip, helo, sender, receiver: host, now };
        let (outcome, word) = match tokio::time::timeout_at(deadline, Box::pin(spf::check_host(resolver, &query))).await
        {
            Ok(found) => (Arc::new(found.clone()), found.result.word()),
            Err(_) => (no_answer("no answer in time"), "timeout"),
        };
        self.remember(key, &outcome);
        Some(count(outcome, word))
    }

    fn remembered(&self, key: u64) -> Remembered {
        let now = Instant::now();
        // A panic of another thread leaves nothing half done here.
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let found = state.answers.iter().find_map(|answers| answers.get(&key));
        match found {
            Some((at, outcome)) if now.duration_since(*at) < KEPT => Remembered::Answer(outcome.clone()),
            _ if state.paused_until.is_some_and(|until| now < until) => Remembered::Paused,
            _ => Remembered::Nothing,
        }
    }

    fn remember(&self, key: u64, outcome: &Arc<Outcome>) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if outcome.result == SpfResult::Temperror {
            state.failures += 1;
            if state.failures >= FAILURES {
                state.failures = 0;
                state.paused_until = Some(now + PAUSE);
                tracing::warn!("SPF cannot be looked up; greylisting goes by name and network for a few seconds");
            }
            return;
        }
        state.failures = 0;
        let [young, old] = &mut state.answers;
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(key, (now, outcome.clone()));
    }
}

/// Until when look-ups of a decision may go on that must be made until `deadline`.
pub fn part(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now).mul_f64(SHARE)
}

enum Remembered {
    Answer(Arc<Outcome>),
    Paused,
    Nothing,
}

fn no_answer(problem: &str) -> Arc<Outcome> {
    Arc::new(Outcome {
        result: SpfResult::Temperror,
        mechanism: String::new(),
        explanation: None,
        problem: Some(problem.to_owned()),
        lookups: 0,
    })
}

fn count(outcome: Arc<Outcome>, word: &'static str) -> Arc<Outcome> {
    metrics::counter!("octroi_policyd_spf_total", "outcome" => word).increment(1);
    outcome
}

/// The names by which a client may go in a greylist key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The best one first. The last one is the network, under which a triplet of another greylister, or of another `key`, is found.
    pub all: Vec<String>,
    /// True when the best one is the client's network or address, and no pool.
    pub alone: bool,
}

/// The names by which a client may go, in the order of `kinds`.
pub fn identities(
    kinds: &[KeyKind],
    request: &PolicyRequest<'_>,
    client: IpAddr,
    prefixes: (u8, u8),
    spf: Option<Spf>,
) -> Names {
    let known = |kind: &KeyKind| match kind {
        KeyKind::Spf => spf_domain(request, spf?).map(|domain| format!("spf:{domain}")),
        KeyKind::Name => shared_domain(request).map(|domain| format!("name:{domain}")),
        KeyKind::Network | KeyKind::Smart => None,
    };
    let mut all: Vec<String> = kinds.iter().filter_map(known).collect();
    let alone = all.is_empty();
    if kinds.contains(&KeyKind::Smart) && !is_named_server(request) {
        all.push(mail::network_name(client, 32, 128));
    }
    let network = mail::network_name(client, prefixes.0, prefixes.1);
    if all.last() != Some(&network) {
        all.push(network);
    }
    Names { all, alone }
}

/// True for a client with a confirmed name that does not look like that of a line.
fn is_named_server(request: &PolicyRequest<'_>) -> bool {
    request.client_name.as_deref().is_some_and(|name| !adaptive::looks_dynamic(name, request.client_address))
}

/// The sender's domain, when it authorises this client and not just anybody.
pub fn spf_domain(request: &PolicyRequest<'_>, spf: Spf) -> Option<String> {
    let domain = mail::split(&request.sender).1;
    (spf.result == SpfResult::Pass && !spf.everybody && !domain.is_empty()).then(|| domain.to_ascii_lowercase())
}

/// The organisational domain that confirmed name and HELO share. Lines of customers share their provider's domain and nothing else;
/// they are told apart by their networks.
fn shared_domain(request: &PolicyRequest<'_>) -> Option<String> {
    let name = request.client_name.as_deref()?;
    if adaptive::looks_dynamic(name, request.client_address) {
        return None;
    }
    organisational_domain(name).filter(|domain| organisational_domain(&request.helo_name).as_ref() == Some(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dns::Zone;

    const ALL: [KeyKind; 3] = [KeyKind::Spf, KeyKind::Name, KeyKind::Network];

    fn request(client: &str, name: &'static str, helo: &'static str, sender: &'static str) -> PolicyRequest<'static> {
        PolicyRequest {
            client_address: client.parse().ok(),
            client_name: Some(name.into()).filter(|name: &std::borrow::Cow<'_, str>| !name.is_empty()),
            helo_name: helo.into(),
            sender: sender.into(),
            ..PolicyRequest::default()
        }
    }

    async fn names(pools: &Pools, request: &PolicyRequest<'_>) -> Vec<String> {
        let spf = pools.spf(request, "mx.example.com", Instant::now() + Duration::from_secs(1)).await;
        identities(&ALL, request, request.client_address.unwrap(), (24, 64), spf).all
    }

    fn pools(zone: &str) -> Pools {
        Pools::new(Some(Resolver::Canned(Zone::parse(zone).unwrap())))
    }

    #[tokio::test]
    async fn the_best_identity_comes_first() {
        let pools = pools(
            "example.org TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nopen.example TXT \"v=spf1 +all\"\n\
             any.example TXT \"v=spf1 all\"\nsoft.example TXT \"v=spf1 ~all\"\nbroken.example TXT \"v=spf1 ip4:x\"\n\
             slow.example TIMEOUT\n",
        );
        let mx = "mx.pool.example.net";
        for (client, name, helo, sender, expected) in [
            ("192.0.2.1", mx, "a.example.net", "a@Example.ORG", "spf:example.org name:example.net 192.0.2.0/24"),
            ("198.51.100.1", mx, "a.example.net", "a@example.org", "name:example.net 198.51.100.0/24"),
            ("198.51.100.1", mx, "a.example.com", "a@example.org", "198.51.100.0/24"),
            ("198.51.100.1", "", "a.example.net", "a@example.org", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@none.example", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@open.example", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@any.example", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@soft.example", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@broken.example", "198.51.100.0/24"),
            ("198.51.100.1", "", "", "a@slow.example", "198.51.100.0/24"),
            ("198.51.100.1", mx, "x.example.net", "", "name:example.net 198.51.100.0/24"),
            // Lines of one provider are no pool, whatever they say.
            ("192.0.2.77", "77.2.0.192.dsl.example.net", "77.2.0.192.dsl.example.net", "", "192.0.2.0/24"),
            ("2001:db8::1", "", "", "a@example.org", "2001:db8::/64"),
        ] {
            let found = names(&pools, &request(client, name, helo, sender)).await;
            assert_eq!(found.join(" "), expected, "{client} {name} {helo} {sender}");
        }
    }

    #[tokio::test]
    async fn the_configured_kinds_count_in_their_order() {
        let pools = pools("example.org TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\n");
        let request = request("192.0.2.1", "mx.example.net", "mx.example.net", "a@example.org");
        let spf = pools.spf(&request, "", Instant::now() + Duration::from_secs(1)).await;
        let of =
            |kinds: &[KeyKind]| identities(kinds, &request, "192.0.2.1".parse().unwrap(), (24, 64), spf).all.join(" ");
        assert_eq!(of(&[KeyKind::Network]), "192.0.2.0/24");
        assert_eq!(
            of(&[KeyKind::Name, KeyKind::Spf, KeyKind::Network]),
            "name:example.net spf:example.org 192.0.2.0/24"
        );
    }

    #[test]
    fn a_smart_key_is_the_address_of_clients_that_are_no_named_servers() {
        let kinds = [KeyKind::Name, KeyKind::Smart];
        for (client, name, helo, names, alone) in [
            ("192.0.2.1", "mx1.example.org", "x", "192.0.2.0/24", true),
            ("192.0.2.1", "", "x", "192.0.2.1/32 192.0.2.0/24", true),
            ("192.0.2.1", "192-0-2-1.dsl.example.net", "x", "192.0.2.1/32 192.0.2.0/24", true),
            ("2001:db8::7", "", "x", "2001:db8::7/128 2001:db8::/64", true),
            ("192.0.2.1", "mx1.example.org", "a.example.org", "name:example.org 192.0.2.0/24", false),
        ] {
            let request = request(client, name, helo, "a@example.org");
            let found = identities(&kinds, &request, client.parse().unwrap(), (24, 64), None);
            assert_eq!((found.all.join(" ").as_str(), found.alone), (names, alone), "{client} {name}");
        }
    }

    #[tokio::test]
    async fn answers_are_remembered_and_failures_are_not() {
        let pools = pools("example.org TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nslow.example TIMEOUT\n");
        let deadline = Instant::now() + Duration::from_secs(1);
        let good = request("192.0.2.1", "", "", "a@example.org");
        assert!(pools.spf(&good, "", deadline).await.is_some());
        assert_eq!(pools.state.lock().unwrap().answers[0].len(), 1);
        for number in 0..FAILURES {
            assert!(pools.state.lock().unwrap().paused_until.is_none(), "{number}");
            let slow = pools.spf(&request("192.0.2.1", "", "", "a@slow.example"), "", deadline).await.unwrap();
            assert_eq!(slow.result, SpfResult::Temperror);
        }
        assert_eq!(pools.state.lock().unwrap().answers[0].len(), 1);
        let other = request("192.0.2.2", "", "", "a@example.org");
        assert_eq!(pools.spf(&other, "", deadline).await.unwrap().result, SpfResult::Temperror, "nothing is asked");
        assert_eq!(pools.spf(&good, "", deadline).await.unwrap().result, SpfResult::Pass, "but it is known");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let pools = Pools::default();
        let pass = Arc::new(Outcome { result: SpfResult::Pass, ..(*no_answer("")).clone() });
        for key in 0..3 * GENERATION as u64 {
            pools.remember(key, &pass);
        }
        assert!(pools.state.lock().unwrap().answers.iter().all(|answers| answers.len() <= GENERATION));
    }
}
