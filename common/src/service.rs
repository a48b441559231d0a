// SPDX-License-Identifier: GPL-3.0-or-later
//! The skeleton of a daemon: accept loop with a bound on connections, signals, drain, readiness.
//! It knows no protocol; the handler gets the connected stream.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::{Listener, Stream};

/// How many connections at once, and how long the last ones may take at the end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections handled at once over all listeners; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// How long connections may go on after `stop`.
    pub drain: Duration,
}

/// Accepts on all listeners until `stop` is cancelled, then closes them and waits for the handlers, at most `drain`.
/// A handler learns of the end by its own copy of `stop`; one that does not end in time is aborted and counted.
pub async fn serve<H, F>(
    name: &'static str,
    listeners: Vec<Listener>,
    limits: Limits,
    stop: CancellationToken,
    handler: H,
) where
    H: Fn(Stream, CancellationToken) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let abort = CancellationToken::new();
    let handlers = TaskTracker::new();
    let loops = TaskTracker::new();
    for listener in listeners {
        let (permits, handlers, stop, abort, handler) =
            (permits.clone(), handlers.clone(), stop.clone(), abort.clone(), handler.clone());
        loops.spawn(async move {
            tokio::select! {
                () = accept_all(name, &listener, &permits, &handlers, &stop, &abort, handler) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    loops.close();
    loops.wait().await;
    handlers.close();
    if tokio::time::timeout(limits.drain, handlers.wait()).await.is_err() {
        tracing::warn!(service = name, connections = handlers.len(), "connections cut at the end of the drain time");
        metrics::counter!("octroi_connections_cut_total", "service" => name).increment(handlers.len() as u64);
        abort.cancel();
        handlers.wait().await;
    }
}

async fn accept_all<H, F>(
    name: &'static str,
    listener: &Listener,
    permits: &Arc<Semaphore>,
    handlers: &TaskTracker,
    stop: &CancellationToken,
    abort: &CancellationToken,
    handler: H,
) where
    H: Fn(Stream, CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let open = metrics::gauge!("octroi_connections", "service" => name);
    let accepted = metrics::counter!("octroi_connections_total", "service" => name);
    let mut pause = Duration::from_millis(5);
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(stream) => {
                pause = Duration::from_millis(5);
                accepted.increment(1);
                open.increment(1.0);
                let (open, abort, work) = (open.clone(), abort.clone(), handler(stream, stop.clone()));
                handlers.spawn(async move {
                    tokio::select! { () = work => {}, () = abort.cancelled() => {} }
                    open.decrement(1.0);
                    drop(permit);
                });
            }
            // Out of descriptors or memory, or the peer left in the queue: wait a little and go on, a daemon
            // that stops listening stops the mail.
            Err(error) => {
                tracing::warn!(service = name, %error, "accept failed");
                metrics::counter!("octroi_accept_errors_total", "service" => name).increment(1);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// SIGTERM and SIGINT end the daemon, SIGHUP reloads it.
#[derive(Debug)]
pub struct Signals {
    stop: CancellationToken,
    hangup: Signal,
}

impl Signals {
    /// Takes over the three signals. Errors when the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            notify(&[sd_notify::NotifyState::Stopping]);
            ended.cancel();
        });
        Ok(Self { stop, hangup: signal(SignalKind::hangup())? })
    }

    /// Cancelled at the first SIGTERM or SIGINT.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for the next SIGHUP.
    pub async fn reload(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells systemd that the daemon serves (READY=1), with a line for `systemctl status`; does nothing without systemd.
pub fn notify_ready(status: &str) {
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

/// Tells systemd that a reload has begun (sd_notify(3): RELOADING=1 with the monotonic time).
pub fn notify_reloading() {
    if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
        notify(&[sd_notify::NotifyState::Reloading, now]);
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(limits: Limits) -> (crate::address::Address, CancellationToken, tokio::task::JoinHandle<()>) {
        let listeners =
            crate::net::bind(&[crate::address::Address::tcp("127.0.0.1", 0)], &Default::default()).await.unwrap();
        let address = listeners[0].local_address();
        let stop = CancellationToken::new();
        let echo = |mut stream: Stream, _stop: CancellationToken| async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
        };
        let served = tokio::spawn(serve("echo", listeners, limits, stop.clone(), echo));
        (address, stop, served)
    }

    async fn echo(stream: &mut Stream) {
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
    }

    #[tokio::test]
    async fn connections_over_the_bound_wait_and_then_get_their_turn() {
        let (address, stop, served) = start(Limits { max_connections: 1, drain: Duration::from_secs(5) }).await;
        let mut first = Stream::connect(&address).await.unwrap();
        echo(&mut first).await;
        let mut second = Stream::connect(&address).await.unwrap();
        second.write_all(b"x").await.unwrap();
        let mut byte = [0];
        assert!(tokio::time::timeout(Duration::from_millis(50), second.read_exact(&mut byte)).await.is_err());
        drop(first);
        second.read_exact(&mut byte).await.unwrap();
        drop(second);
        stop.cancel();
        served.await.unwrap();
        assert!(Stream::connect(&address).await.is_err(), "the port is closed after the end");
    }

    #[tokio::test]
    async fn a_drain_lets_work_end_and_cuts_what_does_not() {
        let (address, stop, served) = start(Limits { max_connections: 9, drain: Duration::from_millis(200) }).await;
        let mut open = Stream::connect(&address).await.unwrap();
        echo(&mut open).await;
        stop.cancel();
        echo(&mut open).await;
        served.await.unwrap();
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0, "cut after the drain time");
    }
}
