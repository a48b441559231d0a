// SPDX-License-Identifier: GPL-3.0-or-later
//! The SMTP side of the filter: what Postfix's smtpd says to us on port 10024.
//!
//! `protocol`, `reply`, `xforward` and `data` are pure; `front` holds the connection and `server` runs the dialogue.
//! RFC 5321, 1870, 2920, 6152, 6531, 3461; Postfix SMTPD_PROXY_README and XFORWARD_README.

pub mod data;
pub(crate) mod front;
pub(crate) mod partings;
pub mod protocol;
pub mod reply;
pub(crate) mod server;
pub mod xforward;
