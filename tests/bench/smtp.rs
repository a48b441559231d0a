// SPDX-License-Identifier: GPL-3.0-or-later
//! As much of SMTP (RFC 5321) as a load generator, a do-nothing proxy and a sink need: lines, replies, the message up
//! to its final dot.
//!
//! Not a server or client for anything else: whoever is at the other end is one of our own programs on loopback, and
//! nobody sends a command before the reply to the one before has come (only MAIL, RCPT and DATA may be pipelined).

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line taken, in bytes.
const LONGEST_LINE: u64 = 4096;
/// Read from the socket at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// What follows the last line of a message (RFC 5321 section 4.1.1.4), with the end of that line.
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// One end of an SMTP session.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The three digits.
    pub(crate) code: u16,
    /// All lines as they came, each with its CR LF.
    pub(crate) text: Vec<u8>,
}

impl Reply {
    /// True when a line of the reply begins with this keyword (EHLO, RFC 5321 section 4.1.1.1).
    pub(crate) fn offers(&self, keyword: &str) -> bool {
        let mut lines = self.text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| line.get(4..));
        lines.any(|line| line.get(..keyword.len()).is_some_and(|word| word.eq_ignore_ascii_case(keyword.as_bytes())))
    }

    /// For an error message.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.text).trim().replace("\r\n", " | ")
    }
}

impl Wire {
    /// Takes a connection over.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        Ok(Wire { stream: BufReader::with_capacity(CHUNK, stream), line: Vec::with_capacity(512) })
    }

    /// Opens a connection to a server on loopback.
    pub(crate) async fn connect(port: u16) -> io::Result<Wire> {
        Wire::new(TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await?)
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// The next line with its end; empty when the peer has closed.
    pub(crate) async fn line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        let mut bounded = (&mut self.stream).take(LONGEST_LINE);
        bounded.read_until(b'\n', &mut self.line).await?;
        if self.line.last().is_some_and(|&last| last != b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
        }
        Ok(&self.line)
    }

    /// The next reply, of one line or several.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        let mut text = Vec::new();
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            let (last, line_is_reply) = (line.get(3) != Some(&b'-'), code.is_some());
            text.extend_from_slice(line);
            match code {
                Some(code) if last => return Ok(Reply { code, text }),
                _ if line_is_reply => {}
                _ if text.is_empty() => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a reply"));
                }
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not an SMTP reply")),
            }
        }
    }

    /// Everything up to and with the final dot, as it is on the wire; its length is returned, the bytes go to `keep`
    /// where that is given.
    pub(crate) async fn message(&mut self, mut keep: Option<&mut Vec<u8>>) -> io::Result<u64> {
        // The end of the line before: a message may be empty.
        let mut tail = *b"\0\0\0\r\n";
        let mut length = 0;
        while tail != END_OF_DATA {
            let chunk = self.stream.fill_buf().await?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = chunk.len();
            slide(&mut tail, chunk);
            if let Some(kept) = keep.as_deref_mut() {
                kept.extend_from_slice(chunk);
            }
            length += taken as u64;
            self.stream.consume(taken);
        }
        Ok(length)
    }
}

/// The last bytes of all that came so far. The peer sends nothing behind the final dot before it has our reply, so the
/// end of data, if it is there, is at the end of a chunk.
fn slide(tail: &mut [u8; 5], chunk: &[u8]) {
    let new = chunk.len().min(tail.len());
    tail.rotate_left(new);
    let keep = tail.len() - new;
    tail[keep..].copy_from_slice(&chunk[chunk.len() - new..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (Wire, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Wire::connect(listener.local_addr().unwrap().port()).await.unwrap();
        (client, Wire::new(listener.accept().await.unwrap().0).unwrap())
    }

    #[tokio::test]
    async fn replies_of_several_lines_are_whole() {
        let (mut client, mut server) = pair().await;
        server.send(b"250-mx.test\r\n250-XFORWARD NAME\r\n250 SIZE\r\n554 no\r\nhello\r\n").await.unwrap();
        let ehlo = client.reply().await.unwrap();
        assert_eq!((ehlo.code, ehlo.text.len()), (250, 42));
        assert!(ehlo.offers("xforward") && ehlo.offers("SIZE") && !ehlo.offers("DSN") && !ehlo.offers("mx.test"));
        assert_eq!(client.reply().await.unwrap().shown(), "554 no");
        assert!(client.reply().await.is_err());
        drop(server);
        assert_eq!(client.reply().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_message_ends_at_its_dot_however_it_is_cut() {
        let whole = b"a\r\n..\r\n.\nb\r\n.\r\n";
        for cut in 0..=whole.len() {
            let (mut client, mut server) = pair().await;
            let (first, second) = whole.split_at(cut);
            let sender = tokio::spawn(async move {
                client.send(first).await.unwrap();
                tokio::task::yield_now().await;
                client.send(second).await.unwrap();
                client
            });
            let mut kept = Vec::new();
            assert_eq!(server.message(Some(&mut kept)).await.unwrap(), whole.len() as u64);
            assert_eq!(kept, whole);
            drop(sender.await.unwrap());
        }
        let (mut client, mut server) = pair().await;
        client.send(b".\r\n").await.unwrap();
        assert_eq!(server.message(None).await.unwrap(), 3);
        client.send(b"half a mess").await.unwrap();
        drop(client);
        assert!(server.message(None).await.is_err());
    }

    #[test]
    fn the_tail_is_of_the_last_bytes() {
        let mut tail = *b"abcde";
        slide(&mut tail, b"");
        assert_eq!(&tail, b"abcde");
        slide(&mut tail, b"fg");
        assert_eq!(&tail, b"cdefg");
        slide(&mut tail, b"0123456789");
        assert_eq!(&tail, b"56789");
    }
}
