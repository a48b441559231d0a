// SPDX-License-Identifier: GPL-3.0-or-later
//! A clamd that misbehaves on order. It speaks zPING, zVERSION, zIDSESSION and zINSTREAM as clamd(8) describes them,
//! up to the point where it was told to go wrong. It scans nothing: a stream is infected when it holds `EICAR`.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers as it should.
    Proper,
    /// Answers as it should, this long after the end of the stream.
    Slow(Duration),
    /// After so many bytes says that the size limit is exceeded and closes, while the client still writes.
    SizeLimit(usize),
    /// After so many bytes closes without a word.
    CloseAfter(usize),
    /// Reads everything and never answers.
    Silent,
    /// Never answers a stream that holds these bytes.
    SilentTo(&'static [u8]),
    /// Takes the connection and reads nothing.
    Deaf,
    /// Answers with bytes that are no answer.
    Garbage,
    /// Answers for a command that was not the last one.
    WrongNumber,
    /// Sends an answer without end.
    Endless,
    /// Answers the first stream of each connection and closes.
    OneEach,
    /// Sends half of its answer and nothing more.
    HalfAnswer,
    /// Sends half of its answer and closes.
    CutAnswer,
    /// Sends its answer letter by letter.
    Dribble,
    /// Says that it has an error of its own.
    Error,
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeClamd {
    address: String,
    connections: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    starts: Arc<Mutex<Vec<Vec<u8>>>>,
    server: JoinHandle<()>,
}

/// How much is kept of each stream, in bytes.
const START: usize = 4096;

impl FakeClamd {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(manner: Manner) -> FakeClamd {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let streams = Arc::new(AtomicUsize::new(0));
        let starts = Arc::new(Mutex::default());
        let (opened, seen, known) = (connections.clone(), streams.clone(), Arc::clone(&starts));
        let server = tokio::spawn(async move {
            // Sessions end with the listener: the set aborts them when it is dropped.
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                let (stream, streams, starts) = (BufReader::new(stream), seen.clone(), Arc::clone(&known));
                sessions.spawn(Session { stream, manner, streams, starts, number: None }.serve());
            }
        });
        FakeClamd { address, connections, streams, starts, server }
    }

    /// Where it listens, as `[antivirus.clamd] address` takes it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Streams begun so far.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// The first 4 KiB of each stream that was read to its end since this was last asked, in the order of their ends.
    pub fn take_starts(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.starts.lock().expect("nobody panics with it"))
    }
}

impl Drop for FakeClamd {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    manner: Manner,
    streams: Arc<AtomicUsize>,
    starts: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Number of the last command; none outside IDSESSION.
    number: Option<usize>,
}

impl Session {
    /// The client may go at any time; that is no error.
    async fn serve(mut self) {
        let _ = self.commands().await;
    }

    async fn commands(&mut self) -> io::Result<()> {
        if self.manner == Manner::Deaf {
            return std::future::pending().await;
        }
        loop {
            let command = self.command().await?;
            match command.as_slice() {
                b"zIDSESSION" => self.number = Some(0),
                b"zEND" => return Ok(()),
                b"zPING" => return self.say("PONG").await,
                b"zVERSION" => {
                    let version = "ClamAV 0.0.0/0/Thu Jan  1 00:00:00 1970";
                    let Some(number) = self.number.as_mut() else { return self.say(version).await };
                    *number += 1;
                    let answer = format!("{number}: {version}");
                    self.say(&answer).await?;
                }
                b"zINSTREAM" => {
                    self.streams.fetch_add(1, Ordering::SeqCst);
                    self.number = self.number.map(|number| number + 1);
                    if !self.instream().await? {
                        return Ok(());
                    }
                }
                _ => return self.say("UNKNOWN COMMAND").await,
            }
        }
    }

    async fn command(&mut self) -> io::Result<Vec<u8>> {
        let mut command = Vec::new();
        loop {
            match self.stream.read_u8().await? {
                0 => return Ok(command),
                byte => command.push(byte),
            }
        }
    }

    /// Reads a stream and answers; false when the connection ends with it.
    async fn instream(&mut self) -> io::Result<bool> {
        let mut content = Vec::new();
        loop {
            let length = self.stream.read_u32().await? as usize;
            if length == 0 {
                break;
            }
            match self.manner {
                Manner::SizeLimit(limit) if content.len() + length > limit => {
                    self.say("INSTREAM size limit exceeded. ERROR").await?;
                    return Ok(false);
                }
                Manner::CloseAfter(limit) if content.len() + length > limit => return Ok(false),
                _ => {}
            }
            let at = content.len();
            content.resize(at + length, 0);
            self.stream.read_exact(&mut content[at..]).await?;
        }
        let start = content[..content.len().min(START)].to_vec();
        self.starts.lock().expect("nobody panics with it").push(start);
        self.verdict(&content).await
    }

    async fn verdict(&mut self, content: &[u8]) -> io::Result<bool> {
        let infected = content.windows(5).any(|window| window == b"EICAR");
        let answer = if infected { "stream: Fake.Eicar FOUND" } else { "stream: OK" };
        match self.manner {
            Manner::Silent => return std::future::pending().await,
            Manner::SilentTo(bytes) if content.windows(bytes.len()).any(|window| window == bytes) => {
                return std::future::pending().await;
            }
            Manner::Slow(delay) => tokio::time::sleep(delay).await,
            Manner::Garbage => return self.say("\u{1}\u{2}gibberish").await.map(|()| false),
            Manner::WrongNumber => return self.say("7: stream: OK").await.map(|()| false),
            Manner::Error => {
                let number = self.number.map(|number| format!("{number}: ")).unwrap_or_default();
                return self.say(&format!("{number}stream: Can't allocate memory ERROR")).await.map(|()| true);
            }
            Manner::HalfAnswer | Manner::CutAnswer => {
                self.stream.write_all(b"1: str").await?;
                self.stream.flush().await?;
                return if self.manner == Manner::CutAnswer { Ok(false) } else { std::future::pending().await };
            }
            Manner::Endless => loop {
                self.stream.write_all(&[b'x'; 4096]).await?;
            },
            _ => {}
        }
        match self.number {
            Some(number) => self.say(&format!("{number}: {answer}")).await?,
            None => self.say(answer).await?,
        }
        Ok(self.manner != Manner::OneEach && self.number.is_some())
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        let answer = [text.as_bytes(), b"\0"].concat();
        // Letter by letter, each in a packet of its own.
        let size = if self.manner == Manner::Dribble { 1 } else { answer.len() };
        for piece in answer.chunks(size) {
            self.stream.write_all(piece).await?;
            self.stream.flush().await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
