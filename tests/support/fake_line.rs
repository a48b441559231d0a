// SPDX-License-Identifier: GPL-3.0-or-later
//! A Sophie that misbehaves on order: it gets the path of a file, looks whether that holds `EICAR`, and answers `0` or `1:name`.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::address::Address;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers without a line end and leaves the connection open, as Sophie does.
    Proper,
    /// The same with a line end.
    WithLineEnd,
    /// Answers letter by letter.
    Dribble,
    /// Never answers.
    Silent,
    /// Closes without a word.
    Closes,
    /// Says that it has an error.
    Error,
    /// Answers with something that is no answer.
    Garbage,
    /// Sends a line without end.
    Endless,
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeLine {
    folder: TempDir,
    asked: Arc<Mutex<Vec<PathBuf>>>,
    server: JoinHandle<()>,
}

impl FakeLine {
    /// Starts one on a UNIX socket of its own.
    pub fn start(manner: Manner) -> FakeLine {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let server = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                sessions.spawn(async move {
                    // The client may go at any time; that is no error.
                    let _ = serve(BufReader::new(stream), manner, &seen).await;
                });
            }
        });
        FakeLine { folder, asked, server }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Unix(self.folder.path().join("s"))
    }

    /// The paths that it was asked about.
    pub fn asked(&self) -> Vec<PathBuf> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

impl Drop for FakeLine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: BufReader<UnixStream>, manner: Manner, asked: &Mutex<Vec<PathBuf>>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = PathBuf::from(line.trim_end());
        let content = std::fs::read(&path)?;
        asked.lock().expect("nobody panicked").push(path);
        let answer = if content.windows(5).any(|window| window == b"EICAR") { "1:Fake-Eicar" } else { "0" };
        let answer = match manner {
            Manner::Proper | Manner::Dribble => answer.to_owned(),
            Manner::WithLineEnd => format!("{answer}\n"),
            Manner::Silent => return std::future::pending().await,
            Manner::Closes => return Ok(()),
            Manner::Error => "-1:cannot open\n".to_owned(),
            Manner::Garbage => "what?\n".to_owned(),
            Manner::Endless => loop {
                stream.write_all(&[b'x'; 4096]).await?;
                stream.flush().await?;
            },
        };
        let size = if manner == Manner::Dribble { 1 } else { answer.len() };
        for piece in answer.as_bytes().chunks(size) {
            stream.write_all(piece).await?;
            stream.flush().await?;
            tokio::task::yield_now().await;
        }
    }
}
