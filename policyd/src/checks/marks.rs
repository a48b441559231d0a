// SPDX-License-Identifier: GPL-3.0-or-later
//! What is remembered of mail that is not greylisted itself: to whom we wrote, whose replies need not wait, and which networks wrote to
//! a trap, and must wait long.
//!
//! The keys are made here; the store knows marks only.

use std::net::IpAddr;

use common::mail;

use crate::around::Around;
use crate::policy::Policy;
use crate::request::{PolicyRequest, ProtocolState};
use crate::sender::{self, Step};
use crate::store::marker::{Marker, Suspicion};
use crate::store::marks::Mark;
use crate::triplet::bounded;
use crate::verdict::Verdict;

/// What the keys of trapped networks begin with.
pub const TRAP: &str = "trap ";

/// What is remembered of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing.
    Not,
    /// The recipient wrote to the sender.
    Reply,
    /// The client's network wrote to a trap, and must wait for so many milliseconds still.
    Trapped(i64),
}

/// Remembers whom one of ours writes to, when nothing stops it.
pub fn remember_recipient(marker: &Marker, policy: &Policy, request: &PolicyRequest<'_>, verdict: &Verdict) {
    let keep = policy.settings.greylist.remember_recipients.as_millis();
    let goes_on = matches!(verdict, Verdict::Pass | Verdict::PassWithHeader(_));
    if keep <= 0 || request.state != ProtocolState::Rcpt || !goes_on || !is_ours(policy, request) {
        return;
    }
    if let Some(key) = reply_key(&request.sender, &request.recipient) {
        marker.mark(Mark { key, keep, fact: String::new() });
    }
}

/// True for mail of a client that has logged in or is listed as one of ours.
fn is_ours(policy: &Policy, request: &PolicyRequest<'_>) -> bool {
    !request.sasl_username.is_empty() || policy.lists.now().client(|tables| &tables.own_networks, request).is_some()
}

/// Remembers that the network of a client wrote to a trap.
pub(super) fn trap(around: Around<'_>, request: &PolicyRequest<'_>, client: IpAddr) {
    let Some(marker) = around.marker else { return };
    let keep = around.policy.settings.greylist.trap_time.as_millis();
    // PostgreSQL refuses NUL.
    let fact = bounded(format!("{client} wrote to {}", request.recipient).replace('\0', ""));
    marker.mark(Mark { key: trap_key(around.policy, client), keep, fact });
}

/// Has the network of a client trapped if its triplets bear that out.
pub(super) fn judge(around: Around<'_>, client: IpAddr, suspicion: Suspicion) {
    let Some(marker) = around.marker else { return };
    let keep = around.policy.settings.greylist.trap_time.as_millis();
    marker.judge(Mark { key: trap_key(around.policy, client), keep, fact: String::new() }, suspicion);
}

/// The marks that count for a request: of a reply, and of its network.
fn keys(policy: &Policy, request: &PolicyRequest<'_>, client: IpAddr) -> (Option<String>, Option<String>) {
    let remembers = !policy.settings.greylist.remember_recipients.0.is_zero();
    let reply = reply_key(&request.recipient, &request.sender).filter(|_| remembers);
    (reply, policy.has_traps().then(|| trap_key(policy, client)))
}

/// All marks that the store may be asked about for a request.
pub(super) fn asked(policy: &Policy, request: &PolicyRequest<'_>, client: IpAddr) -> Vec<String> {
    let (reply, trapped) = keys(policy, request, client);
    reply.into_iter().chain(trapped).collect()
}

/// What is remembered of a request that would have to wait. A reply passes even from a network that is trapped.
pub(super) async fn marked(around: Around<'_>, request: &PolicyRequest<'_>, client: IpAddr) -> Marked {
    let (Some(marker), Some(book)) = (around.marker, around.trust) else { return Marked::Not };
    let (reply, trapped) = keys(around.policy, request, client);
    let keys: Vec<String> = reply.iter().chain(&trapped).cloned().collect();
    let found = marker.marked(book, keys, around.deadline).await;
    let left =
        |key: Option<String>| found.iter().find(|(marked, _)| Some(marked) == key.as_ref()).map(|(_, left)| *left);
    match (left(reply), left(trapped)) {
        (Some(_), _) => Marked::Reply,
        (None, Some(left)) => Marked::Trapped(left),
        (None, None) => Marked::Not,
    }
}

/// The key of a pair of correspondents; the null sender writes to nobody, and nobody writes to it.
fn reply_key(ours: &str, theirs: &str) -> Option<String> {
    let normal = |address: &str| sender::normal(address, "", &[Step::Subaddress, Step::Batv]).replace('\0', "");
    (!ours.is_empty() && !theirs.is_empty()).then(|| bounded(format!("reply {} {}", normal(ours), normal(theirs))))
}

fn trap_key(policy: &Policy, client: IpAddr) -> String {
    let settings = &policy.settings.greylist;
    format!("{TRAP}{}", mail::network(client, settings.ipv4_prefix, settings.ipv6_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correspondents_are_known_without_their_extensions() {
        let key = reply_key("Ann+list@Our.example", "prvs=0123456789=joe@their.example");
        assert_eq!(key.as_deref(), Some("reply ann@our.example joe@their.example"));
        assert_ne!(reply_key("a@b", "c@d"), reply_key("c@d", "a@b"));
        assert_eq!((reply_key("", "c@d"), reply_key("a@b", "")), (None, None));
        let long = format!("{}@x", "y".repeat(10_000));
        assert!(reply_key(&long, &long).is_some_and(|key| key.len() <= 255));
    }
}
