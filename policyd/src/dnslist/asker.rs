// SPDX-License-Identifier: GPL-3.0-or-later
//! Asks DNS lists: first what this process remembers, then what a host of the farm has put into the store, then DNS, all questions at once.
//!
//! A question goes on when its asker's time is over: its answer serves the next mail, and its failure counts against the list. Two
//! that want the same at the same time share one question. No answer is never a listing.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::dns::{DnsError, Resolver};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::memory::Memory;
use super::{Judged, List};
use crate::store::dns_cache::DnsCache;

/// Questions on their way at most; more get no answer.
const IN_FLIGHT: usize = 1024;
/// Answers remembered per generation.
const GENERATION: usize = 32_768;
/// Records of one answer that are looked at.
const RECORDS: usize = 16;
/// Shortest and longest time for which an answer is remembered, whatever its TTL: a message has many recipients, and an entry that is
/// removed should not be held against somebody for a day.
const KEPT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Longest wait for the store before DNS is asked.
const STORE_TIME: Duration = Duration::from_millis(100);

/// One question: this part of a name under that list's zone.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whom to ask.
    pub list: Arc<List>,
    /// A reversed address or a domain, without the zone.
    pub what: String,
}

/// Answers, as far as there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry's records; empty when it is not listed.
    Records(Arc<[Ipv4Addr]>),
    /// The list is set aside.
    Aside,
    /// No answer in time, or none at all.
    None,
}

/// What a question that is on its way has come to: none while it has not.
type Arriving = watch::Receiver<Option<Answer>>;

/// Asks lists; shared by all requests.
#[derive(Debug, Clone)]
pub struct Asker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolver: Option<Resolver>,
    cache: Option<DnsCache>,
    memory: Memory<Arc<[Ipv4Addr]>>,
    arriving: Mutex<HashMap<(String, String), Arriving>>,
    permits: Arc<Semaphore>,
}

impl Asker {
    /// Asks by `resolver`, and shares answers through `cache`. Without a resolver there are only remembered answers.
    pub fn new(resolver: Option<Resolver>, cache: Option<DnsCache>) -> Self {
        Self(Arc::new(Inner {
            resolver,
            cache,
            memory: Memory::new(GENERATION),
            arriving: Mutex::default(),
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        }))
    }

    /// Whom it asks.
    pub fn resolver(&self) -> Option<&Resolver> {
        self.0.resolver.as_ref()
    }

