// SPDX-License-Identifier: GPL-3.0-or-later
//! A list of envelope addresses, found by address, local part or domain.

use std::collections::HashMap;

use super::Match;
use super::dialect::{self, Dialect, Key, ListFile, Reading};
use super::table::{self, Domains, Lines, Table, insert};
use crate::config::{Mistake, Mistakes};
use crate::mail;

/// A list of envelope addresses. Entries: `user@example.org` (also with `+extension`), `user@` (in any domain), `@example.org` (that
/// domain only), `example.org` (with its sub-domains), `.example.org` (sub-domains only), `<>` (the null sender), `/regular expression/`.
/// In a list of senders also `spf:example.org`: senders of this domain, when SPF authorises the client that sends for them. In the lists
/// of who is greylisted also `*`: everybody.
#[derive(Debug, Default)]
pub struct AddressTable {
    lines: Lines,
    full: HashMap<Box<str>, u32>,
    local: HashMap<Box<str>, u32>,
    domain: HashMap<Box<str>, u32>,
    domains: Domains,
    /// Domains whose senders are listed only with SPF's word for it.
    authorised: HashMap<Box<str>, u32>,
    /// Every address.
    everybody: Option<u32>,
}

/// How closely an entry names an address: the greater, the closer. An address with its extension, the address, the local part in any
/// domain, the domain itself, a longer parent domain before a shorter one, a regular expression, everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness(u16);

impl Closeness {
    const EVERYBODY: Self = Self(0);
    const PATTERN: Self = Self(1);
    const LOCAL: Self = Self(u16::MAX - 2);
    const ADDRESS: Self = Self(u16::MAX - 1);
    const EXTENDED: Self = Self(u16::MAX);

    /// Of a domain, or of the sub-domains only or the domain only, which is a little closer.
    fn domain(name: &str, only: bool) -> Self {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX).min(0x3fff);
        Self(2 + 2 * length + u16::from(only))
    }
}

impl AddressTable {
    /// Reads the files as one list. Errors name `file:line`.
    pub fn load<F: Clone + Into<ListFile>>(files: &[F]) -> Result<Self, Mistakes> {
        let table: Self = table::from_files(files.iter().cloned().map(Into::into))?;
        table.misplaced().into_result(table)
    }

    /// The same for a list that may have entries `spf:example.org`; who reads it asks [`AddressTable::find_authorised`] too.
    pub fn load_senders<F: Clone + Into<ListFile>>(files: &[F]) -> Result<Self, Mistakes> {
        let table: Self = table::from_files(files.iter().cloned().map(Into::into))?;
        table.misplaced_everybody().into_result(table)
    }

    /// Makes a list of entries in our own format that are kept elsewhere; `origin` is what a match names. Wrong entries are left out
    /// and told.
    pub fn from_entries<'a>(origin: &str, entries: impl Iterator<Item = &'a str>) -> (Self, Mistakes) {
        let (table, mut wrong) = table::from_entries::<Self>(origin, entries);
        wrong.extend(table.misplaced());
        (table, wrong)
    }

    /// The same for a list that may have entries `spf:example.org`.
    pub fn from_sender_entries<'a>(origin: &str, entries: impl Iterator<Item = &'a str>) -> (Self, Mistakes) {
        let (table, mut wrong) = table::from_entries::<Self>(origin, entries);
        wrong.extend(table.misplaced_everybody());
        (table, wrong)
    }

    /// Reads the files as one list of recipients that may name everybody (`*`); who reads it asks [`AddressTable::find_closest`].
    pub fn load_recipients<F: Clone + Into<ListFile>>(files: &[F]) -> Result<Self, Mistakes> {
        let table: Self = table::from_files(files.iter().cloned().map(Into::into))?;
        table.misplaced_spf().into_result(table)
    }

    /// The same of entries that are kept elsewhere.
    pub fn from_recipient_entries<'a>(origin: &str, entries: impl Iterator<Item = &'a str>) -> (Self, Mistakes) {
        let (table, mut wrong) = table::from_entries::<Self>(origin, entries);
        wrong.extend(table.misplaced_spf());
        (table, wrong)
    }

    /// The entries that this list cannot have.
    fn misplaced(&self) -> Mistakes {
        let mut mistakes = self.misplaced_spf();
        mistakes.extend(self.misplaced_everybody());
        mistakes
    }

    fn misplaced_everybody(&self) -> Mistakes {
        let mut mistakes = Mistakes::new();
        for at in self.everybody.iter().filter_map(|index| self.lines.get(*index)) {
            let message = "\"*\": only optin and optout can name everybody".to_owned();
            mistakes.push(Mistake { origin: at.origin, key: String::new(), message });
        }
        mistakes
    }

    fn misplaced_spf(&self) -> Mistakes {
        let mut mistakes = Mistakes::new();
        for at in self.authorised.values().filter_map(|index| self.lines.get(*index)) {
            let message = format!("{:?}: only a whitelist of senders can have entries with spf:", at.entry);
            mistakes.push(Mistake { origin: at.origin, key: String::new(), message });
        }
        mistakes
    }

    /// The entry `spf:domain` of a sender's domain. It counts only when SPF passes for this sender and its client.
    pub fn find_authorised(&self, address: &str) -> Option<Match<'_>> {
        if self.authorised.is_empty() {
            return None;
        }
        let domain = mail::split(address).1.to_lowercase();
        self.lines.get(*self.authorised.get(domain.as_str())?)
    }

    /// Looks up an envelope address as Postfix gives it (empty for the null sender), in any case.
    pub fn find(&self, address: &str) -> Option<Match<'_>> {
        self.find_closest(address).map(|(_, found)| found)
    }

    /// The same, with how closely the entry names the address.
    pub fn find_closest(&self, address: &str) -> Option<(Closeness, Match<'_>)> {
        if self.is_empty() {
            return None;
        }
        let (closeness, index) = self.closest(address)?;
        Some((closeness, self.lines.get(index)?))
    }

    /// The entry that names everybody, whoever it is.
    pub fn find_everybody(&self) -> Option<(Closeness, Match<'_>)> {
        Some((Closeness::EVERYBODY, self.lines.get(self.everybody?)?))
    }

    fn closest(&self, address: &str) -> Option<(Closeness, u32)> {
        let lower = address.to_lowercase();
        let (local, domain) = mail::split(&lower);
        let bare = mail::without_extension(local);
        let extended = bare.len() < local.len();
        let whole = if extended { Closeness::EXTENDED } else { Closeness::ADDRESS };
        let full = self.full.get(lower.as_str()).map(|index| (whole, *index));
        full.or_else(|| {
            let index = if extended { self.full.get(format!("{bare}@{domain}").as_str())? } else { return None };
            Some((Closeness::ADDRESS, *index))
        })
        .or_else(|| {
            let index = self.local.get(local).or_else(|| self.local.get(bare)).filter(|_| !address.is_empty())?;
            Some((Closeness::LOCAL, *index))
        })
        .or_else(|| Some((Closeness::domain(domain, true), *self.domain.get(domain)?)))
        .or_else(|| {
            let (index, name, below) = self.domains.find_named(domain)?;
            Some((Closeness::domain(name, below), index))
        })
        .or_else(|| Some((Closeness::PATTERN, self.lines.find_pattern(address)?)))
        .or_else(|| Some((Closeness::EVERYBODY, self.everybody?)))
    }

    /// What was odd in lists of other programs, with file and line; it is in force as it was there.
    pub fn notices(&self) -> &Mistakes {
        &self.lines.notices
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.lines.len() == 0
    }
}

