// SPDX-License-Identifier: GPL-3.0-or-later
//! SMTP replies: ours, and those of the next hop, which go back to Postfix line by line as they came.
//!
//! Pure. A reply of the next hop keeps its lines and its 8-bit bytes; only control characters are replaced and
//! overlong lines cut, so that nothing of it can break our own dialogue. RFC 5321 4.2, RFC 2034 and 3463
//! (enhanced codes).

use std::borrow::Cow;

/// The longest line that we write ourselves, without CR LF (RFC 5321 4.5.3.1.5).
const OWN_LINE_LIMIT: usize = 510;
/// The longest text of a reply of ours, in bytes: names inside it (viruses, files) come from the message.
const OWN_TEXT_LIMIT: usize = 900;
/// The longest line kept of a next hop's reply: below the 2048 at which Postfix cuts it.
const PASSED_LINE_LIMIT: usize = 2000;
/// The most lines and bytes of one reply of the next hop.
const PASSED_LINES: usize = 200;
const PASSED_BYTES: usize = 64 * 1024;

/// One complete reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    /// Each with code and separator, without CR LF. Never empty.
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// A reply of ours: `code enhanced text`. The text becomes printable ASCII (`?` for the rest) of at most
    /// 900 bytes and is wrapped at 510 bytes a line, each line with both codes. An empty `enhanced` leaves it
    /// out, as for the banner and EHLO.
    pub fn new(code: u16, enhanced: &str, text: &str) -> Reply {
        let text = printable(text);
        let prefix = if enhanced.is_empty() { String::new() } else { format!("{enhanced} ") };
        Reply::assemble(code, wrap(&text, OWN_LINE_LIMIT - 4 - prefix.len()).map(|line| format!("{prefix}{line}")))
    }

    /// A multi-line reply of ours without enhanced codes, such as that to EHLO; `lines` is ours and printable.
    pub(crate) fn listing<S: AsRef<str>>(code: u16, lines: &[S]) -> Reply {
        Reply::assemble(code, lines.iter().map(|line| line.as_ref().to_owned()))
    }

    fn assemble(code: u16, texts: impl Iterator<Item = String>) -> Reply {
        let mut lines: Vec<Vec<u8>> = texts.map(|text| format!("{code}-{text}").into_bytes()).collect();
        match lines.last_mut() {
            Some(last) => last[3] = b' ',
            None => lines.push(code.to_string().into_bytes()),
        }
        Reply { code, lines }
    }

    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether the code is 2xx.
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the code is 4xx or 5xx.
    pub fn is_failure(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }

    /// The lines without CR LF.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice)
    }

    /// The first line for a log.
    pub fn first_line(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.lines[0])
    }

    /// Appends the reply as it goes on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        for line in &self.lines {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Makes text safe for a reply: printable ASCII of bounded length.
fn printable(text: &str) -> String {
    text.chars().take(OWN_TEXT_LIMIT).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Cuts ASCII text into lines of at most `width` bytes, at blanks where there are any.
fn wrap(text: &str, width: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= width {
            rest = None;
            return Some(text);
        }
        let cut = text[..width].rfind(' ').filter(|at| *at > 0).unwrap_or(width);
        rest = Some(text[cut..].trim_start());
        Some(&text[..cut])
    })
}

/// Why bytes from the next hop are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code of three digits and a separator.
    #[error("not an SMTP reply")]
    Syntax,
    /// The lines of one reply have different codes.
    #[error("SMTP reply with different codes")]
    Codes,
    /// Too many lines or bytes without an end.
    #[error("SMTP reply without end")]
    Endless,
}

/// Puts a reply together from fragments of any size; memory is bounded.
#[derive(Debug, Default)]
pub struct ReplyParser {
    lines: Vec<Vec<u8>>,
    line: Vec<u8>,
    bytes: usize,
}

