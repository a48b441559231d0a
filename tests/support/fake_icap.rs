// SPDX-License-Identifier: GPL-3.0-or-later
//! An ICAP server (RFC 3507) that misbehaves on order. A body is infected when it holds `EICAR`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::address::Address;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What it does with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 204 or X-Infection-Found.
    Proper,
    /// The same, with a preview of so many bytes; what the preview holds is answered at once.
    Preview(usize),
    /// Gives a clean body back with 200, as servers without 204 do.
    GivesBack,
    /// Gives a changed body back.
    Changes,
    /// Answers an infected body with a web page and no word about a virus.
    Blocks,
    /// Names viruses in X-Violations-Found.
    Violations,
    /// Answers an infected body in the middle of it, and closes.
    Early,
    /// Reads everything and never answers.
    Silent,
    /// Sends half a header and nothing more.
    HalfAnswer,
    /// Closes in the middle of its answer.
    CutAnswer,
    /// Closes in the middle of a body that it gives back.
    CutBody,
    /// Answers with something that is no answer.
    Garbage,
    /// Sends a header line without end.
    Endless,
    /// Has an error of its own.
    Error,
    /// Has no such service.
    NoService,
    /// Has the other method only.
    WrongMethod,
    /// Answers one request per connection, without saying so.
    OneEach,
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeIcap {
    address: Address,
    connections: Arc<AtomicUsize>,
    bodies: Arc<AtomicUsize>,
    continued: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl FakeIcap {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(manner: Manner) -> FakeIcap {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = Address::tcp("127.0.0.1", listener.local_addr().expect("it is bound").port());
        let counter = || Arc::new(AtomicUsize::new(0));
        let (connections, bodies, continued) = (counter(), counter(), counter());
        let (opened, seen, went_on) = (connections.clone(), bodies.clone(), continued.clone());
        let server = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                let session = Session {
                    stream: BufReader::new(stream),
                    manner,
                    bodies: seen.clone(),
                    continued: went_on.clone(),
                };
                sessions.spawn(session.serve());
            }
        });
        FakeIcap { address, connections, bodies, continued, server }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connections, requests with a body, and of these those it wanted more of than the preview, so far.
    pub fn seen(&self) -> (usize, usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (read(&self.connections), read(&self.bodies), read(&self.continued))
    }
}

impl Drop for FakeIcap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    manner: Manner,
    bodies: Arc<AtomicUsize>,
    continued: Arc<AtomicUsize>,
}

impl Session {
    /// The client may go at any time; that is no error.
    async fn serve(mut self) {
        let _ = self.requests().await;
    }

    async fn requests(&mut self) -> io::Result<()> {
        loop {
            let head = self.section().await?;
            let Some(first) = head.first().cloned() else { return Ok(()) };
            if first.starts_with("OPTIONS ") {
                self.options(&first).await?;
            } else if !self.body(&head).await? {
                return Ok(());
            }
        }
    }

    async fn options(&mut self, first: &str) -> io::Result<()> {
        if self.manner == Manner::NoService {
            return self.say("ICAP/1.0 404 ICAP Service not found\r\n\r\n").await;
        }
        assert!(first.contains("/avscan "), "{first}");
        let methods = if self.manner == Manner::WrongMethod { "REQMOD" } else { "RESPMOD, REQMOD" };
        let preview = match self.manner {
            Manner::Preview(size) => format!("Preview: {size}\r\n"),
            _ => String::new(),
        };
        let text = format!(
            "ICAP/1.0 200 OK\r\nMethods: {methods}\r\nService: Fake 1.0\r\nAllow: 204\r\n{preview}Encapsulated: null-body=0\r\n\r\n"
        );
        self.say(&text).await
    }

    /// Reads one request with its body and answers; false when the connection ends with it.
    async fn body(&mut self, head: &[String]) -> io::Result<bool> {
        self.bodies.fetch_add(1, Ordering::SeqCst);
        let list = head.iter().find_map(|line| line.strip_prefix("Encapsulated: ")).expect("every request has it");
        for _ in list.split(", ").filter(|entry| entry.contains("-hdr=")) {
            self.section().await?;
        }
        let preview = head.iter().any(|line| line.starts_with("Preview: "));
        let Ok((mut content, ended)) = self.chunks().await else {
            let found = "ICAP/1.0 200 OK\r\nX-Infection-Found: Type=0; Resolution=2; Threat=Fake-Eicar;\r\n\r\n";
            return self.say(found).await.map(|()| false);
        };
        // The first run of chunks is the preview, or all there is.
        if preview && !ended && !is_infected(&content) {
            self.continued.fetch_add(1, Ordering::SeqCst);
            self.say("ICAP/1.0 100 Continue\r\n\r\n").await?;
            content.append(&mut self.chunks().await?.0);
        }
        self.verdict(&content, list.contains("res-hdr")).await
    }

