// SPDX-License-Identifier: GPL-3.0-or-later
//! The DATA phase as bytes: `Decoder` finds the one true end of data and gives canonical lines, `Encoder` makes
//! wire bytes of them again.
//!
//! Pure, streaming, no line length limit. The end is exactly CR LF . CR LF (RFC 5321 4.1.1.4). A bare LF
//! becomes CR LF and a bare CR a blank, as newer Postfix does, so that no later system can see another end of
//! data than we saw (SMTP smuggling).

/// Finds the end of data and turns what comes before it into lines that end in CR LF, dots unstuffed.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    bare_cr: u64,
    bare_lf: u64,
}

/// What was seen last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CR LF, or nothing yet: only here a dot has a meaning (RFC 5321 4.5.2). After a bare LF it has none.
    #[default]
    LineStart,
    /// The dot at the start of a line; it is not part of the message.
    Dot,
    /// That dot and a CR.
    DotCr,
    /// Anything inside a line.
    Text,
    /// A CR inside a line.
    Cr,
    /// The end of data. Nothing is taken any more.
    End,
}

impl Decoder {
    /// Takes bytes, appends message bytes to `out`, and returns how many bytes were used: fewer than given only
    /// at the end of data.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let (mut at, mut blocks) = (0, Blocks::default());
        while at < input.len() && self.state != State::End {
            if matches!(self.state, State::LineStart | State::Text) {
                let clean = blocks.clean(input, at, self.state == State::LineStart);
                if clean > 0 {
                    out.extend_from_slice(&input[at..at + clean]);
                    (at, self.state) = (at + clean, State::LineStart);
                    continue;
                }
            }
            match self.state {
                State::Text => at += self.text(&input[at..], out),
                State::LineStart if input[at] != b'.' => at += self.text(&input[at..], out),
                _ => {
                    self.step(input[at], out);
                    at += 1;
                }
            }
        }
        at
    }

    /// Whether the end of data has been seen.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// How many CR without LF and LF without CR there were.
    pub fn bare(&self) -> (u64, u64) {
        (self.bare_cr, self.bare_lf)
    }

    /// Copies a run without CR and LF, then handles the byte that ended it. Returns the bytes used.
    fn text(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let run = memchr::memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        if run > 0 {
            out.extend_from_slice(&input[..run]);
            self.state = State::Text;
        }
        match input.get(run) {
            Some(&byte) => {
                self.step(byte, out);
                run + 1
            }
            None => run,
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => State::End,
            (State::Cr, b'\n') => {
                out.extend_from_slice(b"\r\n");
                State::LineStart
            }
            // The CR that was held back turned out to be bare; look at this byte again as ordinary text.
            (State::Cr | State::DotCr, _) => {
                self.bare_cr += 1;
                out.push(b' ');
                self.state = State::Text;
                return self.step(byte, out);
            }
            (_, b'\r') => State::Cr,
            (_, b'\n') => {
                self.bare_lf += 1;
                out.extend_from_slice(b"\r\n");
                State::Text
            }
            (_, byte) => {
                out.push(byte);
                State::Text
            }
        };
    }
}

/// How much is looked at together.
const BLOCK: usize = 4096;

/// Finds lines that are the same on the wire and in the message: they end in CR LF, hold no other CR or LF and begin with no dot. Nearly
/// all lines of nearly all mail are such, and so they are copied in blocks.
#[derive(Debug, Default)]
struct Blocks {
    /// Up to here something is odd, and each line is looked at by itself: no byte is looked at more than twice.
    odd_until: usize,
}

impl Blocks {
    /// Length of the whole lines of this kind from `at` on, as far as is worth while. `at_start`: the first one begins there.
    fn clean(&mut self, input: &[u8], at: usize, at_start: bool) -> usize {
        if at < self.odd_until || (at_start && input[at] == b'.') {
            return 0;
        }
        let block = &input[at..input.len().min(at + BLOCK)];
        if is_odd(block) {
            self.odd_until = at + block.len();
            return 0;
        }
        memchr::memrchr(b'\n', block).map_or(0, |last| last + 1)
    }
}

/// Whether some CR or LF of a block stands alone, or a dot behind a line end. Without branches, so that the compiler makes it vectors.
fn is_odd(block: &[u8]) -> bool {
    let odd = |before: u8, byte: u8| {
        u8::from(byte == b'\n') ^ u8::from(before == b'\r') | u8::from(before == b'\n') & u8::from(byte == b'.')
    };
    let [first, rest @ ..] = block else { return false };
    let pairs = block[..rest.len()].iter().zip(rest);
    pairs.fold(odd(0, *first), |found, (before, byte)| found | odd(*before, *byte)) != 0
}

/// Makes wire bytes: lines end in CR LF, leading dots are doubled. Whatever comes in, no bare CR or LF goes out.
#[derive(Debug, Default)]
pub struct Encoder {
    state: Written,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Written {
    #[default]
    LineStart,
    Text,
    /// A CR that is held back until its LF comes.
    Cr,
}

impl Encoder {
    /// Appends the wire form of a piece of the message.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let (mut rest, mut blocks) = (input, Blocks::default());
        while !rest.is_empty() {
            if self.state == Written::Cr {
                rest = self.after_cr(rest, out);
                continue;
            }
            let clean = blocks.clean(input, input.len() - rest.len(), self.state == Written::LineStart);
            if clean > 0 {
                out.extend_from_slice(&rest[..clean]);
                (rest, self.state) = (&rest[clean..], Written::LineStart);
                continue;
            }
            let run = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            self.run(&rest[..run], out);
            match rest.get(run) {
                Some(b'\r') => self.state = Written::Cr,
                Some(_) => self.line_end(out),
                None => {}
            }
            rest = &rest[rest.len().min(run + 1)..];
        }
    }

