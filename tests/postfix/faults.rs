// SPDX-License-Identifier: GPL-3.0-or-later
//! A part is missing, dies, or is told to go while mail is under way: nothing is lost, nothing arrives twice.

use std::time::Duration;

use tests::letters::{Letter, fresh_id};
use tests::mailbox::fields;
use tests::process::Signal;
use tests::sandbox::Options;
use tests::sender::Stage;

use crate::dialog::Dialog;
use crate::{ALICE, FROM, TO_ALICE, copies, deliver, gate, said, settle, tool};

#[tokio::test(flavor = "multi_thread")]
async fn without_clamd_mail_waits_at_its_sender() {
    let mut gate = gate(&Options::for_tests());
    let letter = TO_ALICE.plain("patience", "text\r\n");
    gate.clamd.stop();
    let outcome = deliver(&gate, &letter).await;
    assert_eq!(outcome.stage, Stage::EndOfMessage, "{outcome}");
    assert!(outcome.reply.starts_with("450 4."), "{outcome}");
    assert_eq!(copies(&gate, &letter), 0);
    gate.clamd.start_again();
    let outcome = deliver(&gate, &letter).await;
    assert!(outcome.accepted(), "{outcome}");
    assert_eq!(copies(&gate, &letter), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_clamd_holds_nobody_up() {
    let settings = "[antivirus.clamd]\nscan_timeout = '1s'\nsend_timeout = '1s'\nfailures = 2\npause = '1h'";
    let mut gate = gate(&Options::for_tests().with(settings));
    gate.clamd.freeze();
    for round in 0..4 {
        let letter = TO_ALICE.plain("patience", "text\r\n");
        let started = std::time::Instant::now();
        let outcome = deliver(&gate, &letter).await;
        assert!(outcome.reply.starts_with("450 4."), "{round}: {outcome}");
        // Far below Postfix' own limit of 100 s; once set aside, it is not even asked.
        assert!(started.elapsed() < Duration::from_secs(30), "{round}: {:?}", started.elapsed());
        assert_eq!(copies(&gate, &letter), 0);
    }
    gate.clamd.thaw();
    // A new configuration begins anew.
    gate.contentd.reload().unwrap();
    let letter = TO_ALICE.plain("patience", "text\r\n");
    let outcome = deliver(&gate, &letter).await;
    assert!(outcome.accepted(), "{outcome}");
    assert_eq!(copies(&gate, &letter), 1);
}

/// The beginning of a message on its way; the rest is in [`FINISH`].
async fn begin(dialog: &mut Dialog) -> Letter {
    let id = fresh_id();
    dialog.envelope(FROM, &[ALICE]).await;
    dialog.raw(format!("Message-ID: <{id}>\r\nSubject: x\r\n\r\nThe first half\r\n").as_bytes()).await;
    Letter { id, bytes: Vec::new() }
}

const FINISH: &[u8] = b"The second half\r\n.\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn contentd_killed_inside_a_message() {
    let mut gate = gate(&Options::for_tests());
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    let letter = begin(&mut dialog).await;
    gate.contentd.kill();
    dialog.raw(FINISH).await;
    let reply = dialog.reply().await;
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    assert_eq!(copies(&gate, &letter), 0);
    gate.contentd.start().unwrap();
    let again = Letter { bytes: format!("Message-ID: <{}>\r\n\r\nx\r\n", letter.id).into_bytes(), ..letter };
    assert!(deliver(&gate, &again).await.accepted());
    assert_eq!(copies(&gate, &again), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn contentd_killed_while_a_message_is_scanned() {
    let mut gate = gate(&Options::for_tests());
    // A scanner that does not answer holds the message where it is.
    gate.clamd.freeze();
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    let letter = begin(&mut dialog).await;
    dialog.raw(FINISH).await;
    gate.contentd.kill();
    let reply = dialog.reply().await;
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    gate.clamd.thaw();
    assert_eq!(copies(&gate, &letter), 0);
    gate.contentd.start().unwrap();
    let again = Letter { bytes: format!("Message-ID: <{}>\r\n\r\nx\r\n", letter.id).into_bytes(), ..letter };
    assert!(deliver(&gate, &again).await.accepted());
    assert_eq!(copies(&gate, &again), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_policyd_postfix_goes_on_as_configured() {
    let mut gate = gate(&Options::for_tests().with("[greylist]\nmode = 'strict'\ndelay = '1h'"));
    let letter = TO_ALICE.plain("greylisted", "text\r\n");
    let outcome = deliver(&gate, &letter).await;
    assert_eq!((outcome.stage, &outcome.reply[..4]), (Stage::Rcpt, "450 "), "{outcome}");
    gate.policyd.kill();
    let outcome = deliver(&gate, &letter).await;
    assert!(outcome.accepted(), "{outcome}");
    assert_eq!(copies(&gate, &letter), 1);
    gate.policyd.start().unwrap();
    let outcome = deliver(&gate, &letter).await;
    assert_eq!((outcome.stage, &outcome.reply[..4]), (Stage::Rcpt, "450 "), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_traffic_lose_nothing() {
    let mut gate = gate(&Options::for_tests());
    let server = format!("127.0.0.1:{}", gate.ports.smtp);
    let traffic =
        std::thread::spawn(move || tool("smtp-source", &["-s", "5", "-m", "300", "-f", FROM, "-t", ALICE, &server]));
    let mut reloads = 0;
    while !traffic.is_finished() {
        // Every other time with mistakes in it: then the last good configuration goes on.
        let (delay, size) = if reloads % 2 == 0 { ("5m", "20MB") } else { ("five minutes", "large") };
        gate.change_settings(&format!("[greylist]\ndelay = '{delay}'\n[contentd]\nmax_size = '{size}'")).unwrap();
        gate.policyd.reload().unwrap();
        gate.contentd.reload().unwrap();
        reloads += 1;
    }
    let out = traffic.join().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    assert!(reloads >= 4, "{reloads} reloads are too few to show anything");
    settle(&gate);
    assert_eq!(gate.mailbox("alice").count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn contentd_finishes_what_it_has_begun_when_told_to_stop() {
    let mut gate = gate(&Options::for_tests());
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    let letter = begin(&mut dialog).await;
    gate.contentd.signal(Signal::TERM);
    // It has closed its door before it drains: a new session is turned away by Postfix for now.
    let turned_away = std::time::Instant::now();
    loop {
        let mut other = Dialog::from_outside(gate.ports.smtp, "192.0.2.26").await;
        other.say(&format!("MAIL FROM:<{FROM}>")).await;
        let reply = other.say(&format!("RCPT TO:<{ALICE}>")).await;
        if reply.starts_with("451 4.3.0") {
            break;
        }
        assert!(turned_away.elapsed() < Duration::from_secs(10), "{reply}");
    }
    dialog.raw(FINISH).await;
    let reply = dialog.reply().await;
    assert!(reply.starts_with("250"), "{reply}");
    let status = gate.contentd.wait();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert_eq!(copies(&gate, &letter), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn policyd_stopped_and_started_under_traffic_is_not_noticed() {
    let mut gate = gate(&Options::for_tests());
    let server = format!("127.0.0.1:{}", gate.ports.smtp);
    let traffic =
        std::thread::spawn(move || tool("smtp-source", &["-s", "5", "-m", "200", "-f", FROM, "-t", ALICE, &server]));
    for _ in 0..3 {
        let status = gate.policyd.stop();
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        gate.policyd.start().unwrap();
    }
    let out = traffic.join().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    settle(&gate);
    let messages = gate.mailbox("alice").messages();
    assert_eq!(messages.len(), 200);
    assert!(messages.iter().all(|message| fields(message, "Received").len() == 2));
}
