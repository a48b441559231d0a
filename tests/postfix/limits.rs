// SPDX-License-Identifier: GPL-3.0-or-later
//! Rate limits at RCPT, DATA and END-OF-MESSAGE of a real Postfix: what is told to come again or refused is charged nothing.

use std::time::{Duration, Instant};

use common::store::{Store, StoreSettings};
use tests::sandbox::{Options, Sandbox};

use crate::dialog::Dialog;
use crate::{ALICE, FROM, PATIENCE, gate};

const LIMITS: &str = "
[greylist]
mode = 'strict'
delay = '1s'
[[limit]]
name = 'recipients'
key = 'client_address'
unit = 'recipients'
rate = '3/day'
[[limit]]
name = 'messages'
key = 'client_address'
unit = 'messages'
rate = '2/day'
[[limit]]
name = 'bytes'
key = 'client_address'
unit = 'bytes'
rate = '5kB/day'
";

fn limited() -> Sandbox {
    let policyd =
        |options: &Options| format!("check_policy_service {{ inet:127.0.0.1:{}, timeout=5s }}", options.ports.policy);
    let options = Options::for_tests().with(LIMITS);
    let asked = policyd(&options);
    gate(
        &options.with_postfix("smtpd_data_restrictions", &asked).with_postfix("smtpd_end_of_data_restrictions", &asked),
    )
}

/// What is charged in a limit for the client.
async fn charged(gate: &Sandbox, limit: &str) -> i64 {
    let url = format!("sqlite:{}", gate.directory().join("octroi.db").display());
    let store = Store::open(&StoreSettings { url, ..StoreSettings::default() }).await.unwrap();
    let Store::Sqlite(pool) = &store else { panic!("the sandbox has SQLite") };
    let text = "select coalesce(max(level), 0) / 1000000 from limit_bucket where bucket like $1";
    let level = sqlx::query_scalar(text).bind(format!("{limit} day %")).fetch_one(pool).await.unwrap();
    store.close().await;
    level
}

/// MAIL and RCPT until greylisting lets it pass; gives how often it was told to come again.
async fn patient_envelope(dialog: &mut Dialog) -> usize {
    let (start, mut deferred) = (Instant::now(), 0);
    begin(dialog).await;
    loop {
        let reply = dialog.say(&format!("RCPT TO:<{ALICE}>")).await;
        if reply.starts_with("250") {
            return deferred;
        }
        assert!(reply.contains("Greylisted"), "{reply}");
        deferred += 1;
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A new transaction.
async fn begin(dialog: &mut Dialog) {
    let reply = dialog.say(&format!("MAIL FROM:<{FROM}>")).await;
    assert!(reply.starts_with("250"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn greylisted_tries_do_not_eat_the_limit_and_refused_mail_is_not_charged() {
    let gate = limited();
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    // Told to come again more often than the limit allows.
    let deferred = patient_envelope(&mut dialog).await;
    assert!(deferred > 3, "{deferred}");
    assert_eq!(charged(&gate, "recipients").await, 1);

    // Refused for its size at the end: a message at DATA, and no byte of it.
    assert!(dialog.say("DATA").await.starts_with("354"));
    let reply = dialog.message(&[b"Subject: large\r\n\r\n".as_slice(), &b"x\r\n".repeat(3000)].concat()).await;
    assert!(reply.starts_with("450 4.7.1") && reply.contains("Limit bytes is reached"), "{reply}");
    assert_eq!((charged(&gate, "messages").await, charged(&gate, "bytes").await), (1, 0));

    // A second message passes every stage.
    assert!(dialog.say("RSET").await.starts_with("250"), "Postfix still knows the envelope of what it refused");
    let rcpt = format!("RCPT TO:<{ALICE}>");
    begin(&mut dialog).await;
    assert!(dialog.say(&rcpt).await.starts_with("250"));
    assert!(dialog.say("DATA").await.starts_with("354"));
    let reply = dialog.message(b"Subject: small\r\n\r\nx\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!((charged(&gate, "recipients").await, charged(&gate, "messages").await), (2, 2));
    let bytes = charged(&gate, "bytes").await;
    assert!((20..5000).contains(&bytes), "{bytes}");

    // The third one is refused at DATA, and then a recipient too many at RCPT.
    begin(&mut dialog).await;
    assert!(dialog.say(&rcpt).await.starts_with("250"));
    let reply = dialog.say("DATA").await;
    assert!(reply.starts_with("450 4.7.1") && reply.contains("Limit messages is reached"), "{reply}");
    assert!(dialog.say("RSET").await.starts_with("250"));
    begin(&mut dialog).await;
    let reply = dialog.say(&rcpt).await;
    assert!(reply.starts_with("450 4.7.1") && reply.contains("Limit recipients is reached"), "{reply}");
    assert_eq!((charged(&gate, "recipients").await, charged(&gate, "messages").await), (3, 2));
    assert_eq!(charged(&gate, "bytes").await, bytes);
}
