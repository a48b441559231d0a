// SPDX-License-Identifier: GPL-3.0-or-later
//! `check_host()` (RFC 7208 section 4): fetches records and evaluates their terms from left to right, within the limits of section 4.6.4.

use std::net::IpAddr;
use std::pin::Pin;

use super::macros::{MacroString, Values};
use super::record::{self, Mechanism, Prefixes, Record};
use super::{Outcome, Query, SpfResult};
use crate::dns::{Answer, DnsError, Resolver};

/// Terms that ask DNS (section 4.6.4).
const MAX_LOOKUPS: u32 = 10;
/// Look-ups of terms that find nothing (section 4.6.4 recommends two).
const MAX_VOID_LOOKUPS: u32 = 2;
/// MX hosts of one `mx`, and names of one `ptr` (section 4.6.4).
pub(super) const MAX_HOSTS: usize = 10;

/// Ends an evaluation before its terms are through.
pub(super) enum Stop {
    Temporary(String),
    Permanent(String),
}

/// A record that could be fetched and read, or the result when there is none.
pub(super) enum Fetched {
    Record(Record),
    None,
}

/// The state of one evaluation over all its includes and redirects.
struct Evaluation<'a> {
    query: &'a Query<'a>,
    resolver: &'a Resolver,
    lookups: u32,
    void_lookups: u32,
}

/// What one record came to: the result, the term behind it, and the explanation to fetch when it is fail.
struct Evaluated {
    result: SpfResult,
    mechanism: String,
    explanation: Option<(MacroString, String)>,
}

/// Asks whether the domain of the sender (or HELO) authorises the client. At most some 10 + 10·10 DNS questions; the
/// caller sets a time limit and takes its passing for a temperror.
pub async fn check_host(resolver: &Resolver, query: &Query<'_>) -> Outcome {
    let query = Query { ip: query.ip.to_canonical(), ..*query };
    let mut evaluation = Evaluation { query: &query, resolver, lookups: 0, void_lookups: 0 };
    let domain = query.domain();
    let mut outcome =
        Outcome { result: SpfResult::None, mechanism: String::new(), explanation: None, problem: None, lookups: 0 };
    if !is_domain(domain) {
        return outcome;
    }
    match evaluation.domain(domain.strip_suffix('.').unwrap_or(domain).to_owned()).await {
        Ok(evaluated) => {
            outcome.result = evaluated.result;
            outcome.mechanism = evaluated.mechanism;
            if let (SpfResult::Fail, Some((explanation, domain))) = (evaluated.result, evaluated.explanation) {
                outcome.explanation = evaluation.explain(&explanation, &domain).await;
            }
        }
        Err(Stop::Temporary(problem)) => (outcome.result, outcome.problem) = (SpfResult::Temperror, Some(problem)),
        Err(Stop::Permanent(problem)) => (outcome.result, outcome.problem) = (SpfResult::Permerror, Some(problem)),
    }
    outcome.lookups = evaluation.lookups;
    outcome
}

/// A name of at least two labels that DNS can hold (section 4.3).
pub(super) fn is_domain(domain: &str) -> bool {
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    bare.len() <= 253
        && bare.contains('.')
        && bare.split('.').all(|label| (1..=63).contains(&label.len()))
        && !bare.starts_with('[')
}

/// Sections 4.4 and 4.5: exactly one SPF record, or none.
pub(super) async fn fetch(resolver: &Resolver, domain: &str) -> Result<Fetched, Stop> {
    let texts = match resolver.txt(domain).await {
        Ok(texts) => texts,
        Err(DnsError::BadName(_)) => return Ok(Fetched::None),
        Err(error) => return Err(Stop::Temporary(error.to_string())),
    };
    let mut records = texts.iter().filter(|text| record::is_spf(text));
    let Some(text) = records.next() else { return Ok(Fetched::None) };
    if records.next().is_some() {
        return Err(Stop::Permanent(format!("{domain} has more than one SPF record")));
    }
    record::parse(text).map(Fetched::Record).map_err(|reason| Stop::Permanent(format!("{domain}: {reason}")))
}

