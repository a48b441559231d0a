// SPDX-License-Identifier: GPL-3.0-or-later
//! The lists in force: those of the files, those in the store, and the addresses behind the domains that lists of clients name. Each is
//! replaced as a whole while requests go on; a decision takes one state of all ([`Lists::now`]).
//!
//! What an entry means to a request is decided in [`crate::checks`]. [`follow`] keeps files and store up to date, [`records`] the domains.

pub mod follow;
pub mod records;
mod tables;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use common::config::Mistakes;
use common::lookup::{AddressTable, ClientTable, Match};

use self::records::Records;
use self::tables::stamps;
pub use self::tables::{Stamp, Tables};
use crate::config::Settings;
use crate::request::PolicyRequest;

/// The lists of the store, replaced as a whole by whoever follows their changes.
pub type Stored = Arc<ArcSwap<Tables>>;

/// The lists in force.
#[derive(Debug, Default)]
pub struct Lists {
    files: ArcSwap<Tables>,
    stored: Stored,
    records: Arc<Records>,
}

/// What became of a look at the list files.
#[derive(Debug)]
pub enum Refreshed {
    /// They are as they were.
    Unchanged,
    /// They were read again.
    Changed {
        /// Number of entries now.
        entries: usize,
        /// What is odd in them.
        notices: Vec<String>,
    },
    /// They cannot be read as they are now; the old ones stay.
    Wrong(Mistakes),
}

impl Lists {
    /// Reads the files; every mistake in any of them is named with file and line. Those of the store come later.
    pub fn load(settings: &Settings) -> Result<Self, Mistakes> {
        Ok(Self { files: ArcSwap::from_pointee(Tables::from_files(settings)?), ..Self::default() })
    }

    /// Shares with `other` what does not come from the files: after a reload of the configuration it goes on as it was.
    pub fn share_stored(&mut self, other: &Self) {
        self.stored = other.stored.clone();
        self.records = other.records.clone();
    }

    /// Where the lists of the store are put.
    pub fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// The addresses behind domains.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// One state of all lists.
    pub fn now(&self) -> Now<'_> {
        Now { files: self.files.load(), stored: self.stored.load(), records: &self.records }
    }

    /// Reads the files again if one of them has changed since it was read, and since `tried`, the last try of this.
    pub fn refresh(&self, settings: &Settings, tried: &mut Option<Vec<Stamp>>) -> Refreshed {
        let now = stamps(settings);
        if self.files.load().were(&now) || tried.as_ref() == Some(&now) {
            return Refreshed::Unchanged;
        }
        *tried = Some(now);
        match Tables::from_files(settings) {
            Ok(tables) => {
                let refreshed = Refreshed::Changed { entries: tables.len(), notices: tables.notices() };
                self.files.store(Arc::new(tables));
                refreshed
            }
            Err(mistakes) => Refreshed::Wrong(mistakes),
        }
    }

    /// What is odd in list files of other programs, each with file and line.
    pub fn notices(&self) -> Vec<String> {
        self.files.load().notices()
    }

    /// Number of entries in all lists.
    pub fn len(&self) -> usize {
        self.files.load().len() + self.stored.load().len()
    }

    /// True when there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One state of all lists, for one decision.
pub struct Now<'a> {
    files: Guard<Arc<Tables>>,
    stored: Guard<Arc<Tables>>,
    records: &'a Records,
}

/// An entry that matched, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As written.
    pub entry: String,
    /// `file:line`, or the list in the store.
    pub origin: String,
}

impl Found {
    /// In words, for log and trace.
    pub fn fact(&self) -> String {
        format!("{} ({})", self.entry, self.origin)
    }
}

impl From<Match<'_>> for Found {
    fn from(found: Match<'_>) -> Self {
        Self { entry: found.entry.to_owned(), origin: found.origin }
    }
}

