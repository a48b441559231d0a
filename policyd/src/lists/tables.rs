// SPDX-License-Identifier: GPL-3.0-or-later
//! All lists of one source, files or store, loaded.

use std::path::PathBuf;
use std::time::SystemTime;

use common::config::{Mistake, Mistakes};
use common::lookup::{AddressTable, ClientTable, ListFile};

use crate::config::{DelayRule, Settings};
use crate::store::acl::{Entry, List};

/// The lists of one source.
#[derive(Debug, Default)]
pub struct Tables {
    /// Clients whose mail no check of ours stops.
    pub client_whitelist: ClientTable,
    /// Clients that are refused.
    pub client_blacklist: ClientTable,
    /// Senders whose mail is not greylisted.
    pub sender_whitelist: AddressTable,
    /// Senders that are refused.
    pub sender_blacklist: AddressTable,
    /// Recipients whose mail is not greylisted.
    pub recipient_whitelist: AddressTable,
    /// Recipients that are refused.
    pub recipient_blacklist: AddressTable,
    /// Recipients that want to be greylisted.
    pub optin: AddressTable,
    /// Recipients that do not.
    pub optout: AddressTable,
    /// Clients that send our mail; files only.
    pub own_networks: ClientTable,
    /// Recipients that nobody should write to; files only.
    pub traps: AddressTable,
    /// Names that count as those of lines of customers; files only.
    pub dynamic_names: ClientTable,
    /// Names that count as those of mail servers; files only.
    pub server_names: ClientTable,
    /// Other delays, in milliseconds, each for the recipients of two lists: files, and entries of the configuration.
    pub delays: Vec<([AddressTable; 2], i64)>,
    /// What the files looked like before they were read.
    stamps: Vec<Stamp>,
}

impl Tables {
    pub(super) fn from_files(settings: &Settings) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let (access, greylist) = (&settings.access, &settings.greylist);
        let tables = Self {
            stamps: stamps(settings),
            client_whitelist: taken(ClientTable::load(&access.client_whitelist), &mut mistakes),
            client_blacklist: taken(ClientTable::load(&access.client_blacklist), &mut mistakes),
            sender_whitelist: taken(AddressTable::load_senders(&access.sender_whitelist), &mut mistakes),
            sender_blacklist: taken(AddressTable::load(&access.sender_blacklist), &mut mistakes),
            recipient_whitelist: taken(AddressTable::load(&access.recipient_whitelist), &mut mistakes),
            recipient_blacklist: taken(AddressTable::load(&access.recipient_blacklist), &mut mistakes),
            optin: taken(AddressTable::load_recipients(&greylist.optin), &mut mistakes),
            optout: taken(AddressTable::load_recipients(&greylist.optout), &mut mistakes),
            own_networks: taken(ClientTable::load(&greylist.own_networks), &mut mistakes),
            traps: taken(AddressTable::load(&greylist.traps), &mut mistakes),
            dynamic_names: taken(ClientTable::load(&greylist.dynamic_names), &mut mistakes),
            server_names: taken(ClientTable::load(&greylist.server_names), &mut mistakes),
            delays: greylist.delays.iter().map(|rule| delay(rule, &mut mistakes)).collect(),
        };
        mistakes.into_result(tables)
    }

    /// The lists of entries from the store. Wrong entries, which somebody has put there by hand, are left out and told.
    pub fn from_entries<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> (Self, Mistakes) {
        let mut mistakes = Mistakes::new();
        let of = |list: List| entries.clone().filter(move |entry| entry.list == list).map(|entry| entry.entry.as_str());
        let mut clients = |list: List| {
            let (table, wrong) = ClientTable::from_entries(&origin(list), of(list));
            mistakes.extend(wrong);
            table
        };
        let (client_whitelist, client_blacklist) = (clients(List::ClientWhitelist), clients(List::ClientBlacklist));
        let mut addresses = |list: List| {
            let (table, wrong) = match list {
                List::SenderWhitelist => AddressTable::from_sender_entries(&origin(list), of(list)),
                List::Optin | List::Optout => AddressTable::from_recipient_entries(&origin(list), of(list)),
                _ => AddressTable::from_entries(&origin(list), of(list)),
            };
            mistakes.extend(wrong);
            table
        };
        let tables = Self {
            client_whitelist,
            client_blacklist,
            sender_whitelist: addresses(List::SenderWhitelist),
            sender_blacklist: addresses(List::SenderBlacklist),
            recipient_whitelist: addresses(List::RecipientWhitelist),
            recipient_blacklist: addresses(List::RecipientBlacklist),
            optin: addresses(List::Optin),
            optout: addresses(List::Optout),
            ..Self::default()
        };
        (tables, mistakes)
    }

    pub(super) fn clients(&self) -> [&ClientTable; 5] {
        let names = [&self.dynamic_names, &self.server_names];
        [&self.client_whitelist, &self.client_blacklist, &self.own_networks, names[0], names[1]]
    }

    fn addresses(&self) -> [&AddressTable; 7] {
        let access =
            [&self.sender_whitelist, &self.sender_blacklist, &self.recipient_whitelist, &self.recipient_blacklist];
        let [a, b, c, d] = access;
        [a, b, c, d, &self.optin, &self.optout, &self.traps]
    }

    /// Number of entries in all lists.
    pub fn len(&self) -> usize {
        let clients = self.clients().map(ClientTable::len).into_iter();
        clients.chain(self.addresses().map(AddressTable::len)).sum()
    }

    /// True when there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn notices(&self) -> Vec<String> {
        let clients = self.clients().map(ClientTable::notices).into_iter();
        clients
            .chain(self.addresses().map(AddressTable::notices))
            .flat_map(Mistakes::iter)
            .map(Mistake::to_string)
            .collect()
    }

    /// True when the files looked like this before they were read.
    pub(super) fn were(&self, stamps: &[Stamp]) -> bool {
        self.stamps == stamps
    }
}

/// What a match in the store names as its place.
fn origin(list: List) -> String {
    format!("store:{}", list.word())
}

fn delay(rule: &DelayRule, mistakes: &mut Mistakes) -> ([AddressTable; 2], i64) {
    let files: Vec<ListFile> = rule.files().cloned().collect();
    let (entries, wrong) = AddressTable::from_entries("greylist.delays", rule.entries());
    mistakes.extend(wrong);
    ([taken(AddressTable::load(&files), mistakes), entries], rule.delay.as_millis())
}

fn taken<T: Default>(loaded: Result<T, Mistakes>, mistakes: &mut Mistakes) -> T {
    loaded.unwrap_or_else(|found| {
        mistakes.extend(found);
        T::default()
    })
}

/// By what a changed file is recognised: its time and length; none for one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl Stamp {
    /// What a file looks like now.
    pub fn of(file: &ListFile) -> Self {
        let seen = std::fs::metadata(&file.path).and_then(|data| Ok((data.modified()?, data.len())));
        Self(file.path.clone(), seen.ok())
    }
}

pub(super) fn stamps(settings: &Settings) -> Vec<Stamp> {
    settings.access.files().chain(settings.greylist.files()).map(Stamp::of).collect()
}
