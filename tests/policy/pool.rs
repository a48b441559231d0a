// SPDX-License-Identifier: GPL-3.0-or-later
//! Senders with many addresses: a retry from any of them is recognised, and nobody gains anything by saying that he is one. Decided in this
//! process with canned DNS, on SQLite and PostgreSQL.

use common::dns::{Resolver, Zone};
use common::store::Store;
use policyd::checks::dnswl::Dnswl;
use policyd::checks::pool::{KeyKind, Pools};
use policyd::classes::Decider;
use policyd::config::{GreylistMode, Settings};
use policyd::policy::Policy;
use policyd::request::{PolicyRequest, ProtocolState};
use policyd::store::book::TrustBook;
use policyd::store::marker::Marker;
use policyd::store::queue::GreylistQueue;
use policyd::verdict::Finding;
use tests::postgres::Cluster;
use tokio_util::sync::CancellationToken;

use crate::gate::{number, patient, sql, sqlite, store};

/// One host of a farm, without its sockets.
pub struct Host {
    pub policy: Policy,
    decider: Decider,
    stop: CancellationToken,
    store: Store,
}

impl Host {
    /// Strict, on the store at `url`, with the DNS of `zone`.
    pub async fn start(url: &str, zone: &str, change: impl FnOnce(&mut Settings)) -> Host {
        let mut settings = patient(Settings::default());
        settings.greylist.mode = GreylistMode::Strict;
        change(&mut settings);
        let (store, stop) = (store(url).await, CancellationToken::new());
        let queue = GreylistQueue::start(&store, &stop);
        queue.health().watch().wait_for(|up| *up).await.unwrap();
        let trust = TrustBook::start(&store, queue.health().clone(), &stop);
        let pools = Pools::new(Some(Resolver::Canned(Zone::parse(zone).unwrap())));
        let (marker, marking) = Marker::new(&store, queue.health(), &stop);
        tokio::spawn(marking);
        let decider = Decider::new(queue).with(pools, trust).remembering(marker);
        Host { policy: Policy::load(settings).unwrap(), decider, stop, store }
    }

    pub async fn ask(&self, request: &PolicyRequest<'_>) -> Finding {
        self.decider.decide(&self.policy, request, None).await.finding
    }

    pub async fn reason(&self, request: &PolicyRequest<'_>) -> &'static str {
        self.ask(request).await.reason.word()
    }

    pub async fn sql(&self, text: &str) -> u64 {
        sql(&self.store, text).await
    }

    pub async fn number(&self, text: &str) -> i64 {
        number(&self.store, text).await
    }

    /// Everything that waits becomes five minutes older.
    pub async fn five_minutes_pass(&self) {
        self.sql("update greylist set first_seen = first_seen - 300000, last_seen = last_seen - 300000").await;
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.decider.queue().ended().await;
    }
}

/// A request at RCPT; name and HELO are the same, none when empty.
pub fn from<'a>(client: &'a str, name: &'a str, sender: &'a str) -> PolicyRequest<'a> {
    PolicyRequest {
        state: ProtocolState::Rcpt,
        client_address: Some(client.parse().unwrap()),
        client_name: (!name.is_empty()).then(|| name.into()),
        helo_name: name.into(),
        sender: sender.into(),
        recipient: "r@example.org".into(),
        ..PolicyRequest::default()
    }
}

/// Makes one test per promise and database.
macro_rules! promises {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (_folder, url) = super::sqlite();
                super::$promise(&url).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let cluster = super::Cluster::shared();
                super::$promise(&cluster.new_database().await).await;
            })+
        }
    };
}
pub(crate) use promises;

promises!(
    a_pool_behind_chains_of_includes_is_one_client,
    a_pool_is_known_by_name_without_spf,
    without_a_pool_the_network_counts,
    a_record_of_ones_own_gains_nothing_elsewhere,
    what_was_seen_while_dns_failed_goes_on,
    what_another_greylister_knew_by_network_goes_on,
    a_retry_while_dns_fails_waits_once_more,
    pools_can_be_switched_off,
    a_client_in_a_whitelist_is_not_greylisted,
);

/// Two large providers and their customers.
const PROVIDERS: &str = "
    customer.test    TXT \"v=spf1 include:spf.outlook.test -all\"
    spf.outlook.test TXT \"v=spf1 ip4:198.18.0.0/16 ip4:198.19.0.0/16 include:more.outlook.test -all\"
    more.outlook.test TXT \"v=spf1 ip4:100.64.0.0/16 include:last.outlook.test -all\"
    last.outlook.test TXT \"v=spf1 ip4:100.65.0.0/17 ip6:2001:db8:100::/40 -all\"
    shop.test        TXT \"v=spf1 redirect=_spf.google.test\"
    _spf.google.test TXT \"v=spf1 include:_netblocks.google.test include:_netblocks2.google.test ~all\"
    _netblocks.google.test  TXT \"v=spf1 ip4:100.96.0.0/16 ~all\"
    _netblocks2.google.test TXT \"v=spf1 ip6:2001:db8:200::/40 ~all\"
    victim.test      TXT \"v=spf1 ip4:192.0.2.0/24 -all\"
    all.test         TXT \"v=spf1 +all\"
    wide.test        TXT \"v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all\"
