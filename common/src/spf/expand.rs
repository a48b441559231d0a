// SPDX-License-Identifier: GPL-3.0-or-later
//! The addresses that a domain's SPF record authorises, worked out beforehand, without a client at hand: for lists of clients that name
//! a domain and follow its record. What it answers for an address is what `check_host()` would (RFC 7208 section 5), but for terms that
//! depend on client or sender (`exists`, `ptr`, macros), which match nobody here, and for a pass by `all`, which authorises everybody
//! and lists nobody.

use std::net::IpAddr;
use std::pin::Pin;

use ipnet::IpNet;

use super::SpfResult;
use super::check::{Fetched, MAX_HOSTS, Stop, fetch, is_domain};
use super::macros::MacroString;
use super::record::{Mechanism, Prefixes, Record};
use crate::dns::{Answer, DnsError, Resolver};

/// Terms that ask DNS. An evaluation may make ten and mostly ends before; here all are followed.
const MAX_LOOKUPS: u32 = 40;

/// Why a record could not be worked out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// DNS gives no answer now; a later try may.
    #[error("{0}")]
    Temporary(String),
    /// There is no record, or it cannot be understood.
    #[error("{0}")]
    Permanent(String),
}

impl From<Stop> for ExpandError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Temporary(problem) => Self::Temporary(problem),
            Stop::Permanent(problem) => Self::Permanent(problem),
        }
    }
}

/// The addresses of one record, in the order of its terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders {
    steps: Vec<Step>,
    partial: bool,
}

/// One term or several alike.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Disjoint networks, sorted.
    Networks { pass: bool, networks: Vec<IpNet> },
    /// Matches when the other record passes.
    Include { pass: bool, senders: Senders },
    /// All the rest is the other record's.
    Redirect(Senders),
    /// Nobody else.
    End,
}

impl Senders {
    /// True for an address that the record authorises.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        for step in &self.steps {
            match step {
                Step::Networks { pass, networks } if holds(networks, ip) => return *pass,
                Step::Include { pass, senders } if senders.contains(ip) => return *pass,
                Step::Redirect(senders) => return senders.contains(ip),
                Step::End => return false,
                Step::Networks { .. } | Step::Include { .. } => {}
            }
        }
        false
    }

    /// True when terms of the record were passed over that depend on client or sender.
    pub fn is_partial(&self) -> bool {
        let inner = |step: &Step| match step {
            Step::Include { senders, .. } | Step::Redirect(senders) => senders.is_partial(),
            Step::Networks { .. } | Step::End => false,
        };
        self.partial || self.steps.iter().any(inner)
    }

    fn push(&mut self, pass: bool, more: Vec<IpNet>) {
        if let Some(Step::Networks { pass: before, networks }) = self.steps.last_mut()
            && *before == pass
        {
            networks.extend(more);
            return;
        }
        self.steps.push(Step::Networks { pass, networks: more });
    }

    fn sort(&mut self) {
        for step in &mut self.steps {
            if let Step::Networks { networks, .. } = step {
                *networks = IpNet::aggregate(networks);
                networks.sort_by_key(|network| (network.addr().is_ipv6(), network.network()));
            }
        }
    }
}

/// Whether one of these sorted, disjoint networks has the address.
fn holds(networks: &[IpNet], ip: IpAddr) -> bool {
    let after = networks.partition_point(|network| (network.addr().is_ipv6(), network.network()) <= (ip.is_ipv6(), ip));
    after.checked_sub(1).and_then(|at| networks.get(at)).is_some_and(|network| network.contains(&ip))
}

/// Works out the record of a domain. At most some 40 · 20 questions to DNS.
pub async fn expand(resolver: &Resolver, domain: &str) -> Result<Senders, ExpandError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
    let mut expansion = Expansion { resolver, lookups: 0 };
    match expansion.domain(domain.clone()).await? {
        Some(senders) => Ok(senders),
        None => Err(ExpandError::Permanent(format!("{domain} has no SPF record"))),
    }
}

struct Expansion<'a> {
    resolver: &'a Resolver,
    lookups: u32,
}

