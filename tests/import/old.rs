// SPDX-License-Identifier: GPL-3.0-or-later
//! The commands around a greylister of somebody else: the import of what it knows, and questions about what was imported.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreSettings};
use policyd::checks::pool::KeyKind;
use policyd::store::greylist::{self, Sighting, Times};
use policyd::triplet::Triplet;
use tests::daemon::binary;
use tests::process::run;

use crate::gate::{Gate, patient, rcpt, strict};

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A store to import into.
pub struct Target {
    folder: tempfile::TempDir,
    url: String,
    /// Lines of section `[greylist]`.
    greylist: String,
}

impl Target {
    /// On a SQLite file of its own.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("octroi.db").display());
        Self { folder, url, greylist: String::new() }
    }

    /// On a database that is there.
    pub fn at(url: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), url: url.to_owned(), greylist: String::new() }
    }

    /// The same with these lines of section `[greylist]`.
    pub fn with(self, greylist: &str) -> Self {
        Self { greylist: greylist.to_owned(), ..self }
    }

    /// A file beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `octroi import`, which must succeed; gives its report.
    pub fn import(&self, arguments: &[&str]) -> String {
        let config = self.path("octroi.toml");
        std::fs::write(&config, format!("[store]\nurl = '{}'\n[greylist]\n{}\n", self.url, self.greylist)).unwrap();
        let mut command = Command::new(binary("octroi").unwrap());
        command.arg("--config").arg(&config).arg("import").args(arguments);
        run("octroi import", &mut command).unwrap()
    }

    /// What policyd learns about a request now.
    pub async fn asked(&self, client: &str, sender: &str, recipient: &str) -> Sighting {
        const DAY: i64 = 86_400_000;
        let store = Store::open(&StoreSettings { url: self.url.clone(), ..StoreSettings::default() }).await.unwrap();
        let triplet = Triplet::new(client.parse().unwrap(), sender, recipient, 24, 64);
        let times = Times { delay: 300_000, retry_window: 3 * DAY, keep_passed: 36 * DAY };
        let sighting = greylist::ask(&store, &triplet, times, None).await.unwrap();
        store.close().await;
        sighting
    }

    /// What a whole policyd on this store answers to one request.
    pub async fn answered(&self, client: &str, sender: &str, recipient: &str) -> String {
        let mut settings = patient(strict(&self.url));
        if self.greylist.contains("postgrey_hashes = true") {
            // Nothing but the sum of its network may know a client.
            settings.greylist.postgrey_hashes = true;
            settings.greylist.key = vec![KeyKind::Network];
        }
        let gate = Gate::ready(settings).await;
        let answer = gate.client().await.ask(&rcpt(client, sender, recipient)).await.expect("an answer");
        gate.end().await;
        answer
    }
}

/// A number of a report.
pub fn count(told: &str, word: &str) -> u64 {
    let line = told.lines().find(|line| line.split_whitespace().next() == Some(word));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {word} in: {told}"))
}
