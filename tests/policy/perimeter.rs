// SPDX-License-Identifier: GPL-3.0-or-later
//! DNS lists as Postfix meets them: policyd over its socket, and a name server that lies, sleeps and refuses.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::config::Source;
use policyd::config::{GreylistMode, OnStoreError, Settings};
use tests::nameserver::{Manner, NameServer};
use tests::postgres::Cluster;

use crate::gate::{Gate, PATIENCE, number, rcpt, sql, sqlite, store};

/// A list of clients, a second one, a whitelist and a list of domains, all with their test entries.
const ZONE: &str = "
    2.0.0.127.bl.test A 127.0.0.2
    2.0.0.127.two.test A 127.0.0.2
    2.0.0.127.wl.test A 127.0.0.2
    test.dbl.test A 127.0.1.2
    5.7.31.198.bl.test A 127.0.0.4
    6.7.31.198.bl.test A 127.0.0.10
    7.7.31.198.bl.test A 127.0.0.4
    7.7.31.198.wl.test A 127.0.5.3
    7.7.31.198.two.test A 127.0.0.2
    8.7.31.198.wl.test A 127.0.5.3
    spam.example.dbl.test A 127.0.1.2
";

const LISTS: &str = "
    [greylist]
    mode = 'off'
    [perimeter]
    reject_score = 5
    greylist_score = 3
    whitelist_score = -2
    pause = '1s'
    [[perimeter.dnsbl]]
    zone = 'bl.test'
    reply = '127.0.0.[2..9]'
    weight = 5
    [[perimeter.dnsbl]]
    zone = 'bl.test'
    reply = '127.0.0.[10;11]'
    weight = 3
    [[perimeter.dnsbl]]
    zone = 'two.test'
    weight = 2
    [[perimeter.dnswl]]
    zone = 'wl.test'
    weight = 4
    [[perimeter.rhsbl]]
    zone = 'dbl.test'
    weight = 6
";

/// Settings of a text on the store at `url`, with DNS at `dns`, and time enough.
pub fn settings(url: &str, dns: &NameServer, text: &str) -> Settings {
    let mut settings = Settings::read(&Source::from_text("test", text).unwrap()).unwrap();
    settings.store.url = url.to_owned();
    settings.dns.servers = vec![dns.address.to_string()];
    settings.dns.timeout = "5s".parse().unwrap();
    settings.policyd.budget = "30s".parse().unwrap();
    settings.policyd.on_store_error = OnStoreError::Dunno;
    settings.policyd.journal_size = "0B".parse().unwrap();
    settings
}

/// Name server and settings of one test. The metrics are those of all tests in this process, so each has its own names of lists: the
/// zones of the texts above are below `tag`.
async fn set(url: &str, tag: &str) -> (NameServer, Settings) {
    let own = |text: &str| text.replace(".test", &format!(".{tag}.test"));
    let dns = NameServer::start(&own(ZONE)).await;
    let settings = settings(url, &dns, &own(LISTS));
    (dns, settings)
}

