// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a ZIP file (PKWARE APPNOTE 6.3.10) is nothing but its members and headers that say what every packer says of them: no gaps, no
//! comments, no room for anything in between. Who has seen all members has seen all of such an archive. Pure.
//!
//! It is asked besides `zip_headers::is_simple`, and says nothing about what the members are or whether the headers agree.

use std::collections::BTreeMap;

use super::field::{index, le16, le32, slice};
use super::zip_headers::{Entry, Header};

/// Longest name of a member; some systems have paths of up to 260 characters, none of those that write mail more.
const NAME: usize = 1024;
/// Most bytes of the extra fields of one header that are not zero: times and owners take 30 to 50, and the shortest virus is longer. Office
/// fills up with zeros.
const EXTRA: usize = 60;

/// Whether members follow each other from the first byte to the directory, and that has one header for each and nothing else.
pub(super) fn is_whole(data: &[u8], entries: &BTreeMap<usize, Entry>) -> bool {
    let directory = entries.iter().try_fold(0, |at, (place, entry)| {
        let placed = *place == at && is_empty_if_a_directory(entry);
        placed.then(|| end_of_member(data, *place, entry)).flatten()
    });
    let end = directory.and_then(|at| (0..entries.len()).try_fold(at, |at, _| end_of_header(data, at)));
    // The end record follows; that there is none but this, and nothing behind it, has been seen already.
    end.is_some_and(|end| slice(data, end, 4) == Some(b"PK\x05\x06") && end + 22 == data.len())
}

/// A folder has no data, so none is looked at.
fn is_empty_if_a_directory(entry: &Entry) -> bool {
    let mut headers = entry.central.iter().chain(&entry.local);
    !headers.any(|header| header.is_directory() && header.packed > 0)
}

/// Where the next member or the directory begins.
fn end_of_member(data: &[u8], place: usize, entry: &Entry) -> Option<usize> {
    let (Some(local), [central]) = (&entry.local, &entry.central[..]) else { return None };
    let (name, extra) = (usize::from(le16(data, place + 26)?), usize::from(le16(data, place + 28)?));
    let says_little = name <= NAME && is_little(slice(data, place + 30 + name, extra)?);
    if !says_little || entry.data != place + 30 + name + extra {
        return None;
    }
    let end = entry.data.checked_add(index(central.packed)).filter(|end| *end <= data.len())?;
    if local.has_descriptor() { end_of_descriptor(data, end, central) } else { Some(end) }
}

/// Checksum and sizes behind the data, mostly with a signature (APPNOTE 4.3.9).
fn end_of_descriptor(data: &[u8], at: usize, central: &Header) -> Option<usize> {
    let at = if slice(data, at, 4)? == b"PK\x07\x08" { at + 4 } else { at };
    let said = (le32(data, at)?, u64::from(le32(data, at + 4)?), u64::from(le32(data, at + 8)?));
    (said == (central.crc, central.packed, central.size)).then_some(at + 12)
}

/// Where the header of the directory ends that stands here.
fn end_of_header(data: &[u8], at: usize) -> Option<usize> {
    if slice(data, at, 4)? != b"PK\x01\x02" {
        return None;
    }
    let (name, extra) = (usize::from(le16(data, at + 28)?), usize::from(le16(data, at + 30)?));
    let comment = le16(data, at + 32)?;
    let says_little = name <= NAME && comment == 0 && is_little(slice(data, at + 46 + name, extra)?);
    says_little.then_some(at + 46 + name + extra)
}

fn is_little(extra: &[u8]) -> bool {
    extra.iter().filter(|byte| **byte != 0).count() <= EXTRA
}

#[cfg(test)]
mod tests {
    use super::super::zip_headers;
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Write};
    use zip::write::{ExtendedFileOptions, FileOptions};

    fn whole(data: &[u8]) -> bool {
        is_whole(data, &zip_headers::read(data).entries)
    }

    /// Two members and a folder, with this much in an extra field and this comment.
    fn archive(extra: &[u8], comment: &str) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        archive.set_comment(comment).unwrap();
        archive.add_directory("d/", FileOptions::<()>::default()).unwrap();
        for name in ["d/a.txt", "b.txt"] {
            let mut options = FileOptions::<ExtendedFileOptions>::default();
            if !extra.is_empty() {
                options.add_extra_field(0x7777, extra, false).unwrap();
            }
            archive.start_file(name, options).unwrap();
            archive.write_all(&b"hello ".repeat(100)).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn what_packers_write_is_whole() {
        assert!(whole(&archive(b"", "")));
        assert!(whole(&archive(&[1; 50], "")));
        assert!(whole(&archive(&[0; 500], "")));
    }

    #[test]
    fn room_for_something_else_is_not() {
        assert!(!whole(&archive(&[1; 100], "")));
        assert!(!whole(&archive(b"", "a comment")));
        let good = archive(b"", "");
        for (at, more) in [(0, &b"x"[..]), (good.len(), b"x"), (good.len() - 22, b"x"), (40, b"PK")] {
            let mut bad = good.clone();
            bad.splice(at..at, more.iter().copied());
            assert!(!whole(&bad), "{at}");
        }
        // Between two members, with all places put right.
        let second = memchr::memmem::find_iter(&good, b"PK\x03\x04").nth(2).unwrap();
        let mut gap = good.clone();
        gap.splice(second..second, *b"0123456789");
        let directory = memchr::memmem::find_iter(&gap, b"PK\x01\x02").nth(2).unwrap();
        gap[directory + 42] += 10;
        let end = gap.len() - 22;
        gap[end + 16] += 10;
        assert_eq!(zip_headers::read(&gap).entries.len(), 3);
        assert!(zip_headers::is_simple(&gap, 3));
        assert!(!whole(&gap));
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, at in 0usize..400, byte: u8) {
            whole(&data);
            let mut bent = archive(b"", "");
            let place = at % bent.len();
            bent[place] = byte;
            whole(&bent);
        }
    }
}
