// SPDX-License-Identifier: GPL-3.0-or-later
//! cluebringer (policyd v2): `greylisting_tracking` (passed when its count is not 0), the clients of `greylisting_autowhitelist`, and
//! those of `greylisting_whitelist`. The client is a key such as `SenderIP:192.0.2.0/24`.

use super::record::{self, Bad, Entry, Old, Seen, Trusted};
use super::table::{Program, Row, Table};

/// A list entry that is not in force.
pub(super) const DISABLED: &str = "a whitelist entry that is disabled";
/// A client that is refused.
pub(super) const REFUSED: &str = "a client of greylisting_autoblacklist; see client_blacklist";
/// A list entry with a host name.
pub(super) const BY_NAME: &str = "a whitelist entry with a name; see client_whitelist";

pub(super) static PROGRAM: Program = Program {
    tables: &[
        Table {
            name: "greylisting_tracking",
            columns: &[
                "id",
                "greylistingid",
                "trackkey",
                "sender",
                "recipient",
                "firstseen",
                "lastupdate",
                "tries",
                "count",
            ],
        },
        Table { name: "greylisting_autowhitelist", columns: &["id", "trackkey", "added", "lastseen", "comment"] },
        Table { name: "greylisting_autoblacklist", columns: &["id", "trackkey", "added", "comment"] },
        Table { name: "greylisting_whitelist", columns: &["id", "source", "comment", "disabled"] },
    ],
    entry,
};

fn entry(row: &Row, old: &Old) -> Result<Entry, Bad> {
    match row.table.name {
        "greylisting_tracking" => tracked(row, old),
        "greylisting_autowhitelist" => {
            let client = record::client(address(row.text("trackkey")?))?;
            let last = row.time("lastseen", old)?;
            Ok(Entry::Trusted(Trusted { client, domain: None, passes: None, last }))
        }
        "greylisting_whitelist" => listed(row),
        _ => Ok(Entry::Skipped(REFUSED)),
    }
}

fn tracked(row: &Row, old: &Old) -> Result<Entry, Bad> {
    Ok(Entry::Seen(Seen {
        client: record::client(address(row.text("trackkey")?))?,
        sender: row.mailbox("sender")?,
        recipient: row.mailbox("recipient")?,
        first: row.time("firstseen", old)?,
        last: row.time("lastupdate", old)?,
        tries: row.number("tries")?.max(1),
        passed: row.number("count")? > 0,
    }))
}

fn listed(row: &Row) -> Result<Entry, Bad> {
    if row.get("disabled").is_some_and(|disabled| disabled != "0") {
        return Ok(Entry::Skipped(DISABLED));
    }
    match record::client(address(row.text("source")?)) {
        Ok(client) => Ok(Entry::Listed(client)),
        Err(_) => Ok(Entry::Skipped(BY_NAME)),
    }
}

/// The key without its kind.
fn address(key: &str) -> &str {
    match key.get(..9) {
        Some(kind) if kind.eq_ignore_ascii_case("senderip:") => &key[9..],
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::row;
    use super::*;
    use proptest::prelude::*;

    const OLD: Old = Old { delay: 0, max_age: 0, trust_after: 5, utc_offset: 0, now: 1_000_000 };

    fn read(table: &str, values: &[&str]) -> Result<Entry, Bad> {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        entry(&row(&PROGRAM, table, &values), &OLD)
    }

    #[test]
    fn what_was_counted_has_passed() {
        for (count, passed) in [("0", false), ("1", true), ("7", true)] {
            let values = ["1", "", "SenderIP:192.0.2.0/24", "a@x.test", "r@our.test", "100", "900", "3", count];
            let found = read("greylisting_tracking", &values);
            let Ok(Entry::Seen(seen)) = found else { panic!("{found:?}") };
            assert_eq!(seen.client.to_string(), "192.0.2.0/24");
            assert_eq!((seen.first, seen.last, seen.tries, seen.passed), (100_000, 900_000, 3, passed));
        }
    }

    #[test]
    fn lists_are_told_apart() {
        let client = "192.0.2.0/24".parse().unwrap();
        let trusted = Entry::Trusted(Trusted { client, domain: None, passes: None, last: 9000 });
        let auto = read("greylisting_autowhitelist", &["1", "SenderIP:192.0.2.0/24", "1", "9", ""]);
        assert_eq!(auto, Ok(trusted));
        assert_eq!(read("greylisting_whitelist", &["1", "SenderIP:192.0.2.0/24", "", "0"]), Ok(Entry::Listed(client)));
        assert_eq!(read("greylisting_whitelist", &["1", "::1", "", "1"]), Ok(Entry::Skipped(DISABLED)));
        assert_eq!(read("greylisting_whitelist", &["1", "*.x.test", "", "0"]), Ok(Entry::Skipped(BY_NAME)));
        assert_eq!(read("greylisting_autoblacklist", &["1", "SenderIP:::1", "1", ""]), Ok(Entry::Skipped(REFUSED)));
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_refused(values in proptest::collection::vec(proptest::option::of("\\PC{0,20}|[0-9.]{1,12}"), 9)) {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            let _ = entry(&row(&PROGRAM, "greylisting_tracking", &values), &OLD);
            let _ = entry(&row(&PROGRAM, "greylisting_whitelist", &values[..4]), &OLD);
        }
    }
}
