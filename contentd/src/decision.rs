// SPDX-License-Identifier: GPL-3.0-or-later
//! The record of one message: what was decided, why, what the client was told and how long each stage took.
//!
//! One log event and the counters are written from it, at one place. It decides nothing. Field names: docs/logging.md.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;

use crate::ambiguity::AmbiguitySettings;
use crate::envelope::Envelope;
use crate::findings::Findings;
use crate::handover::Handover;
use crate::smtp::reply::Reply;
use crate::spam::headers;
use crate::verdict::Verdict;

/// What the client was told in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Accepted,
    Deferred,
    Rejected,
    /// It was gone before we could say anything.
    Nothing,
}

impl Told {
    pub(crate) fn of(reply: Option<&Reply>) -> Told {
        match reply.map(|reply| reply.code() / 100) {
            Some(2) => Told::Accepted,
            Some(5) => Told::Rejected,
            Some(_) => Told::Deferred,
            None => Told::Nothing,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Told::Accepted => "accepted",
            Told::Deferred => "deferred",
            Told::Rejected => "rejected",
            Told::Nothing => "lost",
        }
    }
}

/// Collects the facts along the path of a message.
#[derive(Debug)]
pub(crate) struct Decision {
    started: Instant,
    /// Bytes received.
    pub(crate) size: u64,
    category: &'static str,
    destiny: &'static str,
    /// The verdict's reason, a word.
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    orders: String,
    checks: String,
    policy_ids: String,
    spf: String,
    dnsbl: Option<i32>,
    dnsbl_lists: String,
    score: Option<f64>,
    required: Option<f64>,
    tests: String,
    bound: String,
    lookups: String,
    nexthop_reply: Option<String>,
    receive: Duration,
    inspect: Duration,
    forward: Duration,
}

impl Decision {
    pub(crate) fn new() -> Decision {
        Decision {
            started: Instant::now(),
            size: 0,
            category: "none",
            destiny: "none",
            reason: "none",
            detail: String::new(),
            orders: String::new(),
            checks: String::new(),
            policy_ids: String::new(),
            spf: String::new(),
            dnsbl: None,
            dnsbl_lists: String::new(),
            score: None,
            required: None,
            tests: String::new(),
            bound: String::new(),
            lookups: String::new(),
            nexthop_reply: None,
            receive: Duration::ZERO,
            inspect: Duration::ZERO,
            forward: Duration::ZERO,
        }
    }

    pub(crate) fn received(&mut self, took: Duration) {
        self.receive = took;
    }

    /// What policyd has handed over.
    pub(crate) fn taken_over(&mut self, handover: &Handover) {
        self.orders = handover.words();
        self.policy_ids = handover.decisions.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(",");
        self.spf = handover.spf.clone().unwrap_or_default();
        self.dnsbl = handover.dnsbl;
        self.dnsbl_lists = handover.lists.join(",");
    }

    pub(crate) fn inspected(&mut self, took: Duration) {
        self.inspect = took;
    }

    /// What Postfix' tables and renamed attachments have to say.
    pub(crate) fn checked(&mut self, checked: &crate::checks::Outcome) {
        self.checks = checked.notes.join("; ");
    }

    /// What the spam rules and other signs say.
    pub(crate) fn rated(&mut self, findings: &Findings, ambiguity: &AmbiguitySettings) {
        if let Some(spam) = &findings.spam {
            (self.score, self.required) = (Some(spam.score), Some(spam.required));
            self.tests = headers::tests(headers::symbols(findings, ambiguity), ",");
            self.bound = headers::bound(findings).unwrap_or_default();
            if let Some(found) = findings.spf.filter(|_| self.spf.is_empty()) {
                found.clone_into(&mut self.spf);
            }
            if findings.asked.asked > 0 {
                self.lookups = findings.asked.to_string();
            }
        }
    }

    pub(crate) fn decided(&mut self, verdict: &Verdict) {
        self.category = verdict.category.word();
        self.destiny = verdict.destiny.word();
        self.reason = verdict.reason.word();
        self.detail.clone_from(&verdict.detail);
    }

    /// The message was not inspected, because of what came of it before.
    pub(crate) fn poisoned(&mut self, destiny: &'static str, detail: String) {
        (self.category, self.destiny, self.reason) = ("unchecked", destiny, "poison");
        self.detail = detail;
    }

    pub(crate) fn forwarded(&mut self, took: Duration, reply: &Reply) {
        self.forward = took;
        self.nexthop(reply);
    }

    pub(crate) fn nexthop(&mut self, reply: &Reply) {
        self.nexthop_reply = Some(reply.first_line().into_owned());
    }

    /// Writes the event and the counters.
    pub(crate) fn write(&self, envelope: &Envelope, told: Told, reason: &'static str) {
        let took = self.started.elapsed();
        counter!("octroi_contentd_messages_total", "category" => self.category, "destiny" => self.destiny).increment(1);
        counter!("octroi_contentd_outcomes_total", "outcome" => told.word(), "reason" => reason).increment(1);
        counter!("octroi_contentd_bytes_total").increment(self.size);
        histogram!("octroi_contentd_message_seconds").record(took.as_secs_f64());
        let client = &envelope.client;
        let recipients: Vec<&str> = envelope.recipients.iter().take(10).map(|path| path.address.as_str()).collect();
        tracing::info!(
            target: "decision",
            id = %envelope.id,
            client = client.addr.as_deref().unwrap_or(""),
            client_name = client.name.as_deref().unwrap_or(""),
            helo = client.helo.as_deref().unwrap_or(""),
            queue_id = client.ident.as_deref().unwrap_or(""),
            sender = envelope.sender.address,
            rcpt = recipients.join(","),
            rcpts = envelope.recipients.len(),
            size = self.size,
            category = self.category,
            destiny = self.destiny,
            verdict = told.word(),
            reason,
            detail = self.detail,
            orders = self.orders,
            checks = self.checks,
            policy_id = self.policy_ids,
            spf = self.spf,
            dnsbl = self.dnsbl.map(|score| score.to_string()).unwrap_or_default(),
            dnsbl_lists = self.dnsbl_lists,
            score = shown(self.score),
            required = shown(self.required),
            tests = self.tests,
            bound = self.bound,
            lookups = self.lookups,
            nexthop_reply = self.nexthop_reply.as_deref().unwrap_or(""),
            took_ms = micros(took) / 1000,
            receive_us = micros(self.receive),
            inspect_us = micros(self.inspect),
            forward_us = micros(self.forward),
            "message"
        );
    }
}

/// A number for the log; empty when there is none.
fn shown(number: Option<f64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Microseconds for the log.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
