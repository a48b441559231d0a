// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules replay`: the present configuration and a candidate decide the same recorded requests, each on an empty store of its own,
//! and what they decide differently is counted and shown.
//!
//! Everything that a decision is made of takes part: lists, rules, perimeter, greylist. What depends on the past (a triplet that has passed, a
//! trusted client) is unknown to both sides in the same way.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use common::units::Period;
use policyd::checks::pool::Pools;
use policyd::classes::Decider;
use policyd::config::Settings;
use policyd::policy::Policy;
use policyd::request::PolicyRequest;
use policyd::rules::{Action, Rule};
use policyd::store::queue::GreylistQueue;
use policyd::store::scratch::Scratch;
use tokio_util::sync::CancellationToken;

use super::recorded;
use crate::session::{Failure, printable, say};

/// Largest input read, in bytes.
const MAX_INPUT: u64 = 1 << 30;
/// Time for a store to get ready.
const START_TIME: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) config: Option<&'a Path>,
    pub(super) candidate: &'a Path,
    pub(super) recorded: &'a Path,
    pub(super) dns: bool,
    pub(super) examples: usize,
}

pub(super) fn run(plan: &Plan<'_>) -> ExitCode {
    let policies = load(plan.config).and_then(|present| Ok((present, load(Some(plan.candidate))?)));
    let (present, candidate) = match policies {
        Ok(policies) => policies,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    let input = match input(plan.recorded) {
        Ok(input) => input,
        Err(error) => return fail(crate::NAME, exit::DATA, format!("{}: {error}", plan.recorded.display())),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(crate::NAME, exit::UNAVAILABLE, format!("cannot start: {error}")),
    };
    match runtime.block_on(replay(plan, present, candidate, &input)) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(Failure::Data(message)) => fail(crate::NAME, exit::DATA, message),
        Err(failure) => fail(crate::NAME, exit::UNAVAILABLE, failure),
    }
}

fn load(config: Option<&Path>) -> Result<Policy, Mistakes> {
    let mut settings = Settings::read(&Source::load(config)?)?;
    // A slow moment of this machine is no difference between configurations.
    settings.policyd.budget = Period::seconds(30);
    Policy::load(settings)
}

fn input(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input)?,
        false => std::fs::File::open(file)?.take(MAX_INPUT).read_to_end(&mut input)?,
    };
    // A file often lacks the empty line after its last request.
    input.extend(b"\n\n");
    Ok(input)
}

/// One configuration and what it decides with.
struct Side {
    policy: Policy,
    decider: Decider,
    stop: CancellationToken,
    _scratch: Scratch,
}

impl Side {
    async fn start(policy: Policy, dns: bool) -> Result<Self, Failure> {
        let scratch = Scratch::empty(&policy.settings.store).await?;
        let stop = CancellationToken::new();
        let queue = GreylistQueue::start(scratch.store(), &stop);
        let ready = tokio::time::timeout(START_TIME, async { queue.health().watch().wait_for(|up| *up).await.is_ok() });
        if !ready.await.unwrap_or(false) {
            return Err(Failure::Usage("the store in memory of this command cannot be used".to_owned()));
        }
        let resolver = if dns { policy.settings.dns.resolver().ok() } else { None };
        let trust = policyd::store::book::TrustBook::start(scratch.store(), queue.health().clone(), &stop);
        let decider = Decider::new(queue).with(Pools::new(resolver), trust);
        Ok(Self { policy, decider, stop, _scratch: scratch })
    }

    async fn decide(&self, request: &PolicyRequest<'_>) -> Decided {
        let decision = self.decider.decide(&self.policy, request, None).await;
        let mut action = String::new();
        decision.finding.verdict.action(&mut action);
        Decided {
            // The handle differs each time.
            action: action.replace(decision.id.as_str(), "ID"),
            reason: decision.finding.reason.word(),
            rules: decision.rules,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.decider.queue().ended().await;
    }
}

/// What was decided, as it is compared and shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Decided {
    action: String,
    reason: &'static str,
    rules: String,
}

impl Decided {
    /// The action without its text, which may have something of the request in it; the rules that led there.
    fn kind(&self) -> String {
        let verb = self.action.split(' ').next().unwrap_or_default();
        match self.rules.as_str() {
            "" => format!("{verb} ({})", self.reason),
            rules => format!("{verb} ({}; rules {rules})", self.reason),
        }
    }
}

/// What is found out.
#[derive(Debug, Default)]
struct Report {
    changes: BTreeMap<(String, String), (u64, Vec<String>)>,
    rules: BTreeMap<String, (u64, u64)>,
}

impl Report {
    fn note(&mut self, request: &PolicyRequest<'_>, before: &Decided, after: &Decided, examples: usize) {
        for name in before.rules.split(',').filter(|name| !name.is_empty()) {
            self.rules.entry(name.to_owned()).or_default().0 += 1;
        }
        for name in after.rules.split(',').filter(|name| !name.is_empty()) {
            self.rules.entry(name.to_owned()).or_default().1 += 1;
        }
        if (&before.action, before.reason) == (&after.action, after.reason) {
            return;
        }
        let (count, shown) = self.changes.entry((before.kind(), after.kind())).or_default();
        *count += 1;
        if shown.len() < examples {
            let client = request.client_address.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
            let (sender, recipient) = (printable(&request.sender), printable(&request.recipient));
            let (state, action) = (request.state.word(), printable(&after.action));
            shown.push(format!("{state} client={client} sender=<{sender}> recipient=<{recipient}>: {action}"));
        }
    }

    fn show(&self, count: usize) {
        let changed: u64 = self.changes.values().map(|(count, _)| count).sum();
        say(format_args!("{count} requests, {changed} decisions change"));
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for ((before, after), (count, shown)) in changes {
            say(format_args!("{count:>8}  {before} -> {after}"));
            for example in shown {
                say(format_args!("          {example}"));
            }
        }
        if !self.rules.is_empty() {
            say(format_args!("rules that match, before and after:"));
        }
        for (name, (before, after)) in &self.rules {
            say(format_args!("{before:>8} {after:>8}  {name}"));
        }
    }
}

/// The names of rules that ask another policy server, or compare with one: recorded requests are no business of theirs.
fn asking(policy: &Policy) -> String {
    let asks = |rule: &&Rule| rule.then.iter().any(|action| matches!(action, Action::Ask(_) | Action::Compare(_)));
    policy.rules.list().iter().filter(asks).map(|rule| &*rule.name).collect::<Vec<_>>().join(", ")
}

async fn replay(plan: &Plan<'_>, present: Policy, candidate: Policy, input: &[u8]) -> Result<(), Failure> {
    for (side, policy) in [("present", &present), ("candidate", &candidate)] {
        let names = asking(policy);
        if !names.is_empty() {
            say(format_args!("{side}: other policy servers are not asked here; go on without an answer: {names}"));
        }
    }
    let (present, candidate) = (Side::start(present, plan.dns).await?, Side::start(candidate, plan.dns).await?);
    let mut report = Report::default();
    let count = recorded::each(input, async |request| {
        let (before, after) = tokio::join!(present.decide(request), candidate.decide(request));
        report.note(request, &before, &after, plan.examples);
    });
    let count = count.await.map_err(Failure::Data)?;
    report.show(count);
    present.end().await;
    candidate.end().await;
    Ok(())
}
