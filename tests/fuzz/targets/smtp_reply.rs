// SPDX-License-Identifier: GPL-3.0-or-later
//! Replies of the next hop, in pieces, and XFORWARD of the client: what goes on to somebody else is well formed.

#![no_main]

use contentd::smtp::reply::ReplyParser;
use contentd::smtp::xforward;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parser = ReplyParser::default();
    let mut rest = input;
    while !rest.is_empty() {
        let Ok((used, reply)) = parser.feed(rest) else { break };
        if let Some(reply) = reply {
            let mut wire = Vec::new();
            reply.write(&mut wire);
            assert!(wire.ends_with(b"\r\n"));
            let (again, same) = ReplyParser::default().feed(&wire).expect("our own reply can be read");
            assert_eq!((again, same.as_ref()), (wire.len(), Some(&reply)));
        } else if used == 0 {
            break;
        }
        rest = &rest[used..];
    }
    if let Ok(values) = xforward::parse(input) {
        let all: Vec<_> = values.iter().map(|(attribute, _)| *attribute).collect();
        for command in xforward::commands(&values, &all) {
            let text = command.strip_suffix(b"\r\n").unwrap_or(&command);
            assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{command:?}");
        }
    }
});
