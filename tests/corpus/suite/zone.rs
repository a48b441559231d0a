// SPDX-License-Identifier: GPL-3.0-or-later
//! What the DNS, other servers and databases would answer in the tests of SpamAssassin's suite. The names and addresses follow from what the
//! tests expect; the project's own zones are not asked.

use std::cell::RefCell;

use spamrules::{Answers, Arc, Dcc, Dmarc, Razor, Record, Signature, SpfQuestion, SpfResult};

/// Records below `spamassassin.org`: name, type, values.
const RECORDS: &[(&str, Record, &[&str])] = &[
    // Hosts of dnsbl.eml, from the one that sent it to the last.
    ("98.3.137.144.dnsbltest", Record::A, &["127.0.0.2"]),
    ("134.88.73.210.dnsbltest", Record::A, &["127.0.0.4"]),
    ("18.13.119.61.dnsbltest", Record::A, &["127.0.0.12"]),
    ("18.13.119.61.dnsbltest", Record::Txt, &["an open relay, see http://example.com/"]),
    ("226.149.120.193.dnsbltest", Record::A, &["127.0.0.1"]),
    ("14.35.17.212.dnsbltest", Record::A, &["127.0.0.1"]),
    ("example.com.dnsbltest", Record::A, &["127.0.0.2"]),
    // Hosts of its links.
    ("uribl-example-a.com.dnsbltest", Record::A, &["127.0.0.2"]),
    ("uribl-example-b.com.dnsbltest", Record::A, &["127.0.0.4"]),
    ("foo.bar.baz.uribl-example-a.com.dnsbltest", Record::A, &["127.0.0.16"]),
    ("uribl-example-ns.com.dnsbltest", Record::A, &["127.0.0.8"]),
    // SHA-1 of addresses, of a Bitcoin address in small letters and of a link; MD5 of hustl.er@gmail.com; a number and an identifier as
    // they are. Computed with Python's hashlib.
    ("96b802967118135ef048c2bc860e7b0deb7d2333.hashbltest1", Record::A, &["127.0.0.2"]),
    ("cb565607a98fbdf1be52cdb86466ab34244bd6fc.hashbltest1", Record::A, &["127.0.0.2"]),
    ("170d83ef2dc9c2de0e65ce4461a3a375.hashbltest2", Record::A, &["127.0.0.2"]),
    ("cc205dd956d568ff8524d7fc42868500e4d7d162.hashbltest3", Record::A, &["127.0.0.2"]),
    ("5c6205960a65b1f9078f0e12dcac970aab0015eb.hashbltest4", Record::A, &["127.0.0.2"]),
    ("1234567890.hashbltest5", Record::A, &["127.0.0.2"]),
    ("11231234567.hashbltest9", Record::A, &["127.0.0.2"]),
    ("sa-test.spamassassin.org.askdnstest", Record::A, &["127.0.0.8"]),
    ("askdnsspf", Record::Txt, &["v=spf1 -all"]),
    ("txttcp", Record::Txt, &["v=spf1 include:dnsbltest.spamassassin.org -all"]),
];

/// The answers for one message; it notes what it is asked.
pub(super) struct Zone {
    message: String,
    asked: RefCell<Vec<String>>,
}

impl Zone {
    pub(super) fn new(message: &str) -> Zone {
        Zone { message: message.to_owned(), asked: RefCell::default() }
    }

    /// The questions of DNS, each with its answers.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    fn is(&self, end: &str) -> bool {
        self.message.ends_with(end)
    }
}

impl Answers for Zone {
    fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
        let lower = name.to_ascii_lowercase();
        let found = match (lower.strip_suffix(".spamassassin.org"), record) {
            (Some(below), _) => {
                let found = RECORDS.iter().find(|(known, kind, _)| *known == below && *kind == record);
                found.map_or(&[][..], |(_, _, values)| *values)
            }
            // The suite permits questions below spamassassin.org only (`dns_query_restriction`), and links to it.
            (None, Record::Ns) if lower == "spamassassin.org" => &["ns1.uribl-example-ns.com."],
            _ => &[],
        };
        self.asked.borrow_mut().push(format!("<dns:{name}> [{}]", found.join(", ")));
        Some(found.iter().map(ToString::to_string).collect())
    }

    fn spf(&self, question: &SpfQuestion<'_>) -> Option<SpfResult> {
        let known = [
            ("64.142.3.173", SpfResult::Pass),
            ("65.214.43.155", SpfResult::Fail),
            ("65.214.43.156", SpfResult::SoftFail),
            ("65.214.43.157", SpfResult::Neutral),
        ];
        known.iter().find(|(client, _)| *client == question.client).map(|(_, result)| *result)
    }

    fn dkim(&self) -> Option<Vec<Signature>> {
        let signature =
            Signature { domain: "sa-test.spamassassin.org".to_owned(), valid: true, key_bits: 2048, testing: false };
        Some(if self.is("test-pass-01.msg") { vec![signature] } else { Vec::new() })
    }

    fn arc(&self) -> Option<Arc> {
        self.is("ok01.eml").then_some(Arc { valid: true })
    }

    fn dmarc(&self) -> Option<Dmarc> {
        let known = [
            ("ok.eml", Dmarc::Pass),
            ("rejectko.eml", Dmarc::Reject),
            ("quarko.eml", Dmarc::Quarantine),
            ("noneko.eml", Dmarc::None),
            ("nodmarc.eml", Dmarc::Missing),
        ];
        known.iter().find(|(end, _)| self.is(end)).map(|(_, result)| *result)
    }

    fn razor(&self) -> Option<Razor> {
        Some(Razor { listed: self.is("spam/razor2"), confidence: 100 })
    }

    fn dcc(&self) -> Option<Dcc> {
        Some(Dcc { bulk: self.message.contains("gtubedcc"), reputation: None })
    }
}
