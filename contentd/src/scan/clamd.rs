// SPDX-License-Identifier: GPL-3.0-or-later
//! Client of the ClamAV daemon (clamd(8), "COMMANDS"): zINSTREAM inside zIDSESSION, over TCP or a UNIX socket.
//!
//! Sessions are kept and used again, since a message often has several things to scan. Data is written and the
//! answer read at the same time: clamd answers in the middle of a stream that is over its limit and closes, and
//! a client that first writes everything sees only a broken pipe. Data is streamed; nothing is copied whole.
//! What an answer means for the message is decided elsewhere.

use crate::findings::Outcome;
use crate::spool::{Message, Reader};
use bytes::Bytes;
use common::address::Address;
use common::net::Stream;
use common::units::{Period, Size};
use metrics::{counter, histogram};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Section `[antivirus.clamd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClamdSettings {
    /// Where clamd listens.
    pub address: Address,
    /// Longest wait for a connection.
    pub connect_timeout: Period,
    /// Longest time in which clamd takes no data.
    pub send_timeout: Period,
    /// Longest wait for the answer once all is sent.
    pub scan_timeout: Period,
    /// Most connections at once; more scans wait. clamd's `MaxThreads` is 10 unless changed.
    pub max_connections: usize,
    /// An unused connection is given up after this time; below clamd's `IdleTimeout` of 30 s.
    pub idle_timeout: Period,
    /// Larger messages are not sent; clamd's `StreamMaxLength`.
    pub max_size: Size,
}

impl Default for ClamdSettings {
    fn default() -> ClamdSettings {
        ClamdSettings {
            address: Address::Unix("/run/clamav/clamd.ctl".into()),
            connect_timeout: Period::seconds(5),
            send_timeout: Period::seconds(30),
            scan_timeout: Period::seconds(60),
            max_connections: 10,
            idle_timeout: Period::seconds(20),
            max_size: Size(100 << 20),
        }
    }
}

impl ClamdSettings {
    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for (key, period) in [
            ("connect_timeout", self.connect_timeout),
            ("send_timeout", self.send_timeout),
            ("scan_timeout", self.scan_timeout),
        ] {
            if period.0.is_zero() {
                wrong.push((key, "must be longer than nothing".to_owned()));
            }
        }
        if self.max_connections == 0 || self.max_connections > Semaphore::MAX_PERMITS {
            wrong.push(("max_connections", "must be at least 1".to_owned()));
        }
        wrong
    }
}

/// Why clamd gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClamdError {
    /// No connection.
    #[error("cannot connect to clamd at {address}: {source}")]
    Connect {
        /// Where it should listen.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection to clamd lost while {phase}: {source}")]
    Lost {
        /// What was being done.
        phase: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing happened for too long.
    #[error("clamd did not answer in time while {phase}")]
    TimedOut {
        /// What was being done.
        phase: &'static str,
    },
    /// clamd reports an error of its own.
    #[error("clamd says: {0}")]
    Refused(String),
    /// What came back is no answer of clamd.
    #[error("clamd sent something that is no answer: {0}")]
    Garbage(String),
    /// The spooled message cannot be read.
    #[error("the spooled message cannot be read: {0}")]
    Spool(io::Error),
}

impl ClamdError {
    /// The word for metrics.
    fn word(&self) -> &'static str {
        match self {
            ClamdError::Connect { .. } => "connect",
            ClamdError::Lost { .. } => "lost",
            ClamdError::TimedOut { .. } => "timeout",
            ClamdError::Refused(_) => "refused",
            ClamdError::Garbage(_) => "garbage",
            ClamdError::Spool(_) => "spool",
        }
    }
}

/// Something to be scanned.
#[derive(Debug, Clone)]
pub enum Sample {
    /// A spooled message.
    Message(Message),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl Sample {
    fn len(&self) -> u64 {
        match self {
            Sample::Message(message) => message.len(),
            Sample::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn chunks(&self) -> Chunks {
        match self {
            Sample::Message(message) => Chunks::Spooled(message.open()),
            Sample::Bytes(bytes) => Chunks::Memory(bytes.clone()),
        }
    }
}

/// The bytes of a sample, from its start, piece by piece.
enum Chunks {
    Spooled(Reader),
    Memory(Bytes),
}

impl Chunks {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Chunks::Spooled(reader) => reader.chunk().await,
            Chunks::Memory(bytes) => {
                let chunk = bytes.split_to(bytes.len().min(CHUNK));
                Ok((!chunk.is_empty()).then_some(chunk))
            }
        }
    }
}

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;
/// Longest answer that is read.
const ANSWER: usize = 8 * 1024;
/// How long an answer may take to arrive after clamd has closed its side.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// clamd, behind a pool of sessions. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Clamd(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    settings: ClamdSettings,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<(Session, Instant)>>,
}

impl Clamd {
    /// A client without connections; they are made when needed.
    pub fn new(settings: ClamdSettings) -> Clamd {
        let permits = Arc::new(Semaphore::new(settings.max_connections));
        Clamd(Arc::new(Pool { settings, permits, idle: Mutex::default() }))
    }

    /// Where clamd listens.
    pub fn address(&self) -> &Address {
        &self.0.settings.address
    }

    /// Scans one sample. Whatever goes wrong, or is not done by `deadline`, is a failed outcome with its reason.
    pub async fn scan(&self, sample: &Sample, deadline: Instant) -> Outcome {
        if sample.len() > self.0.settings.max_size.0 {
            counter!("octroi_contentd_clamd_scans_total", "outcome" => "too-large").increment(1);
            return Outcome::Incomplete(format!("larger than max_size {}", self.0.settings.max_size));
        }
        let started = Instant::now();
        let result = match timeout_at(deadline, self.try_twice(sample)).await {
            Ok(result) => result,
            Err(_) => Err(ClamdError::TimedOut { phase: "scanning before the deadline" }),
        };
        histogram!("octroi_contentd_clamd_seconds").record(started.elapsed().as_secs_f64());
        let (word, outcome) = match result {
            Ok(outcome @ Outcome::Clean) => ("clean", outcome),
            Ok(outcome @ Outcome::Infected(_)) => ("infected", outcome),
            Ok(outcome @ Outcome::Encrypted(_)) => ("encrypted", outcome),
            Ok(outcome @ (Outcome::Incomplete(_) | Outcome::Failed(_))) => ("incomplete", outcome),
            Err(error) => {
                tracing::warn!(address = %self.address(), %error, "clamd gave no answer");
                (error.word(), Outcome::Failed(error.to_string()))
            }
        };
        counter!("octroi_contentd_clamd_scans_total", "outcome" => word).increment(1);
        outcome
    }

    /// A kept session may have been closed by clamd meanwhile. That says nothing about the sample: a fresh one gets it once more.
    async fn try_twice(&self, sample: &Sample) -> Result<Outcome, ClamdError> {
        let permit = self.permit().await;
        if let Some(session) = self.take_idle() {
            match self.scan_on(session, sample).await {
                Err(ClamdError::Lost { .. } | ClamdError::Refused(_) | ClamdError::Garbage(_)) => {
                    counter!("octroi_contentd_clamd_connections_total", "kind" => "stale").increment(1);
                }
                answered => return answered,
            }
        }
        let session = self.connect().await?;
        let outcome = self.scan_on(session, sample).await;
        drop(permit);
        outcome
    }

    async fn scan_on(&self, mut session: Session, sample: &Sample) -> Result<Outcome, ClamdError> {
        let answer = session.instream(sample, &self.0.settings).await?;
        let outcome = outcome(&answer, session.commands)?;
        if session.usable {
            self.keep(session);
        }
        Ok(outcome)
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so this always gives a permit.
        Arc::clone(&self.0.permits).acquire_owned().await.ok()
    }

    /// The session that was used last, so that the others can grow old and go.
    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < self.0.settings.idle_timeout.0);
        let session = idle.pop_back().map(|(session, _)| session)?;
        counter!("octroi_contentd_clamd_connections_total", "kind" => "kept").increment(1);
        Some(session)
    }

    fn keep(&self, session: Session) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.0.settings.max_connections {
            idle.push_back((session, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<Session, ClamdError> {
        let address = &self.0.settings.address;
        let connected = timeout(self.0.settings.connect_timeout.0, Stream::connect(address)).await;
        counter!("octroi_contentd_clamd_connections_total", "kind" => "fresh").increment(1);
        match connected {
            Ok(Ok(stream)) => Ok(Session { stream, commands: 0, usable: true }),
            Ok(Err(source)) => Err(ClamdError::Connect { address: address.clone(), source }),
            Err(_) => Err(ClamdError::TimedOut { phase: "connecting" }),
        }
    }

    /// Asks whether clamd is there, and gives its version line: `ClamAV 1.4.6/27800/Fri Nov 20 …`, engine and age of the signatures.
    pub async fn version(&self) -> Result<String, ClamdError> {
        let mut session = self.connect().await?;
        let pong = session.command(b"zPING\0", &self.0.settings).await?;
        if pong != b"PONG" {
            return Err(ClamdError::Garbage(shown(&pong)));
        }
        let mut session = self.connect().await?;
        let version = session.command(b"zVERSION\0", &self.0.settings).await?;
        if version.starts_with(b"ClamAV") { Ok(shown(&version)) } else { Err(ClamdError::Garbage(shown(&version))) }
    }
}

/// One connection to clamd.
#[derive(Debug)]
struct Session {
    stream: Stream,
    /// Commands sent inside zIDSESSION. clamd numbers its answers, from 1.
    commands: u32,
    /// The last exchange left the connection in a known state.
    usable: bool,
}

impl Session {
    /// Sends a sample and returns clamd's answer without session number and NUL.
    async fn instream(&mut self, sample: &Sample, settings: &ClamdSettings) -> Result<Vec<u8>, ClamdError> {
        self.usable = false;
        let begin: &[u8] = if self.commands > 0 { b"zINSTREAM\0" } else { b"zIDSESSION\0zINSTREAM\0" };
        self.commands += 1;
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let send = send(&mut writer, begin, sample.chunks(), settings.send_timeout.0);
        let answer = answer(&mut reader);
        tokio::pin!(send, answer);
        let sent = tokio::select! {
            // An answer before the end: clamd has seen enough, and the rest of the stream is not wanted.
            early = &mut answer => return early.map_err(|source| ClamdError::Lost { phase: "sending", source }),
            sent = &mut send => sent,
        };
        match sent {
            Ok(()) => match timeout(settings.scan_timeout.0, answer).await {
                Ok(Ok(answer)) => {
                    self.usable = true;
                    Ok(answer)
                }
                Ok(Err(source)) => Err(ClamdError::Lost { phase: "waiting for the answer", source }),
                Err(_) => Err(ClamdError::TimedOut { phase: "waiting for the answer" }),
            },
            // clamd closed: what it said before counts, not the broken pipe.
            Err(error @ ClamdError::Lost { .. }) => match timeout(LAST_WORDS, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// One command outside a session; clamd closes behind its answer.
    async fn command(&mut self, command: &[u8], settings: &ClamdSettings) -> Result<Vec<u8>, ClamdError> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let exchange = async {
            writer.write_all(command).await?;
            answer(&mut reader).await
        };
        match timeout(settings.send_timeout.0, exchange).await {
            Ok(answered) => answered.map_err(|source| ClamdError::Lost { phase: "asking", source }),
            Err(_) => Err(ClamdError::TimedOut { phase: "asking" }),
        }
    }
}

/// Writes the commands and the stream: chunks with their length in front, an empty one at the end.
async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    begin: &[u8],
    mut chunks: Chunks,
    limit: Duration,
) -> Result<(), ClamdError> {
    write(writer, begin, limit).await?;
    while let Some(chunk) = chunks.next().await.map_err(ClamdError::Spool)? {
        // Chunks of the spool are 64 KiB at most.
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        write(writer, &length.to_be_bytes(), limit).await?;
        write(writer, &chunk, limit).await?;
    }
    write(writer, &0u32.to_be_bytes(), limit).await
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8], limit: Duration) -> Result<(), ClamdError> {
    match timeout(limit, writer.write_all(bytes)).await {
        Ok(written) => written.map_err(|source| ClamdError::Lost { phase: "sending", source }),
        Err(_) => Err(ClamdError::TimedOut { phase: "sending" }),
    }
}

/// Reads one answer, up to its NUL. One that is cut off by the end of the connection is an error when it is empty.
async fn answer<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = reader.read(&mut buffer).await?;
        answer.extend_from_slice(&buffer[..read]);
        if let Some(end) = memchr::memchr2(0, b'\n', &answer) {
            answer.truncate(end);
            return Ok(answer);
        }
        if read == 0 {
            return if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) };
        }
        if answer.len() > ANSWER {
            return Ok(answer);
        }
    }
}

/// What the answer to the INSTREAM command with this number says.
fn outcome(answer: &[u8], command: u32) -> Result<Outcome, ClamdError> {
    let text = shown(answer);
    if text.contains("size limit exceeded") {
        return Ok(Outcome::Incomplete("clamd's StreamMaxLength".to_owned()));
    }
    if let Some(error) = text.strip_suffix("ERROR") {
        return Err(ClamdError::Refused(error.trim().to_owned()));
    }
    // Inside a session the number of the command comes first: `1: stream: OK`. Another number is the answer for
    // another message, which must never be taken for this one's.
    let verdict = text.strip_prefix(&format!("{command}: stream: "));
    match verdict.map(|verdict| (verdict, verdict.strip_suffix(" FOUND"))) {
        Some(("OK", _)) => Ok(Outcome::Clean),
        Some((_, Some(name))) => Ok(found_name(name)),
        _ => Err(ClamdError::Garbage(text)),
    }
}

/// clamd reports its own limits and encryption as if they were viruses; they are not.
fn found_name(name: &str) -> Outcome {
    if let Some(limit) = name.strip_prefix("Heuristics.Limits.Exceeded") {
        return Outcome::Incomplete(format!("clamd's limit {}", limit.trim_start_matches('.')));
    }
    if let Some(what) = name.strip_prefix("Heuristics.Encrypted") {
        return Outcome::Encrypted(what.trim_start_matches('.').to_owned());
    }
    Outcome::Infected(vec![name.to_owned()])
}

/// An answer as text for logs: printable, short.
fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(answer: &str) -> String {
        match outcome(answer.as_bytes(), 1) {
            Ok(outcome) => format!("{outcome:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn answers_of_clamd() {
        for (answer, meaning) in [
            ("1: stream: OK", "Clean"),
            ("1: stream: Win.Test.EICAR_HDB-1 FOUND", r#"Infected(["Win.Test.EICAR_HDB-1"])"#),
            ("1: stream: {HEX}php.gzbase64: x.UNOFFICIAL FOUND", r#"Infected(["{HEX}php.gzbase64: x.UNOFFICIAL"])"#),
            ("1: INSTREAM size limit exceeded. ERROR", r#"Incomplete("clamd's StreamMaxLength")"#),
            ("1: stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND", r#"Incomplete("clamd's limit MaxFileSize")"#),
            ("1: stream: Heuristics.Encrypted.Zip FOUND", r#"Encrypted("Zip")"#),
            ("INSTREAM size limit exceeded. ERROR", r#"Incomplete("clamd's StreamMaxLength")"#),
            ("1: stream: Can't allocate memory ERROR", "clamd says: 1: stream: Can't allocate memory"),
            ("2: stream: OK", "clamd sent something that is no answer: 2: stream: OK"),
            ("stream: OK", "clamd sent something that is no answer: stream: OK"),
            ("COMMAND READ TIMED OUT", "clamd sent something that is no answer: COMMAND READ TIMED OUT"),
            ("", "clamd sent something that is no answer: "),
            ("1: stream:", "clamd sent something that is no answer: 1: stream:"),
        ] {
            assert_eq!(read(answer), meaning, "{answer}");
        }
    }

    #[test]
    fn settings_are_checked() {
        assert_eq!(ClamdSettings::default().mistakes(), []);
        let zero = Period(Duration::ZERO);
        let wrong = ClamdSettings { max_connections: 0, scan_timeout: zero, ..ClamdSettings::default() };
        let keys: Vec<_> = wrong.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["scan_timeout", "max_connections"]);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(answer: Vec<u8>) {
            let _ = outcome(&answer, 1);
        }
    }
}
