// SPDX-License-Identifier: GPL-3.0-or-later
//! From findings and policy to category, destiny and reply: one pure function, the only place that decides.
//!
//! The order of the categories and the wording of the replies are those of amavis, which mail administrators
//! search their logs for. A scanner that failed is never "clean" and never "virus".

use crate::ambiguity::{AmbiguitySettings, Treatment};
pub use crate::category::Category;
use crate::findings::{Finding, FindingKind, Findings, Outcome, PARSER, Scan};
use crate::scan::scores::Score;
use crate::smtp::reply::Reply;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destiny {
    /// It goes on to the next hop.
    Pass,
    /// It is refused for good, 5xx.
    Reject,
    /// It is refused for now, 4xx; the client tries again.
    Tempfail,
    /// It is accepted and goes into the quarantine.
    Quarantine,
    /// It is accepted and goes nowhere; a copy is in the quarantine for a while.
    Discard,
}

impl Destiny {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Destiny::Pass => "pass",
            Destiny::Reject => "reject",
            Destiny::Tempfail => "tempfail",
            Destiny::Quarantine => "quarantine",
            Destiny::Discard => "discard",
        }
    }
}

/// Why: the closed list of words in the log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was found.
    Clean,
    /// A virus.
    Virus,
    /// A banned file.
    Banned,
    /// A table of Postfix refuses it.
    Checks,
    /// Something is encrypted.
    Encrypted,
    /// Over a limit.
    OverLimits,
    /// Not all of it could be decoded, or only one of several readings.
    Undecodable,
    /// Programs may read it in different ways.
    Ambiguous,
    /// A scanner gave no answer.
    ScannerFailed,
    /// The deadline came first.
    Deadline,
    /// From `spam.kill_level` on.
    Spam,
    /// From `spam.tag_level` on.
    Tagged,
    /// A bad header section.
    BadHeader,
    /// Too large.
    Oversized,
}

impl Reason {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Clean => "clean",
            Reason::Virus => "virus",
            Reason::Banned => "banned",
            Reason::Checks => "checks",
            Reason::Encrypted => "encrypted",
            Reason::OverLimits => "over-limits",
            Reason::Undecodable => "undecodable",
            Reason::Ambiguous => "ambiguous",
            Reason::ScannerFailed => "scanner-failed",
            Reason::Deadline => "deadline",
            Reason::Spam => "spam",
            Reason::Tagged => "tagged",
            Reason::BadHeader => "bad-header",
            Reason::Oversized => "oversized",
        }
    }
}

/// Section `[destiny]`: what becomes of each category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinySettings {
    /// A scanner found a virus.
    pub virus: Destiny,
    /// A banned file.
    pub banned: Destiny,
    /// Not everything could be looked at.
    pub unchecked: Destiny,
    /// Something is encrypted, so that it could not be looked at; when absent, that of `unchecked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<Destiny>,
    /// It can be read in different ways, as `[ambiguity]` has it; when absent, that of `unchecked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambiguous: Option<Destiny>,
    /// From `spam.kill_level` on.
    pub spam: Destiny,
    /// From `spam.tag_level` on.
    pub spammy: Destiny,
    /// A bad header section.
    pub bad_header: Destiny,
    /// Larger than `contentd.max_size`.
    pub oversized: Destiny,
}

impl Default for DestinySettings {
    fn default() -> DestinySettings {
        DestinySettings {
            virus: Destiny::Reject,
            banned: Destiny::Reject,
            unchecked: Destiny::Pass,
            encrypted: None,
            ambiguous: None,
            // The client still waits: who was taken for a spammer by mistake learns of it from his own server.
            spam: Destiny::Reject,
            spammy: Destiny::Pass,
            bad_header: Destiny::Pass,
            oversized: Destiny::Reject,
        }
    }
}

/// What a scanner's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The client is told to try again.
    Tempfail,
    /// The message is in category "unchecked", and that category's destiny holds.
    Unchecked,
    /// The answer of another scanner does; where there is none, the client is told to try again.
    Next,
}

