// SPDX-License-Identifier: GPL-3.0-or-later
//! Orders that policyd gives and contentd carries out, on their way through a real Postfix: the header line that is prepended, what becomes
//! of the message, and that nobody outside can give such an order.

use std::net::Ipv4Addr;
use std::process::Command;

use common::handover::{Note, Peer, Scope, Secret, write};
use common::orders::Order;
use tests::letters::fresh_id;
use tests::mailbox::fields;
use tests::process::await_that;
use tests::sandbox::{Options, SECRET, Sandbox};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::dialog::Dialog;
use crate::{ALICE, BOB, FROM, PATIENCE, gate, settle};

/// Orders by recipient; at DATA those for "".
type Orders = &'static [(&'static str, &'static [&'static str])];

/// A policy server that answers with the header lines of these orders, as policyd does.
async fn policy_server(orders: Orders) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, orders));
        }
    });
    port
}

async fn answer(stream: TcpStream, orders: Orders) {
    let (read, mut write_half) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut request: Vec<(String, String)> = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((name, value)) = line.split_once('=') {
            request.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let action = action(&request, orders);
        if write_half.write_all(format!("action={action}\n\n").as_bytes()).await.is_err() {
            return;
        }
        request.clear();
    }
}

fn action(request: &[(String, String)], orders: Orders) -> String {
    let value = |name: &str| request.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
    let recipient = if value("protocol_state") == "DATA" { "" } else { value("recipient") };
    let Some((_, orders)) = orders.iter().find(|(of, _)| *of == recipient) else { return "DUNNO".to_owned() };
    let orders: Vec<Order> = orders.iter().map(|order| order.parse().unwrap()).collect();
    let peer = Peer { address: value("client_address").parse().ok(), port: value("client_port").parse().unwrap() };
    let note = Note { orders, decision: "0000000007".into(), ..Note::default() };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    format!("PREPEND {}", write(&Secret::parse(SECRET).unwrap(), &note, Scope { peer, recipient, now }))
}

async fn gate_with(orders: Orders) -> Sandbox {
    let port = policy_server(orders).await;
    let ask = format!("check_policy_service inet:127.0.0.1:{port}");
    let options = Options::for_tests()
        .with_postfix("smtpd_recipient_restrictions", &format!("reject_unauth_destination, {ask}"))
        .with_postfix("smtpd_data_restrictions", &ask);
    gate(&options)
}

/// Sends a message with this id on top of `message`; the reply.
async fn send(gate: &Sandbox, to: &[&str], id: &str, message: &str) -> String {
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.77").await;
    dialog.envelope(FROM, to).await;
    dialog.message(format!("Message-ID: <{id}>\r\n{message}").as_bytes()).await
}

fn arrived(gate: &Sandbox, user: &str, id: &str) -> usize {
    settle(gate);
    gate.mailbox(user).with(id).len()
}

