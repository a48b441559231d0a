// SPDX-License-Identifier: GPL-3.0-or-later
//! A notice as an HTTP POST with a JSON object. https checks the certificate against the authorities that this host trusts.

use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::Notice;

type Poster = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Posts notices; the certificates are read at the first one.
#[derive(Debug, Default)]
pub(super) struct Webhook(OnceLock<Result<Poster, String>>);

/// The object. A change of a name is listed in CHANGELOG.md.
#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    limit: &'a str,
    key: &'a str,
    unit: &'a str,
    rate: &'a str,
    host: &'a str,
    text: String,
}

impl Webhook {
    /// Posts one notice; any answer of class 2xx is success.
    pub(super) async fn post(&self, url: &str, notice: &Notice) -> Result<(), String> {
        let poster = self.0.get_or_init(poster).as_ref().map_err(Clone::clone)?;
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("octroi/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body(notice)?)))
            .map_err(|error| error.to_string())?;
        let answer = poster.request(request).await.map_err(|error| chain(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("answered {status}")),
        }
    }
}

fn body(notice: &Notice) -> Result<Vec<u8>, String> {
    let Notice { limit, key, unit, rate, host, .. } = notice;
    let body = Body { event: notice.kind.word(), limit, key, unit, rate, host, text: notice.summary() };
    serde_json::to_vec(&body).map_err(|error| error.to_string())
}

fn poster() -> Result<Poster, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("the certificates of this host cannot be read: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The error with its causes: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(": ");
        told.push_str(&error.to_string());
        cause = error.source();
    }
    told
}
