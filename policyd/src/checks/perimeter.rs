// SPDX-License-Identifier: GPL-3.0-or-later
//! The perimeter: what speaks against a client and for it is weighed, and the sum, with what rules have added, decides: refused, greylisted whatever
//! `greylist.mode` says, or not greylisted at all. In between it goes on.
//!
//! Asked wherever Postfix asks before the content, about what is known there. At DATA, where recipients may not be named any more, nothing is
//! refused; but mail that is greylisted there is. Clients that have logged in, our own networks and role accounts
//! (RFC 2142 wants them reached by whoever is listed) are not looked at; what rules say of them counts.

use common::mail;

use super::dnsbl;
use crate::around::Around;
use crate::course::{Answer, Course, GreylistOrder};
use crate::perimeter;
use crate::refusal::Filling;
use crate::request::{PolicyRequest, ProtocolState};
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, Verdict};

/// One thing that weighs something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// For log and trace.
    pub fact: String,
    /// For the sender, when it speaks against the client.
    pub told: String,
    /// What it adds to the score.
    pub weight: i32,
}

/// What the score leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Reject,
    Greylist,
    Pass,
    Whitelist,
}

/// What the perimeter says to a request.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    let idle = around.policy.perimeter.is_idle() && course.score == 0;
    if idle || matches!(request.state, ProtocolState::EndOfMessage | ProtocolState::Other) {
        return Ok(Answer::Nothing);
    }
    let points = match exempt(around, request) {
        Some(why) => {
            course.note(|| format!("perimeter: not looked at: {why}"));
            Vec::new()
        }
        None => weigh(around, request, course).await,
    };
    let own = points.iter().fold(0i32, |score, point| score.saturating_add(point.weight));
    course.score = course.score.saturating_add(own);
    Ok(decide(around, request, course, &points))
}

/// Why nothing of the client is looked at.
fn exempt(around: Around<'_>, request: &PolicyRequest<'_>) -> Option<&'static str> {
    if !request.sasl_username.is_empty() {
        return Some("it has logged in");
    }
    if around.policy.lists.now().client(|tables| &tables.own_networks, request).is_some() {
        return Some("it is in own_networks");
    }
    let local = mail::without_extension(mail::split(&request.recipient).0);
    let roles = &around.policy.settings.greylist.role_accounts;
    roles.iter().any(|account| account.eq_ignore_ascii_case(local)).then_some("the recipient is a role account")
}

/// Looks everything up at once, and gives all that weighs something.
async fn weigh(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Vec<Point> {
    let Some(scope) = perimeter::scope(around, request, course) else { return Vec::new() };
    let lists = &around.policy.perimeter.lists;
    let (client, domains) =
        tokio::join!(dnsbl::of_client(lists, request, &scope), dnsbl::of_domains(lists, request, &scope));
    let mut points = Vec::new();
    for listing in client.entries.iter().chain(&domains.entries) {
        course.note(|| format!("perimeter: {listing}"));
        let told =
            if listing.weight > 0 { format!("{} is listed by {}", listing.what, listing.list) } else { String::new() };
        points.push(Point { fact: listing.to_string(), told, weight: listing.weight });
    }
    let silent = client.silent + domains.silent;
    if silent > 0 {
        course.note(|| format!("perimeter: {silent} questions to DNS lists without an answer"));
    }
    points
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

/// What the score leads to; without `enforce` only what speaks for a client counts.
fn decide(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course, points: &[Point]) -> Answer {
    let (score, mut outcome) = (course.score, outcome(around, course.score));
    if outcome == Outcome::Reject && request.state == ProtocolState::Data {
        outcome = Outcome::Greylist;
    }
    let fact = fact(score, points);
    let enforced = around.policy.settings.perimeter.enforce;
    count(outcome, enforced);
    match outcome {
        Outcome::Reject | Outcome::Greylist if !enforced => would(around, request, outcome, fact),
        Outcome::Reject => Answer::Final(refusal(around, request, points).because(fact)),
        Outcome::Greylist => {
            course.greylist = GreylistOrder::Force { delay: None, why: fact.clone() };
            Answer::Pass(Finding::pass(Reason::Scored).because(fact))
        }
        Outcome::Whitelist => {
            course.greylist = GreylistOrder::Skip;
            Answer::Pass(Finding::pass(Reason::ScoredGood).because(fact))
        }
        Outcome::Pass if points.is_empty() && score == 0 => Answer::Nothing,
        Outcome::Pass => Answer::Pass(Finding::pass(Reason::Scored).because(fact)),
    }
}

fn refusal(around: Around<'_>, request: &PolicyRequest<'_>, points: &[Point]) -> Finding {
    let told: Vec<&str> = points.iter().map(|point| point.told.as_str()).filter(|told| !told.is_empty()).collect();
    let why = if told.is_empty() { "policy".to_owned() } else { told.join(", ") };
    let text = around.policy.perimeter.text.fill(Filling {
        client: request.client_address,
        why: &why,
        host: around.host,
        id: around.id.as_str(),
    });
    Finding { verdict: Verdict::Reject(text.into()), ..Finding::pass(Reason::ScoreTooHigh) }
}

/// Mail goes on, and the log says what would have become of it, whoever decides in the end.
fn would(around: Around<'_>, request: &PolicyRequest<'_>, outcome: Outcome, fact: String) -> Answer {
    let would = if outcome == Outcome::Reject { "reject" } else { "greylist" };
    let client = request.client_address.map(|ip| ip.to_string()).unwrap_or_default();
    tracing::info!(id = around.id.as_str(), client, would, fact, "perimeter.enforce is off");
    Answer::Pass(Finding::pass(Reason::WouldRefuse).because(fact))
}

fn fact(score: i32, points: &[Point]) -> String {
    let facts: Vec<&str> = points.iter().map(|point| point.fact.as_str()).collect();
    match facts.is_empty() {
        true => format!("score {score}"),
        false => format!("score {score}: {}", facts.join("; ")),
    }
}

fn count(outcome: Outcome, enforced: bool) {
    let word = match (outcome, enforced) {
        (Outcome::Reject, true) => "reject",
        (Outcome::Reject, false) => "would_reject",
        (Outcome::Greylist, true) => "greylist",
        (Outcome::Greylist, false) => "would_greylist",
        (Outcome::Pass, _) => "pass",
        (Outcome::Whitelist, _) => "whitelist",
    };
    metrics::counter!("octroi_policyd_perimeter_total", "outcome" => word).increment(1);
}
