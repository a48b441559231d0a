// SPDX-License-Identifier: GPL-3.0-or-later
//! postgrey: its two databases as `db_dump` or `db_dump -p` writes them, told apart by their records.
//!
//! `postgrey.db` holds `network/sender/recipient` and `first,last` in seconds; a triplet has passed when these lie the delay
//! apart. `postgrey_clients.db` holds `address` and `count,last`. With `--privacy` the keys are SHA-1 sums, which policyd can look for.

use std::io::{self, BufRead};

use super::lines::Lines;
use super::record::{self, Bad, Entry, Found, Old, Seen, SeenHash, Trusted};

/// Smaller numbers are counts of passes, larger ones seconds since 1970: in 1973 there was no postgrey.
const FIRST_SECOND: i64 = 100_000_000;

/// Reads what `db_dump` wrote.
#[derive(Debug)]
pub(super) struct Dump<R> {
    lines: Lines<R>,
    old: Old,
    part: Part,
}

/// Where in a dump we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before `VERSION=`.
    Start,
    /// Up to `HEADER=END`.
    Header { hex: bool },
    /// Keys and values by turns, up to `DATA=END`.
    Data { hex: bool },
    /// After a dump; another may follow.
    Done,
}

impl<R: BufRead> Dump<R> {
    pub(super) fn new(reader: R, old: Old) -> Self {
        Self { lines: Lines::new(reader), old, part: Part::Start }
    }

    /// The next record; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(self.end()) };
            let text = line.text.as_deref();
            match self.part {
                Part::Start | Part::Done => match text {
                    Some("") => {}
                    Some(text) if text.starts_with("VERSION=") => self.part = Part::Header { hex: true },
                    _ => {
                        let why = "this is not what db_dump writes; make it with: db_dump -p postgrey.db";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {why}", line.number)));
                    }
                },
                Part::Header { hex } => match text {
                    Some("format=print") => self.part = Part::Header { hex: false },
                    Some("HEADER=END") => self.part = Part::Data { hex },
                    _ => {}
                },
                Part::Data { .. } if text == Some("DATA=END") => self.part = Part::Done,
                Part::Data { hex } => return self.record(line.number, text, hex).map(Some),
            }
        }
    }

    fn end(&mut self) -> Option<Found> {
        if matches!(std::mem::replace(&mut self.part, Part::Done), Part::Header { .. } | Part::Data { .. }) {
            return Some(Found { line: 0, entry: Err(Bad("the dump ends before DATA=END".to_owned())) });
        }
        None
    }

    /// A record: the line of its key has been read, its value is on the next.
    fn record(&mut self, number: u64, key: Option<&str>, hex: bool) -> io::Result<Found> {
        let key = key.ok_or_else(too_long).and_then(|text| datum(text, hex));
        let value = match self.lines.next()? {
            Some(line) if line.text.as_deref() == Some("DATA=END") => {
                self.part = Part::Done;
                Err(Bad("a key without a value".to_owned()))
            }
            Some(line) => line.text.as_deref().ok_or_else(too_long).and_then(|text| datum(text, hex)),
            None => Err(Bad("a key without a value".to_owned())),
        };
        let entry = key.and_then(|key| entry(&key, &value?, &self.old));
        Ok(Found { line: number, entry })
    }
}

fn too_long() -> Bad {
    Bad("the line is too long".to_owned())
}

/// A key or value: one blank, then printable text with `\xx` for other bytes, or all bytes as pairs of hexadecimal digits.
fn datum(line: &str, hex: bool) -> Result<String, Bad> {
    let bad = || Bad(format!("{line:?} is not a key or value"));
    let text = line.strip_prefix(' ').ok_or_else(bad)?.as_bytes();
    let digits = |at: usize| {
        let pair = text.get(at..at + 2).and_then(|pair| std::str::from_utf8(pair).ok())?;
        if pair.bytes().all(|byte| byte.is_ascii_hexdigit()) { u8::from_str_radix(pair, 16).ok() } else { None }
    };
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let (byte, width) = match byte {
            _ if hex => (digits(at).ok_or_else(bad)?, 2),
            b'\\' if text.get(at + 1) == Some(&b'\\') => (b'\\', 2),
            b'\\' => (digits(at + 1).ok_or_else(bad)?, 3),
            byte => (*byte, 1),
        };
        bytes.push(byte);
        at += width;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn entry(key: &str, value: &str, old: &Old) -> Result<Entry, Bad> {
    // Some versions wrote the host as a third field.
    let mut numbers = value.split(',');
    let (Some(one), Some(two)) = (numbers.next(), numbers.next()) else {
        return Err(Bad(format!("{value:?} is not a pair of numbers")));
    };
    if key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return hashed(key, one, record::unix_time(two)?, old);
    }
    match key.split_once('/') {
        Some((network, rest)) => triplet(network, rest, record::unix_time(one)?, record::unix_time(two)?, old),
        None => client(key, one, record::unix_time(two)?, old),
    }
}

