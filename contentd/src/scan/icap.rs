// SPDX-License-Identifier: GPL-3.0-or-later
//! Client of ICAP servers (RFC 3507): RESPMOD or REQMOD with a preview where the server wants one, on connections that are kept.
//!
//! Each sample is given as the body of a made-up web request. 204 means that there is nothing to object to. What is neither said to be
//! infected nor given back as it was, was changed or blocked by the server, and is treated as infected.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::address::Address;
use tokio::time::Instant;

use super::dialogue::Dialogue;
use super::engine::{Failure, Status, shown};
use super::icap_answer::{self, Head};
use super::idle::Idle;
use super::sample::Sample;
use super::settings::{EngineSettings, Method};
use super::wire::Wire;
use crate::findings::Outcome;

/// Lines of a header section.
const LINES: usize = 200;
/// Largest preview that is given.
const PREVIEW: u64 = 64 * 1024;
/// How long what the server has said about itself is believed, at most and when it does not say.
const TTL: Duration = Duration::from_secs(3600);
const WAITING: &str = "waiting for the answer";

/// One ICAP service.
#[derive(Debug)]
pub(super) struct Icap {
    name: String,
    address: Address,
    service: String,
    settings: EngineSettings,
    idle: Idle<Wire>,
    options: Mutex<Option<Options>>,
}

/// What the server says about itself (RFC 3507 section 4.10).
#[derive(Debug, Clone)]
struct Options {
    preview: Option<u64>,
    status: Status,
    until: Instant,
}

impl Icap {
    /// A client without connections; none when the settings are not complete.
    pub(super) fn new(name: &str, settings: &EngineSettings) -> Option<Icap> {
        Some(Icap {
            name: name.to_owned(),
            address: settings.address.clone()?,
            service: settings.service.clone()?.trim_start_matches('/').to_owned(),
            idle: Idle::new(settings.max_connections, settings.idle_timeout.0),
            settings: settings.clone(),
            options: Mutex::default(),
        })
    }

    /// ICAP request and the encapsulated HTTP headers.
    fn request(&self, size: u64, preview: Option<u64>) -> String {
        let http = |method: &str| format!("{method} http://octroi.invalid/part HTTP/1.1\r\nHost: octroi.invalid\r\n");
        let about = format!("Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n");
        let (verb, headers, list) = match self.settings.method.unwrap_or(Method::Respmod) {
            Method::Respmod => {
                let (request, response) = (http("GET") + "\r\n", format!("HTTP/1.1 200 OK\r\n{about}"));
                let list = format!("req-hdr=0, res-hdr={}, res-body={}", request.len(), request.len() + response.len());
                ("RESPMOD", request + &response, list)
            }
            Method::Reqmod => {
                let request = http("POST") + &about;
                let list = format!("req-hdr=0, req-body={}", request.len());
                ("REQMOD", request, list)
            }
        };
        let preview = preview.map(|size| format!("Preview: {size}\r\n")).unwrap_or_default();
        format!("{}Allow: 204\r\n{preview}Encapsulated: {list}\r\n\r\n{headers}", self.line(verb))
    }

    /// Request line and the fields that every request has.
    fn line(&self, verb: &str) -> String {
        let host = match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        format!("{verb} icap://{host}/{} ICAP/1.0\r\nHost: {host}\r\nUser-Agent: Octroi\r\n", self.service)
    }

    /// What the server wants; asked on this connection when it is not known.
    async fn options(&self, wire: &mut Wire) -> Result<Options, Failure> {
        let known = self.lock().clone().filter(|options| Instant::now() < options.until);
        match known {
            Some(options) => Ok(options),
            None => self.ask_options(wire).await,
        }
    }