/// An address as an entry names it, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressKey {
    /// The whole address; empty for the null sender.
    Full(String),
    /// This local part in any domain.
    Local(String),
    /// Any local part in this domain only.
    Only(String),
    /// The domain and its sub-domains.
    Domain(String),
    /// The sub-domains only.
    Below(String),
    /// Senders of the domain, when SPF authorises their client.
    Authorised(String),
    /// Every address.
    Everybody,
}

impl Table for AddressTable {
    type Key = AddressKey;

    fn reading(dialect: Dialect, entry: &str) -> Reading<AddressKey> {
        let entry = entry.trim();
        match (dialect, dialect::pattern(entry)) {
            (Dialect::SqlgreyIp | Dialect::SqlgreyFqdn | Dialect::SqlgreyRegexp, _) => {
                Reading::Wrong("this format lists clients, here are addresses".to_owned())
            }
            (Dialect::Own, Some(pattern)) => dialect::own_pattern(pattern),
            (Dialect::Own, None) => match key(entry) {
                Ok(key) => Reading::Entry(Key::Plain(key)),
                Err(message) => Reading::Wrong(message),
            },
            (Dialect::Postgrey, _) if entry.contains(char::is_whitespace) => {
                Reading::Never(format!("{entry:?} has a blank inside; postgrey passes over such lines"))
            }
            (Dialect::Postgrey, Some(pattern)) => dialect::perl_pattern(pattern, "(?i)"),
            // The four forms of postgrey are ours too.
            (Dialect::Postgrey, None) => match key(entry) {
                Ok(key @ (AddressKey::Full(_) | AddressKey::Local(_) | AddressKey::Domain(_))) => {
                    Reading::Entry(Key::Plain(key))
                }
                _ => Reading::Never(format!("{entry:?} never matches an address in postgrey")),
            },
        }
    }

    fn insert(&mut self, key: AddressKey, index: u32) {
        match key {
            AddressKey::Full(address) => insert(&mut self.full, address, index),
            AddressKey::Local(local) => insert(&mut self.local, local, index),
            AddressKey::Only(domain) => insert(&mut self.domain, domain, index),
            AddressKey::Domain(name) => insert(&mut self.domains.whole, name, index),
            AddressKey::Below(name) => insert(&mut self.domains.below, name, index),
            AddressKey::Authorised(name) => insert(&mut self.authorised, name, index),
            AddressKey::Everybody => self.everybody = self.everybody.or(Some(index)),
        }
    }

    fn finish(&mut self, lines: Lines) {
        self.lines = lines;
    }
}

fn key(entry: &str) -> Result<AddressKey, String> {
    let entry = entry.to_lowercase();
    if entry == "<>" {
        return Ok(AddressKey::Full(String::new()));
    }
    if entry == "*" {
        return Ok(AddressKey::Everybody);
    }
    if let Some(name) = entry.strip_prefix("spf:") {
        return dialect::domain_name(name).map(|name| AddressKey::Authorised(name.to_owned()));
    }
    match entry.rsplit_once('@') {
        None => match entry.strip_prefix("*.").or(entry.strip_prefix('.')) {
            Some(parent) => dialect::domain_name(parent).map(|name| AddressKey::Below(name.to_owned())),
            None => dialect::domain_name(&entry).map(|name| AddressKey::Domain(name.to_owned())),
        },
        Some(("", "")) => Err("\"@\" is not an address".to_owned()),
        Some(_) if entry.contains(char::is_whitespace) => Err(format!("{entry:?} is not an address")),
        Some(("", only)) => Ok(AddressKey::Only(only.to_owned())),
        Some((user, "")) => Ok(AddressKey::Local(user.to_owned())),
        Some(_) => Ok(AddressKey::Full(entry)),
    }
}
