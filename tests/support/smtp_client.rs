// SPDX-License-Identifier: GPL-3.0-or-later
//! An SMTP client that sends exactly the bytes a test gives it and shows replies exactly as they came.
//!
//! It shares no code with contentd. Anything that takes longer than 30 seconds is a failed test.

use std::time::Duration;

use common::address::Address;
use common::net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// A reply as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    /// The code of the last line; 0 for nothing at all.
    pub fn code(&self) -> u16 {
        self.text().lines().last().and_then(|line| line.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// A connected client.
#[derive(Debug)]
pub struct SmtpClient {
    stream: Stream,
    input: Vec<u8>,
}

impl SmtpClient {
    /// Connects and reads the banner.
    pub async fn connect(address: &Address) -> SmtpClient {
        let stream = timeout(PATIENCE, Stream::connect(address)).await.expect("connected in time").expect("connected");
        let mut client = SmtpClient { stream, input: Vec::new() };
        assert_eq!(client.answer().await.code(), 220);
        client
    }

    /// Connects and says EHLO.
    pub async fn greeted(address: &Address) -> SmtpClient {
        let mut client = SmtpClient::connect(address).await;
        assert_eq!(client.command("EHLO front.test").await.code(), 250);
        client
    }

    /// Connects and goes up to the 354: one sender, one recipient.
    pub async fn in_data(address: &Address) -> SmtpClient {
        let mut client = SmtpClient::greeted(address).await;
        assert_eq!(client.command("MAIL FROM:<sender@example.org>").await.code(), 250);
        assert_eq!(client.command("RCPT TO:<recipient@example.net>").await.code(), 250);
        assert_eq!(client.command("DATA").await.code(), 354);
        client
    }

    /// Sends one message, given with its line ends and dots as they go on the wire but without the final dot;
    /// gives the reply to that. Then it says QUIT, as Postfix does: whoever closes without a word may have died before he made
    /// use of the reply, and the same message is then taken for his next try.
    pub async fn deliver(address: &Address, wire: &[u8]) -> Answer {
        let mut client = SmtpClient::in_data(address).await;
        client.send(wire).await;
        client.send(b".\r\n").await;
        let answer = client.answer().await;
        // The reply may have been the last one of this connection.
        if client.try_send(b"QUIT\r\n").await.is_ok() {
            client.answer().await;
        }
        answer
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("sent in time").expect("sent");
    }

    /// Sends bytes that the other side may refuse to take.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("sent in time")
    }

    /// Sends a line and reads the reply.
    pub async fn command(&mut self, line: &str) -> Answer {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.answer().await
    }

    /// Reads one reply. When the connection ends, gives what there was.
    pub async fn answer(&mut self) -> Answer {
        let mut taken = 0;
        loop {
            while let Some(end) = self.input[taken..].iter().position(|byte| *byte == b'\n') {
                let last = self.input.get(taken + 3) != Some(&b'-');
                taken += end + 1;
                if last {
                    return Answer(self.input.drain(..taken).collect());
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.expect("a reply in time");
            if !matches!(read, Ok(1..)) {
                return Answer(std::mem::take(&mut self.input));
            }
        }
    }

    /// Whether the other side has closed, without a word.
    pub async fn is_closed(&mut self) -> bool {
        self.answer().await.0.is_empty()
    }
}
