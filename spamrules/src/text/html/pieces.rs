// SPDX-License-Identifier: GPL-3.0-or-later
//! The rendered text, piece by piece: white space between pieces is joined, but not where text that cannot be seen begins or ends.

use crate::text::chars::{Chars, widened};

/// One piece: where it ends in the text, and what it is.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    wide: bool,
    blank: bool,
    invisible: bool,
}

/// The pieces of one text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    text: Vec<u8>,
    list: Vec<Piece>,
    /// Some piece is wide, and so is the whole.
    wide: bool,
}

impl Pieces {
    /// The last piece, and whether it is wide.
    pub(super) fn last(&self) -> Option<(&[u8], bool)> {
        let piece = self.list.last()?;
        Some((self.text.get(piece.start..).unwrap_or_default(), piece.wide))
    }

    /// White space that an element makes. A space just before it goes.
    pub(super) fn push_blank(&mut self, blank: &'static str) {
        if let Some(piece) = self.list.last()
            && !piece.blank
            && !piece.invisible
            && self.text.len() > piece.start
            && self.text.last() == Some(&b' ')
        {
            self.text.pop();
        }
        self.list.push(Piece { start: self.text.len(), wide: false, blank: true, invisible: false });
        self.text.extend_from_slice(blank.as_bytes());
    }

    /// Text: its white space is joined, and a space right after white space of an element goes.
    pub(super) fn push_text(&mut self, text: &Chars, invisible: bool) {
        let start = self.text.len();
        let wide = text.is_wide();
        let after_blank = !invisible && self.list.last().is_some_and(|piece| piece.blank);
        join_blanks(text.octets(), wide, &mut self.text);
        if after_blank && self.text.get(start) == Some(&b' ') {
            self.text.remove(start);
        }
        self.list.push(Piece { start, wide, blank: false, invisible });
    }

    /// Makes all of one kind: where one piece is wide, all become so.
    pub(super) fn finish(&mut self) {
        self.wide = self.list.iter().any(|piece| piece.wide);
        let narrow_octets = self.wide && self.ranges().any(|(piece, text)| !piece.wide && !text.is_ascii());
        if !narrow_octets {
            return;
        }
        let mut text = Vec::with_capacity(self.text.len() + 16);
        let mut starts = Vec::with_capacity(self.list.len());
        for (piece, part) in self.ranges() {
            starts.push(text.len());
            if piece.wide {
                text.extend_from_slice(part);
            } else {
                text.extend_from_slice(&widened(part));
            }
        }
        for (piece, start) in self.list.iter_mut().zip(starts) {
            piece.start = start;
        }
        self.text = text;
    }

    fn ranges(&self) -> impl Iterator<Item = (&Piece, &[u8])> {
        let ends = self.list.iter().skip(1).map(|piece| piece.start).chain([self.text.len()]);
        self.list.iter().zip(ends).map(|(piece, end)| (piece, self.text.get(piece.start..end).unwrap_or_default()))
    }

    /// The whole text, and whether it is wide.
    pub(crate) fn all(&self) -> (&[u8], bool) {
        (&self.text, self.wide)
    }
}

/// Copies `text`, each run of blanks as one space, and each non-breaking space in UTF-8 that was not decoded, too.
fn join_blanks(text: &[u8], wide: bool, out: &mut Vec<u8>) {
    let odd = if wide { "\u{c2}\u{a0}".as_bytes() } else { b"\xc2\xa0" };
    let mut rest = text;
    while let Some(&first) = rest.first() {
        let blanks = rest.iter().take_while(|byte| matches!(byte, b'\t'..=b'\r' | b' ')).count();
        if blanks > 0 {
            out.push(b' ');
            rest = rest.get(blanks..).unwrap_or_default();
        } else if first == odd[0] && rest.starts_with(odd) {
            out.push(b' ');
            rest = rest.get(odd.len()..).unwrap_or_default();
        } else {
            let plain = rest
                .iter()
                .skip(1)
                .position(|byte| matches!(byte, b'\t'..=b'\r' | b' ') || *byte == odd[0])
                .map_or(rest.len(), |at| at + 1);
            let (plain, after) = rest.split_at(plain);
            out.extend_from_slice(plain);
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_joined_over_pieces() {
        let mut pieces = Pieces::default();
        pieces.push_text(&Chars::from_octets(b"a \t\n"), false);
        pieces.push_blank("\n");
        pieces.push_text(&Chars::from_octets(b"  b"), false);
        pieces.push_blank(" ");
        pieces.push_text(&Chars::from_octets(b" c"), true);
        pieces.finish();
        assert_eq!(pieces.all(), (&b"a\nb  c"[..], false));
    }

    #[test]
    fn one_wide_piece_widens_the_others() {
        let mut pieces = Pieces::default();
        pieces.push_text(&Chars::from_octets(b"\xe9"), false);
        pieces.push_text(&Chars::from_text("€".to_owned()), true);
        pieces.finish();
        assert_eq!(pieces.all(), ("é€".as_bytes(), true));
    }
}
