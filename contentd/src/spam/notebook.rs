// SPDX-License-Identifier: GPL-3.0-or-later
//! What the rules ask about one message that only the network knows: noted while they run, answered when the answers are there
//! (`spamrules::Answers`). Pure; `lookup` asks.
//!
//! Names come from whoever wrote the message. So each is checked before it is noted, and a message has so many questions at most.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use common::spf;
use spamrules::{Answers, Record, SpfIdentity, SpfQuestion, SpfResult};

use crate::envelope::Envelope;
use crate::findings::Asked;

/// Top-level domains that DNS does not have (RFC 6761, RFC 6762, RFC 7686, ICANN's `internal`): names of hosts nearby, which are nobody's business.
const NOT_IN_DNS: [&str; 6] = ["local", "localhost", "invalid", "onion", "internal", "localdomain"];

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// Records of a name.
    Dns {
        /// In small letters, without the final dot.
        name: String,
        /// Their type.
        record: Record,
    },
    /// What SPF says of a client.
    Spf(SpfClaim),
}

/// What a client claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpfClaim {
    /// By what: its own name, or the sender.
    pub identity: SpfIdentity,
    /// Its address.
    pub client: String,
    /// Its name.
    pub helo: String,
    /// The sender of the envelope.
    pub sender: String,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The records; empty when there are none.
    Records(Vec<String>),
    /// The answer of SPF.
    Spf(SpfResult),
    /// No answer came, or none in time.
    Unknown,
}

impl Fact {
    /// Whether a rule could hit because of this answer. That there are no mail servers says something; that an address is in no list does not.
    fn is_telling(&self, question: &Question) -> bool {
        match (self, question) {
            (Fact::Records(records), Question::Dns { record, .. }) => !records.is_empty() || *record == Record::Mx,
            (Fact::Spf(_), _) => true,
            (Fact::Records(_) | Fact::Unknown, _) => false,
        }
    }
}

/// The questions of one message, and what is known of them.
#[derive(Debug, Default)]
pub struct Notebook {
    /// Most questions; 0: the network is not asked.
    most: usize,
    /// What policyd has found.
    told: Option<HandedOver>,
    known: HashMap<Question, Fact>,
    wanted: RefCell<Wanted>,
    waiting: Cell<u64>,
    asked: Asked,
}

#[derive(Debug, Default)]
struct Wanted {
    /// In the order in which they were asked.
    list: Vec<Question>,
    seen: HashSet<Question>,
    too_many: bool,
}

impl Notebook {
    /// One in which nothing is asked, but what is known already.
    pub fn closed(envelope: &Envelope) -> Notebook {
        Notebook::new(envelope, 0)
    }

    /// One for at most so many questions. What policyd has found is known.
    pub fn new(envelope: &Envelope, most: usize) -> Notebook {
        // What it could not find out then is asked once more.
        let told = HandedOver::of(envelope).filter(|told| most == 0 || told.result != SpfResult::TempError);
        Notebook { most, told, ..Notebook::default() }
    }

    /// The questions since the last time. They count as asked from now on.
    pub fn take_wanted(&mut self) -> Vec<Question> {
        let questions = std::mem::take(&mut self.wanted.get_mut().list);
        self.asked.asked += questions.len();
        questions
    }

    /// How many questions were asked and answered.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Notes answers. Whether rules could hit because of them.
    pub fn learn(&mut self, answers: Vec<(Question, Fact)>) -> bool {
        let mut telling = false;
        for (question, fact) in answers {
            telling |= fact.is_telling(&question);
            self.asked.answered += usize::from(fact != Fact::Unknown);
            self.known.insert(question, fact);
        }
        telling
    }

    /// What SPF says of the sender, or of the client's name where there is no sender, as far as it was asked here.
    pub fn spf_word(&self) -> Option<&'static str> {
        let of = |wanted: SpfIdentity| {
            self.known.iter().find_map(|(question, fact)| match (question, fact) {
                (Question::Spf(claim), Fact::Spf(result)) if claim.identity == wanted => Some(word(*result)),
                _ => None,
            })
        };
        let about_sender = |question: &Question| matches!(question, Question::Spf(claim) if !claim.sender.is_empty());
        let has_sender = self.known.keys().any(about_sender);
        if has_sender { of(SpfIdentity::MailFrom) } else { of(SpfIdentity::Helo) }
    }

    /// Whether there were more questions than may be.
    pub fn is_full(&self) -> bool {
        self.wanted.borrow().too_many
    }

    fn want(&self, question: Question) {
        let mut wanted = self.wanted.borrow_mut();
        if !wanted.seen.contains(&question) {
            if wanted.seen.len() >= self.most {
                wanted.too_many = true;
                return;
            }
            wanted.seen.insert(question.clone());
            wanted.list.push(question);
        }
        self.waiting.set(self.waiting.get() + 1);
    }

    fn ask(&self, question: Question) -> Option<&Fact> {
        let known = self.known.get(&question);
        if known.is_none() && self.most > 0 {
            self.want(question);
        }
        known
    }
}

