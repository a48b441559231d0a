// SPDX-License-Identifier: GPL-3.0-or-later
//! What passes, and that it passes once, whole and unchanged.

use std::collections::HashSet;

use tests::letters::fresh_id;
use tests::mailbox::{body, fields};
use tests::sandbox::Options;

use crate::dialog::Dialog;
use crate::{ALICE, FROM, PATIENCE, TO_ALICE, copies, deliver, gate, said, settle, tool};

#[tokio::test(flavor = "multi_thread")]
async fn swaks_delivers() {
    let gate = gate(&Options::for_tests());
    let port = gate.ports.smtp.to_string();
    let id = fresh_id();
    let header = format!("Message-Id: <{id}>");
    let out =
        tool("swaks", &["--server", "127.0.0.1", "--port", &port, "--from", FROM, "--to", ALICE, "--header", &header]);
    assert!(out.status.success(), "{}", said(&out));
    let message = gate.mailbox("alice").await_one(&id, PATIENCE).unwrap();
    assert_eq!(fields(&message, "Return-Path"), [format!("<{FROM}>")]);
    // One of the front door, one of the reinjection door.
    assert_eq!(fields(&message, "Received").len(), 2, "{}", String::from_utf8_lossy(&message));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_messages_over_twenty_connections_arrive_once_each() {
    let gate = gate(&Options::for_tests());
    let server = format!("127.0.0.1:{}", gate.ports.smtp);
    let out = tool("smtp-source", &["-s", "20", "-m", "500", "-l", "4000", "-f", FROM, "-t", ALICE, &server]);
    assert!(out.status.success(), "{}", said(&out));
    settle(&gate);
    let messages = gate.mailbox("alice").messages();
    assert_eq!(messages.len(), 500);
    let ids: HashSet<String> = messages.iter().flat_map(|message| fields(message, "Message-Id")).collect();
    assert_eq!(ids.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reinjection_door_logs_the_real_client() {
    let gate = gate(&Options::for_tests());
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.77").await;
    dialog.envelope(FROM, &[ALICE]).await;
    let reply = dialog.message(b"Subject: x\r\n\r\nbody\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    settle(&gate);
    let log = gate.mail_log();
    let line = log.lines().find(|line| line.contains("/reinject/smtpd[") && line.contains("orig_client="));
    assert!(line.is_some_and(|line| line.contains("orig_client=mail.sender.test[192.0.2.77]")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_mail_and_rcpt_reach_the_second_postfix() {
    let gate = gate(&Options::for_tests());
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    let mail = "MAIL FROM:<carol@example.test> SIZE=200 BODY=8BITMIME RET=HDRS ENVID=QQ314+2B7";
    let rcpt = "RCPT TO:<alice@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2Balias@elsewhere.test";
    assert!(dialog.say(mail).await.starts_with("250"));
    assert!(dialog.say(rcpt).await.starts_with("250"));
    assert!(dialog.say("DATA").await.starts_with("354"));
    let reply = dialog.message(b"Subject: caf\xc3\xa9\r\n\r\ncaf\xe9\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    // The sender asked to be told: the notice can only know these if the second Postfix was given them (RFC 3461).
    let notice = gate.mailbox("carol").await_one("Final-Recipient", PATIENCE).unwrap();
    let notice = String::from_utf8_lossy(&notice).into_owned();
    assert!(notice.contains("Original-Envelope-Id: QQ314+7"), "{notice}");
    assert!(notice.contains("Original-Recipient: rfc822;old+alias@elsewhere.test"), "{notice}");
    let delivered = gate.mailbox("alice").messages();
    assert_eq!(delivered.len(), 1);
    assert_eq!(body(&delivered[0]), b"caf\xe9\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_utf8_pass() {
    let mut options = Options::for_tests();
    options.users.push("jörg".to_owned());
    let gate = gate(&options);
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    assert!(dialog.say("MAIL FROM:<zoë@sender.test> SMTPUTF8 BODY=8BITMIME").await.starts_with("250"));
    assert!(dialog.say("RCPT TO:<jörg@example.test>").await.starts_with("250"));
    assert!(dialog.say("DATA").await.starts_with("354"));
    let reply = dialog.message("From: zoë@sender.test\r\nSubject: größe\r\n\r\nx\r\n".as_bytes()).await;
    assert!(reply.starts_with("250"), "{reply}");
    gate.mailbox("jörg").await_count(1, PATIENCE).unwrap();
    let message = gate.mailbox("jörg").messages().remove(0);
    assert_eq!(fields(&message, "Subject"), ["größe"]);
    let received = fields(&message, "Received");
    assert!(received[0].contains("with UTF8SMTP"), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_message_spilled_to_a_file_arrives_unchanged() {
    let options =
        Options::for_tests().with("[contentd]\nspool_memory = '64kB'").with_postfix("message_size_limit", "50000000");
    let gate = gate(&options);
    let mut text = Vec::new();
    for number in 0..250_000_u32 {
        let noise = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.extend_from_slice(format!("line {number:08} {noise:0>60x}\r\n").as_bytes());
    }
    assert!(text.len() > 15_000_000);
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    dialog.envelope(FROM, &[ALICE]).await;
    let reply = dialog.message(&[b"Subject: big\r\n\r\n", text.as_slice()].concat()).await;
    assert!(reply.starts_with("250"), "{reply}");
    gate.mailbox("alice").await_count(1, PATIENCE).unwrap();
    let delivered = gate.mailbox("alice").messages().remove(0);
    let sent: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'\r').collect();
    assert!(body(&delivered) == sent, "{} bytes sent, {} arrived", sent.len(), body(&delivered).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_dots_arrive_unchanged() {
    let gate = gate(&Options::for_tests());
    let text = ".\r\n..\r\n.x\r\n...\r\n. \r\n\r\n.\r\nend.\r\n.\r\n";
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    dialog.envelope(FROM, &[ALICE]).await;
    let reply = dialog.message(format!("Subject: dots\r\n\r\n{text}").as_bytes()).await;
    assert!(reply.starts_with("250"), "{reply}");
    gate.mailbox("alice").await_count(1, PATIENCE).unwrap();
    let delivered = gate.mailbox("alice").messages().remove(0);
    assert_eq!(String::from_utf8_lossy(body(&delivered)), text.replace('\r', ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_on_one_connection_stay_apart() {
    let gate = gate(&Options::for_tests());
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    for number in 0..5 {
        dialog.envelope(FROM, &[ALICE]).await;
        let reply = dialog.message(format!("Subject: number {number}\r\n\r\nx\r\n").as_bytes()).await;
        assert!(reply.starts_with("250"), "{reply}");
    }
    settle(&gate);
    let mut subjects: Vec<String> =
        gate.mailbox("alice").messages().iter().flat_map(|message| fields(message, "Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, (0..5).map(|number| format!("number {number}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_taken_in_before_it_is_read_passes_as_well() {
    let gate = gate(&Options::for_tests().with_postfix("smtpd_proxy_options", "speed_adjust"));
    let letter = TO_ALICE.plain("speed_adjust", "text\r\n");
    let outcome = deliver(&gate, &letter).await;
    assert!(outcome.accepted(), "{outcome}");
    assert_eq!(copies(&gate, &letter), 1);
}
