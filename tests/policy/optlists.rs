// SPDX-License-Identifier: GPL-3.0-or-later
//! Lists that the running daemons follow beyond those of access: who wants to be greylisted, from store and files, and clients by the SPF
//! records of their domains.

use std::time::Duration;

use tests::postgres::Cluster;
use tokio::time::Instant;

use crate::gate::{Client, Gate, PATIENCE, patient, rcpt, sql, sqlite, store, strict};
use crate::lists::Admin;
use crate::pool::promises;

promises!(
    the_wish_of_a_recipient_is_in_force_on_every_host,
    an_old_list_table_keeps_its_entries,
    clients_may_be_listed_by_their_domain,
);

/// How soon a change must be in force everywhere.
const SOON: Duration = Duration::from_secs(1);

/// Asks until mail to this recipient is greylisted, or is not any more; gives how long that took.
async fn until(client: &mut Client, ip: &str, recipient: &str, greylisted: bool) -> Duration {
    let since = Instant::now();
    loop {
        let answer = client.ask(&rcpt(ip, "a@example.net", recipient)).await.unwrap();
        if answer.starts_with("DEFER_IF_PERMIT ") == greylisted {
            return since.elapsed();
        }
        assert!(since.elapsed() < PATIENCE, "{ip} {recipient}: greylisted = {greylisted} never came: {answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn the_wish_of_a_recipient_is_in_force_on_every_host(url: &str) {
    let admin = Admin::new(url);
    let mut settings = strict(url);
    settings.greylist.optout = vec![admin.file("out", "files.example\n").into()];
    let (first, second) = (Gate::ready(settings.clone()).await, Gate::ready(settings).await);
    let (mut one, mut two) = (first.client().await, second.client().await);
    let ip = "192.0.2.1";
    until(&mut one, ip, "ann@example.org", true).await;
    until(&mut one, ip, "ann@files.example", false).await;
    let told = admin.done(&["list", "add", "optout", "Example.org", "--comment", "they asked"]).await;
    assert_eq!(told, "optout: 1 new, 0 changed\n");
    let waited =
        tokio::join!(until(&mut one, ip, "ann@example.org", false), until(&mut two, ip, "ann@example.org", false));
    assert!(waited.0 < SOON && waited.1 < SOON, "{waited:?}");
    // The user before the domain, files and store together; nobody else with an opt-in, unless everybody is in it.
    admin.done(&["list", "add", "optin", "ann@example.org", "joe@files.example"]).await;
    until(&mut two, ip, "ann@example.org", true).await;
    until(&mut two, ip, "joe@files.example", true).await;
    until(&mut two, ip, "bob@example.org", false).await;
    until(&mut two, ip, "bob@example.com", false).await;
    admin.done(&["list", "add", "optin", "*"]).await;
    until(&mut two, ip, "bob@example.com", true).await;
    until(&mut two, ip, "bob@example.org", false).await;
    let shown = admin.done(&["list", "show", "optin"]).await;
    assert!(shown.contains("ann@example.org") && shown.contains('*'), "{shown}");
    assert_eq!(admin.done(&["list", "export", "optout"]).await, "example.org # author=ann they asked\n");
    admin.done(&["list", "remove", "optin", "*", "ann@example.org", "joe@files.example"]).await;
    until(&mut one, ip, "ann@example.org", false).await;
    until(&mut one, ip, "bob@example.com", true).await;
    assert_eq!(admin.run(&["list", "add", "recipient_blacklist", "*"]).await.status.code(), Some(65));
    first.end().await;
    second.end().await;
}

/// The schema before these lists, with an entry in it.
async fn an_old_list_table_keeps_its_entries(url: &str) {
    let before = store(url).await;
    sql(&before, "insert into acl (list, entry, comment) values ('client_blacklist', '192.0.2.9', 'old')").await;
    sql(&before, "delete from _sqlx_migrations where version = 7").await;
    sql(&before, "alter table explain drop column delay_ms").await;
    if before.kind() == "PostgreSQL" {
        sql(&before, "alter table acl drop constraint acl_list_check").await;
        sql(&before, "alter table acl add constraint acl_list_check check (list in ('client_blacklist'))").await;
    }
    before.close().await;
    let admin = Admin::new(url);
    assert!(admin.done(&["list", "show"]).await.contains("192.0.2.9"));
    assert_eq!(admin.done(&["list", "add", "optin", "example.org"]).await, "optin: 1 new, 0 changed\n");
    let gate = Gate::ready(strict(url)).await;
    let mut client = gate.client().await;
    until(&mut client, "192.0.2.1", "ann@example.com", false).await;
    // The version is raised as before: a change is seen.
    admin.done(&["list", "remove", "optin", "example.org"]).await;
    until(&mut client, "192.0.2.1", "ann@example.com", true).await;
    gate.end().await;
}

async fn clients_may_be_listed_by_their_domain(url: &str) {
    let admin = Admin::new(url);
    let mut settings = patient(strict(url));
    settings.access.client_whitelist = vec![admin.file("white", "spf:example.com\n").into()];
    let zone = "example.com TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\nsender.example TXT \"v=spf1 include:_s.sender.example ~all\"\n\
        _s.sender.example TXT \"v=spf1 ip4:198.51.100.0/25 ip6:2001:db8::/32 -all\"\n";
    let gate = Gate::ready_with(settings, zone).await;
    let mut client = gate.client().await;
    until(&mut client, "192.0.2.77", "r@example.org", false).await;
    until(&mut client, "198.51.100.7", "r@example.org", true).await;
    admin.done(&["list", "add", "client_whitelist", "spf:Sender.example"]).await;
    until(&mut client, "198.51.100.7", "r@example.org", false).await;
    until(&mut client, "2001:db8::7", "r@example.org", false).await;
    until(&mut client, "198.51.100.200", "r@example.org", true).await;
    admin.done(&["list", "remove", "client_whitelist", "spf:sender.example"]).await;
    until(&mut client, "198.51.100.7", "r@example.org", true).await;
    // The same list of clients that are refused.
    admin.done(&["list", "add", "client_blacklist", "spf:sender.example"]).await;
    let since = Instant::now();
    loop {
        let answer = client.ask(&rcpt("198.51.100.7", "a@example.net", "r@example.org")).await.unwrap();
        if answer.starts_with("REJECT ") {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.end().await;
}
