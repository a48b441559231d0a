// SPDX-License-Identifier: GPL-3.0-or-later
//! The files of the quarantine: where they are, how one is written so that it is whole or not there, and how it is read again.
//!
//! A file is a gzip of the message as it came (RFC 1952), behind a few fields that name its envelope, so that it can be used without
//! the index: `zcat` shows it. Names are made of the date and our own id, never of anything in the message. Everything here blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::spool::{CHUNK, Message};

/// Behind the name while a file is being written.
const UNFINISHED: &str = "new";
/// The last of the fields that we put before the message.
const LAST_FIELD: &str = "X-Quarantine-ID";

/// The folder of a moment (milliseconds since 1970), below that of the quarantine: `2026/11/22`, UTC.
pub fn folder(at: i64) -> PathBuf {
    let since = Duration::from_millis(u64::try_from(at).unwrap_or_default());
    // Up to the year 9999, behind which the format has no more digits.
    let time = UNIX_EPOCH + since.min(Duration::from_secs(253_402_300_799));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(..10).unwrap_or("1970-01-01").split('-').collect()
}

/// The file of a message, below the folder of the quarantine. None for what is no id of ours.
pub fn name(id: &str, at: i64) -> Option<PathBuf> {
    let ours =
        !id.is_empty() && id.len() <= 32 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    ours.then(|| folder(at).join(format!("{id}.eml.gz")))
}

/// The fields that go before the message: its envelope, and last its id. Values are on one line each.
pub(super) fn fields(id: &str, sender: &str, recipients: &[(String, String)]) -> Vec<u8> {
    let safe = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let mut out = format!("X-Envelope-From: {}\r\n", safe(sender));
    for (_, path) in recipients {
        out.push_str(&format!("X-Envelope-To: {}\r\n", safe(path)));
    }
    out.push_str(&format!("{LAST_FIELD}: {id}\r\n"));
    out.into_bytes()
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes of the file.
    pub(super) stored: u64,
    /// SHA-256 of the message, hexadecimal.
    pub(super) digest: String,
}

/// Writes a message to its file. When this returns, file and folders are on the disk; when it fails, nothing is left.
pub(super) fn write(directory: &Path, name: &Path, fields: &[u8], message: &Message) -> io::Result<Written> {
    let path = directory.join(name);
    let folder = path.parent().ok_or_else(|| io::Error::other("a name without a folder"))?;
    make_folders(folder)?;
    let draft = path.with_extension(UNFINISHED);
    let written = write_draft(&draft, fields, message).and_then(|written| {
        fs::rename(&draft, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(written)
    });
    if written.is_err() {
        // Either may not be there, and the first failure is the one to be told.
        let _ = fs::remove_file(&draft);
        let _ = fs::remove_file(&path);
    }
    written
}

fn write_draft(draft: &Path, fields: &[u8], message: &Message) -> io::Result<Written> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(draft)?;
    let (mut packed, mut digest, mut at) = (GzEncoder::new(file, Compression::new(3)), Sha256::new(), 0);
    packed.write_all(fields)?;
    while at < message.len() {
        let chunk = message.read(at, CHUNK)?;
        packed.write_all(&chunk)?;
        digest.update(&chunk);
        at += chunk.len() as u64;
    }
    let file = packed.finish()?;
    file.sync_all()?;
    Ok(Written { stored: file.metadata()?.len(), digest: hex(&digest.finalize()) })
}

/// Makes the folders that are missing; each is entered in the one above it before anything goes into it.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().ok_or_else(|| io::Error::other("no folder to begin with"))?;
    make_folders(above)?;
    match fs::DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else than was put in.
    #[error("{}: damaged, the message in it is not the one that was put in", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The message out of its file, as it came. `digest`: what it must have.
pub fn read(path: &Path, digest: &str) -> Result<Vec<u8>, FileError> {
    let damaged = || FileError::Damaged { path: path.to_owned() };
    let mut bytes = Vec::new();
    let unpacked = File::open(path).and_then(|file| GzDecoder::new(file).read_to_end(&mut bytes));
    match unpacked {
        Ok(_) => {}
        // What gzip says of a file that was cut or overwritten.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            return Err(damaged());
        }
        Err(source) => return Err(FileError::Read { path: path.to_owned(), source }),
    }
    let begin = message_start(&bytes).ok_or_else(damaged)?;
    bytes.drain(..begin);
    if hex(&Sha256::digest(&bytes)) == digest { Ok(bytes) } else { Err(damaged()) }
}

