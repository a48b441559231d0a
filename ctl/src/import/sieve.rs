// SPDX-License-Identifier: GPL-3.0-or-later
//! What becomes of an entry of another greylister: a record in our form, or the reason why not. And the count of all that.
//!
//! Pure. The key is made by policyd's own function, so that the next request finds it.

use std::collections::BTreeMap;
use std::fmt;

use common::mail;
use policyd::config::GreylistSettings;
use policyd::postgrey;
use policyd::sender::Step;
use policyd::store::import::Past;
use policyd::triplet::Triplet;

use super::record::{DAY, Old, Seen, SeenHash};

/// A clock may be wrong by a little, a zone by less than a day.
pub(super) const FUTURE: &str = "its time lies in the future";
pub(super) const TOO_WIDE: &str = "only a network is known that is wider than ipv4_prefix or ipv6_prefix";
const NO_RECIPIENT: &str = "it has no recipient";
/// Sums that policyd does not look for.
pub(super) const PRIVACY: &str = "its key is a SHA-1 sum (postgrey --privacy); set postgrey_hashes in [greylist]";
/// How our own configuration keeps triplets. Lengths of time in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    retry_window: i64,
    keep_passed: i64,
    normalize: Vec<Step>,
    postgrey_hashes: bool,
}

impl From<&GreylistSettings> for Ours {
    fn from(settings: &GreylistSettings) -> Self {
        Self {
            ipv4_prefix: settings.ipv4_prefix,
            ipv6_prefix: settings.ipv6_prefix,
            retry_window: settings.retry_window.as_millis(),
            keep_passed: settings.keep_passed.as_millis(),
            normalize: settings.normalize.clone(),
            postgrey_hashes: settings.postgrey_hashes,
        }
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate<T> {
    /// Taken over.
    Kept(T),
    /// Too old, there or here.
    Expired,
    /// Why it cannot be taken over.
    Skipped(&'static str),
}

/// A triplet, in our form if it is still worth anything.
pub(super) fn triplet(seen: &Seen, ours: &Ours, old: &Old) -> Fate<Past> {
    let last_seen = seen.last.max(seen.first);
    if last_seen > old.now.saturating_add(DAY) {
        return Fate::Skipped(FUTURE);
    }
    if seen.recipient.is_empty() {
        return Fate::Skipped(NO_RECIPIENT);
    }
    let prefix = if seen.client.addr().is_ipv4() { ours.ipv4_prefix } else { ours.ipv6_prefix };
    if seen.client.prefix_len() < prefix {
        return Fate::Skipped(TOO_WIDE);
    }
    let Some(expires) = life(seen.first, last_seen, seen.passed, ours, old) else { return Fate::Expired };
    let network = mail::network(seen.client.addr(), ours.ipv4_prefix, ours.ipv6_prefix).to_string();
    let triplet = Triplet::of(network, &seen.sender, &seen.recipient, &ours.normalize);
    let (first_seen, tries) = (seen.first, seen.tries.max(1));
    Fate::Kept(Past { triplet, first_seen, last_seen, tries, passed: seen.passed, expires })
}

/// A triplet that is known by its sum only, in our form if it is looked for and still worth anything.
pub(super) fn hashed(seen: &SeenHash, ours: &Ours, old: &Old) -> Fate<Past> {
    let last_seen = seen.last.max(seen.first);
    if !ours.postgrey_hashes {
        return Fate::Skipped(PRIVACY);
    }
    if last_seen > old.now.saturating_add(DAY) {
        return Fate::Skipped(FUTURE);
    }
    let Some(expires) = life(seen.first, last_seen, seen.passed, ours, old) else { return Fate::Expired };
    let (triplet, first_seen) = (postgrey::hashed_triplet(&seen.sum), seen.first);
    Fate::Kept(Past { triplet, first_seen, last_seen, tries: 1, passed: seen.passed, expires })
}

/// Until when a triplet is kept here; none when its time is over, there or here.
fn life(first: i64, last: i64, passed: bool, ours: &Ours, old: &Old) -> Option<i64> {
    let (expires, gone) = match passed {
        true => (last.saturating_add(ours.keep_passed), last.saturating_add(old.max_age.min(ours.keep_passed))),
        false => {
            let expires = first.saturating_add(ours.retry_window);
            (expires, expires)
        }
    };
    (gone > old.now).then_some(expires)
}

/// The count of all that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Lines or rows with an entry, bad ones included.
    pub(super) read: u64,
    /// Rows of our table that were made or changed.
    pub(super) imported: u64,
    /// Entries that our table knew already, or that were there twice.
    pub(super) unchanged: u64,
    /// Entries about clients that had been learnt to be trusted.
    pub(super) clients: u64,
    /// Rows of our trust that were made or changed.
    pub(super) trusted: u64,
    /// Clients that went into the list.
    pub(super) listed: u64,
    /// Entries of optin and optout that are new.
    pub(super) chosen: u64,
    /// Too old, there or here.
    pub(super) expired: u64,
    /// Not understood; each is told by its line.
    pub(super) bad: u64,
    /// The rest, by reason.
    pub(super) skipped: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts one more for a reason.
    pub(super) fn skip(&mut self, reason: &'static str, count: u64) {
        *self.skipped.entry(reason).or_default() += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, count) in [
            ("read", self.read),
            ("imported", self.imported),
            ("unchanged", self.unchanged),
            ("clients", self.clients),
            ("trusted", self.trusted),
            ("listed", self.listed),
            ("chosen", self.chosen),
            ("expired", self.expired),
            ("skipped", self.skipped.values().sum()),
            ("bad", self.bad),
        ] {
            writeln!(f, "{word:<10}{count:>10}")?;
        }
        for (reason, count) in &self.skipped {
            writeln!(f, "skipped {count}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{self, SECOND};
    use super::*;

    const NOW: i64 = 1_795_348_800_000;
    const OLD: Old = Old { delay: 0, max_age: 35 * DAY, trust_after: 5, utc_offset: 0, now: NOW };

    fn ours() -> Ours {
        Ours::from(&GreylistSettings::default())
    }

    fn seen(client: &str, first: i64, last: i64, passed: bool) -> Seen {
        let client = record::client(client).unwrap();
        let (sender, recipient) = ("News-17+x@X.test".to_owned(), "R@Our.test".to_owned());
        Seen { client, sender, recipient, first, last, tries: 0, passed }
    }

    #[test]
    fn the_key_is_the_one_of_the_next_request() {
        let Fate::Kept(past) = triplet(&seen("192.0.2", NOW - DAY, NOW, true), &ours(), &OLD) else {
            panic!("not kept")
        };
        let asked = Triplet::new("192.0.2.77".parse().unwrap(), "news-18@x.test", "r@our.test", 24, 64);
        assert_eq!(past.triplet, asked);
        assert_eq!((past.tries, past.expires), (1, NOW + 36 * DAY));
    }

    #[test]
    fn age_decides_by_the_shorter_of_two_lives() {
        let fate = |first: i64, last: i64, passed, old: &Old| match triplet(
            &seen("192.0.2.7", NOW - first, NOW - last, passed),
            &ours(),
            old,
        ) {
            Fate::Kept(_) => "kept",
            Fate::Expired => "expired",
            Fate::Skipped(why) => why,
        };
        assert_eq!(fate(99 * DAY, 35 * DAY - SECOND, true, &OLD), "kept");
        assert_eq!(fate(99 * DAY, 35 * DAY, true, &OLD), "expired");
        assert_eq!(fate(99 * DAY, 36 * DAY, true, &Old { max_age: 60 * DAY, ..OLD }), "expired");
        assert_eq!(fate(3 * DAY - SECOND, 0, false, &OLD), "kept");
        assert_eq!(fate(3 * DAY, 0, false, &OLD), "expired");
        assert_eq!(fate(-2 * DAY, -2 * DAY, false, &OLD), FUTURE);
        assert_eq!(fate(-SECOND, -SECOND, false, &OLD), "kept");
    }

    #[test]
    fn a_network_that_is_too_wide_is_of_no_use() {
        let wide = seen("192.168", NOW, NOW, false);
        assert_eq!(triplet(&wide, &ours(), &OLD), Fate::Skipped(TOO_WIDE));
        let narrow = Ours { ipv4_prefix: 32, ..ours() };
        assert_eq!(triplet(&seen("192.0.2", NOW, NOW, false), &narrow, &OLD), Fate::Skipped(TOO_WIDE));
        let nobody = Seen { recipient: String::new(), ..seen("192.0.2.7", NOW, NOW, false) };
        assert_eq!(triplet(&nobody, &ours(), &OLD), Fate::Skipped(NO_RECIPIENT));
    }

    #[test]
    fn the_tally_names_every_reason() {
        let mut tally = Tally { read: 12, imported: 3, ..Tally::default() };
        tally.skip(FUTURE, 2);
        tally.skip(TOO_WIDE, 7);
        let text = tally.to_string();
        assert!(text.starts_with("read              12\nimported           3\n"), "{text}");
        assert!(
            text.contains("skipped            9\n") && text.contains("skipped 2: its time lies in the future\n"),
            "{text}"
        );
    }
}