/// All that a decision depends on besides the findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of each category.
    pub destiny: DestinySettings,
    /// What a scanner's failure means.
    pub on_failure: OnFailure,
    /// The same for scanners of which something else is configured, by name.
    pub on_failure_of: BTreeMap<String, OnFailure>,
    /// What ambiguities lead to.
    pub ambiguity: AmbiguitySettings,
    /// From this score on a message is spam.
    pub kill_level: Score,
    /// Largest message, in bytes.
    pub max_size: u64,
}

impl Policy {
    fn on_failure(&self, scanner: &str) -> OnFailure {
        self.on_failure_of.get(scanner).copied().unwrap_or(self.on_failure)
    }

    fn destiny(&self, category: Category) -> Destiny {
        match category {
            Category::Virus => self.destiny.virus,
            Category::Banned => self.destiny.banned,
            Category::Unchecked => self.destiny.unchecked,
            Category::BadHeader => self.destiny.bad_header,
            Category::Oversized => self.destiny.oversized,
            Category::Spam => self.destiny.spam,
            Category::Spammy => self.destiny.spammy,
            Category::Mta | Category::Clean => Destiny::Pass,
        }
    }

    /// The category that a finding puts the message into. For ambiguities the configuration says it.
    fn category(&self, kind: FindingKind) -> Option<Category> {
        match self.ambiguity.of(kind) {
            Some(Treatment::Score(_)) => None,
            Some(Treatment::BadHeader) => Some(Category::BadHeader),
            Some(Treatment::Unchecked | Treatment::Destiny(_)) => Some(Category::Unchecked),
            None => kind.category(),
        }
    }
}

/// The decision about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The category that decided; when the message passes, its gravest one.
    pub category: Category,
    /// What becomes of the message.
    pub destiny: Destiny,
    /// Why, as a word.
    pub reason: Reason,
    /// Why, in detail: names of viruses or files.
    pub detail: String,
    /// Our reply; none when the message passes, because then the next hop's reply counts.
    pub reply: Option<Reply>,
}

/// One category that the message is in, and why.
struct Ground {
    category: Category,
    destiny: Destiny,
    reason: Reason,
    detail: String,
}

/// Decides. Of all categories that a message is in, the gravest that does not pass holds; when all pass, the gravest is its name.
pub fn decide(findings: &Findings, policy: &Policy) -> Verdict {
    let mut grounds = grounds(findings, policy);
    let decisive = grounds.iter().position(|ground| ground.destiny != Destiny::Pass).unwrap_or(0);
    let Ground { category, destiny, reason, detail } = grounds.swap_remove(decisive);
    let reply = reply(findings, destiny, reason, &detail);
    Verdict { category, destiny, reason, detail, reply }
}

/// The categories that the message is in, the gravest first; never empty.
fn grounds(findings: &Findings, policy: &Policy) -> Vec<Ground> {
    let mut grounds = Vec::new();
    let mut add = |category, reason, detail: String| {
        grounds.push(Ground { category, destiny: policy.destiny(category), reason, detail });
    };
    let viruses = findings.viruses();
    if !viruses.is_empty() {
        add(Category::Virus, Reason::Virus, list(viruses.iter().map(|name| (*name).to_owned())));
    }
    if !findings.banned.is_empty() {
        let files = findings.banned.iter().map(|banned| format!("{}: {}", banned.rule, banned.matched));
        add(Category::Banned, Reason::Banned, list(files));
    }
    if let Some(refusal) = &findings.checked.refusal {
        let destiny = if refusal.is_temporary() { Destiny::Tempfail } else { Destiny::Reject };
        let detail = format!("{}: {}", refusal.rule, refusal.text);
        grounds.push(Ground { category: Category::Banned, destiny, reason: Reason::Checks, detail });
    }
    grounds.extend(unchecked(findings, policy));
    let mut add = |category, reason, detail: String| {
        grounds.push(Ground { category, destiny: policy.destiny(category), reason, detail });
    };
    if let Some(spam) = &findings.spam {
        let detail = || format!("score {}, required {}", spam.score, spam.required);
        if spam.score >= policy.kill_level.0 {
            add(Category::Spam, Reason::Spam, detail());
        } else if spam.is_tagged() {
            add(Category::Spammy, Reason::Tagged, detail());
        }
    }
    let is_bad = |finding: &&Finding| policy.category(finding.kind) == Some(Category::BadHeader);
    if let Some(finding) = findings.found.iter().find(is_bad) {
        add(Category::BadHeader, Reason::BadHeader, finding.kind.word().to_owned());
    }
    if findings.size > policy.max_size {
        add(Category::Oversized, Reason::Oversized, format!("{} bytes", findings.size));
    }
    add(Category::Clean, Reason::Clean, String::new());
    grounds
}

