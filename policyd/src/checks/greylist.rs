// SPDX-License-Identifier: GPL-3.0-or-later
//! Greylisting: a triplet that is seen for the first time is told to come again; mail servers do, most senders of spam do not.
//!
//! Asked at RCPT. The null sender, and postmaster as sender, are asked at DATA instead: other hosts verify addresses by calling
//! back with MAIL FROM:<> and RCPT, and hang up before DATA. That needs this service in `smtpd_data_restrictions` too; without it
//! such mail is not greylisted. With several recipients Postfix names none at DATA, and the triplet has an empty one.
//!
//! The stages: does this request concern us ([`question`]), who is the client ([`pool`]), is it trusted, and what does the store know
//! of its triplet. Each may end it; look-ups and the store are asked only about what is left.

use std::net::IpAddr;
use std::time::Duration;

use common::mail;
use common::spf::SpfResult;
use tokio::time::Instant;

use super::adaptive::{self, Signs};
use super::dnswl::Listing;
use super::marks::{self, Marked};
use super::pool::{self, KeyKind, Spf};
use crate::around::Around;
use crate::config::{GreylistAction, GreylistMode, OnStoreError, TrustLevel};
use crate::course::{Answer, Course, GreylistOrder};
use crate::policy::Policy;
use crate::request::{PolicyRequest, ProtocolState};
use crate::store::greylist::Sighting;
use crate::store::queue::QueueError;
use crate::template::Values;
use crate::triplet::{Triplet, bounded};
use crate::verdict::{Asked, Finding, Reason, Verdict};

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
    if let Some(entry) = policy.own.find(Some(client), request.client_name.as_deref()) {
        let fact = format!("{} ({})", entry.entry, entry.origin);
        return Question::Decided(Finding::pass(Reason::OwnNetwork).because(fact));
    }
    // Bounces and callbacks do not come here: who forged the address of a trap is not who sends them.
    if let Some(entry) = policy.traps.find(&request.recipient).filter(|_| !at_data) {
        return Question::Trap(client, format!("{} ({})", entry.entry, entry.origin));
    }
    if let Some(exempt) = exempt(policy, &request.recipient) {
        return Question::Decided(exempt);
    }
    let signs = match settings.mode {
        GreylistMode::Adaptive => adaptive::signs(request, &settings.signs),
        _ => Signs::default(),
    };
    let most = signs.score().saturating_add(settings.signs.most_of_spf());
    if settings.mode == GreylistMode::Adaptive && most < settings.threshold {
        return Question::Decided(unsuspicious(signs));
    }
    Question::Suspect(client, signs)
}

fn unsuspicious(signs: Signs) -> Finding {
    Finding::pass(Reason::Unsuspicious).because(signs.words())
}

/// Recipients that are not greylisted: role accounts, which RFC 2142 wants reachable, and those that do not want it. A recipient
/// that Postfix does not name (several at DATA) is none of them, and has not opted in.
fn exempt(policy: &Policy, recipient: &str) -> Option<Finding> {
    let local = mail::without_extension(mail::split(recipient).0);
    if policy.settings.greylist.role_accounts.iter().any(|account| account.eq_ignore_ascii_case(local)) {
        return Some(Finding::pass(Reason::RoleAccount));
    }
    let known = !recipient.is_empty();
    if let Some(entry) = policy.optout.find(recipient).filter(|_| known) {
        let fact = format!("{} ({})", entry.entry, entry.origin);
        return Some(Finding::pass(Reason::OptedOut).because(fact));
    }
    let opted_in = policy.optin.is_empty() || (known && policy.optin.find(recipient).is_some());
    (!opted_in).then(|| Finding::pass(Reason::OptedOut).because("not in optin"))
}

/// Senders of bounces, and of the callbacks by which addresses are verified.
fn waits_for_data(sender: &str) -> bool {
    sender.is_empty() || mail::split(sender).0.eq_ignore_ascii_case("postmaster")
}

