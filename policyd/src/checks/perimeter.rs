// SPDX-License-Identifier: GPL-3.0-or-later
//! The perimeter: what speaks against a client and for it is weighed, and the sum, with what rules have added, decides: refused, greylisted whatever
//! `greylist.mode` says, or not greylisted at all. In between it goes on.
//!
//! Asked wherever Postfix asks before the content, about what is known there. At DATA, where recipients may not be named any more, nothing is
//! refused; but mail that is greylisted there is. Clients that have logged in, our own networks and role accounts
//! (RFC 2142 wants them reached by whoever is listed) are not looked at; what rules say of them counts.

use common::mail;

use super::dnsbl::{self, Listing};
use super::{geo, helo, rdns, sender_mx, spf_policy};
use crate::around::Around;
use crate::config::Effect;
use crate::course::{Answer, Course, GreylistOrder};
use crate::perimeter;
use crate::refusal::Filling;
use crate::request::{PolicyRequest, ProtocolState};
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, Verdict};

/// One thing that speaks against a client or for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// What it leads to.
    pub effect: Effect,
    /// Why, when it decides alone.
    pub reason: Reason,
    /// Subject and detail of an enhanced status code (RFC 3463), when it decides alone: `7.23`.
    pub code: &'static str,
    /// For log and trace.
    pub fact: String,
    /// For the sender.
    pub told: String,
}

impl Sign {
    /// A sign, unless it leads to nothing.
    pub fn new(effect: Effect, reason: Reason, code: &'static str, fact: String, told: String) -> Option<Self> {
        (effect != Effect::NONE).then_some(Self { effect, reason, code, fact, told })
    }

    fn weight(&self) -> i32 {
        match self.effect {
            Effect::Score(weight) => weight,
            Effect::Greylist | Effect::Defer | Effect::Reject => 0,
        }
    }
}

/// What score and signs lead to, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Whitelist,
    Pass,
    Greylist,
    Defer,
    Reject,
}

/// What the perimeter says to a request.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    let idle = around.policy.perimeter.is_idle() && course.score == 0;
    if idle || matches!(request.state, ProtocolState::EndOfMessage | ProtocolState::Other) {
        return Ok(Answer::Nothing);
    }
    let signs = match exempt(around, request) {
        Some(why) => {
            course.note(|| format!("perimeter: not looked at: {why}"));
            Vec::new()
        }
        None => look(around, request, course).await,
    };
    let own = signs.iter().fold(0i32, |score, sign| score.saturating_add(sign.weight()));
    course.score = course.score.saturating_add(own);
    Ok(decide(around, request, course, &signs))
}

/// Why nothing of the client is looked at.
fn exempt(around: Around<'_>, request: &PolicyRequest<'_>) -> Option<&'static str> {
    if !request.sasl_username.is_empty() {
        return Some("it has logged in");
    }
    if around.policy.lists.now().client(|tables| &tables.own_networks, request).is_some() {
        return Some("it is in own_networks");
    }
    if request.client_address.is_some_and(|ip| ip.is_loopback() || Some(ip) == request.server_address) {
        return Some("it is this host");
    }
    let local = mail::without_extension(mail::split(&request.recipient).0);
    let roles = &around.policy.settings.greylist.role_accounts;
    roles.iter().any(|account| account.eq_ignore_ascii_case(local)).then_some("the recipient is a role account")
}

