// SPDX-License-Identifier: GPL-3.0-or-later
//! The administrator's rules (docs/rules.md): looks up what a rule cannot be decided without, and carries out what matching rules say.
//! What a rule means is in `rules`, which is pure; what greylisting, limits and contentd make of its orders is theirs.
//!
//! A refusal or `accept` of a rule decides: no check after this one is asked. Everything else is left in the course of the request.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::OnceLock;

use common::address::Address;
use common::spf::SpfResult;
use metrics::{Counter, counter};

use super::{dnsbl, geo, greylist, limits, pool, rdns};
use crate::around::Around;
use crate::course::{Answer, Course, GreylistOrder};
use crate::request::PolicyRequest;
use crate::rules::expression::{Fact, Moment};
use crate::rules::need::{Need, Word};
use crate::rules::text::Values;
use crate::rules::theirs::Theirs;
use crate::rules::walk::{Step, Walk};
use crate::rules::{Action, Rule, Rules};
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, Verdict};

/// What the rules say, and what they leave to the checks after them.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    let rules = &around.policy.rules;
    if rules.is_empty() {
        return Ok(Answer::Nothing);
    }
    let moment = if rules.look_at_time() { now() } else { Moment::default() };
    let mut walk = Walk::new(rules, course.tells_all());
    loop {
        match walk.step(request, moment) {
            Step::Need(number, need) => walk.learn(number, Box::pin(look_up(around, request, course, need)).await),
            Step::Passed(_, rule) => course.note(|| format!("rule {}: does not match", rule.name)),
            Step::Untold(place, rule) => untold(around, course, place, rule),
            Step::Matched(place, rule) if rule.shadow => shadow(around, course, place, rule),
            Step::Matched(place, rule) => {
                matched(around, course, place, rule);
                if let Some(finding) = Box::pin(carry_out(around, request, course, rule)).await {
                    return Ok(Answer::Final(finding));
                }
                walk.follow(rule);
            }
            Step::End => return Ok(Answer::Nothing),
        }
    }
}

/// Local time, by the time zone of this host.
fn now() -> Moment {
    let now = jiff::Zoned::now();
    Moment {
        minutes: i64::from(now.hour()) * 60 + i64::from(now.minute()),
        date: i64::from(now.year()) * 10_000 + i64::from(now.month()) * 100 + i64::from(now.day()),
        weekday: usize::try_from(now.weekday().to_monday_zero_offset()).unwrap_or_default(),
    }
}

async fn look_up(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course, need: &Need) -> Fact {
    let fact = match need {
        Need::Word(Word::Spf) => spf(around, request, course).await,
        Need::Word(Word::ReverseName) => Fact::Text(rdns::reverse_name(request).word().to_owned()),
        Need::Country => Fact::Text(geo::place(around, request).country.unwrap_or_default()),
        Need::Asn => Fact::Number(geo::place(around, request).asn.unwrap_or_default().into()),
        Need::DnsScore => {
            let listings = dnsbl::listings(around, request, course).await;
            // As in the perimeter a list without an answer weighs nothing; but when nothing is there, nothing can be told.
            let untold = listings.entries.is_empty() && listings.silent > 0;
            if untold { Fact::Untold } else { Fact::Number(listings.score().into()) }
        }
        Need::DnsList(name) => {
            let listings = dnsbl::listings(around, request, course).await;
            let listed = listings.entries.iter().any(|entry| entry.list == *name);
            // Which of them gave no answer is not said.
            if !listed && listings.silent > 0 { Fact::Untold } else { Fact::Flag(listed) }
        }
        Need::Count(count) => limits::count(around, request, count).await,
        Need::GreylistKnown => greylist::is_known(around, request, course).await.map_or(Fact::Untold, Fact::Flag),
    };
    course.note(|| format!("{} is {}", need.told(), fact.told()));
    fact
}

