// SPDX-License-Identifier: GPL-3.0-or-later
//! A savdid that misbehaves on order. It speaks SSSP/1.0 with SCANDATA up to the point where it was told to go wrong, and scans
//! nothing: data is infected when it holds `EICAR`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::address::Address;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers as it should.
    Proper,
    /// Takes the connection and never greets.
    NoGreeting,
    /// Greets as something else.
    Stranger,
    /// Reads everything and never answers.
    Silent,
    /// Says that it accepts the request, and nothing more.
    HalfAnswer,
    /// Closes in the middle of its answer.
    CutAnswer,
    /// Answers with bytes that are no answer.
    Garbage,
    /// Sends a line without end.
    Endless,
    /// Closes when it has read so much.
    CloseAfter(usize),
    /// Rejects the request as too large before it has read it.
    TooLarge,
    /// Rejects the request.
    Rejects,
    /// Says that the file is encrypted.
    Encrypted,
    /// Says that the file is damaged.
    Corrupt,
    /// Names the virus after many lines of other facts.
    LateVirus,
    /// Answers one request per connection.
    OneEach,
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeSssp {
    address: Address,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl FakeSssp {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(manner: Manner) -> FakeSssp {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = Address::tcp("127.0.0.1", listener.local_addr().expect("it is bound").port());
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, seen) = (connections.clone(), requests.clone());
        let server = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                let session = Session { stream: BufReader::new(stream), manner, requests: seen.clone() };
                sessions.spawn(session.serve());
            }
        });
        FakeSssp { address, connections, requests, server }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connections and requests so far.
    pub fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

impl Drop for FakeSssp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    manner: Manner,
    requests: Arc<AtomicUsize>,
}

impl Session {
    /// The client may go at any time; that is no error.
    async fn serve(mut self) {
        let _ = self.requests().await;
    }

    async fn requests(&mut self) -> io::Result<()> {
        match self.manner {
            Manner::NoGreeting => return std::future::pending().await,
            Manner::Stranger => self.say("220 mail.test ESMTP\r\n").await?,
            _ => self.say("OK SSSP/1.0\r\n").await?,
        }
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let size = line.trim_end().strip_prefix("SSSP/1.0 SCANDATA ").and_then(|size| size.parse().ok());
            let Some(size) = size else { return self.say("REJ 1\r\n").await };
            self.requests.fetch_add(1, Ordering::SeqCst);
            if !self.data(size).await? {
                return Ok(());
            }
        }
    }

    /// Reads the data and answers; false when the connection ends with it.
    async fn data(&mut self, size: usize) -> io::Result<bool> {
        match self.manner {
            Manner::TooLarge => return self.say("REJ 4\r\n").await.map(|()| false),
            Manner::CloseAfter(limit) => {
                let mut some = vec![0; limit.min(size)];
                self.stream.read_exact(&mut some).await?;
                return Ok(false);
            }
            _ => {}
        }
        let mut data = vec![0; size];
        self.stream.read_exact(&mut data).await?;
        let infected = data.windows(5).any(|window| window == b"EICAR");
        let verdict = if infected {
            "VIRUS Fake-Eicar part\r\nOK 0203 part\r\nDONE OK 0203 Virus found during virus scan\r\n\r\n"
        } else {
            "DONE OK 0000 The function call succeeded\r\n\r\n"
        };
        let answer = match self.manner {
            Manner::Silent => return std::future::pending().await,
            Manner::Garbage => "\u{1}\u{2}gibberish\r\n".to_owned(),
            Manner::Rejects => "REJ 2\r\n".to_owned(),
            Manner::HalfAnswer | Manner::CutAnswer => "ACC 1/1\r\nDONE OK".to_owned(),
            Manner::Encrypted => "ACC 1/1\r\nFAIL 0212 part\r\nDONE OK 0212 encrypted\r\n\r\n".to_owned(),
            Manner::Corrupt => "ACC 1/1\r\nDONE FAIL 0210 Corrupt\r\n\r\n".to_owned(),
            Manner::LateVirus => format!("ACC 1/1\r\n{}{verdict}", "TYPE text\r\nEVENT FILE part\r\n".repeat(500)),
            Manner::Endless => loop {
                self.say(&"x".repeat(4096)).await?;
            },
            _ => format!("ACC 1/1\r\n{verdict}"),
        };
        self.say(&answer).await?;
        match self.manner {
            Manner::HalfAnswer => std::future::pending().await,
            Manner::CutAnswer | Manner::OneEach | Manner::Rejects | Manner::Garbage => Ok(false),
            _ => Ok(true),
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await
    }
}
