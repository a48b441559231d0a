// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether anybody can answer the sender: his domain's mail hosts (RFC 5321 section 5.1), the null MX (RFC 7505), and mail hosts or name servers with
//! addresses where no host of the Internet can be (RFC 6890).

use std::net::IpAddr;

use common::dns::{DnsError, Resolver, bogus_network, organisational_domain};
use ipnet::IpNet;

use super::perimeter::Sign;
use crate::config::{Effect, SenderSettings};
use crate::verdict::Reason;

/// Hosts of a domain that are looked at, the preferred ones first.
const HOSTS: usize = 5;

/// What was found of a sender's domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SenderDomain {
    /// It says that it has no mail.
    pub null_mx: bool,
    /// It has neither MX nor address.
    pub no_mail_host: bool,
    /// A mail host and its impossible address.
    pub bogus_mx: Option<(String, IpAddr)>,
    /// A name server and its impossible address.
    pub bogus_ns: Option<(String, IpAddr)>,
    /// Not everything could be looked up.
    pub incomplete: bool,
}

/// True when something of it leads to something.
pub fn is_wanted(settings: &SenderSettings) -> bool {
    let SenderSettings { no_mail_host, null_mx, bogus_mx, bogus_ns, .. } = settings;
    [no_mail_host, null_mx, bogus_mx, bogus_ns].into_iter().any(|effect| *effect != Effect::NONE)
}

/// Looks a domain up. The caller sets the time limit.
pub async fn look_up(resolver: &Resolver, settings: &SenderSettings, domain: &str) -> SenderDomain {
    let mail = mail_hosts(resolver, settings, domain);
    let (mut found, ns) = tokio::join!(mail, name_servers(resolver, settings, domain));
    match ns {
        Ok(bogus) => found.bogus_ns = bogus,
        Err(_) => found.incomplete = true,
    }
    found
}

async fn mail_hosts(resolver: &Resolver, settings: &SenderSettings, domain: &str) -> SenderDomain {
    let records = match resolver.mx(domain).await {
        Ok(records) => records,
        Err(DnsError::BadName(_)) => return SenderDomain { no_mail_host: true, ..SenderDomain::default() },
        Err(DnsError::Temporary(_)) => return SenderDomain { incomplete: true, ..SenderDomain::default() },
    };
    if records.iter().any(|mx| mx.exchange.is_empty()) {
        return SenderDomain { null_mx: true, ..SenderDomain::default() };
    }
    let implicit = records.is_empty();
    let hosts: Vec<String> = match implicit {
        true => vec![domain.to_owned()],
        false => records.into_iter().map(|mx| mx.exchange).take(HOSTS).collect(),
    };
    match addresses(resolver, &hosts).await {
        // Without MX the domain itself is the host (section 5.1); hosts of an MX that are not there may be elsewhere.
        Ok(found) if found.is_empty() && implicit => SenderDomain { no_mail_host: true, ..SenderDomain::default() },
        Ok(found) => SenderDomain { bogus_mx: impossible(settings, found), ..SenderDomain::default() },
        Err(_) => SenderDomain { incomplete: true, ..SenderDomain::default() },
    }
}

async fn name_servers(
    resolver: &Resolver,
    settings: &SenderSettings,
    domain: &str,
) -> Result<Option<(String, IpAddr)>, DnsError> {
    if settings.bogus_ns == Effect::NONE {
        return Ok(None);
    }
    // Sub-domains are seldom zones of their own.
    let zone = organisational_domain(domain).unwrap_or_else(|| domain.to_owned());
    let hosts: Vec<String> = resolver.ns(&zone).await?.into_iter().take(HOSTS).collect();
    Ok(impossible(settings, addresses(resolver, &hosts).await?))
}

