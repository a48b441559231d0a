// SPDX-License-Identifier: GPL-3.0-or-later
//! A connection to an engine: what is sent and what is heard at the same time, each with its limits.
//!
//! Engines answer in the middle of what they are sent, and close: a client that first writes everything sees only a broken
//! pipe. So what arrives is read while writing, and what was said before the end counts. Nothing here knows a protocol.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use common::address::Address;
use common::net::Stream;
use tokio::io::{Interest, Ready};
use tokio::time::{Instant, timeout, timeout_at};

use super::engine::{Failure, shown};

/// Most bytes of an answer that are kept.
const ANSWER: usize = 64 * 1024;
/// How long an answer may take to arrive after the engine has closed its side.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How sending ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// Everything is on its way.
    All,
    /// What was heard makes the rest unnecessary.
    Early,
}

/// A connected stream and what has been heard on it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    heard: Vec<u8>,
    /// What is still to be sent, while other things are waited for.
    outgoing: VecDeque<Bytes>,
    closed: bool,
}

impl Wire {
    /// A connection that is there.
    #[cfg(fuzzing)]
    pub(super) fn over(stream: Stream) -> Wire {
        Wire::new(stream)
    }

    fn new(stream: Stream) -> Wire {
        Wire { stream, heard: Vec::new(), outgoing: VecDeque::new(), closed: false }
    }

    /// Connects.
    pub(super) async fn connect(address: &Address, limit: Duration) -> Result<Wire, Failure> {
        match timeout(limit, Stream::connect(address)).await {
            Ok(Ok(stream)) => Ok(Wire::new(stream)),
            Ok(Err(source)) => Err(Failure::Connect { address: address.clone(), source }),
            Err(_) => Err(Failure::TimedOut { phase: "connecting" }),
        }
    }

    /// Whether it is in the state in which it was left: nothing has been said since, and it is open.
    pub(super) fn is_quiet(&mut self) -> bool {
        let waits = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.heard.is_empty()
            && self.outgoing.is_empty()
            && self.stream.try_read(&mut [0; 1]).is_err_and(|error| waits(&error))
    }