/// Where the message begins, behind the fields that we put before it.
fn message_start(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = &bytes[at..];
        let end = memchr::memmem::find(line, b"\r\n")? + 2;
        at += end;
        if line.starts_with(LAST_FIELD.as_bytes()) {
            return Some(at);
        }
        if !line.starts_with(b"X-Envelope-") {
            return None;
        }
    }
}

/// Removes a file, and the folders of its date when they are empty now. True when it was there.
pub fn remove(directory: &Path, name: &Path) -> io::Result<bool> {
    let path = directory.join(name);
    let removed = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    for folder in path.ancestors().skip(1).take(3) {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(removed)
}

/// Ids of the files in the folder of one day, and its unfinished files.
pub(super) fn of_day(directory: &Path, at: i64) -> io::Result<(Vec<String>, Vec<PathBuf>)> {
    let (mut ids, mut unfinished) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(directory.join(folder(at))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((ids, unfinished)),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.')) {
            Some((id, "eml.gz")) => ids.push(id.to_owned()),
            Some((_, rest)) if rest.ends_with(UNFINISHED) => unfinished.push(path),
            _ => {}
        }
    }
    Ok((ids, unfinished))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-22.
    const AT: i64 = 1_795_305_600_000;

    fn written(directory: &Path, text: &[u8]) -> (PathBuf, Written) {
        let name = name("1ABC", AT).unwrap();
        let fields = fields("1ABC", "<a@b>\r\nX: y", &[("c@d".into(), "<c@d>".into())]);
        let written = write(directory, &name, &fields, &Message::from_bytes(text.to_vec())).unwrap();
        (name, written)
    }

    #[test]
    fn names_come_from_date_and_id_only() {
        assert_eq!(name("1ABC", AT).unwrap(), Path::new("2026/11/22/1ABC.eml.gz"));
        for id in ["", "../x", "1abc", "A/B", "A.B", "A\0"] {
            assert_eq!(name(id, AT), None, "{id}");
        }
        assert_eq!(folder(i64::MAX), Path::new("9999/12/31"));
        assert_eq!(folder(-1), Path::new("1970/01/01"));
    }

    #[test]
    fn a_message_comes_back_as_it_went_in() {
        let directory = tempfile::tempdir().unwrap();
        let text = b"X-Envelope-To: x\r\nSubject: y\r\n\r\nbody".repeat(10_000);
        let (name, Written { stored, digest }) = written(directory.path(), &text);
        let path = directory.path().join(&name);
        assert_eq!(fs::metadata(&path).unwrap().len(), stored);
        assert_eq!(read(&path, &digest).unwrap(), text);
        let mut whole = String::new();
        GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut whole).unwrap();
        let head =
            "X-Envelope-From: <a@b>??X: y\r\nX-Envelope-To: <c@d>\r\nX-Quarantine-ID: 1ABC\r\nX-Envelope-To: x\r\n";
        assert!(whole.starts_with(head), "{}", &whole[..100]);
        assert_eq!(of_day(directory.path(), AT).unwrap(), (vec!["1ABC".to_owned()], vec![]));
        assert!(remove(directory.path(), &name).unwrap());
        assert!(!remove(directory.path(), &name).unwrap());
        assert!(!directory.path().join("2026").exists(), "empty folders go too");
    }

    #[test]
    fn a_damaged_file_is_called_so() {
        let directory = tempfile::tempdir().unwrap();
        let (name, Written { digest, .. }) = written(directory.path(), b"Subject: x\r\n\r\n");
        let path = directory.path().join(name);
        assert!(matches!(read(&path, "00"), Err(FileError::Damaged { .. })));
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 5, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(read(&path, &digest), Err(FileError::Damaged { .. })), "{cut}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path, &digest), Err(FileError::Read { .. })));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("2026");
        fs::write(&in_the_way, "a file where a folder should be").unwrap();
        let name = name("1ABC", AT).unwrap();
        assert!(write(directory.path(), &name, b"", &Message::from_bytes(b"x".to_vec())).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(text: Vec<u8>) {
            let directory = tempfile::tempdir().unwrap();
            let (name, Written { digest, .. }) = written(directory.path(), &text);
            prop_assert_eq!(read(&directory.path().join(name), &digest).unwrap(), text);
        }
    }
}
