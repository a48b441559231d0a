// SPDX-License-Identifier: GPL-3.0-or-later
//! What rules know of limits, of greylisting and of named lists, in a running daemon; limits that count by where the client is.

use std::net::Ipv4Addr;
use std::time::Instant;

use common::config::Source;
use policyd::config::Settings;
use tests::mmdb::{self, Value};
use tests::postgres::Cluster;

use crate::gate::{Client, Gate, PATIENCE, number, patient, rcpt, sql, sqlite, store};

/// The configuration of a text, on the store at `url`.
fn configured(url: &str, text: &str) -> Settings {
    let read = Settings::read(&Source::from_text("octroi.toml", text).unwrap());
    let mut settings = patient(read.unwrap_or_else(|mistakes| panic!("{mistakes}")));
    settings.store.url = url.to_owned();
    settings.policyd.journal_size = "0B".parse().unwrap();
    settings
}

/// Asks about one more recipient.
async fn ask(client: &mut Client, ip: &str, sender: &str, instance: &str) -> String {
    let request = rcpt(ip, sender, "r@our.test").replace("instance=1.2.3.4", &format!("instance={instance}"));
    client.ask(&request).await.unwrap()
}

const COUNTING: &str = "[greylist]\nmode = 'off'\n\
    [[limit]]\nname = 'sender'\nkey = ['sender']\nunit = 'recipients'\nrate = ['100/day', '1000/week']\n\
    [[rule]]\nname = 'other'\nwhen = \"sender == 'asks@x.example' && count('sender', 'Busy@x.example') >= 3\"\n\
    then = ['defer 4.7.1 somebody else is busy']\n\
    [[rule]]\nname = 'busy'\nwhen = \"count('sender') >= 3\"\nthen = ['prepend X-Busy: yes']\n";