    async fn ask_options(&self, wire: &mut Wire) -> Result<Options, Failure> {
        let request = self.line("OPTIONS") + "Encapsulated: null-body=0\r\n\r\n";
        wire.send([request.as_bytes()].into_iter(), self.settings.send_timeout.0, |_| false).await?;
        let head = self.head(wire).await?;
        if head.status != 200 {
            return Err(Failure::Refused(format!("OPTIONS is answered with {}", head.status)));
        }
        let verb = if self.settings.method == Some(Method::Reqmod) { "REQMOD" } else { "RESPMOD" };
        if head
            .field("methods")
            .is_some_and(|methods| !methods.split(',').any(|method| method.trim().eq_ignore_ascii_case(verb)))
        {
            return Err(Failure::Refused(format!("the service has no {verb}")));
        }
        let ttl = head.number("options-ttl").map_or(TTL, |seconds| Duration::from_secs(seconds).min(TTL));
        let version = head.field("service").or(head.field("istag")).unwrap_or("ICAP/1.0");
        let status = Status { version: shown(version.as_bytes()), signatures: None };
        let options = Options { preview: head.number("preview"), status, until: Instant::now() + ttl };
        *self.lock() = Some(options.clone());
        Ok(options)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Options>> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one head.
    async fn head(&self, wire: &mut Wire) -> Result<Head, Failure> {
        Head::read(&self.section(wire).await?)
    }

    /// Reads the lines up to an empty one.
    async fn section(&self, wire: &mut Wire) -> Result<Vec<Vec<u8>>, Failure> {
        let until = Instant::now() + self.settings.scan_timeout.0;
        let mut lines: Vec<Vec<u8>> = Vec::new();
        while lines.len() < LINES {
            let line = wire.line(until, WAITING).await?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push(line);
        }
        Err(Failure::Garbage("a header section without end".to_owned()))
    }

    /// What an answer means, and whether the connection can be used again. It may have begun before everything was sent.
    async fn answer(&self, wire: &mut Wire, head: Head, sample: &Sample) -> Result<(Outcome, bool), Failure> {
        let names = head.viruses();
        if !names.is_empty() && head.status < 300 {
            return Ok((Outcome::Infected(names), false));
        }
        match head.status {
            204 => Ok((Outcome::Clean, wire.is_sent() && head.keeps())),
            200 | 201 => self.changed(wire, &head, sample).await,
            413 => Ok((Outcome::Incomplete("larger than the scanner takes".to_owned()), false)),
            status => Err(Failure::Refused(format!("ICAP status {status}"))),
        }
    }

    /// An answer with content: the same, another, or that of somebody else.
    async fn changed(&self, wire: &mut Wire, head: &Head, sample: &Sample) -> Result<(Outcome, bool), Failure> {
        let (headers, has_body) = head.encapsulated();
        let mut status = None;
        for _ in 0..headers {
            let section = self.section(wire).await?;
            status = section.first().and_then(|line| icap_answer::status(line, b"HTTP/1."));
        }
        let reqmod = self.settings.method == Some(Method::Reqmod);
        match (status, reqmod) {
            // REQMOD gives back the request; a response means that it was not let through.
            (Some(status), true) => Ok((Outcome::Infected(vec![format!("ICAP.blocked.{status}")]), false)),
            (Some(403), false) => Ok((Outcome::Infected(vec!["ICAP.blocked.403".to_owned()]), false)),
            (Some(200), false) | (None, true) if has_body => match self.same(wire, sample).await? {
                true => Ok((Outcome::Clean, wire.is_sent() && head.keeps())),
                false => Ok((Outcome::Infected(vec!["ICAP.modified".to_owned()]), false)),
            },
            (status, _) => Err(Failure::Refused(format!("encapsulated status {}", status.unwrap_or_default()))),
        }
    }

    /// Whether the body that comes back is the one that was sent.
    async fn same(&self, wire: &mut Wire, sample: &Sample) -> Result<bool, Failure> {
        let until = Instant::now() + self.settings.scan_timeout.0;
        let mut expected = sample.bytes();
        loop {
            let line = wire.line(until, WAITING).await?;
            let Some(mut left) = icap_answer::chunk_size(&line) else { return Err(Failure::Garbage(shown(&line))) };
            if left == 0 {
                break;
            }
            while left > 0 {
                if wire.heard().is_empty() {
                    wire.hear(until, WAITING).await?;
                }
                let taken = wire.take(usize::try_from(left).unwrap_or(usize::MAX));
                left -= taken.len() as u64;
                if taken.into_iter().any(|byte| expected.next() != Some(byte)) {
                    return Ok(false);
                }
            }
            // The line end behind the data.
            wire.line(until, WAITING).await?;
        }
        // Trailer fields, up to the empty line.
        self.section(wire).await?;
        Ok(expected.next().is_none())
    }

    /// What the server has said about itself lately.
    pub(super) fn known(&self) -> Option<Status> {
        self.lock().as_ref().map(|options| options.status.clone())
    }

    /// Asks whether the server is there and has the service.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let mut wire = self.connect().await?;
        Ok(self.ask_options(&mut wire).await?.status)
    }
}

