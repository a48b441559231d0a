// SPDX-License-Identifier: GPL-3.0-or-later
//! The head of a request, line by line: `CHECK SPAMC/1.5`, header lines, an empty line. Pure; the message behind it is read by `body`.
//!
//! Names of header lines count in any case, unknown ones are passed over. What contradicts itself is refused, where spamd takes one of
//! two meanings: a client that says two lengths is broken or lies.

use super::protocol::{Command, HEADER_LINES, Version};
use crate::spam::account::Class;

/// The databases that TELL is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Databases {
    /// Our own.
    pub local: bool,
    /// Those that several sites share, such as Razor.
    pub remote: bool,
}

impl Databases {
    fn parse(value: &str) -> Databases {
        let value = value.to_ascii_lowercase();
        Databases { local: value.contains("local"), remote: value.contains("remote") }
    }
}

/// A request without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// What the client understands.
    pub version: Version,
    /// Bytes of the message as it is sent, compressed or not; none: it ends where the client stops.
    pub length: Option<u64>,
    /// Whose preferences the client would like.
    pub user: Option<String>,
    /// The message is compressed (RFC 1950).
    pub zlib: bool,
    /// What the message is.
    pub class: Option<Class>,
    /// Where it is to be learnt.
    pub set: Databases,
    /// Where it is to be forgotten.
    pub remove: Databases,
}

/// Why a request cannot be understood. The texts go to the client, in brackets, and into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No command of ours, or no version behind it.
    #[error("unknown command")]
    Command,
    /// A line without a colon.
    #[error("header not in 'Name: value' format")]
    Header,
    /// More than [`HEADER_LINES`].
    #[error("too many headers")]
    TooMany,
    /// A line that is longer than any client's.
    #[error("line too long")]
    TooLong,
    /// The client has closed in the middle.
    #[error("EOF during headers")]
    Unfinished,
    /// Not a number, or too large a one.
    #[error("Content-length is not a number")]
    Length,
    /// Two different lengths.
    #[error("several Content-length headers")]
    Lengths,
    /// A control character in the name of a user.
    #[error("User header contains control chars")]
    User,
    /// Neither spam nor ham.
    #[error("Message-class header contains invalid class")]
    Class,
    /// Compressed by something else than zlib.
    #[error("compression type not supported")]
    Compression,
    /// To be learnt, but as what?
    #[error("Set without Message-class")]
    NoClass,
    /// To be learnt and forgotten in one place.
    #[error("Set and Remove for the same database")]
    SetAndRemove,
}

/// Takes the lines of a request in order.
#[derive(Debug, Default)]
pub struct Parser {
    request: Option<Request>,
    headers: usize,
}

impl Parser {
    /// The next line, without its line end. The request, when this line completes it; the parser then begins anew.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Request>, Malformed> {
        let Some(request) = &mut self.request else {
            let request = first(line)?;
            let complete = !request.command.has_headers(request.version);
            self.request = Some(request);
            return if complete { Ok(self.request.take()) } else { Ok(None) };
        };
        if line.is_empty() {
            consistent(request)?;
            self.headers = 0;
            return Ok(self.request.take());
        }
        self.headers += 1;
        if self.headers > HEADER_LINES {
            return Err(Malformed::TooMany);
        }
        header(request, line).map(|()| None)
    }

    /// What has been understood so far.
    pub fn so_far(&self) -> Option<&Request> {
        self.request.as_ref()
    }
}

fn first(line: &[u8]) -> Result<Request, Malformed> {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let (command, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let command = Command::named(command).ok_or(Malformed::Command)?;
    let version = version.strip_prefix(b"SPAMC/").and_then(Version::parse).ok_or(Malformed::Command)?;
    if words.next().is_some() {
        return Err(Malformed::Command);
    }
    let (set, remove) = (Databases::default(), Databases::default());
    Ok(Request { command, version, length: None, user: None, zlib: false, class: None, set, remove })
}

fn header(request: &mut Request, line: &[u8]) -> Result<(), Malformed> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed::Header)?;
    let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
    match name.as_slice() {
        b"content-length" => length(request, value)?,
        b"user" => request.user = Some(user(value)?),
        b"compress" => {
            let known = value.eq_ignore_ascii_case(b"zlib");
            request.zlib = known.then_some(true).ok_or(Malformed::Compression)?;
        }
        b"message-class" => {
            request.class = Some(match value.to_ascii_lowercase().as_slice() {
                b"spam" => Class::Spam,
                b"ham" => Class::Ham,
                _ => return Err(Malformed::Class),
            });
        }
        b"set" => request.set = Databases::parse(&String::from_utf8_lossy(value)),
        b"remove" => request.remove = Databases::parse(&String::from_utf8_lossy(value)),
        _ => {}
    }
    Ok(())
}

