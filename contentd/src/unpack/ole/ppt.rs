// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted presentations (MS-PPT 2.3.7): the objects of the stream are encrypted one by one, each with a key made of its number. Where they stand is
//! said by lists that are not encrypted (2.3.3 to 2.3.5). Pure.

use crate::unpack::ciphers::Rc4;
use crate::unpack::field::{index, le16, le32, slice};
use std::collections::HashSet;

/// Lists of objects that are followed, one for each time that the presentation was saved.
const LISTS: usize = 1000;
/// Objects.
const MOST: usize = 100_000;

const USER_EDIT: u16 = 0x0ff5;
const DOCUMENT: u16 = 0x03e8;
const DIRECTORY: u16 = 0x1772;
const CRYPT_SESSION: u16 = 0x2f14;

/// Where the last list of a presentation is, when it is encrypted; from the stream `Current User`.
pub(super) fn encrypted(user: &[u8]) -> Option<usize> {
    (le32(user, 12)? == 0xf3d1_c4df).then_some(index(le32(user, 16)?))
}

/// An encrypted presentation.
#[derive(Debug, PartialEq)]
pub(super) struct Session {
    /// Number and place of each object.
    objects: Vec<(u32, usize)>,
    /// The number of what is said of the encryption.
    own: u32,
    /// The number of the document itself.
    document: u32,
}

impl Session {
    /// None: there is no such list.
    pub(super) fn read(stream: &[u8], edit: usize) -> Option<Session> {
        let (mut objects, mut edit): (Vec<(u32, usize)>, usize) = (Vec::new(), edit);
        let (mut numbers, mut seen) = (None, HashSet::new());
        for _ in 0..LISTS {
            let Some(atom) = body(stream, edit, USER_EDIT) else { break };
            // The newest one is read first, and knows best.
            numbers = numbers.or(le32(atom, 28).zip(le32(atom, 16)));
            let Some(place) = le32(atom, 12) else { break };
            directory(stream, index(place), &mut seen, &mut objects);
            match le32(atom, 8).map_or(0, index) {
                0 => break,
                before if before >= edit => break,
                before => edit = before,
            }
        }
        let (own, document) = numbers?;
        Some(Session { objects, own, document })
    }

    /// What is said of the encryption.
    pub(super) fn said<'s>(&self, stream: &'s [u8]) -> &'s [u8] {
        let place = self.objects.iter().find(|(id, _)| *id == self.own).map(|(_, place)| *place);
        place.and_then(|place| body(stream, place, CRYPT_SESSION)).unwrap_or_default()
    }

    /// Takes the encryption off all objects; `key` gives what one is encrypted with. Whether the document itself is there then.
    pub(super) fn decrypt(&self, stream: &mut [u8], key: impl Fn(u32) -> Rc4) -> bool {
        // Objects that lie within each other are there to waste our time.
        let mut left = stream.len().saturating_mul(2);
        for (id, place) in self.objects.iter().filter(|(id, _)| *id != self.own) {
            let Some(object) = stream.get_mut(*place..).filter(|object| object.len() >= 8) else { continue };
            let mut key = key(*id);
            let (head, rest) = object.split_at_mut(8);
            head.iter_mut().for_each(|byte| *byte ^= key.next());
            let length = index(le32(head, 4).unwrap_or_default()).min(rest.len());
            rest[..length].iter_mut().for_each(|byte| *byte ^= key.next());
            let Some(rest) = left.checked_sub(length + 8) else { break };
            left = rest;
        }
        let document = self.objects.iter().find(|(id, _)| *id == self.document);
        document.is_some_and(|(_, place)| body(stream, *place, DOCUMENT).is_some())
    }
}

/// The content of the record of this kind there.
fn body(stream: &[u8], place: usize, kind: u16) -> Option<&[u8]> {
    let head = slice(stream, place, 8)?;
    let body = stream.get(place + 8..)?;
    let length = index(le32(head, 4)?).min(body.len());
    (le16(head, 2)? == kind).then(|| &body[..length])
}

/// Runs of objects: the number of the first and how many there are, then their places.
fn directory(stream: &[u8], place: usize, seen: &mut HashSet<u32>, objects: &mut Vec<(u32, usize)>) {
    let mut list = body(stream, place, DIRECTORY).unwrap_or_default().chunks_exact(4).filter_map(|four| le32(four, 0));
    while let Some(run) = list.next() {
        for (id, place) in (run & 0xf_ffff..).zip(list.by_ref().take(index(run >> 20))) {
            if objects.len() < MOST && seen.insert(id) {
                objects.push((id, index(place)));
            }
        }
    }
}