impl Answers for Notebook {
    fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
        if self.most == 0 {
            return None;
        }
        let name = asked_for(name)?;
        match self.ask(Question::Dns { name, record }) {
            Some(Fact::Records(records)) => Some(records.clone()),
            _ => None,
        }
    }

    fn spf(&self, question: &SpfQuestion<'_>) -> Option<SpfResult> {
        if let Some(told) = self.told.as_ref().filter(|told| told.is_about(question)) {
            return Some(told.result);
        }
        let claim = SpfClaim {
            identity: question.identity,
            client: question.client.to_owned(),
            helo: question.helo.to_ascii_lowercase(),
            sender: question.sender.to_lowercase(),
        };
        match self.ask(Question::Spf(claim)) {
            Some(Fact::Spf(result)) => Some(*result),
            _ => None,
        }
    }

    fn waiting(&self) -> u64 {
        self.waiting.get()
    }
}

/// The name as it is asked for; none when it is not to be: no name of the public DNS, or none at all.
fn asked_for(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (_, last) = name.rsplit_once('.')?;
    let letters = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let good = name.len() <= 253
        && name.split('.').all(letters)
        && !last.bytes().all(|b| b.is_ascii_digit())
        && !NOT_IN_DNS.contains(&last);
    good.then_some(name)
}

/// What policyd has found of SPF.
#[derive(Debug)]
struct HandedOver {
    identity: SpfIdentity,
    client: IpAddr,
    /// The sender, or the client's name where there is no sender; in small letters.
    subject: String,
    result: SpfResult,
}

impl HandedOver {
    fn of(envelope: &Envelope) -> Option<HandedOver> {
        let (result, client) = (envelope.spf?, envelope.client.ip()?);
        let helo = || envelope.client.helo.clone().unwrap_or_default();
        let (identity, subject) = match envelope.sender.is_null() {
            true => (SpfIdentity::Helo, helo()),
            false => (SpfIdentity::MailFrom, envelope.sender.address.clone()),
        };
        Some(HandedOver { identity, client, subject: subject.to_lowercase(), result: result_of(result) })
    }

    fn is_about(&self, question: &SpfQuestion<'_>) -> bool {
        let subject = match question.identity {
            SpfIdentity::Helo => question.helo,
            SpfIdentity::MailFrom => question.sender,
        };
        self.identity == question.identity
            && question.client.parse() == Ok(self.client)
            && subject.to_lowercase() == self.subject
    }
}

/// The result in the words of the rules.
pub fn result_of(result: spf::SpfResult) -> SpfResult {
    match result {
        spf::SpfResult::None => SpfResult::None,
        spf::SpfResult::Neutral => SpfResult::Neutral,
        spf::SpfResult::Pass => SpfResult::Pass,
        spf::SpfResult::Fail => SpfResult::Fail,
        spf::SpfResult::Softfail => SpfResult::SoftFail,
        spf::SpfResult::Temperror => SpfResult::TempError,
        spf::SpfResult::Permerror => SpfResult::PermError,
    }
}

