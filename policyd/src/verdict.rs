// SPDX-License-Identifier: GPL-3.0-or-later
//! What was decided and why, and how Postfix is told (access(5), SMTPD_POLICY_README).
//!
//! Pure. The texts of replies are made here and nowhere else, never from an error. `OK` is not among the actions:
//! in the recipient restrictions it would also end the check against open relaying. HOLD, FILTER, REDIRECT, BCC
//! and DISCARD are given with `policyd.orders = "postfix"` only: with a proxy filter Postfix only logs them and lets the mail go on.

use std::borrow::Cow;
use std::fmt::Write;

use crate::triplet::Triplet;

/// What Postfix itself does with a message that may go on (access(5)), where no proxy filter is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostfixOrder {
    kind: usize,
    argument: String,
}

impl PostfixOrder {
    /// The words of all of them.
    pub const WORDS: [&str; 5] = ["hold", "discard", "redirect", "bcc", "filter"];

    /// An order by its word, with the text, address or destination that stands behind it; none for a word that is not among these.
    pub fn new(word: &str, argument: impl Into<String>) -> Option<Self> {
        let kind = Self::WORDS.iter().position(|known| *known == word)?;
        Some(Self { kind, argument: argument.into() })
    }

    /// The word for log and metric.
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.kind]
    }

    fn verb(&self) -> &'static str {
        ["HOLD ", "DISCARD ", "REDIRECT ", "BCC ", "FILTER "][self.kind]
    }
}

/// What Postfix is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the next restriction.
    Pass,
    /// Go on, and put this header line (`Name: value`) on top of the message.
    PassWithHeader(String),
    /// Refuse for good with this text, which begins with an enhanced status code (RFC 3463).
    Reject(Cow<'static, str>),
    /// Refuse for good with this reply: SMTP code, enhanced status code, text.
    RejectAs(Cow<'static, str>),
    /// Refuse for now, with this text.
    Defer(String),
    /// Refuse for now unless a later restriction refuses for good, with this text.
    DeferIfPermit(String),
    /// Go on, and Postfix does this with the message.
    PassWithOrder(PostfixOrder),
}

impl Verdict {
    /// How many kinds of verdicts there are.
    pub const KINDS: usize = 6 + PostfixOrder::WORDS.len();

    /// Number of the kind, under [`Verdict::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Self::Pass => 0,
            Self::PassWithHeader(_) => 1,
            Self::Reject(_) => 2,
            Self::Defer(_) => 3,
            Self::DeferIfPermit(_) => 4,
            Self::RejectAs(_) => 5,
            Self::PassWithOrder(order) => 6 + order.kind,
        }
    }

    /// The word for log and metric: the Postfix action in lower case.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "dunno",
            Self::PassWithHeader(_) => "prepend",
            Self::Reject(_) | Self::RejectAs(_) => "reject",
            Self::Defer(_) => "defer",
            Self::DeferIfPermit(_) => "defer_if_permit",
            Self::PassWithOrder(order) => order.word(),
        }
    }

    /// True when the mail may go on.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::Pass | Self::PassWithHeader(_) | Self::PassWithOrder(_))
    }

    /// Writes the action for Postfix to `out`, which is emptied first.
    pub fn action(&self, out: &mut String) {
        out.clear();
        let (verb, text): (&str, &str) = match self {
            Self::Pass => ("DUNNO", ""),
            Self::PassWithHeader(header) => ("PREPEND ", header),
            Self::Reject(text) => ("REJECT ", text),
            Self::RejectAs(reply) => ("", reply),
            Self::Defer(text) => ("DEFER ", text),
            Self::DeferIfPermit(text) => ("DEFER_IF_PERMIT ", text),
            Self::PassWithOrder(order) => (order.verb(), &order.argument),
        };
        out.push_str(verb);
        out.push_str(text);
    }
}

