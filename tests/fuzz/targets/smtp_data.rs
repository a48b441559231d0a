// SPDX-License-Identifier: GPL-3.0-or-later
//! The end of data: however the bytes are cut into pieces, the message and its end are the same; the message has canonical lines only;
//! and written for the next hop and read again, it is the same message with the same end.

#![no_main]

use contentd::smtp::data::{Decoder, END_OF_DATA, Encoder};
use libfuzzer_sys::fuzz_target;

fn decode(input: &[u8], piece: usize) -> (Vec<u8>, usize, bool) {
    let (mut decoder, mut out, mut used) = (Decoder::default(), Vec::new(), 0);
    for bytes in input.chunks(piece) {
        let taken = decoder.feed(bytes, &mut out);
        used += taken;
        if taken < bytes.len() {
            break;
        }
    }
    (out, used, decoder.is_done())
}

fuzz_target!(|input: &[u8]| {
    let Some((first, wire)) = input.split_first() else { return };
    let whole = decode(wire, wire.len().max(1));
    assert_eq!(whole, decode(wire, usize::from(*first).max(1)));
    let (message, _, done) = whole;
    for (at, byte) in message.iter().enumerate() {
        match byte {
            b'\n' => assert!(at > 0 && message[at - 1] == b'\r', "LF without CR"),
            b'\r' if done => assert_eq!(message.get(at + 1), Some(&b'\n'), "CR without LF"),
            _ => {}
        }
    }
    if !done {
        return;
    }
    let (mut encoder, mut sent) = (Encoder::default(), Vec::new());
    encoder.feed(&message, &mut sent);
    encoder.finish(&mut sent);
    sent.extend_from_slice(END_OF_DATA);
    let (again, used, ended) = decode(&sent, sent.len());
    assert!(ended && used == sent.len(), "another end of data");
    assert_eq!(again, message);
});