    /// The answers to all questions, in their order, as far as they are there until `until`. With `remembered` DNS is not asked.
    pub async fn ask(&self, questions: &[Question], remembered: bool, until: Instant) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = questions.iter().map(|question| self.recall(question)).collect();
        self.ask_store(questions, &mut answers, until).await;
        let arriving: Vec<Option<Arriving>> = questions
            .iter()
            .zip(&answers)
            .map(|(question, answer)| if answer.is_none() && !remembered { self.arriving(question) } else { None })
            .collect();
        let mut found = Vec::with_capacity(questions.len());
        for ((question, answer), arriving) in questions.iter().zip(answers).zip(arriving) {
            let answer = match (answer, arriving) {
                (Some(answer), _) => answer,
                (None, Some(arriving)) => arrival(arriving, until).await,
                (None, None) => Answer::None,
            };
            found.push(counted(&question.list, answer));
        }
        found
    }

    /// Asks DNS for a test entry, past everything that is remembered. None without an answer.
    pub(super) async fn ask_dns(&self, list: &List, what: &str) -> Option<Judged> {
        let resolver = self.0.resolver.as_ref()?;
        let answer = resolver.a_lasting(&format!("{what}.{}", list.zone)).await.ok()?;
        Some(list.judge(answer.records))
    }

    /// Forgets all answers of a list here and in the store: they may be wrong.
    pub(super) fn forget(&self, list: &List) {
        self.0.memory.forget_all();
        if let Some(cache) = &self.0.cache {
            cache.forget(&list.name);
        }
    }

    fn recall(&self, question: &Question) -> Option<Answer> {
        if question.list.aside().is_some() {
            return Some(Answer::Aside);
        }
        let key = (&question.list.name, &question.what);
        self.0.memory.get(key, std::time::Instant::now()).map(Answer::Records)
    }

    /// One question to the store for all that is not remembered.
    async fn ask_store(&self, questions: &[Question], answers: &mut [Option<Answer>], until: Instant) {
        let Some(cache) = &self.0.cache else { return };
        let missing = |answers: &[Option<Answer>]| answers.iter().any(Option::is_none);
        if !missing(answers) {
            return;
        }
        let keys = questions.iter().zip(&*answers).filter(|(_, answer)| answer.is_none());
        let keys: Vec<String> = keys.map(|(question, _)| key(question)).collect();
        let until = until.min(Instant::now() + STORE_TIME);
        let Some(kept) = cache.read(keys, until).await else { return };
        let now = std::time::Instant::now();
        for (question, answer) in questions.iter().zip(answers).filter(|(_, answer)| answer.is_none()) {
            let wanted = key(question);
            let Some((_, records, left)) = kept.iter().find(|(key, ..)| *key == wanted) else { continue };
            // Another version of us, or somebody's hand, may have put in what we would not take.
            let Judged::Good(records) = question.list.judge(records.clone()) else { continue };
            let records: Arc<[Ipv4Addr]> = records.into();
            self.0.memory.put((&question.list.name, &question.what), records.clone(), now + *left);
            count(&question.list, "shared");
            *answer = Some(Answer::Records(records));
        }
    }

    /// The question on its way to DNS, sent off now if it is not yet. None when there is no resolver or too many are on their way.
    fn arriving(&self, question: &Question) -> Option<Arriving> {
        let resolver = self.0.resolver.clone()?;
        let key = (question.list.name.clone(), question.what.clone());
        let mut on_their_way = self.on_their_way();
        // One without a sender has ended badly.
        if let Some(arriving) = on_their_way.get(&key).filter(|arriving| arriving.has_changed().is_ok()) {
            return Some(arriving.clone());
        }
        let Ok(permit) = self.0.permits.clone().try_acquire_owned() else {
            count(&question.list, "busy");
            return None;
        };
        let (arrived, arriving) = watch::channel(None);
        on_their_way.insert(key.clone(), arriving.clone());
        drop(on_their_way);
        let (asker, question) = (self.clone(), question.clone());
        tokio::spawn(async move {
            let answer = asker.resolve(&resolver, &question).await;
            asker.on_their_way().remove(&key);
            arrived.send_replace(Some(answer));
            drop(permit);
        });
        Some(arriving)
    }

    async fn resolve(&self, resolver: &Resolver, question: &Question) -> Answer {
        let Question { list, what } = question;
        let answer = resolver.a_lasting(&format!("{what}.{}", list.zone)).await;
        let now = std::time::Instant::now();
        let answer = match answer {
            Ok(answer) => answer,
            // A domain that no name can hold is in no list.
            Err(DnsError::BadName(_)) => return Answer::Records(Arc::new([])),
            Err(DnsError::Temporary(error)) => {
                tracing::debug!(list = list.name, error, "no answer of a DNS list");
                count(list, "failed");
                list.failed(now);
                return Answer::None;
            }
        };
        let judged = list.judge(answer.records);
        if list.answered(&judged, now) {
            self.forget(list);
        }
        match judged {
            Judged::Good(mut records) => {
                records.truncate(RECORDS);
                let kept = answer.ttl.clamp(KEPT.0, KEPT.1);
                let records: Arc<[Ipv4Addr]> = records.into();
                self.0.memory.put((&list.name, what), records.clone(), now + kept);
                if let Some(cache) = &self.0.cache {
                    cache.write(key(question), &records, kept);
                }
                count(list, "answered");
                Answer::Records(records)
            }
            Judged::Bad(_) => {
                count(list, "refused");
                Answer::Aside
            }
        }
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashMap<(String, String), Arriving>> {
        // A panic of another thread leaves nothing half done here.
        self.0.arriving.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn arrival(mut arriving: Arriving, until: Instant) -> Answer {
    match tokio::time::timeout_at(until, arriving.wait_for(Option::is_some)).await {
        Ok(Ok(answer)) => answer.clone().unwrap_or(Answer::None),
        // Late, or the task has ended without an answer.
        Ok(Err(_)) | Err(_) => Answer::None,
    }
}

/// By what an answer is known in the store.
fn key(question: &Question) -> String {
    format!("{} {}", question.list.name, question.what)
}

/// What a decision was told.
fn counted(list: &List, answer: Answer) -> Answer {
    let outcome = match &answer {
        Answer::Records(records) if records.is_empty() => "not_listed",
        Answer::Records(_) => "listed",
        Answer::Aside => "aside",
        Answer::None => "no_answer",
    };
    metrics::counter!("octroi_policyd_dnslist_total", "list" => list.name.clone(), "outcome" => outcome).increment(1);
    answer
}

/// What became of a look-up.
fn count(list: &List, outcome: &'static str) {
    metrics::counter!("octroi_policyd_dnslist_lookups_total", "list" => list.name.clone(), "outcome" => outcome)
        .increment(1);
}
