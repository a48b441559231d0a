// SPDX-License-Identifier: GPL-3.0-or-later
//! Asks an engine whether it finds what it should: the test virus of EICAR by itself, and at the end of larger and larger archives.
//!
//! An engine without signatures, or one behind a server that lets everything pass when its scanner is away, answers "clean" like any other; so does
//! one that looks at nothing larger than some limit of its own. No protocol tells; only a virus does.

use std::time::Duration;

use bytes::Bytes;
use flate2::Crc;
use tokio::time::Instant;

use super::engine::Engine;
use super::engines::describe;
use super::sample::{Queue, Sample, Seen};
use crate::findings::Outcome;

/// Time for each question.
const TIME: Duration = Duration::from_secs(60);
/// Length of the first archive: no engine has a limit below it.
const FIRST: u64 = 1_000;
/// Length of the second.
const SECOND: u64 = 1_000_000;

/// What an engine has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its name in the configuration.
    pub engine: String,
    /// Its own words about itself; `None` when it has said nothing.
    pub version: Option<String>,
    /// What came of it.
    pub result: ProbeResult,
}

/// Whether an engine finds viruses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// In everything, up to archives of so many bytes. `then`: what it says of larger ones, when it has said so; that they were not scanned.
    Finds {
        /// Bytes of the largest archive in which it was found; 0: only by itself.
        most: u64,
        /// Why larger ones are not scanned.
        then: Option<String>,
    },
    /// By itself; it does not look into archives, so that nothing can be said about large ones.
    OpensNothing,
    /// In archives of so many bytes; and of one with `missed` bytes it says that it is clean.
    PassesOver {
        /// Bytes of the largest archive in which it was found.
        most: u64,
        /// Bytes of one that was called clean.
        missed: u64,
    },
    /// It does not even find the test virus by itself; what it said instead.
    Blind(String),
    /// It gives no answer, and why.
    Fails(String),
}

impl ProbeResult {
    /// Whether what this engine calls clean can be believed.
    pub fn is_good(&self) -> bool {
        matches!(self, ProbeResult::Finds { .. } | ProbeResult::OpensNothing)
    }
}

impl Engine {
    /// Asks about the test virus, in archives of up to `largest` bytes.
    pub async fn probe(&self, largest: u64) -> Probe {
        let status = self.status().await;
        let version = status.as_ref().ok().map(|status| describe(status.clone()));
        let result = match status {
            Ok(_) => self.search(largest).await,
            Err(failure) => ProbeResult::Fails(failure.to_string()),
        };
        Probe { engine: self.name().to_owned(), version, result }
    }

    async fn search(&self, largest: u64) -> ProbeResult {
        match self.asked(Bytes::from(test_virus().into_bytes()).into()).await {
            Answer::Found => {}
            Answer::Clean => return ProbeResult::Blind("clean".to_owned()),
            Answer::NotScanned(why) => return ProbeResult::Blind(why),
            Answer::Failed(why) => return ProbeResult::Fails(why),
        }
        let mut most = 0;
        for size in sizes(largest) {
            match self.asked(archive(size)).await {
                Answer::Found => most = size,
                Answer::Clean if most == 0 => return ProbeResult::OpensNothing,
                Answer::Clean => return ProbeResult::PassesOver { most, missed: size },
                Answer::NotScanned(why) => return ProbeResult::Finds { most, then: Some(why) },
                Answer::Failed(why) => return ProbeResult::Fails(format!("archive of {size} bytes: {why}")),
            }
        }
        ProbeResult::Finds { most, then: None }
    }

