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
use tokio::time::Instant;

use self::answers::{finding, waits};
use self::question::unsuspicious;
pub use self::question::{Question, question};
use self::suspect::{Plea, Suspect};
use super::adaptive::Signs;
use super::marks::{self, Marked};
use super::pool::{self, KeyKind, Spf};
use crate::around::Around;
use crate::config::GreylistMode;
use crate::course::{Answer, Course, GreylistOrder};
use crate::request::PolicyRequest;
use crate::store::greylist::{Sighting, Times};
use crate::store::queue::QueueError;
use crate::triplet::Triplet;
use crate::verdict::{Finding, Reason};

/// What greylisting says to a request; nothing at stages that are not its own.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    if course.greylist == GreylistOrder::Skip {
        return Ok(Answer::Nothing);
    }
    let forced = matches!(course.greylist, GreylistOrder::Force { .. });
    let (client, signs) = match question(around.policy, request) {
        Question::Decided(finding) if forced && finding.reason == Reason::Unsuspicious => {
            let Some(client) = request.client_address else { return Ok(finding.into()) };
            (client, Signs::default())
        }
        Question::None => return Ok(Answer::Nothing),
        Question::Decided(finding) => return Ok(unless_trapped(around, request, course, finding).await.into()),
        Question::Trap(client, entry) => return Ok(trap(around, request, course, client, entry).await.into()),
        Question::Suspect(client, signs) => (client, signs),
    };
    let lookups = pool::part(around.deadline);
    let spf = ask_spf(around, request, course, signs, lookups).await;
    let signs = spf.map_or(signs, |spf| signs_with(around, signs, spf));
    let settings = &around.policy.settings.greylist;
    if settings.mode == GreylistMode::Adaptive && signs.score() < settings.threshold && !forced {
        return Ok(unless_trapped(around, request, course, unsuspicious(signs)).await.into());
    }
    let suspect = Suspect::new(around.policy, request, client, spf);
    if let Plea::Excused(excuse) = suspect.plea(around, client, lookups).await {
        return Ok(excuse.into());
    }
    match marks::marked(around, request, client).await {
        Marked::Reply => return Ok(Finding::pass(Reason::Reply).into()),
        Marked::Trapped(left) => return Ok(waits(around, course, left, Reason::Trapped).into()),
        Marked::Not => {}
    }
    if suspect.is_one_too_many(around).await {
        return Ok(waits(around, course, around.policy.times.delay, Reason::TooManyPending).into());
    }
    let sighting = suspect.sighting(around, times(around, course)).await?;
    suspect.count(around, sighting);
    if let (Sighting::PassedNow { .. }, Some(trust)) = (sighting, around.trust) {
        trust.passed(suspect.trust_keys.clone(), around.policy.times.keep_passed);
    }
    let found = finding(around, course, sighting).because(suspect.fact(signs));
    Ok(suspect.explained(found, sighting).into())
}

/// The times of this request: a delay that was ordered takes the place of the configured one.
fn times(around: Around<'_>, course: &Course) -> Times {
    match &course.greylist {
        GreylistOrder::Force { delay: Some(delay), .. } => Times { delay: delay.as_millis(), ..around.policy.times },
        _ => around.policy.times,
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

/// All that the store may be asked about for a request: its triplet under the names of its client, and the keys of trust.
pub async fn asked(around: Around<'_>, request: &PolicyRequest<'_>) -> (Vec<Triplet>, Vec<String>) {
    let Question::Suspect(client, signs) = question(around.policy, request) else { return Default::default() };
    let spf = ask_spf(around, request, &mut Course::default(), signs, pool::part(around.deadline)).await;
    let Suspect { triplet, others, trust_keys } = Suspect::new(around.policy, request, client, spf);
    let other = others.into_iter().map(|client| triplet.from_client(client));
    (other.chain([triplet.clone()]).collect(), trust_keys)
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
