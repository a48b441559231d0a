// SPDX-License-Identifier: GPL-3.0-or-later
//! Rate limits as pure functions: what counts ([`mod@unit`]), by which key ([`key`]), how much in which time ([`rate`], [`window`]), what
//! a request is charged ([`plan`]), and whether there is room for it ([`settle`]).
//!
//! A limit is one bucket per key and rate. A sliding one fills with every charge and runs out evenly (the generic cell rate
//! algorithm: its burst at once, then as fast as the rate); a calendar one is emptied when its day or month begins.

pub mod alone;
pub mod handover;
pub mod key;
pub mod over;
pub mod plan;
pub mod rate;
pub mod settle;
pub mod stages;
pub mod unit;
pub mod window;
