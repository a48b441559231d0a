// SPDX-License-Identifier: GPL-3.0-or-later
//! Spam rules that ask the network: contentd between its client, a next hop and a name server that answers, is silent, or is not asked at all.

use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use common::handover::{Note, Peer, Scope, Secret, write};
use tests::filter::Filter;
use tests::nameserver::{Manner, NameServer};
use tests::nexthop::NextHop;
use tests::process::await_that;

use crate::process::{contentd_with, start};
use crate::service::page;
use crate::spam::{deliver, folder, message, received};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lists of clients and of domains in URIs, a list of the servers behind those, SPF, and whether the sender can get mail.
const RULES: &str = "\
util_rb_tld org net test
header   CLIENT_LISTED  eval:check_rbl('bl-lastexternal', 'bl.test.', '127.0.0.4')
tflags   CLIENT_LISTED  net
score    CLIENT_LISTED  0.5
urirhssub URI_LISTED    uri.test. A 2
body     URI_LISTED     eval:check_uridnsbl('URI_LISTED')
tflags   URI_LISTED     net
score    URI_LISTED     6
uridnsbl SERVER_LISTED  servers.test. A
body     SERVER_LISTED  eval:check_uridnsbl('SERVER_LISTED')
tflags   SERVER_LISTED  net
score    SERVER_LISTED  0.25
header   SPF_FAIL       eval:check_for_spf_fail()
tflags   SPF_FAIL       net
score    SPF_FAIL       2
header   SPF_HELO_PASS  eval:check_for_spf_helo_pass()
tflags   SPF_HELO_PASS  nice net
score    SPF_HELO_PASS  -0.125
header   NO_DNS_FOR_FROM eval:check_dns_sender()
tflags   NO_DNS_FOR_FROM net
score    NO_DNS_FOR_FROM 1
meta     UNLISTED       !CLIENT_LISTED
score    UNLISTED       0.0625
header   HEAVY          Subject =~ /casino/
score    HEAVY          40
";

const ZONE: &str = "
    7.2.0.192.bl.test A 127.0.0.4
    bad.example.net.uri.test A 127.0.0.6
    example.net NS ns.example.net
    bad.test.uri.test A 127.0.0.6
    bad.test NS ns.servers.net
    ns.servers.net A 198.51.100.53
    53.100.51.198.servers.test A 127.0.0.2
    example.org TXT \"v=spf1 ip4:198.51.100.0/24 -all\"
    example.org MX 10 mx.example.org
    helo.example.org TXT \"v=spf1 ip4:192.0.2.7 -all\"
";

/// Lines of the configuration. Within its time, a question takes as long as it takes.
fn lines(rules: &Path, dns: &NameServer, spam: &str) -> String {
    let (rules, dns) = (rules.display(), dns.address);
    format!("[spam]\nrules = [\"{rules}\"]\n{spam}\n[dns]\nservers = [\"{dns}\"]\ntimeout = \"30s\"\n")
}

async fn filter(rules: &Path, dns: &NameServer, spam: &str, sections: &str) -> (Filter, NextHop) {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), &(lines(rules, dns, spam) + sections)).await;
    (filter, hop)
}

