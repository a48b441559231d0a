// SPDX-License-Identifier: GPL-3.0-or-later
//! Where all entries go: sieved, counted, gathered into batches and merged into the store. With a dry run there is no store.

use std::collections::BTreeMap;

use common::store::StoreError;
use policyd::config::GreylistSettings;
use policyd::store::Connection;
use policyd::store::import::{self, Past, Standing};
use policyd::triplet::Triplet;

use super::choices::Choices;
use super::clients::ClientsList;
use super::record::{Bad, Entry, Found, Old};
use super::sieve::{self, Fate, Ours, Tally};
use super::trust::Trust;

/// Records in one statement.
const BATCH: usize = 1000;
/// Bad lines that are told; more are only counted.
const TOLD: u64 = 50;
/// A client listed by hand, of which no list is to be made, or too long a one.
const NO_LIST: &str = "a client listed by hand: --clients-list FILE makes a list";
const FULL: &str = "a client listed by hand: the list is full";

/// The way into the store.
#[derive(Debug)]
pub(super) struct Sink {
    /// What is known of the other program.
    pub(super) old: Old,
    ours: Ours,
    /// None in a dry run.
    store: Option<Connection>,
    list: Option<ClientsList>,
    trust: Trust,
    choices: Choices,
    batch: BTreeMap<Triplet, Past>,
    tally: Tally,
}

impl Sink {
    pub(super) fn new(
        old: Old,
        settings: &GreylistSettings,
        store: Option<Connection>,
        list: Option<ClientsList>,
        choices: Choices,
    ) -> Self {
        let (ours, trust) = (Ours::from(settings), Trust::from(settings));
        Self { old, ours, store, list, trust, choices, batch: BTreeMap::new(), tally: Tally::default() }
    }

    /// Takes one entry in. `name` is the file or table it is from.
    pub(super) async fn take(&mut self, name: &str, found: Found) -> Result<(), StoreError> {
        self.tally.read += 1;
        match found.entry {
            Err(Bad(why)) => self.bad(name, found.line, &why),
            Ok(Entry::Skipped(why)) => self.tally.skip(why, 1),
            Ok(Entry::Expired) => self.tally.expired += 1,
            Ok(Entry::Chosen(choice)) => {
                if let Err(why) = self.choices.add(choice) {
                    self.tally.skip(why, 1);
                }
            }
            Ok(Entry::Listed(client)) => match &mut self.list {
                None => self.tally.skip(NO_LIST, 1),
                Some(list) => match list.add(client) {
                    true => self.tally.listed += 1,
                    false => self.tally.skip(FULL, 1),
                },
            },
            Ok(Entry::Trusted(trusted)) => match self.trust.add(&trusted, &self.old) {
                Fate::Kept(()) => self.tally.clients += 1,
                Fate::Expired => self.tally.expired += 1,
                Fate::Skipped(why) => self.tally.skip(why, 1),
            },
            Ok(Entry::TrustedHash(sum, passes, last)) => match self.trust.add_hash(&sum, passes, last, &self.old) {
                Fate::Kept(()) => self.tally.clients += 1,
                Fate::Expired => self.tally.expired += 1,
                Fate::Skipped(why) => self.tally.skip(why, 1),
            },
            Ok(Entry::SeenHash(seen)) => match sieve::hashed(&seen, &self.ours, &self.old) {
                Fate::Kept(past) => self.keep(past).await?,
                Fate::Expired => self.tally.expired += 1,
                Fate::Skipped(why) => self.tally.skip(why, 1),
            },
            Ok(Entry::Seen(seen)) => match sieve::triplet(&seen, &self.ours, &self.old) {
                Fate::Kept(past) => self.keep(past).await?,
                Fate::Expired => self.tally.expired += 1,
                Fate::Skipped(why) => self.tally.skip(why, 1),
            },
        }
        Ok(())
    }

    fn bad(&mut self, name: &str, line: u64, why: &str) {
        self.tally.bad += 1;
        match self.tally.bad {
            count if count <= TOLD && line == 0 => super::warn(&format!("{name}: {why}")),
            count if count <= TOLD => super::warn(&format!("{name}:{line}: {why}")),
            count if count == TOLD + 1 => super::warn("more bad lines are only counted"),
            _ => {}
        }
    }

    async fn keep(&mut self, past: Past) -> Result<(), StoreError> {
        match self.batch.get_mut(&past.triplet) {
            Some(same) => {
                same.join(&past);
                self.tally.unchanged += 1;
            }
            None => drop(self.batch.insert(past.triplet.clone(), past)),
        }
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let records: Vec<Past> = std::mem::take(&mut self.batch).into_values().collect();
        if records.is_empty() {
            return Ok(());
        }
        let written = match &mut self.store {
            Some(connection) => import::merge(connection, &records, self.old.now).await?,
            None => records.len() as u64,
        };
        self.tally.imported += written;
        self.tally.unchanged += (records.len() as u64).saturating_sub(written);
        Ok(())
    }

    /// Writes what is still waiting, and what was summed up of all entries if `whole` tells that all have been read.
    pub(super) async fn finish(&mut self, whole: bool) -> Result<(), StoreError> {
        self.flush().await?;
        if !whole {
            return Ok(());
        }
        let nothing = Trust::from(&GreylistSettings::default());
        let standings: Vec<Standing> = std::mem::replace(&mut self.trust, nothing).into_standings();
        for batch in standings.chunks(BATCH) {
            self.tally.trusted += match &mut self.store {
                Some(connection) => import::merge_trust(connection, batch, self.old.now).await?,
                None => batch.len() as u64,
            };
        }
        Ok(())
    }

    /// The list of clients and the choices of recipients, to be written when all went well, and the count.
    pub(super) fn into_parts(self) -> (Option<ClientsList>, Choices, Tally) {
        (self.list, self.choices, self.tally)
    }
}
