// SPDX-License-Identifier: GPL-3.0-or-later
//! One message through the pipeline: as one that came by SMTP, with the same deadline, witness and memory of what has crashed us.

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::units::Period;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::assessment::{Assessment, Line, REFUSED};
use crate::category::Category;
use crate::daemon::{Daemon, Running};
use crate::envelope::{Client, Envelope, MessageId, Path};
use crate::findings::{Findings, Spam};
use crate::identity::{Identity, Key};
use crate::ledger::Kind;
use crate::spool::Message;
use crate::verdict::{Destiny, Policy, Reason, Verdict, decide};

/// Why nothing can be said about a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// It has ended us, or used up its time, before.
    #[error("content could not be checked")]
    Poison,
    /// Not done by the deadline.
    #[error("content could not be checked in time")]
    Deadline,
    /// A scanner or a table cannot answer now.
    #[error("content could not be checked now")]
    NotNow(Reason),
    /// The rules broke off.
    #[error("rules could not be run")]
    NoRules,
    /// The message cannot be read back.
    #[error("spooled message cannot be read: {0}")]
    Spool(std::io::Error),
}

/// What has been found, and what it means to the client.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) spam: Spam,
    pub(crate) verdict: Verdict,
    pub(crate) assessment: Assessment,
}

/// The envelope of a message of which nobody has told one.
pub(crate) fn envelope() -> Envelope {
    Envelope::new(MessageId::generate(), Path::from_address(""), Client::default())
}

/// Looks at a message and decides.
pub(crate) async fn inspect(
    daemon: &Daemon,
    running: &Running,
    envelope: &Envelope,
    message: &Message,
) -> Result<Inspected, InspectError> {
    let deadline = Instant::now() + running.settings.contentd.deadline.0;
    let findings = look(daemon, running, envelope, message, deadline).await?;
    let verdict = decide(&findings, &running.policy);
    // What is known to be bad is spam, whatever SMTP clients are told about it.
    let is_known = matches!(verdict.reason, Reason::Virus | Reason::Banned) || is_by_score(verdict.category);
    if verdict.destiny == Destiny::Tempfail && !is_known {
        return Err(match verdict.reason {
            Reason::Deadline => InspectError::Deadline,
            reason => InspectError::NotNow(reason),
        });
    }
    let assessment = assess(&findings, &verdict, &running.policy).ok_or(InspectError::NoRules)?;
    let spam = findings.spam.ok_or(InspectError::NoRules)?;
    Ok(Inspected { spam, verdict, assessment })
}

async fn look(
    daemon: &Daemon,
    running: &Running,
    envelope: &Envelope,
    message: &Message,
    deadline: Instant,
) -> Result<Findings, InspectError> {
    let key = Identity::of(message).await.map_err(InspectError::Spool)?.key();
    let (id, keep) = (envelope.id.as_str(), running.settings.ledger.keep);
    let _turn = turn(daemon, running, key, deadline).await?;
    let _inspecting = daemon.witness.inspecting(id, key);
    let others = daemon.inspected.load(Ordering::Relaxed);
    let looking = running.pipeline.inspect_whole(envelope, message, deadline);
    let findings = timeout_at(deadline + Duration::from_secs(1), looking).await.ok();
    if Instant::now() < deadline {
        daemon.inspected.fetch_add(1, Ordering::Relaxed);
    } else {
        late(daemon, key, id, others, keep);
    }
    findings.ok_or(InspectError::Deadline)
}

/// While no other message was well in that time, it is the scanner or the machine, not this message.
fn late(daemon: &Daemon, key: Key, id: &str, others: u64, keep: Period) {
    if daemon.inspected.load(Ordering::Relaxed) != others {
        drop(daemon.ledger.add(Kind::Late, &[key], id, "", keep));
    }
}

/// Refuses what may not be inspected again; a message that crashed us once is inspected with no other of its kind.
async fn turn(
    daemon: &Daemon,
    running: &Running,
    key: Key,
    deadline: Instant,
) -> Result<Option<OwnedSemaphorePermit>, InspectError> {
    let (crashed, late) = (daemon.ledger.tries(Kind::Crashed, key), daemon.ledger.tries(Kind::Late, key));
    let after = running.settings.poison.after;
    if after > 0 && crashed.max(late) >= after {
        metrics::counter!("octroi_contentd_poison_total").increment(1);
        return Err(InspectError::Poison);
    }
    if crashed == 0 {
        return Ok(None);
    }
    let turn = timeout_at(deadline, daemon.ledger.alone.clone().acquire_owned()).await;
    turn.map(Result::ok).map_err(|_| InspectError::Deadline)
}

/// What the verdict means to the client; none when the rules have not run.
fn assess(findings: &Findings, verdict: &Verdict, policy: &Policy) -> Option<Assessment> {
    let spam = findings.spam.as_ref()?;
    let line = |name: &str, score: f64, description: &str| Line {
        name: name.to_owned(),
        score,
        description: description.to_owned(),
    };
    let rules = spam.report.hits.iter().map(|hit| line(&hit.rule, hit.score, &hit.described()));
    let symbols = findings.symbols.iter().map(|symbol| line(&symbol.name, symbol.score, &symbol.description));
    let ambiguities = policy.ambiguity.scores(findings);
    let ambiguities = ambiguities.iter().map(|(kind, points)| line(kind.word(), points.value(), "ambiguity"));
    let lines = rules.chain(symbols).chain(ambiguities).collect();
    // Where everything passes, a message may be called by something graver than its score.
    let by_score = is_by_score(verdict.category);
    let refused = !by_score && (is_worse(verdict.category) || verdict.destiny != Destiny::Pass);
    let against = refused.then(|| {
        let name = format!("OCTROI_{}", verdict.category.word().to_ascii_uppercase().replace('-', "_"));
        line(&name, REFUSED, &format!("{}: {}", verdict.reason.word(), verdict.detail))
    });
    Some(Assessment::new(lines, spam.score, spam.required, by_score || refused || spam.score >= spam.required, against))
}

/// Whether the category follows from the score.
fn is_by_score(category: Category) -> bool {
    matches!(category, Category::Spam | Category::Spammy)
}

/// Whether a client that knows spam only has to be told that it is.
fn is_worse(category: Category) -> bool {
    matches!(category, Category::Virus | Category::Banned)
}