impl<'a> Evaluation<'a> {
    /// The recursion of include and redirect.
    fn domain(&mut self, domain: String) -> Pin<Box<dyn Future<Output = Result<Evaluated, Stop>> + Send + '_>> {
        Box::pin(async move {
            match fetch(self.resolver, &domain).await? {
                Fetched::Record(record) => self.record(&record, domain).await,
                Fetched::None => Ok(Evaluated { result: SpfResult::None, mechanism: String::new(), explanation: None }),
            }
        })
    }

    async fn record(&mut self, record: &Record, domain: String) -> Result<Evaluated, Stop> {
        for directive in &record.directives {
            if self.matches(&directive.mechanism, &domain).await? {
                let explanation = record.explanation.clone().map(|explanation| (explanation, domain));
                return Ok(Evaluated { result: directive.result, mechanism: directive.text.clone(), explanation });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Evaluated { result: SpfResult::Neutral, mechanism: String::new(), explanation: None });
        };
        self.count_lookup()?;
        let target = self.target(Some(redirect), &domain).await;
        let evaluated = self.domain(target.clone()).await?;
        if evaluated.result == SpfResult::None {
            return Err(Stop::Permanent(format!("redirect to {target}, which has no SPF record")));
        }
        Ok(evaluated)
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, prefix) => Ok(in_network(self.query.ip, IpAddr::V4(*network), *prefix)),
            Mechanism::Ip6(network, prefix) => Ok(in_network(self.query.ip, IpAddr::V6(*network), *prefix)),
            Mechanism::Include(target) => self.include(target, domain).await,
            Mechanism::A(target, prefixes) => {
                self.count_lookup()?;
                let name = self.target(target.as_ref(), domain).await;
                self.host_matches(&name, *prefixes).await
            }
            Mechanism::Mx(target, prefixes) => self.mx(target.as_ref(), *prefixes, domain).await,
            Mechanism::Ptr(target) => self.ptr(target.as_ref(), domain).await,
            Mechanism::Exists(target) => {
                self.count_lookup()?;
                let name = self.target(Some(target), domain).await;
                // Always A, whatever the family of the client (section 5.7).
                let answer = self.resolver.a(&name).await;
                Ok(!self.found(answer)?.is_empty())
            }
        }
    }

    /// Section 5.2: only a pass of the other domain matches.
    async fn include(&mut self, target: &MacroString, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let name = self.target(Some(target), domain).await;
        match self.domain(name.clone()).await?.result {
            SpfResult::Pass => Ok(true),
            SpfResult::None => Err(Stop::Permanent(format!("include of {name}, which has no SPF record"))),
            _ => Ok(false),
        }
    }

    async fn mx(&mut self, target: Option<&MacroString>, prefixes: Prefixes, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let name = self.target(target, domain).await;
        let answer = self.resolver.mx(&name).await;
        let hosts = self.found(answer)?;
        if hosts.len() > MAX_HOSTS {
            return Err(Stop::Permanent(format!("{name} has more than {MAX_HOSTS} MX hosts")));
        }
        for host in hosts {
            if self.host_matches(&host.exchange, prefixes).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ptr(&mut self, target: Option<&MacroString>, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let wanted = self.target(target, domain).await.to_lowercase();
        // Trouble with the reverse name is no match, not an error (section 5.5).
        let Ok(names) = self.resolver.ptr(self.query.ip).await else { return Ok(false) };
        if names.is_empty() {
            self.count_void()?;
        }
        Ok(self.validated(names).await.iter().any(|name| is_within(name, &wanted)))
    }

    /// Of the names that the client's address claims, those that lead back to it.
    async fn validated(&self, names: Vec<String>) -> Vec<String> {
        let mut good = Vec::new();
        for name in names.into_iter().take(MAX_HOSTS) {
            if self.resolver.addresses(&name, self.query.ip).await.is_ok_and(|found| found.contains(&self.query.ip)) {
                good.push(name);
            }
        }
        good
    }

    async fn host_matches(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let answer = self.resolver.addresses(name, self.query.ip).await;
        let prefix = if self.query.ip.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        Ok(self.found(answer)?.into_iter().any(|ip| in_network(self.query.ip, ip, prefix)))
    }

    /// An answer of DNS to a term: trouble ends the evaluation, nothing found is counted. A name that cannot be asked
    /// for is like one that does not exist (section 4.8).
    fn found<T>(&mut self, answer: Answer<T>) -> Result<Vec<T>, Stop> {
        let found = match answer {
            Ok(found) => found,
            Err(DnsError::BadName(_)) => Vec::new(),
            Err(error) => return Err(Stop::Temporary(error.to_string())),
        };
        if found.is_empty() {
            self.count_void()?;
        }
        Ok(found)
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        if self.lookups == MAX_LOOKUPS {
            return Err(Stop::Permanent(format!("more than {MAX_LOOKUPS} terms that need DNS")));
        }
        self.lookups += 1;
        Ok(())
    }

    fn count_void(&mut self) -> Result<(), Stop> {
        self.void_lookups += 1;
        if self.void_lookups > MAX_VOID_LOOKUPS {
            return Err(Stop::Permanent(format!("more than {MAX_VOID_LOOKUPS} look-ups that find nothing")));
        }
        Ok(())
    }

    /// The domain a term is about.
    async fn target(&self, target: Option<&MacroString>, domain: &str) -> String {
        let Some(target) = target else { return domain.to_owned() };
        let validated = self.validated_name(target, domain).await;
        target.expand_domain(&Values { query: self.query, domain, validated: &validated })
    }

    /// `%{p}`: a validated name, best the domain itself, else one below it, else any (section 7.3).
    async fn validated_name(&self, used_in: &MacroString, domain: &str) -> String {
        if !used_in.needs_validated_name() {
            return String::new();
        }
        let names = self.validated(self.resolver.ptr(self.query.ip).await.unwrap_or_default()).await;
        let domain = domain.to_lowercase();
        let exact = names.iter().find(|name| **name == domain);
        let best = exact.or_else(|| names.iter().find(|name| is_within(name, &domain))).or(names.first());
        best.cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    /// Section 6.2. Whatever goes wrong, there is no explanation.
    async fn explain(&self, explanation: &MacroString, domain: &str) -> Option<String> {
        let name = self.target(Some(explanation), domain).await;
        let texts = self.resolver.txt(&name).await.ok()?;
        let [text] = texts.as_slice() else { return None };
        let text = MacroString::parse_explanation(std::str::from_utf8(text).ok()?).ok()?;
        let validated = self.validated_name(&text, domain).await;
        let expanded = text.expand(&Values { query: self.query, domain, validated: &validated });
        expanded.bytes().all(|byte| (0x20..0x7f).contains(&byte)).then_some(expanded)
    }
}

/// True for the domain itself and names below it; both lower case.
fn is_within(name: &str, domain: &str) -> bool {
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn in_network(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            u32::from(ip) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            u128::from(ip) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}