fn triplet(network: &str, rest: &str, first: i64, last: i64, old: &Old) -> Result<Entry, Bad> {
    let ip = network.parse().map_err(|_| Bad(format!("{network:?} is not an address")))?;
    let (sender, recipient) = addresses(rest).ok_or_else(|| Bad(format!("{rest:?} is not sender/recipient")))?;
    Ok(Entry::Seen(Seen {
        client: record::address_or_network(ip),
        sender: record::mailbox(sender)?,
        recipient: record::mailbox(recipient)?,
        first,
        last,
        tries: if last > first { 2 } else { 1 },
        passed: last.saturating_sub(first) >= old.delay,
    }))
}

/// Sender and recipient may hold slashes themselves, though not in their domains.
fn addresses(text: &str) -> Option<(&str, &str)> {
    let whole = |address: &str| address.rsplit_once('@').is_some_and(|(_, domain)| !domain.contains('/'));
    let mut cuts = text.match_indices('/').map(|(at, _)| (&text[..at], &text[at + 1..]));
    cuts.clone()
        .find(|(sender, recipient)| (sender.is_empty() || whole(sender)) && whole(recipient))
        .or_else(|| cuts.next_back())
}

/// A record whose key is a sum; the value tells whether of a triplet or of a client.
fn hashed(key: &str, one: &str, last: i64, old: &Old) -> Result<Entry, Bad> {
    let sum = key.to_ascii_lowercase();
    match one.parse::<i64>() {
        Ok(count) if count < FIRST_SECOND => {
            let count = u32::try_from(count).map_err(|_| Bad(format!("{one:?} is not a count")))?;
            Ok(Entry::TrustedHash(sum, Some(count).filter(|count| *count < old.trust_after), last))
        }
        _ => {
            let first = record::unix_time(one)?;
            let passed = last.saturating_sub(first) >= old.delay;
            Ok(Entry::SeenHash(SeenHash { sum, first, last, passed }))
        }
    }
}

