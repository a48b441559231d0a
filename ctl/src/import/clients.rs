// SPDX-License-Identifier: GPL-3.0-or-later
//! The list file of clients that an administrator had listed in the other program (`--clients-list`), in the form that
//! `client_whitelist` of `[access]` reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// Most clients in a list: memory stays bounded whatever is read.
const MOST: usize = 100_000;
/// First line of every file that we write, and the only one that we write over.
const MARK: &str = "# Written by octroi import";

/// The clients found so far.
#[derive(Debug)]
pub(super) struct ClientsList {
    path: PathBuf,
    clients: BTreeSet<IpNet>,
}

impl ClientsList {
    /// A list for `path`, which need not exist; a file of somebody else's is not written over.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(text) if !text.starts_with(MARK.as_bytes()) => {
                return Err(io::Error::other("exists already, and was not written by octroi import"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { path: path.to_owned(), clients: BTreeSet::new() })
    }

    /// Takes one in; false when the list is full.
    pub(super) fn add(&mut self, client: IpNet) -> bool {
        let known = self.clients.contains(&client);
        known || (self.clients.len() < MOST && self.clients.insert(client))
    }

    /// Writes the file; a reader sees the old one or the new one.
    pub(super) fn write(&self, source: &str) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = std::fs::File::create(&name)?;
        file.write_all(self.text(source).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&name, &self.path)
    }

    fn text(&self, source: &str) -> String {
        let mut text = format!("{MARK} {source}: clients that were listed there; for client_whitelist in [access].\n");
        for client in &self.clients {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{client}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::lookup::ClientTable;

    #[test]
    fn the_list_is_read_as_a_whitelist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        let mut list = ClientsList::new(&path).unwrap();
        for client in ["192.0.2.7/32", "2001:db8::/64", "192.0.2.7/32"] {
            assert!(list.add(client.parse().unwrap()));
        }
        list.write("gld").unwrap();
        let table = ClientTable::load(std::slice::from_ref(&path)).unwrap();
        let listed = |ip: &str| table.find(ip.parse().ok(), None).is_some();
        assert!(listed("192.0.2.7") && listed("2001:db8::9") && !listed("192.0.2.8"));
        let first = std::fs::read(&path).unwrap();
        ClientsList::new(&path).expect("our own file may be written again");
        list.write("gld").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }

    #[test]
    fn a_list_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        assert!(ClientsList::new(&path).is_err());
    }
}
