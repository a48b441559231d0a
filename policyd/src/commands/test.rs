// SPDX-License-Identifier: GPL-3.0-or-later
//! `policyd test`: requests from a file are decided as the daemon would decide them, with the trace of every check. The real
//! store is only read; what a request would change happens in a copy that is thrown away.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::exit::{self, fail};
use common::store::StoreError;
use policyd::checks::limits;
use policyd::checks::pool::Pools;
use policyd::classes::{Decider, Trace};
use policyd::dnslist::asker::Asker;
use policyd::dnslist::self_test;
use policyd::lists::follow::in_force_now;
use policyd::lists::records;
use policyd::perimeter::Perimeter;
use policyd::policy::Policy;
use policyd::recipients::book::Book;
use policyd::request::PolicyRequest;
use policyd::servers::Servers;
use policyd::store::book::TrustBook;
use policyd::store::limits::queue::LimitQueue;
use policyd::store::marker::Marker;
use policyd::store::queue::GreylistQueue;
use policyd::store::scratch::Scratch;
use policyd::wire::{Framer, WireError};
use tokio_util::sync::CancellationToken;

use super::say;
use crate::{PROGRAM, read};

/// Largest input read, in bytes.
const MAX_INPUT: u64 = 64 * 1024 * 1024;
/// Time for the copy to get ready.
const START_TIME: Duration = Duration::from_secs(10);

/// Recipients remembered from one request to the next.
const MOST_RECIPIENTS: usize = 10_000;

/// What is wanted beyond the decisions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Which rules do not match.
    pub(crate) all_rules: bool,
    /// What other policy servers say.
    pub(crate) ask: bool,
}

pub(crate) async fn run(config: Option<PathBuf>, file: &Path, asked: Asked) -> ExitCode {
    let live = match read(config) {
        Ok(live) => live,
        Err(mistakes) => return fail(PROGRAM, exit::CONFIG, mistakes),
    };
    let input = match input(file) {
        Ok(input) => input,
        Err(error) => return fail(PROGRAM, exit::DATA, format!("{}: {error}", file.display())),
    };
    let policy = live.current();
    let scratch = match Scratch::open(&policy.settings.store).await {
        Ok(scratch) => scratch,
        Err(error) => return fail(PROGRAM, exit::UNAVAILABLE, error),
    };
    say(format_args!("store: {}", scratch.told()));
    if let Err(error) = take_lists(&policy, &scratch).await {
        return fail(PROGRAM, exit::UNAVAILABLE, error);
    }
    let stop = CancellationToken::new();
    let queue = GreylistQueue::start(scratch.store(), &stop);
    let ready = tokio::time::timeout(START_TIME, async { queue.health().watch().wait_for(|up| *up).await.is_ok() });
    if !ready.await.unwrap_or(false) {
        return fail(PROGRAM, exit::UNAVAILABLE, "the copy of the store cannot be used");
    }
    // Nobody cleans the copy: what is marked is looked for, and what is marked here stays in memory.
    let (marker, _) = Marker::new(scratch.store(), queue.health(), &stop);
    let trust = TrustBook::start(scratch.store(), queue.health().clone(), &stop);
    // Without DNS the identities that need none decide, as in the daemon.
    let pools = Pools::new(policy.settings.dns.resolver().ok());
    let asker = Asker::new(policy.settings.dns.resolver().ok(), None);
    self_test::test_due(&policy.perimeter.lists.all, &asker).await;
    let limits = LimitQueue::start(scratch.store(), queue.health().clone(), &stop);
    // Directories are asked for real; what the daemon remembers of recipients is left out. Nothing is written.
    let (book, _unwritten) = Book::new(MOST_RECIPIENTS);
    book.is_loaded();
    let decider = Decider::new(queue).with(pools, trust).guarding(Perimeter::new(asker));
    let decider = decider.limiting(limits).knowing(book).remembering(marker);
    let decider = if asked.ask { decider.asking(Servers::default()) } else { decider };
    let decided = decide_all(&input, &policy, &decider, &scratch, asked.all_rules).await;
    stop.cancel();
    decider.queue().ended().await;
    match decided {
        Ok(()) => ExitCode::from(exit::OK),
        Err((status, error)) => fail(PROGRAM, status, error),
    }
}

fn input(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input)?;
    } else {
        std::fs::File::open(file)?.take(MAX_INPUT).read_to_end(&mut input)?;
    }
    // A file often lacks the empty line after its last request.
    if !input.is_empty() {
        if !input.ends_with(b"\n") {
            input.push(b'\n');
        }
        if !input.ends_with(b"\n\n") {
            input.push(b'\n');
        }
    }
    Ok(input)
}

async fn decide_all(
    mut input: &[u8],
    policy: &Policy,
    decider: &Decider,
    scratch: &Scratch,
    all_rules: bool,
) -> Result<(), (u8, String)> {
    let mut framer = Framer::new();
    let mut number = 0;
    loop {
        // Empty lines between requests are for people.
        while let Some(rest) = input.strip_prefix(b"\n") {
            input = rest;
        }
        if input.is_empty() {
            return Ok(());
        }
        number += 1;
        let wrong = |error: WireError| (exit::DATA, format!("request {number}: {error}"));
        let unfinished = || (exit::DATA, format!("request {number}: no empty line at its end"));
        let length = framer.find(input).map_err(wrong)?.ok_or_else(unfinished)?;
        let request = PolicyRequest::parse(framer.block(&input[..length]));
        fetch(policy, decider, scratch, &request).await.map_err(|error| (exit::UNAVAILABLE, error.to_string()))?;
        show(number, policy, decider, &request, all_rules).await;
        framer.restart();
        input = &input[length..];
    }
}

/// Puts the lists of the store in force, and works out the domains in lists of clients.
async fn take_lists(policy: &Policy, scratch: &Scratch) -> Result<(), StoreError> {
    let (tables, wrong) = in_force_now(&scratch.lists().await?);
    for mistake in wrong.iter() {
        say(format_args!("notice: {mistake}"));
    }
    policy.lists.stored().store(Arc::new(tables));
    if let Ok(resolver) = policy.settings.dns.resolver() {
        records::look(&policy.lists, &resolver).await;
    }
    Ok(())
}

/// Takes over into the copy what this request will ask for.
async fn fetch(
    policy: &Policy,
    decider: &Decider,
    scratch: &Scratch,
    request: &PolicyRequest<'_>,
) -> Result<(), StoreError> {
    let asked = decider.asked(policy, request).await;
    for triplet in &asked.triplets {
        scratch.fetch(triplet).await?;
    }
    for key in &asked.trust {
        scratch.fetch_trust(key).await?;
    }
    let now = decider.limits().map_or(0, LimitQueue::now);
    for bucket in limits::buckets(policy, request, now) {
        scratch.fetch_limit(&bucket).await?;
    }
    for key in &asked.marks {
        scratch.fetch_mark(key).await?;
    }
    Ok(())
}

async fn show(number: usize, policy: &Policy, decider: &Decider, request: &PolicyRequest<'_>, all_rules: bool) {
    let client = request.client_address.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let (sender, recipient) = (request.sender.escape_debug(), request.recipient.escape_debug());
    say(format_args!(
        "request {number}: {} client={client} sender=<{sender}> recipient=<{recipient}>",
        request.state.word()
    ));
    let mut trace = Trace { all_rules, ..Trace::default() };
    let decision = decider.decide(policy, request, Some(&mut trace)).await;
    for line in trace.lines {
        say(format_args!("  {line}"));
    }
    let mut action = String::new();
    decision.finding.verdict.action(&mut action);
    say(format_args!("  action={action}"));
}
