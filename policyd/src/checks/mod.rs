// SPDX-License-Identifier: GPL-3.0-or-later
//! One file per check. A check looks at a request and at what its store or list says, and gives a finding or has
//! nothing to say; it never sees bytes of the wire or SQL.

pub mod access;
pub mod adaptive;
pub mod dnsbl;
pub mod dnswl;
pub mod geo;
pub mod greylist;
pub mod helo;
pub mod limits;
pub mod marks;
pub mod perimeter;
pub mod pool;
pub mod protected;
pub mod rdns;
pub mod recipients;
pub mod rules;
pub mod sender_mx;
pub mod shield;
pub mod spf_policy;
