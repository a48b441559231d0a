// SPDX-License-Identifier: GPL-3.0-or-later
//! Asks DNS and SPF what the rules want to know of a message: all questions at once, until a deadline. What has not come by then is not known.
//!
//! `notebook` says what is asked. The resolver is the one of `[dns]`, with its cache and its time for one question.

use std::sync::Arc;
use std::time::Duration;

use common::dns::{Answer, Resolver};
use common::spf;
use metrics::{counter, histogram};
use spamrules::{Record, SpfIdentity};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::notebook::{Fact, Question, SpfClaim, result_of};
use super::settings::SpamSettings;

/// Questions of all messages that are on their way at once; others wait for their turn, within their time.
const AT_ONCE: usize = 512;
/// Records of one answer that rules see.
const MAX_RECORDS: usize = 32;
/// Bytes of a text record that rules see.
const MAX_TEXT: usize = 2048;

/// Who asks, and how long.
#[derive(Debug)]
pub struct Lookups {
    asker: Asker,
    /// For all answers of one message together.
    time: Duration,
    /// Questions of one message.
    most: usize,
}

/// Who asks. Cheap to clone.
#[derive(Debug, Clone)]
struct Asker {
    resolver: Resolver,
    /// Our name.
    hostname: Arc<str>,
    room: Arc<Semaphore>,
}

impl Lookups {
    /// As `[spam]` says.
    pub fn new(settings: &SpamSettings, resolver: Resolver, hostname: String) -> Lookups {
        Lookups {
            asker: Asker { resolver, hostname: hostname.into(), room: Arc::new(Semaphore::new(AT_ONCE)) },
            time: settings.network_time.0,
            most: usize::try_from(settings.network_questions).unwrap_or(usize::MAX),
        }
    }

    /// Most questions of one message.
    pub fn most(&self) -> usize {
        self.most
    }

    /// For how long the answers of a message are waited for.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Asks everything at once. Each question comes back with what became of it; who does not wait any more stops them all.
    pub async fn ask(&self, questions: Vec<Question>, until: Instant) -> Vec<(Question, Fact)> {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for question in questions {
            running.spawn(self.asker.clone().one(question, until));
        }
        let mut answers = Vec::with_capacity(running.len());
        while let Some(answer) = running.join_next().await {
            // One that broke off because of a bug has not answered.
            answers.extend(answer.ok());
        }
        histogram!("octroi_contentd_spam_lookup_seconds").record(begun.elapsed().as_secs_f64());
        answers
    }
}

impl Asker {
    async fn one(self, question: Question, until: Instant) -> (Question, Fact) {
        let answer = timeout_at(until, async {
            // The semaphore is never closed, so this always gives a permit.
            let _turn = self.room.acquire().await;
            self.fact(&question).await
        });
        let (fact, outcome) = answer.await.unwrap_or((Fact::Unknown, "timeout"));
        counter!("octroi_contentd_spam_lookups_total", "outcome" => outcome).increment(1);
        (question, fact)
    }

    /// The answer, and a word for what it is.
    async fn fact(&self, question: &Question) -> (Fact, &'static str) {
        let (name, record) = match question {
            Question::Spf(claim) => return self.spf(claim).await,
            Question::Dns { name, record } => (name.as_str(), *record),
        };
        match record {
            Record::A => told(self.resolver.a(name).await, |address| address.to_string()),
            Record::Aaaa => told(self.resolver.aaaa(name).await, |address| address.to_string()),
            Record::Mx => told(self.resolver.mx(name).await, |mx| mx.exchange),
            Record::Ns => told(self.resolver.ns(name).await, |host| host),
            Record::Txt => told(self.resolver.txt(name).await, |text| {
                String::from_utf8_lossy(text.get(..MAX_TEXT).unwrap_or(&text)).into_owned()
            }),
        }
    }

