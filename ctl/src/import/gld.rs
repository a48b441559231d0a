// SPDX-License-Identifier: GPL-3.0-or-later
//! gld 1.7: `greylist` with the number of tries and the first and last of them, and `whitelist`, whose entries are addresses of
//! either kind. The option LIGHTGREY masks the last octet of the client.

use super::record::{self, Bad, Entry, Old, Seen};
use super::table::{Program, Row, Table};

/// An entry of `whitelist` with a mail address.
pub(super) const MAIL_ENTRY: &str =
    "a whitelist entry with a mail address; see sender_whitelist and recipient_whitelist";

pub(super) static PROGRAM: Program = Program {
    tables: &[
        Table { name: "greylist", columns: &["ip", "sender", "recipient", "first", "last", "n"] },
        Table { name: "whitelist", columns: &["mail", "comment"] },
    ],
    entry,
};

fn entry(row: &Row, old: &Old) -> Result<Entry, Bad> {
    if row.table.name == "whitelist" {
        return listed(row.text("mail")?);
    }
    let (first, last, tries) = (row.time("first", old)?, row.time("last", old)?, row.number("n")?);
    let text = row.text("ip")?;
    Ok(Entry::Seen(Seen {
        client: text.parse().map(record::address_or_network).or_else(|_| record::client(text))?,
        sender: row.mailbox("sender")?,
        recipient: row.mailbox("recipient")?,
        first,
        last,
        tries,
        passed: tries > 1 && last.saturating_sub(first) >= old.delay,
    }))
}

fn listed(text: &str) -> Result<Entry, Bad> {
    if text.contains('@') {
        return Ok(Entry::Skipped(MAIL_ENTRY));
    }
    Ok(Entry::Listed(record::client(text)?))
}

#[cfg(test)]
mod tests {
    use super::super::table::row;
    use super::*;
    use proptest::prelude::*;

    const OLD: Old = Old { delay: 60_000, max_age: 0, trust_after: 5, utc_offset: 0, now: 0 };

    fn read(table: &str, values: &[&str]) -> Result<Entry, Bad> {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        entry(&row(&PROGRAM, table, &values), &OLD)
    }

    #[test]
    fn who_came_again_after_the_delay_has_passed() {
        for (ip, last, n, client, passed) in [
            ("192.0.2.7", "160", "2", "192.0.2.7/32", true),
            ("192.0.2.7", "159", "2", "192.0.2.7/32", false),
            ("192.0.2.7", "900", "1", "192.0.2.7/32", false),
            ("192.0.2.0", "160", "9", "192.0.2.0/24", true),
            ("192.0.2", "160", "9", "192.0.2.0/24", true),
        ] {
            let found = read("greylist", &[ip, "a@x.test", "r@our.test", "100", last, n]);
            let Ok(Entry::Seen(seen)) = found else { panic!("{found:?}") };
            assert_eq!((seen.client.to_string().as_str(), seen.passed, seen.first), (client, passed, 100_000), "{ip}");
        }
    }

    #[test]
    fn listed_clients_are_told_from_mail_addresses() {
        let listed = Entry::Listed("192.0.2.0/24".parse().unwrap());
        assert_eq!(read("whitelist", &["192.0.2", "friends"]), Ok(listed));
        assert_eq!(read("whitelist", &["@x.test", ""]), Ok(Entry::Skipped(MAIL_ENTRY)));
        assert!(read("whitelist", &["localhost", ""]).is_err());
        assert!(read("greylist", &["192.0.2.7", "a", "b", "1", "2", "many"]).is_err());
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_refused(values in proptest::collection::vec(proptest::option::of("\\PC{0,20}|[0-9.]{1,9}"), 6)) {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            let _ = entry(&row(&PROGRAM, "greylist", &values), &OLD);
        }
    }
}
