// SPDX-License-Identifier: GPL-3.0-or-later
//! Lines of a message, and the few things that are done to them before a message is parsed.

use super::headers::is_space;

/// The lines of a text, each with its line end.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Lines<'a> {
        Lines { rest: text }
    }

    /// The last line, without a walk over the others.
    pub(super) fn last_line(&self) -> Option<&'a [u8]> {
        let inner = self.rest.get(..self.rest.len().checked_sub(1)?)?;
        self.rest.get(memchr::memrchr(b'\n', inner).map_or(0, |at| at + 1)..)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(line)
    }
}

/// Nothing but white space.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|&byte| is_space(byte))
}

/// The line begins with a field name and a colon; blanks before the colon are taken (RFC 5322, section 4.5).
pub(super) fn is_field(line: &[u8]) -> bool {
    let (name, rest) = line.split_at(name_len(line));
    let blanks = rest.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
    !name.is_empty() && rest.get(blanks) == Some(&b':')
}

/// The same without blanks.
pub(super) fn is_strict_field(line: &[u8]) -> bool {
    let len = name_len(line);
    len > 0 && line.get(len) == Some(&b':')
}

fn name_len(line: &[u8]) -> usize {
    line.iter().take_while(|&&byte| matches!(byte, 0x21..=0x39 | 0x3b..=0x7e)).count()
}

/// Separator of a UW MBX file: `dd-mmm-yyyy hh:mm:ss zone,size;flags-uid`.
pub(super) fn is_mbx_separator(line: &[u8]) -> bool {
    let date = b"_9-aaa-9999_99:99:99";
    let shape = |(&byte, &kind): (&u8, &u8)| match kind {
        b'_' => is_space(byte) || byte.is_ascii_digit(),
        b'9' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        other => byte == other,
    };
    let Some(start) = line.get(..date.len()) else { return false };
    let tail = line.trim_ascii_end();
    let Some(tail) = tail.len().checked_sub(22).and_then(|at| tail.get(at..)) else { return false };
    let (flags, uid) = tail.split_at(13);
    start.iter().zip(date).all(shape)
        && line.contains(&b',')
        && flags.first() == Some(&b';')
        && flags.iter().skip(1).all(u8::is_ascii_hexdigit)
        && uid.first() == Some(&b'-')
}

/// Whether some line ends in LF without a CR before it.
pub(super) fn has_bare_lf(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', text).any(|at| at.checked_sub(1).and_then(|before| text.get(before)) != Some(&b'\r'))
}

/// Every line end made CR LF.
pub(super) fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    for line in Lines::new(text) {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// Whether more than `max` blank lines follow each other.
pub(super) fn has_long_blank_run(text: &[u8], max: usize) -> bool {
    let mut run = 0;
    // blank lines begin with white space; a text without such a sequence has no run
    Lines::new(text).any(|line| {
        run = if is_blank(line) { run + 1 } else { 0 };
        run > max
    })
}

/// The lines with CR LF made LF (where wanted) and runs of more than `max` blank lines cut to the first and the last of them; a run at
/// the very start keeps one more.
pub(super) fn cut_blank_runs(text: &[u8], crlf: bool, max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut run: Vec<&[u8]> = Vec::new();
    let mut at_start = true;
    let mut push = |line: &[u8]| match line.strip_suffix(b"\r\n").filter(|_| crlf) {
        Some(line) => {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        None => out.extend_from_slice(line),
    };
    for line in Lines::new(text) {
        if is_blank(line) {
            run.push(line);
            continue;
        }
        cut(&mut run, if at_start { max + 1 } else { max }, at_start).for_each(&mut push);
        run.clear();
        at_start = false;
        push(line);
    }
    cut(&mut run, if at_start { max + 1 } else { max }, at_start).for_each(&mut push);
    out
}

/// What stays of one run: the first line (at the start of the text the first two) and the last ones.
fn cut<'r, 'a>(run: &'r mut [&'a [u8]], max: usize, at_start: bool) -> impl Iterator<Item = &'a [u8]> + 'r {
    let first = if at_start { 2 } else { 1 };
    let gap = first..first + run.len().saturating_sub(max);
    run.iter().enumerate().filter(move |(place, _)| !gap.contains(place)).map(|(_, line)| *line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_ends() {
        assert_eq!(Lines::new(b"a\n\nb").collect::<Vec<_>>(), [&b"a\n"[..], b"\n", b"b"]);
        assert_eq!(Lines::new(b"a\nb\n").last_line(), Some(&b"b\n"[..]));
        assert_eq!(Lines::new(b"").last_line(), None);
    }

    #[test]
    fn fields_and_other_lines() {
        assert!(is_field(b"A: x") && is_field(b"A \t: x") && !is_field(b"A b: x") && !is_field(b": x"));
        assert!(is_strict_field(b"A:") && !is_strict_field(b"A :"));
        assert!(is_mbx_separator(b" 1-Jan-2020 10:11:12 +0100,123;000000000001-0000abcd\r\n"));
        assert!(!is_mbx_separator(b"Received: by"));
    }

    #[test]
    fn long_runs_of_blank_lines_are_cut() {
        let text = format!("a\n{}b\n", "\n".repeat(50));
        assert!(has_long_blank_run(text.as_bytes(), 20));
        assert_eq!(cut_blank_runs(text.as_bytes(), false, 20), format!("a\n{}b\n", "\n".repeat(20)).into_bytes());
        let text = "\r\n".repeat(50);
        assert_eq!(cut_blank_runs(text.as_bytes(), true, 20), "\n".repeat(21).into_bytes());
        assert_eq!(cut_blank_runs(b"a\r\n\r\nb", true, 20), b"a\n\nb");
    }
}