/// `octroi quarantine` with the gate's configuration.
fn quarantine(gate: &Sandbox, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(tests::daemon::binary("octroi").unwrap());
    command.arg("--config").arg(gate.directory().join("octroi.toml")).arg("quarantine").args(arguments);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

const TEXT: &str = "Subject: x\r\n\r\ntext\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_redirected_and_copied_and_shows_no_order() {
    let gate = gate_with(&[(ALICE, &["redirect=bob@example.test"]), ("", &["bcc=carol@example.test"])]).await;
    let id = fresh_id();
    let reply = send(&gate, &[ALICE], &id, TEXT).await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!([arrived(&gate, "alice", &id), arrived(&gate, "bob", &id), arrived(&gate, "carol", &id)], [0, 1, 1]);
    for user in ["bob", "carol"] {
        let message = gate.mailbox(user).with(&id).remove(0);
        assert!(fields(&message, "X-Octroi-Order").is_empty(), "{}", String::from_utf8_lossy(&message));
        assert_eq!(fields(&message, "X-Octroi-ID").len(), 1);
    }
    let log = std::fs::read_to_string(gate.contentd.log()).unwrap();
    let line = log.lines().find(|line| line.contains("msg=message")).unwrap();
    assert!(line.contains("orders=\"redirect=bob@example.test,bcc=carol@example.test\""), "{line}");
    assert!(line.contains("policy_id=0000000007") && line.contains("rcpt=alice@example.test"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_message_waits_in_the_hold_queue() {
    let gate = gate_with(&[(ALICE, &["hold"])]).await;
    let id = fresh_id();
    let reply = send(&gate, &[ALICE, BOB], &id, TEXT).await;
    assert!(reply.starts_with("250"), "{reply}");
    let postfix = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).arg("-c").arg(gate.postfix.configuration()).args(arguments).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let queued = postfix("/usr/sbin/postqueue", &["-j"]);
    assert!(queued.contains("\"queue_name\": \"hold\"") && queued.contains(BOB), "{queued}");
    assert_eq!(gate.mailbox("alice").count() + gate.mailbox("bob").count(), 0);
    assert!(gate.mail_log().contains("orig_client=mail.sender.test[192.0.2.77]"), "{}", gate.mail_log());
    postfix("/usr/sbin/postsuper", &["-H", "ALL"]);
    postfix("/usr/sbin/postqueue", &["-f"]);
    gate.mailbox("alice").await_one(&id, PATIENCE).unwrap();
    gate.mailbox("bob").await_one(&id, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_message_is_accepted_and_gone() {
    let gate = gate_with(&[(ALICE, &["discard"])]).await;
    let id = fresh_id();
    let reply = send(&gate, &[ALICE], &id, TEXT).await;
    assert!(reply.starts_with("250 2.0.0 id="), "{reply}");
    assert_eq!(arrived(&gate, "alice", &id), 0);
    let log = || {
        Ok(std::fs::read_to_string(gate.contentd.log()).unwrap_or_default().contains("reason=discarded").then_some(()))
    };
    await_that("the log of the discarded message", PATIENCE, log).unwrap();
    let told = quarantine(&gate, &["list", "--why", "discarded"]);
    assert_eq!(told.lines().count(), 2, "a copy is kept: {told}");
    let kept = told.lines().nth(1).and_then(|line| line.split(' ').next()).unwrap();
    assert!(quarantine(&gate, &["release", kept]).contains("released: 250"));
    assert_eq!(arrived(&gate, "alice", &id), 1, "and can be released");
    let message = gate.mailbox("alice").with(&id).remove(0);
    assert!(fields(&message, "X-Octroi-Order").is_empty() && fields(&message, "X-Quarantine-ID") == [kept]);
    let other = fresh_id();
    assert!(send(&gate, &[BOB], &other, TEXT).await.starts_with("250"));
    assert_eq!(arrived(&gate, "bob", &other), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_refused_where_they_are_not_wanted() {
    let gate = gate_with(&[(ALICE, &["no_attachments"])]).await;
    let attached = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
        Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF-1.4\r\n--b--\r\n";
    let id = fresh_id();
    let reply = send(&gate, &[ALICE], &id, attached).await;
    assert!(reply.starts_with("554 5.7.1 id=") && reply.contains("attachments"), "{reply}");
    assert!(send(&gate, &[ALICE], &id, TEXT).await.starts_with("250"));
    assert!(send(&gate, &[BOB], &id, attached).await.starts_with("250"));
    assert_eq!([arrived(&gate, "alice", &id), arrived(&gate, "bob", &id)], [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gives_orders_and_refused_recipients_give_none() {
    let gate = gate_with(&[("nobody@example.test", &["discard"])]).await;
    let id = fresh_id();
    // As the header of another message was, or what somebody made up.
    let note = Note { orders: vec![Order::Discard], ..Note::default() };
    let scope = Scope { peer: Peer::default(), recipient: "", now: 1_795_324_438 };
    let guessed = write(&Secret::parse("another secret, of 32 characters or more").unwrap(), &note, scope);
    let forged = format!("{guessed}\r\nx-octroi-order: discard\r\n{TEXT}");
    assert!(send(&gate, &[ALICE], &id, &forged).await.starts_with("250"));
    assert_eq!(arrived(&gate, "alice", &id), 1);
    let message = gate.mailbox("alice").with(&id).remove(0);
    assert!(fields(&message, "X-Octroi-Order").is_empty());

    let id = fresh_id();
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.77").await;
    assert!(dialog.say(&format!("MAIL FROM:<{FROM}>")).await.starts_with("250"));
    assert!(dialog.say("RCPT TO:<nobody@example.test>").await.starts_with("550"));
    assert!(dialog.say(&format!("RCPT TO:<{ALICE}>")).await.starts_with("250"));
    assert!(dialog.say("DATA").await.starts_with("354"));
    assert!(dialog.message(format!("Message-ID: <{id}>\r\n{TEXT}").as_bytes()).await.starts_with("250"));
    assert_eq!(arrived(&gate, "alice", &id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_followed_keeps_the_message_with_its_sender() {
    // Nobody listens where held messages go.
    let mut gate = gate_with(&[(ALICE, &["hold"])]).await;
    gate.change_settings("[handover]\nhold = '127.0.0.1:1'").unwrap();
    gate.contentd.kill();
    gate.contentd.start().unwrap();
    let id = fresh_id();
    let reply = send(&gate, &[ALICE], &id, TEXT).await;
    assert!(reply.starts_with("451 4.4.1 id="), "{reply}");
    assert_eq!(arrived(&gate, "alice", &id), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_itself_carries_out_orders_where_no_contentd_is_behind() {
    let rule =
        |name: &str, when: &str, then: &str| format!("[[rule]]\nname = '{name}'\nwhen = \"{when}\"\nthen = [{then}]\n");
    let rules = rule(
        "elsewhere",
        "recipient == 'alice@example.test' && protocol_state == 'RCPT'",
        "'redirect bob@example.test', 'bcc carol@example.test'",
    ) + &rule("drop", "recipient == 'bob@example.test' && protocol_state == 'END-OF-MESSAGE'", "'discard'")
        + &rule("wait", "recipient == 'carol@example.test' && protocol_state == 'DATA'", "'hold'");
    let options = Options::for_tests().with(&format!("[policyd]\norders = 'postfix'\n{rules}"));
    let ask = format!("check_policy_service inet:127.0.0.1:{}", options.ports.policy);
    let options = options
        .with_postfix("smtpd_proxy_filter", "")
        .with_postfix("smtpd_recipient_restrictions", &format!("reject_unauth_destination, {ask}"))
        .with_postfix("smtpd_data_restrictions", &ask)
        .with_postfix("smtpd_end_of_data_restrictions", &ask);
    let gate = gate(&options);
    let moved = fresh_id();
    assert!(send(&gate, &[ALICE], &moved, TEXT).await.starts_with("250"));
    assert_eq!(
        [arrived(&gate, "alice", &moved), arrived(&gate, "bob", &moved), arrived(&gate, "carol", &moved)],
        [0, 1, 0]
    );
    let dropped = fresh_id();
    assert!(send(&gate, &[BOB], &dropped, TEXT).await.starts_with("250"));
    assert_eq!(arrived(&gate, "bob", &dropped), 0);
    let held = fresh_id();
    assert!(send(&gate, &["carol@example.test"], &held, TEXT).await.starts_with("250"));
    let queue =
        Command::new("/usr/sbin/postqueue").arg("-c").arg(gate.postfix.configuration()).arg("-j").output().unwrap();
    let queue = String::from_utf8_lossy(&queue.stdout).into_owned();
    assert!(queue.contains("\"queue_name\": \"hold\"") && queue.contains("carol@example.test"), "{queue}");
    let log = gate.mail_log();
    for told in ["discard: END-OF-MESSAGE", "hold: DATA", "redirect: RCPT", "bcc: DATA"] {
        assert!(log.contains(told), "{told} missing in\n{log}");
    }
    assert!(log.contains("by policyd, id ") && !log.contains("unavailable"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_policyd_is_carried_out() {
    let rule = |name: &str, recipient: &str, then: &str| {
        format!("[[rule]]\nname = '{name}'\nwhen = 'recipient == \"{recipient}\"'\nthen = ['{then}']\n")
    };
    let rules = rule("elsewhere", ALICE, "redirect bob@example.test") + &rule("copy", ALICE, "bcc carol@example.test");
    let gate = gate(&Options::for_tests().with(&rules));
    let id = fresh_id();
    let reply = send(&gate, &[ALICE], &id, TEXT).await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!([arrived(&gate, "alice", &id), arrived(&gate, "bob", &id), arrived(&gate, "carol", &id)], [0, 1, 1]);
}