/// What greylisting says to a request; nothing at stages that are not its own.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    if course.greylist == GreylistOrder::Skip {
        return Ok(Answer::Nothing);
    }
    let (client, signs) = match question(around.policy, request) {
        Question::None => return Ok(Answer::Nothing),
        Question::Decided(finding) => return Ok(unless_trapped(around, request, course, finding).await.into()),
        Question::Trap(client, entry) => return Ok(trap(around, request, course, client, entry).await.into()),
        Question::Suspect(client, signs) => (client, signs),
    };
    let lookups = pool::part(around.deadline);
    let spf = ask_spf(around, request, course, signs, lookups).await;
    let signs = spf.map_or(signs, |spf| signs_with(around, signs, spf));
    let settings = &around.policy.settings.greylist;
    if settings.mode == GreylistMode::Adaptive && signs.score() < settings.threshold {
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
    let sighting = suspect.sighting(around).await?;
    suspect.count(around, sighting);
    if let (Sighting::PassedNow { .. }, Some(trust)) = (sighting, around.trust) {
        trust.passed(suspect.trust_keys.clone(), around.policy.times.keep_passed);
    }
    let found = finding(around, course, sighting).because(suspect.fact(signs));
    Ok(suspect.explained(found, sighting).into())
}

/// What was found of a client without a sign against it, unless its network is trapped and nothing speaks for it.
async fn unless_trapped(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    course: &mut Course,
    found: Finding,
) -> Finding {
    let Some(client) = request.client_address else { return found };
    if found.reason != Reason::Unsuspicious || around.policy.traps.is_empty() {
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

/// What speaks for a client.
#[derive(Debug)]
enum Plea {
    /// This.
    Excused(Finding),
    /// Nothing.
    Stranger,
    /// Nothing so far, but not all have answered.
    CannotTell,
}

/// A client that must come again, with all the names by which it may be known.
#[derive(Debug)]
struct Suspect {
    triplet: Triplet,
    /// Other names of the client, under which the triplet may have been seen.
    others: Vec<String>,
    trust_keys: Vec<String>,
}

impl Suspect {
    fn new(policy: &Policy, request: &PolicyRequest<'_>, client: IpAddr, spf: Option<Spf>) -> Self {
        let settings = &policy.settings.greylist;
        let prefixes = (settings.ipv4_prefix, settings.ipv6_prefix);
        let mut names = pool::identities(&settings.key, request, client, prefixes, spf);
        let first = names.remove(0);
        let network = mail::network(client, prefixes.0, prefixes.1).to_string();
        let spf = spf.and_then(|spf| pool::spf_domain(request, spf));
        let trust_keys = match settings.trust_after {
            0 => Vec::new(),
            _ => trust_keys(&settings.trust, &network, &request.sender, spf.as_deref()),
        };
        let triplet = Triplet::of(first, &request.sender, &request.recipient, &settings.normalize);
        Self { triplet, others: names, trust_keys }
    }

    /// What speaks for the client: a DNS whitelist, trust.
    async fn plea(&self, around: Around<'_>, client: IpAddr, lookups: Instant) -> Plea {
        let settings = &around.policy.settings.greylist;
        let listing = around.pools.whitelisted(&settings.dnswl, client, lookups).await;
        if let Listing::Listed(list) = listing {
            return Plea::Excused(Finding::pass(Reason::DnsWhitelisted).because(list));
        }
        if let Some(key) = self.trusted(around).await {
            return Plea::Excused(Finding::pass(Reason::Trusted).because(key));
        }
        let after = i64::from(settings.trust_after);
        let told = around.trust.is_some_and(|book| book.distrusts(&self.trust_keys, after));
        match told && listing == Listing::NotListed {
            true => Plea::Stranger,
            false => Plea::CannotTell,
        }
    }

    /// The key for which the client is trusted.
    async fn trusted(&self, around: Around<'_>) -> Option<String> {
        if self.trust_keys.is_empty() {
            return None;
        }
        let after = i64::from(around.policy.settings.greylist.trust_after);
        let keep = around.policy.times.keep_passed;
        around.trust?.trusted(&self.trust_keys, after, keep, around.deadline).await
    }

    /// What the store knows. A triplet that is new by this name of its client, but known by another, goes on from there: it was
    /// asked about while DNS failed, or comes from a greylister that knew networks only.
    async fn sighting(&self, around: Around<'_>) -> Result<Sighting, QueueError> {
        let alone = around.policy.settings.policyd.on_store_error == OnStoreError::Local;
        let ask = || around.queue.ask_or_decide(self.triplet.clone(), around.policy.times, around.deadline, alone);
        let sighting = ask().await?;
        match (sighting, around.trust) {
            (Sighting::New { .. }, Some(book)) if !self.others.is_empty() => {
                match book.carried(&self.triplet, &self.others, around.deadline).await {
                    true => ask().await,
                    false => Ok(sighting),
                }
            }
            _ => Ok(sighting),
        }
    }

    /// True for a new triplet of a network of which too many wait already: it is told to come again, and not recorded.
    async fn is_one_too_many(&self, around: Around<'_>) -> bool {
        let (most, window) = pending_limit(around);
        if most == 0 || !self.goes_by_network() || !around.pending.is_full(&self.triplet.client, most, window) {
            return false;
        }
        match around.trust {
            Some(book) => book.knows(&self.triplet, around.deadline).await == Some(false),
            None => false,
        }
    }

    fn count(&self, around: Around<'_>, sighting: Sighting) {
        let (most, window) = pending_limit(around);
        match sighting {
            _ if most == 0 || !self.goes_by_network() => {}
            Sighting::New { .. } => around.pending.new_triplet(&self.triplet.client, window),
            Sighting::PassedNow { .. } => around.pending.passed(&self.triplet.client, window),
            Sighting::Early { .. } | Sighting::Passed => {}
        }
    }

    /// The network is the last of the names of a client.
    fn goes_by_network(&self) -> bool {
        self.others.is_empty()
    }

    /// The finding with what is kept of it.
    fn explained(self, finding: Finding, sighting: Sighting) -> Finding {
        let (left, waited) = match sighting {
            Sighting::New { left } | Sighting::Early { left } => (Some(left), None),
            Sighting::PassedNow { waited } => (None, Some(waited)),
            Sighting::Passed => return finding,
        };
        finding.about(Asked { triplet: self.triplet, left, waited })
    }

    /// The signs, and the key when it is a pool.
    fn fact(&self, signs: Signs) -> String {
        let signs = signs.words();
        match (self.others.is_empty(), signs.is_empty()) {
            (true, _) => signs,
            (false, true) => format!("key {}", self.triplet.client),
            (false, false) => format!("{signs}; key {}", self.triplet.client),
        }
    }
}

fn pending_limit(around: Around<'_>) -> (u32, Duration) {
    let settings = &around.policy.settings.greylist;
    (settings.max_pending_per_net, settings.retry_window.0)
}

/// The keys for which trust is earned and given. The null sender has no domain of its own.
fn trust_keys(levels: &[TrustLevel], network: &str, sender: &str, spf: Option<&str>) -> Vec<String> {
    let domain = mail::split(sender).1.to_ascii_lowercase();
    let key = |level: &TrustLevel| match level {
        TrustLevel::Network => Some(network.to_owned()),
        TrustLevel::NetworkDomain => (!domain.is_empty()).then(|| format!("{network} {domain}")),
        TrustLevel::Spf => spf.map(|domain| format!("spf:{domain}")),
    };
    levels.iter().filter_map(key).map(bounded).collect()
}

/// What follows from what the store knows.
fn finding(around: Around<'_>, course: &mut Course, sighting: Sighting) -> Finding {
    match sighting {
        Sighting::Passed => Finding::pass(Reason::GreylistPassed),
        Sighting::PassedNow { waited } => passed_now(around, course, waited),
        Sighting::New { left } => waits(around, course, left, Reason::GreylistNew),
        Sighting::Early { left } => waits(around, course, left, Reason::GreylistEarly),
    }
}

fn learns(around: Around<'_>) -> bool {
    around.policy.settings.greylist.mode == GreylistMode::Learn
}

/// It must come again; in learn mode that is only written down.
fn waits(around: Around<'_>, course: &mut Course, left: i64, reason: Reason) -> Finding {
    if learns(around) {
        if around.policy.header.is_some() {
            course.headers.push(format!("{}: would_defer by {}", around.policy.header_name, around.host));
        }
        return Finding::pass(Reason::WouldDefer);
    }
    let text = around.policy.text.fill(values(&around, left));
    let verdict = match around.policy.settings.greylist.action {
        GreylistAction::DeferIfPermit => Verdict::DeferIfPermit(text),
        GreylistAction::Defer => Verdict::Defer(text),
    };
    Finding { verdict, ..Finding::pass(reason) }
}

/// The first pass. In learn mode nothing was delayed, and no header says that it was.
fn passed_now(around: Around<'_>, course: &mut Course, waited: i64) -> Finding {
    if let Some(header) = around.policy.header.as_ref().filter(|_| !learns(around)) {
        course.headers.push(header.fill(values(&around, waited)));
    }
    Finding::pass(Reason::GreylistPassedNow)
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
            Question::None | Question::Suspect(..) | Question::Trap(..) => None,
        }
    }

    fn asks(mode: GreylistMode, request: &PolicyRequest<'_>) -> bool {
        matches!(question(&policy(mode), request), Question::Suspect(..))
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
        let Question::Suspect(_, signs) = question(&policy(GreylistMode::Adaptive), &rcpt) else { panic!("not asked") };
        assert_eq!(signs.words(), "no_confirmed_name,odd_helo");
        (rcpt.client_name, rcpt.helo_name) = (Some("mx.example.net".into()), "mx.example.net".into());
        assert_eq!(reason(GreylistMode::Adaptive, &rcpt), Some(Reason::Unsuspicious));
        assert!(asks(GreylistMode::Strict, &rcpt) && asks(GreylistMode::Learn, &rcpt));
    }

    #[test]
    fn spf_is_asked_when_it_can_tip_the_scale() {
        let mut settings = Settings::default();
        settings.greylist.signs.odd_helo = 1;
        let policy = Policy::load(settings).unwrap();
        let mut rcpt = request(ProtocolState::Rcpt, "a@example.net");
        rcpt.client_name = Some("mx.example.net".into());
        assert!(matches!(question(&policy, &rcpt), Question::Suspect(..)), "odd HELO weighs 1, SPF may add 1");
        rcpt.helo_name = "mx.example.net".into();
        assert!(matches!(question(&policy, &rcpt), Question::Decided(_)), "SPF alone cannot");
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
        let reason = |policy: &Policy, recipient: &str| exempt(policy, recipient).map(|finding| finding.reason);
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
        let own = question(&policy, &rcpt("192.0.2.1", "a@example.net", "old@example.org"));
        assert!(matches!(own, Question::Decided(finding) if finding.reason == Reason::OwnNetwork));
        let trap = question(&policy, &rcpt("192.0.2.99", "a@example.net", "Old@example.org"));
        let Question::Trap(client, fact) = trap else { panic!("{trap:?}") };
        assert!(client.to_string() == "192.0.2.99" && fact.starts_with("old@example.org ("), "{fact}");
        let bounce = question(&policy, &rcpt("192.0.2.99", "", "old@example.org"));
        assert!(matches!(bounce, Question::Decided(finding) if finding.reason == Reason::WaitsForData));
        let at_data = PolicyRequest { state: ProtocolState::Data, ..rcpt("192.0.2.99", "", "old@example.org") };
        assert!(matches!(question(&policy, &at_data), Question::Suspect(..)));
    }

    #[test]
    fn trust_has_levels() {
        use TrustLevel::{Network, NetworkDomain, Spf};
        let keys =
            |levels: &[TrustLevel], sender: &str, spf| trust_keys(levels, "192.0.2.0/24", sender, spf).join(", ");
        assert_eq!(keys(&[Network, Spf], "a@Example.ORG", Some("example.org")), "192.0.2.0/24, spf:example.org");
        assert_eq!(keys(&[Network, Spf], "", None), "192.0.2.0/24");
        assert_eq!(keys(&[NetworkDomain, Spf], "a@Example.ORG", None), "192.0.2.0/24 example.org");
        assert_eq!(keys(&[NetworkDomain, Spf], "", None), "");
        let long = format!("a@{}", "x".repeat(10_000));
        assert!(keys(&[NetworkDomain], &long, None).len() < 300, "an index entry has room for it");
    }
}
