// SPDX-License-Identifier: GPL-3.0-or-later
//! The migrations are compiled in (`sqlx::migrate!`); a new file must lead to a new build.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