";

/// 200 addresses of the first provider, over four /16 and a /40.
fn outlook(number: usize) -> String {
    let (row, host) = (number / 5, number % 250 + 1);
    match number % 5 {
        0 => format!("198.18.{row}.{host}"),
        1 => format!("198.19.{row}.{host}"),
        2 => format!("100.64.{row}.{host}"),
        3 => format!("100.65.{row}.{host}"),
        _ => format!("2001:db8:100:{row:x}::{host:x}"),
    }
}

async fn a_pool_behind_chains_of_includes_is_one_client(url: &str) {
    let host = Host::start(url, PROVIDERS, |settings| settings.greylist.trust_after = 0).await;
    for number in 0..200 {
        let sender = format!("user{number}x@customer.test");
        let finding = host.ask(&from(&outlook(number), "", &sender)).await;
        assert_eq!(finding.reason.word(), "greylist_new", "{number}");
        assert_eq!(finding.fact, "key spf:customer.test");
    }
    let (client, sender) = (outlook(67), "user0x@customer.test");
    assert_eq!(host.reason(&from(&client, "", sender)).await, "greylist_early", "another address, too early");
    host.five_minutes_pass().await;
    for number in 0..200 {
        let (client, sender) = (outlook((number + 67) % 200), format!("user{number}x@customer.test"));
        assert_eq!(host.reason(&from(&client, "", &sender)).await, "greylist_passed_now", "{client} {sender}");
    }
    assert_eq!(host.number("select count(*) from greylist where client = 'spf:customer.test'").await, 200);
    assert_eq!(host.number("select count(*) from greylist").await, 200);
    host.end().await;
}

async fn a_pool_is_known_by_name_without_spf(url: &str) {
    let host = Host::start(url, PROVIDERS, |_| {}).await;
    // By SPF, from IPv4 and then IPv6.
    assert_eq!(host.reason(&from("100.96.1.1", "mail-lf1-f44.google.test", "a@shop.test")).await, "greylist_new");
    // No record of the sender's domain: the provider's names tell.
    let first = host.ask(&from("100.96.1.1", "mail-lf1-f44.google.test", "a@plain.test")).await;
    assert_eq!((first.reason.word(), first.fact.as_str()), ("greylist_new", "key name:google.test"));
    // A record that does not name the provider does not matter either: mail was forwarded.
    assert_eq!(host.reason(&from("100.96.1.1", "mail-lf1-f44.google.test", "a@victim.test")).await, "greylist_new");
    host.five_minutes_pass().await;
    for (client, sender) in
        [("2001:db8:200::7", "a@shop.test"), ("100.96.200.9", "a@plain.test"), ("2001:db8:200::7", "a@victim.test")]
    {
        let reason = host.reason(&from(client, "mail-ej1-f7.google.test", sender)).await;
        assert_eq!(reason, "greylist_passed_now", "{client} {sender}");
    }
    host.end().await;
}

async fn without_a_pool_the_network_counts(url: &str) {
    let host = Host::start(url, PROVIDERS, |_| {}).await;
    for sender in ["a@victim.test", "a@plain.test", "", "a@all.test"] {
        // The null sender is asked about at DATA.
        let at = |client: &'static str| PolicyRequest {
            state: if sender.is_empty() { ProtocolState::Data } else { ProtocolState::Rcpt },
            ..from(client, "", sender)
        };
        assert_eq!(host.reason(&at("203.0.113.1")).await, "greylist_new", "{sender}");
        host.five_minutes_pass().await;
        assert_eq!(host.reason(&at("203.0.114.1")).await, "greylist_new", "{sender}: another network");
        assert_eq!(host.reason(&at("203.0.113.200")).await, "greylist_passed_now", "{sender}: the same network");
    }
    host.end().await;
}

async fn a_record_of_ones_own_gains_nothing_elsewhere(url: &str) {
    let host = Host::start(url, PROVIDERS, |settings| settings.greylist.trust_after = 1).await;
    // A pool in good standing: known and trusted by its own domain.
    host.ask(&from("192.0.2.1", "", "a@victim.test")).await;
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("192.0.2.1", "", "a@victim.test")).await, "greylist_passed_now");
    trusted(&host, "spf:victim.test").await;
    // Somebody who lets the whole world send for his domain waits like everybody, at every network.
    let all = host.ask(&from("203.0.113.1", "", "a@all.test")).await;
    assert_eq!((all.reason.word(), all.fact.as_str()), ("greylist_new", ""));
    // With networks instead of "all" he gets a key, of his domain.
    let wide = host.ask(&from("203.0.113.1", "", "a@wide.test")).await;
    assert_eq!((wide.reason.word(), wide.fact.as_str()), ("greylist_new", "key spf:wide.test"));
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("198.51.100.1", "", "a@wide.test")).await, "greylist_passed_now");
    trusted(&host, "spf:wide.test").await;
    // Trust in his domain from anywhere is nothing for the names of others, nor for his network.
    assert_eq!(host.reason(&from("203.0.113.9", "", "b@wide.test")).await, "trusted");
    assert_eq!(host.reason(&from("203.0.113.9", "", "a@victim.test")).await, "greylist_new");
    assert_eq!(host.reason(&from("203.0.113.9", "", "a@plain.test")).await, "greylist_new");
    host.end().await;
}