/// Why: the closed list of words that log, metrics and later `octroi why` share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No check had anything to say at this stage.
    NothingToCheck,
    /// The client is in a whitelist.
    ClientWhitelisted,
    /// The client is in a blacklist.
    ClientBlacklisted,
    /// The sender is in a whitelist.
    SenderWhitelisted,
    /// The sender is in a blacklist.
    SenderBlacklisted,
    /// The recipient is in a whitelist.
    RecipientWhitelisted,
    /// The recipient is in a blacklist.
    RecipientBlacklisted,
    /// A rule accepts; no further check is asked.
    RuleAccepted,
    /// A rule refuses for good.
    RuleRejected,
    /// A rule refuses for now.
    RuleDeferred,
    /// The policy server that a rule asks refuses.
    RuleAsked,
    /// The client asks far too often.
    Shielded,
    /// The client has logged in; its mail is not greylisted.
    Authenticated,
    /// The client is one of ours; its mail is not greylisted.
    OwnNetwork,
    /// Postfix does not know the client's address; there is no triplet without it.
    NoClient,
    /// The perimeter's score is high enough for a refusal.
    ScoreTooHigh,
    /// HELO is refused.
    HeloRefused,
    /// The name of the client's address is refused.
    ReverseNameRefused,
    /// The sender's domain is refused.
    SenderDomainRefused,
    /// What SPF says is refused.
    SpfRefused,
    /// Where the client is, is refused.
    GeoRefused,
    /// The perimeter has weighed the client; neither high enough for a refusal nor low enough for a whitelist.
    Scored,
    /// The perimeter's score is low enough: it is not greylisted.
    ScoredGood,
    /// The perimeter would have refused or greylisted it, and does not enforce it.
    WouldRefuse,
    /// Greylisting is off.
    GreylistOff,
    /// The null sender (or postmaster) at RCPT: greylisted at DATA, so that callbacks of others work.
    WaitsForData,
    /// Adaptive greylisting saw no sign against the client.
    Unsuspicious,
    /// The client is in a DNS whitelist; it is not greylisted.
    DnsWhitelisted,
    /// The client has come again often enough; it is not greylisted any more.
    Trusted,
    /// The recipient wrote to the sender lately; what may be a reply is not greylisted.
    Reply,
    /// The client writes to a trap; its network is told to come again much later.
    Trap,
    /// Somebody of the client's network wrote to a trap.
    Trapped,
    /// The recipient is a role account, which is not greylisted.
    RoleAccount,
    /// The recipient is not greylisted by its own or its domain's wish.
    OptedOut,
    /// Greylisted: this triplet was not known.
    GreylistNew,
    /// Greylisted: this triplet came again before its delay was over.
    GreylistEarly,
    /// Greylisted and not recorded: too many triplets of its network wait and never came again.
    TooManyPending,
    /// This triplet came again after its delay, for the first time.
    GreylistPassedNow,
    /// This triplet has passed before.
    GreylistPassed,
    /// Learn mode: would have been greylisted.
    WouldDefer,
    /// As much as a limit allows has been sent.
    OverLimit,
    /// There is no such recipient.
    RecipientUnknown,
    /// Nobody can tell whether there is such a recipient; `recipients.on_unavailable` holds.
    RecipientUnverified,
    /// Only insiders may write to this recipient.
    RecipientProtected,
    /// The store cannot be reached or answers with errors; the configured fallback holds.
    StoreUnavailable,
    /// The store did not answer within the budget; the configured fallback holds.
    OverBudget,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::OverBudget as usize + 1;

    /// True for refusals by the perimeter.
    pub fn is_of_perimeter(self) -> bool {
        matches!(
            self,
            Self::ScoreTooHigh
                | Self::HeloRefused
                | Self::ReverseNameRefused
                | Self::SenderDomainRefused
                | Self::SpfRefused
                | Self::GeoRefused
        )
    }

    /// The word for log and metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::NothingToCheck => "nothing_to_check",
            Self::ClientWhitelisted => "client_whitelisted",
            Self::ClientBlacklisted => "client_blacklisted",
            Self::SenderWhitelisted => "sender_whitelisted",
            Self::SenderBlacklisted => "sender_blacklisted",
            Self::RecipientWhitelisted => "recipient_whitelisted",
            Self::RecipientBlacklisted => "recipient_blacklisted",
            Self::RuleAccepted => "rule_accepted",
            Self::RuleRejected => "rule_rejected",
            Self::RuleDeferred => "rule_deferred",
            Self::RuleAsked => "rule_asked",
            Self::Shielded => "shielded",
            Self::Authenticated => "authenticated",
            Self::OwnNetwork => "own_network",
            Self::NoClient => "no_client",
            Self::ScoreTooHigh => "score_too_high",
            Self::HeloRefused => "helo_refused",
            Self::ReverseNameRefused => "reverse_name_refused",
            Self::SenderDomainRefused => "sender_domain_refused",
            Self::SpfRefused => "spf_refused",
            Self::GeoRefused => "geo_refused",
            Self::Scored => "scored",
            Self::ScoredGood => "scored_good",
            Self::WouldRefuse => "would_refuse",
            Self::GreylistOff => "greylist_off",
            Self::WaitsForData => "waits_for_data",
            Self::Unsuspicious => "unsuspicious",
            Self::DnsWhitelisted => "dns_whitelisted",
            Self::Trusted => "trusted",
            Self::Reply => "reply",
            Self::Trap => "trap",
            Self::Trapped => "trapped",
            Self::RoleAccount => "role_account",
            Self::OptedOut => "opted_out",
            Self::GreylistNew => "greylist_new",
            Self::GreylistEarly => "greylist_early",
            Self::TooManyPending => "too_many_pending",
            Self::GreylistPassedNow => "greylist_passed_now",
            Self::GreylistPassed => "greylist_passed",
            Self::WouldDefer => "would_defer",
            Self::OverLimit => "over_limit",
            Self::RecipientUnknown => "recipient_unknown",
            Self::RecipientUnverified => "recipient_unverified",
            Self::RecipientProtected => "recipient_protected",
            Self::StoreUnavailable => "store_unavailable",
            Self::OverBudget => "over_budget",
        }
    }
}

