// SPDX-License-Identifier: GPL-3.0-or-later
//! What is kept of a decision so that it can be explained later by the id in its reply: the request, the key, the reason and what
//! each check said.
//!
//! Pure. Deferrals and refusals of the perimeter are kept, whose replies have the id, and first passes, from which `octroi greylist stats` learns how long mail was delayed. Texts from
//! outside are bounded and have no NUL, which PostgreSQL refuses.

use crate::request::PolicyRequest;
use crate::triplet::Triplet;
use crate::verdict::{DecisionId, Finding, Reason, Verdict};

/// Longest text from outside, in bytes.
pub(crate) const MAX_TEXT: usize = 255;
/// Longest trace, in bytes.
const MAX_TRACE: usize = 2000;

/// One decision, kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explained {
    /// [`DecisionId::bits`].
    pub id: i64,
    /// Milliseconds since 1970, by the clock of the host.
    pub at: i64,
    /// Which host decided.
    pub host: String,
    /// The Postfix action in lower case.
    pub verdict: String,
    /// Reason word.
    pub reason: String,
    /// Protocol state.
    pub state: String,
    /// Client address.
    pub client: String,
    /// Its confirmed name; empty when there is none.
    pub client_name: String,
    /// What it called itself.
    pub helo: String,
    /// Envelope sender.
    pub sender: String,
    /// Envelope recipient.
    pub recipient: String,
    /// Postfix's instance.
    pub instance: String,
    /// The greylist key; empty parts when the store was not asked.
    pub key: Key,
    /// Whom the client belongs to.
    pub system: String,
    /// What it had still to wait, in milliseconds.
    pub left: Option<i64>,
    /// What it had waited when it passed, in milliseconds.
    pub waited: Option<i64>,
    /// What each check said, a line each.
    pub trace: String,
    /// Forgotten from then on, in milliseconds since 1970.
    pub expires: i64,
    /// What it has to wait in all, in milliseconds.
    pub delay: Option<i64>,
}

/// The three parts of a greylist key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// Client.
    pub client: String,
    /// Sender.
    pub sender: String,
    /// Recipient.
    pub recipient: String,
}

impl From<&Triplet> for Key {
    fn from(triplet: &Triplet) -> Self {
        let Triplet { client, sender, recipient } = triplet.clone();
        Self { client, sender, recipient }
    }
}

/// True for decisions that are kept.
pub fn is_kept(finding: &Finding) -> bool {
    // In a flood nobody asks about each.
    finding.reason != Reason::Shielded
        && (finding.asked.is_some()
            || matches!(finding.verdict, Verdict::Defer(_) | Verdict::DeferIfPermit(_))
            || finding.reason.is_of_perimeter())
}

/// What is kept of a decision. `trace` has a line of each check.
pub fn explained(
    id: DecisionId,
    host: &str,
    request: &PolicyRequest<'_>,
    finding: &Finding,
    trace: &str,
    (at, keep): (i64, i64),
) -> Explained {
    let asked = finding.asked.as_deref();
    let key = asked.map(|asked| Key::from(&asked.triplet)).unwrap_or_default();
    let client = request.client_address.map(|ip| ip.to_string()).unwrap_or_default();
    let client_name = request.client_name.as_deref().unwrap_or_default();
    let organisation = common::dns::organisational_domain(client_name);
    let known = if key.client.is_empty() { &client } else { &key.client };
    Explained {
        id: id.bits(),
        at,
        host: host.to_owned(),
        verdict: finding.verdict.word().to_owned(),
        reason: finding.reason.word().to_owned(),
        state: request.state.word().to_owned(),
        system: bounded(organisation.as_deref().unwrap_or(known), MAX_TEXT),
        client,
        client_name: bounded(client_name, MAX_TEXT),
        helo: bounded(&request.helo_name, MAX_TEXT),
        sender: bounded(&request.sender, MAX_TEXT),
        recipient: bounded(&request.recipient, MAX_TEXT),
        instance: bounded(&request.instance, MAX_TEXT),
        key,
        left: asked.and_then(|asked| asked.left),
        waited: asked.and_then(|asked| asked.waited),
        delay: asked.map(|asked| asked.delay),
        trace: bounded(trace, MAX_TRACE),
        expires: at.saturating_add(keep),
    }
}

pub(crate) fn bounded(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Asked;

    #[test]
    fn deferrals_and_first_passes_are_kept_and_bounded() {
        assert!(!is_kept(&Finding::pass(Reason::GreylistPassed)));
        let deferred = Finding { verdict: Verdict::Defer("4.3.0 x".into()), ..Finding::pass(Reason::OverBudget) };
        assert!(is_kept(&deferred));
        assert!(is_kept(&Finding {
            verdict: Verdict::Reject("5.7.1 x".into()),
            ..Finding::pass(Reason::ScoreTooHigh)
        }));
        assert!(!is_kept(&Finding {
            verdict: Verdict::Reject("5.7.1 x".into()),
            ..Finding::pass(Reason::ClientBlacklisted)
        }));
        let triplet = Triplet { client: "192.0.2.0/24".into(), sender: "a@b".into(), recipient: "c@d".into() };
        let passed =
            Finding::pass(Reason::GreylistPassedNow).about(Asked { triplet, left: None, waited: Some(5), delay: 3 });
        assert!(is_kept(&passed));
        let request = PolicyRequest {
            helo_name: "é\0".repeat(1000).into(),
            client_name: Some("mx1.mail.example.co.uk".into()),
            ..PolicyRequest::default()
        };
        let kept = explained(DecisionId::from_bits(7), "mx1", &request, &passed, "access: nothing", (1000, 50));
        assert!(kept.helo.len() <= 2 * MAX_TEXT && !kept.helo.contains('\0'));
        assert_eq!((kept.id, kept.expires, kept.waited, kept.system.as_str()), (7, 1050, Some(5), "example.co.uk"));
        assert_eq!(kept.key.client, "192.0.2.0/24");
        let kept = explained(DecisionId::from_bits(7), "mx1", &PolicyRequest::default(), &passed, "", (0, 0));
        assert_eq!(kept.system, "192.0.2.0/24");
    }
}
