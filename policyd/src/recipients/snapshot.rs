// SPDX-License-Identifier: GPL-3.0-or-later
//! What is known of recipients, on disk: for a host that starts while both the store and the directory are away.
//!
//! A text file, replaced as a whole, with a digest at its end; one that is damaged counts as none. It holds numbers, no addresses.

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::cache::Known;
use super::directory::Copied;
use super::members::Members;

const TITLE: &str = "octroi recipients 1";

/// What the file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Known recipients.
    pub known: Vec<Known>,
    /// Full copies by the key of their directory.
    pub copies: Vec<(String, Copied)>,
}

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
}

impl Snapshot {
    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        for Known { number, checked, expires } in &self.known {
            text.push_str(&format!("k {number:016x} {checked} {expires}\n"));
        }
        for (key, copied) in &self.copies {
            text.push_str(&format!("c {} {} {key}\n", copied.pulled, copied.version));
            for bytes in copied.members.packed().chunks(8) {
                bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
                text.push('\n');
            }
        }
        let digest = digest(&text);
        text.push_str(&digest);
        text
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Option<Self> {
        let (body, _) = text.trim_end_matches('\n').rsplit_once('\n').map(|(body, end)| (body.len() + 1, end))?;
        let body = text.get(..body)?;
        if text.get(body.len()..)? != digest(body) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        let mut snapshot = Self::default();
        let mut numbers: Vec<Vec<u64>> = Vec::new();
        for line in lines {
            let mut words = line.splitn(4, ' ');
            match (words.next()?, words.next(), words.next(), words.next()) {
                ("k", Some(number), Some(checked), Some(expires)) => snapshot.known.push(Known {
                    number: u64::from_str_radix(number, 16).ok()?,
                    checked: checked.parse().ok()?,
                    expires: expires.parse().ok()?,
                }),
                ("c", Some(pulled), Some(version), Some(key)) => {
                    let (pulled, version) = (pulled.parse().ok()?, version.parse().ok()?);
                    let copied = Copied { members: Members::default(), pulled, version };
                    snapshot.copies.push((key.to_owned(), copied));
                    numbers.push(Vec::new());
                }
                (number, None, None, None) => numbers.last_mut()?.push(u64::from_str_radix(number, 16).ok()?),
                _ => return None,
            }
        }
        for ((_, copied), numbers) in snapshot.copies.iter_mut().zip(numbers) {
            copied.members = Members::from_numbers(numbers);
        }
        Some(snapshot)
    }

    /// Reads the file; nothing when there is none. Blocks.
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).ok_or(SnapshotError::Damaged),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(SnapshotError::Damaged),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the file beside the old one and puts it in its place. Blocks.
    pub fn write(&self, path: &Path) -> Result<(), SnapshotError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(self.text().as_bytes())?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("end {hex}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Snapshot {
        let known = (0..50).map(|number| Known { number: number << 40, checked: number, expires: 1000 + number });
        let copied = |pulled| Copied { members: Members::of(["a@b", "c@d"].iter()), pulled, version: 3 };
        let copies = vec![("ad 0123".to_owned(), copied(7)), ("none".to_owned(), Copied::default())];
        Snapshot { known: known.collect(), copies }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known");
        assert_eq!(Snapshot::read(&path).unwrap(), Snapshot::default(), "no file is no mistake");
        full().write(&path).unwrap();
        assert_eq!(Snapshot::read(&path).unwrap(), full());
        Snapshot::default().write(&path).unwrap();
        assert_eq!(Snapshot::read(&path).unwrap(), Snapshot::default());
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let text = full().text();
        for cut in [0, 1, 10, text.len() / 2, text.len() - 1] {
            assert_eq!(Snapshot::parse(&text[..cut]), None, "{cut}");
        }
        assert_eq!(Snapshot::parse(&text.replacen("k 0", "k 1", 1)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_safe(text in "\\PC*") {
            let _ = Snapshot::parse(&text);
            let _ = Snapshot::parse(&format!("{TITLE}\n{text}\n{}", digest(&format!("{TITLE}\n{text}\n"))));
        }
    }
}