/// A handle by which a decision is found in the log: ten characters of Crockford's base 32, given to the sender in
/// the reply. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionId([u8; 10]);

impl DecisionId {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// The id of a number; the low 50 bits count.
    pub fn from_bits(bits: u64) -> Self {
        Self(std::array::from_fn(|at| Self::ALPHABET[(bits >> (5 * (9 - at)) & 31) as usize]))
    }

    /// The number of ten such characters, as somebody types them: in any case, and with the letters that look like digits
    /// (Crockford's base 32: o is 0, i and l are 1).
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0u64;
        for byte in text.bytes() {
            let digit = match byte.to_ascii_lowercase() {
                b'o' => 0,
                b'i' | b'l' => 1,
                byte => Self::ALPHABET.iter().position(|letter| *letter == byte)?,
            };
            bits = bits << 5 | digit as u64;
        }
        (text.len() == 10).then(|| Self::from_bits(bits))
    }

    /// The number of 50 bits.
    pub fn bits(&self) -> i64 {
        let digit = |byte: &u8| Self::ALPHABET.iter().position(|letter| letter == byte).unwrap_or_default() as i64;
        self.0.iter().fold(0, |bits, byte| bits << 5 | digit(byte))
    }

    /// The ten characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What to tell Postfix.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The fact behind it in words, for log and trace: the list entry that matched, the signs seen. Often empty.
    pub fact: String,
    /// What was asked of the greylist, when the answer is kept to be explained: deferrals and first passes.
    pub asked: Option<Box<Asked>>,
}

/// A greylist key, and what the store knew of it, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The key.
    pub triplet: Triplet,
    /// Until it may pass.
    pub left: Option<i64>,
    /// Since its first try, when it passes now.
    pub waited: Option<i64>,
    /// What it has to wait in all.
    pub delay: i64,
}

