// SPDX-License-Identifier: GPL-3.0-or-later
//! XFORWARD: what is read of it goes on to the next hop as the same values, in commands that are not too long.

#![no_main]

use contentd::smtp::xforward::{self, Attribute};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    xforward::decode(input);
    let Ok(values) = xforward::parse(input) else { return };
    let mut again = Vec::new();
    for command in xforward::commands(&values, &Attribute::ALL) {
        assert!(!command.iter().any(u8::is_ascii_control), "{command:?}");
        let rest = command.strip_prefix(b"XFORWARD ").expect("the command");
        let passed = xforward::parse(rest).expect("our own command can be read");
        assert!(command.len() + 2 <= 512 || passed.len() == 1, "{} bytes", command.len());
        again.extend(passed);
    }
    assert!(again.iter().all(|value| values.contains(value)), "{values:?} became {again:?}");
});
