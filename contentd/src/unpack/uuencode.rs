// SPDX-License-Identifier: GPL-3.0-or-later
//! uuencoded files within text (POSIX.1-2017 uuencode), several behind each other, and its base64 variant.

use super::field::text;
use super::members::{Flaw, Members};
use crate::message::codec::{self, Padding};
use memchr::memmem;

/// Where the first encoded file begins.
pub(super) fn first(data: &[u8]) -> Option<usize> {
    starts(data).next()
}

/// Lines `begin 644 name` that are followed by a line of encoded data.
fn starts(data: &[u8]) -> impl Iterator<Item = usize> {
    memmem::find_iter(data, b"begin").filter(|at| {
        let at_line = *at == 0 || data[*at - 1] == b'\n';
        let (line, rest) = line(&data[*at..]);
        at_line && head(line).is_some_and(|(base64, _)| base64 || encoded(self::line(rest).0).is_some())
    })
}

/// The first line, without its end, and what follows.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', data) {
        Some(end) => (data[..end].strip_suffix(b"\r").unwrap_or(&data[..end]), &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Whether the data is base64, and the name.
fn head(line: &[u8]) -> Option<(bool, &[u8])> {
    let rest = line.strip_prefix(b"begin")?;
    let (base64, rest) = match rest.strip_prefix(b"-base64") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.strip_prefix(b" ")?;
    let blank = memchr::memchr(b' ', rest)?;
    let (mode, name) = (&rest[..blank], rest[blank..].trim_ascii());
    let octal = (3..=4).contains(&mode.len()) && mode.iter().all(|digit| (b'0'..=b'7').contains(digit));
    (octal && !name.is_empty()).then_some((base64, name))
}

/// One line of data: its length, then four characters for three bytes. Programs that drop blanks at the end of a line are
/// made up for.
fn encoded(line: &[u8]) -> Option<Vec<u8>> {
    let (&length, data) = line.split_first()?;
    let value = |byte: u8| (b' '..=b'`').contains(&byte).then(|| byte.wrapping_sub(b' ') & 63);
    let length = usize::from(value(length)?);
    if data.len() > length.div_ceil(3) * 4 + 4 {
        return None;
    }
    let mut bytes = Vec::with_capacity(length + 3);
    for group in data.chunks(4) {
        let mut bits = 0u32;
        for place in 0..4 {
            bits = bits << 6 | u32::from(value(group.get(place).copied().unwrap_or(b' '))?);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    bytes.resize(length, 0);
    Some(bytes)
}

/// Opens all files.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut done = 0;
    for start in starts(data) {
        if start < done {
            continue;
        }
        let (first, mut rest) = line(&data[start..]);
        let Some((base64, name)) = head(first) else { continue };
        let (bytes, ended) = if base64 {
            let end = memmem::find(rest, b"\n====").unwrap_or(rest.len());
            let decoded = codec::base64(&rest[..end], Padding::Continues).bytes;
            rest = &rest[end..];
            (decoded, end < rest.len())
        } else {
            lines(&mut rest)
        };
        done = data.len() - rest.len();
        out.stored(&[text(name)], &bytes)?;
        if !ended && !base64 {
            out.flaw(&Flaw::Truncated);
        }
    }
    Ok(())
}

/// The data up to the line `end`, and whether that was there.
fn lines(rest: &mut &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while !rest.is_empty() {
        let (next, behind) = line(rest);
        if next.trim_ascii_end() == b"end" {
            *rest = behind;
            return (bytes, true);
        }
        match encoded(next) {
            Some(decoded) => bytes.extend_from_slice(&decoded),
            // A line that mail has broken or a page number: the lines after it may be good again.
            None if next.is_empty() => {}
            None => return (bytes, false),
        }
        *rest = behind;
    }
    (bytes, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_data() {
        assert_eq!(encoded(b"#0V%T").as_deref(), Some(&b"Cat"[..]));
        assert_eq!(encoded(b"`").as_deref(), Some(&b""[..]));
        assert_eq!(first(b"x\nbegin 644 a b.txt\n#0V%T\n`\nend\n"), Some(2));
        assert_eq!(first(b"begin 7 days\n#0V%T\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_searched(text in "(begin( |-base64 )644 a\n|[ -`]{0,64}\n|end\n|====){0,12}", data: Vec<u8>) {
            first(text.as_bytes());
            first(&data);
            lines(&mut text.as_bytes());
        }
    }
}
