// SPDX-License-Identifier: GPL-3.0-or-later
//! The listener for clients of SpamAssassin's daemon: spamc, spamass-milter, Exim, mail programs (SPAMD/1.5).
//!
//! `protocol`, `request`, `reply`, `report`, `assessment` and `markup` are pure; `body` reads a message, `inspect` has it inspected as one
//! that came by SMTP, `server` serves a connection: one request each, as spamd does.

pub mod assessment;
mod body;
mod inspect;
pub mod markup;
pub mod protocol;
mod record;
pub mod reply;
pub mod report;
pub mod request;
pub(crate) mod server;
pub mod settings;

/// Tells the metrics page what the numbers mean.
pub(crate) fn describe_metrics() {
    use metrics::{describe_counter, describe_histogram};
    describe_counter!("octroi_contentd_spamd_requests_total", "Requests of clients of spamd, by command and answer");
    describe_histogram!("octroi_contentd_spamd_seconds", "Time from a connection of such a client to its answer");
    describe_counter!("octroi_contentd_spamd_bytes_total", "Bytes of messages that such clients have sent");
    describe_counter!("octroi_contentd_spamd_refused_clients_total", "Connections from outside spamd.allow");
    describe_counter!(
        "octroi_contentd_spamd_users_total",
        "Requests that named a user; there are no preferences of users, the rules of all hold"
    );
}
