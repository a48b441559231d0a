// SPDX-License-Identifier: GPL-3.0-or-later
//! The record of one request: one log event and the counters are written from it. Field names: docs/logging.md.

use metrics::{counter, histogram};
use tokio::time::Instant;

use super::inspect::Inspected;
use super::request::Request;

/// Collects the facts about a request.
#[derive(Debug)]
pub(crate) struct Record {
    started: Instant,
    /// Handle of the message.
    pub(crate) id: String,
    client: String,
    command: &'static str,
    user: String,
    class: &'static str,
    /// Bytes of the message.
    pub(crate) size: u64,
    category: &'static str,
    score: String,
    required: String,
    symbols: String,
    detail: String,
}

impl Record {
    pub(crate) fn new(client: Option<std::net::IpAddr>) -> Record {
        Record {
            started: Instant::now(),
            id: String::new(),
            client: client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
            command: "none",
            user: String::new(),
            class: "",
            size: 0,
            category: "none",
            score: String::new(),
            required: String::new(),
            symbols: String::new(),
            detail: String::new(),
        }
    }

    pub(crate) fn asked(&mut self, request: &Request) {
        self.command = request.command.word();
        self.user = request.user.as_deref().unwrap_or_default().chars().take(120).collect();
        self.class = request.class.map_or("", |class| class.word());
        if request.user.is_some() {
            counter!("octroi_contentd_spamd_users_total").increment(1);
        }
    }

    pub(crate) fn inspected(&mut self, inspected: &Inspected) {
        let Inspected { verdict, assessment, .. } = inspected;
        self.category = verdict.category.word();
        self.score = assessment.shown_score();
        self.required = assessment.shown_required();
        self.symbols = assessment.names().chars().take(1000).collect();
        self.detail.clone_from(&verdict.detail);
    }

    /// Why there was no verdict.
    pub(crate) fn failed(&mut self, detail: String) {
        self.detail = detail;
    }

    /// Writes the event and the counters. `code`: the number of the answer; none when the client was gone.
    pub(crate) fn write(&self, answer: &'static str, code: Option<u8>) {
        let took = self.started.elapsed();
        counter!("octroi_contentd_spamd_requests_total", "command" => self.command, "answer" => answer).increment(1);
        counter!("octroi_contentd_spamd_bytes_total").increment(self.size);
        histogram!("octroi_contentd_spamd_seconds").record(took.as_secs_f64());
        tracing::info!(
            target: "decision",
            id = self.id,
            client = self.client,
            command = self.command,
            user = self.user,
            class = self.class,
            size = self.size,
            category = self.category,
            answer,
            code = code.map(|code| code.to_string()).unwrap_or_default(),
            score = self.score,
            required = self.required,
            symbols = self.symbols,
            detail = self.detail,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "spamd"
        );
    }
}
