// SPDX-License-Identifier: GPL-3.0-or-later
//! A private folder for engines that take files: numbered names, gone when dropped, with everything that an engine has put into it.
//!
//! No name from a message is ever the name of a file.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sample::Piece;

/// Who may read what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// This user only.
    Us,
    /// The group as well: a daemon of another user, who is in ours.
    Group,
}

/// The folder of one message.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: tempfile::TempDir,
    readers: Readers,
    count: u32,
}

impl Scratch {
    /// Makes one below `place`. Blocks for a moment.
    fn new(place: &Path, readers: Readers) -> io::Result<Scratch> {
        let mode = if readers == Readers::Us { 0o700 } else { 0o750 };
        let folder = tempfile::Builder::new()
            .prefix("octroi-scan-")
            .permissions(Permissions::from_mode(mode))
            .tempdir_in(place)?;
        // The umask has taken away what the group needs.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(mode))?;
        Ok(Scratch { folder, readers, count: 0 })
    }

    /// Writes a piece beside the event loop, into a new folder when there is none yet; the folder and the file.
    pub(super) async fn put(
        scratch: Option<Scratch>,
        place: &Path,
        readers: Readers,
        piece: Arc<Piece>,
    ) -> io::Result<(Scratch, PathBuf)> {
        let place = place.to_owned();
        let work = move || {
            let mut scratch = match scratch {
                Some(scratch) => scratch,
                None => Scratch::new(&place, readers)?,
            };
            let file = scratch.write(&piece)?;
            Ok((scratch, file))
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    fn write(&mut self, piece: &Piece) -> io::Result<PathBuf> {
        self.count += 1;
        let path = self.folder.path().join(format!("part-{:04}", self.count));
        let mode = if self.readers == Readers::Us { 0o600 } else { 0o640 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        for chunk in piece.sample.chunks() {
            file.write_all(chunk)?;
        }
        Ok(path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}
