// SPDX-License-Identifier: GPL-3.0-or-later
//! The ordered checks: each is asked in turn. The first that refuses decides; where none does, the last that had something to say gives
//! the reason. A check that cannot tell becomes an answer here and nowhere else. Every decision is logged and counted here.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::around::Around;
use crate::checks::pool::Pools;
use crate::checks::{access, greylist, limits, marks, perimeter, recipients, rules, shield};
use crate::config::{GreylistMode, OnStoreError};
use crate::course::{Answer, Course};
use crate::explain;
use crate::notify::Notifier;
use crate::orders;
use crate::pending::Pending;
use crate::perimeter::Perimeter;
use crate::policy::Policy;
use crate::recipients::book::Book;
use crate::request::PolicyRequest;
use crate::rules::theirs;
use crate::servers::{Decided, Servers};
use crate::session::{Due, Sessions};
use crate::store::book::TrustBook;
use crate::store::decisions::{DecisionLog, Logged};
use crate::store::explain::Keeper;
use crate::store::limits::queue::LimitQueue;
use crate::store::marker::Marker;
use crate::store::queue::{GreylistQueue, QueueError};
use crate::tally::Tally;
use crate::verdict::{DecisionId, Finding, Reason, Verdict, cannot_tell};

/// A check, in the words of log and trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Access lists.
    Access,
    /// Whether the client asks far too often.
    Shield,
    /// The administrator's rules.
    Rules,
    /// DNS lists, HELO, names, SPF: what they weigh together.
    Perimeter,
    /// Whether the recipient exists and may be written to.
    Recipients,
    /// Greylisting.
    Greylist,
    /// Rate limits.
    Limits,
    /// No check decided.
    None,
}

impl Check {
    /// The order in which checks are asked.
    const ORDER: [Self; 7] =
        [Self::Access, Self::Shield, Self::Rules, Self::Recipients, Self::Perimeter, Self::Greylist, Self::Limits];

    /// The word for log and trace.
    pub fn word(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Shield => "shield",
            Self::Perimeter => "perimeter",
            Self::Rules => "rules",
            Self::Recipients => "recipients",
            Self::Greylist => "greylist",
            Self::Limits => "limits",
            Self::None => "none",
        }
    }
}

/// One request decided.
#[derive(Debug)]
pub struct Decision {
    /// Handle in the log.
    pub id: DecisionId,
    /// Who decided.
    pub check: Check,
    /// What and why.
    pub finding: Finding,
    /// How long it took.
    pub took: Duration,
    /// Names of the rules that matched, with commas between them.
    pub rules: String,
}

/// What every check came to, for `policyd test`.
#[derive(Debug, Default)]
pub struct Trace {
    /// One line per check asked.
    pub lines: Vec<String>,
    /// Tell also which rules do not match.
    pub all_rules: bool,
}

/// Decides requests; shared by all connections.
#[derive(Debug)]
pub struct Decider {
    queue: GreylistQueue,
    pools: Pools,
    trust: Option<TrustBook>,
    marker: Option<Marker>,
    perimeter: Option<Perimeter>,
    limits: Option<LimitQueue>,
    recipients: Option<Book>,
    notifier: Option<Notifier>,
    servers: Option<Servers>,
    shields: bool,
    pending: Pending,
    sessions: Sessions,
    tally: Tally,
    host: String,
    ids: Ids,
    keeper: Option<Keeper>,
    decision_log: Option<DecisionLog>,
}

impl Decider {
    /// A decider that asks the store through `queue`.
    pub fn new(queue: GreylistQueue) -> Self {
        let (tally, host) = (Tally::new(), common::mail::hostname());
        let (pools, trust, pending, sessions) = (Pools::default(), None, Pending::default(), Sessions::default());
        Self {
            queue,
            pools,
            trust,
            marker: None,
            perimeter: None,
            limits: None,
            recipients: None,
            notifier: None,
            servers: None,
            shields: false,
            pending,
            sessions,
            tally,
            host,
            ids: Ids::new(),
            keeper: None,
            decision_log: None,
        }
    }

    /// The same with a way to find out who clients are, and who is trusted.
    #[must_use]
    pub fn with(self, pools: Pools, trust: TrustBook) -> Self {
        Self { pools, trust: Some(trust), ..self }
    }