async fn spf(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Fact {
    match pool::spf_of(around, request, course, pool::part(around.deadline)).await {
        Some(spf) if spf.result != SpfResult::Temperror => Fact::Text(spf.result.word().to_owned()),
        Some(_) => Fact::Untold,
        // Nothing to ask for is SPF's "none".
        None if request.sender.is_empty() || request.client_address.is_none() => Fact::Text("none".to_owned()),
        None => Fact::Untold,
    }
}

/// Does what a rule says. Some: it decides.
async fn carry_out(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    rule: &Rule,
) -> Option<Finding> {
    let values = Values { request, id: around.id.as_str(), host: around.host, rule: &rule.name };
    for action in &rule.then {
        let decided = match action {
            Action::Accept => (Verdict::Pass, Reason::RuleAccepted),
            Action::Reject(text) => (Verdict::Reject(Cow::Owned(text.fill(values))), Reason::RuleRejected),
            Action::Defer(text) => (Verdict::Defer(text.fill(values)), Reason::RuleDeferred),
            Action::DeferIfPermit(text) => (Verdict::DeferIfPermit(text.fill(values)), Reason::RuleDeferred),
            Action::Ask(server) => match ask(around, request, course, rule, server).await {
                Some(verdict) => (verdict, Reason::RuleAsked),
                None => continue,
            },
            other => {
                leave(course, rule, other, values);
                continue;
            }
        };
        let (verdict, reason) = decided;
        return Some(Finding { verdict, ..Finding::pass(reason) }.because(format!("rule {}", rule.name)));
    }
    None
}

/// Asks another policy server; gives its refusal. Without an answer the rules go on.
async fn ask(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    rule: &Rule,
    server: &Address,
) -> Option<Verdict> {
    let Some(servers) = around.servers else {
        course.note(|| format!("rule {}: {server} is not asked here", rule.name));
        return None;
    };
    match servers.ask(server, &request.written(), pool::part(around.deadline)).await {
        Ok(Theirs::Refuses(verdict)) => return Some(verdict),
        Ok(Theirs::Header(header)) => course.headers.push(header),
        Ok(Theirs::GoesOn) => {}
        Err(error) => {
            let (error, server) = (error.to_string(), server.to_string());
            tracing::warn!(id = around.id.as_str(), rule = &*rule.name, server, error, "no answer of a policy server");
        }
    }
    None
}

/// Leaves an order to the checks after this one.
fn leave(course: &mut Course, rule: &Rule, action: &Action, values: Values<'_>) {
    match action {
        Action::Score(points) => course.score = course.score.saturating_add(*points),
        Action::Limit(name) if course.limits.contains(name) => {}
        Action::Limit(name) => course.limits.push(name.clone()),
        Action::Compare(server) => course.compare.push(server.clone()),
        Action::Order(order) => course.orders.push(order.clone()),
        Action::Filter(destination) => course.filter = Some(destination.clone()),
        Action::Prepend(header) => course.headers.push(header.fill(values)),
        Action::NoGreylist => course.greylist = GreylistOrder::Skip,
        // Whoever is whitelisted stays so.
        Action::Greylist(_) if course.greylist == GreylistOrder::Skip => {
            course.note(|| format!("rule {}: not greylisted, an entry before it says so", rule.name));
        }
        Action::Greylist(delay) => {
            course.greylist = GreylistOrder::Force { delay: *delay, why: format!("rule {}", rule.name) };
        }
        // About the list of rules itself, or done already.
        Action::Tag(_) | Action::Stop | Action::SkipTo(_) => {}
        Action::Accept | Action::Reject(_) | Action::Defer(_) | Action::DeferIfPermit(_) | Action::Ask(_) => {}
    }
}

fn matched(around: Around<'_>, course: &mut Course, place: usize, rule: &Rule) {
    around.policy.rule_counts.matched(place, rule);
    push_name(&mut course.rules, &rule.name);
    course.note(|| format!("rule {}: matches: {}", rule.name, words(rule)));
}

fn shadow(around: Around<'_>, course: &mut Course, place: usize, rule: &Rule) {
    around.policy.rule_counts.shadowed(place, rule);
    push_name(&mut course.shadow_rules, &rule.name);
    // Writing to a String cannot fail.
    let _ = write!(course.shadow_rules, ":{}", foremost(rule));
    course.note(|| format!("rule {} (shadow): would do: {}", rule.name, words(rule)));
}

fn untold(around: Around<'_>, course: &mut Course, place: usize, rule: &Rule) {
    around.policy.rule_counts.untold(place, rule);
    tracing::debug!(id = around.id.as_str(), rule = &*rule.name, "whether this rule matches cannot be told");
    push_name(&mut course.untold_rules, &rule.name);
    course.note(|| format!("rule {}: cannot be told, so it does not match", rule.name));
}

fn push_name(names: &mut String, name: &str) {
    if !names.is_empty() {
        names.push(',');
    }
    names.push_str(name);
}

fn words(rule: &Rule) -> String {
    rule.then.iter().map(Action::word).collect::<Vec<_>>().join(", ")
}

/// The action that a rule is counted by: the one that decides, else its first.
fn foremost(rule: &Rule) -> &'static str {
    let decides = rule.then.iter().find(|action| action.decides()).or(rule.then.first());
    decides.map_or("nothing", Action::word)
}

/// The counters of rules: one of each kind per rule, made when it first counts.
#[derive(Debug, Default)]
pub struct Counts(Vec<[OnceLock<Counter>; 3]>);

impl Counts {
    /// Counters for these rules.
    pub fn new(rules: &Rules) -> Self {
        Self(rules.list().iter().map(|_| Default::default()).collect())
    }

    fn count(&self, place: usize, kind: usize, make: impl FnOnce() -> Counter) {
        if let Some(counters) = self.0.get(place) {
            counters[kind].get_or_init(make).increment(1);
        }
    }

    fn matched(&self, place: usize, rule: &Rule) {
        let name = rule.name.clone();
        self.count(place, 0, || counter!("octroi_policyd_rule_matches_total", "rule" => name));
    }

    fn shadowed(&self, place: usize, rule: &Rule) {
        let (name, action) = (rule.name.clone(), foremost(rule));
        self.count(place, 1, || counter!("octroi_policyd_rule_shadow_total", "rule" => name, "action" => action));
    }

    fn untold(&self, place: usize, rule: &Rule) {
        let name = rule.name.clone();
        self.count(place, 2, || counter!("octroi_policyd_rule_untold_total", "rule" => name));
    }
}