/// All addresses of hosts, asked for at once. Error: none could be had, and one failed.
async fn addresses(resolver: &Resolver, hosts: &[String]) -> Result<Vec<(String, IpAddr)>, DnsError> {
    let mut asked = tokio::task::JoinSet::new();
    for host in hosts {
        // A literal is no host name, but some write one.
        if let Ok(address) = host.parse() {
            return Ok(vec![(host.clone(), address)]);
        }
        let (resolver, host) = (resolver.clone(), host.clone());
        asked.spawn(async move {
            let (a, aaaa) = tokio::join!(resolver.a(&host), resolver.aaaa(&host));
            (host, a, aaaa)
        });
    }
    let (mut found, mut failed) = (Vec::new(), None);
    while let Some(Ok((host, a, aaaa))) = asked.join_next().await {
        let mut add = |address: IpAddr| found.push((host.clone(), address));
        match (a, aaaa) {
            (Err(error @ DnsError::Temporary(_)), _) | (_, Err(error @ DnsError::Temporary(_))) => failed = Some(error),
            (a, aaaa) => {
                a.unwrap_or_default().into_iter().map(IpAddr::V4).for_each(&mut add);
                aaaa.unwrap_or_default().into_iter().map(IpAddr::V6).for_each(&mut add);
            }
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn impossible(settings: &SenderSettings, mut found: Vec<(String, IpAddr)>) -> Option<(String, IpAddr)> {
    let reachable = |ip: &IpAddr| settings.reachable.iter().any(|network: &IpNet| network.contains(ip));
    // The same one whichever answer came first.
    found.sort_unstable();
    found.into_iter().find(|(_, ip)| bogus_network(*ip).is_some() && !reachable(ip))
}

/// The signs in what was found, as far as they lead to something.
pub fn signs(settings: &SenderSettings, domain: &str, found: &SenderDomain) -> Vec<Sign> {
    let made = |effect: Effect, code: &'static str, fact: String, told: String| {
        Sign::new(effect, Reason::SenderDomainRefused, code, fact, told)
    };
    let bogus = |effect: Effect, kind: &str, bogus: &Option<(String, IpAddr)>| {
        let (host, ip) = bogus.as_ref()?;
        let network = bogus_network(*ip).unwrap_or_default();
        let fact = format!("sender {domain}: {kind} {host} is {ip} ({network})");
        made(effect, "7.1", fact, format!("{kind} of {domain} is at {ip}"))
    };
    let null = || made(settings.null_mx, "7.27", format!("sender {domain}: null MX"), format!("{domain} has no mail"));
    let none = || {
        let fact = format!("sender {domain}: neither MX nor address");
        made(settings.no_mail_host, "1.8", fact, format!("{domain} has no mail host"))
    };
    [
        null().filter(|_| found.null_mx),
        none().filter(|_| found.no_mail_host),
        bogus(settings.bogus_mx, "MX", &found.bogus_mx),
        bogus(settings.bogus_ns, "name server", &found.bogus_ns),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dns::Zone;

    const ZONE: &str = "
        good.example MX 10 mx.good.example
        mx.good.example A 198.31.7.1
        good.example NS ns.good.example
        ns.good.example A 198.31.7.2
        null.example MX 0 .
        implicit.example A 198.31.7.3
        private.example MX 10 a.private.example
        private.example MX 20 mx.good.example
        a.private.example A 10.1.2.3
        six.example MX 10 a.six.example
        a.six.example AAAA fe80::1
        self.example A 127.0.0.1
        shady.example MX 10 mx.good.example
        shady.example NS ns.shady.example
        ns.shady.example A 192.168.1.1
        gone.example MX 10 nowhere.example
        slow.example TIMEOUT
        slowmx.example MX 10 host.slowmx.example
        host.slowmx.example TIMEOUT
    ";

    fn settings() -> SenderSettings {
        SenderSettings {
            no_mail_host: Effect::Score(4),
            null_mx: Effect::Reject,
            bogus_mx: Effect::Score(5),
            bogus_ns: Effect::Score(2),
            reachable: Vec::new(),
        }
    }

    #[tokio::test]
    async fn domains_are_told_apart() {
        let dns = Resolver::Canned(Zone::parse(ZONE).unwrap());
        for (domain, facts, incomplete) in [
            ("good.example", "", false),
            ("implicit.example", "", false),
            ("gone.example", "", false),
            ("null.example", "sender null.example: null MX", false),
            ("none.example", "sender none.example: neither MX nor address", false),
            ("private.example", "sender private.example: MX a.private.example is 10.1.2.3 (private)", false),
            ("six.example", "sender six.example: MX a.six.example is fe80::1 (link local)", false),
            ("self.example", "sender self.example: MX self.example is 127.0.0.1 (loopback)", false),
            (
                "a.shady.example",
                "sender a.shady.example: neither MX nor address; sender a.shady.example: name server ns.shady.example is 192.168.1.1 (private)",
                false,
            ),
            ("slow.example", "", true),
            ("slowmx.example", "", true),
            ("a..b", "sender a..b: neither MX nor address", true),
        ] {
            let found = look_up(&dns, &settings(), domain).await;
            let signs = signs(&settings(), domain, &found);
            let told: Vec<&str> = signs.iter().map(|sign| sign.fact.as_str()).collect();
            assert_eq!((told.join("; ").as_str(), found.incomplete), (facts, incomplete), "{domain}");
        }
    }

    #[tokio::test]
    async fn networks_that_we_reach_are_not_bogus() {
        let dns = Resolver::Canned(Zone::parse(ZONE).unwrap());
        let settings = SenderSettings { reachable: vec!["10.0.0.0/8".parse().unwrap()], ..settings() };
        assert_eq!(look_up(&dns, &settings, "private.example").await.bogus_mx, None);
        assert!(is_wanted(&settings) && !is_wanted(&SenderSettings::default()));
    }
}
