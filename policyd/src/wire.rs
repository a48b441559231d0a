// SPDX-License-Identifier: GPL-3.0-or-later
//! The policy protocol as bytes: blocks of `name=value` lines, ended by an empty line, and the reply
//! (Postfix SMTPD_POLICY_README, "Protocol description").
//!
//! Pure: knows no socket and no clock, and gives no meaning to any attribute but `request`.

use std::fmt;

use memchr::{memchr, memchr2};

/// Longest request in bytes, with its empty line. Postfix' own are under 2 KiB.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Most attributes in one request. Postfix 3.12 sends about 30.
pub const MAX_ATTRIBUTES: usize = 128;

/// Longest action in a reply, in bytes: what fits one SMTP reply line of 512 bytes (RFC 5321 section 4.5.3.1.5)
/// with the reply code, the recipient and the words that Postfix puts around it.
pub const MAX_ACTION: usize = 400;

/// The value that the attribute `request` must have.
const REQUEST: &[u8] = b"smtpd_access_policy";

/// What makes a request unreadable. The connection is closed without a reply, as SMTPD_POLICY_README asks of a
/// server in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More than [`MAX_REQUEST`] bytes without an empty line.
    #[error("request of more than {MAX_REQUEST} bytes")]
    TooLong,
    /// More than [`MAX_ATTRIBUTES`] lines in one request.
    #[error("request of more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// A NUL byte, which neither names nor values can hold.
    #[error("NUL byte in the request")]
    Nul,
    /// A line without `=`.
    #[error("line without \"=\"")]
    NoEquals,
    /// The block has no attribute `request`.
    #[error("no attribute \"request\"")]
    NoRequest,
    /// The attribute `request` is not `smtpd_access_policy`.
    #[error("\"request\" is not \"smtpd_access_policy\"")]
    OtherRequest,
}

impl WireError {
    /// The word for log and metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::TooManyAttributes => "too_many_attributes",
            Self::Nul => "nul",
            Self::NoEquals => "no_equals",
            Self::NoRequest => "no_request",
            Self::OtherRequest => "other_request",
        }
    }
}

/// One line: where it starts, where its first `=` is and where its LF is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    start: u32,
    equals: u32,
    end: u32,
}

/// Finds requests in a growing buffer. Every byte is looked at once, however it is fragmented: the framer
/// remembers the lines found and how far it has searched.
#[derive(Debug, Default)]
pub struct Framer {
    lines: Vec<Line>,
    line_start: usize,
    searched: usize,
    is_policy: bool,
}

impl Framer {
    /// A framer at the start of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the end of the request that begins at the start of `buffer`, which is what earlier calls saw and
    /// perhaps more. Gives the length of the request, or none when it is not complete; the request can then be had
    /// from [`Framer::block`], and after [`Framer::restart`] the next one is searched.
    pub fn find(&mut self, buffer: &[u8]) -> Result<Option<usize>, WireError> {
        let limit = buffer.len().min(MAX_REQUEST);
        while let Some(at) = memchr2(b'\n', 0, &buffer[self.searched..limit]) {
            let end = self.searched + at;
            if buffer[end] == 0 {
                return Err(WireError::Nul);
            }
            self.searched = end + 1;
            if end == self.line_start {
                return if self.is_policy { Ok(Some(end + 1)) } else { Err(WireError::NoRequest) };
            }
            self.line(buffer, end)?;
        }
        self.searched = limit;
        if buffer.len() >= MAX_REQUEST { Err(WireError::TooLong) } else { Ok(None) }
    }

    /// Takes the line from `line_start` up to the LF at `end`.
    fn line(&mut self, buffer: &[u8], end: usize) -> Result<(), WireError> {
        let start = std::mem::replace(&mut self.line_start, end + 1);
        let line = &buffer[start..end];
        let equals = memchr(b'=', line).ok_or(WireError::NoEquals)?;
        if self.lines.len() == MAX_ATTRIBUTES {
            return Err(WireError::TooManyAttributes);
        }
        if &line[..equals] == b"request" {
            self.is_policy = &line[equals + 1..] == REQUEST;
            if !self.is_policy {
                return Err(WireError::OtherRequest);
            }
        }
        // Positions are under MAX_REQUEST and fit.
        let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.lines.push(Line { start: position(start), equals: position(start + equals), end: position(end) });
        Ok(())
    }

    /// The request just found, in the buffer in which it was found.
    pub fn block<'a>(&'a self, buffer: &'a [u8]) -> Block<'a> {
        Block { bytes: buffer, lines: &self.lines }
    }

    /// Forgets the request found; the next call of [`Framer::find`] gets a buffer that starts after it.
    pub fn restart(&mut self) {
        self.lines.clear();
        self.line_start = 0;
        self.searched = 0;
        self.is_policy = false;
    }
}

/// A complete request: its attributes in the order sent.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    bytes: &'a [u8],
    lines: &'a [Line],
}

impl<'a> Block<'a> {
    /// Name and value of every attribute; both are bytes without NUL and LF, the name without `=`.
    pub fn attributes(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.iter().map(move |line| {
            let [start, equals, end] = [line.start, line.equals, line.end].map(|at| at as usize);
            (&self.bytes[start..equals], &self.bytes[equals + 1..end])
        })
    }
}

impl fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.attributes().map(|(name, value)| (String::from_utf8_lossy(name), String::from_utf8_lossy(value))),
            )
            .finish()
    }
}

