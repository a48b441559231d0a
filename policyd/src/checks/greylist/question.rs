// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether anybody must be asked about a request, from the request and the policy alone: no look-up, no store. Mail that greylisting does
//! not concern, or that nothing speaks against, ends here.

use std::net::IpAddr;

use common::lookup::ClientTable;
use common::mail;

use crate::checks::adaptive::{self, Named, Signs};
use crate::config::GreylistMode;
use crate::lists::Now;
use crate::policy::Policy;
use crate::request::{PolicyRequest, ProtocolState};
use crate::verdict::{Finding, Reason};

/// Whether anybody must be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Nothing is greylisted at this stage.
    None,
    /// Decided without a look-up.
    Decided(Finding),
    /// This client writes to a trap, by this entry.
    Trap(IpAddr, String),
    /// This client must come again, unless it is known or what is looked up speaks for it; the signs against it in adaptive mode.
    Suspect(IpAddr, Signs),
}

/// What is to be asked, from the request alone; `forced` when a check before wants it greylisted whatever speaks against the client,
/// `score` what checks before have found against it.
pub fn question(policy: &Policy, request: &PolicyRequest<'_>, forced: bool, score: i32) -> Question {
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
    let lists = policy.lists.now();
    if let Some(entry) = lists.client(|tables| &tables.own_networks, request) {
        return Question::Decided(Finding::pass(Reason::OwnNetwork).because(entry.fact()));
    }
    // Bounces and callbacks do not come here: who forged the address of a trap is not who sends them.
    if let Some(entry) = lists.recipient(|tables| &tables.traps, request).filter(|_| !at_data) {
        return Question::Trap(client, entry.fact());
    }
    if let Some(exempt) = exempt(policy, &lists, &request.recipient) {
        return Question::Decided(exempt);
    }
    let signs = match settings.mode {
        GreylistMode::Adaptive => {
            adaptive::signs(request, &settings.signs, named(&lists, request)).with_score(score, &settings.signs)
        }
        _ => Signs::default(),
    };
    let most = signs.score().saturating_add(settings.signs.most_of_lookups());
    if settings.mode == GreylistMode::Adaptive && most < settings.threshold && !forced {
        return Question::Decided(unsuspicious(signs));
    }
    Question::Suspect(client, signs)
}

/// What the administrator's lists say of the client's confirmed name; that of mail servers first, as in sqlgrey.
fn named(lists: &Now<'_>, request: &PolicyRequest<'_>) -> Named {
    let [files, _] = lists.tables();
    let Some(name) = request.client_name.as_deref() else { return Named::Unlisted };
    let has = |list: &ClientTable| !list.is_empty() && list.find(None, Some(name)).is_some();
    match (has(&files.server_names), has(&files.dynamic_names)) {
        (true, _) => Named::Server,
        (false, true) => Named::Dynamic,
        (false, false) => Named::Unlisted,
    }
}

pub(super) fn unsuspicious(signs: Signs) -> Finding {
    Finding::pass(Reason::Unsuspicious).because(signs.words())
}

/// Recipients that are not greylisted: role accounts, which RFC 2142 wants reachable, and those that do not want it. A recipient
/// that Postfix does not name (several at DATA) is none of them, and has not opted in.
fn exempt(policy: &Policy, lists: &Now<'_>, recipient: &str) -> Option<Finding> {
    let local = mail::without_extension(mail::split(recipient).0);
    if policy.settings.greylist.role_accounts.iter().any(|account| account.eq_ignore_ascii_case(local)) {
        return Some(Finding::pass(Reason::RoleAccount));
    }
    match lists.wants_greylist(recipient) {
        Some((true, _)) => None,
        Some((false, entry)) => Some(Finding::pass(Reason::OptedOut).because(entry.fact())),
        None if lists.has_none(|tables| &tables.optin) => None,
        None => Some(Finding::pass(Reason::OptedOut).because("not in optin")),
    }
}

