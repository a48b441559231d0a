// SPDX-License-Identifier: GPL-3.0-or-later
//! One SMTP session that asks about recipients and sends no mail: MAIL FROM:<>, RCPT, RSET, QUIT (RFC 5321).
//!
//! The caller sets the time limit.

use std::io;

use common::address::Address;
use common::mail;
use common::net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reply::{self, Reply};
use crate::recipients::Trouble;

/// Longest reply, all its lines together.
const LONGEST: usize = 8192;

/// A session in which recipients can be asked about.
pub(super) struct Session {
    stream: Stream,
    received: Vec<u8>,
}

impl Session {
    /// Connects and gets as far as an accepted null sender. What a server says until then is about us, not about a recipient.
    pub(super) async fn open(host: &Address, helo: &str) -> Result<Self, Trouble> {
        let stream = Stream::connect(host).await.map_err(broken)?;
        let mut session = Self { stream, received: Vec::new() };
        session.must(None, "the connection").await?;
        // RFC 5321 section 3.2: a server that does not know EHLO is greeted with HELO.
        if !session.command(&format!("EHLO {helo}")).await?.is_good() {
            session.must(Some(format!("HELO {helo}")), "HELO").await?;
        }
        session.must(Some("MAIL FROM:<>".to_owned()), "the null sender").await?;
        Ok(session)
    }

    /// The reply to a recipient.
    pub(super) async fn recipient(&mut self, address: &str) -> Result<Reply, Trouble> {
        self.command(&format!("RCPT TO:<{}>", path(address))).await
    }

    /// Takes leave; whatever comes of it.
    pub(super) async fn quit(mut self) {
        let _ = self.stream.write_all(b"RSET\r\nQUIT\r\n").await;
        let _ = self.reply().await;
        let _ = self.reply().await;
    }

    async fn must(&mut self, command: Option<String>, what: &str) -> Result<(), Trouble> {
        let reply = match command {
            Some(command) => self.command(&command).await?,
            None => self.reply().await?,
        };
        match reply.is_good() {
            true => Ok(()),
            false => Err(Trouble::Refused(format!("{what} is refused: {} {}", reply.code, reply.text))),
        }
    }

    async fn command(&mut self, line: &str) -> Result<Reply, Trouble> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(broken)?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        let mut length = 0;
        loop {
            let line = self.line().await?;
            length += line.len();
            let (code, last, text) =
                reply::line(&line).ok_or_else(|| Trouble::Refused("what comes back is not SMTP".to_owned()))?;
            if last {
                let text = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect();
                return Ok(Reply { code, text });
            }
            if length > LONGEST {
                return Err(Trouble::Refused("a reply without end".to_owned()));
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=end).collect();
                line.truncate(line.len() - if line.ends_with(b"\r\n") { 2 } else { 1 });
                return Ok(line);
            }
            if self.received.len() > LONGEST {
                return Err(Trouble::Refused("a reply without end".to_owned()));
            }
            if self.stream.read_buf(&mut self.received).await.map_err(broken)? == 0 {
                return Err(Trouble::Unreachable("it closed the connection".to_owned()));
            }
        }
    }
}

fn broken(error: io::Error) -> Trouble {
    Trouble::Unreachable(error.to_string())
}

/// An address as it stands between the angle brackets: Postfix gives local parts without quotes, and RFC 5321 section 4.1.2 wants them
/// for everything that is not a dot-string.
fn path(address: &str) -> String {
    let (local, domain) = mail::split(address);
    let plain = |c: char| c.is_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    if is_quoted || local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(plain)) {
        return address.to_owned();
    }
    let quoted: String =
        local.chars().flat_map(|c| ['\\'].into_iter().filter(move |_| c == '"' || c == '\\').chain([c])).collect();
    format!("\"{quoted}\"@{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts_are_quoted_when_they_must_be() {
        for (address, expected) in [
            ("ann@example.org", "ann@example.org"),
            ("a.b+c@example.org", "a.b+c@example.org"),
            ("a b@example.org", "\"a b\"@example.org"),
            ("a..b@example.org", "\"a..b\"@example.org"),
            ("a>@example.org", "\"a>\"@example.org"),
            ("a\"b\\@example.org", "\"a\\\"b\\\\\"@example.org"),
            ("\"a b\"@example.org", "\"a b\"@example.org"),
            ("jörg@example.org", "jörg@example.org"),
        ] {
            assert_eq!(path(address), expected);
        }
    }
}
