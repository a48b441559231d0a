// SPDX-License-Identifier: GPL-3.0-or-later
//! One line of the journal as bytes: length, checksum, contents, all integers little-endian. Pure. The highest bit of the length tells
//! charges of limits from triplets; a version that did not know them takes them for damage.
//!
//! A file that ends in the middle of a record, as after a crash, is good up to there.

use std::io::{self, Read};

use super::super::greylist::Times;
use super::super::import::Past;
use crate::limits::handover::Charged;
use crate::triplet::Triplet;

/// Parts of keys are bounded; longer contents are damage.
const MAX_CONTENTS: usize = 4096;
/// The same of charges: a request may meet some two hundred limits.
const MAX_CHARGES: usize = 128 * 1024;
/// Set in the length of charges.
const CHARGES: u32 = 0x8000_0000;
/// Length and checksum.
const HEAD: usize = 8;

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A triplet was seen.
    Seen(Record),
    /// Limits were charged.
    Charged(Charged),
}

impl Entry {
    /// The next one; none at the end, and an error of kind `InvalidData` or `UnexpectedEof` where the rest is damaged.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        if from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let [a, b, c, d, check @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        let (length, charges) = ((length & !CHARGES) as usize, length & CHARGES != 0);
        if length > if charges { MAX_CHARGES } else { MAX_CONTENTS } {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut contents = vec![0; length];
        from.read_exact(&mut contents)?;
        let whole = (checksum(&contents) == u32::from_le_bytes(check)).then_some(contents);
        let entry = whole.and_then(|contents| match charges {
            true => Charged::decode(&contents).map(Self::Charged),
            false => Record::decode(&contents).map(Self::Seen),
        });
        entry.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Charges as bytes; none when they are too many for a line.
pub(super) fn encode_charges(charged: &Charged) -> Option<Vec<u8>> {
    let contents = charged.encode(MAX_CHARGES)?;
    let mut out = Vec::with_capacity(HEAD + contents.len());
    out.extend_from_slice(&(contents.len() as u32 | CHARGES).to_le_bytes());
    out.extend_from_slice(&checksum(&contents).to_le_bytes());
    out.extend_from_slice(&contents);
    Some(out)
}

/// A request that was decided without the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub triplet: Triplet,
    /// Whether it passed; else it had to wait.
    pub passed: bool,
    /// When, by the clock of this host, in milliseconds since 1970.
    pub at: i64,
    /// The times that were in force.
    pub times: Times,
}

impl Record {
    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEAD];
        for number in [self.at, self.times.delay, self.times.retry_window, self.times.keep_passed] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.passed));
        for part in [&self.triplet.client, &self.triplet.sender, &self.triplet.recipient] {
            // The parts of a key are bounded far below.
            let length = u16::try_from(part.len()).unwrap_or_default();
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&part.as_bytes()[..usize::from(length)]);
        }
        let (length, check) = ((out.len() - HEAD) as u32, checksum(&out[HEAD..]));
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..HEAD].copy_from_slice(&check.to_le_bytes());
        out
    }

    fn decode(mut rest: &[u8]) -> Option<Self> {
        let at = take_number(&mut rest)?;
        let times = Times {
            delay: take_number(&mut rest)?,
            retry_window: take_number(&mut rest)?,
            keep_passed: take_number(&mut rest)?,
        };
        let [passed] = take::<1>(&mut rest)?;
        let (client, sender, recipient) = (take_text(&mut rest)?, take_text(&mut rest)?, take_text(&mut rest)?);
        rest.is_empty().then_some(Self {
            triplet: Triplet { client, sender, recipient },
            passed: passed != 0,
            at,
            times,
        })
    }

    /// The record for the store, whose clock is `ahead` milliseconds ahead of ours.
    pub fn past(&self, ahead: i64) -> Past {
        let at = self.at.saturating_add(ahead);
        let keep = if self.passed { self.times.keep_passed } else { self.times.retry_window };
        Past {
            triplet: self.triplet.clone(),
            first_seen: at,
            last_seen: at,
            tries: 1,
            passed: self.passed,
            expires: at.saturating_add(keep),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn take_number(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_le_bytes)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_le_bytes(take(rest)?));
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    String::from_utf8(taken.to_vec()).ok()
}

/// FNV-1a, 32 bits: finds a torn end, and is not meant to find more.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(sender: &str) -> Record {
        Record {
            triplet: Triplet::new([192, 0, 2, 1].into(), sender, "r@example.org", 24, 64),
            passed: true,
            at: 1_700_000_000_000,
            times: Times { delay: 1, retry_window: 2, keep_passed: 3 },
        }
    }

    fn read_all(mut bytes: &[u8]) -> (Vec<Record>, bool) {
        let mut records = Vec::new();
        loop {
            match Entry::read(&mut bytes) {
                Ok(Some(Entry::Seen(record))) => records.push(record),
                Ok(Some(Entry::Charged(_))) => {}
                Ok(None) => return (records, true),
                Err(_) => return (records, false),
            }
        }
    }

    #[test]
    fn records_come_back_up_to_where_the_file_is_torn() {
        let (one, two) = (record("a@example.net"), record(""));
        let bytes = [one.encode(), two.encode()].concat();
        assert_eq!(read_all(&bytes), (vec![one.clone(), two], true));
        for end in one.encode().len() + 1..bytes.len() {
            assert_eq!(read_all(&bytes[..end]), (vec![one.clone()], false), "{end} bytes");
        }
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        assert_eq!(read_all(&damaged), (vec![], false));
    }

    #[test]
    fn a_pass_is_kept_longer_than_a_try() {
        let passed = record("a@example.net");
        let tried = Record { passed: false, ..passed.clone() };
        assert_eq!(passed.past(10).expires - passed.past(10).last_seen, 3);
        assert_eq!(tried.past(10).expires - tried.past(10).first_seen, 2);
        assert_eq!(tried.past(10).first_seen, tried.at + 10);
    }

    #[test]
    fn charges_and_triplets_share_a_file() {
        let charged = Charged { at: 5, parts: Vec::new() };
        let bytes = [record("a@x").encode(), encode_charges(&charged).unwrap(), record("b@x").encode()].concat();
        let mut rest = bytes.as_slice();
        let read: Vec<Entry> = std::iter::from_fn(|| Entry::read(&mut rest).unwrap()).collect();
        assert_eq!(read, [Entry::Seen(record("a@x")), Entry::Charged(charged), Entry::Seen(record("b@x"))]);
        assert_eq!(read_all(&bytes[..bytes.len() - 1]), (vec![record("a@x")], false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn any_record_comes_back(sender in any::<String>(), at in any::<i64>()) {
            let written = Record { at, ..record(&sender) };
            prop_assert_eq!(read_all(&written.encode()), (vec![written], true));
        }
    }
}