/// Waits until something is so.
pub async fn until(so: impl Fn() -> bool, what: &str) {
    let seen = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until a line of /metrics begins with these words and has this value.
pub async fn until_metric(gate: &Gate, line: &str) {
    let seen = async {
        while !gate.get("/metrics").await.lines().any(|known| known == line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("/metrics never said {line:?}"));
}

/// A request at RCPT whose client calls itself `name`.
fn named(client: &str, name: &str, sender: &str) -> String {
    rcpt(client, sender, "r@example.org").replace("mx.example.net", name)
}

async fn all_up(gate: &Gate, tag: &str) {
    for list in ["bl", "two", "wl", "dbl"] {
        is_up(gate, &format!("{list}.{tag}"), true).await;
    }
}

async fn is_up(gate: &Gate, list: &str, up: bool) {
    until_metric(gate, &format!("octroi_policyd_dnslist_up{{list=\"{list}.test\"}} {}", u8::from(up))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_score_of_all_lists_decides() {
    let (_folder, url) = sqlite();
    let (dns, settings) = set(&url, "score").await;
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, "score").await;
    let mut client = gate.client().await;
    for (request, action) in [
        (rcpt("198.31.7.4", "a@example.net", "r@example.org"), "DUNNO"),
        (
            rcpt("198.31.7.5", "a@example.net", "r@example.org"),
            "REJECT 5.7.1 Client [198.31.7.5] refused: 198.31.7.5 is listed by bl.score.test; id ",
        ),
        // Listed, but whitelisted: 5 + 2 - 4.
        (rcpt("198.31.7.7", "a@example.net", "r@example.org"), "DUNNO"),
        (
            rcpt("198.31.7.4", "a@mail.spam.example", "r@example.org"),
            "REJECT 5.7.1 Client [198.31.7.4] refused: spam.example is listed by dbl.score.test; id ",
        ),
        (
            named("198.31.7.4", "mx.spam.example", "a@example.net"),
            "REJECT 5.7.1 Client [198.31.7.4] refused: spam.example is listed by dbl.score.test; id ",
        ),
        // Whoever is listed must be able to complain.
        (rcpt("198.31.7.5", "a@example.net", "Abuse@example.org"), "DUNNO"),
        // Who has logged in is not looked at.
        (
            rcpt("198.31.7.5", "a@example.net", "r@example.org").replace("instance=", "sasl_username=ann\ninstance="),
            "DUNNO",
        ),
    ] {
        let answer = client.ask(&request).await.unwrap();
        assert!(answer.starts_with(action), "{request} gave {answer}");
    }
    let asked = dns.asked("5.7.31.198.bl.score.test");
    for number in 0..10 {
        client.ask(&rcpt("198.31.7.5", "a@example.net", &format!("r{number}@example.org"))).await.unwrap();
    }
    assert_eq!((asked, dns.asked("5.7.31.198.bl.score.test")), (1, 1), "one question for all recipients");
    client.ask(&rcpt("10.1.2.3", "a@example.net", "r@example.org")).await.unwrap();
    assert_eq!(dns.asked("3.2.1.10.bl.score.test"), 0, "an address of our own is told to nobody");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_between_mail_is_greylisted_and_below_it_is_not() {
    let (_folder, url) = sqlite();
    let (_dns, mut settings) = set(&url, "between").await;
    // This client shows no sign, and would not be greylisted.
    settings.greylist.mode = GreylistMode::Adaptive;
    settings.greylist.signs.spf_none = 0;
    let gate = Gate::with_dns(settings.clone()).await;
    all_up(&gate, "between").await;
    let mut client = gate.client().await;
    let from = |ip: &str| rcpt(ip, "a@example.net", "r@example.org");
    let greylisted = client.ask(&from("198.31.7.6")).await.unwrap();
    assert!(greylisted.starts_with("DEFER_IF_PERMIT 4.7.1 Greylisted"), "{greylisted}");
    assert_eq!(client.ask(&from("198.31.7.4")).await.as_deref(), Some("DUNNO"));
    gate.end().await;

    settings.greylist.mode = GreylistMode::Strict;
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, "between").await;
    let mut client = gate.client().await;
    assert_eq!(client.ask(&from("198.31.7.8")).await.as_deref(), Some("DUNNO"), "in a whitelist");
    assert!(client.ask(&from("198.31.7.4")).await.unwrap().starts_with("DEFER_IF_PERMIT"));
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enforce_nothing_is_refused_and_it_is_counted() {
    let (_folder, url) = sqlite();
    let (_dns, mut settings) = set(&url, "shadow").await;
    settings.perimeter.enforce = false;
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, "shadow").await;
    let mut client = gate.client().await;
    assert_eq!(client.ask(&rcpt("198.31.7.5", "a@example.net", "r@example.org")).await.as_deref(), Some("DUNNO"));
    until_metric(&gate, "octroi_policyd_perimeter_total{outcome=\"would_reject\"} 1").await;
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_stress_only_what_is_remembered_counts() {
    let (_folder, url) = sqlite();
    let (dns, settings) = set(&url, "stress").await;
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, "stress").await;
    let mut client = gate.client().await;
    let from = |sender: &str| rcpt("198.31.7.5", sender, "r@example.org");
    let stressed = |sender: &str| from(sender).replace("instance=", "stress=yes\ninstance=");
    assert_eq!(client.ask(&stressed("a@example.net")).await.as_deref(), Some("DUNNO"));
    assert_eq!(dns.asked("5.7.31.198.bl.stress.test"), 0);
    assert!(client.ask(&from("b@example.net")).await.unwrap().starts_with("REJECT"));
    assert!(client.ask(&stressed("c@example.net")).await.unwrap().starts_with("REJECT"), "it is remembered");
    gate.end().await;
}

/// Whatever the name server does, no decision takes longer than its budget, and nothing is refused for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_misbehaves_neither_delays_nor_blocks_mail() {
    let manners = [
        Manner::Silent,
        Manner::Slow(Duration::from_secs(3)),
        Manner::Servfail,
        Manner::Truncated,
        Manner::Garbage,
        Manner::OtherName,
        Manner::Always(Ipv4Addr::new(127, 255, 255, 254)),
        Manner::Always(Ipv4Addr::new(203, 0, 113, 99)),
    ];
    let mut all = tokio::task::JoinSet::new();
    for (at, manner) in manners.into_iter().enumerate() {
        all.spawn(mail_goes_on(manner, format!("manner{at}")));
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

async fn mail_goes_on(manner: Manner, tag: String) {
    let budget = Duration::from_millis(800);
    let (_folder, url) = sqlite();
    let (dns, mut settings) = set(&url, &tag).await;
    settings.policyd.budget = common::units::Period(budget);
    settings.dns.timeout = "2s".parse().unwrap();
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, &tag).await;
    for zone in [".test", "example.net", "arpa"] {
        dns.misbehave(zone, manner);
    }
    let mut client = gate.client().await;
    for number in 1..12 {
        let started = Instant::now();
        let answer = client.ask(&rcpt(&format!("198.31.7.{number}"), "a@spam.example", "r@example.org")).await;
        let took = started.elapsed();
        // Some of the budget is for the machine of the test.
        assert!(took < budget + Duration::from_millis(700), "{manner:?}: {took:?}");
        assert_eq!(answer.as_deref(), Some("DUNNO"), "{manner:?}");
    }
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_goes_wrong_is_set_aside_and_comes_back_by_its_self_test() {
    let (_folder, url) = sqlite();
    let (dns, settings) = set(&url, "wrong").await;
    let gate = Gate::with_dns(settings).await;
    all_up(&gate, "wrong").await;
    let mut client = gate.client().await;
    let mut number = 10;
    let mut refused = async |client: &mut crate::gate::Client| {
        number += 1;
        client.ask(&rcpt("198.31.7.5", &format!("a{number}@example.net"), "r@example.org")).await.unwrap() != "DUNNO"
    };
    // The list is wound up, and its zone answers for every name, the test entries too; its answers of before count no more.
    assert!(refused(&mut client).await);
    for answer in [Ipv4Addr::new(127, 255, 255, 254), Ipv4Addr::new(203, 0, 113, 99)] {
        dns.misbehave("bl.wrong.test", Manner::Always(answer));
        // What is remembered does not ask; another client does.
        let other = rcpt("198.31.9.9", &format!("{answer}@example.net"), "r@example.org");
        assert_eq!(client.ask(&other).await.as_deref(), Some("DUNNO"));
        is_up(&gate, "bl.wrong", false).await;
        assert!(!refused(&mut client).await, "{answer}: it counts for nothing");
        // While it misbehaves no test brings it back.
        let tests = dns.asked("2.0.0.127.bl.wrong.test");
        until(|| dns.asked("2.0.0.127.bl.wrong.test") >= tests + 2, "a second test").await;
        assert!(!refused(&mut client).await, "{answer}: still");
        dns.behave("bl.wrong.test");
        is_up(&gate, "bl.wrong", true).await;
        assert!(refused(&mut client).await, "{answer}: it works again");
    }
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_lists_everything_or_nothing_is_not_asked_from_the_start() {
    for (at, zone) in [
        // 127.0.0.1 is listed too, as by lists that were wound up that way.
        "2.0.0.127.bl.test A 127.0.0.2\n1.0.0.127.bl.test A 127.0.0.2\n5.7.31.198.bl.test A 127.0.0.2\n",
        "5.7.31.198.bl.test A 127.0.0.2\n",
    ]
    .into_iter()
    .enumerate()
    {
        let list = format!("bl.from-start{at}");
        let ((_folder, url), dns) =
            (sqlite(), NameServer::start(&zone.replace("bl.test", &format!("{list}.test"))).await);
        let text = format!("[greylist]\nmode = 'off'\n[[perimeter.dnsbl]]\nzone = '{list}.test'\nweight = 9\n");
        let gate = Gate::with_dns(settings(&url, &dns, &text)).await;
        is_up(&gate, &list, false).await;
        let mut client = gate.client().await;
        assert_eq!(client.ask(&rcpt("198.31.7.5", "a@example.net", "r@example.org")).await.as_deref(), Some("DUNNO"));
        assert_eq!(dns.asked(&format!("5.7.31.198.{list}.test")), 0);
        gate.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_a_farm_share_their_answers() {
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    let (dns, settings) = set(&url, "farm").await;
    let (one, two) = (Gate::with_dns(settings.clone()).await, Gate::with_dns(settings).await);
    all_up(&one, "farm").await;
    let (mut first, mut second) = (one.client().await, two.client().await);
    let from = |ip: &str| rcpt(ip, "a@example.net", "r@example.org");
    assert!(first.ask(&from("198.31.7.5")).await.unwrap().starts_with("REJECT"));
    assert_eq!(first.ask(&from("198.31.7.4")).await.as_deref(), Some("DUNNO"));
    // Written a moment later: four lists for one client, three for the other (the domain is the same).
    let store = store(&url).await;
    let written = async {
        while number(&store, "select count(*) from dns_cache").await < 7 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("answers are shared");
    // The metrics are of both: the second asks its lists when it has tested them, too.
    let mut tries = 0;
    let refused = async {
        while second.ask(&rcpt("198.31.7.5", &format!("{tries}@example.net"), "r@example.org")).await.unwrap()
            == "DUNNO"
        {
            tries += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the second refuses too");
    assert_eq!(second.ask(&from("198.31.7.4")).await.as_deref(), Some("DUNNO"));
    assert_eq!(
        (dns.asked("5.7.31.198.bl.farm.test"), dns.asked("4.7.31.198.bl.farm.test")),
        (1, 1),
        "asked by the first alone"
    );
    // What has expired is asked again; what cannot be read is.
    sql(&store, "update dns_cache set answer = 'rubbish' where key like '%.7.31.198'").await;
    assert_eq!(second.ask(&from("198.31.7.4")).await.as_deref(), Some("DUNNO"), "from its own memory");
    one.end().await;
    two.end().await;
}
