// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients through a real Postfix: the refusal is 550 with its own code and text, and known ones get their mail.

use tests::sandbox::Options;

use crate::dialog::Dialog;
use crate::{ALICE, BOB, FROM, TO_ALICE, copies, deliver, gate};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_recipient_is_refused_with_550() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("recipients");
    // Postfix itself knows bob as well.
    std::fs::write(&list, format!("{ALICE}\n")).unwrap();
    let settings = format!(
        "[recipients]\ndomains = ['@example.test']\n[[directory]]\nname = 'list'\ntype = 'file'\nfiles = ['{}']\n\
         [[protected]]\nrecipients = ['carol@example.test']\n",
        list.display()
    );
    let gate = gate(&Options::for_tests().with(&settings));
    let mut dialog = Dialog::from_outside(gate.ports.smtp, "192.0.2.25").await;
    assert!(dialog.say(&format!("MAIL FROM:<{FROM}>")).await.starts_with("250"));
    let reply = dialog.say(&format!("RCPT TO:<{BOB}>")).await;
    assert!(reply.starts_with("550 5.1.1 ") && reply.ends_with("There is no such mailbox here"), "{reply}");
    let reply = dialog.say("RCPT TO:<carol@example.test>").await;
    assert!(reply.starts_with("550 5.7.2 ") && reply.contains("Only members of our organisation"), "{reply}");
    assert!(dialog.say(&format!("RCPT TO:<{ALICE}>")).await.starts_with("250"));
    assert!(dialog.say("RSET").await.starts_with("250"));
    let letter = TO_ALICE.plain("known", "text\r\n");
    assert!(deliver(&gate, &letter).await.accepted());
    assert_eq!(copies(&gate, &letter), 1);
}
