// SPDX-License-Identifier: GPL-3.0-or-later
//! What is remembered about a message between its requests: which of its header lines it has, and which it has still to get; the same of
//! orders to Postfix. Postfix takes one action per reply (PREPEND, HOLD ...), does each, and asks once per recipient.
//!
//! In memory of this process and bounded; an `instance` is unique on its Postfix host only, so the host's part of
//! the key is what the requests of one message share: instance and client.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::handover::ORDER_HEADER;

use crate::request::{PolicyRequest, ProtocolState};
use crate::verdict::{PostfixOrder, Verdict};

/// Messages remembered per generation. Only messages that got a header are remembered.
const GENERATION: usize = 8192;
/// Headers per message; more are lost.
const MOST: usize = 16;

/// What a message is to get with one of its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A header line (`Name: value`).
    Header(String),
    /// Something that Postfix does with it.
    Order(PostfixOrder),
}

impl From<Due> for Verdict {
    fn from(due: Due) -> Self {
        match due {
            Due::Header(header) => Self::PassWithHeader(header),
            Due::Order(order) => Self::PassWithOrder(order),
        }
    }
}

/// The header lines of one message.
#[derive(Debug, Default)]
struct Message {
    /// Hashes of the names it has or will get.
    names: Vec<u64>,
    /// For its next replies.
    owed: VecDeque<Due>,
}

/// The messages with headers: two generations, the older one is forgotten when the younger one is full.
#[derive(Debug, Default)]
pub struct Sessions {
    hasher: RandomState,
    generations: Mutex<[HashMap<u64, Message>; 2]>,
    /// Lines owed to all messages: while there are none, nothing is looked up.
    owed: AtomicUsize,
}

impl Sessions {
    /// A verdict with what its message is due, when there is something: a header of each name, and each order, once per message, orders
    /// first. What does not fit into this reply waits for the next. A request without `instance` belongs to no message: its first line is
    /// given, the others are lost.
    pub fn with_due(&self, verdict: Verdict, mut due: Vec<Due>, request: &PolicyRequest<'_>) -> Verdict {
        let idle = due.is_empty() && self.owed.load(Ordering::Relaxed) == 0;
        if idle || verdict != Verdict::Pass {
            return verdict;
        }
        // Postfix ignores PREPEND after the content.
        if request.state == ProtocolState::EndOfMessage {
            let before = due.len();
            due.retain(|due| matches!(due, Due::Order(_)));
            lost("too_late", before - due.len());
        }
        self.next(due, request).map_or(verdict, Verdict::from)
    }

