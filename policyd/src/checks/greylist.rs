// SPDX-License-Identifier: GPL-3.0-or-later
//! Greylisting: a triplet that is seen for the first time is told to come again; mail servers do, most senders of spam do not.
//!
//! Asked at RCPT. The null sender, and postmaster as sender, are asked at DATA instead: other hosts verify addresses by calling
//! back with MAIL FROM:<> and RCPT, and hang up before DATA. That needs this service in `smtpd_data_restrictions` too; without it
//! such mail is not greylisted. With several recipients Postfix names none at DATA, and the triplet has an empty one.

use std::net::IpAddr;

use common::mail;
use tokio::time::Instant;

use super::adaptive;
use crate::config::{GreylistAction, GreylistMode};
use crate::policy::Policy;
use crate::request::{PolicyRequest, ProtocolState};
use crate::session::Sessions;
use crate::store::greylist::Sighting;
use crate::store::queue::{GreylistQueue, QueueError};
use crate::template::Values;
use crate::triplet::Triplet;
use crate::verdict::{DecisionId, Finding, Reason, Verdict};

/// What the check needs besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The way to the store.
    pub queue: &'a GreylistQueue,
    /// Which messages have their header.
    pub sessions: &'a Sessions,
    /// Name of this host.
    pub host: &'a str,
    /// Id of this decision.
    pub id: DecisionId,
    /// When an answer must be there.
    pub deadline: Instant,
}

/// Whether the store must be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Nothing is greylisted at this stage.
    None,
    /// Decided without the store.
    Decided(Finding),
    /// The store is asked for this triplet; the text names the signs against the client in adaptive mode.
    Ask(Triplet, String),
}

/// What is to be asked, from the request alone.
pub fn question(policy: &Policy, request: &PolicyRequest<'_>) -> Question {
    let settings = &policy.settings.greylist;
    let at_data = waits_for_data(&request.sender);
    match request.state {
        ProtocolState::Rcpt if at_data => return Question::Decided(Finding::pass(Reason::WaitsForData)),
        ProtocolState::Data if at_data => {}
        ProtocolState::Rcpt => {}
        _ => return Question::None,
    }
    if settings.mode == GreylistMode::Off {
        return Question::Decided(Finding::pass(Reason::GreylistOff));
    }
    if !request.sasl_username.is_empty() {
        return Question::Decided(Finding::pass(Reason::Authenticated));
    }
    let Some(client) = request.client_address else { return Question::Decided(Finding::pass(Reason::NoClient)) };
    let mut seen = String::new();
    if settings.mode == GreylistMode::Adaptive {
        let signs = adaptive::signs(request);
        if signs.is_empty() {
            return Question::Decided(Finding::pass(Reason::Unsuspicious));
        }
        seen = signs.words();
    }
    Question::Ask(triplet(policy, client, request), seen)
}

/// Senders of bounces, and of the callbacks by which addresses are verified.
fn waits_for_data(sender: &str) -> bool {
    sender.is_empty() || mail::split(sender).0.eq_ignore_ascii_case("postmaster")
}

fn triplet(policy: &Policy, client: IpAddr, request: &PolicyRequest<'_>) -> Triplet {
    let settings = &policy.settings.greylist;
    Triplet::new(client, &request.sender, &request.recipient, settings.ipv4_prefix, settings.ipv6_prefix)
}

/// What greylisting says to a request; none at stages that are not its own.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>) -> Result<Option<Finding>, QueueError> {
    let (triplet, signs) = match question(around.policy, request) {
        Question::None => return Ok(None),
        Question::Decided(finding) => return Ok(Some(finding)),
        Question::Ask(triplet, signs) => (triplet, signs),
    };
    let sighting = around.queue.ask(triplet, around.policy.times, around.deadline).await?;
    Ok(Some(finding(around, request, sighting).because(signs)))
}

/// What follows from what the store knows.
fn finding(around: Around<'_>, request: &PolicyRequest<'_>, sighting: Sighting) -> Finding {
    let learns = around.policy.settings.greylist.mode == GreylistMode::Learn;
    let (left, reason) = match sighting {
        Sighting::Passed => return Finding::pass(Reason::GreylistPassed),
        Sighting::PassedNow { waited } => return passed_now(around, request, waited, learns),
        Sighting::New { left } => (left, Reason::GreylistNew),
        Sighting::Early { left } => (left, Reason::GreylistEarly),
    };
    if learns {
        let header = format!("{}: would_defer by {}", around.policy.header_name, around.host);
        return Finding { verdict: with_header(around, request, header), ..Finding::pass(Reason::WouldDefer) };
    }
    let text = around.policy.text.fill(values(&around, left));
    let verdict = match around.policy.settings.greylist.action {
        GreylistAction::DeferIfPermit => Verdict::DeferIfPermit(text),
        GreylistAction::Defer => Verdict::Defer(text),
    };
    Finding { verdict, ..Finding::pass(reason) }
}

