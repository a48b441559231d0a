// SPDX-License-Identifier: GPL-3.0-or-later
//! sqlgrey (schema version 3): `connect` holds who waits, `from_awl` and `domain_awl` who has passed.
//!
//! What passes leaves `connect` for `from_awl`, which knows network and sender but no recipient: trust, not a triplet. The
//! sender in `connect` is as it came; duplicates are usual and become one. The null sender is `-undef-`.

use super::choices::Choice;
use super::record::{self, Bad, Entry, Old, Seen, Trusted};
use super::table::{Program, Row, Table};

pub(super) static PROGRAM: Program = Program {
    tables: &[
        Table { name: "connect", columns: &["sender_name", "sender_domain", "src", "rcpt", "first_seen"] },
        Table { name: "from_awl", columns: &["sender_name", "sender_domain", "src", "first_seen", "last_seen"] },
        Table { name: "domain_awl", columns: &["sender_domain", "src", "first_seen", "last_seen"] },
        Table { name: "optin_domain", columns: &["domain"] },
        Table { name: "optin_email", columns: &["email"] },
        Table { name: "optout_domain", columns: &["domain"] },
        Table { name: "optout_email", columns: &["email"] },
    ],
    entry,
};

fn entry(row: &Row, old: &Old) -> Result<Entry, Bad> {
    match row.table.name {
        "connect" => waiting(row, old),
        "from_awl" => trusted(row, Some(1), old),
        "domain_awl" => trusted(row, None, old),
        "optin_domain" => chosen(row, true, "domain"),
        "optin_email" => chosen(row, true, "email"),
        "optout_domain" => chosen(row, false, "domain"),
        _ => chosen(row, false, "email"),
    }
}

/// A domain there is that domain alone.
fn chosen(row: &Row, optin: bool, column: &'static str) -> Result<Entry, Bad> {
    let text = row.mailbox(column)?.to_lowercase();
    let good = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
    let entry = match (column, text.rsplit_once('@')) {
        ("domain", None) if good(&text) => format!("@{text}"),
        ("email", Some((local, domain))) if good(local) && good(domain) => text,
        _ => return Err(Bad(format!("{text:?} is no {column}"))),
    };
    Ok(Entry::Chosen(Choice { optin, entry }))
}

fn waiting(row: &Row, old: &Old) -> Result<Entry, Bad> {
    let first = row.time("first_seen", old)?;
    let recipient = row.mailbox("rcpt")?;
    Ok(Entry::Seen(Seen {
        client: record::client(row.text("src")?)?,
        sender: sender(row)?,
        recipient: if recipient == UNDEFINED { String::new() } else { recipient },
        first,
        last: first,
        tries: 1,
        passed: false,
    }))
}

const UNDEFINED: &str = "-undef-";

fn sender(row: &Row) -> Result<String, Bad> {
    let (name, domain) = (row.mailbox("sender_name")?, row.mailbox("sender_domain")?);
    Ok(match domain.as_str() {
        UNDEFINED if name == UNDEFINED => String::new(),
        UNDEFINED | "" => name,
        _ => format!("{name}@{domain}"),
    })
}

fn trusted(row: &Row, passes: Option<u32>, old: &Old) -> Result<Entry, Bad> {
    let last = row.time("last_seen", old)?.max(row.time("first_seen", old)?);
    let domain = row.mailbox("sender_domain")?;
    let domain = Some(if domain == UNDEFINED { String::new() } else { domain });
    Ok(Entry::Trusted(Trusted { client: record::client(row.text("src")?)?, domain, passes, last }))
}

#[cfg(test)]
mod tests {
    use super::super::table::row;
    use super::*;
    use proptest::prelude::*;

    const OLD: Old = Old { delay: 0, max_age: 0, trust_after: 5, utc_offset: 0, now: 0 };

    fn read(table: &str, values: &[&str]) -> Result<Entry, Bad> {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        entry(&row(&PROGRAM, table, &values), &OLD)
    }

    #[test]
    fn who_waits_is_a_triplet() {
        for (values, sender, client) in [
            (["joe+x", "x.test", "203.0.113", "r@our.test", "1795324438"], "joe+x@x.test", "203.0.113.0/24"),
            (["joe", "x.test", "203.0.113.9", "r@our.test", "2026-11-22 05:13:58"], "joe@x.test", "203.0.113.9/32"),
            (["-undef-", "-undef-", "2001:0db8:0001:0000", "r@our.test", "1795324438"], "", "2001:db8:1::/64"),
        ] {
            let Ok(Entry::Seen(seen)) = read("connect", &values) else { panic!("{values:?}") };
            assert_eq!((&*seen.sender, seen.client.to_string().as_str()), (sender, client));
            assert_eq!((seen.first, seen.passed, &*seen.recipient), (1_795_324_438_000, false, "r@our.test"));
        }
    }

    #[test]
    fn who_has_passed_is_trusted() {
        let client = "203.0.113.0/24".parse().unwrap();
        let trusted = |passes| Trusted { client, domain: Some("x.test".to_owned()), passes, last: 9000 };
        let from = read("from_awl", &["bounce-#", "x.test", "203.0.113", "7", "9"]);
        assert_eq!(from, Ok(Entry::Trusted(trusted(Some(1)))));
        let domain = read("domain_awl", &["x.test", "203.0.113", "7", "9"]);
        assert_eq!(domain, Ok(Entry::Trusted(trusted(None))));
        assert!(read("connect", &["a", "b", "mail.x", "r", "7"]).is_err());
        assert!(read("connect", &["a", "b", "192.0.2", "r", "soon"]).is_err());
    }

    #[test]
    fn choices_are_entries_of_our_lists() {
        let chosen = |optin, entry: &str| Ok(Entry::Chosen(Choice { optin, entry: entry.to_owned() }));
        assert_eq!(read("optout_email", &["R@our.test"]), chosen(false, "r@our.test"));
        assert_eq!(read("optin_domain", &["Our.test"]), chosen(true, "@our.test"));
        assert!(read("optin_domain", &["r@our.test"]).is_err() && read("optout_email", &["our.test"]).is_err());
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_refused(values in proptest::collection::vec(proptest::option::of("\\PC{0,20}|[0-9.]{1,9}"), 5)) {
            for table in ["connect", "from_awl"] {
                let values: Vec<_> = values.iter().map(Option::as_deref).collect();
                let _ = entry(&row(&PROGRAM, table, &values), &OLD);
            }
        }
    }
}
