// SPDX-License-Identifier: GPL-3.0-or-later
//! What needs real mail: `make test-corpus CORPUS=DIR`, where DIR holds the archives of the corpus (`mime-dev.tar.zst` ...).
//!
//! Figures are printed and floors asserted. A folder or an archive that is missing is a failed test.

mod archives;
mod end_of_data;
mod messages;
mod spamassassin;
mod spamd;
mod spf;
mod suite;
mod viruses;

use common::config::Source;
use contentd::config::Settings;
use contentd::envelope::{Client, Envelope, MessageId, Path as MailPath};
use contentd::findings::Findings;
use contentd::message::header::mailbox_line;
use contentd::pipeline::Pipeline;
use contentd::spool::Message;
use contentd::unpack::helper::{Helpers, Program};
use contentd::verdict::{Verdict, decide};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tests::daemon::binary;
use tokio::time::Instant;

/// One archive of the corpus, unpacked; removed when dropped.
struct Collection(TempDir);

impl Collection {
    /// Unpacks `name.tar.zst` from the folder that the environment names.
    fn unpack(name: &str) -> Collection {
        let folder =
            std::env::var_os("CORPUS").expect("CORPUS names the folder with the archives: make test-corpus CORPUS=DIR");
        let archive = Path::new(&folder).join(format!("{name}.tar.zst"));
        assert!(archive.is_file(), "{} is missing", archive.display());
        let place = tempfile::Builder::new().prefix("octroi-corpus-").tempdir().expect("a temporary folder");
        let tar = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(place.path()).status();
        assert!(tar.expect("tar is there").success(), "cannot unpack {}", archive.display());
        Collection(place)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// All files below a folder of the collection, sorted.
    fn files(&self, below: &str) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![self.path(below)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the folder is there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

/// A pipeline with its policy.
struct Inspector {
    pipeline: Pipeline,
    settings: Settings,
}

impl Inspector {
    /// With the built-in defaults and these lines of configuration.
    fn new(lines: &str) -> Arc<Inspector> {
        let source = Source::from_text("test.toml", lines).expect("good TOML");
        let settings = Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let helpers = Helpers::new(Program::at(binary("contentd").expect("built")), &settings.unpack);
        let pipeline = Pipeline::new(&settings).expect("good settings").with_helpers(Some(helpers)).with_sha256();
        Arc::new(Inspector { pipeline, settings })
    }

    /// With the defaults, every decoder in this process.
    fn alone() -> Arc<Inspector> {
        let settings = Settings::default();
        Arc::new(Inspector { pipeline: Pipeline::new(&settings).expect("good settings").with_sha256(), settings })
    }

    async fn inspect(&self, message: &[u8]) -> (Findings, Verdict) {
        let envelope = Envelope::new(MessageId::generate(), MailPath::from_address(""), Client::default());
        let message = Message::from_bytes(message[mailbox_line(message)..].to_vec());
        let deadline = Instant::now() + Duration::from_secs(60);
        let findings = self.pipeline.inspect_whole(&envelope, &message, deadline).await;
        let verdict = decide(&findings, &self.settings.policy());
        (findings, verdict)
    }
}
