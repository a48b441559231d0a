// SPDX-License-Identifier: GPL-3.0-or-later
//! The numbers that decisions leave behind (`octroi_policyd_…`). Handles are looked up once, not per request.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use crate::request::ProtocolState;
use crate::verdict::{Reason, Verdict};
use crate::wire::WireError;

/// The counters of one daemon.
#[derive(Debug)]
pub struct Tally {
    requests: [Counter; ProtocolState::ALL.len()],
    /// Made when they first occur: a page of zeros for pairs that cannot occur helps nobody.
    decisions: [[OnceLock<Counter>; Verdict::KINDS]; Reason::COUNT],
    seconds: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Counters with the recorder that is installed now.
    pub fn new() -> Self {
        describe();
        Self {
            requests: ProtocolState::ALL
                .map(|state| counter!("octroi_policyd_requests_total", "state" => state.word())),
            decisions: [const { [const { OnceLock::new() }; Verdict::KINDS] }; Reason::COUNT],
            seconds: histogram!("octroi_policyd_decision_seconds"),
        }
    }

    /// Counts one decision.
    pub fn decided(&self, state: ProtocolState, verdict: &Verdict, reason: Reason, took: Duration) {
        self.requests[state as usize].increment(1);
        let pair = &self.decisions[reason as usize][verdict.kind()];
        let (action, reason) = (verdict.word(), reason.word());
        pair.get_or_init(|| counter!("octroi_policyd_decisions_total", "action" => action, "reason" => reason))
            .increment(1);
        self.seconds.record(took);
    }

    /// Counts a request that could not be read.
    pub fn unreadable(&self, error: WireError) {
        counter!("octroi_policyd_wire_errors_total", "error" => error.word()).increment(1);
    }
}

fn describe() {
    describe_counter!("octroi_policyd_requests_total", "Policy requests by protocol state.");
    describe_counter!("octroi_policyd_decisions_total", "Decisions by Postfix action and reason.");
    describe_histogram!("octroi_policyd_decision_seconds", "Time from a complete request to its decision.");
    describe_counter!(
        "octroi_policyd_wire_errors_total",
        "Requests that could not be read; the connection was closed."
    );
    describe_counter!("octroi_policyd_connections_broken_total", "Connections given up inside a request or its reply.");
    describe_gauge!("octroi_policyd_store_up", "1 while the store answers, 0 while on_store_error decides.");
    describe_counter!("octroi_policyd_store_failures_total", "Statements that failed or came too late.");
    describe_histogram!("octroi_policyd_store_batch", "Requests that shared one statement.");
    describe_counter!(
        "octroi_policyd_greylist_cached_total",
        "Triplets known to have passed, answered without the store."
    );
    describe_counter!("octroi_policyd_greylist_local_total", "Triplets decided while the store did not answer.");
    describe_gauge!("octroi_policyd_journal_bytes", "Size of the journal of what was decided without the store.");
    describe_counter!("octroi_policyd_journal_records_total", "Records written to the journal.");
    describe_counter!(
        "octroi_policyd_journal_dropped_total",
        "Records lost: the journal was full or could not be written."
    );
    describe_counter!(
        "octroi_policyd_journal_replayed_total",
        "Records that the store has taken over from the journal."
    );
    describe_counter!("octroi_policyd_asked_total", "Questions to other policy servers, by outcome.");
    describe_counter!("octroi_policyd_compared_total", "Decisions compared with those of other policy servers.");
    describe_counter!("octroi_policyd_rule_matches_total", "Requests that a rule matched.");
    describe_counter!("octroi_policyd_rule_shadow_total", "Requests that a shadow rule matched.");
    describe_counter!("octroi_policyd_rule_untold_total", "Requests of which cannot be told whether a rule matches.");
    describe_gauge!("octroi_policyd_acl_entries", "Entries of the access lists in the store that are in force.");
    describe_counter!("octroi_policyd_acl_loads_total", "Times the access lists in the store were put in force anew.");
    describe_counter!(
        "octroi_policyd_acl_failures_total",
        "Times the access lists in the store could not be followed."
    );
    describe_counter!(
        "octroi_policyd_decision_log_dropped_total",
        "Decisions missing in the decision log: the store was away or behind."
    );
    describe_counter!("octroi_policyd_orders_total", "Orders for contentd, by order and by whether it hears of them.");
    describe_counter!(
        "octroi_policyd_explain_dropped_total",
        "Decisions that cannot be explained: the store was away or behind."
    );
    describe_counter!("octroi_policyd_recipients_total", "Recipients looked up, by what is known and by whom.");
    describe_gauge!("octroi_policyd_recipients_known", "Known recipients that this host remembers.");
    describe_counter!("octroi_policyd_recipients_dropped_total", "Answers of directories not written to the store.");
    describe_counter!(
        "octroi_policyd_recipients_file_failures_total",
        "Times what is known could not be written to disk."
    );
    describe_gauge!("octroi_policyd_directory_up", "1 while the directory answers.");
    describe_histogram!("octroi_policyd_directory_seconds", "Time for one question to the directory.");
    describe_counter!("octroi_policyd_directory_failures_total", "Questions that the directory did not answer.");
    describe_gauge!("octroi_policyd_directory_copy_entries", "Recipients in the full copy of the directory.");
    describe_gauge!("octroi_policyd_directory_copy_time", "When the full copy was taken, in seconds since 1970.");
    describe_counter!("octroi_policyd_directory_copies_total", "Full copies of the directory, by what became of them.");
    describe_counter!("octroi_policyd_greylist_expired_total", "Expired triplets that this host deleted.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_reasons_have_a_place_in_the_tables() {
        for (number, state) in ProtocolState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
        let tally = Tally::new();
        tally.decided(ProtocolState::Other, &Verdict::Pass, Reason::OverBudget, Duration::ZERO);
    }
}
