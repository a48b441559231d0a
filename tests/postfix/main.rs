// SPDX-License-Identifier: GPL-3.0-or-later
//! Mail through a real Postfix, the real daemons and a real clamd, wired by the pieces in `deploy/postfix/`.
//!
//! What passes, what is refused, and what happens to mail when a part is missing, dies or is told to go. Each test has
//! a gate of its own. Exact protocol cases against fakes are in `tests/policy` and `tests/content`.

mod delivery;
mod dialog;
mod faults;
mod front_door;
mod limits;
mod orders;
mod recipients;
mod refusal;
mod show;
mod storm;
mod tables;
mod wiring;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tests::letters::{Correspondents, Letter};
use tests::process::await_that;
use tests::sandbox::{Options, Sandbox};
use tests::sender::{Outcome, Sender};

const PATIENCE: Duration = Duration::from_secs(60);
const FROM: &str = "mallory@sender.test";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const TO_ALICE: Correspondents<'static> = Correspondents { from: FROM, to: ALICE };

fn gate(options: &Options) -> Sandbox {
    Sandbox::start(options).unwrap_or_else(|trouble| panic!("the sandbox: {trouble}"))
}

/// Hands a letter from outside to the front door.
async fn deliver(gate: &Sandbox, letter: &Letter) -> Outcome {
    Sender::default().deliver(gate.ports.smtp, FROM, &[ALICE], &letter.bytes).await
}

/// How many copies of a letter alice has, once Postfix has nothing left to deliver.
fn copies(gate: &Sandbox, letter: &Letter) -> usize {
    settle(gate);
    gate.mailbox("alice").with(&letter.id).len()
}

/// Waits until Postfix' queue is empty: what has been accepted is then in a mailbox, or lost.
fn settle(gate: &Sandbox) {
    await_that("an empty Postfix queue", PATIENCE, || Ok((gate.postfix.queued()? == 0).then_some(())))
        .unwrap_or_else(|trouble| panic!("{trouble}\n{}", gate.mail_log()));
}

/// Runs one of Debian's mail tools; its output is for the failure message.
fn tool(name: &str, arguments: &[&str]) -> Output {
    // smtp-source is in sbin, which is not in every user's path.
    let program =
        ["/usr/bin", "/usr/sbin"].map(|place| Path::new(place).join(name)).into_iter().find(|path| path.exists());
    let program = program.unwrap_or_else(|| panic!("{name} is not installed"));
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