impl Dialogue for Icap {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    fn idle(&self) -> &Idle<Wire> {
        &self.idle
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        self.count("fresh");
        Wire::connect(&self.address, self.settings.connect_timeout.0).await
    }

    /// Sends a sample and reads the answer; also whether the connection can be used again.
    async fn exchange(&self, wire: &mut Wire, sample: &Sample) -> Result<(Outcome, bool), Failure> {
        let preview = self.options(wire).await?.preview.map(|preview| preview.min(sample.len()).min(PREVIEW));
        let mut begin = self.request(sample.len(), preview).into_bytes();
        let limit = self.settings.send_timeout.0;
        if let Some(size) = preview {
            begin.extend(chunk(&mut sample.bytes(), size));
            begin.extend_from_slice(if size == sample.len() { b"0; ieof\r\n\r\n" } else { b"0\r\n\r\n" });
            wire.send([begin.as_slice()].into_iter(), limit, answered).await?;
            let head = self.head(wire).await?;
            if head.status != 100 {
                return self.answer(wire, head, sample).await;
            }
            begin.clear();
        }
        wire.queue([Bytes::from(begin)]);
        wire.queue(chunks(sample.slices_behind(usize::try_from(preview.unwrap_or_default()).unwrap_or(usize::MAX))));
        wire.send_queued(limit, answered).await?;
        let head = self.head(wire).await?;
        self.answer(wire, head, sample).await
    }
}

/// A final answer that came while we wrote.
fn answered(heard: &[u8]) -> bool {
    heard.starts_with(b"ICAP/1.")
        && !heard.starts_with(b"ICAP/1.0 100")
        && memchr::memmem::find(heard, b"\r\n\r\n").is_some()
}

/// The next bytes as one chunk (RFC 9112 section 7.1); nothing for none, since an empty chunk is the last.
fn chunk(body: &mut impl Iterator<Item = u8>, size: u64) -> Vec<u8> {
    let size = usize::try_from(size).unwrap_or_default();
    if size == 0 {
        return Vec::new();
    }
    let mut bytes = format!("{size:x}\r\n").into_bytes();
    bytes.extend(body.take(size));
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The slices as chunks, up to the last and empty one.
fn chunks(slices: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let mut end = "";
    let chunks = slices.flat_map(move |slice| {
        // The line end of the one before goes with the size of this one.
        let size = format!("{end}{:x}\r\n", slice.len());
        end = "\r\n";
        [Bytes::from(size), slice]
    });
    // An empty chunk is the last, so there must be one before it for its line end.
    let mut chunks = chunks.peekable();
    let last: &'static [u8] = if chunks.peek().is_some() { b"\r\n0\r\n\r\n" } else { b"0\r\n\r\n" };
    chunks.chain([Bytes::from_static(last)])
}
