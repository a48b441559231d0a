// SPDX-License-Identifier: GPL-3.0-or-later
//! Lists: one entry a line, `#` begins a comment. Clients by address, network, name or regular expression; mail addresses by
//! address, local part, domain or regular expression. Look-ups cost a few hash probes whatever the length of the list.
//!
//! List files of postgrey and sqlgrey are read as they are ([`Dialect`]).

mod address;
mod client;
mod dialect;
mod table;

pub use address::{AddressTable, Closeness};
pub use client::ClientTable;
pub use dialect::{Dialect, ListFile};

/// The entry that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<'a> {
    /// The entry as written.
    pub entry: &'a str,
    /// `file:line`, or what stands for a list that is not a file.
    pub origin: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mistakes;
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn clients(text: &str) -> Result<ClientTable, Mistakes> {
        ClientTable::load(&[file(text).path().to_path_buf()])
    }

    fn addresses(text: &str) -> Result<AddressTable, Mistakes> {
        AddressTable::load(&[file(text).path().to_path_buf()])
    }

    #[test]
    fn clients_are_found_by_address_and_name() {
        let table = clients("# list\n192.0.2.1\n198.51.100.0/24 # net\n203.0.113\n2001:DB8::/32\nExample.org\n.sub.example.net\n*.star.example\n/^mx[0-9]+\\.pool\\./\n").unwrap();
        assert_eq!(table.len(), 8);
        for (ip, name, entry) in [
            ("192.0.2.1", "", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", "", Some("192.0.2.1")),
            ("192.0.2.2", "", None),
            ("198.51.100.99", "", Some("198.51.100.0/24")),
            ("203.0.113.9", "", Some("203.0.113")),
            ("2001:db8:9::1", "", Some("2001:DB8::/32")),
            ("10.0.0.1", "EXAMPLE.ORG", Some("Example.org")),
            ("10.0.0.1", "mail.example.org", Some("Example.org")),
            ("10.0.0.1", "badexample.org", None),
            ("10.0.0.1", "sub.example.net", None),
            ("10.0.0.1", "a.sub.example.net", Some(".sub.example.net")),
            ("10.0.0.1", "x.star.example", Some("*.star.example")),
            ("10.0.0.1", "MX7.pool.example", Some("/^mx[0-9]+\\.pool\\./")),
        ] {
            let found = table.find(Some(ip.parse().unwrap()), Some(name));
            assert_eq!(found.map(|found| found.entry), entry, "{ip} {name}");
        }
        assert!(table.find(None, None).is_none());
        assert!(table.find(Some("10.0.0.1".parse().unwrap()), Some("example.org")).unwrap().origin.ends_with(":6"));
    }

    #[test]
    fn addresses_are_found_by_all_their_parts() {
        let table = addresses(
            "Joe@Example.org\npostmaster@\n@only.example\nwide.example\n.below.example\n<>\n/^bounce-.*@lists\\./\n",
        )
        .unwrap();
        for (address, entry) in [
            ("joe@example.org", Some("Joe@Example.org")),
            ("JOE+tag@EXAMPLE.ORG", Some("Joe@Example.org")),
            ("joey@example.org", None),
            ("Postmaster@any.example", Some("postmaster@")),
            ("postmaster+x@any.example", Some("postmaster@")),
            ("x@only.example", Some("@only.example")),
            ("x@sub.only.example", None),
            ("x@wide.example", Some("wide.example")),
            ("x@sub.wide.example", Some("wide.example")),
            ("x@below.example", None),
            ("x@sub.below.example", Some(".below.example")),
            ("", Some("<>")),
            ("bounce-17@lists.example", Some("/^bounce-.*@lists\\./")),
            ("nobody@nowhere.example", None),
        ] {
            assert_eq!(table.find(address).map(|found| found.entry), entry, "{address}");
        }
    }

    #[test]
    fn wrong_entries_are_named_with_their_line() {
        let told = clients("ok.example\nuser@example.org\n10.1\n1.2.3.0/40\n/(/\nbad..name\n").unwrap_err().to_string();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 5, "{told}");
        for (line, number) in lines.iter().zip([2, 3, 4, 5, 6]) {
            assert!(line.contains(&format!(":{number}: ")), "{line}");
        }
        assert!(addresses("a b@c\n@\n").is_err());
        assert!(
            ClientTable::load(&[PathBuf::from("/no/such/list")])
                .unwrap_err()
                .to_string()
                .starts_with("/no/such/list: cannot be read")
        );
    }

    #[test]
    fn lists_of_other_programs_are_read_and_what_is_odd_is_told() {
        let text = file("debian.org # they retry\n10.1\njoe@example.org\n/^mx\\d+\\.example\\.net$/\né\n");
        let postgrey = ListFile { dialect: Dialect::Postgrey, path: text.path().to_path_buf() };
        let table = ClientTable::load(&[postgrey]).unwrap();
        let told: Vec<String> = table.notices().iter().map(ToString::to_string).collect();
        assert_eq!((table.len(), told.len()), (4, 2), "{told:?}");
        assert!(told[0].contains(":2: ") && told[1].contains(":3: "), "{told:?}");
        for (ip, name, entry) in [
            ("10.1.0.9", "", Some("10.1")),
            ("10.1.2.3", "", None),
            ("192.0.2.1", "lists.debian.org", Some("debian.org")),
            ("192.0.2.1", "MX3.example.net", Some("/^mx\\d+\\.example\\.net$/")),
        ] {
            let found = table.find(Some(ip.parse().unwrap()), Some(name));
            assert_eq!(found.map(|found| found.entry), entry, "{ip} {name}");
        }

        let text = file("*.star.example\nalone.example\n/^Mx/\n");
        let sqlgrey = ListFile { dialect: Dialect::SqlgreyFqdn, path: text.path().to_path_buf() };
        let table = ClientTable::load(std::slice::from_ref(&sqlgrey)).unwrap();
        for (name, entry) in [
            ("a.star.example", Some("*.star.example")),
            ("star.example", None),
            ("alone.example", Some("alone.example")),
            ("Alone.example", Some("alone.example")),
            ("a.alone.example", None),
            ("Mx1.example", Some("/^Mx/")),
            ("mx1.example", None),
        ] {
            assert_eq!(table.find(None, Some(name)).map(|found| found.entry), entry, "{name}");
        }
        assert!(AddressTable::load(&[sqlgrey]).is_err(), "a list of clients where addresses belong");
    }

    #[test]
    fn recipients_of_postgrey_are_read() {
        let text = file("postmaster@\nAnn@Example.org\nexample.net\n*.example.com\n/^list-/\n");
        let table =
            AddressTable::load(&[ListFile { dialect: Dialect::Postgrey, path: text.path().to_path_buf() }]).unwrap();
        assert_eq!((table.len(), table.notices().iter().count()), (4, 1));
        for (address, listed) in [
            ("postmaster+x@a.example", true),
            ("ann+tag@example.org", true),
            ("a@sub.example.net", true),
            ("a@b.example.com", false),
            ("LIST-1@b.example", true),
        ] {
            assert_eq!(table.find(address).is_some(), listed, "{address}");
        }
    }

    #[test]
    fn entries_kept_elsewhere_are_taken_and_wrong_ones_told() {
        let (table, wrong) = ClientTable::from_entries("store", ["192.0.2.0/24", "10.1", "Example.org"].into_iter());
        assert_eq!(
            (table.len(), wrong.to_string().as_str()),
            (2, "store: \"10.1\" is not an address; write a network as for example 10.1.0.0/16")
        );
        assert_eq!(table.find(None, Some("a.example.org")).unwrap().origin, "store");
    }

    #[test]
    fn senders_may_be_listed_under_the_condition_of_spf() {
        let text = file("spf:Example.org\nexample.net\n");
        let paths = [text.path().to_path_buf()];
        let told = AddressTable::load(&paths).unwrap_err().to_string();
        assert!(told.contains(":1: \"spf:Example.org\": only a whitelist of senders"), "{told}");
        assert!(AddressTable::from_entries("f", ["spf:a.example"].into_iter()).1.to_string().starts_with("f: "));
        let table = AddressTable::load_senders(&paths).unwrap();
        assert!(table.find("a@example.org").is_none(), "not without SPF");
        assert_eq!(table.find_authorised("A@EXAMPLE.org").map(|at| at.entry), Some("spf:Example.org"));
        for address in ["a@sub.example.org", "a@example.net", ""] {
            assert!(table.find_authorised(address).is_none(), "{address}");
        }
        assert!(AddressTable::load_senders(&[file("spf:a..b\n").path().to_path_buf()]).is_err());
    }

    #[test]
    fn the_closest_entry_is_told_from_wider_ones() {
        let of = |entry: &str, address: &str| {
            AddressTable::from_recipient_entries("t", [entry].into_iter()).0.find_closest(address).map(|(how, _)| how)
        };
        let closest_first = ["ann+x@a.example.org", "ann@a.example.org", "ann@", "@a.example.org", "a.example.org"];
        let wider = [".example.org", "example.org", "org", "/ann/", "*"];
        let ranks: Vec<_> = closest_first.iter().chain(&wider).map(|entry| of(entry, "Ann+x@A.example.org")).collect();
        assert!(ranks.iter().all(Option::is_some) && ranks.windows(2).all(|pair| pair[0] > pair[1]), "{ranks:?}");
        assert!(of("*", "").is_some(), "everybody, named or not");
        for (table, wrong) in [
            AddressTable::from_entries("t", ["*"].into_iter()),
            AddressTable::from_sender_entries("t", ["*"].into_iter()),
            AddressTable::from_recipient_entries("t", ["spf:example.org"].into_iter()),
        ] {
            assert_eq!((table.len(), wrong.iter().count()), (1, 1));
        }
    }

    #[test]
    fn clients_may_be_listed_by_a_record_of_spf() {
        let table = clients("spf:Example.org\n192.0.2.1\nspf:example.org\n").unwrap();
        let listed: Vec<_> = table.authorised().map(|(domain, at)| (domain.to_owned(), at.entry.to_owned())).collect();
        assert_eq!(listed, [("example.org".to_owned(), "spf:Example.org".to_owned())]);
        assert!(table.find("192.0.2.2".parse().ok(), Some("example.org")).is_none());
        assert!(clients("spf:a..b\n").is_err());
    }

    /// The mean time of a look-up, of names and addresses that are in the list and that are not.
    fn time_of(table: &ClientTable, entries: u32) -> Duration {
        let started = Instant::now();
        const ROUNDS: u32 = 20_000;
        for round in 0..ROUNDS {
            let number = round.wrapping_mul(7919) % (2 * entries);
            let ip = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let name = format!("mx{number}.host.example");
            std::hint::black_box(table.find(Some(ip), Some(&name)));
        }
        started.elapsed() / ROUNDS
    }

    #[test]
    fn a_long_list_costs_no_more_than_a_short_one() {
        let table = |entries: u32| {
            let text: Vec<String> = (0..entries / 2)
                .flat_map(|number| {
                    [std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(), format!("mx{number}.host.example")]
                })
                .collect();
            ClientTable::from_entries("test", text.iter().map(String::as_str)).0
        };
        let (short, long) = (table(100), table(100_000));
        assert_eq!(long.len(), 100_000);
        // The best of several runs: other work on the machine only ever adds.
        let best = |table: &ClientTable, entries| (0..5).map(|_| time_of(table, entries)).min().unwrap();
        let (short, long) = (best(&short, 100), best(&long, 100_000));
        assert!(long < 4 * short + Duration::from_micros(1), "{long:?} with 100 000 entries, {short:?} with 100");
    }

    proptest::proptest! {
        #[test]
        fn any_list_and_any_name_is_safe(text in "\\PC*", name in "\\PC*") {
            if let Ok(table) = clients(&text) { let _ = table.find(None, Some(&name)); }
            if let Ok(table) = addresses(&text) { let _ = table.find(&name); }
        }
    }
}
