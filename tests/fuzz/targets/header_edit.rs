// SPDX-License-Identifier: GPL-3.0-or-later
//! Header fields that are added and taken out: ours cannot be broken or forged by what the message holds, and the body keeps its bytes.

#![no_main]

use contentd::message::edit::{self, HeaderField, HeaderSettings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let settings = HeaderSettings::default();
    let value = String::from_utf8_lossy(&input[..input.len() / 4]);
    let own = [HeaderField::new("X-Octroi-Status", &value)];
    let planned = edit::plan(input, &own, &settings);
    let mut before = 0;
    for cut in &planned.cut {
        assert!(before <= cut.start && cut.start < cut.end && cut.end <= input.len() as u64, "{:?}", planned.cut);
        before = cut.end;
    }
    for line in planned.prepend.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n") && line.len() <= 1000, "{line:?}");
        assert!(line[..line.len() - 2].iter().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    }
    // What is left has no field of ours that was not added by us.
    let mut left = Vec::new();
    let mut at = 0;
    for cut in &planned.cut {
        left.extend_from_slice(&input[at..cut.start as usize]);
        at = cut.end as usize;
    }
    left.extend_from_slice(&input[at..]);
    let again = edit::plan(&left, &own, &settings);
    assert!(again.cut.is_empty(), "a second look finds {:?} in {left:?}", again.cut);
});