    async fn verdict(&mut self, content: &[u8], respmod: bool) -> io::Result<bool> {
        let infected = is_infected(content);
        let page = "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=26\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        let found = |fields: &str| format!("ICAP/1.0 200 OK\r\n{fields}\r\nEncapsulated: null-body=0\r\n\r\n");
        let answer = match (self.manner, infected) {
            (Manner::Silent, _) => return std::future::pending().await,
            (Manner::Garbage, _) => "\u{1}\u{2}gibberish\r\n\r\n".to_owned(),
            (Manner::Error, _) => "ICAP/1.0 500 Server error\r\n\r\n".to_owned(),
            (Manner::HalfAnswer | Manner::CutAnswer, _) => "ICAP/1.0 204 No Content\r\nISTag: \"x".to_owned(),
            (Manner::Endless, _) => loop {
                self.say(&"x".repeat(4096)).await?;
            },
            (Manner::Blocks, true) => page.to_owned(),
            (Manner::Violations, true) => found(
                "X-Violations-Found: 2\r\n\ta.txt\r\n\tFake-Eicar\r\n\t1\r\n\t0\r\n\tb.txt\r\n\tFake-Other\r\n\t2\r\n\t0",
            ),
            (_, true) => found("X-Infection-Found: Type=0; Resolution=2; Threat=Fake-Eicar;"),
            (Manner::GivesBack, false) => return self.give_back(content, respmod).await,
            (Manner::Changes, false) => return self.give_back(b"another one", respmod).await,
            (Manner::CutBody, false) => {
                let half = String::from_utf8_lossy(&content[..content.len() / 2]).into_owned();
                let head = "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
                format!("{head}{:x}\r\n{half}", content.len())
            }
            (_, false) => "ICAP/1.0 204 No Content\r\nISTag: \"x\"\r\nEncapsulated: null-body=0\r\n\r\n".to_owned(),
        };
        self.say(&answer).await?;
        match self.manner {
            Manner::HalfAnswer => std::future::pending().await,
            Manner::CutAnswer | Manner::CutBody | Manner::Garbage | Manner::OneEach => Ok(false),
            _ => Ok(true),
        }
    }

    async fn give_back(&mut self, content: &[u8], respmod: bool) -> io::Result<bool> {
        let (list, http) = if respmod {
            ("res-hdr=0, res-body=19", "HTTP/1.1 200 OK\r\n\r\n")
        } else {
            ("req-hdr=0, req-body=22", "POST /part HTTP/1.1\r\n\r\n")
        };
        self.say(&format!("ICAP/1.0 200 OK\r\nEncapsulated: {list}\r\n\r\n{http}")).await?;
        for chunk in content.chunks(10_000) {
            self.say(&format!("{:x}\r\n", chunk.len())).await?;
            self.stream.write_all(chunk).await?;
            self.say("\r\n").await?;
        }
        self.say("0\r\n\r\n").await?;
        Ok(true)
    }

    /// Lines up to an empty one; none at the end of the connection.
    async fn section(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 || line.trim_end().is_empty() {
                return Ok(lines);
            }
            lines.push(line.trim_end().to_owned());
        }
    }

    /// Chunks up to the empty one, and whether that says that it is the end of the body. Errors: the client has gone, or enough was seen.
    async fn chunks(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut content = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let size = line.trim_end().split(';').next().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            let mut data = vec![0; size + 2];
            self.stream.read_exact(&mut data).await?;
            if size == 0 {
                return Ok((content, line.contains("ieof")));
            }
            content.extend_from_slice(&data[..size]);
            if self.manner == Manner::Early && is_infected(&content) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await
    }
}

fn is_infected(content: &[u8]) -> bool {
    content.windows(5).any(|window| window == b"EICAR")
}
