// SPDX-License-Identifier: GPL-3.0-or-later
//! The connection to an engine that says anything at any time and closes: no line is made of what was not said, and nothing is lost of
//! what was.

#![no_main]

use std::sync::LazyLock;

use contentd::scan::fuzzing;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|input: &[u8]| {
    let Some((first, said)) = input.split_first() else { return };
    let pieces: Vec<&[u8]> = said.chunks(usize::from(*first) * 16 + 1).take(64).collect();
    RUNTIME.block_on(fuzzing::wire(&pieces));
});
