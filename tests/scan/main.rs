// SPDX-License-Identifier: GPL-3.0-or-later
//! The pipeline with a real clamd, with one that misbehaves on order, and as the command `contentd scan`.
//!
//! All messages are made here. What needs real mail is in `corpus`.

mod archives;
mod bombs;
mod command;
mod engines;
mod fake_clamd;
mod locked;
mod originals;
mod probes;
mod real_clamd;
mod real_icap;

use common::config::Source;
use contentd::config::Settings;
use contentd::envelope::{Client, Envelope, MessageId, Path};
use contentd::findings::{Findings, Outcome};
use contentd::pipeline::Pipeline;
use contentd::spool::Message;
use contentd::unpack::helper::{Helpers, Program};
use contentd::verdict::{Verdict, decide};
use std::time::Duration;
use tests::daemon::binary;
use tests::letters::Correspondents;
use tokio::time::Instant;

/// Far away: no test waits for it.
const LATER: Duration = Duration::from_secs(120);

/// A pipeline with its policy.
struct Inspector {
    pipeline: Pipeline,
    settings: Settings,
}

impl Inspector {
    /// With the built-in defaults and these lines of configuration.
    fn new(lines: &str) -> Inspector {
        let source = Source::from_text("test.toml", lines).expect("good TOML");
        let settings = Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let helpers = Helpers::new(Program::at(binary("contentd").expect("built")), &settings.unpack);
        let pipeline = Pipeline::new(&settings).expect("good settings").with_helpers(Some(helpers));
        Inspector { pipeline, settings }
    }

    /// With a clamd at this address and these lines of its section.
    fn with_clamd(address: &str, lines: &str) -> Inspector {
        Inspector::new(&format!("[antivirus.clamd]\naddress = \"{address}\"\n{lines}\n"))
    }

    async fn inspect(&self, message: &[u8]) -> (Findings, Verdict) {
        self.inspect_until(message, Instant::now() + LATER).await
    }

    async fn inspect_until(&self, message: &[u8], deadline: Instant) -> (Findings, Verdict) {
        let envelope = Envelope::new(MessageId::generate(), Path::from_address("a@sender.test"), Client::default());
        let message = Message::from_bytes(message.to_vec());
        let findings = self.pipeline.inspect_whole(&envelope, &message, deadline).await;
        let verdict = decide(&findings, &self.settings.policy());
        (findings, verdict)
    }

    /// The verdict as `category destiny reason`.
    async fn verdict(&self, message: &[u8]) -> String {
        let (_, verdict) = self.inspect(message).await;
        format!("{} {} {}", verdict.category.word(), verdict.destiny.word(), verdict.reason.word())
    }

    /// What clamd said.
    async fn outcome(&self, message: &[u8]) -> Outcome {
        let (mut findings, _) = self.inspect(message).await;
        assert_eq!(findings.scans.len(), 1, "{findings:?}");
        findings.scans.remove(0).outcome
    }
}

/// Who writes to whom.
const US: Correspondents<'static> = Correspondents { from: "a@sender.test", to: "b@receiver.test" };

/// A plain message of about this size.
fn letter_of(size: usize) -> Vec<u8> {
    let line = "The quick brown fox jumps over the lazy dog and writes a letter home.\r\n";
    let head = "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: long\r\n\r\n";
    [head, &line.repeat(size / line.len() + 1)].concat().into_bytes()
}
