// SPDX-License-Identifier: GPL-3.0-or-later
//! Which limits apply to a request, and what it is to be charged in each of their buckets.
//!
//! Charges that a repeated request shares form a part with an id: a digest of what makes it one charge (instance and client for a
//! message, the recipient too for a recipient). The same request asked of another host has the same ids.

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::key::{Term, WhereIs, Who, push_key, push_values};
use super::rate::{Rate, Span, UNIT};
use super::settle::Bucket;
use super::unit::{Stage, Unit};
use crate::request::PolicyRequest;

/// For how long a repeated request is known, in milliseconds. Postfix asks again after its timeout, 100 s by default.
const REPEATED: i64 = 600_000;

/// One limit as the configuration has it, ready for use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Its name: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The terms of its key.
    pub key: Vec<Term>,
    /// What it counts.
    pub unit: Unit,
    /// At which stage, where the unit leaves a choice.
    pub stage: Option<Stage>,
    /// What must not be passed, and what is to be told when it is.
    pub rates: Vec<RateOf>,
    /// Whom it concerns, when not everybody: anyone of these.
    pub only: Vec<Who>,
    /// Whom it does not concern.
    pub except: Vec<Who>,
    /// It concerns only requests of which a rule says so.
    pub by_rule: bool,
}

/// One rate of a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct RateOf {
    /// How much in which time.
    pub rate: Rate,
    /// Units at once.
    pub burst: u64,
    /// Nothing is refused: passing it is worth a notice.
    pub watch: bool,
}

impl RateOf {
    /// Name of the bucket of a key.
    pub fn bucket_name(&self, limit: &str, key: &str) -> String {
        let mut name = String::new();
        self.push_prefix(&mut name, limit);
        name.push_str(key);
        name
    }

    fn push_prefix(&self, out: &mut String, limit: &str) {
        out.push_str(limit);
        out.push_str(if self.watch { " warn:" } else { " " });
        push_span(out, self.rate.span);
        out.push(' ');
    }
}

impl Limit {
    /// True when it concerns only clients that have logged in.
    pub fn needs_login(&self) -> bool {
        self.unit == Unit::Auth
            || self.key.iter().any(Term::needs_login)
            || (!self.only.is_empty() && self.only.iter().all(Who::needs_login))
    }
}

/// One charge of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// The bucket.
    pub bucket: Bucket,
    /// Room that must be there, in millionths; 0: charged in any case.
    pub need: i64,
    /// What is charged, in millionths.
    pub units: i64,
    /// Index of the limit.
    pub limit: usize,
    /// Index of its rate.
    pub rate: usize,
    /// End of the calendar window, in milliseconds since 1970; 0 without one.
    pub window_end: i64,
}

/// Charges that are made once, however often they are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct PartOf {
    /// What makes them one; none: each time.
    pub id: Option<i64>,
    /// For how many milliseconds a repetition is known.
    pub keep: i64,
    /// The charges.
    pub charges: Vec<Charge>,
}

/// All that one request is charged, wholly or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Order {
    /// Its parts.
    pub parts: Vec<PartOf>,
}

impl Order {
    /// True when nothing applies.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All charges.
    pub fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.parts.iter().flat_map(|part| &part.charges)
    }
}

/// What an order is made for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The request.
    pub request: &'a PolicyRequest<'a>,
    /// Milliseconds since 1970 by the clock of the database.
    pub now: i64,
    /// Time zone of calendar windows.
    pub zone: &'a TimeZone,
    /// Names of limits that a rule asks for.
    pub by_rule: &'a [String],
    /// Whether the client is one of ours.
    pub own: &'a dyn Fn() -> bool,
    /// Where the client is.
    pub whereis: WhereIs<'a>,
}

