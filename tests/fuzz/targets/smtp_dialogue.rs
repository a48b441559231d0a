// SPDX-License-Identifier: GPL-3.0-or-later
//! The state machine of the SMTP server of contentd: any lines, in any order, with a next hop that takes or refuses by the length of
//! what it is asked. It may answer with anything but a panic, and it keeps its own limits.

#![no_main]

use contentd::envelope::{Envelope, MessageId};
use contentd::smtp::protocol::{Dialogue, Limits, Step};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 10;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { hostname: "mx.example.test".to_owned(), max_size: 1 << 20, max_recipients: MOST };
    let mut dialogue = Dialogue::new(limits);
    let mut wire = Vec::new();
    dialogue.banner().write(&mut wire);
    for line in input.split(|byte| *byte == b'\n') {
        let step = if line.len() > 2000 { dialogue.line_too_long() } else { dialogue.step(line) };
        let takes = line.len() % 3 != 0;
        match step {
            Step::Reply(reply) | Step::Reset(reply) => reply.write(&mut wire),
            Step::Close(reply) => {
                reply.write(&mut wire);
                break;
            }
            Step::Mail(sender) if takes => {
                dialogue.begin(Envelope::new(MessageId::generate(), sender, dialogue.client().clone()));
            }
            Step::Recipient(recipient) if takes => dialogue.add_recipient(recipient),
            Step::Mail(_) | Step::Recipient(_) => {}
            Step::Data(envelope) => {
                assert!((1..=MOST).contains(&envelope.recipients.len()), "DATA with {}", envelope.recipients.len());
            }
        }
    }
    // What a client sent must not become a line of a reply of ours (RFC 5321 section 4.2).
    for line in wire.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n") && line[..3].iter().all(u8::is_ascii_digit), "{line:?}");
        assert!(!line[..line.len() - 2].iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{line:?}");
    }
});