impl Expansion<'_> {
    /// The recursion of include and redirect; none without a record.
    fn domain(&mut self, domain: String) -> Pin<Box<dyn Future<Output = Result<Option<Senders>, Stop>> + Send + '_>> {
        Box::pin(async move {
            if !is_domain(&domain) {
                return Ok(None);
            }
            match fetch(self.resolver, &domain).await? {
                Fetched::Record(record) => self.record(&record, &domain).await.map(Some),
                Fetched::None => Ok(None),
            }
        })
    }

    async fn record(&mut self, record: &Record, domain: &str) -> Result<Senders, Stop> {
        let mut senders = Senders::default();
        for directive in &record.directives {
            self.term(&directive.mechanism, directive.result == SpfResult::Pass, domain, &mut senders).await?;
        }
        let ended = senders.steps.last() == Some(&Step::End);
        match record.redirect.as_ref().filter(|_| !ended).map(|target| target.of_domain(domain)) {
            Some(Some(target)) if self.may_look() => {
                let other = self.domain(target.clone()).await?;
                let none = || Stop::Permanent(format!("redirect to {target}, which has no SPF record"));
                senders.steps.push(Step::Redirect(other.ok_or_else(none)?));
            }
            Some(_) => senders.partial = true,
            None => {}
        }
        senders.sort();
        Ok(senders)
    }

    async fn term(&mut self, term: &Mechanism, pass: bool, domain: &str, senders: &mut Senders) -> Result<(), Stop> {
        if senders.steps.last() == Some(&Step::End) {
            return Ok(());
        }
        match term {
            Mechanism::All => senders.steps.push(Step::End),
            Mechanism::Ip4(ip, prefix) => senders.push(pass, network(IpAddr::V4(*ip), *prefix).into_iter().collect()),
            Mechanism::Ip6(ip, prefix) => senders.push(pass, network(IpAddr::V6(*ip), *prefix).into_iter().collect()),
            Mechanism::A(target, prefixes) => match self.target(target.as_ref(), domain) {
                Some(name) => senders.push(pass, self.hosts(&name, *prefixes).await?),
                None => senders.partial = true,
            },
            Mechanism::Mx(target, prefixes) => match self.target(target.as_ref(), domain) {
                Some(name) => senders.push(pass, self.mx(&name, *prefixes).await?),
                None => senders.partial = true,
            },
            Mechanism::Include(target) => match self.target(Some(target), domain) {
                Some(name) => {
                    let none = || Stop::Permanent(format!("include of {name}, which has no SPF record"));
                    let other = self.domain(name.clone()).await?.ok_or_else(none)?;
                    senders.steps.push(Step::Include { pass, senders: other });
                }
                None => senders.partial = true,
            },
            Mechanism::Exists(_) | Mechanism::Ptr(_) => senders.partial = true,
        }
        Ok(())
    }

    /// The domain a term is about; none when it depends on the client, or too many have been asked for.
    fn target(&mut self, target: Option<&MacroString>, domain: &str) -> Option<String> {
        let name = match target {
            Some(target) => target.of_domain(domain)?,
            None => domain.to_owned(),
        };
        self.may_look().then_some(name)
    }

    fn may_look(&mut self) -> bool {
        self.lookups += 1;
        self.lookups <= MAX_LOOKUPS
    }

    async fn mx(&self, name: &str, prefixes: Prefixes) -> Result<Vec<IpNet>, Stop> {
        let mut networks = Vec::new();
        for host in found(self.resolver.mx(name).await)?.into_iter().take(MAX_HOSTS) {
            networks.extend(self.hosts(&host.exchange, prefixes).await?);
        }
        Ok(networks)
    }

    /// The networks of a host's addresses, of both families.
    async fn hosts(&self, name: &str, prefixes: Prefixes) -> Result<Vec<IpNet>, Stop> {
        let v4 = found(self.resolver.a(name).await)?;
        let v6 = found(self.resolver.aaaa(name).await)?;
        let v4 = v4.into_iter().filter_map(|ip| network(IpAddr::V4(ip), prefixes.v4));
        Ok(v4.chain(v6.into_iter().filter_map(|ip| network(IpAddr::V6(ip), prefixes.v6))).collect())
    }
}

