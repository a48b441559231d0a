// SPDX-License-Identifier: GPL-3.0-or-later
//! Lists in the configuration that name files, or hold their entries themselves: `["/etc/octroi/domains", "example.org"]`.
//!
//! What begins with `/` and does not end with one is a file; everything else, `/regular expression/` included, is an entry in the form
//! of list files (docs/lists.md).

use common::config::{Mistake, Mistakes};
use common::lookup::{AddressTable, ClientTable, Dialect, ListFile, Match};
use std::net::IpAddr;

/// Addresses or domains.
#[derive(Debug, Default)]
pub struct Addresses {
    files: AddressTable,
    entries: AddressTable,
}

impl Addresses {
    /// Reads the files and takes the entries. `origin` and `key` are where the list stands.
    pub fn load(items: &[String], origin: &str, key: &str) -> Result<Self, Mistakes> {
        let (files, entries) = sorted(items);
        let (entries, wrong) = AddressTable::from_entries(origin, entries.into_iter());
        let mut mistakes = placed(wrong, origin, key);
        let files = AddressTable::load(&files).unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            AddressTable::default()
        });
        mistakes.into_result(Self { files, entries })
    }

    /// Looks up an envelope address.
    pub fn find(&self, address: &str) -> Option<Match<'_>> {
        self.files.find(address).or_else(|| self.entries.find(address))
    }

    /// True when nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.entries.is_empty()
    }
}

/// Clients.
#[derive(Debug, Default)]
pub struct Clients {
    files: ClientTable,
    entries: ClientTable,
}

impl Clients {
    /// Reads the files and takes the entries. `origin` and `key` are where the list stands.
    pub fn load(items: &[String], origin: &str, key: &str) -> Result<Self, Mistakes> {
        let (files, entries) = sorted(items);
        let (entries, wrong) = ClientTable::from_entries(origin, entries.into_iter());
        let mut mistakes = placed(wrong, origin, key);
        let files = ClientTable::load(&files).unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            ClientTable::default()
        });
        mistakes.into_result(Self { files, entries })
    }

    /// Looks up a client; only a confirmed name counts.
    pub fn find(&self, ip: Option<IpAddr>, verified_name: Option<&str>) -> Option<Match<'_>> {
        self.files.find(ip, verified_name).or_else(|| self.entries.find(ip, verified_name))
    }
}

/// Files and entries apart.
pub(crate) fn sorted(items: &[String]) -> (Vec<ListFile>, Vec<&str>) {
    let (mut files, mut entries) = (Vec::new(), Vec::new());
    for item in items {
        match item.parse::<ListFile>() {
            Ok(file) if file.dialect != Dialect::Own => files.push(file),
            Ok(file) if item.starts_with('/') && !(item.len() > 1 && item.ends_with('/')) => files.push(file),
            // Not every text with ":/" in it names a format: 2001:db8::/32.
            _ => entries.push(item.as_str()),
        }
    }
    (files, entries)
}

fn placed(wrong: Mistakes, origin: &str, key: &str) -> Mistakes {
    let mut mistakes = Mistakes::new();
    for mistake in wrong.iter() {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        mistakes.push(Mistake { origin, key, message: mistake.message.clone() });
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_entries_make_one_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("domains");
        std::fs::write(&file, "@file.example\n").unwrap();
        let items = [file.display().to_string(), "@entry.example".to_owned(), "/^x@/".to_owned()];
        let list = Addresses::load(&items, "f:1", "recipients.domains").unwrap();
        for (address, listed) in
            [("a@file.example", true), ("a@entry.example", true), ("x@any.example", true), ("a@any.example", false)]
        {
            assert_eq!(list.find(address).is_some(), listed, "{address}");
        }
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(str::to_owned);
        let clients = Clients::load(&networks, "f:1", "protected.networks").unwrap();
        assert!(clients.find("2001:db8::1".parse().ok(), None).is_some());
    }

    #[test]
    fn mistakes_name_the_key() {
        let told = Addresses::load(&["a b@c".to_owned()], "f:3", "recipients.domains").unwrap_err().to_string();
        assert!(told.starts_with("f:3: recipients.domains: "), "{told}");
        let told = Clients::load(&["/no/such".to_owned()], "f:3", "protected.networks").unwrap_err().to_string();
        assert!(told.starts_with("/no/such: cannot be read"), "{told}");
    }
}
