// SPDX-License-Identifier: GPL-3.0-or-later
//! The show: a few letters through the sandbox, each with what must become of it, printed as a table.
//!
//! All come from one correspondence, so that greylisting has its say only once.

use std::time::Duration;

use tests::letters::{Correspondents, Letter, eicar, zipped};
use tests::mailbox;
use tests::process::Trouble;
use tests::sandbox::Sandbox;
use tests::sender::{Outcome, Sender, Stage};

use crate::table;

const CORRESPONDENTS: Correspondents<'static> =
    Correspondents { from: "mallory@sender.test", to: "alice@example.test" };
const RECIPIENT: &str = "alice";
const PATIENCE: Duration = Duration::from_secs(20);
/// The sandbox's greylist delay, and a little.
const DELAY: Duration = Duration::from_millis(3500);

/// What must become of a letter.
#[derive(Debug, Clone, Copy)]
struct Expected {
    stage: Stage,
    /// What the answer begins with.
    reply: &'static str,
    /// Where it is afterwards, for the reader.
    end: &'static str,
}

const GREYLISTED: Expected =
    Expected { stage: Stage::Rcpt, reply: "450 ", end: "with its sender, who tries again later" };
const DELIVERED: Expected = Expected { stage: Stage::EndOfMessage, reply: "250 ", end: "in alice's mailbox" };
const REFUSED: Expected =
    Expected { stage: Stage::EndOfMessage, reply: "554 5.7.0 ", end: "with its sender, who gets it back" };

/// Sends the letters and prints the table; true when each ended as it must.
pub async fn run(sandbox: &Sandbox) -> Result<bool, Trouble> {
    let text = "Have we met? Not yet.\r\n";
    let first = CORRESPONDENTS.plain("A first letter", text);
    let virus = CORRESPONDENTS.attached("A virus", "photos.zip", zipped("photo.jpg.com", &eicar()));
    let program =
        CORRESPONDENTS.attached("A program", "invoice.exe", b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec());

    println!("\n{}", table::head().trim_end());
    let mut good = true;
    good &= step(sandbox, "a letter from somebody new", &first, GREYLISTED).await;
    tokio::time::sleep(DELAY).await;
    good &= step(sandbox, "the same letter, 3 seconds later", &first, DELIVERED).await;
    good &= step(sandbox, "the EICAR test virus inside photos.zip", &virus, REFUSED).await;
    good &= step(sandbox, "invoice.exe, a banned name", &program, REFUSED).await;

    if let Some(message) = sandbox.mailbox(RECIPIENT).with(&first.id).first() {
        println!("\nThe delivered letter, as it lies in the mailbox; + marks what was added on the way:\n");
        println!("{}", marked(message, &first));
    }
    println!("{}", if good { "All as expected.\n" } else { "NOT as expected: see the rows marked WRONG.\n" });
    Ok(good)
}

async fn step(sandbox: &Sandbox, what: &str, letter: &Letter, expected: Expected) -> bool {
    let outcome =
        Sender::default().deliver(sandbox.ports.smtp, CORRESPONDENTS.from, &[CORRESPONDENTS.to], &letter.bytes).await;
    let copies = copies(sandbox, letter, &outcome);
    let wrong = mistake(&outcome, copies, expected);
    let end = match &wrong {
        None => expected.end.to_owned(),
        Some(wrong) => format!("WRONG: {wrong}"),
    };
    let row = [what.to_owned(), outcome.stage.to_string(), outcome.reply, end];
    print!("{}", table::line(&row));
    wrong.is_none()
}

/// How many copies are in the mailbox once Postfix has nothing left to do.
fn copies(sandbox: &Sandbox, letter: &Letter, outcome: &Outcome) -> usize {
    let mailbox = sandbox.mailbox(RECIPIENT);
    if outcome.accepted() {
        // If it does not come, the count says so.
        let _ = mailbox.await_one(&letter.id, PATIENCE);
    }
    mailbox.with(&letter.id).len()
}

fn mistake(outcome: &Outcome, copies: usize, expected: Expected) -> Option<String> {
    if outcome.stage != expected.stage || !outcome.reply.starts_with(expected.reply) {
        return Some(format!("expected {}at {}", expected.reply, expected.stage));
    }
    let wanted = usize::from(outcome.accepted());
    (copies != wanted).then(|| format!("{copies} copies in the mailbox, expected {wanted}"))
}

/// The message with a mark at each header line that its sender did not write.
fn marked(message: &[u8], letter: &Letter) -> String {
    let sent = mailbox::header(&letter.bytes);
    let mark = |line: &str| {
        let mark = if sent.lines().any(|own| own == line) { ' ' } else { '+' };
        format!("  {mark} {line}\n")
    };
    let header: String = mailbox::header(message).lines().map(mark).collect();
    let body = String::from_utf8_lossy(mailbox::body(message)).into_owned();
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    format!("{header}\n{body}")
}
