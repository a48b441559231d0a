// SPDX-License-Identifier: GPL-3.0-or-later
//! relaydelay: the table `relaytofrom`. Addresses stand in angle brackets; the dates are in the zone of its server, but for
//! `last_update`, which mysqldump turns to UTC. NULL in one of the three fields is a wildcard, made by hand.

use super::record::{self, Bad, Entry, Old, Seen};
use super::table::{Program, Row, Table};

/// A wildcard entry of which a list of clients cannot make anything.
pub(super) const BY_HAND: &str = "an entry made by hand for senders or recipients, or one that refuses";

pub(super) static PROGRAM: Program = Program {
    tables: &[Table {
        name: "relaytofrom",
        columns: &[
            "id",
            "relay_ip",
            "mail_from",
            "rcpt_to",
            "block_expires",
            "record_expires",
            "blocked_count",
            "passed_count",
            "aborted_count",
            "origin_type",
            "create_time",
            "last_update",
        ],
    }],
    entry,
};

fn entry(row: &Row, old: &Old) -> Result<Entry, Bad> {
    if row.time("record_expires", old)? <= old.now {
        return Ok(Entry::Expired);
    }
    let (Some(client), Some(_), Some(_)) = (row.get("relay_ip"), row.get("mail_from"), row.get("rcpt_to")) else {
        return by_hand(row, old);
    };
    let first = row.time("create_time", old)?;
    let last = record::time(row.text("last_update")?, 0)?.min(old.now).max(first);
    let passes = row.number("passed_count")?;
    Ok(Entry::Seen(Seen {
        client: record::client(client)?,
        sender: row.mailbox("mail_from")?,
        recipient: row.mailbox("rcpt_to")?,
        first,
        last,
        tries: row.number("blocked_count")?.max(1),
        passed: passes > 0,
    }))
}

/// A wildcard entry lets pass when its block has expired.
fn by_hand(row: &Row, old: &Old) -> Result<Entry, Bad> {
    let lets_pass = row.time("block_expires", old)? <= old.now;
    match (row.get("relay_ip"), row.get("mail_from"), row.get("rcpt_to")) {
        (Some(client), None, None) if lets_pass => Ok(Entry::Listed(record::client(client)?)),
        _ => Ok(Entry::Skipped(BY_HAND)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::row;
    use super::*;
    use proptest::prelude::*;

    // 2026-11-22 12:00:00 UTC; the server is in a zone one hour ahead.
    const NOW: i64 = 1_795_348_800_000;
    const OLD: Old = Old { delay: 0, max_age: 0, trust_after: 5, utc_offset: 3_600_000, now: NOW };

    fn read(client: Option<&str>, from: Option<&str>, block: &str, record: &str, passed: &str) -> Result<Entry, Bad> {
        let values = [
            Some("1"),
            client,
            from,
            from.map(|_| "<r@our.test>"),
            Some(block),
            Some(record),
            Some("3"),
            Some(passed),
            Some("0"),
            Some("AUTO"),
            Some("2026-11-22 12:00:00"),
            Some("2026-11-22 11:30:00"),
        ];
        entry(&row(&PROGRAM, "relaytofrom", &values), &OLD)
    }

    #[test]
    fn rows_are_triplets_or_lists() {
        let never = "9999-12-31 23:59:59";
        let found = read(Some("192.0.2.7"), Some("<a@x.test>"), "2026-11-22 13:00:00", never, "2");
        let Ok(Entry::Seen(seen)) = found else { panic!("{found:?}") };
        assert_eq!((&*seen.sender, &*seen.recipient), ("a@x.test", "r@our.test"));
        assert_eq!((seen.first, seen.last, seen.passed), (NOW - 3_600_000, NOW - 1_800_000, true));
        let found = read(Some("192.0.2.7"), Some("<>"), "2026-11-22 13:00:00", never, "0");
        assert!(matches!(found, Ok(Entry::Seen(seen)) if !seen.passed && seen.sender.is_empty()));
        assert_eq!(read(Some("192.0.2.7"), Some("<a@x>"), never, "2026-11-22 13:00:00", "1"), Ok(Entry::Expired));
        let listed = Entry::Listed("192.168.0.0/16".parse().unwrap());
        assert_eq!(read(Some("192.168"), None, "0000-00-00 00:00:00", never, "0"), Ok(listed));
        assert_eq!(read(Some("192.168"), None, never, never, "0"), Ok(Entry::Skipped(BY_HAND)));
        assert_eq!(read(None, None, "0000-00-00 00:00:00", never, "0"), Ok(Entry::Skipped(BY_HAND)));
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_refused(values in proptest::collection::vec(proptest::option::of("\\PC{0,20}|[0-9.]{1,12}"), 12)) {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            let _ = entry(&row(&PROGRAM, "relaytofrom", &values), &OLD);
        }
    }
}
