// SPDX-License-Identifier: GPL-3.0-or-later
//! policyd: a Postfix `check_policy_service` daemon (SMTPD_POLICY_README) with access lists and greylisting, on a store that the
//! hosts of a farm share.
//!
//! Path of a request: `common::service` > [`connection`] > [`wire`] > [`request`] > [`classes`] > [`checks`] > [`verdict`] > [`wire`].
//! A library with one entry, [`run`], so that tests start the daemon in their own process.

pub mod around;
pub mod checks;
pub mod classes;
pub mod config;
pub mod connection;
pub mod course;
pub mod dnslist;
pub mod explain;
pub mod limits;
pub mod lists;
pub mod notify;
pub mod orders;
pub mod pending;
pub mod perimeter;
pub mod policy;
pub mod postfix;
pub mod postgrey;
pub mod recipients;
pub mod refusal;
pub mod request;
pub mod rules;
pub mod sender;
pub mod servers;
pub mod session;
pub mod store;
pub mod tally;
pub mod template;
pub mod triplet;
pub mod verdict;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use common::net::Listener;
use common::service::{self, Limits};
use common::store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checks::pool::Pools;
use crate::classes::Decider;
use crate::config::PolicydSettings;
use crate::dnslist::asker::Asker;
use crate::dnslist::self_test;
use crate::notify::Notifier;
use crate::perimeter::Perimeter;
use crate::policy::Live;
use crate::recipients::book::Book;
use crate::recipients::keep::Keeping;
use crate::servers::Servers;
use crate::store::book::TrustBook;
use crate::store::decisions::DecisionLog;
use crate::store::dns_cache::DnsCache;
use crate::store::explain::Keeper;
use crate::store::journal::Journal;
use crate::store::limits::queue::LimitQueue;
use crate::store::marker::Marker;
use crate::store::queue::GreylistQueue;

/// Time for closing the connections to the store at the end.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Serves policy requests on `listeners`, and the health page on `http`, until `stop` is cancelled and the connections have ended or
/// the drain time is over. The store may be down; its schema is brought up to date as soon as it answers.
pub async fn run(
    listeners: Vec<Listener>,
    http: Option<TcpListener>,
    live: Arc<Live>,
    store: Store,
    stop: CancellationToken,
) {
    let metrics = common::metrics::install();
    let (limits, patience) = {
        let policy = live.current();
        let settings = &policy.settings.policyd;
        (Limits { max_connections: settings.max_connections, drain: settings.drain.0 }, settings.budget.0)
    };
    // Connections that drain still ask the store, and the health page still tells.
    let end = CancellationToken::new();
    let journal = open_journal(&live.current().settings.policyd);
    let queue = GreylistQueue::start_with(&store, journal, live.current().settings.greylist.durable, &end);
    let trust = TrustBook::start(&store, queue.health().clone(), &end);
    let (keeper, keeping) = Keeper::new(&store, queue.health(), &end);
    let (marker, marking) = Marker::new(&store, queue.health(), &end);
    let hosts = live.current().settings.limits.hosts;
    let limited = LimitQueue::start_with(&store, queue.health().clone(), queue.journal().cloned(), hosts, &end);
    let (book, said) = Book::new(live.current().settings.recipients.remember);
    let knowing = Keeping::new(&live, &store, queue.health(), &book).run(said, end.clone());
    let decider = Decider::new(queue).with(Pools::new(live.resolver()), trust).explaining(keeper).remembering(marker);
    let (log, logging) = DecisionLog::new(&store, &live, decider.queue().health(), &end);
    let decider = decider.logging(log);
    let (cache, caching) = DnsCache::new(&store, decider.queue().health(), &end);
    let asker = Asker::new(live.resolver(), Some(cache));
    let testing = self_test::keep_testing(live.clone(), asker.clone(), end.clone());
    let (notifier, notifying) = Notifier::new(&store, decider.queue().health(), live.clone(), &end);
    let decider = decider.guarding(Perimeter::new(asker)).limiting(limited.clone());
    let decider = Arc::new(decider.knowing(book).notifying(notifier).asking(Servers::default()).shielding());
    let kept = keep_lists(&live, &store, &decider, &end);
    kept.spawn(keeping);
    kept.spawn(marking);
    kept.spawn(caching);
    kept.spawn(logging);
    kept.spawn(testing);
    kept.spawn(knowing);
    kept.spawn(notifying);
    let page = http.map(|listener| {
        let ready = readiness(live.clone(), decider.clone());
        tokio::spawn(common::http::serve(listener, metrics, ready, end.clone()))
    });
    let (deciding, policies) = (decider.clone(), live.clone());
    // Connections wait in the backlog meanwhile: the first requests after a start shall not meet a store that is only not known yet.
    let _ = tokio::time::timeout(patience, decider.queue().health().watch().wait_for(|up| *up)).await;
    let handler = move |stream, stop| connection::serve(stream, policies.clone(), deciding.clone(), stop);
    service::serve("policyd", listeners, limits, stop, handler).await;
    end.cancel();
    decider.queue().ended().await;
    limited.ended().await;
    kept.wait().await;
    if let Some(page) = page {
        // A panic in the page has been reported by the runtime.
        let _ = page.await;
    }
    if tokio::time::timeout(CLOSE_TIME, store.close()).await.is_err() {
        tracing::warn!("the store did not close its connections in time");
    }
}

/// Starts what keeps the access lists up to date until `end`.
fn keep_lists(live: &Arc<Live>, store: &Store, decider: &Decider, end: &CancellationToken) -> TaskTracker {
    let tasks = TaskTracker::new();
    let (health, stored) = (decider.queue().health().clone(), live.current().lists.stored());
    tasks.spawn(lists::follow::follow(store.clone(), health, stored, end.clone()));
    tasks.spawn(lists::follow::watch_files(live.clone(), end.clone()));
    tasks.spawn(lists::records::follow(live.clone(), end.clone()));
    tasks.close();
    tasks
}

/// The journal of what is decided without the store; without it such decisions are made all the same.
fn open_journal(settings: &PolicydSettings) -> Option<Journal> {
    let path = settings.journal_path()?;
    match Journal::open(&path, settings.journal_size.0) {
        Ok(journal) => Some(journal),
        Err(error) => {
            tracing::warn!(%error, "no journal: while the store is away, what is decided is not written down");
            None
        }
    }
}

/// Ready while it can decide: with the store, or without it from the fallback.
fn readiness(live: Arc<Live>, decider: Arc<Decider>) -> common::http::Ready {
    Arc::new(move || {
        let fallback = live.current().settings.policyd.on_store_error.word();
        let up = decider.queue().health().is_up();
        Box::pin(async move {
            Ok(match up {
                true => "ready: the store answers".to_owned(),
                false => format!("ready: the store does not answer, on_store_error = \"{fallback}\" decides"),
            })
        })
    })
}