const ON: &str = "network = true\nnetwork_time = \"60s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_listed_is_tagged_and_spf_is_asked() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let headers = "[headers]\nadd = [\"X-Spam-Flag\", \"X-Spam-Status\", \"X-Spam-Report\"]\n";
    let (filter, hop) = filter(rules.path(), &dns, &format!("{ON}\nall = true"), headers).await;
    let reply = deliver(&filter, &message("hello", "see http://www.bad.test/ now")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let text = received(&hop).await;
    assert!(text.contains("X-Spam-Flag: YES\r\n"), "{text}");
    let shown = text.replace("\r\n ", " ");
    let tests = "Yes, score=8.625 required=5 tests=[URI_LISTED=6, SPF_FAIL=2, CLIENT_LISTED=0.5, SERVER_LISTED=0.25, \
        SPF_HELO_PASS=-0.125]\r\n";
    assert!(shown.contains(tests), "{text}");
    let listed = ["* 6 URI_LISTED [URI: bad.test]", "* 0.5 CLIENT_LISTED [192.0.2.7 listed in bl.test]"];
    assert!(listed.iter().all(|line| shown.contains(line)), "{text}");
    let shown = page(&filter, "/metrics").await;
    for outcome in ["answered", "none"] {
        let name = format!("octroi_contentd_spam_lookups_total{{outcome=\"{outcome}\"}}");
        assert!(shown.contains(&name), "{name}: {shown}");
    }
    assert!(shown.contains("octroi_contentd_spam_lookup_seconds_count"), "{shown}");

    // Answers are kept: the next message costs no question that was asked before, apart from what it asks itself.
    let before = dns.asked("bl.test");
    assert!(deliver(&filter, &message("hello again", "text")).await.starts_with("250 "));
    let text = received(&hop).await.replace("\r\n ", " ");
    assert!(
        text.contains("score=2.375 required=5 tests=[SPF_FAIL=2, CLIENT_LISTED=0.5, SPF_HELO_PASS=-0.125]\r\n"),
        "{text}"
    );
    assert_eq!(dns.asked("bl.test"), before);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_spare_questions_that_cannot_matter() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let (filter, hop) = filter(rules.path(), &dns, ON, "").await;
    let reply = deliver(&filter, &message("casino", "see http://www.bad.test/ now")).await;
    assert!(reply.starts_with("554 5.7.0 "), "{reply}");
    assert_eq!(dns.asked(""), 0, "no answer could have saved it");
    assert!(deliver(&filter, &message("hello", "see http://www.bad.test/ now")).await.starts_with("250 "));
    let text = received(&hop).await;
    assert!(text.contains("X-Spam-Flag: YES\r\n") && text.contains("URI_LISTED=6"), "{text}");
    assert!(dns.asked("uri.test") > 0);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_name_server_costs_a_bounded_time_and_is_told() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    dns.misbehave("", Manner::Silent);
    let spam = "network = true\nnetwork_time = \"300ms\"\nall = true";
    let (filter, hop) = filter(rules.path(), &dns, spam, "").await;
    let begun = Instant::now();
    assert!(deliver(&filter, &message("hello", "see http://www.bad.test/ now")).await.starts_with("250 "));
    let took = begun.elapsed();
    // A question alone would take half a minute.
    assert!((Duration::from_millis(300)..Duration::from_secs(20)).contains(&took), "{took:?}");
    let text = received(&hop).await.replace("\r\n ", " ");
    assert!(text.contains("score=0.063 required=5 tests=[UNLISTED=0.063] partial=network\r\n"), "{text}");
    let shown = page(&filter, "/metrics").await;
    assert!(shown.contains("octroi_contentd_spam_lookups_total{outcome=\"timeout\"}"), "{shown}");
    assert!(shown.contains("octroi_contentd_spam_partial_total{why=\"network\"}"), "{shown}");
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_asks_so_much_and_no_more() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let (filter, hop) = filter(rules.path(), &dns, &format!("{ON}\nnetwork_questions = 3\nall = true"), "").await;
    let links: String = (0..15).map(|number| format!("http://www.n{number}.test/\r\n")).collect();
    assert!(deliver(&filter, &message("hello", &links)).await.starts_with("250 "));
    let text = received(&hop).await;
    assert!(text.contains("partial=questions"), "{text}");
    let shown = page(&filter, "/metrics").await;
    assert!(shown.contains("octroi_contentd_spam_partial_total{why=\"questions\"}"), "{shown}");
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_network_what_policyd_hands_over_is_enough_for_spf() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let file = rules.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let handover = format!("[handover]\nsecret_file = \"{}\"\n", file.display());
    let (filter, hop) = filter(rules.path(), &dns, "all = true", &handover).await;
    let peer = Peer { address: "192.0.2.7".parse().ok(), port: 0 };
    let note = Note { spf: Some("fail".to_owned()), decision: "0000000007".to_owned(), ..Note::default() };
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let line = write(&Secret::parse(SECRET).unwrap(), &note, Scope { peer, recipient: "", now });
    let told = format!("{line}\r\n{}", message("hello", "see http://www.bad.test/ now"));
    assert!(deliver(&filter, &told).await.starts_with("250 "));
    let text = received(&hop).await.replace("\r\n ", " ");
    assert!(text.contains("tests=[SPF_FAIL=2, UNLISTED=0.063]\r\n"), "{text}");
    assert!(deliver(&filter, &message("hello", "untold")).await.starts_with("250 "));
    let text = received(&hop).await.replace("\r\n ", " ");
    assert!(text.contains("tests=[UNLISTED=0.063]\r\n"), "{text}");
    assert_eq!(dns.asked(""), 0);
    filter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_switches_the_network_on_and_off() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let (filter, hop) = filter(rules.path(), &dns, "all = true", "").await;
    for (on, expected) in
        [(false, "tests=[UNLISTED="), (true, "tests=[URI_LISTED=6, SPF_FAIL=2, "), (false, "tests=[UNLISTED=")]
    {
        let mut settings = filter.daemon.running().settings.clone();
        (settings.spam.network, settings.spam.network_time) = (on, common::units::Period::seconds(60));
        let daemon = filter.daemon.clone();
        tokio::task::spawn_blocking(move || daemon.replace(settings)).await.unwrap().unwrap();
        let asked = dns.asked("");
        // Each another message: what was delivered is not inspected again.
        let body = format!("see http://www.bad.test/ {expected} {asked}");
        assert!(deliver(&filter, &message("hello", &body)).await.starts_with("250 "));
        let text = received(&hop).await.replace("\r\n ", " ");
        assert!(text.contains(expected), "{on}: {text}");
        assert_eq!(dns.asked("") > asked, on);
    }
    filter.stop().await;
}

#[tokio::test]
async fn the_log_says_how_much_was_asked_and_answered() {
    let (rules, dns) = (folder(RULES), NameServer::start(ZONE).await);
    let hop = NextHop::start(Vec::new()).await;
    let (mut daemon, address) = contentd_with(
        rules.path(),
        &hop,
        &lines(rules.path(), &dns, "network = true\nnetwork_time = \"60s\"\nall = true"),
    );
    start(&mut daemon);
    let text = message("hello", "see http://www.bad.test/ now");
    let mut client = tests::smtp_client::SmtpClient::greeted(&address).await;
    for command in
        ["XFORWARD ADDR=192.0.2.7 HELO=helo.example.org", "MAIL FROM:<sender@example.org>", "RCPT TO:<b@example.net>"]
    {
        assert_eq!(client.command(command).await.code(), 250, "{command}");
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(text.as_bytes()).await;
    client.send(b".\r\n").await;
    assert_eq!(client.answer().await.code(), 250);
    // Of SPF two, of the sender A and MX, of the client and the domain one each, of the domain's servers NS, A and the list.
    let log = || std::fs::read_to_string(daemon.log()).expect("it is there");
    let told = |log: &str| log.contains(" lookups=9/9 ") && log.contains(" spf=fail ");
    await_that("the log to say it", PATIENCE, || Ok(told(&log()).then_some(())))
        .unwrap_or_else(|trouble| panic!("{trouble}\n{}", log()));
}
