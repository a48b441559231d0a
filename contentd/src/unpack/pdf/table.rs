// SPDX-License-Identifier: GPL-3.0-or-later
//! The objects of a PDF by their numbers, wherever they stand: in the file, or packed in a stream (ISO 32000-1 sections 7.3.10 and 7.5.7). Of several with
//! one number the last one counts, as in a file that was changed. Needed for text only; what may hide something is looked for without a table.

use super::objects::{Dictionary, Reader, Value};
use super::{Decoded, lock, names};
use memchr::memmem;
use std::cell::Cell;
use std::collections::HashMap;

/// Objects.
const MOST: usize = 50_000;
/// Steps from one reference to the next.
const STEPS: usize = 8;
/// Bytes that are decoded in all.
const BYTES: usize = 16 << 20;

/// All objects.
pub(super) struct Table<'d> {
    data: &'d [u8],
    /// Where each begins, behind `obj`.
    places: HashMap<u32, usize>,
    packed: HashMap<u32, Value>,
    left: Cell<usize>,
}

impl<'d> Table<'d> {
    /// `go_on`: whether there is time left.
    pub(super) fn new(data: &'d [u8], go_on: &dyn Fn() -> bool) -> Table<'d> {
        let mut table = Table { data, places: HashMap::new(), packed: HashMap::new(), left: Cell::new(BYTES) };
        let mut packs = Vec::new();
        for at in memmem::find_iter(data, b"obj") {
            let Some((number, _)) = lock::header(&data[..at]) else { continue };
            if table.places.len() >= MOST || !go_on() {
                break;
            }
            table.places.insert(number, at + 3);
            let near = &data[at..data.len().min(at + 400)];
            if super::has(&near[..memmem::find(near, b"stream").unwrap_or(near.len())], b"/ObjStm") {
                packs.push(at + 3);
            }
        }
        for place in packs {
            let Some((head, bytes)) = table.stream_at(place).filter(|_| go_on()) else { continue };
            for (number, object) in names::objects(&bytes, head) {
                if let Some(value) = Reader::new(object, 0).value().filter(|_| table.packed.len() < MOST) {
                    table.packed.insert(number, value);
                }
            }
        }
        table
    }

    /// The object of this number.
    pub(super) fn object(&self, number: u32) -> Option<Value> {
        match self.places.get(&number) {
            Some(place) => Reader::new(self.data, *place).value(),
            None => self.packed.get(&number).cloned(),
        }
    }

    /// What a value stands for.
    pub(super) fn resolve(&self, value: &Value) -> Option<Value> {
        let mut value = value.clone();
        for _ in 0..STEPS {
            let Value::Reference(number, _) = value else { return Some(value) };
            value = self.object(number)?;
        }
        None
    }

    /// What stands under a key, when it is a dictionary.
    pub(super) fn dictionary(&self, of: &Dictionary, key: &str) -> Option<Dictionary> {
        match self.resolve(of.get(key)?)? {
            Value::Dictionary(dictionary) => Some(dictionary),
            _ => None,
        }
    }

    /// The decoded stream that a reference leads to.
    pub(super) fn stream(&self, value: &Value) -> Option<Vec<u8>> {
        let Value::Reference(number, _) = value else { return None };
        Some(self.stream_at(*self.places.get(number)?)?.1)
    }

    /// Dictionary and content of the stream whose object begins there.
    fn stream_at(&self, place: usize) -> Option<(&'d [u8], Vec<u8>)> {
        let rest = self.data.get(place..)?;
        let word = memmem::find(rest, b"stream")?;
        let (head, rest) = (&rest[..word], &rest[word + 6..]);
        if super::has(head, b"endobj") || super::is_picture(head) {
            return None;
        }
        let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
        let rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        let end = memmem::find(rest, b"endstream").unwrap_or(rest.len());
        let Decoded { bytes, .. } = super::decode(&rest[..end], &super::plain(head), self.left.get());
        self.left.set(self.left.get().saturating_sub(bytes.len()));
        Some((head, bytes))
    }

    /// Numbers of all objects that stand in the file, in the order of the numbers.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.places.keys().chain(self.packed.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