impl Asked<'_> {
    fn concerns(&self, limit: &Limit) -> bool {
        if limit.by_rule && !self.by_rule.contains(&limit.name) {
            return false;
        }
        let is = |who: &Who| who.is(self.request, self.own);
        (limit.only.is_empty() || limit.only.iter().any(is)) && !limit.except.iter().any(is)
    }

    /// What the request is charged before it goes on.
    pub fn order(&self, limits: &[Limit]) -> Order {
        let mut order = Order::default();
        for (index, limit) in limits.iter().enumerate() {
            let Some(amount) = limit.unit.amount(limit.stage, self.request) else { continue };
            // Refusals are counted when they happen; before, there must be room for one.
            let (need, units) = match limit.unit {
                Unit::Rejects => (UNIT, 0),
                _ => (millionths(amount), millionths(amount)),
            };
            self.add(&mut order, index, limit, need, units);
        }
        order
    }

    /// What the refusal of the request is charged.
    pub fn order_for_reject(&self, limits: &[Limit]) -> Order {
        let mut order = Order::default();
        for (index, limit) in limits.iter().enumerate().filter(|(_, limit)| limit.unit == Unit::Rejects) {
            if limit.unit.amount(limit.stage, self.request).is_some() {
                self.add(&mut order, index, limit, 0, UNIT);
            }
        }
        order
    }

    /// What looks into the bucket of a limit's first rate and charges nothing: that of the request, or of another key. None when the
    /// request has no such key.
    pub fn look(&self, index: usize, limit: &Limit, key: Option<&[String]>) -> Option<Order> {
        let rate = limit.rates.first()?;
        let mut name = String::with_capacity(64);
        rate.push_prefix(&mut name, &limit.name);
        match key {
            Some(values) => push_values(&mut name, values),
            None if push_key(&mut name, &limit.key, self.request, self.whereis) => {}
            None => return None,
        }
        let (bucket, window_end) = self.bucket(name, rate);
        let charge = Charge { bucket, need: 0, units: 0, limit: index, rate: 0, window_end };
        Some(Order { parts: vec![PartOf { id: None, keep: 0, charges: vec![charge] }] })
    }

    fn add(&self, order: &mut Order, index: usize, limit: &Limit, need: i64, units: i64) {
        // Nearly all mail comes from outside: limits for those who log in cost it nothing.
        let no_login = || self.request.sasl_username.is_empty() && limit.needs_login();
        if units == 0 && need == 0 || no_login() || !self.concerns(limit) {
            return;
        }
        for (number, rate) in limit.rates.iter().enumerate() {
            // Nothing is charged, so nothing can be passed.
            if rate.watch && units == 0 {
                continue;
            }
            let Some(charge) = self.charge(limit, (index, number), rate, need, units) else { return };
            let (id, keep) = self.part(limit, &charge, units);
            match order.parts.iter_mut().find(|part| part.id == id && part.keep == keep) {
                Some(part) => part.charges.push(charge),
                None => order.parts.push(PartOf { id, keep, charges: vec![charge] }),
            }
        }
    }

    fn charge(
        &self,
        limit: &Limit,
        (index, number): (usize, usize),
        rate: &RateOf,
        need: i64,
        units: i64,
    ) -> Option<Charge> {
        let mut name = String::with_capacity(64);
        rate.push_prefix(&mut name, &limit.name);
        if !push_key(&mut name, &limit.key, self.request, self.whereis) {
            return None;
        }
        let (bucket, window_end) = self.bucket(name, rate);
        let need = if rate.watch { 0 } else { need };
        Some(Charge { bucket, need, units, limit: index, rate: number, window_end })
    }

    /// The bucket of this name, and the end of its calendar window.
    fn bucket(&self, name: String, rate: &RateOf) -> (Bucket, i64) {
        let capacity = millionths(rate.burst);
        let (since, window_end, keep) = match rate.rate.span {
            Span::Sliding(_) => (0, 0, (capacity as f64 / rate.rate.drain()).ceil() as i64),
            Span::Calendar(window) => {
                let (start, end) = window.around(self.now, self.zone);
                (start, end, end.saturating_sub(self.now))
            }
        };
        (Bucket { name, capacity, drain: rate.rate.drain(), since, keep }, window_end)
    }

    /// What makes charges of this limit one.
    fn part(&self, limit: &Limit, charge: &Charge, units: i64) -> (Option<i64>, i64) {
        let request = self.request;
        let client = request.client_address.map(|client| client.to_string()).unwrap_or_default();
        let port = request.client_port.to_string();
        let bucket = charge.bucket.name.as_str();
        let stage = request.state.word();
        let word = limit.unit.word();
        match limit.unit {
            _ if units == 0 => (None, 0),
            // Asked at several requests of a connection, of which each may have another key.
            Unit::Connections => (Some(digest(&[word, bucket, &client, &port])), REPEATED),
            Unit::Auth => (Some(digest(&[word, bucket, &client, &port, &request.sasl_username])), REPEATED),
            Unit::Rejects => {
                let facts =
                    [word, bucket, &client, &port, stage, &request.instance, &request.sender, &request.recipient];
                (Some(digest(&facts)), REPEATED)
            }
            Unit::DistinctRecipients => {
                let since = charge.bucket.since.to_string();
                let period = match limit.rates[charge.rate].rate.span {
                    Span::Sliding(period) => period.as_millis(),
                    Span::Calendar(_) => charge.bucket.keep,
                };
                (Some(digest(&[word, bucket, &since, &request.recipient.to_lowercase()])), period)
            }
            Unit::Messages if limit.stage == Some(Stage::Rcpt) => {
                (Some(digest(&[word, bucket, &client, &port, &request.instance])), REPEATED)
            }
            Unit::Recipients if limit.stage == Some(Stage::Rcpt) => {
                let facts = [word, stage, &client, &port, &request.instance, &request.recipient];
                (Some(digest(&facts)), REPEATED)
            }
            Unit::Messages | Unit::Recipients | Unit::Bytes => {
                (Some(digest(&[word, stage, &client, &port, &request.instance])), REPEATED)
            }
        }
    }
}

