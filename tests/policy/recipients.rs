// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients: those that a directory knows pass, others are refused, and a directory that is away stops no mail. Against a real slapd and
//! a real PostgreSQL.

use std::time::{Duration, Instant};

use common::config::Source;
use policyd::config::Settings;
use tests::postgres::Cluster;
use tests::slapd::{ADMIN, PASSWORD, SUFFIX, Slapd};

use crate::gate::{Client, Gate, PATIENCE, number, rcpt, sql, sqlite, store};

const UNKNOWN: &str = "550 5.1.1 There is no such mailbox here";
/// What the issue asks for: nobody waits longer.
const LONGEST: Duration = Duration::from_secs(1);

/// Settings from the text of a configuration, on the store at `url`; nobody is greylisted.
pub fn settings(url: &str, text: &str) -> Settings {
    let text = format!("[store]\nurl = '{url}'\n[greylist]\nmode = 'off'\n[policyd]\njournal_size = '0B'\n{text}");
    Settings::read(&Source::from_text("octroi.toml", &text).unwrap()).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

fn ldap(slapd: &Slapd, options: &str) -> String {
    let url = slapd.url();
    format!(
        "[[directory]]\nname = 'people'\ntype = 'ldap'\nservers = ['{url}']\nbase = '{SUFFIX}'\nbind_dn = '{ADMIN}'\n\
         password = '{PASSWORD}'\ntimeout = '400ms'\n{options}\n"
    )
}

/// The action for a recipient, and how long it took.
pub async fn timed(client: &mut Client, recipient: &str) -> (String, Duration) {
    let asked = Instant::now();
    let action = client.ask(&rcpt("192.0.2.1", "joe@sender.test", recipient)).await.unwrap();
    (action, asked.elapsed())
}

pub async fn action(client: &mut Client, recipient: &str) -> String {
    timed(client, recipient).await.0
}

/// Asks until the answer is as wanted.
pub async fn until(client: &mut Client, recipient: &str, wanted: &str) {
    let mut last = String::new();
    let asking = async {
        while last != wanted {
            last = action(client, recipient).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, asking).await;
    assert!(done.is_ok(), "{recipient}: {last} and never {wanted}");
}

async fn until_page_says(gate: &Gate, words: &str) {
    let reading = async {
        while !gate.get("/metrics").await.contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "the page never said {words}");
}

/// An hour in seconds: what is asked again after a day, and forgotten after ten minutes, is so after two seconds.
const SHORT: &str = "[recipients]\ndomains = ['@example.test']\nkeep_known = '1h'\nrefresh_known = '2s'\nkeep_unknown = '2s'\n\
    alias_domains = { 'alias.test' = 'example.test' }\nwait = '500ms'\n";

#[tokio::test]
async fn a_directory_knows_its_recipients() {
    let slapd = Slapd::start(&["ann@example.test", "star*(x)@example.test", "bob+real@example.test"]);
    let (_folder, url) = sqlite();
    let text = SHORT.replace("['@example.test']", "['@example.test', 'alias.test']");
    let gate = Gate::ready(settings(&url, &(text + &ldap(&slapd, "")))).await;
    let mut client = gate.client().await;
    for (recipient, known) in [
        ("ann@example.test", true),
        ("Ann@Example.TEST", true),
        ("ann+list@example.test", true),
        ("ann@alias.test", true),
        ("bob+real@example.test", true),
        ("bob@example.test", false),
        ("star*(x)@example.test", true),
        ("nobody@example.test", false),
        ("*@example.test", false),
        ("ann)(mail=*@example.test", false),
        ("nobody@alias.test", false),
        ("postmaster@example.test", true),
        ("abuse@example.test", true),
        ("anybody@elsewhere.test", true),
        ("anybody@sub.example.test", true),
    ] {
        let expected = if known { "DUNNO" } else { UNKNOWN };
        assert_eq!(action(&mut client, recipient).await, expected, "{recipient}");
    }
    slapd.remove(&["ann@example.test"]);
    until(&mut client, "ann@example.test", UNKNOWN).await;
    slapd.add(&["ann@example.test"]);
    until(&mut client, "ann@example.test", "DUNNO").await;
    gate.end().await;
}

#[tokio::test]
async fn a_directory_that_is_away_stops_no_mail() {
    let mut slapd = Slapd::start(&["ann@example.test", "bob@example.test", "carl@example.test"]);
    let (_folder, url) = sqlite();
    for (choice, answer) in [("dunno", "DUNNO"), ("defer", "DEFER 4.3.0")] {
        let directory = ldap(&slapd, "").replace("'people'", &format!("'away-{choice}'"));
        let text = format!("{SHORT}on_unavailable = '{choice}'\n{directory}");
        let gate = Gate::ready(settings(&url, &text)).await;
        let mut client = gate.client().await;
        until(&mut client, "ann@example.test", "DUNNO").await;
        until(&mut client, "nobody@example.test", UNKNOWN).await;
        sql(&store(&url).await, "delete from recipients where address <> 'ann@example.test'").await;

        slapd.stop();
        // The scaled-down hour: the known recipient is due to be asked about again, the unknown one is forgotten.
        tokio::time::sleep(Duration::from_millis(3100)).await;
        for round in 0..20 {
            let (said, took) = timed(&mut client, "ann@example.test").await;
            assert!(said == "DUNNO" && took < LONGEST, "{choice} {round}: {said} after {took:?}");
            for recipient in ["bob@example.test", "nobody@example.test"] {
                let (said, took) = timed(&mut client, recipient).await;
                assert!(
                    said.starts_with(answer) && took < LONGEST,
                    "{choice} {round} {recipient}: {said} after {took:?}"
                );
            }
        }
        let page = gate.get("/metrics").await;
        let down = format!("octroi_policyd_directory_up{{directory=\"away-{choice}\"}} 0");
        assert!(page.contains(&down), "{page}");
        slapd.start_again();
        until(&mut client, "nobody@example.test", UNKNOWN).await;
        until(&mut client, "bob@example.test", "DUNNO").await;
        gate.end().await;
    }
}

#[tokio::test]
async fn a_directory_that_hangs_costs_its_time_a_few_times_and_then_nothing() {
    let slapd = Slapd::start(&["ann@example.test", "bob@example.test"]);
    let (_folder, url) = sqlite();
    let gate = Gate::ready(settings(&url, &(SHORT.to_owned() + &ldap(&slapd, "")))).await;
    let mut client = gate.client().await;
    until(&mut client, "ann@example.test", "DUNNO").await;
    slapd.freeze();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut waits = Vec::new();
    for round in 0..30 {
        let (said, took) = timed(&mut client, "ann@example.test").await;
        assert!(
            said == "DUNNO" && took < Duration::from_millis(300),
            "{round}: a known one waits for nobody: {took:?}"
        );
        let (said, took) = timed(&mut client, &format!("nobody{round}@example.test")).await;
        assert!(said == "DUNNO" && took < LONGEST, "{round}: {said} after {took:?}");
        waits.push(took);
    }
    let long = waits.iter().filter(|took| **took > Duration::from_millis(300)).count();
    assert!(long <= 6, "the breaker is open: {waits:?}");
    slapd.thaw();
    until(&mut client, "nobody@example.test", UNKNOWN).await;
    gate.end().await;
}

#[tokio::test]
async fn connections_that_the_server_has_closed_are_made_anew() {
    let mut slapd = Slapd::start(&["ann@example.test", "bob@example.test"]);
    let (_folder, url) = sqlite();
    let gate = Gate::ready(settings(
        &url,
        &(SHORT.to_owned() + &ldap(&slapd, "timeout = '5s'").replacen("timeout = '400ms'\n", "", 1)),
    ))
    .await;
    let mut client = gate.client().await;
    assert_eq!(action(&mut client, "ann@example.test").await, "DUNNO");
    slapd.stop();
    slapd.start_again();
    assert_eq!(action(&mut client, "nobody@example.test").await, UNKNOWN, "at once, no failure in between");
    gate.end().await;
}

#[tokio::test]
async fn another_server_is_asked_and_connections_are_encrypted() {
    let slapd = Slapd::start(&["ann@example.test"]);
    let (_folder, url) = sqlite();
    let ca = slapd.ca_file().display().to_string();
    for (servers, options, works) in [
        (format!("'ldap://127.0.0.1:1', '{}'", slapd.url()), String::new(), true),
        (format!("'{}'", slapd.tls_url()), format!("ca_file = '{ca}'"), true),
        (format!("'{}'", slapd.url()), format!("starttls = true\nca_file = '{ca}'"), true),
        (format!("'{}'", slapd.tls_url()), "ca_file = '/etc/ssl/certs/ca-certificates.crt'".to_owned(), false),
        (format!("'{}'", slapd.url()), "password = 'wrong'".to_owned(), false),
    ] {
        let mut text = ldap(&slapd, &options).replace(&format!("['{}']", slapd.url()), &format!("[{servers}]"));
        if options.contains("password") {
            text = text.replacen(&format!("password = '{PASSWORD}'\n"), "", 1);
        }
        let text = text.replace("timeout = '400ms'", "timeout = '5s'").replace("'people'", "'encrypted'");
        let gate = Gate::ready(settings(&url, &(SHORT.to_owned() + &text))).await;
        let mut client = gate.client().await;
        let expected = if works { UNKNOWN } else { "DUNNO" };
        assert_eq!(action(&mut client, "nobody@example.test").await, expected, "{text}");
        gate.end().await;
    }
}

#[tokio::test]
async fn what_is_known_outlives_daemon_store_and_directory() {
    let mut slapd = Slapd::start(&["ann@example.test", "bob@example.test"]);
    let cluster = Cluster::start();
    let url = cluster.new_database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known");
    let text = format!("{SHORT}on_unavailable = 'defer'\nfile = '{}'\n{}", file.display(), ldap(&slapd, ""));
    let first = Gate::ready(settings(&url, &text)).await;
    assert_eq!(action(&mut first.client().await, "ann@example.test").await, "DUNNO");
    first.end().await;
    assert_eq!(number(&store(&url).await, "select count(*) from recipients").await, 1);

    slapd.stop();
    // Another host, which has no file: the store tells it.
    let other = text.replace("known'", "other'");
    let second = Gate::ready(settings(&url, &other)).await;
    let mut client = second.client().await;
    assert_eq!(action(&mut client, "ann@example.test").await, "DUNNO");
    assert!(action(&mut client, "bob@example.test").await.starts_with("DEFER 4.3.0"));
    second.end().await;

    cluster.stop();
    // The first host again, with its file and nothing else.
    let third = Gate::start(settings(&url, &text)).await;
    let mut client = third.client().await;
    assert_eq!(action(&mut client, "ann@example.test").await, "DUNNO");
    assert!(action(&mut client, "bob@example.test").await.starts_with("DEFER 4.3.0"));
    third.end().await;
}

#[tokio::test]
async fn a_full_copy_refuses_without_asking_and_does_not_shrink_all_at_once() {
    let people: Vec<String> = (0..1200).map(|number| format!("user{number}@example.test")).collect();
    let mut slapd = Slapd::start(&people.iter().map(String::as_str).collect::<Vec<_>>());
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    let folder = tempfile::tempdir().unwrap();
    let directory = ldap(&slapd, "").replace("people'", "copied'");
    let text = |pull: &str, file: &str| {
        let file = folder.path().join(file);
        format!("{SHORT}file = '{}'\n{directory}pull = '{pull}'\n", file.display())
    };
    let (one, two) = (text("1h", "one"), text("1h", "two"));
    let gate = Gate::ready(settings(&url, &one)).await;
    let other = Gate::ready(settings(&url, &two)).await;
    let store = store(&url).await;
    let copied = "octroi_policyd_directory_copy_entries{directory=\"copied\"} 1200";
    until_page_says(&gate, copied).await;
    until_page_says(&other, copied).await;
    slapd.stop();
    let (mut client, mut other_client) = (gate.client().await, other.client().await);
    for recipient in ["user1@example.test", "user1199@example.test"] {
        assert_eq!(action(&mut client, recipient).await, "DUNNO");
    }
    assert_eq!(action(&mut client, "nobody@example.test").await, UNKNOWN);
    until(&mut other_client, "nobody@example.test", UNKNOWN).await;
    assert_eq!(number(&store, "select version from recipient_copies").await, 1, "one host took it for both");
    gate.end().await;
    other.end().await;
    slapd.start_again();

    let url = cluster.new_database().await;
    let gate = Gate::ready(settings(&url, &text("1s", "three").replace("'copied'", "'shrinking'"))).await;
    let mut client = gate.client().await;
    until_page_says(&gate, "octroi_policyd_directory_copy_entries{directory=\"shrinking\"} 1200").await;
    slapd.remove(&people[..400]);
    until_page_says(&gate, "octroi_policyd_directory_copies_total{directory=\"shrinking\",outcome=\"refused\"}").await;
    assert_eq!(action(&mut client, "user1@example.test").await, "DUNNO", "a third gone at once is not believed");
    slapd.add(&people[..399]);
    until(&mut client, "user399@example.test", UNKNOWN).await;
    gate.end().await;
}

#[tokio::test]
async fn a_database_is_asked_with_the_queries_of_the_administrator() {
    let cluster = Cluster::shared();
    let inner = cluster.new_database().await;
    let people = store(&inner).await;
    sql(&people, "create table mailbox (address text primary key, active bool not null)").await;
    sql(
        &people,
        "insert into mailbox values ('ann@example.test', true), ('bob@example.test', false), ('@all.test', true)",
    )
    .await;
    let (_folder, url) = sqlite();
    let text = |options: &str| {
        let domains = SHORT.replace("['@example.test']", "['@example.test', '@all.test']");
        format!("{domains}[[directory]]\nname = 'base'\ntype = 'sql'\nurl = '{inner}'\ntimeout = '5s'\n{options}")
    };
    let query = "query = 'select 1 from mailbox where address = $1 and active'\n";
    let gate = Gate::ready(settings(&url, &text(query))).await;
    let mut client = gate.client().await;
    for (recipient, known) in [
        ("ann@example.test", true),
        ("bob@example.test", false),
        ("x' or '1'='1@example.test", false),
        ("nobody@example.test", false),
    ] {
        let expected = if known { "DUNNO" } else { UNKNOWN };
        assert_eq!(action(&mut client, recipient).await, expected, "{recipient}");
    }
    gate.end().await;

    let broken = "query = 'select 1 from no_such_table where address = $1'\n";
    let gate = Gate::ready(settings(&url, &text(broken))).await;
    assert_eq!(action(&mut gate.client().await, "carl@example.test").await, "DUNNO", "a wrong query refuses nobody");
    gate.end().await;

    let pulled = "pull = '1h'\npull_query = 'select address from mailbox where active'\n";
    let gate = Gate::ready(settings(&url, &text(&format!("{query}{pulled}")))).await;
    until_page_says(&gate, "octroi_policyd_directory_copy_entries{directory=\"base\"} 2").await;
    let mut client = gate.client().await;
    assert_eq!(action(&mut client, "anybody@all.test").await, "DUNNO", "a whole domain");
    assert_eq!(action(&mut client, "dora@example.test").await, UNKNOWN);
    gate.end().await;

    let lite = tempfile::tempdir().unwrap();
    let path = format!("sqlite:{}", lite.path().join("people.db").display());
    let people = store(&path).await;
    sql(&people, "create table mailbox (address text primary key, active integer not null)").await;
    sql(&people, "insert into mailbox values ('ann@example.test', 1)").await;
    let gate = Gate::ready(settings(&url, &text(query).replace(&inner, &path))).await;
    let mut client = gate.client().await;
    assert_eq!(action(&mut client, "ann@example.test").await, "DUNNO");
    assert_eq!(action(&mut client, "emil@example.test").await, UNKNOWN);
    gate.end().await;
}

#[tokio::test]
async fn list_files_are_directories_and_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("relay_recipients");
    std::fs::write(&list, "ann@example.test OK\n").unwrap();
    let (_folder, url) = sqlite();
    let text = format!("{SHORT}[[directory]]\nname = 'list'\ntype = 'file'\nfiles = ['{}']\n", list.display());
    let gate = Gate::ready(settings(&url, &text)).await;
    let mut client = gate.client().await;
    assert_eq!(action(&mut client, "ann@example.test").await, "DUNNO");
    assert_eq!(action(&mut client, "bob@example.test").await, UNKNOWN);
    std::fs::write(&list, "ann@example.test OK\nbob@example.test OK\n").unwrap();
    until(&mut client, "bob@example.test", "DUNNO").await;
    gate.end().await;
}

#[tokio::test]
async fn only_insiders_write_to_protected_recipients() {
    let (_folder, url) = sqlite();
    let text = "[[protected]]\nrecipients = ['all@example.test']\nnetworks = ['192.0.2.0/28']\n\
        [[protected]]\nrecipients = ['board@example.test']\nsenders = ['boss@example.test']\ntext = '5.7.2 For the board'\n";
    let gate = Gate::ready(settings(&url, text)).await;
    let mut client = gate.client().await;
    let refused = "550 5.7.2 Only members of our organisation may write to this address";
    for (address, user, sender, recipient, expected) in [
        ("192.0.2.1", "", "x@y.test", "all@example.test", "DUNNO"),
        ("192.0.2.77", "", "boss@example.test", "all@example.test", refused),
        ("192.0.2.77", "boss", "boss@example.test", "All@example.test", "DUNNO"),
        ("192.0.2.77", "boss", "boss@example.test", "board@example.test", "DUNNO"),
        ("192.0.2.77", "ann", "ann@example.test", "board@example.test", "550 5.7.2 For the board"),
        ("192.0.2.77", "", "boss@example.test", "board@example.test", "550 5.7.2 For the board"),
        ("192.0.2.77", "", "x@y.test", "ann@example.test", "DUNNO"),
    ] {
        let request =
            rcpt(address, sender, recipient).replace("instance=", &format!("sasl_username={user}\ninstance="));
        assert_eq!(client.ask(&request).await.as_deref(), Some(expected), "{address} {user} {sender} {recipient}");
    }
    gate.end().await;
}

#[tokio::test]
async fn the_test_command_asks_directories_and_shows_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("list"), "ann@example.test\n").unwrap();
    let text = format!(
        "[store]\nurl = 'sqlite:{}'\n[greylist]\nmode = 'off'\n[recipients]\ndomains = ['@example.test']\n\
         [[directory]]\nname = 'list'\ntype = 'file'\nfiles = ['{}']\n",
        path("octroi.db").display(),
        path("list").display()
    );
    std::fs::write(path("octroi.toml"), text).unwrap();
    let requests = ["ann@example.test", "bob@example.test"].map(|to| rcpt("192.0.2.1", "joe@sender.test", to)).concat();
    std::fs::write(path("requests"), requests).unwrap();
    store(&format!("sqlite:{}", path("octroi.db").display())).await;
    let mut command = tokio::process::Command::new(tests::daemon::binary("policyd").unwrap());
    let output =
        command.arg("test").arg("--config").args([path("octroi.toml"), path("requests")]).output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("recipients: nothing to say"), "{out}");
    assert!(out.contains("recipients: reject (recipient_unknown): copy"), "{out}");
    assert!(out.contains(&format!("action={UNKNOWN}")), "{out}");
}