    fn next(&self, headers: Vec<Due>, request: &PolicyRequest<'_>) -> Option<Due> {
        if request.instance.is_empty() {
            lost("no_instance", headers.len().saturating_sub(1));
            return headers.into_iter().next();
        }
        let key = self.hasher.hash_one((&*request.instance, request.client_address));
        // A panic of another thread leaves nothing half done here.
        let mut generations = self.generations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *generations;
        if headers.is_empty() && !young.contains_key(&key) && !old.contains_key(&key) {
            return None;
        }
        if young.len() >= GENERATION && !young.contains_key(&key) {
            std::mem::swap(young, old);
            let forgotten = young.values().map(|message| message.owed.len()).sum();
            self.owed.fetch_sub(forgotten, Ordering::Relaxed);
            lost("forgotten", forgotten);
            young.clear();
        }
        let known = old.remove(&key);
        let message = young.entry(key).or_insert_with(|| known.unwrap_or_default());
        for due in headers {
            // Each is another recipient's, and goes out with the reply at hand.
            if matches!(&due, Due::Header(header) if header.split(':').next() == Some(ORDER_HEADER)) {
                message.owed.push_front(due);
                self.owed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let name = match &due {
                Due::Header(header) => header.split(':').next().unwrap_or_default().to_ascii_lowercase(),
                // No name of a header has a blank in it.
                Due::Order(order) => format!(" {order:?}"),
            };
            let name = self.hasher.hash_one(name);
            if message.names.contains(&name) {
                continue;
            }
            if message.names.len() >= MOST {
                lost("too_many", 1);
                continue;
            }
            message.names.push(name);
            match &due {
                Due::Header(_) => message.owed.push_back(due),
                Due::Order(_) => {
                    let orders = message.owed.iter().take_while(|due| matches!(due, Due::Order(_))).count();
                    message.owed.insert(orders, due);
                }
            }
            self.owed.fetch_add(1, Ordering::Relaxed);
        }
        let late = request.state == ProtocolState::EndOfMessage;
        let fits = |due: &Due| !late || matches!(due, Due::Order(_));
        let line = message.owed.iter().position(fits).and_then(|at| message.owed.remove(at));
        self.owed.fetch_sub(usize::from(line.is_some()), Ordering::Relaxed);
        line
    }
}

/// Counts lines that no message will get.
fn lost(why: &'static str, lines: usize) {
    if lines > 0 {
        metrics::counter!("octroi_policyd_headers_lost_total", "reason" => why).increment(lines as u64);
        tracing::debug!(reason = why, lines, "header lines lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(instance: &str, client: &str) -> PolicyRequest<'static> {
        PolicyRequest {
            state: ProtocolState::Rcpt,
            instance: instance.to_owned().into(),
            client_address: client.parse().ok(),
            ..PolicyRequest::default()
        }
    }

    fn given(sessions: &Sessions, request: &PolicyRequest<'_>, headers: &[&str]) -> Option<String> {
        let headers = headers.iter().map(|header| Due::Header((*header).to_owned())).collect();
        match sessions.with_due(Verdict::Pass, headers, request) {
            Verdict::PassWithHeader(header) => Some(header),
            _ => None,
        }
    }

    #[test]
    fn a_header_is_given_once_per_message() {
        let sessions = Sessions::default();
        let first = request("1.a", "127.0.0.1");
        assert_eq!(given(&sessions, &first, &["X-A: 1"]).as_deref(), Some("X-A: 1"));
        assert_eq!(given(&sessions, &first, &["x-a: 2"]), None);
        assert!(given(&sessions, &request("1.a", "192.0.2.1"), &["X-A: 1"]).is_some(), "of another host");
        assert!(given(&sessions, &request("1.b", "127.0.0.1"), &["X-A: 1"]).is_some());
        let none = request("", "127.0.0.1");
        assert!(given(&sessions, &none, &["X-A: 1"]).is_some() && given(&sessions, &none, &["X-A: 1"]).is_some());
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_reply() {
        let sessions = Sessions::default();
        let message = request("1.a", "127.0.0.1");
        assert_eq!(given(&sessions, &message, &["X-A: 1", "X-B: 1", "X-C: 1"]).as_deref(), Some("X-A: 1"));
        assert_eq!(given(&sessions, &request("1.b", "127.0.0.1"), &[]), None, "another message");
        let refused = sessions.with_due(Verdict::Defer("4.7.1 x".into()), Vec::new(), &message);
        assert_eq!(refused, Verdict::Defer("4.7.1 x".into()));
        assert_eq!(given(&sessions, &message, &["X-A: 2"]).as_deref(), Some("X-B: 1"));
        let late = PolicyRequest { state: ProtocolState::EndOfMessage, ..message.clone() };
        assert_eq!(given(&sessions, &late, &[]), None, "Postfix would ignore it");
        assert_eq!(given(&sessions, &message, &[]).as_deref(), Some("X-C: 1"));
        assert_eq!(given(&sessions, &message, &[]), None);
        assert_eq!(sessions.owed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn orders_go_first_and_after_the_content_too() {
        let sessions = Sessions::default();
        let message = request("1.a", "127.0.0.1");
        let order = |word: &str| Due::Order(PostfixOrder::new(word, "x").unwrap());
        let due = || vec![Due::Header("X-A: 1".to_owned()), order("hold"), order("bcc")];
        let given = |due: Vec<Due>, request: &PolicyRequest<'_>| sessions.with_due(Verdict::Pass, due, request);
        assert_eq!(given(due(), &message), Verdict::from(order("hold")));
        assert_eq!(given(due(), &message), Verdict::from(order("bcc")), "each once");
        let late = PolicyRequest { state: ProtocolState::EndOfMessage, ..message.clone() };
        assert_eq!(
            given(vec![Due::Header("X-B: 1".to_owned()), order("discard")], &late),
            Verdict::from(order("discard"))
        );
        assert_eq!(given(Vec::new(), &late), Verdict::Pass);
        assert_eq!(given(Vec::new(), &message), Verdict::PassWithHeader("X-A: 1".to_owned()));
        assert_eq!(sessions.owed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let sessions = Sessions::default();
        for number in 0..3 * GENERATION {
            assert!(given(&sessions, &request(&number.to_string(), "127.0.0.1"), &["X-A: 1", "X-B: 1"]).is_some());
        }
        let generations = sessions.generations.lock().unwrap();
        assert!(generations.iter().all(|generation| generation.len() <= GENERATION));
        assert_eq!(sessions.owed.load(Ordering::Relaxed), generations.iter().map(HashMap::len).sum::<usize>());
        drop(generations);
        let many: Vec<Due> = (0..100).map(|number| Due::Header(format!("X-{number}: 1"))).collect();
        let one = request("many", "127.0.0.1");
        assert!(matches!(sessions.with_due(Verdict::Pass, many, &one), Verdict::PassWithHeader(_)));
        let more = std::iter::from_fn(|| given(&sessions, &one, &[])).count();
        assert_eq!(more, MOST - 1);
    }
}
