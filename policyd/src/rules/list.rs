// SPDX-License-Identifier: GPL-3.0-or-later
//! The list files that expressions name with `in_list()`: addresses of mail, or clients, hosts and domains, in the formats that the
//! access lists have (docs/lists.md). Each file is loaded once, however many rules name it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use common::config::Mistakes;
use common::lookup::{AddressTable, ClientTable, ListFile};

use super::attribute::Nature;

/// A list, loaded.
#[derive(Debug)]
pub enum List {
    /// Of mail addresses.
    Addresses(AddressTable),
    /// Of networks, hosts and domains.
    Names(ClientTable),
}

impl List {
    fn load(nature: Nature, file: &ListFile) -> Result<Self, Mistakes> {
        let file = std::slice::from_ref(file);
        Ok(match nature {
            Nature::Mail => Self::Addresses(AddressTable::load(file)?),
            Nature::Name => Self::Names(ClientTable::load(file)?),
        })
    }

    /// True when the text is in the list.
    pub fn has_text(&self, text: &str) -> bool {
        match self {
            Self::Addresses(table) => table.find(text).is_some(),
            Self::Names(table) => table.find(None, Some(text)).is_some(),
        }
    }

    /// True when the address is in the list.
    pub fn has_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Addresses(_) => false,
            Self::Names(table) => table.find(Some(address), None).is_some(),
        }
    }

    /// What is odd in it.
    pub fn notices(&self) -> &Mistakes {
        match self {
            Self::Addresses(table) => table.notices(),
            Self::Names(table) => table.notices(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Addresses(table) => table.len(),
            Self::Names(table) => table.len(),
        }
    }

    /// True when it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where lists come from while rules are compiled.
#[derive(Debug, Default)]
pub struct Lists {
    /// False: their names are checked, the files are not opened.
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
    pub fn get(&mut self, nature: Nature, name: &str) -> Result<Arc<List>, String> {
        let file: ListFile = name.parse()?;
        if !file.path.is_absolute() {
            return Err(format!("{name:?} is not the path of a list file, which begins with /"));
        }
        let key = (nature, name.to_owned());
        if let Some(list) = self.loaded.get(&key) {
            return Ok(list.clone());
        }
        let empty = || List::Names(ClientTable::default());
        let list = match self.open {
            true => List::load(nature, &file).unwrap_or_else(|mistakes| {
                self.mistakes.extend(mistakes);
                empty()
            }),
            false => empty(),
        };
        Ok(self.loaded.entry(key).or_insert(Arc::new(list)).clone())
    }

    /// All lists that were loaded.
    pub fn into_loaded(self) -> Vec<Arc<List>> {
        self.loaded.into_values().collect()
    }
}
