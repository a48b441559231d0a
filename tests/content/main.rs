// SPDX-License-Identifier: GPL-3.0-or-later
//! contentd between a client that says exactly what a test wants and a next hop that misbehaves on order.
//!
//! No Postfix here (see `postfix`) and no scanner: what is tested is the road of a message and of the replies.
//! The rule behind all of it: no mail is lost and none is delivered twice.

mod amavis;
mod checks;
mod dialogue;
mod end_of_data;
mod faults;
mod full;
mod helper;
mod load;
mod once;
mod process;
mod quarantine;
mod reuse;
mod service;
mod spam;
mod spam_network;
mod spam_stats;
