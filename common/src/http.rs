// SPDX-License-Identifier: GPL-3.0-or-later
//! The health page of a daemon: `/health` (the process answers), `/ready` (it can do its work), `/metrics`.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Handle;

/// The answer to "can you do your work?": what works, or what is missing.
pub type Readiness = Result<String, String>;

/// Asks the daemon for its readiness.
pub type Ready = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Readiness> + Send>> + Send + Sync>;

/// Serves the page until `stop` is cancelled.
pub async fn serve(listener: TcpListener, metrics: Handle, ready: Ready, stop: CancellationToken) {
    let readiness = move || {
        let answer = ready();
        async move {
            match answer.await {
                Ok(text) => (StatusCode::OK, format!("{text}\n")),
                Err(text) => (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")),
            }
        }
    };
    let page =
        move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()) };
    let routes = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(readiness))
        .route("/metrics", get(page));
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the health page ended");
    }
}
