// SPDX-License-Identifier: GPL-3.0-or-later
//! The connection from Postfix: bytes in with a bounded buffer, replies out in batches, and the question
//! whether the client is still there.
//!
//! It knows lines, not commands. Every wait has a limit; every read can be cancelled without losing bytes.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use common::net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::protocol::LINE_LIMIT;
use super::reply::Reply;

/// How much is read at once, and the most that is kept of what a client sends ahead.
const BUFFER: usize = 64 * 1024;

/// Why the connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrontError {
    /// The client has closed.
    #[error("connection closed by the client")]
    Closed,
    /// The client said or took nothing for too long.
    #[error("timeout")]
    Timeout,
    /// The system reported an error, such as a reset.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// One line from the client.
#[derive(Debug)]
pub(crate) enum Line {
    /// Without its line end.
    Complete(BytesMut),
    /// It was over the limit and is gone.
    TooLong,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Front {
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
    /// Replies are small: who does not take them in this time is gone.
    reply_timeout: Duration,
    /// Inside an overlong line, which is thrown away up to its end.
    discarding: bool,
}

impl Front {
    pub(crate) fn new(stream: Stream, reply_timeout: Duration) -> Front {
        Front { stream, input: BytesMut::new(), output: Vec::new(), reply_timeout, discarding: false }
    }

    /// Puts a reply into the next batch (RFC 2920 3.2: replies of a pipelined group may go out together).
    pub(crate) fn reply(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    /// Sends the batch.
    pub(crate) async fn flush(&mut self) -> Result<(), FrontError> {
        if !self.output.is_empty() {
            timeout(self.reply_timeout, self.stream.write_all(&self.output))
                .await
                .map_err(|_| FrontError::Timeout)??;
            self.output.clear();
        }
        Ok(())
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), FrontError> {
        timeout(self.reply_timeout, self.stream.write_all(bytes)).await.map_err(|_| FrontError::Timeout)??;
        Ok(())
    }

    /// Says that nothing more will come and lets the client finish what it is sending: a connection that is closed with bytes unread is
    /// reset, and what the client has not read yet is lost to it.
    pub(crate) async fn hear_out(&mut self, deadline: Instant) {
        self.stream.end_writing();
        loop {
            self.input.clear();
            if self.fill(deadline).await.is_err() {
                return;
            }
        }
    }

    /// Whether a command is waiting, so that replies need not be sent yet.
    pub(crate) fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.input).is_some()
    }

    /// The next line, all of it within `wait`. A line may end in a lone LF here: that matters only inside a message. Safe to cancel.
    pub(crate) async fn line(&mut self, wait: Duration) -> Result<Line, FrontError> {
        let deadline = Instant::now() + wait;
        loop {
            match memchr::memchr(b'\n', &self.input) {
                Some(end) if self.discarding || end > LINE_LIMIT + 1 => {
                    self.input.advance(end + 1);
                    self.discarding = false;
                    return Ok(Line::TooLong);
                }
                Some(end) => {
                    let mut line = self.input.split_to(end + 1);
                    let text = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]).len();
                    line.truncate(text);
                    return Ok(Line::Complete(line));
                }
                None if self.input.len() > LINE_LIMIT + 1 => {
                    self.input.clear();
                    self.discarding = true;
                }
                None => {}
            }
            self.fill(deadline).await?;
        }
    }

    /// Whether an overlong line has begun, and not ended yet.
    pub(crate) fn is_in_long_line(&self) -> bool {
        self.discarding
    }

    /// Reads at least one byte more. Safe to cancel.
    pub(crate) async fn fill(&mut self, deadline: Instant) -> Result<(), FrontError> {
        self.input.reserve(BUFFER);
        match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(FrontError::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(FrontError::Timeout),
        }
    }

    /// What has been read and not been used.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Gives the buffer's memory back, for the time in which a message is inspected.
    pub(crate) fn shrink(&mut self) {
        self.input = BytesMut::from(&self.input[..]);
    }

    /// Comes back when the client has closed. Commands that it sends ahead are kept, up to the size of the
    /// buffer; after that we stop looking.
    pub(crate) async fn vanished(&mut self) {
        loop {
            if self.input.len() >= BUFFER {
                return std::future::pending().await;
            }
            self.input.reserve(1024);
            if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Whether the connection was reset, as far as the system knows now; reading may still have seen an orderly end before.
    pub(crate) fn was_reset(&self) -> bool {
        let error = match &self.stream {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }

    /// Whether the client has closed, as far as the system knows now.
    pub(crate) async fn is_gone(&mut self) -> bool {
        // Lets the runtime see events that have arrived since it last looked.
        tokio::task::yield_now().await;
        let mut ahead = [0; 1024];
        while self.input.len() < BUFFER {
            match self.stream.try_read(&mut ahead) {
                Ok(0) => return true,
                Ok(length) => self.input.extend_from_slice(&ahead[..length]),
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    const WAIT: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, Front) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Front::new(Stream::Tcp(listener.accept().await.unwrap().0), WAIT))
    }

    async fn text(front: &mut Front) -> Option<String> {
        match front.line(WAIT).await.unwrap() {
            Line::Complete(line) => Some(String::from_utf8_lossy(&line).into_owned()),
            Line::TooLong => None,
        }
    }

    #[tokio::test]
    async fn lines_in_one_go_and_overlong_ones() {
        let (mut client, mut front) = pair().await;
        let long = "x".repeat(300_000);
        let exact = "y".repeat(LINE_LIMIT);
        let sent = format!("EHLO a\r\nNOOP\n{long}\r\n{exact}\r\n{exact}z\r\nQUIT\r\n");
        let writer = tokio::spawn(async move {
            client.write_all(sent.as_bytes()).await.unwrap();
            client
        });
        assert_eq!(text(&mut front).await.unwrap(), "EHLO a");
        assert_eq!(text(&mut front).await.unwrap(), "NOOP");
        assert_eq!(text(&mut front).await, None);
        assert_eq!(text(&mut front).await.unwrap(), exact);
        assert_eq!(text(&mut front).await, None);
        assert_eq!(text(&mut front).await.unwrap(), "QUIT");
        assert!(!front.is_gone().await);
        drop(writer.await.unwrap());
        front.vanished().await;
        assert!(front.is_gone().await);
    }

    #[tokio::test]
    async fn what_is_sent_ahead_is_kept() {
        let (mut client, mut front) = pair().await;
        client.write_all(b"QUIT\r\n").await.unwrap();
        drop(client);
        front.vanished().await;
        assert!(front.is_gone().await);
        assert_eq!(text(&mut front).await.unwrap(), "QUIT");
        assert!(matches!(front.line(WAIT).await, Err(FrontError::Closed)));
    }
}
