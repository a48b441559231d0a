// SPDX-License-Identifier: GPL-3.0-or-later
//! The files of rule folders in the order in which SpamAssassin reads them (Mail::SpamAssassin, "CONFIGURATION FILES"), and by what
//! a change of them is known. Not their content.
//!
//! All `.pre` files come first, then the `.cf` files of each folder, by name, that of the official update channel before others. A folder of
//! sa-update has one `.cf` file for each channel, which includes the files of the channel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The channel whose scores others may change, so it is read first.
const OFFICIAL: &str = "updates_spamassassin_org.cf";
/// Most files of one set.
const MAX_FILES: usize = 10_000;
/// Largest single file.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why rule files cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A folder or a file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// More files than anybody has.
    #[error("more than {MAX_FILES} files")]
    TooMany,
}

/// By what a change of a file is known: its time, size and number; none when it is not there.
type Look = Option<(SystemTime, u64, u64)>;

/// How some files look now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Look)>);

impl Stamp {
    /// Adds a file as it looks now.
    pub fn add(&mut self, path: PathBuf) {
        let look = look(&path);
        self.0.push((path, look));
    }

    /// How many files.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the files of folders, single files, and those that were included look now, when it is not as they did. `named`: how many
    /// of them were not included.
    pub fn change(&self, sources: &[PathBuf], named: usize) -> Option<Stamp> {
        // A folder that cannot be read now has no files.
        let files = files(sources).unwrap_or_default();
        let included = self.0.iter().skip(named).map(|(path, _)| path);
        let now = stamp(files.iter().chain(included));
        (now != *self).then_some(now)
    }
}

/// The files of folders and single files, in the order in which they are read.
pub fn files(sources: &[PathBuf]) -> Result<Vec<PathBuf>, FolderError> {
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for source in sources {
        let kind = fs::metadata(source).map_err(|error| unreadable(source, error))?;
        if kind.is_dir() {
            first.extend(inside(source, "pre")?);
            then.extend(inside(source, "cf")?);
        } else if has_extension(source, "pre") {
            first.push(source.clone());
        } else {
            then.push(source.clone());
        }
        if first.len() + then.len() > MAX_FILES {
            return Err(FolderError::TooMany);
        }
    }
    first.append(&mut then);
    Ok(first)
}

/// The content of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    let read = || {
        let size = fs::metadata(path)?.len();
        if size > MAX_BYTES { Err(io::Error::from(io::ErrorKind::FileTooLarge)) } else { fs::read(path) }
    };
    read().map_err(|error| unreadable(path, error))
}

/// How these files look now.
pub fn stamp<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Stamp {
    Stamp(paths.into_iter().map(|path| (path.clone(), look(path))).collect())
}

fn look(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

fn unreadable(path: &Path, error: io::Error) -> FolderError {
    FolderError::Unreadable { path: path.to_owned(), error }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// The files of a folder with an extension, by name.
fn inside(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, FolderError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect();
        let wanted = |path: &PathBuf| has_extension(path, extension) && path.is_file();
        Ok(entries?.into_iter().filter(wanted).collect())
    };
    let mut paths = list().map_err(|error| unreadable(folder, error))?;
    let place = |path: &PathBuf| (!path.ends_with(OFFICIAL), path.clone());
    paths.sort_by_key(place);
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_spamassassin_s() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["dist/10_b.cf", "dist/20_a.CF", "dist/readme", "site/v310.pre", "site/init.pre", "site/local.cf"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
        }
        for name in ["a_org.cf", OFFICIAL] {
            fs::write(at("dist").join(name), "").unwrap();
        }
        let found = files(&[at("dist"), at("site"), at("dist/readme")]).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let expected = ["init.pre", "v310.pre", OFFICIAL, "10_b.cf", "20_a.CF", "a_org.cf", "local.cf", "readme"];
        assert_eq!(names, expected);
        assert!(matches!(files(&[at("missing")]), Err(FolderError::Unreadable { .. })));
    }

    #[test]
    fn a_new_file_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (first, included) = (folder.path().join("a.cf"), folder.path().join("b.inc"));
        fs::write(&first, "1").unwrap();
        let sources = [folder.path().to_owned()];
        let read = stamp([&first, &included]);
        let is_same = || read.change(&sources, 1).is_none();
        assert!(is_same());
        fs::write(folder.path().join("c.cf"), "").unwrap();
        assert!(!is_same());
        fs::remove_file(folder.path().join("c.cf")).unwrap();
        assert!(is_same());
        fs::write(&included, "").unwrap();
        assert!(!is_same());
        assert!(read.change(&[folder.path().join("missing")], 1).is_some());
    }

    #[test]
    fn changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a.cf"), folder.path().join("b.cf")];
        fs::write(&paths[0], "1").unwrap();
        let before = stamp(&paths);
        assert_eq!(before, stamp(&paths));
        fs::write(&paths[1], "").unwrap();
        let with_second = stamp(&paths);
        assert_ne!(before, with_second);
        fs::write(&paths[0], "22").unwrap();
        assert_ne!(with_second, stamp(&paths));
    }
}
