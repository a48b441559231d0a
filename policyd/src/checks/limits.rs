// SPDX-License-Identifier: GPL-3.0-or-later
//! Rate limits: whether a client, an account, a domain ... has sent as much as it may. Asked last, when all other checks have let
//! the request pass: what they refuse is charged nothing, and a mail that is told to come again does not use up the limit for its
//! next try. Only limits that count refusals are charged when another check refuses.
//!
//! What a request is charged is decided by [`crate::limits::plan`], whether there is room by the store.

use std::borrow::Cow;
use std::sync::Arc;

use common::config::{Mistake, Mistakes};
use jiff::tz::TimeZone;

use super::pool;
use crate::around::Around;
use crate::config::{OnStoreError, OverAction, Reply, Settings};
use crate::course::{Answer, Course};
use crate::limits::key::{Geo, WhereIs};
use crate::limits::plan::{Asked, Limit, Order};
use crate::limits::rate::{Rate, Span, UNIT};
use crate::limits::settle::UNLIMITED;
use crate::notify::{Kind, Notice};
use crate::policy::Policy;
use crate::request::PolicyRequest;
use crate::rules::expression::Fact;
use crate::rules::need::{Count, Need};
use crate::store::limits::queue::{Fill, LimitQueue, Refusal, Told};
use crate::store::queue::QueueError;
use crate::template::Values;
use crate::verdict::{Finding, Reason, Verdict};

/// The limits of a policy.
#[derive(Debug)]
pub struct Limits {
    /// As configured.
    pub limits: Vec<Limit>,
    /// The answer of each.
    replies: Vec<Reply>,
    zone: TimeZone,
}

impl Limits {
    /// Makes the limits of the settings ready for use.
    pub fn load(settings: &Settings) -> Result<Self, Mistakes> {
        let mistake = |(key, message): (&str, String)| Mistake {
            origin: "settings".to_owned(),
            key: format!("limit.{key}"),
            message,
        };
        let basis = settings.key_basis();
        let (mut limits, mut replies) = (Vec::new(), Vec::new());
        for entry in &settings.limit {
            let (limit, reply) = entry.compile(basis).map_err(mistake)?;
            limits.push(limit);
            replies.push(reply);
        }
        let zone = settings.limits.zone().map_err(|error| mistake(("time_zone", error)))?;
        Ok(Self { limits, replies, zone })
    }

    fn asked<'a>(
        &'a self,
        request: &'a PolicyRequest<'a>,
        now: i64,
        by_rule: &'a [String],
        (own, whereis): (&'a dyn Fn() -> bool, WhereIs<'a>),
    ) -> Asked<'a> {
        Asked { request, now, zone: &self.zone, by_rule, own, whereis }
    }
}

/// What limits say to a request. Nothing, when none is reached.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    let limits = &around.policy.limits;
    let Some(queue) = around.limits.filter(|_| !limits.limits.is_empty()) else { return Ok(Answer::Nothing) };
    tell_missing_stages(queue, limits, request);
    let (own, whereis) = (|| is_own(around.policy, request), whereis(around.policy, request));
    let order = Arc::new(limits.asked(request, queue.now(), &course.limits, (&own, &whereis)).order(&limits.limits));
    if order.is_empty() {
        return Ok(Answer::Nothing);
    }
    let settings = &around.policy.settings;
    let hosts = (settings.policyd.on_store_error == OnStoreError::Local).then_some(settings.limits.hosts);
    let told = Box::pin(queue.ask(order.clone(), around.deadline, hosts)).await?;
    course.note(|| fills(&order, &told));
    warn(around, &order, &told);
    Ok(match told.refused {
        None => Answer::Nothing,
        Some(refusal) => over(around, &order, refusal).into(),
    })
}

/// After enough requests: the limits whose stage Postfix never asks.
fn tell_missing_stages(queue: &LimitQueue, limits: &Limits, request: &PolicyRequest<'_>) {
    if !queue.seen().saw(request.state) {
        return;
    }
    for (limit, stage) in queue.seen().without(&limits.limits) {
        metrics::gauge!("octroi_policyd_limit_unasked", "limit" => limit.name.clone()).set(1.0);
        tracing::warn!(
            limit = limit.name.as_str(),
            stage = stage.state().word(),
            list = stage.list(),
            "Postfix has never asked at this stage, so the limit limits nothing: policyd check --postfix"
        );
    }
}

/// Where the client is, for keys that count by it.
fn whereis(policy: &Policy, request: &PolicyRequest<'_>) -> impl Fn(Geo) -> Option<String> {
    move |geo| {
        let place = policy.perimeter.geo.place(request.client_address?);
        match geo {
            Geo::Country => place.country,
            Geo::Asn => place.asn.map(|asn| asn.to_string()),
        }
    }
}

fn is_own(policy: &Policy, request: &PolicyRequest<'_>) -> bool {
    policy.lists.now().client(|tables| &tables.own_networks, request).is_some()
}

/// All buckets that the store may be asked about for a request.
pub fn buckets(policy: &Policy, request: &PolicyRequest<'_>, now: i64) -> Vec<String> {
    let (own, whereis) = (|| is_own(policy, request), whereis(policy, request));
    // A rule may ask for any.
    let all: Vec<String> = policy.limits.limits.iter().map(|limit| limit.name.clone()).collect();
    let asked = policy.limits.asked(request, now, &all, (&own, &whereis));
    let orders = [asked.order(&policy.limits.limits), asked.order_for_reject(&policy.limits.limits)];
    let counts = policy.rules.needs().iter().filter_map(|need| match need {
        Need::Count(count) => look(&policy.limits, asked, count, request),
        _ => None,
    });
    let orders: Vec<Order> = orders.into_iter().chain(counts).collect();
    orders.iter().flat_map(Order::charges).map(|charge| charge.bucket.name.clone()).collect()
}

