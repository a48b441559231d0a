// SPDX-License-Identifier: GPL-3.0-or-later
//! Lines of a text file of any size in bounded memory, numbered from 1.

use std::io::{self, BufRead, Read};

/// Longest line in bytes; what the text formats hold is a few hundred.
const LONGEST: usize = 16 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// Without its end; none when it was too long, and left out.
    pub(super) text: Option<String>,
}

/// The lines of a reader.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, number: 0 }
    }

    /// The next line; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        if self.reader.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let whole = bytes.last() == Some(&b'\n');
        if !whole && bytes.len() > LONGEST {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Line { number: self.number, text: None }));
        }
        // Addresses that are not UTF-8 read the same here and in the requests of Postfix.
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        Ok(Some(Line { number: self.number, text: Some(text.to_owned()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_long_ones_left_out() {
        let text = [b"one\r\n".as_slice(), &vec![b'x'; 3 * LONGEST], b"\nthree"].concat();
        let mut lines = Lines::new(&text[..]);
        let mut next = || lines.next().unwrap().map(|line| (line.number, line.text));
        assert_eq!(next(), Some((1, Some("one".to_owned()))));
        assert_eq!(next(), Some((2, None)));
        assert_eq!(next(), Some((3, Some("three".to_owned()))));
        assert_eq!(next(), None);
    }
}
