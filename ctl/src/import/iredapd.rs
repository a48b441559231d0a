// SPDX-License-Identifier: GPL-3.0-or-later
//! iRedAPD: `greylisting_tracking`, which says whether a triplet has passed and when it is forgotten, not when it was last seen; and
//! `greylisting_whitelists`, of which only clients for all recipients (account `@.`) can be taken over.

use super::record::{self, Bad, Entry, Old, Seen};
use super::table::{Program, Row, Table};

/// An entry of the lists with a mail address, or for some recipients only.
pub(super) const NARROW: &str =
    "a whitelist entry for senders or for some recipients; see sender_whitelist and recipient_whitelist";
/// A domain whose SPF record is to be followed.
pub(super) const SPF_DOMAIN: &str = "a domain whose SPF record lists the clients (greylisting_whitelist_domains)";

pub(super) static PROGRAM: Program = Program {
    tables: &[
        Table {
            name: "greylisting_tracking",
            columns: &[
                "id",
                "sender",
                "recipient",
                "client_address",
                "sender_domain",
                "rcpt_domain",
                "init_time",
                "block_expired",
                "record_expired",
                "blocked_count",
                "passed",
            ],
        },
        Table { name: "greylisting_whitelists", columns: &["id", "account", "sender", "comment"] },
        Table { name: "greylisting_whitelist_domains", columns: &["id", "domain"] },
    ],
    entry,
};

fn entry(row: &Row, old: &Old) -> Result<Entry, Bad> {
    match row.table.name {
        "greylisting_tracking" => tracked(row, old),
        "greylisting_whitelists" => listed(row.text("account")?, row.text("sender")?),
        _ => Ok(Entry::Skipped(SPF_DOMAIN)),
    }
}

fn tracked(row: &Row, old: &Old) -> Result<Entry, Bad> {
    let (first, expires) = (row.time("init_time", old)?, row.time("record_expired", old)?);
    if expires <= old.now {
        return Ok(Entry::Expired);
    }
    let passed = row.number("passed")? != 0;
    let last = if passed { expires.saturating_sub(old.max_age).max(first) } else { first };
    Ok(Entry::Seen(Seen {
        client: record::client(row.text("client_address")?)?,
        sender: row.mailbox("sender")?,
        recipient: row.mailbox("recipient")?,
        first,
        last,
        tries: row.number("blocked_count")?.max(1),
        passed,
    }))
}

fn listed(account: &str, sender: &str) -> Result<Entry, Bad> {
    if account != "@." || sender.contains('@') {
        return Ok(Entry::Skipped(NARROW));
    }
    // 192.0.2.* is a network, too.
    let client = record::client(sender.trim_end_matches(".*"))?;
    Ok(Entry::Listed(client))
}

#[cfg(test)]
mod tests {
    use super::super::table::row;
    use super::*;
    use proptest::prelude::*;

    const OLD: Old = Old { delay: 0, max_age: 100_000, trust_after: 5, utc_offset: 0, now: 1_000_000 };

    fn read(table: &str, values: &[&str]) -> Result<Entry, Bad> {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        entry(&row(&PROGRAM, table, &values), &OLD)
    }

    #[test]
    fn tracked_triplets_are_taken_until_they_expire() {
        for (expires, passed, last) in [("1050", "1", 950_000), ("1001", "1", 901_000), ("2000", "0", 800_000)] {
            let values =
                ["1", "a@x.test", "r@our.test", "192.0.2.7", "x.test", "our.test", "800", "900", expires, "2", passed];
            let found = read("greylisting_tracking", &values);
            let Ok(Entry::Seen(seen)) = found else { panic!("{found:?}") };
            assert_eq!((seen.first, seen.last, seen.passed), (800_000, last, passed == "1"));
        }
        let gone = ["1", "a@x", "r@y", "192.0.2.7", "x", "y", "800", "900", "1000", "2", "1"];
        assert_eq!(read("greylisting_tracking", &gone), Ok(Entry::Expired));
    }

    #[test]
    fn listed_clients_are_for_all_recipients() {
        let listed = |net: &str| Ok(Entry::Listed(net.parse().unwrap()));
        for (sender, net) in [("192.0.2.*", "192.0.2.0/24"), ("192.0.2.0/25", "192.0.2.0/25"), ("::1", "::1/128")] {
            assert_eq!(read("greylisting_whitelists", &["1", "@.", sender, ""]), listed(net), "{sender}");
        }
        assert_eq!(read("greylisting_whitelists", &["1", "@.", "@x.test", ""]), Ok(Entry::Skipped(NARROW)));
        assert_eq!(read("greylisting_whitelists", &["1", "@our.test", "::1", ""]), Ok(Entry::Skipped(NARROW)));
        assert_eq!(read("greylisting_whitelist_domains", &["1", "x.test"]), Ok(Entry::Skipped(SPF_DOMAIN)));
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_refused(values in proptest::collection::vec(proptest::option::of("\\PC{0,20}|[0-9.]{1,12}"), 11)) {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            let _ = entry(&row(&PROGRAM, "greylisting_tracking", &values), &OLD);
            let _ = entry(&row(&PROGRAM, "greylisting_whitelists", &values[..4]), &OLD);
        }
    }
}
