// SPDX-License-Identifier: GPL-3.0-or-later
//! contentd: the content filter that Postfix puts before its queue (`smtpd_proxy_filter`).
//!
//! A message: `smtp` (dialogue) > `spool` > `pipeline` (stages that find) > `verdict` (decides) >
//! `message::edit` > `reinject` (port 10025) > the next hop's reply back. `transaction` is that path; `daemon`
//! holds what sessions share; `run` starts it all.

pub mod active;
mod admission;
pub mod ambiguity;
pub mod budget;
pub mod category;
pub mod checks;
pub mod config;
pub mod daemon;
mod decision;
mod delivery;
pub mod digest;
pub mod engines_command;
pub mod envelope;
pub mod findings;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handover;
pub mod identity;
pub mod ledger;
pub mod message;
pub mod pipeline;
pub mod points;
pub mod poison;
pub mod postfix;
pub mod quarantine;
pub mod reinject;
pub mod scan;
pub mod scan_command;
pub mod smtp;
pub mod spam;
pub mod spamd;
pub mod spool;
pub mod store;
mod transaction;
pub mod unpack;
pub mod verdict;
pub mod witness;
pub mod workers;

use std::sync::Arc;
use std::time::Duration;

use common::http::Ready;
use common::net::Listener;
use common::service::{self, Limits};
use daemon::Daemon;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the first message may wait for the store.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Serves mail on `listeners`, clients of spamd on `spamd`, and health, readiness and metrics on `http`, until `stop` is cancelled; then
/// messages in progress may end within `contentd.drain`.
pub async fn run(
    listeners: Vec<Listener>,
    spamd: Vec<Listener>,
    http: Option<TcpListener>,
    daemon: Arc<Daemon>,
    stop: CancellationToken,
) {
    let metrics = common::metrics::install();
    describe_metrics();
    let page_stop = CancellationToken::new();
    let page = http
        .map(|listener| tokio::spawn(common::http::serve(listener, metrics, readiness(&daemon), page_stop.clone())));
    let contentd = &daemon.running().settings.contentd;
    let limits = Limits { max_connections: contentd.max_sessions, drain: contentd.drain.0 };
    let background = Background::start(&daemon);
    first_look(&daemon).await;
    let sessions = daemon.clone();
    let handler = move |stream, stop| smtp::server::serve(stream, sessions.clone(), stop);
    let mail = service::serve("contentd", listeners, limits, stop.clone(), handler);
    tokio::join!(mail, serve_spamd(spamd, &daemon, stop));
    daemon.account.finish().await;
    background.stop().await;
    page_stop.cancel();
    if let Some(page) = page
        && let Err(error) = page.await
    {
        tracing::error!(%error, "the health page broke off");
    }
}

/// Serves clients of spamd, if they are to be served.
async fn serve_spamd(listeners: Vec<Listener>, daemon: &Arc<Daemon>, stop: CancellationToken) {
    let settings = &daemon.running().settings;
    let limits = Limits { max_connections: settings.spamd.max_requests, drain: settings.contentd.drain.0 };
    let sessions = daemon.clone();
    let handler = move |stream, stop| spamd::server::serve(stream, sessions.clone(), stop);
    service::serve("spamd", listeners, limits, stop, handler).await;
}

/// Lets the ledger be read before the first message comes, unless the store takes too long.
async fn first_look(daemon: &Daemon) {
    let read = async {
        daemon.store.tried().await;
        while daemon.store.store().is_ok() && !daemon.ledger.is_fresh() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(FIRST_LOOK, read).await.is_err() {
        tracing::warn!("serving before the ledger has been read");
    }
}

/// What runs beside the sessions and outlives them: a message in progress at the end may still need the store.
struct Background {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Background {
    fn start(daemon: &Arc<Daemon>) -> Background {
        let background = Background { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (store, stop) = (daemon.store.clone(), background.stop.clone());
        background.tasks.spawn(async move { store.keep(stop).await });
        let (ledger, stop) = (daemon.ledger.clone(), background.stop.clone());
        background.tasks.spawn(async move { ledger.keep(stop).await });
        let (kept, stop) = (daemon.clone(), background.stop.clone());
        background.tasks.spawn(async move {
            kept.account.keep(|| kept.running().settings.spam.stats_keep, stop).await;
        });
        let (watching, stop) = (daemon.clone(), background.stop.clone());
        let spam = move || watching.running().settings.spam.clone();
        background.tasks.spawn(spam::watch::keep(daemon.rules.clone(), spam, stop));
        let (daemon, stop) = (daemon.clone(), background.stop.clone());
        background.tasks.spawn(async move {
            daemon.quarantine.clean(|| daemon.running().settings.quarantine.clone(), stop).await;
        });
        background
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn readiness(daemon: &Arc<Daemon>) -> Ready {
    let daemon = daemon.clone();
    Arc::new(move || {
        let running = daemon.running();
        Box::pin(async move { running.pipeline.ready().await })
    })
}

fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    pipeline::describe_metrics();
    spamd::describe_metrics();
    quarantine::describe_metrics();
    ledger::describe_metrics();
    spam::account::describe_metrics();
    witness::describe_metrics();
    reinject::idle::describe_metrics();
    unpack::helper::describe_metrics();
    describe_counter!(
        "octroi_contentd_messages_total",
        "Messages that reached DATA, by category and destiny; none: not decided"
    );
    describe_counter!("octroi_contentd_outcomes_total", "Messages by what the client was told, and why");
    describe_counter!("octroi_contentd_bytes_total", "Bytes of messages received");
    describe_histogram!("octroi_contentd_message_seconds", "Time from DATA to the reply");
    describe_counter!("octroi_contentd_nexthop_errors_total", "Sessions with the next hop that broke off, by stage");
    describe_counter!("octroi_contentd_spool_errors_total", "Messages that could not be kept");
    describe_gauge!("octroi_contentd_store_up", "1 while the store answers");
    describe_gauge!("octroi_contentd_spool_bytes", "Bytes of all messages that are here now");
    describe_counter!("octroi_contentd_overload_total", "Messages that could not begin, by what was short");
    describe_gauge!("octroi_contentd_messages_now", "Messages between MAIL and their answer");
    describe_counter!(
        "octroi_contentd_poison_total",
        "Messages that were not inspected again after crashes or lack of time"
    );
    describe_counter!("octroi_contentd_bare_newlines_total", "CR without LF and LF without CR inside messages");
    describe_counter!("octroi_contentd_refused_clients_total", "Connections from outside contentd.allow");
    describe_counter!("octroi_contentd_unheard_total", "Messages delivered whose client left before the reply");
    describe_counter!("octroi_contentd_left_without_quit_total", "Clients that read the reply to a message and closed");
    describe_counter!(
        "octroi_contentd_orders_total",
        "Messages with an order of policyd that was carried out, by order"
    );
    describe_counter!("octroi_contentd_notes_refused_total", "Header lines that look like policyd's and do not count");
}