fn client(key: &str, count: &str, last: i64, old: &Old) -> Result<Entry, Bad> {
    let client = record::client(key)?;
    let count: u32 = count.parse().map_err(|_| Bad(format!("{count:?} is not a count")))?;
    let passes = Some(count).filter(|count| *count < old.trust_after);
    Ok(Entry::Trusted(Trusted { client, domain: None, passes, last }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: Old = Old { delay: 300_000, max_age: 0, trust_after: 5, utc_offset: 0, now: 0 };

    fn all(text: &str) -> Vec<Found> {
        let mut dump = Dump::new(text.as_bytes(), OLD);
        std::iter::from_fn(|| dump.next().unwrap()).collect()
    }

    fn dump(data: &str) -> String {
        format!("VERSION=3\nformat=print\ntype=btree\ndb_pagesize=4096\nHEADER=END\n{data}DATA=END\n")
    }

    fn seen(found: &Found) -> (String, &str, &str, bool) {
        let Ok(Entry::Seen(seen)) = &found.entry else { panic!("{found:?}") };
        (seen.client.to_string(), &seen.sender, &seen.recipient, seen.passed)
    }

    #[test]
    fn triplets_are_read_in_both_formats() {
        let data = [
            "203.0.113.0/a@x.test/r@our.test",
            "1795324438,1795324738",
            "203.0.113.9//r@our.test",
            "1795324438,1795324445",
            "2001:470:abcd:2:0:0:0:0/u/v=w@x.test/c=us/ad=z@our.test",
            "1,2,host",
            "192.0.2.0/j\\c3\\b6\\\\@x.test/postmaster@our.test",
            "1,1000",
        ];
        let print = dump(&data.map(|datum| format!(" {datum}\n")).concat());
        let found = all(&print);
        assert_eq!(seen(&found[0]), ("203.0.113.0/24".to_owned(), "a@x.test", "r@our.test", true));
        assert_eq!(seen(&found[1]), ("203.0.113.9/32".to_owned(), "", "r@our.test", false));
        assert_eq!(seen(&found[2]), ("2001:470:abcd:2::/64".to_owned(), "u/v=w@x.test", "c=us/ad=z@our.test", false));
        assert_eq!(seen(&found[3]), ("192.0.2.0/24".to_owned(), "jö\\@x.test", "postmaster@our.test", true));
        assert_eq!(found.len(), 4);
        let hexed = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let data = format!(" {}\n {}\n", hexed("203.0.113.0/a@x.test/r@our.test"), hexed("1795324438,1795324738"));
        let found = all(&dump(&data).replace("format=print", "format=bytevalue"));
        assert_eq!(seen(&found[0]), ("203.0.113.0/24".to_owned(), "a@x.test", "r@our.test", true));
    }

    #[test]
    fn clients_are_trusted_from_their_count_on() {
        let found = all(&dump(" 2001:470:ABCD:2:3:4:5:AF\n 5,1795324438\n 192.0.2.1\n 4,1795324438\n"));
        let client = "2001:470:abcd:2:3:4:5:af/128".parse().unwrap();
        let trusted = Trusted { client, domain: None, passes: None, last: 1_795_324_438_000 };
        assert_eq!(found[0].entry, Ok(Entry::Trusted(trusted.clone())));
        let client = "192.0.2.1/32".parse().unwrap();
        assert_eq!(found[1].entry, Ok(Entry::Trusted(Trusted { client, passes: Some(4), ..trusted })));
    }

    #[test]
    fn hashed_keys_are_told_apart_by_their_values() {
        let sum = "0123456789abcdef0123456789abcdef01234567";
        let found =
            all(&dump(&format!(" {sum}\n 1795324438,1795324738\n {sum}\n 4,1795324738\n {sum}\n 5,1795324738\n")));
        let (first, last) = (1_795_324_438_000, 1_795_324_738_000);
        let seen = SeenHash { sum: sum.to_owned(), first, last, passed: true };
        assert_eq!(found[0].entry, Ok(Entry::SeenHash(seen)));
        assert_eq!(found[1].entry, Ok(Entry::TrustedHash(sum.to_owned(), Some(4), last)));
        assert_eq!(found[2].entry, Ok(Entry::TrustedHash(sum.to_owned(), None, last)));
    }

    #[test]
    fn bad_records_are_told_with_their_line() {
        let text = dump(" x/y\n 1,2\n 192.0.2.0/a@b/c@d\n one\n192.0.2.0\n 1,2\n 192.0.2.1\n \\zz\n 192.0.2.3\n");
        let told: Vec<(u64, bool)> = all(&text).iter().map(|found| (found.line, found.entry.is_err())).collect();
        assert_eq!(told, [(6, true), (8, true), (10, true), (12, true), (14, true)]);
        let cut = dump("").replace("DATA=END\n", "");
        assert!(all(&cut)[0].entry.is_err());
        assert!(Dump::new(&b"\x00\x01garbage"[..], OLD).next().is_err());
    }

    #[test]
    fn dumps_may_follow_each_other() {
        let one = dump(" 192.0.2.0/a@b/c@d\n 1,2\n");
        assert_eq!(all(&format!("{one}{one}")).len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = [dump("").replace("DATA=END\n", "").as_bytes(), &bytes].concat();
            for start in [&text[..], &bytes] {
                let mut dump = Dump::new(start, OLD);
                while let Ok(Some(_)) = dump.next() {}
            }
        }

        #[test]
        fn any_triplet_is_read_back(sender in "[a-z][a-z/=]{0,8}@[a-z.]{1,9}|", recipient in "[a-z]{1,9}@[a-z.]{1,9}", first in 0i64..1_000_000) {
            let found = all(&dump(&format!(" 192.0.2.0/{sender}/{recipient}\n {first},{first}\n")));
            prop_assert_eq!(seen(&found[0]), ("192.0.2.0/24".to_owned(), &*sender, &*recipient, false));
        }
    }
}