/// The order that looks into the bucket of which a rule asks how full it is; none when the request has no such key.
fn look(limits: &Limits, asked: Asked<'_>, count: &Count, request: &PolicyRequest<'_>) -> Option<Order> {
    let index = limits.limits.iter().position(|limit| limit.name == count.limit)?;
    let key = match &count.key {
        Some(parts) => Some(parts.iter().map(|part| part.value(request)).collect::<Option<Vec<_>>>()?),
        None => None,
    };
    asked.look(index, &limits.limits[index], key.as_deref())
}

/// How many units a bucket holds, for a rule: one question that reads, shared with all others that wait at that moment. 0 when the request
/// has no such key; not to be told while the store is away.
pub async fn count(around: Around<'_>, request: &PolicyRequest<'_>, count: &Count) -> Fact {
    let limits = &around.policy.limits;
    let Some(queue) = around.limits else { return Fact::Untold };
    let whereis = whereis(around.policy, request);
    let asked = limits.asked(request, queue.now(), &[], (&|| false, &whereis));
    let Some(order) = look(limits, asked, count, request) else { return Fact::Number(0) };
    match Box::pin(queue.look(order, pool::part(around.deadline))).await {
        Ok(told) => Fact::Number(told.fills.first().map_or(0, |fill| fill.level.saturating_add(UNIT - 1) / UNIT)),
        Err(_) => Fact::Untold,
    }
}

/// Counts a refusal by another check against the limits that count refusals.
pub fn refused(around: Around<'_>, request: &PolicyRequest<'_>, course: &Course, finding: &Finding) {
    let limits = &around.policy.limits;
    let Some(queue) = around.limits.filter(|_| !limits.limits.is_empty()) else { return };
    if !matches!(finding.verdict, Verdict::Reject(_)) || finding.reason == Reason::OverLimit {
        return;
    }
    let (own, whereis) = (|| is_own(around.policy, request), whereis(around.policy, request));
    let order = limits.asked(request, queue.now(), &course.limits, (&own, &whereis)).order_for_reject(&limits.limits);
    if !order.is_empty() {
        queue.charge_later(order);
    }
}

/// The finding above a limit.
fn over(around: Around<'_>, order: &Order, refusal: Refusal) -> Finding {
    let limits = &around.policy.limits;
    let Some(charge) = order.charges().nth(refusal.charge) else { return Finding::pass(Reason::NothingToCheck) };
    let (limit, reply) = (&limits.limits[charge.limit], &limits.replies[charge.limit]);
    let rate = &limit.rates[charge.rate];
    metrics::counter!("octroi_policyd_limit_over_total", "limit" => limit.name.clone()).increment(1);
    if reply.notice {
        notify(around, Kind::Blocked, limit, &charge.bucket.name, rate.rate);
    }
    // What never fits may be sent in smaller pieces, or when somebody has raised the limit.
    let left = refusal.wait.unwrap_or_else(|| longest(rate.rate.span));
    let left = u64::try_from(left).unwrap_or_default();
    let values = Values { seconds: left.div_ceil(1000), host: around.host, id: around.id.as_str() };
    let text = || reply.text.fill(values);
    let verdict = match reply.action {
        OverAction::Defer => Verdict::Defer(text()),
        OverAction::DeferIfPermit => Verdict::DeferIfPermit(text()),
        OverAction::Reject => Verdict::Reject(Cow::Owned(text())),
        OverAction::Dunno => Verdict::Pass,
    };
    let never = if refusal.wait.is_none() { ", more at once than it ever holds" } else { "" };
    let fact = format!("{}: {} {}{never}", charge.bucket.name, rate.rate, limit.unit.word());
    Finding { verdict, ..Finding::pass(Reason::OverLimit) }.because(fact)
}

/// Sends a notice for each bucket whose number of warning was passed.
fn warn(around: Around<'_>, order: &Order, told: &Told) {
    for (charge, fill) in order.charges().zip(&told.fills) {
        let limit = &around.policy.limits.limits[charge.limit];
        let rate = &limit.rates[charge.rate];
        if rate.watch && fill.level > fill.capacity {
            notify(around, Kind::Warning, limit, &charge.bucket.name, rate.rate);
        }
    }
}

fn notify(around: Around<'_>, kind: Kind, limit: &Limit, bucket: &str, rate: Rate) {
    let Some(notifier) = around.notifier else { return };
    // Limit and time stand before the key.
    let key = bucket.splitn(3, ' ').nth(2).unwrap_or_default();
    notifier.send(Notice {
        kind,
        limit: limit.name.clone(),
        key: key.to_owned(),
        unit: limit.unit.word(),
        rate: rate.to_string(),
        keep: longest(rate.span),
        host: around.host.to_owned(),
    });
}

/// The time of a rate in milliseconds.
fn longest(span: Span) -> i64 {
    match span {
        Span::Sliding(period) => period.as_millis(),
        Span::Calendar(window) => window.longest(),
    }
}

/// How full the buckets are, for the trace.
fn fills(order: &Order, told: &Told) -> String {
    let mut out = String::from("limits:");
    for (charge, Fill { level, capacity }) in order.charges().zip(&told.fills) {
        let used = level.saturating_add(UNIT - 1) / UNIT;
        let (name, units) = (&charge.bucket.name, charge.units / UNIT);
        match *capacity {
            UNLIMITED => out.push_str(&format!(" {name}: {units} charged, no limit;")),
            capacity => out.push_str(&format!(" {name}: {units} charged, {used} of {};", capacity / UNIT)),
        }
    }
    out.pop();
    out
}
