// SPDX-License-Identifier: GPL-3.0-or-later
//! What the end-to-end tests and the sandbox of `make run` share: real servers started in private temporary
//! directories, fakes that misbehave on order, clients that speak exactly what a test says.
//!
//! Nothing here skips: a server that cannot be had is a failed test.

pub mod bombs;
pub mod c_icap;
pub mod clamd;
pub mod daemon;
pub mod fake_clamd;
pub mod fake_icap;
pub mod fake_line;
pub mod fake_sssp;
pub mod filter;
pub mod greylister;
pub mod letters;
pub mod mailbox;
pub mod mmdb;
pub mod nameserver;
pub mod nexthop;
pub mod ports;
pub mod postfix;
pub mod postgres;
pub mod probes;
pub mod process;
pub mod reference;
pub mod sandbox;
pub mod sender;
pub mod shapes;
pub mod slapd;
pub mod smtp_client;
pub mod spamc;
