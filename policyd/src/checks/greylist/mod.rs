// SPDX-License-Identifier: GPL-3.0-or-later
//! Greylisting: a triplet that is seen for the first time is told to come again; mail servers do, most senders of spam do not.
//!
//! Asked at RCPT. The null sender, and postmaster as sender, are asked at DATA instead: other hosts verify addresses by calling
//! back with MAIL FROM:<> and RCPT, and hang up before DATA. That needs this service in `smtpd_data_restrictions` too; without it
//! such mail is not greylisted. With several recipients Postfix names none at DATA, and the triplet has an empty one.
//!
//! The stages: does this request concern us ([`question`]), who is the client ([`pool`]), is it trusted, and what does the store know
//! of its triplet. Each may end it; look-ups and the store are asked only about what is left.

mod answers;
mod question;
mod suspect;

use std::net::IpAddr;

use common::spf::SpfResult;
use common::units::Period;
use tokio::time::Instant;

use self::answers::{finding, waits};
use self::question::unsuspicious;
pub use self::question::{Question, question};
use self::suspect::{Plea, Suspect};
use super::adaptive::Signs;
use super::marks::{self, Marked};
use super::pool::{self, KeyKind, Spf};
use crate::around::Around;
use crate::config::{GreylistMode, TrustLevel};
use crate::course::{Answer, Course, GreylistOrder};
use crate::request::PolicyRequest;
use crate::store::greylist::Sighting;
use crate::store::queue::QueueError;
use crate::triplet::Triplet;
use crate::verdict::{Finding, Reason};

/// What greylisting says to a request; nothing at stages that are not its own.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    if course.greylist == GreylistOrder::Skip {
        return Ok(Answer::Nothing);
    }
    let forced = forced(course);
    let (client, signs) = match question(around.policy, request, forced.is_some(), course.score) {
        Question::None => return Ok(Answer::Nothing),
        Question::Decided(finding) => return Ok(unless_trapped(around, request, course, finding).await.into()),
        Question::Trap(client, entry) => return Ok(trap(around, request, course, client, entry).await.into()),
        Question::Suspect(client, signs) => (client, signs),
    };
    let lookups = pool::part(around.deadline);
    let signs = suspect::signs_of_network(around, request, client, signs);
    let settings = &around.policy.settings.greylist;
    let goes = |most: u32| settings.mode == GreylistMode::Adaptive && most < settings.threshold && forced.is_none();
    if goes(signs.score().saturating_add(settings.signs.most_of_spf())) {
        return Ok(unless_trapped(around, request, course, unsuspicious(signs)).await.into());
    }
    let spf = ask_spf(around, request, course, signs, lookups).await;
    let signs = spf.map_or(signs, |spf| signs_with(around, signs, spf));
    if goes(signs.score()) {
        return Ok(unless_trapped(around, request, course, unsuspicious(signs)).await.into());
    }
    let suspect = Suspect::new(around.policy, request, client, spf);
    let plea = suspect.plea(around, client, lookups).await;
    if let Plea::Excused(excuse) = plea {
        return Ok(excuse.into());
    }
    let times = suspect.times(around, request, forced.as_ref());
    // Most mail ends here. Only a trap could still make it wait; a mark of a reply would let it pass too.
    if !around.policy.has_traps() && around.queue.has_passed_lately(&suspect.triplet, times) {
        let found = finding(around, course, Sighting::Passed).because(suspect.fact(signs, forced.as_ref()));
        return Ok(suspect.explained(found, Sighting::Passed, times.delay).into());
    }
    match marks::marked(around, request, client).await {
        Marked::Reply => return Ok(Finding::pass(Reason::Reply).into()),
        Marked::Trapped(left) => return Ok(waits(around, course, left, Reason::Trapped).into()),
        Marked::Not => {}
    }
    let stranger = matches!(plea, Plea::Stranger);
    if suspect.is_one_too_many(around).await {
        suspect.judge(around, client, stranger);
        return Ok(waits(around, course, times.delay, Reason::TooManyPending).into());
    }
    let sighting = suspect.sighting(around, times).await?;
    suspect.count(around, sighting);
    match sighting {
        Sighting::New { .. } => suspect.judge(around, client, stranger),
        Sighting::PassedNow { .. } => suspect.earn_trust(around),
        Sighting::Early { .. } | Sighting::Passed => {}
    }
    let found = finding(around, course, sighting).because(suspect.fact(signs, forced.as_ref()));
    Ok(suspect.explained(found, sighting, times.delay).into())
}