impl Finding {
    /// Lets the mail go on.
    pub fn pass(reason: Reason) -> Self {
        Self { verdict: Verdict::Pass, reason, fact: String::new(), asked: None }
    }

    /// The same with what was asked of the greylist.
    pub fn about(mut self, asked: Asked) -> Self {
        self.asked = Some(Box::new(asked));
        self
    }

    /// The same with the fact behind it.
    pub fn because(mut self, fact: impl Into<String>) -> Self {
        self.fact = fact.into();
        self
    }
}

/// The text of a refusal by an access list (RFC 3463: 5.7.1, delivery not authorized).
pub fn blacklisted(reason: Reason) -> Verdict {
    Verdict::Reject(Cow::Borrowed(match reason {
        Reason::ClientBlacklisted => "5.7.1 Client host rejected: access denied",
        Reason::SenderBlacklisted => "5.7.1 Sender address rejected: access denied",
        Reason::RecipientBlacklisted => "5.7.1 Recipient address rejected: access denied",
        _ => "5.7.1 Access denied",
    }))
}

/// The text of a refusal because we cannot tell (RFC 3463: 4.3.0, other mail system status).
pub fn cannot_tell(id: DecisionId) -> Verdict {
    let mut text = String::with_capacity(64);
    // Writing to a String cannot fail.
    let _ = write!(text, "4.3.0 Temporary trouble, try again later; id {}", id.as_str());
    Verdict::Defer(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_become_postfix_actions() {
        let mut out = String::from("left over");
        for (verdict, action, word) in [
            (Verdict::Pass, "DUNNO", "dunno"),
            (Verdict::PassWithHeader("X-Greylist: a".into()), "PREPEND X-Greylist: a", "prepend"),
            (blacklisted(Reason::SenderBlacklisted), "REJECT 5.7.1 Sender address rejected: access denied", "reject"),
            (Verdict::RejectAs("550 5.1.1 x".into()), "550 5.1.1 x", "reject"),
            (Verdict::Defer("4.3.0 x".into()), "DEFER 4.3.0 x", "defer"),
            (Verdict::DeferIfPermit("4.7.1 x".into()), "DEFER_IF_PERMIT 4.7.1 x", "defer_if_permit"),
        ] {
            verdict.action(&mut out);
            assert_eq!(out, action);
            assert_eq!(verdict.word(), word);
            assert!(verdict.kind() < Verdict::KINDS);
        }
    }

    #[test]
    fn ids_are_ten_characters_and_differ() {
        assert_eq!(DecisionId::from_bits(0).as_str(), "0000000000");
        assert_eq!(DecisionId::from_bits(u64::MAX).as_str(), "zzzzzzzzzz");
        assert_eq!(DecisionId::from_bits(32).as_str(), "0000000010");
        assert_ne!(DecisionId::from_bits(1), DecisionId::from_bits(2));
        for bits in [0, 1, 31, 32, 0x2_dead_beef_cafe, (1 << 50) - 1] {
            let id = DecisionId::from_bits(bits);
            assert_eq!((id.bits(), DecisionId::parse(id.as_str())), (bits as i64, Some(id)));
            assert_eq!(DecisionId::parse(&id.as_str().to_uppercase()), Some(id));
        }
        assert_eq!(DecisionId::parse("OIL0000000"), Some(DecisionId::from_bits(1 << 40 | 1 << 35)));
        assert!(DecisionId::parse("").is_none() && DecisionId::parse("00000000000").is_none());
        assert!(DecisionId::parse("0000u00000").is_none());
    }

    #[test]
    fn trouble_of_ours_is_told_without_its_cause() {
        assert_eq!(
            cannot_tell(DecisionId::from_bits(1)),
            Verdict::Defer("4.3.0 Temporary trouble, try again later; id 0000000001".into())
        );
    }
}
