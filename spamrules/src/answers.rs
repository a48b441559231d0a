// SPDX-License-Identifier: GPL-3.0-or-later
//! What only a network or a database knows, asked of the caller: DNS lists, SPF, DKIM, Bayes and the like.
//!
//! Rules ask while they run, and wait for nothing: who must look things up first begins with an implementation that notes what it is
//! asked and counts that as [`Answers::waiting`], looks it up, and goes on with [`crate::Ruleset::resume`], which runs only those rules again
//! that have asked. `None` always means "not known": the rule does not hit.

/// A type of DNS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Text; the strings of one record in one.
    Txt,
    /// Names of mail servers.
    Mx,
    /// Names of name servers.
    Ns,
}

/// Whose authority to send SPF is asked about (RFC 7208 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfIdentity {
    /// The name that the client claimed.
    Helo,
    /// The sender of the envelope.
    MailFrom,
}

/// What SPF is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpfQuestion<'q> {
    /// Whose authority.
    pub identity: SpfIdentity,
    /// The address of the client that handed the message to the first host of ours.
    pub client: &'q str,
    /// The name that it claimed; may be empty when the sender is asked about.
    pub helo: &'q str,
    /// The sender of the envelope, in small letters; empty where it has none or nobody knows it. Not so when it is asked about.
    pub sender: &'q str,
}

/// An answer of SPF (RFC 7208 section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfResult {
    /// The domain publishes nothing.
    None,
    /// The domain does not say.
    Neutral,
    /// The client may send for the domain.
    Pass,
    /// The client may not.
    Fail,
    /// The client probably may not.
    SoftFail,
    /// No answer for now.
    TempError,
    /// What the domain publishes is wrong.
    PermError,
}

/// One DKIM signature of the message (RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The signing domain, in small letters.
    pub domain: String,
    /// Whether it was verified and has not expired.
    pub valid: bool,
    /// Size of the key in bits; 0 where it does not count.
    pub key_bits: u32,
    /// Whether the domain says that it only tests.
    pub testing: bool,
}

/// What is known of the ARC sets of the message (RFC 8617).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arc {
    /// The chain was verified.
    pub valid: bool,
}

/// What the author's domain said of unsigned mail (RFC 5617, historic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adsp {
    /// The domain does not exist.
    NoDomain,
    /// Nothing, or that some mail may be unsigned.
    Unknown,
    /// All mail is signed.
    All,
    /// Unsigned mail is to be discarded.
    Discardable,
}

/// What DMARC says of the message (RFC 7489).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dmarc {
    /// It passed.
    Pass,
    /// It failed; the policy asks for nothing.
    None,
    /// It failed; the policy asks for quarantine.
    Quarantine,
    /// It failed; the policy asks for refusal.
    Reject,
    /// The domain has no policy.
    Missing,
}

/// What Razor's servers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Razor {
    /// The message is listed.
    pub listed: bool,
    /// Confidence of the best signature, in percent.
    pub confidence: u8,
}

/// What DCC's servers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dcc {
    /// The message is bulk by the configured counts.
    pub bulk: bool,
    /// Share of bulk mail of the sender, in percent; commercial servers only.
    pub reputation: Option<u8>,
}

/// Answers to questions that a pure library cannot answer. Every method has a default that says "not known".
pub trait Answers {
    /// The records of a name, each as text; empty when there are none.
    fn dns(&self, _name: &str, _record: Record) -> Option<Vec<String>> {
        None
    }

    /// How many questions have so far been answered "not known" only because the answer is still to come, repeated ones too. A rule that
    /// makes the number grow is undecided, and runs again in [`crate::Ruleset::resume`].
    fn waiting(&self) -> u64 {
        0
    }

    /// What SPF says of the client.
    fn spf(&self, _question: &SpfQuestion<'_>) -> Option<SpfResult> {
        None
    }

    /// The signatures of the message, verified.
    fn dkim(&self) -> Option<Vec<Signature>> {
        None
    }

    /// The ARC chain; `None` also when the message has none.
    fn arc(&self) -> Option<Arc> {
        None
    }

    /// The policy of an author's domain for unsigned mail.
    fn adsp(&self, _domain: &str) -> Option<Adsp> {
        None
    }

    /// What DMARC says.
    fn dmarc(&self) -> Option<Dmarc> {
        None
    }

    /// The probability that the message is spam, 0 to 1.
    fn bayes(&self) -> Option<f64> {
        None
    }

    /// What Razor says.
    fn razor(&self) -> Option<Razor> {
        None
    }

    /// Whether Pyzor lists the message.
    fn pyzor(&self) -> Option<bool> {
        None
    }

    /// What DCC says.
    fn dcc(&self) -> Option<Dcc> {
        None
    }

    /// The value of a key in an access table of the mail server.
    fn access(&self, _table: &str, _key: &str) -> Option<String> {
        None
    }
}

/// Knows nothing: what `spamassassin --local` sees.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoAnswers;

impl Answers for NoAnswers {}
