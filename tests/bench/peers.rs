// SPDX-License-Identifier: GPL-3.0-or-later
//! Servers that do nothing, each a process of its own: the floor that the daemons are measured against, and the next
//! hop behind contentd.
//!
//! `dunno` answers every policy request (SMTPD_POLICY_README) with DUNNO, unread. `proxy` takes a message as
//! smtpd_proxy_filter(5) expects and hands it on, unread. `sink` takes messages, counts and forgets them.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::smtp::Wire;

/// Largest policy request, in bytes; ours have about 700.
const LONGEST_REQUEST: usize = 64 * 1024;

const KEYWORDS: &[u8] = b"250-bench.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n\
    250-DSN\r\n250-SMTPUTF8\r\n250 XFORWARD NAME ADDR PORT HELO IDENT PROTO SOURCE\r\n";

/// The do-nothing policy server.
pub(crate) async fn dunno(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer_dunno(stream));
    }
}

async fn answer_dunno(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::with_capacity(4096);
    while stream.read_buf(&mut request).await? > 0 {
        // Whoever asks waits for the answer, so a request ends where the bytes end.
        if request.ends_with(b"\n\n") {
            stream.write_all(b"action=DUNNO\n\n").await?;
            request.clear();
        } else if request.len() > LONGEST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// What becomes of a message.
#[derive(Debug, Clone)]
enum Fate {
    /// Counted and forgotten.
    Sink(Arc<Counts>),
    /// Sent to the server on this port.
    HandedOn(u16),
}

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// The next hop. NOOP tells how many messages and bytes have come; see [`sunk`].
pub(crate) async fn sink(port: u16) -> io::Result<()> {
    serve_smtp(port, Fate::Sink(Arc::default())).await
}

/// The do-nothing proxy in front of `next`.
pub(crate) async fn proxy(port: u16, next: u16) -> io::Result<()> {
    serve_smtp(port, Fate::HandedOn(next)).await
}

/// Asks the sink how many messages and how many bytes it has taken.
pub(crate) async fn sunk(port: u16) -> io::Result<(u64, u64)> {
    let mut wire = Wire::connect(port).await?;
    wire.reply().await?;
    wire.send(b"NOOP\r\n").await?;
    let reply = wire.reply().await?;
    let text = String::from_utf8_lossy(&reply.text);
    let mut numbers = text.split_whitespace().skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(messages)), Some(Ok(bytes))) => Ok((messages, bytes)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the sink says {text:?}"))),
    }
}

async fn serve_smtp(port: u16, fate: Fate) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(session(stream, fate.clone()));
    }
}

async fn session(stream: TcpStream, fate: Fate) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    let mut envelope: Vec<Vec<u8>> = Vec::new();
    wire.send(b"220 bench.test ESMTP\r\n").await?;
    loop {
        let line = wire.line().await?;
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_slice() {
            b"EHLO" => wire.send(KEYWORDS).await?,
            b"XFOR" | b"MAIL" | b"RCPT" => {
                envelope.push(line.to_vec());
                wire.send(b"250 2.0.0 Ok\r\n").await?;
            }
            b"DATA" => {
                wire.send(b"354 Go on\r\n").await?;
                let reply = fate.take(&mut wire, &envelope).await?;
                envelope.clear();
                wire.send(&reply).await?;
            }
            b"HELO" | b"RSET" => {
                envelope.clear();
                wire.send(b"250 2.0.0 Ok\r\n").await?;
            }
            b"NOOP" => wire.send(&fate.counted()).await?,
            b"QUIT" => return wire.send(b"221 2.0.0 Bye\r\n").await,
            b"" => return Ok(()),
            _ => wire.send(b"502 5.5.1 Unknown command\r\n").await?,
        }
    }
}

impl Fate {
    /// Takes the message from the client; gives the reply to it.
    async fn take(&self, client: &mut Wire, envelope: &[Vec<u8>]) -> io::Result<Vec<u8>> {
        match self {
            Fate::Sink(counts) => {
                let length = client.message(None).await?;
                counts.messages.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(length, Ordering::Relaxed);
                Ok(b"250 2.0.0 Ok: sunk\r\n".to_vec())
            }
            Fate::HandedOn(next) => {
                let mut message = Vec::new();
                client.message(Some(&mut message)).await?;
                let handed = hand_on(*next, envelope, &message).await;
                Ok(handed.unwrap_or_else(|error| format!("451 4.4.1 next hop: {error}\r\n").into_bytes()))
            }
        }
    }

    fn counted(&self) -> Vec<u8> {
        let Fate::Sink(counts) = self else { return b"250 2.0.0 Ok\r\n".to_vec() };
        let (messages, bytes) = (counts.messages.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed));
        format!("250 {messages} {bytes}\r\n").into_bytes()
    }
}

async fn hand_on(next: u16, envelope: &[Vec<u8>], message: &[u8]) -> io::Result<Vec<u8>> {
    let mut wire = Wire::connect(next).await?;
    wire.reply().await?;
    let steps = [b"EHLO proxy.test\r\n".as_slice()].into_iter().chain(envelope.iter().map(Vec::as_slice));
    for step in steps.chain([b"DATA\r\n".as_slice()]) {
        wire.send(step).await?;
        let reply = wire.reply().await?;
        if reply.code >= 400 {
            return Ok(reply.text);
        }
    }
    wire.send(message).await?;
    let reply = wire.reply().await?;
    wire.send(b"QUIT\r\n").await?;
    Ok(reply.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::ports::free_port;

    async fn reached(port: u16) -> TcpStream {
        loop {
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_policy_server_answers_each_request_once() {
        let port = free_port();
        tokio::spawn(dunno(port));
        let mut stream = reached(port).await;
        for _ in 0..3 {
            stream.write_all(b"request=smtpd_access_policy\n").await.unwrap();
            stream.write_all(b"sender=\n\n").await.unwrap();
            let mut answer = [0; 14];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"action=DUNNO\n\n");
        }
    }

    #[tokio::test]
    async fn the_proxy_hands_on_to_the_sink_and_its_reply_back() {
        let (front, back) = (free_port(), free_port());
        tokio::spawn(sink(back));
        tokio::spawn(proxy(front, back));
        drop((reached(front).await, reached(back).await));
        assert_eq!(sunk(back).await.unwrap(), (0, 0));
        let message = b"Subject: x\r\n\r\ny\r\n.\r\n";
        let envelope = [b"MAIL FROM:<a@b.test>\r\n".to_vec(), b"RCPT TO:<c@d.test>\r\n".to_vec()];
        let reply = hand_on(front, &envelope, message).await.unwrap();
        assert_eq!(reply, b"250 2.0.0 Ok: sunk\r\n");
        assert_eq!(sunk(back).await.unwrap(), (1, message.len() as u64));
    }

    #[tokio::test]
    async fn a_proxy_without_next_hop_says_so() {
        let (front, nobody) = (free_port(), free_port());
        tokio::spawn(proxy(front, nobody));
        drop(reached(front).await);
        let reply = hand_on(front, &[], b"x\r\n.\r\n").await.unwrap();
        assert!(reply.starts_with(b"451 4.4.1 next hop: "), "{}", String::from_utf8_lossy(&reply));
    }
}
