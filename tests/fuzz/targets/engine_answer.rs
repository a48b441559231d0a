// SPDX-License-Identifier: GPL-3.0-or-later
//! What antivirus engines answer: any bytes are an answer or none, and "clean" only when that was said. The first byte chooses the engine.

#![no_main]

use contentd::scan::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, answer)) = input.split_first() else { return };
    match first % 4 {
        0 => fuzzing::clamd(answer),
        1 => fuzzing::icap(answer),
        2 => fuzzing::sssp(answer),
        _ => fuzzing::line(answer),
    }
});