/// Senders of bounces, and of the callbacks by which addresses are verified.
fn waits_for_data(sender: &str) -> bool {
    sender.is_empty() || mail::split(sender).0.eq_ignore_ascii_case("postmaster")
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
        match question(&policy(mode), request, false, 0) {
            Question::Decided(finding) => Some(finding.reason),
            Question::None | Question::Suspect(..) | Question::Trap(..) => None,
        }
    }

    fn asks(mode: GreylistMode, request: &PolicyRequest<'_>) -> bool {
        matches!(question(&policy(mode), request, false, 0), Question::Suspect(..))
    }

    #[test]
    fn mail_is_asked_about_at_rcpt_and_bounces_at_data() {
        use ProtocolState::{Connect, Data, EndOfMessage, Mail, Rcpt};
        let strict = GreylistMode::Strict;
        for state in [Connect, Mail, Data, EndOfMessage] {
            assert_eq!(question(&policy(strict), &request(state, "a@example.net"), false, 0), Question::None);
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
        let Question::Suspect(_, signs) = question(&policy(GreylistMode::Adaptive), &rcpt, false, 0) else {
            panic!("not asked")
        };
        assert_eq!(signs.words(), "no_confirmed_name,odd_helo");
        (rcpt.client_name, rcpt.helo_name) = (Some("mx.example.net".into()), "mx.example.net".into());
        assert_eq!(reason(GreylistMode::Adaptive, &rcpt), Some(Reason::Unsuspicious));
        assert!(asks(GreylistMode::Strict, &rcpt) && asks(GreylistMode::Learn, &rcpt));
        assert!(matches!(question(&policy(GreylistMode::Adaptive), &rcpt, true, 0), Question::Suspect(..)), "forced");
        assert!(
            matches!(question(&policy(GreylistMode::Adaptive), &rcpt, false, 1), Question::Suspect(..)),
            "SPF tips"
        );
        let off = question(&policy(GreylistMode::Off), &rcpt, true, 0);
        assert!(matches!(off, Question::Decided(finding) if finding.reason == Reason::GreylistOff));
    }

    #[test]
    fn spf_is_asked_when_it_can_tip_the_scale() {
        let mut settings = Settings::default();
        settings.greylist.signs.odd_helo = 1;
        let policy = Policy::load(settings).unwrap();
        let mut rcpt = request(ProtocolState::Rcpt, "a@example.net");
        rcpt.client_name = Some("mx.example.net".into());
        assert!(
            matches!(question(&policy, &rcpt, false, 0), Question::Suspect(..)),
            "odd HELO weighs 1, SPF may add 1"
        );
        rcpt.helo_name = "mx.example.net".into();
        assert!(matches!(question(&policy, &rcpt, false, 0), Question::Decided(_)), "SPF alone cannot");
    }

    #[test]
    fn recipients_may_be_exempt() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            vec![common::lookup::ListFile::from(path)]
        };
        let mut settings = Settings::default();
        settings.greylist.mode = GreylistMode::Strict;
        settings.greylist.optout = list("out", "example.com\nann@example.org\n");
        let policy = Policy::load(settings.clone()).unwrap();
        let reason = |policy: &Policy, recipient: &str| {
            exempt(policy, &policy.lists.now(), recipient).map(|finding| finding.reason)
        };
        for (recipient, expected) in [
            ("Postmaster@example.org", Some(Reason::RoleAccount)),
            ("abuse+x@example.org", Some(Reason::RoleAccount)),
            ("abuser@example.org", None),
            ("ann@example.org", Some(Reason::OptedOut)),
            ("joe@example.com", Some(Reason::OptedOut)),
            ("joe@example.org", None),
            ("", None),
        ] {
            assert_eq!(reason(&policy, recipient), expected, "{recipient}");
        }
        settings.greylist.optin = list("in", "example.org\nexample.com\n");
        let policy = Policy::load(settings).unwrap();
        assert_eq!(reason(&policy, "joe@example.org"), None);
        for recipient in ["joe@example.net", "joe@example.com", ""] {
            assert_eq!(reason(&policy, recipient), Some(Reason::OptedOut), "{recipient}");
        }
    }

    #[test]
    fn lists_say_whose_name_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            vec![format!("sqlgrey-regexp:{}", path.display()).parse().unwrap()]
        };
        let mut settings = Settings::default();
        settings.greylist.dynamic_names = list("dyn", "(^|[0-9.x_-])rented[0-9.x_-]\n");
        settings.greylist.server_names = list("server", "^(.+[._-])*(mta|relay)[0-9]*[._-]\n");
        let policy = Policy::load(settings).unwrap();
        for (name, reason) in [
            ("MTA1.pool.example.net", Some(Reason::Unsuspicious)),
            ("host.dsl.example.net", None),
            ("box.rented.example.net", None),
            ("relay.rented.example.net", Some(Reason::Unsuspicious)),
            ("box.example.net", Some(Reason::Unsuspicious)),
        ] {
            let mut rcpt = request(ProtocolState::Rcpt, "a@example.net");
            (rcpt.client_name, rcpt.helo_name) = (Some(name.into()), "mx.example.net".into());
            let found = match question(&policy, &rcpt, false, 0) {
                Question::Decided(finding) => Some(finding.reason),
                _ => None,
            };
            assert_eq!(found, reason, "{name}");
        }
    }

    #[test]
    fn own_clients_and_traps_are_lists() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            vec![common::lookup::ListFile::from(path)]
        };
        let mut settings = Settings::default();
        settings.greylist.mode = GreylistMode::Strict;
        settings.greylist.own_networks = list("own", "192.0.2.0/28\n");
        settings.greylist.traps = list("traps", "old@example.org\n");
        let policy = Policy::load(settings).unwrap();
        let rcpt = |client: &str, sender: &'static str, recipient: &'static str| PolicyRequest {
            client_address: client.parse().ok(),
            recipient: recipient.into(),
            ..request(ProtocolState::Rcpt, sender)
        };
        let own = question(&policy, &rcpt("192.0.2.1", "a@example.net", "old@example.org"), false, 0);
        assert!(matches!(own, Question::Decided(finding) if finding.reason == Reason::OwnNetwork));
        let trap = question(&policy, &rcpt("192.0.2.99", "a@example.net", "Old@example.org"), false, 0);
        let Question::Trap(client, fact) = trap else { panic!("{trap:?}") };
        assert!(client.to_string() == "192.0.2.99" && fact.starts_with("old@example.org ("), "{fact}");
        let bounce = question(&policy, &rcpt("192.0.2.99", "", "old@example.org"), false, 0);
        assert!(matches!(bounce, Question::Decided(finding) if finding.reason == Reason::WaitsForData));
        let at_data = PolicyRequest { state: ProtocolState::Data, ..rcpt("192.0.2.99", "", "old@example.org") };
        assert!(matches!(question(&policy, &at_data, false, 0), Question::Suspect(..)));
    }
}
