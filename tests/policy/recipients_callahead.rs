// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients known to the inner mail server: a real Postfix, and one that says whatever a test orders.

use std::time::Duration;

use tests::nexthop::{Act, NextHop, Order, Stage};
use tests::ports::Ports;
use tests::postfix::{Plan, Postfix};

use crate::gate::{Gate, sqlite};
use crate::recipients::{action, settings, timed, until};

const UNKNOWN: &str = "550 5.1.1 There is no such mailbox here";

fn text(hosts: &str, options: &str) -> String {
    format!(
        "[recipients]\ndomains = ['@example.test', '@foreign.test']\nrefresh_known = '1s'\nkeep_unknown = '1s'\n\
         wait = '900ms'\n[[directory]]\nname = 'inner'\ntype = 'callahead'\nhosts = [{hosts}]\n{options}\n"
    )
}

fn say(stage: Stage, reply: &str) -> Order {
    (stage, Act::Say(format!("{reply}\r\n").into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_postfix_tells_whom_it_knows() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let (ports, users) = (Ports::free(), ["ann", "user.name"].map(str::to_owned));
    let inner = [
        ("smtpd_recipient_restrictions", "reject_unauth_destination, reject_unlisted_recipient"),
        ("smtpd_data_restrictions", ""),
        // Nobody is behind it: only what comes before DATA matters here.
        ("smtpd_proxy_options", "speed_adjust"),
    ];
    let plan = Plan {
        directory: directory.path(),
        ports: &ports,
        domain: "example.test",
        users: &users,
        settings: &inner.map(|(name, value)| (name.to_owned(), value.to_owned())),
    };
    let postfix = Postfix::start(&plan).unwrap();
    let (_folder, url) = sqlite();
    let hosts = format!("'127.0.0.1:1', '127.0.0.1:{}'", ports.smtp);
    let gate = Gate::ready(settings(&url, &text(&hosts, "timeout = '9s'"))).await;
    let mut client = gate.client().await;
    for (recipient, expected) in [
        ("ann@example.test", "DUNNO"),
        ("nobody@example.test", UNKNOWN),
        ("user.name+x@example.test", "DUNNO"),
        ("a b@example.test", UNKNOWN),
        // Relay access denied: that is about us.
        ("ann@foreign.test", "DUNNO"),
    ] {
        until(&mut client, recipient, expected).await;
    }
    let log = std::fs::read_to_string(postfix.log()).unwrap();
    assert!(log.contains("from=<> to=<nobody@example.test>"), "{log}");
    assert!(!log.contains("from=<> to=<ann@example.test>"), "a known one leaves no refusal: {log}");
    drop(postfix);
    until(&mut client, "ann@example.test", "DUNNO").await;
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_about_the_recipient_counts() {
    let unknown = "550 5.1.1 no such user";
    let no = "550 5.7.1 not you";
    for (orders, expected) in [
        (vec![say(Stage::Rcpt, unknown)], UNKNOWN),
        (vec![say(Stage::Rcpt, "550-5.1.1 no such user\r\n550 5.1.1 at all")], UNKNOWN),
        (vec![say(Stage::Rcpt, "452 4.2.2 full")], "DEFER"),
        (vec![say(Stage::Rcpt, no)], "DEFER"),
        (vec![say(Stage::Rcpt, "550 no enhanced code and no postmaster")], "DEFER"),
        (vec![say(Stage::Mail, unknown)], "DEFER"),
        (vec![say(Stage::Banner, "554 5.1.1 go away")], "DEFER"),
        (vec![say(Stage::Ehlo, "502 5.5.1 what?")], "DEFER"),
        (vec![say(Stage::Banner, "220")], "DUNNO"),
        (vec![say(Stage::Rcpt, "hello")], "DEFER"),
        (vec![(Stage::Rcpt, Act::SayAndDrop(b"421 4.3.2 closing\r\n".to_vec()))], "DEFER"),
        (vec![(Stage::Rcpt, Act::Drop)], "DEFER"),
        (vec![(Stage::Rcpt, Act::Hang)], "DEFER"),
        (vec![(Stage::Banner, Act::Hang)], "DEFER"),
        (vec![(Stage::Rcpt, Act::Say(vec![b'2'; 20_000]))], "DEFER"),
    ] {
        let hop = NextHop::start(orders.clone()).await;
        let (_folder, url) = sqlite();
        let options = format!("timeout = '600ms'\n{}", "");
        let text =
            text(&format!("'{}'", hop.address()), &options).replace("wait =", "on_unavailable = 'defer'\nwait =");
        let gate = Gate::ready(settings(&url, &text)).await;
        let (said, took) = timed(&mut gate.client().await, "someone@example.test").await;
        assert!(said.starts_with(expected), "{orders:?}: {said}");
        assert!(took < Duration::from_secs(1), "{orders:?}: {took:?}");
        gate.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_anybody_is_believed_and_nothing_remembered() {
    let hop = NextHop::start(Vec::new()).await;
    let (_folder, url) = sqlite();
    let gate = Gate::ready(settings(&url, &text(&format!("'{}'", hop.address()), "timeout = '5s'"))).await;
    let mut client = gate.client().await;
    for number in 0..3 {
        assert_eq!(action(&mut client, &format!("user{number}@example.test")).await, "DUNNO");
    }
    hop.wait("three sessions", |seen| seen.opened == 3 && seen.closed == 3).await;
    gate.end().await;
    let rows = crate::gate::number(&crate::gate::store(&url).await, "select count(*) from recipients").await;
    assert_eq!(rows, 0, "what it says is worth nothing");
}