/// Waits until a key has a pass: it is counted after the answer.
async fn trusted(host: &Host, key: &str) {
    let ask = format!("select count(*) from trust where key = '{key}'");
    let counted = async {
        while host.number(&ask).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::gate::PATIENCE, counted).await.unwrap_or_else(|_| panic!("{key} is never counted"));
}

const NO_ANSWER: &str = "customer.test TIMEOUT\n";

async fn what_was_seen_while_dns_failed_goes_on(url: &str) {
    let (blind, host) = (Host::start(url, NO_ANSWER, |_| {}).await, Host::start(url, PROVIDERS, |_| {}).await);
    let (client, sender) = ("198.18.7.7", "a@customer.test");
    assert_eq!(blind.ask(&from(client, "", sender)).await.fact, "", "the network is the key");
    assert_eq!(host.reason(&from(client, "", sender)).await, "greylist_early", "not new: it waits already");
    assert_eq!(host.number("select tries from greylist where client = 'spf:customer.test'").await, 2);
    host.five_minutes_pass().await;
    assert_eq!(host.reason(&from("100.64.1.1", "", sender)).await, "greylist_passed_now", "no second delay");
    assert_eq!(host.reason(&from("198.18.9.9", "", "b@customer.test")).await, "greylist_new", "another sender");
    blind.end().await;
    host.end().await;
}

async fn what_another_greylister_knew_by_network_goes_on(url: &str) {
    let host = Host::start(url, PROVIDERS, |settings| settings.greylist.trust_after = 0).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let (before, until) = (now - 86_400_000, now + 86_400_000);
    host.sql(&format!(
        "insert into greylist values ('198.18.7.0/24', 'a@customer.test', 'r@example.org', {before}, {before}, 1, 1, {until})"
    ))
    .await;
    assert_eq!(host.reason(&from("198.18.7.7", "", "a@customer.test")).await, "greylist_passed");
    assert_eq!(host.reason(&from("100.64.1.1", "", "a@customer.test")).await, "greylist_passed", "now by the pool");
    // What has expired is not known.
    host.sql(&format!(
        "insert into greylist values ('198.18.7.0/24', 'b@customer.test', 'r@example.org', {before}, {before}, 1, 1, {before})"
    ))
    .await;
    assert_eq!(host.reason(&from("198.18.7.7", "", "b@customer.test")).await, "greylist_new");
    host.end().await;
}

async fn a_retry_while_dns_fails_waits_once_more(url: &str) {
    let (blind, host) = (Host::start(url, NO_ANSWER, |_| {}).await, Host::start(url, PROVIDERS, |_| {}).await);
    let sender = "a@customer.test";
    assert_eq!(host.reason(&from("198.18.7.7", "", sender)).await, "greylist_new");
    host.five_minutes_pass().await;
    assert_eq!(blind.reason(&from("198.18.7.7", "", sender)).await, "greylist_new", "the pool cannot be confirmed");
    assert_eq!(host.reason(&from("198.18.7.7", "", sender)).await, "greylist_passed_now", "DNS answers again");
    blind.five_minutes_pass().await;
    assert_eq!(blind.reason(&from("198.18.7.7", "", sender)).await, "greylist_passed_now", "or after one delay");
    blind.end().await;
    host.end().await;
}

async fn pools_can_be_switched_off(url: &str) {
    let host = Host::start(url, PROVIDERS, |settings| settings.greylist.key = vec![KeyKind::Network]).await;
    let finding = host.ask(&from("198.18.7.7", "mx.google.test", "a@customer.test")).await;
    assert_eq!((finding.reason.word(), finding.fact.as_str()), ("greylist_new", ""));
    assert_eq!(host.number("select count(*) from greylist where client = '198.18.7.0/24'").await, 1);
    host.end().await;
}

async fn a_client_in_a_whitelist_is_not_greylisted(url: &str) {
    let zone = format!("{PROVIDERS}7.113.0.203.wl.test A 127.0.9.2\n8.113.0.203.wl.test A 127.0.9.1\n");
    let host = Host::start(url, &zone, |settings| {
        settings.greylist.dnswl = vec![Dnswl { zone: "wl.test".to_owned(), min_level: 2 }];
    })
    .await;
    let listed = host.ask(&from("203.0.113.7", "", "a@plain.test")).await;
    assert_eq!((listed.reason.word(), listed.fact.as_str()), ("dns_whitelisted", "wl.test level 2"));
    for client in ["203.0.113.8", "203.0.113.9"] {
        assert_ne!(host.reason(&from(client, "", "a@plain.test")).await, "dns_whitelisted", "{client}");
    }
    host.end().await;
}
