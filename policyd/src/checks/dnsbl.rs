// SPDX-License-Identifier: GPL-3.0-or-later
//! DNS lists of clients and domains (RFC 5782): which are to be asked about a request, and what the answers weigh. As in Postfix's postscreen, each
//! entry of the configuration is a zone with the answers that count and their weight; a zone is asked once however many entries it has.
//!
//! Black and white lists differ in the sign of their weight. No answer weighs nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use common::dns::{ReplyMask, is_internal, list_name, organisational_domain};
use common::mail;

use crate::around::Around;
use crate::config::{AddressList, DomainList, NamedBy, PerimeterSettings, shown};
use crate::course::Course;
use crate::dnslist::List;
use crate::dnslist::asker::{Answer, Question};
use crate::dnslist::breaker::Patience;
use crate::perimeter::{Scope, scope};
use crate::request::PolicyRequest;

/// Answers by which known lists say that they do not answer: Spamhaus; SURBL and URIBL.
const ERRORS: [&str; 2] = ["127.255.255.[0..255]", "127.0.0.1"];
/// dnswl.org.
const WHITELIST_ERRORS: [&str; 3] = ["127.255.255.[0..255]", "127.0.0.1", "127.0.0.255"];
/// Spamhaus DBL, when it is asked about an address.
const DOMAIN_ERRORS: [&str; 3] = ["127.255.255.[0..255]", "127.0.0.1", "127.0.1.255"];

/// The lists of the configuration.
#[derive(Debug, Default)]
pub struct Lists {
    /// Each zone once.
    pub all: Vec<Arc<List>>,
    addresses: Vec<AddressEntry>,
    domains: Vec<DomainEntry>,
}

#[derive(Debug)]
struct AddressEntry {
    list: Arc<List>,
    reply: ReplyMask,
    weight: i32,
}

#[derive(Debug)]
struct DomainEntry {
    list: Arc<List>,
    reply: ReplyMask,
    weight: i32,
    on: Vec<NamedBy>,
    whole_name: bool,
}

/// One entry that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Name of the list.
    pub list: String,
    /// What is listed.
    pub what: String,
    /// The list's answer.
    pub reply: Ipv4Addr,
    /// What it adds to the score.
    pub weight: i32,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {} as {} ({:+})", self.list, self.what, self.reply, self.weight)
    }
}

/// What lists say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listings {
    /// The entries that count.
    pub entries: Vec<Listing>,
    /// Lists that gave no answer, or are set aside.
    pub silent: usize,
}

impl Listings {
    /// What they weigh together.
    pub fn score(&self) -> i32 {
        self.entries.iter().fold(0, |score, entry| score.saturating_add(entry.weight))
    }
}

impl Lists {
    /// The lists of the configuration; those that were asked `before` keep their state.
    pub fn new(settings: &PerimeterSettings, before: &[Arc<List>]) -> Self {
        let mut lists = Self::default();
        let black = settings.dnsbl.iter().map(|list| (list, list.weight, &ERRORS[..]));
        let white = settings.dnswl.iter().map(|list| (list, -list.weight, &WHITELIST_ERRORS[..]));
        for (entry, weight, errors) in black.chain(white) {
            let list = lists.list(settings, before, address_list(entry, errors));
            lists.addresses.push(AddressEntry { list, reply: entry.reply.clone(), weight });
        }
        for entry in &settings.rhsbl {
            let list = lists.list(settings, before, domain_list(entry));
            let DomainList { reply, weight, on, whole_name, .. } = entry.clone();
            lists.domains.push(DomainEntry { list, reply, weight, on, whole_name });
        }
        lists
    }

    /// The list of that name, made when it is named first.
    fn list(&mut self, settings: &PerimeterSettings, before: &[Arc<List>], named: Named<'_>) -> Arc<List> {
        if let Some(known) = self.all.iter().find(|list| list.name == named.name) {
            return known.clone();
        }
        let patience =
            Patience { failures: settings.failures, pause: settings.pause.0, test_every: settings.self_test.0 };
        let Named { name, zone, errors, tests } = named;
        let list = List::new(name.to_owned(), zone.to_owned(), errors, tests, patience).continuing(before);
        let list = Arc::new(list);
        self.all.push(list.clone());
        list
    }

    /// True when lists of domains are asked.
    pub fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }
}

/// What makes a list, from its first entry.
struct Named<'a> {
    name: &'a str,
    zone: &'a str,
    errors: Vec<ReplyMask>,
    tests: (String, String),
}

fn address_list<'a>(entry: &'a AddressList, errors: &[&str]) -> Named<'a> {
    let test = |configured: &Option<String>, usual: &str| {
        let address = configured.as_deref().unwrap_or(usual).parse::<IpAddr>().ok();
        address.map(address_part).unwrap_or_default()
    };
    Named {
        name: shown(&entry.name, &entry.zone),
        zone: &entry.zone,
        errors: masks(entry.errors.as_ref(), errors),
        tests: (test(&entry.listed, "127.0.0.2"), test(&entry.not_listed, "127.0.0.1")),
    }
}

fn domain_list(entry: &DomainList) -> Named<'_> {
    let test = |configured: &Option<String>, usual: &str| configured.clone().unwrap_or_else(|| usual.to_owned());
    Named {
        name: shown(&entry.name, &entry.zone),
        zone: &entry.zone,
        errors: masks(entry.errors.as_ref(), &DOMAIN_ERRORS),
        tests: (test(&entry.listed, "test"), test(&entry.not_listed, "invalid")),
    }
}