/// As [`Span`] is shown, without the detour of formatting for the commonest.
fn push_span(out: &mut String, span: Span) {
    use std::fmt::Write;
    match span {
        Span::Calendar(window) => out.push_str(window.word()),
        // Writing to a String cannot fail.
        Span::Sliding(_) => drop(write!(out, "{span}")),
    }
}

fn millionths(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(UNIT).min(super::settle::UNLIMITED)
}

/// 63 bits of SHA-256 over the facts, each with its length, so that they cannot run into each other. Nobody outside chooses the
/// instance, and nothing worse follows from two equal digests than one charge too few.
pub(crate) fn digest(facts: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for fact in facts {
        hash.update((fact.len() as u64).to_le_bytes());
        hash.update(fact);
    }
    let bytes = hash.finalize();
    i64::from_le_bytes(std::array::from_fn(|at| bytes[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::key::Basis;
    use crate::request::ProtocolState;

    fn limit(name: &str, key: &[&str], unit: Unit, rates: &[&str]) -> Limit {
        let rate = |text: &&str| {
            let rate: Rate = text.parse().unwrap();
            RateOf { rate, burst: rate.number, watch: false }
        };
        Limit {
            name: name.to_owned(),
            key: key
                .iter()
                .map(|term| Term::parse(term, Basis { network: (24, 64), ..Basis::default() }).unwrap())
                .collect(),
            unit,
            stage: unit.stages().first().copied(),
            rates: rates.iter().map(rate).collect(),
            only: Vec::new(),
            except: Vec::new(),
            by_rule: false,
        }
    }

    fn request(state: ProtocolState) -> PolicyRequest<'static> {
        PolicyRequest {
            state,
            client_address: "192.0.2.1".parse().ok(),
            client_port: 4711,
            sender: "joe@example.org".into(),
            recipient: "r@example.net".into(),
            instance: "1.2.3.4".into(),
            sasl_username: "joe".into(),
            recipient_count: 2,
            ..PolicyRequest::default()
        }
    }

    fn order(limits: &[Limit], request: &PolicyRequest<'_>) -> Order {
        Asked {
            request,
            now: 1_700_000_000_000,
            zone: &TimeZone::UTC,
            by_rule: &[],
            own: &|| false,
            whereis: &|_| None,
        }
        .order(limits)
    }

    fn names(order: &Order) -> Vec<&str> {
        order.charges().map(|charge| charge.bucket.name.as_str()).collect()
    }

    #[test]
    fn a_request_is_charged_in_every_level_at_once() {
        let limits = [
            limit("user", &["sasl_username"], Unit::Recipients, &["10/1m", "150/day"]),
            limit("domain", &["domain(sender)"], Unit::Recipients, &["1000/1h"]),
            limit("farm", &[], Unit::Recipients, &["9000/1h"]),
            limit("data", &[], Unit::Messages, &["9000/1h"]),
        ];
        let order = order(&limits, &request(ProtocolState::Rcpt));
        assert_eq!(names(&order), ["user 1m joe", "user day joe", "domain 1h example.org", "farm 1h *"]);
        assert_eq!(order.parts.len(), 1, "one repetition covers them all");
        let day = &order.parts[0].charges[1];
        assert_eq!((day.bucket.since, day.window_end), (1_699_920_000_000, 1_700_006_400_000));
        assert!(order.charges().all(|charge| charge.need == UNIT && charge.units == UNIT));
    }

    #[test]
    fn repetitions_have_the_same_id_and_others_do_not() {
        let id = |unit, change: &dyn Fn(&mut PolicyRequest<'_>)| {
            let mut request = request(ProtocolState::Rcpt);
            change(&mut request);
            let order = order(&[limit("x", &[], unit, &["1/1h"])], &request);
            order.parts[0].id
        };
        let same = |unit, change: &dyn Fn(&mut PolicyRequest<'_>)| id(unit, &|_| {}) == id(unit, change);
        assert!(same(Unit::Recipients, &|request| request.queue_id = "1234".into()));
        assert!(!same(Unit::Recipients, &|request| request.recipient = "other@example.net".into()));
        assert!(!same(Unit::Recipients, &|request| request.instance = "1.2.3.5".into()));
        assert!(same(Unit::Connections, &|request| request.instance = "1.2.3.5".into()));
        assert!(!same(Unit::Connections, &|request| request.client_port = 1));
        assert!(same(Unit::DistinctRecipients, &|request| request.instance = "1.2.3.5".into()));
        assert!(same(Unit::DistinctRecipients, &|request| request.recipient = "R@EXAMPLE.net".into()));
        assert!(!same(Unit::DistinctRecipients, &|request| request.recipient = "q@example.net".into()));
    }

    #[test]
    fn filters_and_rules_choose() {
        let mut limits = [limit("x", &[], Unit::Recipients, &["1/1h"])];
        let request = request(ProtocolState::Rcpt);
        limits[0].except = vec!["authenticated".parse().unwrap()];
        assert!(order(&limits, &request).is_empty());
        limits[0].except = vec![];
        limits[0].only = vec!["203.0.113.0/24".parse().unwrap(), "sasl_username=joe".parse().unwrap()];
        assert_eq!(order(&limits, &request).parts.len(), 1);
        limits[0].by_rule = true;
        assert!(order(&limits, &request).is_empty());
        let by_rule = ["x".to_owned()];
        let asked = Asked {
            request: &request,
            now: 0,
            zone: &TimeZone::UTC,
            by_rule: &by_rule,
            own: &|| false,
            whereis: &|_| None,
        };
        assert!(!asked.order(&limits).is_empty());
    }

    #[test]
    fn looking_names_the_same_bucket_and_charges_nothing() {
        let limit = limit("user", &["domain(sender)", "sasl_username"], Unit::Messages, &["10/1m", "20/day"]);
        let request = request(ProtocolState::Rcpt);
        let asked =
            Asked { request: &request, now: 0, zone: &TimeZone::UTC, by_rule: &[], own: &|| false, whereis: &|_| None };
        let look = asked.look(7, &limit, None).unwrap();
        assert_eq!(names(&look), ["user 1m example.org|joe"]);
        assert!(look.charges().all(|charge| charge.need == 0 && charge.units == 0 && charge.limit == 7));
        let other = asked.look(7, &limit, Some(&["Example.COM".to_owned(), "ann".to_owned()])).unwrap();
        assert_eq!(names(&other), ["user 1m example.com|ann"]);
        let nobody = PolicyRequest { sasl_username: "".into(), ..request.clone() };
        assert_eq!(Asked { request: &nobody, ..asked }.look(7, &limit, None), None);
    }

    #[test]
    fn refusals_are_asked_before_and_charged_after() {
        let limits = [limit("x", &["client_address"], Unit::Rejects, &["5/1h"])];
        let request = request(ProtocolState::Rcpt);
        let before = order(&limits, &request);
        assert!(
            before.charges().all(|charge| charge.units == 0 && charge.need == UNIT) && before.parts[0].id.is_none()
        );
        let asked =
            Asked { request: &request, now: 0, zone: &TimeZone::UTC, by_rule: &[], own: &|| false, whereis: &|_| None };
        let after = asked.order_for_reject(&limits);
        assert!(after.charges().all(|charge| charge.units == UNIT && charge.need == 0) && after.parts[0].id.is_some());
    }

    #[test]
    fn warnings_are_charged_and_never_needed() {
        let mut watched = limit("x", &[], Unit::Recipients, &["5/1h", "2/1h"]);
        watched.rates[1].watch = true;
        let order = order(&[watched], &request(ProtocolState::Rcpt));
        assert_eq!(names(&order), ["x 1h *", "x warn:1h *"]);
        assert_eq!(order.parts[0].charges[1].need, 0);
    }
}
