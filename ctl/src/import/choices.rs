// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients that chose whether they are greylisted (sqlgrey's tables optin_* and optout_*), as entries of our lists `optin` and `optout` in the
//! store. Only on request: as soon as there is an `optin` list, nobody but those in it is greylisted.

use std::collections::BTreeSet;

use clap::ValueEnum;
use common::store::{Store, StoreError};
use policyd::store::acl::{self, List, NewEntry};

/// Most entries; the lists are held in memory by every daemon.
const MOST: usize = 100_000;

/// What the other program did with recipients that no table names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptMethod {
    /// Nobody was greylisted but who wanted it (optmethod = optin)
    Optin,
    /// Everybody was greylisted but who did not want it (optmethod = optout)
    Optout,
}

/// A recipient's wish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choice {
    /// To be greylisted; else not to be.
    pub(crate) optin: bool,
    /// `user@example.org`, `@example.org`.
    pub(crate) entry: String,
}

/// The wishes of all.
#[derive(Debug, Default)]
pub(super) struct Choices {
    method: Option<OptMethod>,
    found: BTreeSet<Choice>,
}

impl Choices {
    pub(super) fn new(method: Option<OptMethod>) -> Self {
        Self { method, found: BTreeSet::new() }
    }

    /// Takes one in; the error says why not.
    pub(super) fn add(&mut self, choice: Choice) -> Result<(), &'static str> {
        match self.method {
            None => Err("a recipient's choice (optin_*, optout_*): --opt-method takes it over"),
            Some(_) if self.found.len() >= MOST => Err("a recipient's choice: there are too many"),
            Some(_) => {
                self.found.insert(choice);
                Ok(())
            }
        }
    }

    /// The entries of both lists. Where everybody was greylisted, whoever wishes so must not be the only one here.
    fn entries(&self) -> [(List, Vec<NewEntry>); 2] {
        let of = |optin: bool| self.found.iter().filter(move |choice| choice.optin == optin);
        let entry = |text: &str| NewEntry {
            entry: text.to_owned(),
            comment: "imported".to_owned(),
            author: "octroi import".to_owned(),
            expires: None,
        };
        let mut optin: Vec<NewEntry> = of(true).map(|choice| entry(&choice.entry)).collect();
        if !optin.is_empty() && self.method == Some(OptMethod::Optout) {
            optin.push(entry("*"));
        }
        [(List::Optin, optin), (List::Optout, of(false).map(|choice| entry(&choice.entry)).collect())]
    }

    /// Writes them; gives how many are new.
    pub(super) async fn write(&self, store: Option<&Store>) -> Result<u64, StoreError> {
        let mut new = 0;
        for (list, entries) in self.entries() {
            new += match store {
                _ if entries.is_empty() => 0,
                Some(store) => acl::add(store, list, &entries).await?.new,
                None => entries.len() as u64,
            };
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(method: OptMethod) -> Vec<String> {
        let mut choices = Choices::new(Some(method));
        for (optin, entry) in [(true, "ann@our.test"), (false, "@our.test"), (true, "ann@our.test")] {
            choices.add(Choice { optin, entry: entry.to_owned() }).unwrap();
        }
        let told = |(list, entries): (List, Vec<NewEntry>)| {
            entries.into_iter().map(move |entry| format!("{} {}", list.word(), entry.entry)).collect::<Vec<_>>()
        };
        choices.entries().into_iter().flat_map(told).collect()
    }

    #[test]
    fn who_is_greylisted_stays_so() {
        assert_eq!(entries(OptMethod::Optin), ["optin ann@our.test", "optout @our.test"]);
        assert_eq!(entries(OptMethod::Optout), ["optin ann@our.test", "optin *", "optout @our.test"]);
        let choice = Choice { optin: true, entry: "a@x.test".to_owned() };
        assert!(Choices::new(None).add(choice).unwrap_err().contains("--opt-method"));
    }
}