fn masks(configured: Option<&Vec<ReplyMask>>, usual: &[&str]) -> Vec<ReplyMask> {
    let usual = || usual.iter().filter_map(|mask| mask.parse().ok()).collect();
    configured.cloned().unwrap_or_else(usual)
}

/// A reversed address without a zone.
fn address_part(ip: IpAddr) -> String {
    let mut name = list_name(ip, "");
    name.pop();
    name
}

/// What lists say of the client's address, for whoever wants to know before the perimeter is asked.
pub async fn listings(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Arc<Listings> {
    match scope(around, request, course) {
        Some(scope) => of_client(&around.policy.perimeter.lists, request, &scope).await,
        None => Arc::default(),
    }
}

/// What lists say of the client's address. Looked up once for all recipients of a message; addresses that only one's own site has
/// are in no public list, and are not told to any.
pub async fn of_client(lists: &Lists, request: &PolicyRequest<'_>, scope: &Scope<'_>) -> Arc<Listings> {
    let entries = &lists.addresses;
    let Some(client) = request.client_address.filter(|ip| !entries.is_empty() && !is_internal(*ip)) else {
        return Arc::default();
    };
    let look_up = async || {
        let what = address_part(client);
        let asked: Vec<_> = entries.iter().map(|entry| (&entry.list, &what)).collect();
        let answers = Answers::fetch(scope, asked).await;
        let mut listings = Listings { silent: answers.silent(), ..Listings::default() };
        for entry in entries {
            if let Some(reply) = answers.reply(&entry.list, &what, &entry.reply) {
                let (list, what, weight) = (entry.list.name.clone(), client.to_string(), entry.weight);
                listings.entries.push(Listing { list, what, reply, weight });
            }
        }
        Arc::new(listings)
    };
    scope.found.client.get_or_init(look_up).await.clone()
}

/// What lists say of the names in a request.
pub async fn of_domains(lists: &Lists, request: &PolicyRequest<'_>, scope: &Scope<'_>) -> Arc<Listings> {
    let entries = &lists.domains;
    if entries.is_empty() {
        return Arc::default();
    }
    let look_up = async || {
        let named: Vec<Vec<String>> = entries.iter().map(|entry| names(entry, request)).collect();
        let pairs = entries.iter().zip(&named);
        let asked: Vec<_> = pairs.flat_map(|(entry, names)| names.iter().map(|name| (&entry.list, name))).collect();
        let answers = Answers::fetch(scope, asked).await;
        let mut listings = Listings { silent: answers.silent(), ..Listings::default() };
        for (entry, names) in entries.iter().zip(&named) {
            let hit = names.iter().find_map(|name| Some((name, answers.reply(&entry.list, name, &entry.reply)?)));
            if let Some((name, reply)) = hit {
                let (list, what, weight) = (entry.list.name.clone(), name.clone(), entry.weight);
                listings.entries.push(Listing { list, what, reply, weight });
            }
        }
        Arc::new(listings)
    };
    scope.found.domains.get_or_init(look_up).await.clone()
}

/// The domains of a request about which an entry asks, each once.
fn names(entry: &DomainEntry, request: &PolicyRequest<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for named_by in &entry.on {
        let name = match named_by {
            NamedBy::Sender => mail::split(&request.sender).1,
            NamedBy::Helo => &*request.helo_name,
            NamedBy::ReverseName => {
                request.reverse_client_name.as_deref().or(request.client_name.as_deref()).unwrap_or_default()
            }
        };
        let name = if entry.whole_name { whole_domain(name) } else { organisational_domain(name) };
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// A name of two labels or more that is no address, as it is.
fn whole_domain(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    let domain = name.contains('.') && !name.starts_with('[') && name.parse::<IpAddr>().is_err();
    domain.then_some(name)
}

/// Answers to questions of which each was asked once.
struct Answers(Vec<(Question, Answer)>);

impl Answers {
    async fn fetch(scope: &Scope<'_>, asked: Vec<(&Arc<List>, &String)>) -> Self {
        let mut questions: Vec<Question> = Vec::with_capacity(asked.len());
        for (list, what) in asked {
            if !questions.iter().any(|question| Arc::ptr_eq(&question.list, list) && question.what == *what) {
                questions.push(Question { list: list.clone(), what: what.clone() });
            }
        }
        let answers = scope.perimeter.asker.ask(&questions, scope.remembered, scope.until).await;
        let answers = Self(questions.into_iter().zip(answers).collect());
        if answers.silent() > 0 {
            scope.found.lacks_an_answer();
        }
        answers
    }

    /// How many gave no records.
    fn silent(&self) -> usize {
        self.0.iter().filter(|(_, answer)| !matches!(answer, Answer::Records(_))).count()
    }

    /// The record of an answer that counts.
    fn reply(&self, list: &Arc<List>, what: &str, mask: &ReplyMask) -> Option<Ipv4Addr> {
        let asked = |(question, _): &&(Question, Answer)| Arc::ptr_eq(&question.list, list) && question.what == what;
        match self.0.iter().find(asked) {
            Some((_, Answer::Records(records))) => records.iter().copied().find(|record| mask.matches(*record)),
            _ => None,
        }
    }
}