    async fn spf(&self, claim: &SpfClaim) -> (Fact, &'static str) {
        let Ok(ip) = claim.client.parse() else { return (Fact::Unknown, "failed") };
        let now = jiff::Timestamp::now().as_second();
        let sender = match claim.identity {
            // Without a sender SPF asks about the name (RFC 7208 section 2.4).
            SpfIdentity::Helo => "",
            SpfIdentity::MailFrom => &claim.sender,
        };
        let query = spf::Query {
            ip,
            helo: &claim.helo,
            sender,
            receiver: &self.hostname,
            now: u64::try_from(now).unwrap_or_default(),
        };
        let result = spf::check_host(&self.resolver, &query).await.result;
        let outcome = match result {
            spf::SpfResult::Temperror => "failed",
            spf::SpfResult::None => "none",
            _ => "answered",
        };
        (Fact::Spf(result_of(result)), outcome)
    }
}

/// An answer as rules see it.
fn told<T>(answer: Answer<T>, text: impl Fn(T) -> String) -> (Fact, &'static str) {
    match answer {
        Ok(records) if records.is_empty() => (Fact::Records(Vec::new()), "none"),
        Ok(records) => (Fact::Records(records.into_iter().take(MAX_RECORDS).map(text).collect()), "answered"),
        Err(_) => (Fact::Unknown, "failed"),
    }
}

/// Tells the metrics page what these numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_histogram};
    describe_counter!("octroi_contentd_spam_lookups_total", "Questions of the spam rules to DNS and SPF, by outcome");
    describe_histogram!(
        "octroi_contentd_spam_lookup_seconds",
        "Time that a message waited for answers to questions of the spam rules"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dns::Zone;

    const ZONE: &str = "2.0.0.127.list.test A 127.0.0.2\ntext.test TXT \"some text\"\nmail.test MX 10 mx.mail.test\n\
        zone.test NS ns.zone.test\nsix.test AAAA 2001:db8::1\nslow.test TIMEOUT\n\
        spf.test TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nhelo.test TXT \"v=spf1 -all\"\n";

    fn lookups() -> Lookups {
        Lookups::new(&SpamSettings::default(), Resolver::Canned(Zone::parse(ZONE).unwrap()), "mx.test".to_owned())
    }

    async fn fact(question: Question) -> Fact {
        let until = Instant::now() + Duration::from_secs(60);
        let [(asked, fact)] = lookups().ask(vec![question.clone()], until).await.try_into().unwrap();
        assert_eq!(asked, question);
        fact
    }

    #[tokio::test]
    async fn records_as_text() {
        for (name, record, expected) in [
            ("2.0.0.127.list.test", Record::A, "127.0.0.2"),
            ("text.test", Record::Txt, "some text"),
            ("mail.test", Record::Mx, "mx.mail.test"),
            ("zone.test", Record::Ns, "ns.zone.test"),
            ("six.test", Record::Aaaa, "2001:db8::1"),
        ] {
            let question = Question::Dns { name: name.to_owned(), record };
            assert_eq!(fact(question).await, Fact::Records(vec![expected.to_owned()]), "{name}");
        }
        let ask = |name: &str| fact(Question::Dns { name: name.to_owned(), record: Record::A });
        assert_eq!(ask("nothing.test").await, Fact::Records(Vec::new()));
        assert_eq!(ask("slow.test").await, Fact::Unknown);
    }

    #[tokio::test]
    async fn both_identities_of_spf() {
        let ask = async |identity, client: &str| {
            let claim = SpfClaim {
                identity,
                client: client.to_owned(),
                helo: "helo.test".to_owned(),
                sender: "a@spf.test".to_owned(),
            };
            fact(Question::Spf(claim)).await
        };
        use spamrules::SpfResult;
        assert_eq!(ask(SpfIdentity::MailFrom, "192.0.2.1").await, Fact::Spf(SpfResult::Pass));
        assert_eq!(ask(SpfIdentity::MailFrom, "198.51.100.1").await, Fact::Spf(SpfResult::Fail));
        assert_eq!(ask(SpfIdentity::Helo, "192.0.2.1").await, Fact::Spf(SpfResult::Fail));
        assert_eq!(ask(SpfIdentity::Helo, "nonsense").await, Fact::Unknown);
    }

    #[tokio::test]
    async fn nothing_is_waited_for_beyond_the_deadline() {
        let lookups = lookups();
        let _all = lookups.asker.room.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let question = Question::Dns { name: "mail.test".to_owned(), record: Record::Mx };
        let answers = lookups.ask(vec![question.clone()], Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(answers, [(question, Fact::Unknown)]);
    }
}
