// SPDX-License-Identifier: GPL-3.0-or-later
//! What a daemon does at its start with the files of witnesses: of those before it, which died with their daemon or are still at work.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::units::Period;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::{self, Findings};
use crate::identity::Key;
use crate::ledger::{Kind, Ledger};

/// How long a start waits for witnesses to write what they know.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a file.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// The file of an earlier witness.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    keep: Period,
    /// Messages of which this host knows that nobody knows yet.
    open: Vec<Key>,
    /// How many delivered and inspected ones have been taken over, on their way to the store.
    taken: (usize, usize),
    writing: Vec<tokio::sync::oneshot::Receiver<()>>,
    is_over: bool,
}

/// Takes over what earlier witnesses have found. What comes back is still to be followed.
pub async fn recover(folder: &Path, ledger: &Ledger, keep: Period) -> Vec<Leftover> {
    let paths = match files(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "what the last witness has found cannot be read");
            return Vec::new();
        }
    };
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<Leftover> = paths.into_iter().map(|path| Leftover::of(path, keep)).collect();
    for leftover in &mut left {
        while !leftover.take_over(ledger) && Instant::now() < deadline {
            tokio::time::sleep(PAUSES.0).await;
        }
    }
    left.retain(|leftover| !leftover.is_over);
    left
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("witness-")));
    paths.sort();
    Ok(paths)
}

impl Leftover {
    fn of(path: PathBuf, keep: Period) -> Leftover {
        Leftover { path, keep, open: Vec::new(), taken: (0, 0), writing: Vec::new(), is_over: false }
    }

    /// Goes on taking over until the witness has ended and all is in the store; then the file goes.
    pub async fn follow(mut self, ledger: Arc<Ledger>, stop: CancellationToken) {
        while !self.take_over(&ledger) {
            tokio::select! {
                () = tokio::time::sleep(PAUSES.1) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes over what the file says now. True when there is nothing more to come and the file has gone.
    fn take_over(&mut self, ledger: &Ledger) -> bool {
        self.is_over = self.is_over || self.look(ledger);
        self.is_over
    }

    fn look(&mut self, ledger: &Ledger) -> bool {
        let (findings, ended) = match read(&self.path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "what a witness has found cannot be read");
                return true;
            }
        };
        for (id, keys, reply) in findings.delivered.iter().skip(self.taken.0) {
            self.writing.push(ledger.add(Kind::Delivered, keys, id, reply, self.keep));
        }
        for (id, key) in findings.inspected.iter().skip(self.taken.1) {
            self.writing.push(ledger.add(Kind::Crashed, &[*key], id, "", self.keep));
        }
        self.taken = (findings.delivered.len(), findings.inspected.len());
        let open: Vec<Key> = findings.open.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        ledger.open(&self.open, false);
        if !ended {
            ledger.open(&open, true);
            self.open = open;
            return false;
        }
        tell(&findings);
        tokio::spawn(remove_when_written(self.path.clone(), std::mem::take(&mut self.writing)));
        true
    }
}

/// The file is of use until all of it is in the store.
async fn remove_when_written(path: PathBuf, writing: Vec<tokio::sync::oneshot::Receiver<()>>) {
    for written in writing {
        if written.await.is_err() {
            return;
        }
    }
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(file = %path.display(), %error, "not removed; it is read again at the next start");
    }
}

fn tell(findings: &Findings) {
    if *findings == Findings::default() {
        return;
    }
    let ids = |ids: Vec<&str>| ids.join(",");
    tracing::warn!(
        delivered = ids(findings.delivered.iter().map(|(id, ..)| id.as_str()).collect()),
        unknown = ids(findings.open.iter().map(|(id, _)| id.as_str()).collect()),
        inspected = ids(findings.inspected.iter().map(|(id, _)| id.as_str()).collect()),
        "the daemon had crashed; this became of the messages that were here"
    );
}

/// What the file says, and whether its witness has ended.
fn read(path: &Path) -> io::Result<(Findings, bool)> {
    let file = File::options().read(true).append(true).open(path)?;
    let ended = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => return Err(error),
    };
    let text = fs::read(path)?;
    Ok((record::findings(&String::from_utf8_lossy(&text)), ended))
}
