// SPDX-License-Identifier: GPL-3.0-or-later
//! The message of a request on its way into the spool: as long as the client said, or up to where it stops; decompressed on the way.
//!
//! The size of what comes out is bounded, so that no compressed message fills the disk. A mailbox's `From ` line is taken off: it is no
//! part of the message, but goes back with it.

use bytes::{Buf, BytesMut};
use common::units::Period;
use flate2::{Decompress, FlushDecompress, Status};
use tokio::time::Instant;

use crate::message::header::mailbox_line;
use crate::smtp::front::{Front, FrontError};
use crate::spool::{CHUNK, Message, SpoolError, Writer};

/// A `From ` line is not longer than this.
const MAILBOX_LINE: usize = 1000;

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is over the limit.
    #[error("message over {0} bytes")]
    TooLarge(u64),
    /// The client has sent another number of bytes than it said.
    #[error("Content-length mismatch: expected {expected} bytes, got {got} bytes")]
    Length { expected: u64, got: u64 },
    /// A compressed message needs a length.
    #[error("Compress requires Content-length header")]
    NoLength,
    /// It is not compressed as the client says, or not whole.
    #[error("zlib: {0}")]
    Zlib(&'static str),
    /// It cannot be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The client went away or took too long.
    #[error(transparent)]
    Client(#[from] FrontError),
}

/// What the head of the request says about the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    /// Bytes on the wire.
    pub(crate) length: Option<u64>,
    pub(crate) zlib: bool,
    /// The most bytes that may come out.
    pub(crate) max_size: u64,
}

impl Announced {
    /// What can be refused before anything has been read.
    pub(crate) fn check(self) -> Result<(), BodyError> {
        if self.zlib && self.length.is_none() {
            return Err(BodyError::NoLength);
        }
        // zlib makes nothing longer by more than a little.
        match self.length {
            Some(length) if length > self.max_size.saturating_add(self.max_size / 100).max(64) => {
                Err(BodyError::TooLarge(self.max_size))
            }
            _ => Ok(()),
        }
    }
}

/// A message that has come.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) message: Message,
    /// The mailbox's line in front of it.
    pub(crate) mailbox_line: Vec<u8>,
}