/// Looks everything up at once, and gives all that leads to something.
async fn look(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Vec<Sign> {
    let Some(scope) = perimeter::scope(around, request, course) else { return Vec::new() };
    let plan = &around.policy.perimeter;
    let (client, domains, helo, sender, spf) = tokio::join!(
        dnsbl::of_client(&plan.lists, request, &scope),
        dnsbl::of_domains(&plan.lists, request, &scope),
        perimeter::helo_in_dns(around, request, &scope),
        perimeter::sender_domain(around, request, &scope),
        perimeter::spf(around, request, &scope),
    );
    let settings = &around.policy.settings.perimeter;
    let mut signs: Vec<Sign> = client.entries.iter().chain(&domains.entries).filter_map(listed).collect();
    if request.state != ProtocolState::Connect {
        signs.extend(helo::sign(&settings.helo, around.host, request));
        signs.extend(helo::unresolvable(&settings.helo, request).filter(|_| helo == Some(false)));
        signs.extend(helo::random(&settings.helo, &scope.perimeter.helos, request));
    }
    signs.extend(rdns::sign(&settings.reverse_name, request));
    signs.extend(geo::signs(&settings.geo, &plan.geo, request));
    if let Some(sender) = sender {
        signs.extend(sender_mx::signs(&settings.sender, mail::split(&request.sender).1, &sender));
    }
    if let Some(spf) = spf {
        signs.extend(spf_policy::sign(&settings.spf, request, &spf));
        // Before a message begins there is nothing that could have a header.
        if !request.instance.is_empty() {
            course.headers.extend(spf_policy::header(&settings.spf, request, &spf, around.host));
        }
    }
    for sign in &signs {
        course.note(|| format!("perimeter: {} ({})", sign.fact, word(sign.effect)));
    }
    let silent = client.silent + domains.silent;
    if silent > 0 {
        course.note(|| format!("perimeter: {silent} questions to DNS lists without an answer"));
    }
    signs
}

fn listed(listing: &Listing) -> Option<Sign> {
    let told = match listing.weight > 0 {
        true => format!("{} is listed by {}", listing.what, listing.list),
        false => String::new(),
    };
    Sign::new(Effect::Score(listing.weight), Reason::ScoreTooHigh, "7.1", listing.to_string(), told)
}

fn word(effect: Effect) -> String {
    match effect {
        Effect::Score(weight) => format!("{weight:+}"),
        Effect::Greylist => "greylist".to_owned(),
        Effect::Defer => "defer".to_owned(),
        Effect::Reject => "reject".to_owned(),
    }
}

fn outcome(around: Around<'_>, score: i32) -> Outcome {
    let settings = &around.policy.settings.perimeter;
    let from = |threshold: i32| threshold > 0 && score >= threshold;
    if from(settings.reject_score) {
        Outcome::Reject
    } else if from(settings.greylist_score) {
        Outcome::Greylist
    } else if settings.whitelist_score < 0 && score <= settings.whitelist_score {
        Outcome::Whitelist
    } else {
        Outcome::Pass
    }
}

/// What one sign leads to by itself.
fn alone(sign: &Sign) -> Outcome {
    match sign.effect {
        Effect::Score(_) => Outcome::Whitelist,
        Effect::Greylist => Outcome::Greylist,
        Effect::Defer => Outcome::Defer,
        Effect::Reject => Outcome::Reject,
    }
}

/// What score and signs lead to; without `enforce` only what speaks for a client counts.
fn decide(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course, signs: &[Sign]) -> Answer {
    let decisive = signs.iter().rev().max_by_key(|sign| alone(sign));
    let mut outcome = outcome(around, course.score).max(decisive.map_or(Outcome::Whitelist, alone));
    if outcome > Outcome::Greylist && request.state == ProtocolState::Data {
        outcome = Outcome::Greylist;
    }
    let fact = fact(course.score, signs);
    let enforced = around.policy.settings.perimeter.enforce;
    count(outcome, enforced);
    match outcome {
        Outcome::Reject | Outcome::Defer | Outcome::Greylist if !enforced => would(around, request, outcome, fact),
        Outcome::Reject | Outcome::Defer => {
            let decisive = decisive.filter(|sign| alone(sign) == outcome);
            Answer::Final(refusal(around, request, signs, decisive).because(fact))
        }
        Outcome::Greylist => {
            course.greylist = GreylistOrder::Force { delay: None, why: fact.clone() };
            Answer::Pass(Finding::pass(Reason::Scored).because(fact))
        }
        Outcome::Whitelist => {
            course.greylist = GreylistOrder::Skip;
            Answer::Pass(Finding::pass(Reason::ScoredGood).because(fact))
        }
        Outcome::Pass if signs.is_empty() && course.score == 0 => Answer::Nothing,
        Outcome::Pass => Answer::Pass(Finding::pass(Reason::Scored).because(fact)),
    }
}

/// A refusal for one sign that decides alone, or for the sum of all.
fn refusal(around: Around<'_>, request: &PolicyRequest<'_>, signs: &[Sign], decisive: Option<&Sign>) -> Finding {
    let against = |sign: &&Sign| !sign.told.is_empty() && sign.weight() >= 0;
    let told = match decisive {
        Some(sign) => sign.told.clone(),
        None => signs.iter().filter(against).map(|sign| sign.told.as_str()).collect::<Vec<_>>().join(", "),
    };
    let text = around.policy.perimeter.text.fill(Filling {
        client: request.client_address,
        why: if told.is_empty() { "policy" } else { &told },
        host: around.host,
        id: around.id.as_str(),
    });
    let reason = decisive.map_or(Reason::ScoreTooHigh, |sign| sign.reason);
    let verdict = match decisive {
        Some(sign) if sign.effect == Effect::Defer => Verdict::Defer(with_code(&text, '4', sign.code)),
        Some(sign) => Verdict::Reject(with_code(&text, '5', sign.code).into()),
        None => Verdict::Reject(text.into()),
    };
    Finding { verdict, ..Finding::pass(reason) }
}

/// The text of the settings with the code of what decides.
fn with_code(text: &str, class: char, code: &str) -> String {
    let rest = text.split_once(' ').map_or("", |(_, rest)| rest);
    format!("{class}.{code} {rest}")
}

/// Mail goes on, and the log says what would have become of it, whoever decides in the end.
fn would(around: Around<'_>, request: &PolicyRequest<'_>, outcome: Outcome, fact: String) -> Answer {
    let would = match outcome {
        Outcome::Reject => "reject",
        Outcome::Defer => "defer",
        Outcome::Greylist | Outcome::Pass | Outcome::Whitelist => "greylist",
    };
    let client = request.client_address.map(|ip| ip.to_string()).unwrap_or_default();
    tracing::info!(id = around.id.as_str(), client, would, fact, "perimeter.enforce is off");
    Answer::Pass(Finding::pass(Reason::WouldRefuse).because(fact))
}

fn fact(score: i32, signs: &[Sign]) -> String {
    let facts: Vec<&str> = signs.iter().map(|sign| sign.fact.as_str()).collect();
    match facts.is_empty() {
        true => format!("score {score}"),
        false => format!("score {score}: {}", facts.join("; ")),
    }
}

fn count(outcome: Outcome, enforced: bool) {
    let word = match (outcome, enforced) {
        (Outcome::Reject, true) => "reject",
        (Outcome::Reject, false) => "would_reject",
        (Outcome::Defer, true) => "defer",
        (Outcome::Defer, false) => "would_defer",
        (Outcome::Greylist, true) => "greylist",
        (Outcome::Greylist, false) => "would_greylist",
        (Outcome::Pass, _) => "pass",
        (Outcome::Whitelist, _) => "whitelist",
    };
    metrics::counter!("octroi_policyd_perimeter_total", "outcome" => word).increment(1);
}