/// The word for a result (RFC 8601).
fn word(result: SpfResult) -> &'static str {
    match result {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Client, MessageId, Path};
    use proptest::prelude::*;

    fn envelope(sender: &str, spf: Option<spf::SpfResult>) -> Envelope {
        let client = Client {
            addr: Some("192.0.2.7".to_owned()),
            helo: Some("Mail.Example.org".to_owned()),
            ..Client::default()
        };
        Envelope { spf, ..Envelope::new(MessageId::generate(), Path::from_address(sender), client) }
    }

    fn dns(name: &str, record: Record) -> Question {
        Question::Dns { name: name.to_owned(), record }
    }

    #[test]
    fn questions_are_noted_once_and_answered_later() {
        let mut book = Notebook::new(&envelope("", None), 10);
        for name in ["a.list.test", "A.list.test.", "b.list.test"] {
            assert_eq!(book.dns(name, Record::A), None);
        }
        assert_eq!(book.waiting(), 3, "each of them makes its rule wait");
        assert_eq!(book.take_wanted(), [dns("a.list.test", Record::A), dns("b.list.test", Record::A)]);
        let nothing = (dns("a.list.test", Record::A), Fact::Records(Vec::new()));
        assert!(!book.learn(vec![nothing, (dns("b.list.test", Record::A), Fact::Unknown)]));
        assert_eq!(book.dns("a.list.test", Record::A), Some(Vec::new()));
        assert_eq!(book.dns("b.list.test", Record::A), None);
        assert_eq!((book.waiting(), book.take_wanted().len()), (3, 0), "what did not come is not asked again");
        assert_eq!(book.asked(), Asked { asked: 2, answered: 1 });
        assert!(book.learn(vec![(dns("c.test", Record::Mx), Fact::Records(Vec::new()))]));
        assert!(book.learn(vec![(dns("d.test", Record::A), Fact::Records(vec!["127.0.0.2".to_owned()]))]));
    }

    #[test]
    fn there_are_so_many_questions_and_no_more() {
        let mut book = Notebook::new(&envelope("", None), 2);
        for number in 0..5 {
            assert_eq!(book.dns(&format!("n{number}.test"), Record::A), None);
        }
        assert_eq!((book.take_wanted().len(), book.waiting(), book.is_full()), (2, 2, true));
        let mut closed = Notebook::closed(&envelope("", None));
        assert_eq!(closed.dns("a.test", Record::A), None);
        assert_eq!((closed.take_wanted().len(), closed.waiting(), closed.is_full()), (0, 0, false));
    }

    #[test]
    fn not_every_name_is_asked_for() {
        for name in ["example.org", "2.0.0.127.list.test.", "a_b.example.org", "xn--bcher-kva.example"] {
            assert!(asked_for(name).is_some(), "{name}");
        }
        let long = format!("{}.org", "a".repeat(64));
        for name in [
            "org",
            "",
            ".",
            "a..org",
            "a b.org",
            "a\0.org",
            "printer.local",
            "db.internal",
            "1.2.3.4",
            "b\u{fc}cher.example",
            &long,
        ] {
            assert_eq!(asked_for(name), None, "{name}");
        }
    }

    #[test]
    fn what_policyd_has_found_is_not_asked_again() {
        let ask =
            |book: &Notebook, identity, client, helo, sender| book.spf(&SpfQuestion { identity, client, helo, sender });
        let found = Some(spf::SpfResult::Softfail);
        let book = Notebook::closed(&envelope("Ann@example.org", found));
        let (helo, sender) = ("mail.example.org", "ann@example.org");
        assert_eq!(ask(&book, SpfIdentity::MailFrom, "192.0.2.7", helo, sender), Some(SpfResult::SoftFail));
        assert_eq!(ask(&book, SpfIdentity::Helo, "192.0.2.7", helo, sender), None);
        assert_eq!(ask(&book, SpfIdentity::MailFrom, "192.0.2.8", helo, sender), None, "of another client");
        assert_eq!(ask(&book, SpfIdentity::MailFrom, "192.0.2.7", helo, "eve@example.org"), None);
        let bounce = Notebook::closed(&envelope("", found));
        assert_eq!(ask(&bounce, SpfIdentity::Helo, "192.0.2.7", helo, ""), Some(SpfResult::SoftFail));
        assert_eq!(ask(&bounce, SpfIdentity::MailFrom, "192.0.2.7", helo, ""), None);
        assert_eq!(ask(&book, SpfIdentity::MailFrom, "192.0.2.7", "other", sender), Some(SpfResult::SoftFail));
        let mut unsure = Notebook::new(&envelope(sender, Some(spf::SpfResult::Temperror)), 5);
        assert_eq!(ask(&unsure, SpfIdentity::MailFrom, "192.0.2.7", helo, sender), None);
        assert_eq!((unsure.take_wanted().len(), unsure.waiting()), (1, 1), "it is asked once more");
        let claim = |identity, sender: &str| {
            let (client, helo) = ("192.0.2.7".to_owned(), helo.to_owned());
            Question::Spf(SpfClaim { identity, client, helo, sender: sender.to_owned() })
        };
        let mut book = Notebook::new(&envelope(sender, None), 5);
        book.learn(vec![(claim(SpfIdentity::Helo, sender), Fact::Spf(SpfResult::Pass))]);
        assert_eq!(book.spf_word(), None, "what is true of the client's name need not be of the sender");
        book.learn(vec![(claim(SpfIdentity::MailFrom, sender), Fact::Spf(SpfResult::Fail))]);
        assert_eq!(book.spf_word(), Some("fail"));
    }

    proptest! {
        #[test]
        fn any_name_can_be_asked_for(name in ".{0,80}|[a-z0-9._-]{0,300}") {
            if let Some(asked) = asked_for(&name) {
                prop_assert!(asked.is_ascii() && asked.len() <= 253 && asked.contains('.'));
            }
        }
    }
}
