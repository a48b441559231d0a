// SPDX-License-Identifier: GPL-3.0-or-later
//! The addresses behind the entries `spf:domain` in lists of clients: worked out from the domain's SPF record beforehand, so that a
//! request costs no look-up, and followed as the record changes.
//!
//! Every minute each record is worked out anew; the resolver keeps answers as long as their TTL says, so that this asks only for what
//! may have changed. While DNS does not answer, what was known last stays in force. A domain that has no readable record any more lists
//! nobody.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::dns::Resolver;
use common::lookup::{ClientTable, Match};
use common::spf::{ExpandError, Senders, expand};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Lists;
use crate::policy::Live;

/// Pause between two looks at a record.
const AGAIN: Duration = Duration::from_secs(60);
/// Pause between two looks whether lists name other domains now.
const LOOK: Duration = Duration::from_millis(300);
/// Time for one record.
const TIME: Duration = Duration::from_secs(20);
/// Most domains in all lists together; more are left out and told.
const MOST: usize = 1000;

/// The addresses behind domains, by domain in lower case.
#[derive(Debug, Default)]
pub struct Records(ArcSwap<HashMap<String, Arc<Senders>>>);

impl Records {
    /// The first entry `spf:domain` of a list whose domain authorises the client.
    pub(super) fn find<'a>(&self, list: &'a ClientTable, client: IpAddr) -> Option<Match<'a>> {
        let mut domains = list.authorised().peekable();
        domains.peek()?;
        let known = self.0.load();
        domains.find_map(|(domain, found)| known.get(domain)?.contains(client).then_some(found))
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, Arc<Senders>>)) {
        let mut known = HashMap::clone(&self.0.load());
        change(&mut known);
        self.0.store(Arc::new(known));
    }
}

/// The domains that lists of clients name now.
fn wanted(lists: &Lists) -> HashSet<String> {
    let now = lists.now();
    let clients = now.tables().into_iter().flat_map(|tables| tables.clients());
    clients.flat_map(ClientTable::authorised).map(|(domain, _)| domain.to_owned()).take(MOST).collect()
}

/// Works out once what is behind the domains in these lists.
pub async fn look(lists: &Lists, resolver: &Resolver) {
    let mut follower = Follower::default();
    follower.look(lists, resolver).await;
}

/// Follows the records of all domains in the lists until `stop`; without a resolver they list nobody.
pub async fn follow(live: Arc<Live>, stop: CancellationToken) {
    let Some(resolver) = live.resolver() else { return };
    let mut follower = Follower::default();
    loop {
        let policy = live.current().clone();
        tokio::select! {
            () = follower.look(&policy.lists, &resolver) => {}
            () = stop.cancelled() => return,
        }
        drop(policy);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// When each domain was last looked at, and the trouble that was told of it.
#[derive(Debug, Default)]
struct Follower(HashMap<String, (Instant, String)>);

impl Follower {
    async fn look(&mut self, lists: &Lists, resolver: &Resolver) {
        let wanted = wanted(lists);
        if wanted.len() < self.0.len() || self.0.keys().any(|domain| !wanted.contains(domain)) {
            self.0.retain(|domain, _| wanted.contains(domain));
            lists.records.change(|known| known.retain(|domain, _| wanted.contains(domain)));
        }
        let due: Vec<String> = wanted.into_iter().filter(|domain| self.is_due(domain)).collect();
        for domain in due {
            let expanded = match tokio::time::timeout(TIME, expand(resolver, &domain)).await {
                Ok(expanded) => expanded,
                Err(_) => Err(ExpandError::Temporary(format!("no answer within {} seconds", TIME.as_secs()))),
            };
            self.take(domain, expanded, &lists.records);
        }
    }

    fn is_due(&self, domain: &str) -> bool {
        self.0.get(domain).is_none_or(|(at, _)| at.elapsed() >= AGAIN)
    }

    fn take(&mut self, domain: String, expanded: Result<Senders, ExpandError>, records: &Records) {
        let (outcome, trouble) = match expanded {
            Ok(senders) => {
                let partial =
                    senders.is_partial().then_some("some of its terms depend on the client and list nobody here");
                records.change(|known| drop(known.insert(domain.clone(), Arc::new(senders))));
                ("good", partial.unwrap_or_default().to_owned())
            }
            Err(ExpandError::Temporary(problem)) => ("temporary", problem),
            Err(ExpandError::Permanent(problem)) => {
                records.change(|known| drop(known.remove(&domain)));
                ("permanent", problem)
            }
        };
        metrics::counter!("octroi_policyd_spf_lists_total", "outcome" => outcome).increment(1);
        let told = self.0.get(&domain).map_or("", |(_, told)| told);
        match (told == trouble, trouble.is_empty()) {
            (true, _) => {}
            (false, true) => tracing::info!(domain, "the SPF record behind a list of clients can be followed again"),
            (false, false) => tracing::warn!(domain, outcome, trouble, "the SPF record behind a list of clients"),
        }
        self.0.insert(domain, (Instant::now(), trouble));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use common::dns::Zone;

    fn resolver(zone: &str) -> Resolver {
        Resolver::Canned(Zone::parse(zone).unwrap())
    }

    #[tokio::test]
    async fn the_last_good_answer_stays_while_dns_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, "spf:example.org\nspf:other.example\n").unwrap();
        let mut settings = Settings::default();
        settings.access.client_whitelist = vec![path.into()];
        let lists = Lists::load(&settings).unwrap();
        let request =
            |ip: &str| crate::request::PolicyRequest { client_address: ip.parse().ok(), ..Default::default() };
        let listed = |ip: &str| lists.now().client(|tables| &tables.client_whitelist, &request(ip)).map(|at| at.entry);
        assert_eq!(listed("192.0.2.1"), None, "not known yet");
        let mut follower = Follower::default();
        let good =
            "example.org TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nother.example TXT \"v=spf1 ip4:198.51.100.0/24\"\n";
        follower.look(&lists, &resolver(good)).await;
        assert_eq!(listed("192.0.2.1").as_deref(), Some("spf:example.org"));
        assert_eq!(listed("198.51.100.9").as_deref(), Some("spf:other.example"));
        assert_eq!(listed("203.0.113.1"), None);
        let again = |follower: &mut Follower| {
            follower.0.values_mut().for_each(|seen| seen.0 -= AGAIN);
        };
        follower.look(&lists, &resolver("")).await;
        assert!(listed("192.0.2.1").is_some(), "not asked again so soon");
        again(&mut follower);
        follower.look(&lists, &resolver("example.org TIMEOUT\nother.example TXT \"v=spf1 ip4:x\"\n")).await;
        assert!(listed("192.0.2.1").is_some(), "no answer is not another one");
        assert!(listed("198.51.100.9").is_none(), "a record that is gone or broken lists nobody");
        again(&mut follower);
        follower.look(&lists, &resolver("example.org TXT \"v=spf1 ip4:203.0.113.0/24 -all\"\n")).await;
        assert!(listed("192.0.2.1").is_none() && listed("203.0.113.1").is_some());
    }
}