impl Now<'_> {
    /// Files, then store.
    pub fn tables(&self) -> [&Tables; 2] {
        [&self.files, &self.stored]
    }

    /// The entry of a list that names the client: its address, its confirmed name, or a domain whose SPF record has its address.
    pub fn client(&self, list: fn(&Tables) -> &ClientTable, request: &PolicyRequest<'_>) -> Option<Found> {
        self.tables().into_iter().map(list).filter(|list| !list.is_empty()).find_map(|list| {
            let found = list.find(request.client_address, request.client_name.as_deref());
            found.or_else(|| self.records.find(list, request.client_address?)).map(Found::from)
        })
    }

    /// The entry of a list that names the recipient, when there is one.
    pub fn recipient(&self, list: fn(&Tables) -> &AddressTable, request: &PolicyRequest<'_>) -> Option<Found> {
        if request.recipient.is_empty() {
            return None;
        }
        self.address(list, &request.recipient)
    }

    /// The entry of a list that names an address.
    pub fn address(&self, list: fn(&Tables) -> &AddressTable, address: &str) -> Option<Found> {
        let lists = self.tables().into_iter().map(list).filter(|list| !list.is_empty());
        lists.into_iter().find_map(|list| list.find(address).map(Found::from))
    }

    /// The delay for a recipient, in milliseconds, if it has one of its own.
    pub fn delay(&self, recipient: &str) -> Option<i64> {
        if recipient.is_empty() {
            return None;
        }
        let named = |lists: &[AddressTable; 2]| lists.iter().any(|list| list.find(recipient).is_some());
        self.files.delays.iter().find(|(lists, _)| named(lists)).map(|(_, delay)| *delay)
    }

    /// True when nothing is in a list.
    pub fn has_none(&self, list: fn(&Tables) -> &AddressTable) -> bool {
        self.tables().into_iter().map(list).all(AddressTable::is_empty)
    }

    /// Whether a recipient wants to be greylisted, by the closest entry of both lists; a tie is an opt-out. None: no entry names it. Of a
    /// recipient that is not known (empty) only what holds for everybody is known.
    pub fn wants_greylist(&self, recipient: &str) -> Option<(bool, Found)> {
        let closest = |list: fn(&Tables) -> &AddressTable| {
            let found = self.tables().into_iter().map(list).filter_map(|list| match recipient.is_empty() {
                true => list.find_everybody(),
                false => list.find_closest(recipient),
            });
            found.reduce(|first, other| if other.0 > first.0 { other } else { first })
        };
        let (optin, optout) = (closest(|tables| &tables.optin), closest(|tables| &tables.optout));
        match (optin, optout) {
            (Some(wants), Some(not)) if wants.0 > not.0 => Some((true, wants.1.into())),
            (_, Some((_, not))) => Some((false, not.into())),
            (Some((_, wants)), None) => Some((true, wants.into())),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::acl::{Entry, List};

    fn lists(entries: &[(List, &str)]) -> Lists {
        let entry = |(list, entry): &(List, &str)| Entry {
            list: *list,
            entry: (*entry).to_owned(),
            comment: String::new(),
            author: String::new(),
            created: 0,
            expires: None,
        };
        let entries: Vec<Entry> = entries.iter().map(entry).collect();
        let (tables, wrong) = Tables::from_entries(entries.iter());
        assert_eq!(wrong.to_string(), "");
        let lists = Lists::default();
        lists.stored().store(Arc::new(tables));
        lists
    }

    #[test]
    fn the_files_of_the_greylist_are_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        let file = |name: &str| folder.path().join(name);
        for name in ["out", "in", "own", "traps"] {
            std::fs::write(file(name), "example.org\n").unwrap();
        }
        settings.greylist.optout = vec![file("out").into()];
        settings.greylist.optin = vec![file("in").into()];
        settings.greylist.own_networks = vec![file("own").into()];
        settings.greylist.traps = vec![file("traps").into()];
        let (lists, mut tried) = (Lists::load(&settings).unwrap(), None);
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Unchanged));
        for (number, name) in ["out", "in", "own", "traps"].into_iter().enumerate() {
            std::fs::write(file(name), "example.org\nexample.com\n").unwrap();
            let refreshed = lists.refresh(&settings, &mut tried);
            assert!(matches!(refreshed, Refreshed::Changed { entries, .. } if entries == 5 + number), "{name}");
        }
    }

    #[test]
    fn the_closest_wish_counts() {
        use List::{Optin, Optout};
        let lists = lists(&[
            (Optout, "*"),
            (Optin, "example.org"),
            (Optout, "sub.example.org"),
            (Optin, "ann@sub.example.org"),
            (Optout, "joe@example.org"),
            (Optin, "joe@example.org"),
            (Optin, "joe+shop@example.org"),
        ]);
        for (recipient, wants, entry) in [
            ("x@example.net", false, "*"),
            ("", false, "*"),
            ("x@example.org", true, "example.org"),
            ("x@a.example.org", true, "example.org"),
            ("x@a.sub.example.org", false, "sub.example.org"),
            ("Ann@sub.example.org", true, "ann@sub.example.org"),
            ("joe@example.org", false, "joe@example.org"),
            ("joe+x@example.org", false, "joe@example.org"),
            ("joe+shop@example.org", true, "joe+shop@example.org"),
        ] {
            let (found, by) = lists.now().wants_greylist(recipient).unwrap();
            assert_eq!((found, by.entry.as_str()), (wants, entry), "{recipient}");
        }
        assert_eq!(Lists::default().now().wants_greylist("x@example.org"), None);
    }
}
