// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi import` with the real programs: postgrey and sqlgrey are run, asked and stopped, and what passed there must pass at
//! policyd. The other programs are not packaged any more; their formats are tested in ctl/tests/import.rs.

mod database;
#[allow(dead_code, reason = "shared with the tests of policyd, which use all of it")]
#[path = "../policy/gate.rs"]
mod gate;
mod old;
mod postgrey;
mod sqlgrey;