    /// Sends, and reads what arrives meanwhile. `enough` looks at that and says whether the rest is still of use. No byte being
    /// taken for `limit` is a failure; an engine that closes is heard out first.
    pub(super) async fn send<'b>(
        &mut self,
        chunks: impl Iterator<Item = &'b [u8]>,
        limit: Duration,
        enough: fn(&[u8]) -> bool,
    ) -> Result<Sent, Failure> {
        for chunk in chunks {
            let mut rest = chunk;
            while !rest.is_empty() {
                match self.try_write(rest) {
                    Ok(written) if written > 0 => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_send(limit).await?,
                    Ok(_) => return self.hear_out(io::ErrorKind::WriteZero.into(), enough).await,
                    Err(error) => return self.hear_out(error, enough).await,
                }
                self.read_what_is_here();
                if enough(&self.heard) {
                    return Ok(Sent::Early);
                }
            }
        }
        Ok(Sent::All)
    }

    /// Has something sent, by [`Wire::send_queued`] and while an answer is waited for.
    pub(super) fn queue(&mut self, bytes: impl IntoIterator<Item = Bytes>) {
        self.outgoing.extend(bytes.into_iter().filter(|bytes| !bytes.is_empty()));
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// The same as [`Wire::send`] for what is queued. What has not been sent when `enough` says so stays queued: servers that give back what
    /// they get begin before they have all of it, and go on only when more comes.
    pub(super) async fn send_queued(&mut self, limit: Duration, enough: fn(&[u8]) -> bool) -> Result<Sent, Failure> {
        while !self.outgoing.is_empty() {
            match self.try_write_queued() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_send(limit).await?,
                Err(error) => {
                    self.outgoing.clear();
                    return self.hear_out(error, enough).await;
                }
            }
            self.read_what_is_here();
            if enough(&self.heard) {
                return Ok(Sent::Early);
            }
        }
        Ok(Sent::All)
    }

    /// Sends what goes at once of the first piece that is queued.
    fn try_write_queued(&mut self) -> io::Result<()> {
        let Some(first) = self.outgoing.front_mut() else { return Ok(()) };
        let written = match &self.stream {
            Stream::Tcp(stream) => stream.try_write(first),
            Stream::Unix(stream) => stream.try_write(first),
        }?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        first.advance(written);
        if first.is_empty() {
            self.outgoing.pop_front();
        }
        Ok(())
    }

    /// Sends what goes at once of all that is queued. Whoever takes no more may still have something to say.
    fn write_what_goes(&mut self) {
        while !self.outgoing.is_empty() {
            match self.try_write_queued() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// Sends a few bytes and a descriptor along with them (unix(7), SCM_RIGHTS).
    pub(super) async fn send_descriptor(
        &mut self,
        bytes: &[u8],
        file: impl AsFd,
        limit: Duration,
    ) -> Result<(), Failure> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let lost = |source| Failure::Lost { phase: "sending", source };
        loop {
            let Stream::Unix(stream) = &self.stream else {
                return Err(lost(io::ErrorKind::Unsupported.into()));
            };
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let files = [file.as_fd()];
                control.push(SendAncillaryMessage::ScmRights(&files));
                let sent = sendmsg(stream, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
                sent.map_err(io::Error::from)
            });
            match sent {
                // The kernel takes so few bytes whole or not at all.
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(lost(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_send(limit).await?,
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// Waits for more to be heard, until `until`, and meanwhile sends what is queued. Safe to cancel. The end of the connection is a failure.
    pub(super) async fn hear(&mut self, until: Instant, phase: &'static str) -> Result<(), Failure> {
        let lost = |source| Failure::Lost { phase, source };
        loop {
            if self.closed {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            self.write_what_goes();
            let interest =
                if self.outgoing.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
            match timeout_at(until, self.ready(interest)).await {
                Ok(Ok(_)) => {}
                Ok(Err(source)) => return Err(lost(source)),
                Err(_) => return Err(Failure::TimedOut { phase }),
            }
            let before = self.heard.len();
            if before >= ANSWER {
                return Err(Failure::Garbage(shown(&self.heard)));
            }
            self.read_what_is_here();
            // What was begun before the end is all there will be.
            if self.heard.len() > before || self.closed && before > 0 {
                return Ok(());
            }
        }
    }

    /// Takes one line that has been heard, up to a line end or NUL, or to the end of the connection; none when there is no whole one.
    pub(super) fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = memchr::memchr2(0, b'\n', &self.heard) else {
            let rest = (self.closed && !self.heard.is_empty()).then(|| std::mem::take(&mut self.heard));
            return rest;
        };
        let mut line: Vec<u8> = self.heard.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    /// Waits for one line.
    pub(super) async fn line(&mut self, until: Instant, phase: &'static str) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            self.hear(until, phase).await?;
        }
    }

    /// Takes up to `most` bytes that have been heard.
    pub(super) fn take(&mut self, most: usize) -> Vec<u8> {
        let count = most.min(self.heard.len());
        self.heard.drain(..count).collect()
    }

    /// What has been heard and not taken.
    pub(super) fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// The engine closed while we wrote: what it said before counts, not the broken pipe.
    async fn hear_out(&mut self, source: io::Error, enough: fn(&[u8]) -> bool) -> Result<Sent, Failure> {
        let until = Instant::now() + LAST_WORDS;
        while !enough(&self.heard) {
            if self.hear(until, "sending").await.is_err() {
                // Half an answer is none; what was said in whole lines is for the caller.
                let whole = memchr::memchr2(0, b'\n', &self.heard).is_some();
                return if whole { Ok(Sent::Early) } else { Err(Failure::Lost { phase: "sending", source }) };
            }
        }
        Ok(Sent::Early)
    }

    async fn wait_to_send(&mut self, limit: Duration) -> Result<(), Failure> {
        // With enough heard, the peer may wait until that is looked at.
        let hearing = self.heard.len() < ANSWER && !self.closed;
        let interest = if hearing { Interest::WRITABLE.add(Interest::READABLE) } else { Interest::WRITABLE };
        match timeout(limit, self.ready(interest)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(Failure::Lost { phase: "sending", source }),
            Err(_) => Err(Failure::TimedOut { phase: "sending" }),
        }
    }

    /// Reads without waiting, up to what is kept.
    fn read_what_is_here(&mut self) {
        let mut buffer = [0; 4096];
        while !self.closed && self.heard.len() < ANSWER {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                // A reset is an end; whoever writes or waits will notice.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.closed = true,
                Err(_) => break,
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match &self.stream {
            Stream::Tcp(stream) => stream.ready(interest).await,
            Stream::Unix(stream) => stream.ready(interest).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const LIMIT: Duration = Duration::from_secs(30);

    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port());
        let (wire, peer) = tokio::join!(Wire::connect(&address, LIMIT), listener.accept());
        (wire.unwrap(), peer.unwrap().0)
    }

    fn never(_: &[u8]) -> bool {
        false
    }

    #[tokio::test]
    async fn lines_are_heard_in_pieces() {
        let (mut wire, mut peer) = pair().await;
        assert!(wire.is_quiet());
        peer.write_all(b"one\r\ntw").await.unwrap();
        assert_eq!(wire.line(Instant::now() + LIMIT, "x").await.unwrap(), b"one");
        peer.write_all(b"o\0half").await.unwrap();
        assert_eq!(wire.line(Instant::now() + LIMIT, "x").await.unwrap(), b"two");
        drop(peer);
        assert_eq!(wire.line(Instant::now() + LIMIT, "x").await.unwrap(), b"half");
        assert!(matches!(wire.line(Instant::now() + LIMIT, "x").await, Err(Failure::Lost { phase: "x", .. })));
        assert!(!wire.is_quiet());
    }

    #[tokio::test]
    async fn an_answer_in_the_middle_is_heard_although_the_rest_is_not_taken() {
        let (mut wire, mut peer) = pair().await;
        let large = vec![b'x'; 20_000_000];
        let talk = async {
            let mut some = [0; 1000];
            peer.read_exact(&mut some).await.unwrap();
            peer.write_all(b"too much\n").await.unwrap();
            drop(peer);
        };
        let (sent, ()) = tokio::join!(wire.send([large.as_slice()].into_iter(), LIMIT, never), talk);
        assert!(matches!(sent, Ok(Sent::Early)), "{sent:?}");
        assert_eq!(wire.take_line().unwrap(), b"too much");
    }

    #[tokio::test]
    async fn an_endless_answer_has_an_end() {
        let (mut wire, mut peer) = pair().await;
        let talk = tokio::spawn(async move { while peer.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let answer = wire.line(Instant::now() + LIMIT, "x").await;
        assert!(matches!(answer, Err(Failure::Garbage(_))), "{answer:?}");
        drop(wire);
        talk.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_waited_for_for_ever() {
        let (mut wire, peer) = pair().await;
        let short = Duration::from_millis(50);
        let large = vec![b'x'; 20_000_000];
        let sent = wire.send([large.as_slice()].into_iter(), short, never).await;
        assert!(matches!(sent, Err(Failure::TimedOut { phase: "sending" })), "{sent:?}");
        let heard = wire.line(Instant::now() + short, "waiting").await;
        assert!(matches!(heard, Err(Failure::TimedOut { phase: "waiting" })), "{heard:?}");
        drop(peer);
    }
}