    /// The same with a memory of whom we wrote to and who wrote to a trap.
    #[must_use]
    pub fn remembering(self, marker: Marker) -> Self {
        Self { marker: Some(marker), ..self }
    }

    /// The same with a way to ask DNS lists.
    #[must_use]
    pub fn guarding(self, perimeter: Perimeter) -> Self {
        Self { perimeter: Some(perimeter), ..self }
    }

    /// The same with a way to ask other policy servers.
    #[must_use]
    pub fn asking(self, servers: Servers) -> Self {
        Self { servers: Some(servers), ..self }
    }

    /// The same with the shield of the policy: requests come as fast as clients cause them.
    #[must_use]
    pub fn shielding(self) -> Self {
        Self { shields: true, ..self }
    }

    /// The same with rate limits.
    #[must_use]
    pub fn limiting(self, limits: LimitQueue) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// The same with what is known of recipients.
    #[must_use]
    pub fn knowing(self, recipients: Book) -> Self {
        Self { recipients: Some(recipients), ..self }
    }

    /// The same with notices of limits that are passed.
    #[must_use]
    pub fn notifying(self, notifier: Notifier) -> Self {
        Self { notifier: Some(notifier), ..self }
    }

    /// The same with decisions kept to be explained later.
    #[must_use]
    pub fn explaining(self, keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// The same with a log of all decisions.
    #[must_use]
    pub fn logging(self, log: DecisionLog) -> Self {
        Self { decision_log: Some(log), ..self }
    }

    /// The way to the store.
    pub fn queue(&self) -> &GreylistQueue {
        &self.queue
    }

    /// The way to the limits.
    pub fn limits(&self) -> Option<&LimitQueue> {
        self.limits.as_ref()
    }

    /// The counters.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Decides one request under one policy, within its budget; logs and counts the decision.
    pub async fn decide(
        &self,
        policy: &Policy,
        request: &PolicyRequest<'_>,
        mut trace: Option<&mut Trace>,
    ) -> Decision {
        let started = Instant::now();
        let id = self.ids.next();
        let deadline = tokio::time::Instant::from_std(started) + policy.settings.policyd.budget.0;
        let around = self.around(policy, id, deadline);
        let all_rules = trace.as_ref().is_some_and(|trace| trace.all_rules);
        let mut course = Course::new(trace.is_some()).telling_all(all_rules);
        let (check, mut finding) = ask_in_order(around, request, &mut course, &mut trace).await;
        self.hand_over(policy, request, id, &finding, &mut course);
        let headers = std::mem::take(&mut course.headers).into_iter().map(Due::Header);
        let due = headers.chain(std::mem::take(&mut course.postfix_orders).into_iter().map(Due::Order)).collect();
        finding.verdict = self.sessions.with_due(finding.verdict, due, request);
        limits::refused(around, request, &course, &finding);
        let rules = std::mem::take(&mut course.rules);
        let decision = Decision { id, check, finding, took: started.elapsed(), rules };
        self.tally.decided(request.state, &decision.finding.verdict, decision.finding.reason, decision.took);
        log(request, &decision, &course);
        match trace {
            Some(trace) => Box::pin(self.compare_aloud(request, &decision, &mut course, trace)).await,
            None => self.compare(request, &decision, &mut course),
        }
        self.keep(policy, request, &decision, &course);
        self.log_in_store(policy, request, &decision);
        if let Some(marker) = &self.marker {
            marks::remember_recipient(marker, policy, request, &decision.finding.verdict);
        }
        decision
    }

    /// Tells contentd, or Postfix, what it is to do, when there is something.
    fn hand_over(
        &self,
        policy: &Policy,
        request: &PolicyRequest<'_>,
        id: DecisionId,
        finding: &Finding,
        course: &mut Course,
    ) {
        if !course.orders.is_empty() || course.filter.is_some() || policy.settings.handover.results {
            let now = u64::try_from(now_ms() / 1000).unwrap_or_default();
            orders::hand_over(policy, (id, now), request, &finding.verdict, course);
        }
    }

    /// Has the decision compared with what other policy servers say.
    fn compare(&self, request: &PolicyRequest<'_>, decision: &Decision, course: &mut Course) {
        let Some(servers) = &self.servers else { return };
        for server in std::mem::take(&mut course.compare) {
            let class = theirs::class(&decision.finding.verdict);
            servers.compare(server, request.written(), Decided { id: decision.id.as_str().to_owned(), class });
        }
    }

    /// The same for a person, who waits for it.
    async fn compare_aloud(
        &self,
        request: &PolicyRequest<'_>,
        decision: &Decision,
        course: &mut Course,
        trace: &mut Trace,
    ) {
        for server in std::mem::take(&mut course.compare) {
            trace.lines.push(match &self.servers {
                Some(servers) => {
                    let class = theirs::class(&decision.finding.verdict);
                    servers.compared(&server, &request.written(), class).await
                }
                None => format!("compare: {server} is not asked here"),
            });
        }
    }

    /// Keeps a decision that somebody may ask about.
    fn keep(&self, policy: &Policy, request: &PolicyRequest<'_>, decision: &Decision, course: &Course) {
        let keep = policy.settings.greylist.keep_explained.as_millis();
        let Some(keeper) = self.keeper.as_ref().filter(|_| keep > 0 && explain::is_kept(&decision.finding)) else {
            return;
        };
        // Before the work is done: in a flood most are dropped.
        if !keeper.has_room() {
            return;
        }
        let before = Check::ORDER.into_iter().take_while(|check| *check != decision.check);
        let before = before.map(|check| line(check, course.said_by(check)));
        let trace: Vec<String> = before.chain([line(decision.check, Some(&decision.finding))]).collect();
        let now = now_ms();
        let (id, finding) = (decision.id, &decision.finding);
        keeper.keep(explain::explained(id, &self.host, request, finding, &trace.join("\n"), (now, keep)));
    }

    /// Puts a decision into the log of decisions, where there is one.
    fn log_in_store(&self, policy: &Policy, request: &PolicyRequest<'_>, decision: &Decision) {
        let wanted = !policy.settings.decision_log.keep.0.is_zero();
        let Some(log) = self.decision_log.as_ref().filter(|_| wanted) else { return };
        if !log.has_room() {
            return;
        }
        let text = |text: &str| explain::bounded(text, explain::MAX_TEXT);
        log.add(Logged {
            at: now_ms(),
            id: decision.id.bits(),
            host: self.host.clone(),
            client: request.client_address.map(|ip| ip.to_string()).unwrap_or_default(),
            client_name: text(request.client_name.as_deref().unwrap_or_default()),
            helo: text(&request.helo_name),
            sender: text(&request.sender),
            recipient: text(&request.recipient),
            instance: text(&request.instance),
            queue_id: text(&request.queue_id),
            state: request.state.word().to_owned(),
            decided_by: decision.check.word().to_owned(),
            verdict: decision.finding.verdict.word().to_owned(),
            reason: decision.finding.reason.word().to_owned(),
            fact: text(&decision.finding.fact),
            took_us: i64::try_from(decision.took.as_micros()).unwrap_or(i64::MAX),
        });
    }

    /// What the store would be asked about; nothing is decided.
    pub async fn asked(&self, policy: &Policy, request: &PolicyRequest<'_>) -> greylist::Asked {
        let deadline = tokio::time::Instant::now() + policy.settings.policyd.budget.0;
        greylist::asked(self.around(policy, self.ids.next(), deadline), request).await
    }

    fn around<'a>(&'a self, policy: &'a Policy, id: DecisionId, deadline: tokio::time::Instant) -> Around<'a> {
        Around {
            policy,
            queue: &self.queue,
            pools: &self.pools,
            trust: self.trust.as_ref(),
            marker: self.marker.as_ref(),
            perimeter: self.perimeter.as_ref(),
            limits: self.limits.as_ref(),
            recipients: self.recipients.as_ref(),
            notifier: self.notifier.as_ref(),
            pending: &self.pending,
            sessions: &self.sessions,
            servers: self.servers.as_ref(),
            shields: self.shields,
            host: &self.host,
            id,
            deadline,
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Who decides, and how: the first that refuses or ends it, else the last that had something to say.
async fn ask_in_order(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    trace: &mut Option<&mut Trace>,
) -> (Check, Finding) {
    for check in Check::ORDER {
        let answer = match check {
            Check::Access => access::check(around, request, course).await,
            Check::Shield => Ok(shield::check(around, request, course)),
            Check::Perimeter => perimeter::check(around, request, course).await,
            Check::Rules => rules::check(around, request, course).await,
            Check::Recipients => recipients::check(around, request, course).await,
            Check::Greylist => greylist::check(around, request, course).await,
            Check::Limits => limits::check(around, request, course).await,
            Check::None => Ok(Answer::Nothing),
        };
        let answer = answer.unwrap_or_else(|error| instead(around, error).into());
        if let Some(trace) = trace {
            trace.lines.extend(course.take_notes());
            trace.lines.push(match &answer {
                Answer::Nothing => line(check, None),
                Answer::Pass(finding) | Answer::Final(finding) => line(check, Some(finding)),
            });
        }
        match answer {
            Answer::Nothing => {}
            Answer::Pass(finding) => course.keep(check, finding),
            Answer::Final(finding) => return (check, finding),
        }
    }
    course.last_word().unwrap_or_else(|| (Check::None, Finding::pass(Reason::NothingToCheck)))
}

/// What is answered when a check cannot tell. Learn mode never defers, whatever happens.
fn instead(around: Around<'_>, error: QueueError) -> Finding {
    let reason = match error {
        QueueError::Unavailable => Reason::StoreUnavailable,
        QueueError::Late => Reason::OverBudget,
    };
    let settings = &around.policy.settings;
    let verdict = match settings.policyd.on_store_error {
        OnStoreError::Defer if settings.greylist.mode != GreylistMode::Learn => cannot_tell(around.id),
        OnStoreError::Defer | OnStoreError::Dunno | OnStoreError::Local => Verdict::Pass,
    };
    Finding { verdict, ..Finding::pass(reason) }
}

fn line(check: Check, found: Option<&Finding>) -> String {
    match found {
        None => format!("{}: nothing to say", check.word()),
        Some(Finding { verdict, reason, fact, .. }) if fact.is_empty() => {
            format!("{}: {} ({})", check.word(), verdict.word(), reason.word())
        }
        Some(Finding { verdict, reason, fact, .. }) => {
            format!("{}: {} ({}): {fact}", check.word(), verdict.word(), reason.word())
        }
    }
}

/// The one line per decision; docs/logging.md is the contract.
fn log(request: &PolicyRequest<'_>, decision: &Decision, course: &Course) {
    // Nothing is formatted when nobody listens.
    if !tracing::enabled!(target: "decision", tracing::Level::INFO) {
        return;
    }
    let client = request.client_address.map(common::mail::ip_name).unwrap_or_default();
    tracing::info!(
        target: "decision",
        id = decision.id.as_str(),
        client = client.as_str(),
        client_name = request.client_name.as_deref().unwrap_or("unknown"),
        helo = &*request.helo_name,
        sender = &*request.sender,
        rcpt = &*request.recipient,
        instance = &*request.instance,
        queue_id = &*request.queue_id,
        state = request.state.word(),
        check = decision.check.word(),
        verdict = decision.finding.verdict.word(),
        reason = decision.finding.reason.word(),
        score = course.score,
        fact = decision.finding.fact.as_str(),
        rules = told(&decision.rules),
        shadow_rules = told(&course.shadow_rules),
        untold_rules = told(&course.untold_rules),
        took_us = u64::try_from(decision.took.as_micros()).unwrap_or(u64::MAX),
        "policy"
    );
}

/// A field that is left out when there is nothing to tell.
fn told(names: &str) -> Option<&str> {
    (!names.is_empty()).then_some(names)
}

/// Numbers that do not repeat in a process and hardly ever on a farm: a random start and an odd step over 50 bits.
#[derive(Debug)]
struct Ids(AtomicU64);

impl Ids {
    /// Odd, so that all numbers of 50 bits come up before one repeats; large, so that neighbours look different.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new() -> Self {
        // The standard library's hasher is seeded by the system.
        Self(AtomicU64::new(RandomState::new().hash_one(std::process::id())))
    }

    fn next(&self) -> DecisionId {
        DecisionId::from_bits(self.0.fetch_add(Self::STEP, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_do_not_repeat() {
        let ids = Ids::new();
        let seen: HashSet<String> = (0..100_000).map(|_| ids.next().as_str().to_owned()).collect();
        assert_eq!(seen.len(), 100_000);
    }
}