fn network(ip: IpAddr, prefix: u8) -> Option<IpNet> {
    IpNet::new(ip, prefix).ok().map(|network| network.trunc())
}

fn found<T>(answer: Answer<T>) -> Result<Vec<T>, Stop> {
    match answer {
        Ok(found) => Ok(found),
        Err(DnsError::BadName(_)) => Ok(Vec::new()),
        Err(error) => Err(Stop::Temporary(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;
    use crate::spf::{Query, check_host};

    const ZONE: &str = "example.org TXT \"v=spf1 -ip4:192.0.2.66 ip4:192.0.2.0/24 include:_spf.example.net a mx/28 ~all\"\n\
        example.org A 198.51.100.1\nexample.org AAAA 2001:db8::1\nexample.org MX 10 mx.example.org\nmx.example.org A 203.0.113.20\n\
        _spf.example.net TXT \"v=spf1 -ip4:100.64.1.0/24 ip4:100.64.0.0/16 ip6:2001:db8:9::/48 ?all\"\n\
        moved.example TXT \"v=spf1 redirect=example.org\"\nopen.example TXT \"v=spf1 ip4:10.0.0.0/8 +all\"\n\
        odd.example TXT \"v=spf1 exists:%{i}.x.example include:%{d2}.example ip4:10.1.0.0/16 -all\"\n\
        odd.example.example TXT \"v=spf1 ip4:10.2.0.0/16 -all\"\n\
        loop.example TXT \"v=spf1 include:loop.example -all\"\nslow.example TXT \"v=spf1 include:gone.example -all\"\ngone.example TIMEOUT\n\
        wrong.example TXT \"v=spf1 ip4:x\"\n";

    fn resolver() -> Resolver {
        Resolver::Canned(Zone::parse(ZONE).unwrap())
    }

    #[tokio::test]
    async fn it_says_of_any_address_what_the_evaluation_says() {
        let resolver = resolver();
        for domain in ["example.org", "moved.example"] {
            let senders = expand(&resolver, domain).await.unwrap();
            assert!(!senders.is_partial());
            for ip in [
                "192.0.2.1",
                "192.0.2.66",
                "192.0.3.1",
                "100.64.9.9",
                "100.64.1.9",
                "198.51.100.1",
                "198.51.100.2",
                "203.0.113.17",
                "203.0.113.33",
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8:9:1::5",
                "2001:db8:a::1",
                "::ffff:192.0.2.1",
            ] {
                let (ip, sender) = (ip.parse().unwrap(), format!("a@{domain}"));
                let query = Query { ip, helo: "", sender: &sender, receiver: "", now: 0 };
                let passes = check_host(&resolver, &query).await.result == SpfResult::Pass;
                assert_eq!(senders.contains(ip), passes, "{domain} {ip}");
            }
        }
    }

    #[tokio::test]
    async fn what_lists_nobody_and_what_cannot_be_told_is_passed_over() {
        let resolver = resolver();
        let open = expand(&resolver, "open.example").await.unwrap();
        assert!(open.contains("10.0.0.1".parse().unwrap()) && !open.contains("192.0.2.1".parse().unwrap()));
        let odd = expand(&resolver, "odd.example").await.unwrap();
        assert!(
            odd.is_partial() && odd.contains("10.1.0.1".parse().unwrap()) && odd.contains("10.2.0.1".parse().unwrap())
        );
        let looping = expand(&resolver, "loop.example").await.unwrap();
        assert!(looping.is_partial() && !looping.contains("192.0.2.1".parse().unwrap()));
        assert!(matches!(expand(&resolver, "slow.example").await, Err(ExpandError::Temporary(_))));
        for domain in ["wrong.example", "nothing.example", "no..domain"] {
            assert!(matches!(expand(&resolver, domain).await, Err(ExpandError::Permanent(_))), "{domain}");
        }
    }
}