async fn a_rule_sees_how_full_a_limit_is(url: &str) {
    let gate = Gate::ready(configured(url, COUNTING)).await;
    let mut client = gate.client().await;
    assert_eq!(ask(&mut client, "192.0.2.1", "asks@x.example", "0").await, "DUNNO");
    for instance in ["1", "2", "3"] {
        assert_eq!(ask(&mut client, "192.0.2.1", "busy@x.example", instance).await, "DUNNO", "{instance}");
    }
    assert_eq!(ask(&mut client, "192.0.2.1", "Busy+list@x.example", "4").await, "PREPEND X-Busy: yes");
    let other = ask(&mut client, "192.0.2.1", "asks@x.example", "5").await;
    assert_eq!(other, "DEFER 4.7.1 somebody else is busy");
    let level = "select level / 1000000 from limit_bucket where bucket = 'sender day busy@x.example'";
    assert_eq!(number(&store(url).await, level).await, 4, "looking charges nothing");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_sees_how_full_a_limit_is_on_postgres() {
    a_rule_sees_how_full_a_limit_is(&Cluster::shared().new_database().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_sees_how_full_a_limit_is_on_sqlite() {
    let (_folder, url) = sqlite();
    a_rule_sees_how_full_a_limit_is(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_how_full_a_limit_is_cannot_be_told() {
    let text = format!(
        "{COUNTING}[[rule]]\nname = 'untold'\nwhen = \"!known(count('sender'))\"\nthen = ['prepend X-Untold: yes']\n"
    );
    let mut settings = configured("postgres://nobody@127.0.0.1:1/none", &text);
    settings.policyd.budget = "1s".parse().unwrap();
    let gate = Gate::start(settings).await;
    assert_eq!(ask(&mut gate.client().await, "192.0.2.1", "a@x.example", "1").await, "PREPEND X-Untold: yes");
    let metrics = gate.get("/metrics").await;
    assert!(metrics.contains("octroi_policyd_rule_untold_total{rule=\"busy\"} 1"), "{metrics}");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_knows_who_has_passed_greylisting() {
    let (_folder, url) = sqlite();
    let text = "[greylist]\nmode = 'strict'\ndelay = '1m'\n\
        [[rule]]\nname = 'known'\nwhen = 'greylist_known()'\nthen = ['prepend X-Known: yes', 'accept']\n";
    let gate = Gate::ready(configured(&url, text)).await;
    let mut client = gate.client().await;
    let waits = ask(&mut client, "192.0.2.1", "a@x.example", "1").await;
    assert!(waits.starts_with("DEFER_IF_PERMIT 4.7.1"), "{waits}");
    let waits = ask(&mut client, "192.0.2.1", "a@x.example", "2").await;
    assert!(waits.starts_with("DEFER_IF_PERMIT 4.7.1"), "who waits is not known: {waits}");
    sql(&store(&url).await, "update greylist set first_seen = first_seen - 300000").await;
    let passes = ask(&mut client, "192.0.2.1", "a@x.example", "3").await;
    assert!(passes.starts_with("PREPEND X-Greylist"), "{passes}");
    assert_eq!(ask(&mut client, "192.0.2.9", "b@y.example", "4").await, "PREPEND X-Known: yes", "the same network");
    let waits = ask(&mut client, "198.51.100.1", "c@z.example", "5").await;
    assert!(waits.starts_with("DEFER_IF_PERMIT 4.7.1"), "another network: {waits}");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_lists_are_followed_while_the_daemon_runs() {
    let (folder, url) = sqlite();
    let file = folder.path().join("partners");
    std::fs::write(&file, "one.example\n").unwrap();
    let text = format!(
        "[greylist]\nmode = 'off'\n[access]\nwatch = '100ms'\n\
         [list.partners]\nfiles = ['{0}']\nentries = ['always@two.example']\n\
         [[rule]]\nname = 'partner'\nwhen = \"in_list(sender, 'partners')\"\nthen = ['prepend X-Partner: yes']\n\
         [[rule]]\nname = 'path'\nwhen = \"in_list(sender_domain, '{0}')\"\nthen = ['prepend X-Path: yes', 'stop']\n",
        file.display()
    );
    let gate = Gate::ready(configured(&url, &text)).await;
    let mut client = gate.client().await;
    assert_eq!(ask(&mut client, "192.0.2.1", "a@one.example", "1").await, "PREPEND X-Partner: yes");
    assert_eq!(ask(&mut client, "192.0.2.1", "always@two.example", "2").await, "PREPEND X-Partner: yes");
    assert_eq!(ask(&mut client, "192.0.2.1", "a@three.example", "3").await, "DUNNO");
    // Written aside: half a file is never seen.
    let replace = |text: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    replace("three.example\nfour.example\n");
    let (deadline, mut number) = (Instant::now() + PATIENCE, 10);
    loop {
        number += 1;
        if ask(&mut client, "192.0.2.1", "a@three.example", &number.to_string()).await == "PREPEND X-Partner: yes" {
            break;
        }
        assert!(Instant::now() < deadline, "the list was not followed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(ask(&mut client, "192.0.2.1", "a@one.example", "4").await, "DUNNO");
    replace("not an entry\nfive.example\n");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(
        ask(&mut client, "192.0.2.1", "a@four.example", "5").await,
        "PREPEND X-Partner: yes",
        "the old list stays"
    );
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_counts_by_country_and_autonomous_system() {
    let (folder, url) = sqlite();
    let (countries, asns) = (folder.path().join("country.mmdb"), folder.path().join("asn.mmdb"));
    let iso = |code: &'static str| Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text(code))]))]);
    let net = |third: u8| (Ipv4Addr::new(198, 51, third, 0), 24);
    let known = [(net(1).0, 24, iso("XX")), (net(2).0, 24, iso("XX")), (net(3).0, 24, iso("YY"))];
    std::fs::write(&countries, mmdb::write(&known)).unwrap();
    let asn = Value::Map(vec![("autonomous_system_number", Value::Number(64496))]);
    std::fs::write(&asns, mmdb::write(&[(net(1).0, 24, asn)])).unwrap();
    let text = format!(
        "[greylist]\nmode = 'off'\n[perimeter.geo]\ncountry_db = '{}'\nasn_db = '{}'\n\
         [[limit]]\nname = 'country'\nkey = ['country', 'sender']\nunit = 'recipients'\nrate = '3/day'\n\
         [[limit]]\nname = 'as'\nkey = ['asn']\nunit = 'recipients'\nrate = '2/day'\n",
        countries.display(),
        asns.display()
    );
    let gate = Gate::ready(configured(&url, &text)).await;
    let mut client = gate.client().await;
    for (ip, instance, passes) in [
        ("198.51.1.1", "1", true),
        ("198.51.1.2", "2", true),
        ("198.51.1.3", "3", false), // the autonomous system
        ("198.51.2.1", "4", true),
        ("198.51.2.2", "5", false), // the country
        ("198.51.3.1", "6", true),
        ("203.0.113.1", "7", true), // nobody knows where that is
    ] {
        let answer = ask(&mut client, ip, "a@x.example", instance).await;
        assert_eq!(answer == "DUNNO", passes, "{ip}: {answer}");
    }
    let store = store(&url).await;
    for (bucket, level) in [("country day xx|a@x.example", 3), ("country day yy|a@x.example", 1), ("as day 64496", 2)] {
        let text = format!("select level / 1000000 from limit_bucket where bucket = '{bucket}'");
        assert_eq!(number(&store, &text).await, level, "{bucket}");
    }
    let missing = "[[limit]]\nname = 'x'\nkey = ['country']\nunit = 'recipients'\nrate = '3/day'\n";
    let told = Settings::read(&Source::from_text("octroi.toml", missing).unwrap()).unwrap_err().to_string();
    assert_eq!(told, "octroi.toml:3: limit.key: \"country\" needs perimeter.geo.country_db");
    gate.end().await;
}
