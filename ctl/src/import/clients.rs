// SPDX-License-Identifier: GPL-3.0-or-later
//! The list file of trusted clients (`--clients-list`), in the form that `client_whitelist` of `[access]` reads.
//!
//! A client that was trusted for all mail is listed. One that was trusted for single senders or domains is listed from a number
//! of them on, since the list knows no senders: it trusts more than the other program did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::record::{Scope, Trusted};

/// Most clients in a list: memory stays bounded whatever is read.
const MOST: usize = 1_000_000;
/// First line of every file that we write, and the only one that we write over.
const MARK: &str = "# Written by octroi import";

/// The clients found so far.
#[derive(Debug)]
pub(super) struct ClientsList {
    path: PathBuf,
    trust_after: u32,
    clients: BTreeMap<IpNet, Votes>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Votes {
    all: bool,
    some: u32,
    entries: u64,
}

impl ClientsList {
    /// A list for `path`, which need not exist; a file of somebody else's is not written over.
    pub(super) fn new(path: &Path, trust_after: u32) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(text) if !text.starts_with(MARK.as_bytes()) => {
                return Err(io::Error::other("exists already, and was not written by octroi import"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { path: path.to_owned(), trust_after, clients: BTreeMap::new() })
    }

    /// Takes one in; false when the list is full.
    pub(super) fn add(&mut self, trusted: &Trusted) -> bool {
        if self.clients.len() >= MOST && !self.clients.contains_key(&trusted.client) {
            return false;
        }
        let votes = self.clients.entry(trusted.client.trunc()).or_default();
        votes.entries += 1;
        match trusted.scope {
            Scope::All => votes.all = true,
            // sqlgrey makes a domain out of two senders.
            Scope::Domain => votes.some = votes.some.saturating_add(2),
            Scope::Sender => votes.some = votes.some.saturating_add(1),
        }
        true
    }

    /// Entries of the clients that are listed, and of the others.
    pub(super) fn counts(&self) -> (u64, u64) {
        let (listed, others): (Vec<_>, Vec<_>) = self.clients.values().partition(|votes| self.lists(votes));
        let sum = |votes: Vec<&Votes>| votes.iter().map(|votes| votes.entries).sum();
        (sum(listed), sum(others))
    }

    fn lists(&self, votes: &Votes) -> bool {
        votes.all || votes.some >= self.trust_after
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
        let mut text = format!("{MARK} {source}: clients that were trusted there; for client_whitelist in [access].\n");
        for (client, votes) in self.clients.iter().filter(|(_, votes)| self.lists(votes)) {
            let whom = if votes.all { "all senders".to_owned() } else { format!("{} senders", votes.some) };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{client} # {whom}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::lookup::ClientTable;

    fn trusted(client: &str, scope: Scope) -> Trusted {
        Trusted { client: client.parse().unwrap(), scope, last: None }
    }

    #[test]
    fn the_list_is_read_as_a_whitelist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        let mut list = ClientsList::new(&path, 3).unwrap();
        for one in [
            trusted("192.0.2.7/32", Scope::All),
            trusted("2001:db8::/64", Scope::Domain),
            trusted("2001:db8::/64", Scope::Sender),
            trusted("203.0.113.0/24", Scope::Domain),
        ] {
            assert!(list.add(&one));
        }
        assert_eq!(list.counts(), (3, 1));
        list.write("sqlgrey").unwrap();
        let table = ClientTable::load(std::slice::from_ref(&path)).unwrap();
        let listed = |ip: &str| table.find(ip.parse().ok(), None).is_some();
        assert!(listed("192.0.2.7") && listed("2001:db8::9") && !listed("203.0.113.7") && !listed("192.0.2.8"));
        let first = std::fs::read(&path).unwrap();
        ClientsList::new(&path, 3).expect("our own file may be written again");
        list.write("sqlgrey").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }

    #[test]
    fn a_list_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        assert!(ClientsList::new(&path, 3).is_err());
    }
}