/// The first pass. In learn mode nothing was delayed, and no header says that it was.
fn passed_now(around: Around<'_>, request: &PolicyRequest<'_>, waited: i64, learns: bool) -> Finding {
    let passed = Finding::pass(Reason::GreylistPassedNow);
    match &around.policy.header {
        Some(header) if !learns => {
            let header = header.fill(values(&around, waited));
            Finding { verdict: with_header(around, request, header), ..passed }
        }
        _ => passed,
    }
}

/// The header, once per message and only if one is configured.
fn with_header(around: Around<'_>, request: &PolicyRequest<'_>, header: String) -> Verdict {
    let wanted = around.policy.header.is_some();
    match wanted && around.sessions.first_header(&request.instance, request.client_address) {
        true => Verdict::PassWithHeader(header),
        false => Verdict::Pass,
    }
}

/// Milliseconds as the seconds of a text, rounded up: who comes again after them is not early.
fn values<'a>(around: &'a Around<'_>, milliseconds: i64) -> Values<'a> {
    let seconds = u64::try_from(milliseconds).unwrap_or_default().div_ceil(1000);
    Values { seconds, host: around.host, id: around.id.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn policy(mode: GreylistMode) -> Policy {
        let mut settings = Settings::default();
        settings.greylist.mode = mode;
        Policy::load(settings).unwrap()
    }

    fn request(state: ProtocolState, sender: &'static str) -> PolicyRequest<'static> {
        PolicyRequest {
            state,
            client_address: "192.0.2.1".parse().ok(),
            sender: sender.into(),
            recipient: "r@example.org".into(),
            ..PolicyRequest::default()
        }
    }

    fn reason(mode: GreylistMode, request: &PolicyRequest<'_>) -> Option<Reason> {
        match question(&policy(mode), request) {
            Question::Decided(finding) => Some(finding.reason),
            Question::None | Question::Ask(..) => None,
        }
    }

    fn asks(mode: GreylistMode, request: &PolicyRequest<'_>) -> bool {
        matches!(question(&policy(mode), request), Question::Ask(..))
    }

    #[test]
    fn mail_is_asked_about_at_rcpt_and_bounces_at_data() {
        use ProtocolState::{Connect, Data, EndOfMessage, Mail, Rcpt};
        let strict = GreylistMode::Strict;
        for state in [Connect, Mail, Data, EndOfMessage] {
            assert_eq!(question(&policy(strict), &request(state, "a@example.net")), Question::None);
        }
        assert!(asks(strict, &request(Rcpt, "a@example.net")));
        for sender in ["", "postmaster@example.net", "Postmaster"] {
            assert_eq!(reason(strict, &request(Rcpt, sender)), Some(Reason::WaitsForData));
            assert!(asks(strict, &request(Data, sender)));
        }
    }

    #[test]
    fn some_clients_are_never_greylisted() {
        let mut rcpt = request(ProtocolState::Rcpt, "a@example.net");
        assert_eq!(reason(GreylistMode::Off, &rcpt), Some(Reason::GreylistOff));
        rcpt.sasl_username = "ann".into();
        assert_eq!(reason(GreylistMode::Strict, &rcpt), Some(Reason::Authenticated));
        rcpt.sasl_username = "".into();
        rcpt.client_address = None;
        assert_eq!(reason(GreylistMode::Strict, &rcpt), Some(Reason::NoClient));
    }

    #[test]
    fn adaptive_mode_asks_only_about_the_suspicious() {
        let mut rcpt = request(ProtocolState::Rcpt, "a@example.net");
        let Question::Ask(_, signs) = question(&policy(GreylistMode::Adaptive), &rcpt) else { panic!("not asked") };
        assert_eq!(signs, "no_confirmed_name,odd_helo");
        (rcpt.client_name, rcpt.helo_name) = (Some("mx.example.net".into()), "mx.example.net".into());
        assert_eq!(reason(GreylistMode::Adaptive, &rcpt), Some(Reason::Unsuspicious));
        assert!(asks(GreylistMode::Strict, &rcpt) && asks(GreylistMode::Learn, &rcpt));
    }
}
