// SPDX-License-Identifier: GPL-3.0-or-later
//! The lists that expressions ask with `in_list()`: of mail addresses, or of clients, hosts and domains. A list is a file, named by its path,
//! or the `[list.NAME]` of the configuration with its files and entries; forms and formats are those of the access lists (docs/lists.md).
//!
//! Each list is loaded once, however many rules name it. Files are read again when they have changed ([`refresh`]), all lists together
//! or none; whoever evaluates sees the list as it is at that moment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use common::config::Mistakes;
use common::lookup::{AddressTable, ClientTable, ListFile};

use super::attribute::Nature;
use crate::config::ListSettings;
use crate::lists::{Refreshed, Stamp};

/// One table of a list.
#[derive(Debug)]
enum Table {
    /// Of mail addresses.
    Addresses(AddressTable),
    /// Of networks, hosts and domains.
    Names(ClientTable),
}

impl Table {
    fn load(nature: Nature, files: &[ListFile]) -> Result<Self, Mistakes> {
        Ok(match nature {
            Nature::Mail => Self::Addresses(AddressTable::load(files)?),
            Nature::Name => Self::Names(ClientTable::load(files)?),
        })
    }

    /// Entries of the configuration; `origin` stands before what is wrong with them.
    fn of_entries(nature: Nature, origin: &str, entries: &[String]) -> (Self, Mistakes) {
        let entries = entries.iter().map(String::as_str);
        match nature {
            Nature::Mail => {
                let (table, wrong) = AddressTable::from_entries(origin, entries);
                (Self::Addresses(table), wrong)
            }
            Nature::Name => {
                let (table, wrong) = ClientTable::from_entries(origin, entries);
                (Self::Names(table), wrong)
            }
        }
    }

    fn has_text(&self, text: &str) -> bool {
        match self {
            Self::Addresses(table) => table.find(text).is_some(),
            Self::Names(table) => table.find(None, Some(text)).is_some(),
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Addresses(_) => false,
            Self::Names(table) => table.find(Some(address), None).is_some(),
        }
    }

    fn notices(&self) -> &Mistakes {
        match self {
            Self::Addresses(table) => table.notices(),
            Self::Names(table) => table.notices(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Addresses(table) => table.len(),
            Self::Names(table) => table.len(),
        }
    }
}

/// The files of a list as they were read.
#[derive(Debug)]
struct Loaded {
    table: Table,
    /// What they looked like before.
    stamps: Vec<Stamp>,
}

/// A list.
#[derive(Debug)]
pub struct List {
    nature: Nature,
    files: Vec<ListFile>,
    entries: Table,
    loaded: ArcSwap<Loaded>,
}

impl List {
    /// True when the text is in the list.
    pub fn has_text(&self, text: &str) -> bool {
        self.entries.has_text(text) || self.loaded.load().table.has_text(text)
    }

    /// True when the address is in the list.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.entries.has_address(address) || self.loaded.load().table.has_address(address)
    }

    /// What is odd in its files.
    pub fn notices(&self) -> Vec<String> {
        self.loaded.load().table.notices().iter().map(ToString::to_string).collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len() + self.loaded.load().table.len()
    }

    /// True when it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn load(&self) -> Result<Loaded, Mistakes> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let stamps = self.stamps();
        Ok(Loaded { table: Table::load(self.nature, &self.files)?, stamps })
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.files.iter().map(Stamp::of).collect()
    }
}

/// Reads the files of those lists again that have changed since they were read, and since `tried`, the last try of this: all of them, or
/// none when something is wrong in one.
pub fn refresh(lists: &[Arc<List>], tried: &mut Option<Vec<Stamp>>) -> Refreshed {
    let now: Vec<Vec<Stamp>> = lists.iter().map(|list| list.stamps()).collect();
    let changed: Vec<&Arc<List>> =
        lists.iter().zip(&now).filter(|(list, now)| list.loaded.load().stamps != **now).map(|(list, _)| list).collect();
    let now = now.concat();
    if changed.is_empty() || tried.as_ref() == Some(&now) {
        return Refreshed::Unchanged;
    }
    *tried = Some(now);
    let mut mistakes = Mistakes::new();
    let read: Vec<Loaded> =
        changed.iter().filter_map(|list| list.load().map_err(|wrong| mistakes.extend(wrong)).ok()).collect();
    if !mistakes.is_empty() {
        return Refreshed::Wrong(mistakes);
    }
    for (list, loaded) in changed.iter().zip(read) {
        list.loaded.store(Arc::new(loaded));
    }
    Refreshed::Changed {
        entries: lists.iter().map(|list| list.len()).sum(),
        notices: changed.iter().flat_map(|list| list.notices()).collect(),
    }
}