/// A check before this one wants the request greylisted, whatever speaks against the client.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forced {
    delay: Option<Period>,
    why: String,
}

fn forced(course: &Course) -> Option<Forced> {
    match &course.greylist {
        GreylistOrder::Force { delay, why } => Some(Forced { delay: *delay, why: why.clone() }),
        GreylistOrder::AsConfigured | GreylistOrder::Skip => None,
    }
}

/// What was found of a client without a sign against it, unless its network is trapped and nothing speaks for it.
async fn unless_trapped(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    found: Finding,
) -> Finding {
    let Some(client) = request.client_address else { return found };
    if found.reason != Reason::Unsuspicious || !around.policy.has_traps() {
        return found;
    }
    match marks::marked(around, request, client).await {
        Marked::Trapped(left) => {
            let suspect = Suspect::new(around.policy, request, client, course.facts.spf.flatten());
            match suspect.plea(around, client, pool::part(around.deadline)).await {
                Plea::Excused(_) => found,
                Plea::Stranger | Plea::CannotTell => waits(around, course, left, Reason::Trapped),
            }
        }
        Marked::Reply | Marked::Not => found,
    }
}

/// A client writes to a trap: its network is trapped, unless something speaks for it. When that cannot be told, only this mail waits.
async fn trap(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    client: IpAddr,
    entry: String,
) -> Finding {
    let lookups = pool::part(around.deadline);
    let spf = ask_spf(around, request, course, Signs::default(), lookups).await;
    let suspect = Suspect::new(around.policy, request, client, spf);
    let spf_failed = spf.is_some_and(|spf| spf.result == SpfResult::Temperror);
    match suspect.plea(around, client, lookups).await {
        Plea::Excused(excuse) => return excuse,
        Plea::Stranger if !spf_failed => marks::trap(around, request, client),
        Plea::Stranger | Plea::CannotTell => {}
    }
    let left = around.policy.settings.greylist.trap_time.as_millis();
    waits(around, course, left, Reason::Trap).because(entry)
}

/// All that the store may be asked about for a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Its triplet, under all names.
    pub triplets: Vec<Triplet>,
    /// The keys of trust.
    pub trust: Vec<String>,
    /// The keys of marks.
    pub marks: Vec<String>,
}

/// Whether a triplet of the client has passed before, on any host of the farm, by the keys for which trust is earned; none when that is not
/// known now. Nobody is asked but DNS, where one of the keys is a domain with SPF.
pub async fn is_known(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Option<bool> {
    let Some(client) = request.client_address else { return Some(false) };
    let by_spf = around.policy.settings.greylist.trust.contains(&TrustLevel::Spf);
    let spf = if by_spf { pool::spf_of(around, request, course, pool::part(around.deadline)).await } else { None };
    let keys = Suspect::new(around.policy, request, client, spf).given_keys();
    let book = around.trust?;
    match (book.has_passed(&keys), book.never_passed(&keys)) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        // Without a key nothing was ever kept of it; else its passes are still being read.
        (false, false) => keys.is_empty().then_some(false),
    }
}

/// What the store may be asked about for a request; nothing is decided.
pub async fn asked(around: Around<'_>, request: &PolicyRequest<'_>) -> Asked {
    let Question::Suspect(client, signs) = question(around.policy, request, true, 0) else { return Asked::default() };
    let spf = ask_spf(around, request, &mut Course::default(), signs, pool::part(around.deadline)).await;
    let suspect = Suspect::new(around.policy, request, client, spf);
    let trust = suspect.given_keys();
    let triplets = suspect.others.into_iter().chain([suspect.triplet]).collect();
    Asked { triplets, trust, marks: marks::asked(around.policy, request, client) }
}

/// SPF, when it makes the key or can tip the scale.
async fn ask_spf(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    signs: Signs,
    until: Instant,
) -> Option<Spf> {
    let settings = &around.policy.settings.greylist;
    let tips = settings.mode == GreylistMode::Adaptive && signs.score() < settings.threshold;
    if !tips && !settings.key.contains(&KeyKind::Spf) {
        return None;
    }
    pool::spf_of(around, request, course, until).await
}

fn signs_with(around: Around<'_>, signs: Signs, spf: Spf) -> Signs {
    let settings = &around.policy.settings.greylist;
    match settings.mode {
        GreylistMode::Adaptive => signs.with_spf(spf.result, &settings.signs),
        _ => signs,
    }
}