/// Reads a message into `writer`.
pub(crate) async fn receive(
    front: &mut Front,
    announced: Announced,
    writer: Writer,
    limit: Period,
) -> Result<Body, BodyError> {
    let deadline = Instant::now() + limit.0;
    let mut sink = Sink::new(writer, announced);
    let mut got: u64 = 0;
    loop {
        let left = announced.length.map_or(u64::MAX, |length| length - got);
        let ready = (front.input().len() as u64).min(left) as usize;
        got += ready as u64;
        let piece = front.input().split_to(ready);
        sink.put(piece).await?;
        if announced.length == Some(got) {
            break;
        }
        match front.fill(deadline).await {
            Ok(()) => {}
            Err(FrontError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(expected) = announced.length {
        check_length(front, expected, got, sink.ends_line).await?;
    }
    sink.finish().await
}

/// A client that has sent less is broken; so is one that has sent more, unless it is but something behind the last line.
async fn check_length(front: &mut Front, expected: u64, got: u64, ends_line: bool) -> Result<(), BodyError> {
    if got < expected {
        return Err(BodyError::Length { expected, got });
    }
    if !ends_line && got > 0 {
        // Looks at what has come since, too.
        front.is_gone().await;
        let more = front.input().len() as u64;
        if more > 0 {
            return Err(BodyError::Length { expected, got: got + more });
        }
    }
    Ok(())
}

/// Takes bytes as they come.
struct Sink {
    writer: Writer,
    inflate: Option<Decompress>,
    is_inflated: bool,
    max_size: u64,
    /// The last byte that came was a line end.
    ends_line: bool,
    /// The start of the message, as long as it may be a mailbox's line.
    lead: Option<Vec<u8>>,
    mailbox_line: Vec<u8>,
}

impl Sink {
    fn new(writer: Writer, announced: Announced) -> Sink {
        Sink {
            writer,
            inflate: announced.zlib.then(|| Decompress::new(true)),
            is_inflated: false,
            max_size: announced.max_size,
            ends_line: false,
            lead: Some(Vec::new()),
            mailbox_line: Vec::new(),
        }
    }

    async fn put(&mut self, mut piece: BytesMut) -> Result<(), BodyError> {
        if let Some(last) = piece.last() {
            self.ends_line = *last == b'\n' || self.inflate.is_some();
        }
        if self.inflate.is_none() {
            return self.keep(&piece).await;
        }
        while !piece.is_empty() && !self.is_inflated {
            let mut out = Vec::with_capacity(CHUNK);
            let used = self.inflate_some(&piece, &mut out)?;
            piece.advance(used);
            self.keep(&out).await?;
            if used == 0 && out.is_empty() {
                return Err(BodyError::Zlib("no progress"));
            }
            // A few bytes may become many pieces.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Decompresses as much as there is room for; how much of `piece` that took.
    fn inflate_some(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let Some(inflate) = &mut self.inflate else { return Ok(piece.len()) };
        let before = inflate.total_in();
        let status = inflate.decompress_vec(piece, out, FlushDecompress::None);
        match status.map_err(|_| BodyError::Zlib("not a zlib stream"))? {
            Status::StreamEnd => self.is_inflated = true,
            Status::Ok | Status::BufError => {}
        }
        Ok(usize::try_from(inflate.total_in() - before).unwrap_or(piece.len()).min(piece.len()))
    }

    /// Keeps bytes of the message.
    async fn keep(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        let Some(mut lead) = self.lead.take() else { return self.store(bytes).await };
        lead.extend_from_slice(bytes);
        if may_be_mailbox_line(&lead) {
            self.lead = Some(lead);
            return Ok(());
        }
        self.settle(lead).await
    }

    /// The start of the message is there, with its mailbox line if it has one.
    async fn settle(&mut self, lead: Vec<u8>) -> Result<(), BodyError> {
        let line = mailbox_line(&lead);
        self.mailbox_line = lead[..line].to_vec();
        self.store(&lead[line..]).await
    }

    async fn store(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if self.writer.len().saturating_add(bytes.len() as u64) > self.max_size {
            return Err(BodyError::TooLarge(self.max_size));
        }
        Ok(self.writer.write(bytes).await?)
    }

    async fn finish(mut self) -> Result<Body, BodyError> {
        if self.inflate.is_some() && !self.is_inflated {
            return Err(BodyError::Zlib("failed to find end of zlib stream"));
        }
        if let Some(lead) = self.lead.take() {
            self.settle(lead).await?;
        }
        let (message, mailbox_line) = (self.writer.finish().await?, self.mailbox_line);
        Ok(Body { message, mailbox_line })
    }
}

/// Whether more has to come before it is known.
fn may_be_mailbox_line(lead: &[u8]) -> bool {
    let begins = [b"From ".as_slice(), b">From "];
    let begins = begins.iter().any(|start| lead.starts_with(start) || start.starts_with(lead));
    // A CR may be followed by its LF.
    begins && lead.len() < MAILBOX_LINE && !lead.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{Budget, Place};
    use common::net::Stream;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    const MAX: u64 = 100_000;

    async fn received(sent: &[u8], length: Option<u64>, zlib: bool, step: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
        let (mut client, server) = UnixStream::pair().unwrap();
        let sent = sent.to_vec();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(step) {
                if client.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut front = Front::new(Stream::Unix(server), Duration::from_secs(60));
        let writer = Writer::new(Place { dir: std::env::temp_dir(), memory: 1 << 20 }, Budget::new(1 << 20));
        let announced = Announced { length, zlib, max_size: MAX };
        announced.check().map_err(|error| error.to_string())?;
        let body = receive(&mut front, announced, writer, Period::seconds(60)).await;
        drop(front);
        writing.await.unwrap();
        let body = body.map_err(|error| error.to_string())?;
        Ok((body.message.bytes().await.unwrap().to_vec(), body.mailbox_line))
    }

    fn squeezed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn as_long_as_it_is() {
        let message = b"From: a@b\n\nbody".as_slice();
        for step in [1, 7, 1000] {
            assert_eq!(received(message, None, false, step).await.unwrap().0, message);
            assert_eq!(received(message, Some(15), false, step).await.unwrap().0, message);
            assert_eq!(received(b"", None, false, step).await.unwrap().0, b"");
            let with_line = b"From a@b Thu\r\nFrom: a@b\n\nbody".as_slice();
            let (rest, line) = received(with_line, Some(29), false, step).await.unwrap();
            assert_eq!((rest.as_slice(), line.as_slice()), (message, b"From a@b Thu\r\n".as_slice()));
            let (rest, line) = received(b"From ", None, false, step).await.unwrap();
            assert_eq!((rest.as_slice(), line.as_slice()), (b"".as_slice(), b"From ".as_slice()));
        }
    }

    #[tokio::test]
    async fn lies_about_the_length() {
        let less = received(b"short", Some(10), false, 100).await.unwrap_err();
        assert_eq!(less, "Content-length mismatch: expected 10 bytes, got 5 bytes");
        let more = received(b"line\nand more", Some(7), false, 100).await.unwrap_err();
        assert_eq!(more, "Content-length mismatch: expected 7 bytes, got 13 bytes");
        assert_eq!(received(b"line\n\r\n", Some(5), false, 100).await.unwrap().0, b"line\n", "as spamd has it");
        assert_eq!(received(b"x", Some(u64::MAX), false, 100).await.unwrap_err(), "message over 100000 bytes");
        assert!(received(&vec![b'x'; 100_001], None, false, 9999).await.unwrap_err().contains("over"));
    }

    #[tokio::test]
    async fn compressed_messages() {
        let message = b"From a@b\nSubject: x\n\n".repeat(2000);
        let small = squeezed(&message);
        for step in [1, 4096] {
            let (rest, line) = received(&small, Some(small.len() as u64), true, step).await.unwrap();
            assert_eq!((rest.as_slice(), line.as_slice()), (&message[9..], b"From a@b\n".as_slice()));
        }
        let cut = received(&small[..50], Some(50), true, 100).await.unwrap_err();
        assert_eq!(cut, "zlib: failed to find end of zlib stream");
        let odd = received(b"Subject: x\n\n", Some(12), true, 100).await.unwrap_err();
        assert_eq!(odd, "zlib: not a zlib stream");
        assert!(received(&small, None, true, 100).await.unwrap_err().contains("requires"));
    }

    #[tokio::test]
    async fn a_compressed_bomb_is_too_large() {
        let bomb = squeezed(&vec![0; 50_000_000]);
        assert!(bomb.len() < 60_000);
        let answer = received(&bomb, Some(bomb.len() as u64), true, 4096).await.unwrap_err();
        assert_eq!(answer, "message over 100000 bytes");
    }
}
