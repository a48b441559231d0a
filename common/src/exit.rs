// SPDX-License-Identifier: GPL-3.0-or-later
//! Exit statuses of all programs, with the numbers of sysexits(3).

use std::process::ExitCode;

/// Success.
pub const OK: u8 = 0;
/// EX_USAGE: wrong command line.
pub const USAGE: u8 = 64;
/// EX_DATAERR: the input data is wrong.
pub const DATA: u8 = 65;
/// EX_UNAVAILABLE: a needed service is not there.
pub const UNAVAILABLE: u8 = 69;
/// EX_CONFIG: the configuration is wrong.
pub const CONFIG: u8 = 78;

/// Prints `program: error` on standard error, one line per line of the error, and gives the exit status.
pub fn fail(program: &str, status: u8, error: impl std::fmt::Display) -> ExitCode {
    use std::io::Write;
    // The last line is the one that says why.
    crate::record::flush();
    let mut err = std::io::stderr().lock();
    for line in error.to_string().lines() {
        // Standard error may be closed; the exit status still tells.
        let _ = writeln!(err, "{program}: {line}");
    }
    ExitCode::from(status)
}