fn length(request: &mut Request, value: &[u8]) -> Result<(), Malformed> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)?;
    if request.length.is_some_and(|before| before != length) {
        return Err(Malformed::Lengths);
    }
    request.length = Some(length);
    Ok(())
}

fn user(value: &[u8]) -> Result<String, Malformed> {
    if value.iter().any(u8::is_ascii_control) {
        return Err(Malformed::User);
    }
    Ok(String::from_utf8_lossy(value).into_owned())
}

fn consistent(request: &Request) -> Result<(), Malformed> {
    let (set, remove) = (request.set, request.remove);
    if set.local && remove.local || set.remote && remove.remote {
        return Err(Malformed::SetAndRemove);
    }
    if (set.local || set.remote) && request.class.is_none() && request.command == Command::Tell {
        return Err(Malformed::NoClass);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Option<Request>, Malformed> {
        let mut parser = Parser::default();
        for line in text.split_terminator('\n') {
            if let Some(request) = parser.line(line.as_bytes())? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_spamc_sends() {
        let request = parse("REPORT SPAMC/1.5\nUser: ann\nContent-length: 120\nCompress: zlib\n\n").unwrap().unwrap();
        assert_eq!((request.command, request.version), (Command::Report, Version(1, 5)));
        assert_eq!((request.length, request.user.as_deref(), request.zlib), (Some(120), Some("ann"), true));
        let tell = parse("TELL SPAMC/1.5\nMessage-class: ham\nSet: local, remote\nContent-length: 1\n\n").unwrap();
        let tell = tell.unwrap();
        assert_eq!((tell.class, tell.set), (Some(Class::Ham), Databases { local: true, remote: true }));
        assert_eq!(tell.remove, Databases::default());
    }

    #[test]
    fn old_clients_and_pings_have_no_headers() {
        assert!(parse("CHECK SPAMC/1.0\n").unwrap().is_some());
        assert!(parse("PING SPAMC/1.2\n").unwrap().is_some());
        assert!(parse("PING SPAMC/1.5\n").unwrap().is_none());
        assert!(parse("PING SPAMC/1.5\n\n").unwrap().is_some());
        assert!(parse("TELL SPAMC/1.0\n").unwrap().is_none());
    }

    #[test]
    fn names_in_any_case_and_unknown_ones() {
        let request = parse("CHECK SPAMC/1.5 \nContent-Length:  7 \nX-Odd: :\n\n").unwrap().unwrap();
        assert_eq!(request.length, Some(7));
        assert!(parse("CHECK SPAMC/1.5\nContent-length: 7\nContent-length: 7\n\n").unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let head = "TELL SPAMC/1.5\n";
        for (lines, why) in [
            ("GET / HTTP/1.0\n", Malformed::Command),
            ("\n", Malformed::Command),
            ("CHECK\n", Malformed::Command),
            ("CHECK SPAMC/x\n", Malformed::Command),
            ("CHECK SPAMC/1.5 x\n", Malformed::Command),
            ("check SPAMC/1.5\n", Malformed::Command),
            ("CHECK SPAMC/1.5\nContent-length 5\n", Malformed::Header),
            ("CHECK SPAMC/1.5\nContent-length: -5\n", Malformed::Length),
            ("CHECK SPAMC/1.5\nContent-length: \n", Malformed::Length),
            ("CHECK SPAMC/1.5\nContent-length: 99999999999999999999\n", Malformed::Length),
            ("CHECK SPAMC/1.5\nContent-length: 5\ncontent-length: 6\n", Malformed::Lengths),
            ("CHECK SPAMC/1.5\nUser: a\u{7}b\n", Malformed::User),
            ("CHECK SPAMC/1.5\nCompress: gzip\n", Malformed::Compression),
            (&format!("{head}Message-class: eggs\n"), Malformed::Class),
            (&format!("{head}Set: local\n\n"), Malformed::NoClass),
            (&format!("{head}Set: local\nRemove: local\nMessage-class: spam\n\n"), Malformed::SetAndRemove),
            (&format!("{head}{}", "X: y\n".repeat(256)), Malformed::TooMany),
        ] {
            assert_eq!(parse(lines), Err(why), "{lines}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_are_survived(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let mut parser = Parser::default();
            for line in &lines {
                if parser.line(line).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn any_value_of_any_header_is_survived(name in "(Content-length|User|Compress|Message-class|Set|Remove)", value in any::<Vec<u8>>()) {
            let mut parser = Parser::default();
            parser.line(b"TELL SPAMC/1.5").unwrap();
            let _ = parser.line(&[name.as_bytes(), b": ", &value].concat());
            let _ = parser.line(b"");
        }
    }
}