impl ReplyParser {
    /// Takes bytes up to the end of one reply. Returns how many were used, and the reply when it is complete;
    /// what follows it stays with the caller.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            let end = memchr::memchr(b'\n', rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            self.keep(part)?;
            used += part.len() + usize::from(end.is_some());
            if end.is_some() && self.finish_line()? {
                return Ok((used, Some(self.take())));
            }
        }
        Ok((used, None))
    }

    /// Whether part of a reply has been seen.
    pub fn started(&self) -> bool {
        self.bytes > 0
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), ReplyError> {
        self.bytes += part.len() + 1;
        if self.bytes > PASSED_BYTES || self.lines.len() >= PASSED_LINES {
            return Err(ReplyError::Endless);
        }
        // One byte more than the limit, so that the CR of a line of exactly the limit is seen and taken off.
        let room = (PASSED_LINE_LIMIT + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        Ok(())
    }

    /// Ends the current line; true when it was the last of the reply.
    fn finish_line(&mut self) -> Result<bool, ReplyError> {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line.truncate(PASSED_LINE_LIMIT);
        for byte in &mut line {
            if byte.is_ascii_control() && *byte != b'\t' {
                *byte = b'?';
            }
        }
        let code = code_of(&line)?;
        if self.lines.first().is_some_and(|first| first[..3] != code) {
            return Err(ReplyError::Codes);
        }
        let last = line.get(3) != Some(&b'-');
        self.lines.push(line);
        Ok(last)
    }

    fn take(&mut self) -> Reply {
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        let code = lines[0][..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        Reply { code, lines }
    }
}

fn code_of(line: &[u8]) -> Result<[u8; 3], ReplyError> {
    match line {
        [first @ b'2'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9', rest @ ..]
            if matches!(rest.first(), None | Some(b' ' | b'-')) =>
        {
            Ok([*first, *second, *third])
        }
        _ => Err(ReplyError::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.write(&mut out);
        out
    }

    fn parse(bytes: &[u8]) -> Result<Option<Reply>, ReplyError> {
        ReplyParser::default().feed(bytes).map(|(_, reply)| reply)
    }

    #[test]
    fn own_replies_are_printable_and_wrapped() {
        assert_eq!(wire(&Reply::new(554, "5.7.0", "no\r\n250 ok \u{e9}")), b"554 5.7.0 no??250 ok ?\r\n");
        assert_eq!(wire(&Reply::new(220, "", "mx ESMTP")), b"220 mx ESMTP\r\n");
        let long = Reply::new(554, "5.7.0", &"word ".repeat(300));
        assert!(long.lines.len() == 2);
        assert!(long.lines().all(|line| line.len() <= 510 && line[4..].starts_with(b"5.7.0 ")));
        assert!(long.lines[0][3] == b'-' && long.lines[1][3] == b' ');
        assert!(Reply::new(554, "5.7.0", &"x".repeat(2000)).lines().all(|line| line.len() <= 510));
        assert_eq!(wire(&Reply::new(250, "2.0.0", "")), b"250 2.0.0 \r\n");
        assert_eq!(wire(&Reply::listing(250, &["mx", "PIPELINING"])), b"250-mx\r\n250 PIPELINING\r\n");
    }

    #[test]
    fn replies_of_the_next_hop_stay_as_they_are() {
        let bytes = b"550-5.1.1 Utilisateur \xe9trange\r\n550-\r\n550 5.1.1 \t fin\r\n";
        let reply = parse(bytes).unwrap().unwrap();
        assert_eq!(wire(&reply), bytes);
        assert_eq!(reply.code(), 550);
        assert!(reply.is_failure());
        assert_eq!(wire(&parse(b"250\r\n").unwrap().unwrap()), b"250\r\n");
        assert_eq!(wire(&parse(b"250 a\rb\0\n").unwrap().unwrap()), b"250 a?b?\r\n");
    }

    #[test]
    fn what_follows_a_reply_is_left() {
        let mut parser = ReplyParser::default();
        let (used, reply) = parser.feed(b"250 one\r\n421 two\r\n").unwrap();
        assert_eq!((used, reply.unwrap().code()), (9, 250));
        assert!(!parser.started());
    }

    #[test]
    fn garbage_is_refused_and_long_lines_are_cut() {
        assert_eq!(parse(b"HTTP/1.1 400 Bad\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"2500 ok\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"150 ok\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"250-a\r\n550 b\r\n"), Err(ReplyError::Codes));
        assert_eq!(parse(&[b'2'; 70_000]), Err(ReplyError::Endless));
        assert_eq!(parse(&b"250-x\r\n".repeat(300)), Err(ReplyError::Endless));
        let long = [&b"250 "[..], &[b'x'; 5000], b"\r\n"].concat();
        assert_eq!(parse(&long).unwrap().unwrap().lines[0].len(), PASSED_LINE_LIMIT);
    }

    proptest! {
        #[test]
        fn fragments_do_not_matter(bytes: Vec<u8>, text in "[ -~]{0,40}", cut in 0usize..60) {
            let bytes = [format!("550-{text}\r\n550 end\r\n").into_bytes(), bytes].concat();
            let cut = cut.min(bytes.len());
            let mut parser = ReplyParser::default();
            let (used, reply) = parser.feed(&bytes[..cut]).unwrap();
            let reply = match reply {
                Some(reply) => reply,
                None => parser.feed(&bytes[used..]).unwrap().1.unwrap(),
            };
            prop_assert_eq!(Some(reply), parse(&bytes).unwrap());
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>, prefix in "(250[- ]a?\r\n){0,3}") {
            let all = [prefix.as_bytes(), &bytes].concat();
            if let Ok(Some(reply)) = parse(&all) {
                let out = wire(&reply);
                prop_assert!(!out.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n' || pair[0] != b'\r' && pair[1] == b'\n'));
            }
        }

        #[test]
        fn own_text_is_always_safe(text: String) {
            prop_assert!(Reply::new(554, "5.7.0", &text).lines().all(|line| line.len() <= 510 && line.iter().all(|b| (32..127).contains(b))));
        }
    }
}
