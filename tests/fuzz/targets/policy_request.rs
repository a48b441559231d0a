// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests of Postfix: however the bytes are cut into pieces, the same request is found, or the same fault; and its sender has a
//! normal form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policyd::request::PolicyRequest;
use policyd::sender::{Step, normal};
use policyd::wire::{Framer, WireError};

fn find(input: &[u8], piece: usize) -> (Result<Option<usize>, WireError>, Framer) {
    let mut framer = Framer::new();
    let mut end = 0;
    loop {
        end = (end + piece).min(input.len());
        let found = framer.find(&input[..end]);
        if end == input.len() || !matches!(found, Ok(None)) {
            return (found, framer);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, wire)) = input.split_first() else { return };
    let (found, framer) = find(wire, wire.len().max(1));
    assert_eq!(found, find(wire, usize::from(*first).max(1)).0);
    if let Ok(Some(length)) = found {
        let request = PolicyRequest::parse(framer.block(&wire[..length]));
        normal(&request.sender, &request.recipient, &Step::ALL);
    }
});
