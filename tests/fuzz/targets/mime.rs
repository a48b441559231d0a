// SPDX-License-Identifier: GPL-3.0-or-later
//! All readings of a message: any bytes are walked within the limits, and what is kept of them never exceeds what the budget allows.

#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use contentd::budget::{self, Budget};
use contentd::message::{Limits, parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { depth: 20, parts: 200, texts: input.len() % 2 == 0, ..Limits::default() };
    let size = input.len() as u64;
    let until = Instant::now() + Duration::from_secs(60);
    let mut budget = Budget::new(&budget::Limits::default(), size, limits.readings(size), until);
    let view = parts::walk(&Bytes::copy_from_slice(input), &limits, &mut budget);
    assert!(view.parts.len() <= limits.parts + 1, "{} parts", view.parts.len());
    let kept: u64 = view.kept.iter().map(|kept| kept.bytes.len() as u64).sum();
    assert!(kept <= limits.readings(size) + size, "{kept} bytes kept of {size}");
    assert!(view.encoded.iter().chain(&view.bodies).all(|range| range.end <= input.len()), "a range outside the message");
});