    async fn asked(&self, sample: Sample) -> Answer {
        let (mut queue, mut feeds) = Queue::new(1);
        queue.never_wait();
        queue.put(sample, Seen::Nowhere);
        drop(queue);
        let Some(feed) = feeds.pop() else { return Answer::Failed("no place in the queue".to_owned()) };
        let (scans, symbols) = self.scan(feed, Instant::now() + TIME).await;
        // A name that is configured to be no virus was found all the same.
        let mut answer = if symbols.is_empty() { Answer::Clean } else { Answer::Found };
        for scan in scans {
            match scan.outcome {
                Outcome::Infected(_) => answer = Answer::Found,
                Outcome::Failed(why) => answer = Answer::Failed(why),
                Outcome::Incomplete(why) | Outcome::Encrypted(why) if answer == Answer::Clean => {
                    answer = Answer::NotScanned(why);
                }
                _ => {}
            }
        }
        answer
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Found,
    Clean,
    NotScanned(String),
    Failed(String),
}

/// A small one, then from a megabyte on each twice as large as the one before; the last is the largest.
fn sizes(largest: u64) -> impl Iterator<Item = u64> {
    let twice = std::iter::successors(Some(SECOND), |size| size.checked_mul(2));
    std::iter::once(FIRST).chain(twice).take_while(move |size| *size < largest).chain([largest])
}

/// The test virus (eicar.org): 68 bytes, put together here so that no scanner takes this program for it.
fn test_virus() -> String {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}", "$EICAR-STANDARD-ANTIVIRUS-", "TEST-FILE!$H+H*"].concat()
}

/// What a zip of two such files has besides the first.
const FRAME: u64 = 278;

/// A zip of so many bytes: a file of no meaning, then the test virus, both stored (PKWARE APPNOTE 4.3).
fn archive(size: u64) -> Sample {
    let filler = noise(usize::try_from(size.saturating_sub(FRAME)).unwrap_or(usize::MAX));
    let virus = Bytes::from(test_virus().into_bytes());
    let (mut slices, mut directory, mut at) = (Vec::new(), Vec::new(), 0u32);
    for (name, data) in [("noise.bin", filler), ("eicar.com", virus)] {
        let fields = fields(name, &data);
        let local = [b"PK\x03\x04", &fields[..], name.as_bytes()].concat();
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&fields);
        // No comment, the first disk, no attributes; where the local header is.
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        at = at.saturating_add(count(local.len() + data.len()));
        slices.extend([Bytes::from(local), data]);
    }
    let length = count(directory.len());
    let end = [b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &length.to_le_bytes()[..], &at.to_le_bytes(), &[0, 0]].concat();
    slices.extend([Bytes::from(directory), Bytes::from(end)]);
    Sample::new(slices)
}

/// What the local header and the directory say alike of a file: version 2.0, no flags, stored, noon of some day, checksum, sizes.
fn fields(name: &str, data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(data);
    let (sum, size) = (crc.sum().to_le_bytes(), count(data.len()).to_le_bytes());
    let lengths = [u8::try_from(name.len()).unwrap_or(u8::MAX), 0, 0, 0];
    [&b"\x14\0\0\0\0\0\0\x60\x21\x5b"[..], &sum, &size, &size, &lengths].concat()
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Bytes that no engine finds anything in, and that cannot be made smaller.
fn noise(length: usize) -> Bytes {
    let mut state = 0x2545_f491_u32;
    let mut bytes = Vec::with_capacity(length + 3);
    while bytes.len() < length {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_grow_to_the_largest() {
        assert_eq!(sizes(5_000_000).collect::<Vec<_>>(), [1000, 1_000_000, 2_000_000, 4_000_000, 5_000_000]);
        assert_eq!(sizes(10).collect::<Vec<_>>(), [10]);
        assert_eq!(sizes(u64::MAX).last(), Some(u64::MAX));
    }

    #[test]
    fn the_archive_is_one() {
        use std::io::Read;
        let bytes: Vec<u8> = archive(5001).bytes().collect();
        assert_eq!(bytes.len(), 5001);
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        assert_eq!(zip.by_index(0).unwrap().size(), 5001 - FRAME);
        let mut text = String::new();
        zip.by_name("eicar.com").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.len(), text), (68, test_virus()));
        // Reading to the end checks the checksum.
        std::io::copy(&mut zip.by_index(0).unwrap(), &mut std::io::sink()).unwrap();
    }
}
