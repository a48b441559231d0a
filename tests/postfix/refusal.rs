// SPDX-License-Identifier: GPL-3.0-or-later
//! What does not pass, with the answer that the sender gets, and that nothing of it arrives.

use std::time::{Duration, Instant};

use tests::letters::{Letter, eicar, fresh_id, zipped};
use tests::mailbox::fields;
use tests::sandbox::{Options, Sandbox};
use tests::sender::Stage;

use crate::dialog::Dialog;
use crate::{ALICE, BOB, FROM, PATIENCE, TO_ALICE, copies, deliver, gate, settle};

async fn refused(gate: &Sandbox, letter: &Letter, reply: &str) {
    let outcome = deliver(gate, letter).await;
    assert_eq!(outcome.stage, Stage::EndOfMessage, "{outcome}");
    assert!(outcome.reply.starts_with(reply), "{outcome}");
    assert_eq!(copies(gate, letter), 0);
}

fn virus_in_the_text() -> Letter {
    let id = fresh_id();
    let text = format!("Message-ID: <{id}>\r\nSubject: x\r\n\r\n{}\r\n", String::from_utf8(eicar()).unwrap());
    Letter { id, bytes: text.into_bytes() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virus_never_arrives() {
    let gate = gate(&Options::for_tests());
    for letter in [
        virus_in_the_text(),
        TO_ALICE.attached("bare", "photo.txt", eicar()),
        TO_ALICE.attached("zipped", "photos.zip", zipped("photo.txt", &eicar())),
        TO_ALICE.attached("zipped twice", "photos.zip", zipped("inner.zip", &zipped("photo.txt", &eicar()))),
    ] {
        refused(&gate, &letter, "554 5.7.0 ").await;
    }
    assert_eq!(gate.mailbox("alice").count(), 0);
    let log = gate.mail_log();
    assert_eq!(log.lines().filter(|line| line.contains("proxy-reject: END-OF-MESSAGE: 554 5.7.0")).count(), 4, "{log}");
    // The gate still works.
    let clean = TO_ALICE.attached("clean", "photos.zip", zipped("photo.txt", b"hello"));
    assert!(deliver(&gate, &clean).await.accepted());
    assert_eq!(copies(&gate, &clean), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virus_never_arrives_with_speed_adjust() {
    let gate = gate(&Options::for_tests().with_postfix("smtpd_proxy_options", "speed_adjust"));
    refused(&gate, &TO_ALICE.attached("zipped", "photos.zip", zipped("photo.txt", &eicar())), "554 5.7.0 ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_refused() {
    let gate = gate(&Options::for_tests());
    refused(&gate, &TO_ALICE.attached("program", "invoice.exe", b"MZ\x90\0\x03\0\0\0".to_vec()), "554 5.7.0 ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_of_contentd_is_refused() {
    let gate = gate(&Options::for_tests().with("[contentd]\nmax_size = '50kB'"));
    let text = "a line of some forty letters and a few..\r\n".repeat(3000);
    refused(&gate, &TO_ALICE.plain("large", &text), "552 5.3.4 ").await;
    let small = TO_ALICE.plain("small", "text\r\n");
    assert!(deliver(&gate, &small).await.accepted());
    assert_eq!(copies(&gate, &small), 1);
}

/// Offers one message to two recipients: the reply to it, or to the two recipients when not both are accepted.
async fn offer(dialog: &mut Dialog) -> Result<String, [String; 2]> {
    assert!(dialog.say(&format!("MAIL FROM:<{FROM}>")).await.starts_with("250"));
    let first = dialog.say(&format!("RCPT TO:<{ALICE}>")).await;
    let second = dialog.say(&format!("RCPT TO:<{BOB}>")).await;
    if first.starts_with("250") && second.starts_with("250") {
        assert!(dialog.say("DATA").await.starts_with("354"));
        return Ok(dialog.message(b"Subject: patience\r\n\r\nx\r\n").await);
    }
    assert!(dialog.say("RSET").await.starts_with("250"));
    Err([first, second])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_and_then_passes_with_one_header_for_two_recipients() {
    let gate = gate(&Options::for_tests().with("[greylist]\nmode = 'strict'\ndelay = '2s'"));
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    let start = Instant::now();
    let first = offer(&mut dialog).await.expect_err("nobody is known yet");
    assert!(first.iter().all(|reply| reply.starts_with("450 4.")), "{first:?}");
    // A sender that tries again and again gets through when its time has come, and not before.
    let reply = loop {
        match offer(&mut dialog).await {
            Ok(reply) => break reply,
            Err(replies) => assert!(
                replies.iter().all(|reply| reply.starts_with("450 4.") || reply.starts_with("250")),
                "{replies:?}"
            ),
        }
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(reply.starts_with("250"), "{reply}");
    assert!(start.elapsed().as_secs() >= 2);
    settle(&gate);
    for user in ["alice", "bob"] {
        let messages = gate.mailbox(user).messages();
        assert_eq!(messages.len(), 1, "{user}");
        assert_eq!(fields(&messages[0], "X-Greylist").len(), 1, "{}", String::from_utf8_lossy(&messages[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_null_sender_waits_at_data() {
    let gate = gate(&Options::for_tests().with("[greylist]\nmode = 'strict'\ndelay = '1h'"));
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    assert!(dialog.say("MAIL FROM:<>").await.starts_with("250"));
    let reply = dialog.say(&format!("RCPT TO:<{ALICE}>")).await;
    assert!(reply.starts_with("250"), "{reply}");
    let reply = dialog.say("DATA").await;
    assert!(reply.starts_with("450 4.7.1"), "{reply}");
}

/// Straight to contentd, past the front door that would mend the line ends, with a real Postfix as next hop: whatever
/// stands before the dot, one message goes in and one comes out. content.md calls the trick SMTP smuggling.
#[tokio::test(flavor = "multi_thread")]
async fn no_second_message_is_smuggled_past_the_reinjection_door() {
    let gate = gate(&Options::for_tests());
    let ends: [&[u8]; 9] =
        [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"];
    let smuggled =
        b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";
    for (number, end) in ends.iter().enumerate() {
        let mut dialog = Dialog::open(gate.ports.content).await;
        dialog.envelope(FROM, &[ALICE]).await;
        dialog.raw(format!("Subject: end {number}\r\n\r\nfirst").as_bytes()).await;
        dialog.raw(&[end, &smuggled[..], b"\r\n.\r\n"].concat()).await;
        let reply = dialog.reply().await;
        assert!(reply.starts_with("250") || reply.starts_with("55"), "{end:?}: {reply}");
        assert!(dialog.say("QUIT").await.starts_with("221"), "{end:?}");
        settle(&gate);
        let found = gate.mailbox("alice").with(&format!("Subject: end {number}\n")).len();
        assert_eq!(found, usize::from(reply.starts_with("250")), "{end:?}");
    }
    let subjects: Vec<String> =
        gate.mailbox("alice").messages().iter().flat_map(|message| fields(message, "Subject")).collect();
    assert!(subjects.iter().all(|subject| subject != "smuggled"), "{subjects:?}");
}