/// Where lists come from while rules are compiled.
#[derive(Debug, Default)]
pub struct Lists {
    /// False: their names and entries are checked, the files are not opened.
    open: bool,
    loaded: HashMap<(Nature, String), Arc<List>>,
    /// What is wrong in the files.
    pub mistakes: Mistakes,
}

impl Lists {
    /// Lists whose files are opened, or not.
    pub fn new(open: bool) -> Self {
        Self { open, ..Self::default() }
    }

    /// The list in this file. What is wrong in the file goes to the mistakes; what is wrong with its name is the error.
    pub fn file(&mut self, nature: Nature, name: &str) -> Result<Arc<List>, String> {
        let file: ListFile = name.parse()?;
        if !file.path.is_absolute() {
            return Err(format!("{name:?} is not the path of a list file, which begins with /"));
        }
        self.get(nature, name, &ListSettings { files: vec![file], entries: Vec::new() })
    }

    /// The list with these files and entries. What is wrong in the files goes to the mistakes; what is wrong with the entries is the error.
    pub fn get(&mut self, nature: Nature, name: &str, settings: &ListSettings) -> Result<Arc<List>, String> {
        let key = (nature, name.to_owned());
        if let Some(list) = self.loaded.get(&key) {
            return Ok(list.clone());
        }
        let (entries, wrong) = Table::of_entries(nature, name, &settings.entries);
        if let Some(wrong) = wrong.iter().next() {
            let kind = if nature == Nature::Mail { "addresses" } else { "networks, hosts and domains" };
            return Err(format!("[list.{name}] is used as a list of {kind} here: {}", wrong.message));
        }
        let files = if self.open { settings.files.clone() } else { Vec::new() };
        let nothing = Loaded { table: Table::of_entries(nature, name, &[]).0, stamps: Vec::new() };
        let list = List { nature, files, entries, loaded: ArcSwap::from_pointee(nothing) };
        match list.load() {
            Ok(loaded) => list.loaded.store(Arc::new(loaded)),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
        Ok(self.loaded.entry(key).or_insert(Arc::new(list)).clone())
    }

    /// All lists that were loaded.
    pub fn into_loaded(self) -> Vec<Arc<List>> {
        self.loaded.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(files: &[&std::path::Path], entries: &[&str]) -> ListSettings {
        ListSettings {
            files: files.iter().map(|path| ListFile::from(path.to_path_buf())).collect(),
            entries: entries.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn files_are_followed_all_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "a@example.org\n").unwrap();
        std::fs::write(&two, "192.0.2.0/24\n").unwrap();
        let mut lists = Lists::new(true);
        let senders = lists.get(Nature::Mail, "senders", &settings(&[&one], &["b@example.org"])).unwrap();
        let clients = lists.get(Nature::Name, "clients", &settings(&[&two], &[])).unwrap();
        let lists = [senders.clone(), clients.clone()];
        let mut tried = None;
        assert!(senders.has_text("a@example.org") && senders.has_text("B@example.org") && senders.len() == 2);
        assert!(matches!(refresh(&lists, &mut tried), Refreshed::Unchanged));

        std::fs::write(&one, "longer@example.org\n").unwrap();
        std::fs::write(&two, "192.0.2.0/24\nnot an entry\n").unwrap();
        let Refreshed::Wrong(mistakes) = refresh(&lists, &mut tried) else { panic!("taken") };
        assert!(mistakes.to_string().starts_with(&format!("{}:2: ", two.display())), "{mistakes}");
        assert!(senders.has_text("a@example.org") && !senders.has_text("longer@example.org"), "the old ones stay");
        assert!(matches!(refresh(&lists, &mut tried), Refreshed::Unchanged), "told once");

        std::fs::write(&two, "198.51.100.1\n").unwrap();
        assert!(matches!(refresh(&lists, &mut tried), Refreshed::Changed { entries: 3, .. }));
        assert!(senders.has_text("longer@example.org") && senders.has_text("b@example.org"));
        assert!(clients.has_address([198, 51, 100, 1].into()) && !clients.has_address([192, 0, 2, 1].into()));
    }

    #[test]
    fn entries_must_fit_what_is_looked_for() {
        let mut lists = Lists::new(false);
        let told = lists.get(Nature::Mail, "x", &settings(&[], &["192.0.2.0/24"])).unwrap_err();
        assert!(told.starts_with("[list.x] is used as a list of addresses here: "), "{told}");
        assert!(lists.get(Nature::Name, "x", &settings(&[], &["192.0.2.0/24"])).is_ok());
        assert!(lists.file(Nature::Name, "relative").is_err());
    }
}