    /// Ends the last line if it is open. What must follow is [`END_OF_DATA`], once everything has been decided.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.state != Written::LineStart {
            self.line_end(out);
        }
    }

    fn run(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.state == Written::LineStart && text[0] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        self.state = Written::Text;
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.state = Written::LineStart;
    }

    fn after_cr<'a>(&mut self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if rest[0] == b'\n' {
            self.line_end(out);
            return &rest[1..];
        }
        out.push(b' ');
        self.state = Written::Text;
        rest
    }
}

/// The end of data after [`Encoder::finish`].
pub const END_OF_DATA: &[u8] = b".\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes in one go: message, bytes used, end seen.
    fn decode(input: &[u8]) -> (Vec<u8>, usize, bool) {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        let used = decoder.feed(input, &mut out);
        (out, used, decoder.is_done())
    }

    fn encode(message: &[u8]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.feed(message, &mut out);
        encoder.finish(&mut out);
        out.extend_from_slice(END_OF_DATA);
        out
    }

    fn has_bare(bytes: &[u8]) -> bool {
        let lone_lf = (0..bytes.len()).any(|i| bytes[i] == b'\n' && (i == 0 || bytes[i - 1] != b'\r'));
        let lone_cr = (0..bytes.len()).any(|i| bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
        lone_cr || lone_lf
    }

    #[test]
    fn ordinary_messages() {
        assert_eq!(decode(b"a\r\n.\r\nQUIT"), (b"a\r\n".to_vec(), 6, true));
        assert_eq!(decode(b".\r\n"), (b"".to_vec(), 3, true));
        assert_eq!(decode(b"..a\r\n.b\r\n...\r\n.\r\n").0, b".a\r\nb\r\n..\r\n");
        assert!(!decode(b"a\r\n").2);
        assert_eq!(encode(b".a\r\n..\r\nb"), b"..a\r\n...\r\nb\r\n.\r\n");
        assert_eq!(encode(b""), b".\r\n");
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        for fake in SMUGGLING {
            let input = [b"a", *fake, b"MAIL FROM:<evil@example.org>\r\nb\r\n.\r\n"].concat();
            let (message, used, done) = decode(&input);
            assert!(done && used == input.len(), "{fake:?} ended the data");
            assert!(!has_bare(&message), "{fake:?} left a bare CR or LF");
            let wire = encode(&message);
            assert_eq!(decode(&wire), (message, wire.len(), true), "{fake:?} is not one message on the way out");
        }
    }

    /// Every way to write something like an end of data with CR, LF, NUL and other line ends around the dot.
    const SMUGGLING: &[&[u8]] = &[
        b"\n.\n",
        b"\n.\r",
        b"\n.\r\n",
        b"\r.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n\r.\r\n",
        b"\n\r.\n\r",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n.\r\0\n",
        b"\r\n. \r\n",
        b"\r\n .\r\n",
        b"\r\n\x0b.\r\n",
        b"\r\n.\x0c\r\n",
        b"\r\n.\xc2\x85",
        b"\r\n\xe2\x80\xa8.\r\n",
        b"\r\n..\r\n",
        b"\n..\r\n",
        b"\r..\r\n",
    ];

    #[test]
    fn a_double_cr_before_the_end_is_still_the_end() {
        // "\r\r\n" ends a line, so the dot after it is at the start of one.
        assert_eq!(decode(b"a\r\r\n.\r\n"), (b"a \r\n".to_vec(), 7, true));
    }

    #[test]
    fn bare_bytes_are_counted() {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        decoder.feed(b"a\nb\rc\r\r\n.\rd\r\n.\r\n", &mut out);
        assert_eq!(out, b"a\r\nb c \r\n d\r\n");
        assert_eq!(decoder.bare(), (3, 1));
    }

    fn bytes_with_line_ends() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), Just(0u8), any::<u8>()],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn fragments_equal_one_piece(input in bytes_with_line_ends(), sizes in prop::collection::vec(1usize..8, 1..40)) {
            let (mut decoder, mut out, mut used) = (Decoder::default(), Vec::new(), 0);
            let mut sizes = sizes.iter().cycle();
            while used < input.len() && !decoder.is_done() {
                let end = input.len().min(used + sizes.next().unwrap());
                used += decoder.feed(&input[used..end], &mut out);
            }
            prop_assert_eq!((out, used, decoder.is_done()), decode(&input));
        }

        #[test]
        fn encoder_fragments_equal_one_piece(input in bytes_with_line_ends(), cut in 0usize..200) {
            let cut = cut.min(input.len());
            let (mut encoder, mut out) = (Encoder::default(), Vec::new());
            encoder.feed(&input[..cut], &mut out);
            encoder.feed(&input[cut..], &mut out);
            encoder.finish(&mut out);
            out.extend_from_slice(END_OF_DATA);
            prop_assert_eq!(out, encode(&input));
        }

        #[test]
        fn what_goes_out_is_what_came_in(input in bytes_with_line_ends()) {
            let closed = [&input[..], b"\r\n.\r\n"].concat();
            let (message, _, done) = decode(&closed);
            prop_assert!(done && !has_bare(&message));
            let wire = encode(&message);
            prop_assert!(!has_bare(&wire));
            prop_assert_eq!(decode(&wire), (message, wire.len(), true));
        }

        #[test]
        fn nothing_bare_goes_out_whatever_comes_in(input in bytes_with_line_ends()) {
            let wire = encode(&input);
            prop_assert!(!has_bare(&wire));
            let (_, used, done) = decode(&wire);
            prop_assert!(done && used == wire.len());
        }
    }
}
