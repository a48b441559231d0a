// SPDX-License-Identifier: GPL-3.0-or-later
//! The front door as it is shipped: from outside, no false end of data makes a second message, and who talks without listening is sent away.

use tests::mailbox::fields;
use tests::sandbox::{Options, Sandbox};

use crate::dialog::Dialog;
use crate::{ALICE, FROM, gate, settle};

/// Line ends, right and wrong, that may stand on either side of a dot (reference: SMTP smuggling, CVE-2023-51764 and its kin).
const ENDS: [&[u8]; 7] = [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n", b"\r\0\n", b"\0\r\n"];

const SMUGGLED: &[u8] =
    b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";

/// Sends a message with a false end in it; how many replies came until the end of the session, and how many of them were 250.
async fn send(gate: &Sandbox, number: usize, end: &[u8]) -> (usize, usize) {
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    dialog.envelope(FROM, &[ALICE]).await;
    let head = format!("From: {FROM}\r\nSubject: end {number}\r\n\r\nfirst");
    dialog.raw(&[head.as_bytes(), end, SMUGGLED, b"\r\n.\r\nQUIT\r\n"].concat()).await;
    let (mut replies, mut accepted) = (0, 0);
    loop {
        let reply = dialog.reply().await;
        if reply.is_empty() {
            return (replies, accepted);
        }
        replies += 1;
        accepted += usize::from(reply.starts_with("250 2.0.0"));
    }
}

fn subjects(gate: &Sandbox) -> Vec<String> {
    settle(gate);
    gate.mailbox("alice").messages().iter().flat_map(|message| fields(message, "Subject")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_false_end_makes_a_second_message() {
    let gate = gate(&Options::for_tests());
    let mut accepted = 0;
    for (number, (before, after)) in
        ENDS.iter().flat_map(|before| ENDS.iter().map(move |after| (before, after))).enumerate()
    {
        let end = [before, &b"."[..], after].concat();
        if end.windows(5).any(|bytes| bytes == b"\r\n.\r\n") {
            continue;
        }
        let (replies, taken) = send(&gate, number, &end).await;
        assert!(replies <= 2 && taken <= 1, "{end:?}: {replies} replies, {taken} messages");
        accepted += taken;
    }
    let subjects = subjects(&gate);
    assert!(accepted > 30, "{accepted}");
    assert_eq!(subjects.len(), accepted, "{subjects:?}");
    assert!(subjects.iter().all(|subject| subject.starts_with("end ")), "{subjects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_front_door_would_let_one_in() {
    let options = Options::for_tests()
        .with_postfix("smtpd_forbid_bare_newline", "no")
        .with_postfix("smtpd_forbid_unauth_pipelining", "no");
    let gate = gate(&options);
    send(&gate, 1, b"\n.\r\n").await;
    let subjects = subjects(&gate);
    assert!(subjects.iter().any(|subject| subject == "smuggled"), "the test above would see it: {subjects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_listen_is_sent_away() {
    let gate = gate(&Options::for_tests());
    let mut dialog = Dialog::open(gate.ports.smtp).await;
    dialog.raw(b"EHLO bot.sender.test\r\nMAIL FROM:<x@sender.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n").await;
    let mut told = Vec::new();
    loop {
        let reply = dialog.reply().await;
        if reply.is_empty() {
            break;
        }
        told.push(reply);
    }
    assert!(told.iter().any(|reply| reply.starts_with("554 5.5.0")), "{told:?}");
    assert_eq!(subjects(&gate), Vec::<String>::new());
}
