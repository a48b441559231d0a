// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients in list files: one address a line, or the source text of a Postfix table (relay_recipient_maps, postmap(1)), of which the
//! first word counts. `@example.org` stands for every address of the domain.
//!
//! Read anew when they change; what is wrong in them leaves the last good list in force.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use common::config::{Mistake, Mistakes};

use super::address::number;
use super::members::{MOST, Members};

/// By what a changed file is recognised; none for one that is not there.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug)]
struct Loaded {
    members: Members,
    stamps: Vec<Stamp>,
}

/// The list of several files.
#[derive(Debug)]
pub struct FileList {
    paths: Vec<PathBuf>,
    loaded: ArcSwap<Loaded>,
}

impl FileList {
    /// Reads the files as one list. Mistakes name `file:line`.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Mistakes> {
        Ok(Self { paths: paths.to_vec(), loaded: ArcSwap::from_pointee(read(paths)?) })
    }

    /// True when this form of an address is listed.
    pub fn contain(&self, form: &str) -> bool {
        self.loaded.load().members.contain(form)
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.loaded.load().members.len()
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the files again when one has changed since they were read and since `tried`; true when that put a new list in force.
    pub fn refresh(&self, tried: &mut Option<SystemTime>) -> Result<bool, Mistakes> {
        let now: Vec<Stamp> = self.paths.iter().map(|path| stamp(path)).collect();
        let newest = now.iter().flatten().map(|(time, _)| *time).max();
        if now == self.loaded.load().stamps || (tried.is_some() && *tried == newest) {
            return Ok(false);
        }
        *tried = newest;
        self.loaded.store(std::sync::Arc::new(read(&self.paths)?));
        Ok(true)
    }
}

fn stamp(path: &Path) -> Stamp {
    std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len()))).ok()
}

fn read(paths: &[PathBuf]) -> Result<Loaded, Mistakes> {
    let stamps = paths.iter().map(|path| stamp(path)).collect();
    let (mut numbers, mut mistakes) = (Vec::new(), Mistakes::new());
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => {
                parse(&path.display().to_string(), &String::from_utf8_lossy(&bytes), &mut numbers, &mut mistakes)
            }
            Err(error) => mistakes.push(wrong(path.display().to_string(), format!("cannot be read: {error}"))),
        }
    }
    if numbers.len() > MOST {
        let origin = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        mistakes.push(wrong(origin, format!("more than {MOST} recipients")));
    }
    mistakes.into_result(Loaded { members: Members::from_numbers(numbers), stamps })
}

fn parse(name: &str, text: &str, numbers: &mut Vec<u64>, mistakes: &mut Mistakes) {
    for (at, line) in (1u32..).zip(text.lines()) {
        // postmap(1): a line that begins with a blank continues the one before, and of that the first word counts.
        if line.starts_with([' ', '\t', '#']) {
            continue;
        }
        let Some(entry) = line.split_whitespace().next().map(|entry| entry.trim_end_matches(',')) else { continue };
        match key(entry) {
            Ok(key) => numbers.push(number(&key)),
            Err(message) => mistakes.push(wrong(format!("{name}:{at}"), message)),
        }
    }
}

fn key(entry: &str) -> Result<String, String> {
    let domain = entry.rsplit_once('@').map(|(_, domain)| domain);
    match domain {
        Some(domain) if !domain.is_empty() && !domain.contains(['/', '*', ':']) => Ok(entry.to_lowercase()),
        _ => Err(format!("{entry:?} is not an address; write user@example.org, or @example.org for all of a domain")),
    }
}

fn wrong(origin: String, message: String) -> Mistake {
    Mistake { origin, key: String::new(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_postfix_tables_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (list, table) = (folder.path().join("list"), folder.path().join("relay_recipients"));
        std::fs::write(&list, "# ours\nAnn@example.org\n\n@all.example\n").unwrap();
        std::fs::write(&table, "bob@example.org\tOK\ncarl@example.org   x # y\n  continued\n").unwrap();
        let files = FileList::load(&[list.clone(), table]).unwrap();
        assert_eq!(files.len(), 4);
        assert!(
            ["ann@example.org", "bob@example.org", "carl@example.org", "x@all.example"]
                .iter()
                .all(|a| files.contain(a))
        );
        assert!(!files.contain("dora@example.org"));

        let mut tried = None;
        assert_eq!(files.refresh(&mut tried), Ok(false));
        std::fs::write(&list, "dora@example.org\nnobody\n").unwrap();
        let told = files.refresh(&mut tried).unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:2: \"nobody\" is not an address", list.display())), "{told}");
        assert!(files.contain("ann@example.org"), "the last good list stays");
        assert_eq!(files.refresh(&mut tried), Ok(false), "told once");
        std::fs::write(&list, "dora@example.org\n").unwrap();
        // Two writes within one tick of the clock of files look alike but for their length; the length differs here.
        tried = None;
        assert_eq!(files.refresh(&mut tried), Ok(true));
        assert!(files.contain("dora@example.org") && !files.contain("ann@example.org"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let told = FileList::load(&[PathBuf::from("/no/such/list")]).unwrap_err().to_string();
        assert!(told.starts_with("/no/such/list: cannot be read"), "{told}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_safe(text in "\\PC*") {
            parse("f", &text, &mut Vec::new(), &mut Mistakes::new());
        }
    }
}