/// The first few of many names, each cut to a length that a log line bears.
fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    const LENGTH: usize = 120;
    let more = names.len() > SHOWN;
    let shown: Vec<String> = names.take(SHOWN).map(|name| name.chars().take(LENGTH).collect()).collect();
    if more { format!("{}, ...", shown.join(", ")) } else { shown.join(", ") }
}

/// Why not everything was looked at. What may be otherwise the next time (deadline, scanner) comes before what will not.
fn unchecked(findings: &Findings, policy: &Policy) -> Vec<Ground> {
    let mut grounds = Vec::new();
    let mut add = |destiny, reason, detail: String| {
        grounds.push(Ground { category: Category::Unchecked, destiny, reason, detail });
    };
    let by_policy = policy.destiny(Category::Unchecked);
    let encrypted = policy.destiny.encrypted.unwrap_or(by_policy);
    if findings.out_of_time {
        add(Destiny::Tempfail, Reason::Deadline, String::new());
    }
    for scan in &findings.scans {
        let told = |why: &str| format!("{}: {why}", scan.scanner);
        match &scan.outcome {
            Outcome::Failed(why) => {
                if let Some(destiny) = failed(scan, findings, policy) {
                    add(destiny, Reason::ScannerFailed, told(why));
                }
            }
            Outcome::Incomplete(why) => add(by_policy, Reason::OverLimits, told(why)),
            Outcome::Encrypted(what) => add(encrypted, Reason::Encrypted, told(what)),
            Outcome::Clean | Outcome::Infected(_) => {}
        }
    }
    // Each reason once with each destiny that it has.
    let ambiguous = policy.destiny.ambiguous.unwrap_or(by_policy);
    let mut told = Vec::new();
    for finding in findings.found.iter().filter(|finding| policy.category(finding.kind) == Some(Category::Unchecked)) {
        let (destiny, reason) = match (finding.kind, policy.ambiguity.of(finding.kind)) {
            (_, Some(Treatment::Destiny(destiny))) => (destiny, Reason::Ambiguous),
            (_, Some(_)) => (ambiguous, Reason::Ambiguous),
            (FindingKind::Encrypted, None) => (encrypted, Reason::Encrypted),
            (FindingKind::OverLimits, None) => (by_policy, Reason::OverLimits),
            (_, None) => (by_policy, Reason::Undecodable),
        };
        if !told.contains(&(reason, destiny)) {
            told.push((reason, destiny));
            add(destiny, reason, finding.to_string());
        }
    }
    if let Some(score) = policy.ambiguity.over_limit(findings) {
        add(ambiguous, Reason::Ambiguous, format!("ambiguity score {score}"));
    }
    grounds
}