/// Appends the reply `action=…` LF LF to `out`. Whatever `action` holds, the reply is well formed: control
/// characters become blanks (a CR would make Postfix wait for its full time limit), leading blanks go (Postfix
/// would not know the action), the length ends at [`MAX_ACTION`] between two characters, and nothing at all
/// becomes `DUNNO`.
pub fn encode(action: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"action=");
    let start = out.len();
    let mut utf8 = [0; 4];
    for c in action.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars() {
        let c = if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
        if out.len() - start + c.len_utf8() > MAX_ACTION {
            break;
        }
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
    while out.len() > start && out.last() == Some(&b' ') {
        out.pop();
    }
    if out.len() == start {
        out.extend_from_slice(b"DUNNO");
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn pairs(framer: &Framer, buffer: &[u8]) -> Pairs {
        framer.block(buffer).attributes().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// All requests of `input`, given to the framer in pieces of `step` bytes.
    fn read(input: &[u8], step: usize) -> Result<Vec<Pairs>, WireError> {
        let (mut framer, mut buffer, mut found) = (Framer::new(), Vec::new(), Vec::new());
        for piece in input.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(length) = framer.find(&buffer)? {
                found.push(pairs(&framer, &buffer[..length]));
                framer.restart();
                buffer.drain(..length);
            }
        }
        Ok(found)
    }

    fn encoded(action: &str) -> String {
        let mut out = Vec::new();
        encode(action, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_keep_everything_after_the_first_equals_sign() {
        let found = read(b"request=smtpd_access_policy\nsender=a=b@c\n=x\nempty=\nhelo_name=\xff\r\n\n", 1000).unwrap();
        let expected: [(&[u8], &[u8]); 5] = [
            (b"request", b"smtpd_access_policy"),
            (b"sender", b"a=b@c"),
            (b"", b"x"),
            (b"empty", b""),
            (b"helo_name", b"\xff\r"),
        ];
        assert_eq!(found, [expected.map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec()]);
    }

    #[test]
    fn fragments_and_pipelined_requests_give_the_same() {
        let two = b"request=smtpd_access_policy\nsender=a\n\nrequest=smtpd_access_policy\nsender=b\n\n";
        let whole = read(two, two.len()).unwrap();
        assert_eq!(whole.len(), 2);
        for step in 1..two.len() {
            assert_eq!(read(two, step).unwrap(), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn malformed_requests_are_told_apart() {
        for (input, error) in [
            (&b"\n"[..], WireError::NoRequest),
            (b"sender=a\n\n", WireError::NoRequest),
            (b"request=smtp_sasl\n\n", WireError::OtherRequest),
            (b"request=smtpd_access_policy \n\n", WireError::OtherRequest),
            (b"request=smtpd_access_policy\r\n", WireError::OtherRequest),
            (b"GET / HTTP/1.1\r\n", WireError::NoEquals),
            (b"request=smtpd_access_policy\nx=1\n\r\n", WireError::NoEquals),
            (b"request=smtpd_access_policy\nsender=a\0b\n\n", WireError::Nul),
            (b"\0", WireError::Nul),
        ] {
            for step in [1, 7, 1000] {
                assert_eq!(read(input, step), Err(error), "{:?}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn limits_hold_to_the_byte_and_to_the_line() {
        let head = b"request=smtpd_access_policy\nsender=".to_vec();
        let fits = |length: usize| [head.clone(), vec![b'a'; length - head.len() - 2], b"\n\n".to_vec()].concat();
        assert_eq!(read(&fits(MAX_REQUEST), MAX_REQUEST).unwrap().len(), 1);
        assert_eq!(read(&fits(MAX_REQUEST + 1), MAX_REQUEST + 1), Err(WireError::TooLong));
        assert_eq!(read(&vec![b'a'; 10_000_000], 4096), Err(WireError::TooLong));

        let lines = |count: usize| {
            [b"request=smtpd_access_policy\n".to_vec(), b"x=y\n".repeat(count - 1), b"\n".to_vec()].concat()
        };
        assert_eq!(read(&lines(MAX_ATTRIBUTES), 9999).unwrap()[0].len(), MAX_ATTRIBUTES);
        assert_eq!(read(&lines(MAX_ATTRIBUTES + 1), 9999), Err(WireError::TooManyAttributes));
    }

    #[test]
    fn replies_are_one_printable_line() {
        for (action, reply) in [
            ("DUNNO", "action=DUNNO\n\n"),
            ("", "action=DUNNO\n\n"),
            (" \r\n ", "action=DUNNO\n\n"),
            ("  DEFER x ", "action=DEFER x\n\n"),
            ("REJECT a\r\nb\0c\u{7f}d\u{85}e\u{2028}f", "action=REJECT a  b c d e f\n\n"),
            ("REJECT 50 % für é", "action=REJECT 50 % für é\n\n"),
        ] {
            assert_eq!(encoded(action), reply);
        }
        let long = encoded(&"é".repeat(1000));
        assert_eq!(long.len(), "action=\n\n".len() + MAX_ACTION);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_and_never_panic(input in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            prop_assert_eq!(read(&input, step), read(&input, 1));
        }

        #[test]
        fn any_lines_in_any_pieces_give_the_same(input in "(request=smtpd_access_policy\n|[a-c=\n\u{0}é]{0,6}\n?){0,12}", step in 1usize..50) {
            prop_assert_eq!(read(input.as_bytes(), step), read(input.as_bytes(), 1));
        }

        #[test]
        fn any_action_gives_one_reply(action in any::<String>()) {
            let reply = encoded(&action);
            let text = reply.strip_prefix("action=").and_then(|rest| rest.strip_suffix("\n\n"));
            prop_assert!(text.is_some_and(|text| !text.is_empty() && text.len() <= MAX_ACTION && !text.starts_with(' ') && !text.chars().any(char::is_control)));
        }
    }
}