/// What follows from a scanner that gave no answer; nothing when another one has taken its place.
fn failed(scan: &Scan, findings: &Findings, policy: &Policy) -> Option<Destiny> {
    let replaceable = scan.scanner != PARSER;
    if replaceable && !scan.backup && findings.is_answered_by_backup() {
        return None;
    }
    match policy.on_failure(&scan.scanner) {
        OnFailure::Next if replaceable && findings.is_answered() => None,
        OnFailure::Next | OnFailure::Tempfail => Some(Destiny::Tempfail),
        OnFailure::Unchecked => Some(policy.destiny(Category::Unchecked)),
    }
}

/// The reply in amavis' words, with the id by which the message is found in the log.
fn reply(findings: &Findings, destiny: Destiny, reason: Reason, detail: &str) -> Option<Reply> {
    let id = &findings.id;
    if let (Reason::Checks, Some(refusal)) = (reason, &findings.checked.refusal) {
        let code = if refusal.is_temporary() { 450 } else { 550 };
        return Some(Reply::new(code, &refusal.status, &format!("id={id} - {}", refusal.text)));
    }
    let what = match reason {
        Reason::Clean | Reason::Checks => String::new(),
        Reason::Virus => format!(" - INFECTED: {detail}"),
        Reason::Banned => format!(" - BANNED: {detail}"),
        Reason::Encrypted => " - UNCHECKED: encrypted".to_owned(),
        Reason::OverLimits => " - UNCHECKED: over limits".to_owned(),
        Reason::Undecodable => " - UNCHECKED: undecodable content".to_owned(),
        Reason::Ambiguous => " - UNCHECKED: ambiguous content".to_owned(),
        // What ails our scanners is for our log, not for the sender.
        Reason::ScannerFailed => " - content scanner not available".to_owned(),
        Reason::Deadline => " - content could not be checked in time".to_owned(),
        // Neither score nor rules: they would teach a spammer.
        Reason::Spam | Reason::Tagged => " - SPAM".to_owned(),
        Reason::BadHeader => format!(" - BAD HEADER: {detail}"),
        Reason::Oversized => " - Message size exceeds the size limit".to_owned(),
    };
    match destiny {
        Destiny::Pass => None,
        Destiny::Tempfail => Some(Reply::new(450, "4.7.0", &format!("Try again later, id={id}{what}"))),
        // Only sent when the message is in the quarantine.
        Destiny::Quarantine => Some(Reply::new(250, "2.7.0", &format!("Ok, quarantined, id={id}{what}"))),
        Destiny::Discard => Some(Reply::new(250, "2.7.0", &format!("Ok, discarded, id={id}{what}"))),
        Destiny::Reject => {
            let (code, enhanced) = match (reason, detail) {
                (Reason::Oversized, _) => (552, "5.3.4"),
                (Reason::BadHeader, "header-8bit") => (554, "5.6.3"),
                (Reason::BadHeader, _) => (554, "5.6.0"),
                _ => (554, "5.7.0"),
            };
            Some(Reply::new(code, enhanced, &format!("Reject, id={id}{what}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Banned;

    fn policy() -> Policy {
        Policy {
            destiny: DestinySettings::default(),
            on_failure: OnFailure::Tempfail,
            on_failure_of: BTreeMap::new(),
            ambiguity: AmbiguitySettings::default(),
            kill_level: Score(15.0),
            max_size: 1000,
        }
    }

    fn scanned(outcome: Outcome) -> Findings {
        Findings { id: "ID".into(), scans: vec![Scan::new("clamd", outcome)], ..Findings::default() }
    }

    fn infected(names: &[&str]) -> Findings {
        scanned(Outcome::Infected(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    fn with(kind: FindingKind) -> Findings {
        let found = vec![Finding::new(kind, "1", "")];
        Findings { id: "ID".into(), found, ..Findings::default() }
    }

    fn banned() -> Findings {
        let banned = Banned { rule: "extension exe".into(), part: "2".into(), matched: "x.exe".into() };
        Findings { id: "ID".into(), banned: vec![banned], ..Findings::default() }
    }

    /// Category, destiny, reason and reply, as one line each.
    fn line(findings: &Findings, policy: &Policy) -> String {
        let verdict = decide(findings, policy);
        let reply = verdict.reply.map(|reply| reply.first_line().into_owned()).unwrap_or_default();
        format!("{} {} {} | {reply}", verdict.category.word(), verdict.destiny.word(), verdict.reason.word())
    }

    #[test]
    fn each_category_by_itself() {
        let large = Findings { id: "ID".into(), size: 1001, ..Findings::default() };
        let late = Findings { id: "ID".into(), out_of_time: true, ..Findings::default() };
        for (findings, expected) in [
            (Findings::default(), "clean pass clean | "),
            (scanned(Outcome::Clean), "clean pass clean | "),
            (infected(&["A", "B"]), "virus reject virus | 554 5.7.0 Reject, id=ID - INFECTED: A, B"),
            (banned(), "banned reject banned | 554 5.7.0 Reject, id=ID - BANNED: extension exe: x.exe"),
            (
                scanned(Outcome::Failed("refused".into())),
                "unchecked tempfail scanner-failed | 450 4.7.0 Try again later, id=ID - content scanner not available",
            ),
            (
                late,
                "unchecked tempfail deadline | 450 4.7.0 Try again later, id=ID - content could not be checked in time",
            ),
            (scanned(Outcome::Incomplete("size".into())), "unchecked pass over-limits | "),
            (scanned(Outcome::Encrypted("Zip".into())), "unchecked pass encrypted | "),
            (with(FindingKind::OverLimits), "unchecked pass over-limits | "),
            (with(FindingKind::Encrypted), "unchecked pass encrypted | "),
            (with(FindingKind::UnknownEncoding), "unchecked pass undecodable | "),
            (with(FindingKind::HeaderDuplicate), "bad-header pass bad-header | "),
            (with(FindingKind::EncodingJunk), "clean pass clean | "),
            (large, "oversized reject oversized | 552 5.3.4 Reject, id=ID - Message size exceeds the size limit"),
        ] {
            assert_eq!(line(&findings, &policy()), expected);
        }
    }

    #[test]
    fn what_is_accepted_and_not_passed_says_so() {
        let mut policy = policy();
        policy.destiny.virus = Destiny::Quarantine;
        policy.destiny.banned = Destiny::Discard;
        let quarantined = "virus quarantine virus | 250 2.7.0 Ok, quarantined, id=ID - INFECTED: A";
        assert_eq!(line(&infected(&["A"]), &policy), quarantined);
        let discarded = "banned discard banned | 250 2.7.0 Ok, discarded, id=ID - BANNED: extension exe: x.exe";
        assert_eq!(line(&banned(), &policy), discarded);
    }

    #[test]
    fn what_is_encrypted_may_have_a_destiny_of_its_own() {
        let mut policy = policy();
        policy.destiny.encrypted = Some(Destiny::Reject);
        let mut findings = with(FindingKind::OverLimits);
        assert_eq!(line(&findings, &policy), "unchecked pass over-limits | ");
        findings.found.extend(with(FindingKind::Encrypted).found);
        let refused = "unchecked reject encrypted | 554 5.7.0 Reject, id=ID - UNCHECKED: encrypted";
        assert_eq!(line(&findings, &policy), refused);
        assert_eq!(line(&scanned(Outcome::Encrypted("Zip".into())), &policy), refused);
    }

    fn rated(score: f64) -> Findings {
        let rules = crate::spam::set::RuleSet::for_tests("body A /a/\n");
        let report = spamrules::Report::default();
        let spam = crate::findings::Spam { score, required: 5.0, report, rules };
        Findings { id: "ID".into(), spam: Some(spam), ..Findings::default() }
    }

    #[test]
    fn spam_by_its_levels() {
        for (score, expected) in [
            (4.999, "clean pass clean | "),
            (5.0, "tagged pass tagged | "),
            (14.999, "tagged pass tagged | "),
            (15.0, "spam reject spam | 554 5.7.0 Reject, id=ID - SPAM"),
        ] {
            assert_eq!(line(&rated(score), &policy()), expected);
        }
        let mut strict = policy();
        (strict.destiny.spammy, strict.destiny.spam) = (Destiny::Quarantine, Destiny::Discard);
        assert_eq!(line(&rated(5.0), &strict), "tagged quarantine tagged | 250 2.7.0 Ok, quarantined, id=ID - SPAM");
        assert_eq!(line(&rated(15.0), &strict), "spam discard spam | 250 2.7.0 Ok, discarded, id=ID - SPAM");
        // A virus is graver, an odd header is not.
        let mut both = rated(20.0);
        both.found = with(FindingKind::HeaderSyntax).found;
        assert!(line(&both, &policy()).starts_with("spam reject"));
        both.scans = infected(&["A"]).scans;
        assert!(line(&both, &policy()).starts_with("virus reject"));
    }

    #[test]
    fn ambiguities_count_as_configured() {
        let mut policy = policy();
        assert_eq!(line(&with(FindingKind::ReadingsDiffer), &policy), "unchecked pass ambiguous | ");
        let mut odd = with(FindingKind::NamesDiffer);
        assert_eq!(line(&odd, &policy), "clean pass clean | ");
        policy.destiny.ambiguous = Some(Destiny::Reject);
        odd.found.extend(with(FindingKind::PartsAfterClose).found);
        let refused = "unchecked reject ambiguous | 554 5.7.0 Reject, id=ID - UNCHECKED: ambiguous content";
        assert_eq!(line(&odd, &policy), refused);
        policy.ambiguity.names_differ = Treatment::Destiny(Destiny::Tempfail);
        assert!(line(&odd, &policy).starts_with("unchecked tempfail ambiguous | 450 "), "{}", line(&odd, &policy));
        policy.ambiguity.header_syntax = Treatment::Unchecked;
        assert_eq!(line(&with(FindingKind::HeaderSyntax), &policy), refused);
        policy.ambiguity.header_syntax = Treatment::Score(crate::points::Points(0));
        assert_eq!(line(&with(FindingKind::HeaderSyntax), &policy), "clean pass clean | ");
        policy.ambiguity.unclosed_multipart = Treatment::BadHeader;
        assert_eq!(line(&with(FindingKind::Unclosed), &policy), "bad-header pass bad-header | ");
    }

    #[test]
    fn the_gravest_category_that_does_not_pass_decides() {
        let mut all = infected(&["A"]);
        all.banned = banned().banned;
        all.found = with(FindingKind::HeaderSyntax).found;
        assert!(line(&all, &policy()).starts_with("virus reject"));

        let mut lenient = policy();
        lenient.destiny.virus = Destiny::Pass;
        assert!(line(&all, &lenient).starts_with("banned reject"));
        lenient.destiny.banned = Destiny::Pass;
        lenient.destiny.bad_header = Destiny::Reject;
        assert_eq!(
            line(&all, &lenient),
            "bad-header reject bad-header | 554 5.6.0 Reject, id=ID - BAD HEADER: header-syntax"
        );
        lenient.destiny.bad_header = Destiny::Pass;
        assert!(line(&all, &lenient).starts_with("virus pass virus"));
    }

    #[test]
    fn what_is_certain_is_refused_even_when_a_scanner_failed() {
        let mut findings = scanned(Outcome::Failed("refused".into()));
        findings.banned = banned().banned;
        assert!(line(&findings, &policy()).starts_with("banned reject"));
        // One scanner found something, another one failed.
        let mut findings = infected(&["A"]);
        findings.scans.push(Scan::new("other", Outcome::Failed("refused".into())));
        assert!(line(&findings, &policy()).starts_with("virus reject"));
    }

    #[test]
    fn a_failed_scanner_may_mean_unchecked() {
        let mut policy = policy();
        policy.on_failure = OnFailure::Unchecked;
        let failed = scanned(Outcome::Failed("refused".into()));
        assert_eq!(line(&failed, &policy), "unchecked pass scanner-failed | ");
        policy.destiny.unchecked = Destiny::Reject;
        assert!(line(&failed, &policy).starts_with("unchecked reject scanner-failed | 554 5.7.0 Reject, id=ID"));
    }

    #[test]
    fn another_scanner_may_do() {
        let failed = |name: &str| Scan::new(name, Outcome::Failed("refused".into()));
        let backup = |outcome| Scan { backup: true, ..Scan::new("spare", outcome) };
        let told = |scans: Vec<Scan>, policy: &Policy| line(&Findings { scans, ..Findings::default() }, policy);
        let mut policy = policy();
        let both = || vec![failed("a"), Scan::new("b", Outcome::Clean)];
        assert!(told(both(), &policy).starts_with("unchecked tempfail scanner-failed"));
        policy.on_failure_of.insert("a".into(), OnFailure::Next);
        assert_eq!(told(both(), &policy), "clean pass clean | ");
        assert!(told(vec![failed("a")], &policy).starts_with("unchecked tempfail"));
        assert!(told(vec![failed("a"), failed("b")], &policy).starts_with("unchecked tempfail"));
        policy.on_failure_of.insert("a".into(), OnFailure::Unchecked);
        assert_eq!(told(both(), &policy), "unchecked pass scanner-failed | ");
        policy.on_failure_of.clear();
        assert_eq!(told(vec![failed("a"), backup(Outcome::Clean)], &policy), "clean pass clean | ");
        let infected = backup(Outcome::Infected(vec!["A".into()]));
        assert!(told(vec![failed("a"), infected], &policy).starts_with("virus reject"));
        policy.on_failure = OnFailure::Next;
        assert!(told(vec![failed(PARSER), backup(Outcome::Clean)], &policy).starts_with("unchecked tempfail"));
        let none = backup(Outcome::Failed("refused".into()));
        assert!(told(vec![failed("a"), none], &policy).starts_with("unchecked tempfail"));
    }

    #[test]
    fn never_clean_when_something_is_wrong() {
        for kind in FindingKind::ALL.iter().filter(|kind| kind.category().is_some()) {
            assert_ne!(decide(&with(*kind), &policy()).category, Category::Clean, "{kind:?}");
        }
    }

    #[test]
    fn names_from_the_message_cannot_break_the_reply() {
        let reply = decide(&infected(&["x\r\n250 ok\0"]), &policy()).reply.unwrap();
        assert!(reply.lines().all(|line| line.starts_with(b"554") && line.iter().all(|byte| (32..127).contains(byte))));
    }

    #[test]
    fn a_table_of_postfix_refuses_in_its_own_words() {
        let refused = |status: &str| {
            let refusal =
                crate::checks::Refusal { status: status.into(), text: "No thanks".into(), rule: "f:1".into() };
            let checked = crate::checks::Outcome { refusal: Some(refusal), ..Default::default() };
            line(&Findings { id: "ID".into(), checked, ..Findings::default() }, &policy())
        };
        assert_eq!(refused("5.7.9"), "banned reject checks | 550 5.7.9 id=ID - No thanks");
        assert_eq!(refused("4.7.1"), "banned tempfail checks | 450 4.7.1 id=ID - No thanks");
    }

    #[test]
    fn many_and_long_names_are_cut() {
        let names = vec!["x".repeat(10_000); 1000];
        let banned = names.into_iter().map(|matched| Banned { rule: "r".into(), part: "1".into(), matched });
        let findings = Findings { banned: banned.collect(), ..Findings::default() };
        let detail = decide(&findings, &policy()).detail;
        assert!(detail.len() < 650 && detail.ends_with(", ..."), "{detail}");
    }

    #[test]
    fn every_word_is_its_own() {
        let mut words: Vec<_> = Category::ALL.iter().map(|category| category.word()).collect();
        words.dedup();
        assert_eq!(words.len(), 9);
    }
}
