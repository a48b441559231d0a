// SPDX-License-Identifier: GPL-3.0-or-later
//! From Perl's regular expressions (perlre) to the spellings of two engines that match bytes: the linear one, and PCRE2 for what is not regular.
//!
//! Both spellings are written in one walk. The linear one leaves out what only PCRE2 can do; then it matches more than the pattern does, and
//! serves only to find literals that every match contains.

use std::fmt::Write as _;

use super::Error;
use super::class::{self, ByteSet};
use super::delimit::Flags;

/// Groups within groups: more are refused.
const MAX_DEPTH: usize = 200;

/// A pattern in both spellings.
#[derive(Debug, Clone, Default)]
pub(super) struct Translated {
    /// For the linear engine.
    pub(super) linear: String,
    /// For PCRE2.
    pub(super) backtracking: String,
    /// Whether `linear` means the same as the pattern; else it matches more.
    pub(super) exact: bool,
    /// The sum of the highest counts in `{2,50}` and the like: the linear engine makes states for each.
    pub(super) counted: u32,
    /// Names of named groups.
    pub(super) names: Vec<String>,
}

/// Translates a pattern without its delimiters.
pub(super) fn translate(pattern: &[u8], flags: Flags) -> Result<Translated, Error> {
    let mut walk = Walk {
        pattern,
        at: 0,
        flags,
        groups: count_groups(pattern),
        stack: Vec::new(),
        hidden: 0,
        out: Translated { exact: true, ..Translated::default() },
        quantifiable: false,
    };
    walk.flags_text(Flags::default(), flags);
    while walk.at < pattern.len() {
        walk.step()?;
    }
    if !walk.stack.is_empty() {
        return Err(Error::Unclosed('('));
    }
    Ok(walk.out)
}

struct Walk<'a> {
    pattern: &'a [u8],
    at: usize,
    flags: Flags,
    groups: u32,
    /// For each open group: the flags to return to, and whether it hides its content from the linear spelling.
    stack: Vec<(Flags, bool)>,
    hidden: usize,
    out: Translated,
    quantifiable: bool,
}

impl Walk<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.pattern.get(self.at + ahead).copied()
    }

    fn starts(&self, text: &[u8]) -> bool {
        self.pattern.get(self.at..).unwrap_or_default().starts_with(text)
    }

    /// Writes the same to both spellings.
    fn both(&mut self, text: &str) {
        self.out.backtracking.push_str(text);
        self.linear(text);
    }

    fn linear(&mut self, text: &str) {
        if self.hidden == 0 {
            self.out.linear.push_str(text);
        }
    }

    /// Something that only PCRE2 can do, and what a superset of it looks like.
    fn special(&mut self, backtracking: &str, superset: &str) {
        self.out.exact = false;
        self.out.backtracking.push_str(backtracking);
        self.linear(superset);
    }

    fn step(&mut self) -> Result<(), Error> {
        let Some(byte) = self.peek(0) else { return Ok(()) };
        if self.flags.extended && self.skip_blank(byte) {
            return Ok(());
        }
        let quantifiable = std::mem::replace(&mut self.quantifiable, true);
        match byte {
            b'\\' => self.escape()?,
            b'[' => {
                let (set, next) = class::parse(self.pattern, self.at + 1, self.flags.ignore_case)?;
                self.set(&set);
                self.at = next;
            }
            b'(' => self.open()?,
            b')' => self.close()?,
            b'|' => {
                self.quantifiable = false;
                self.both("|");
                self.at += 1;
            }
            b'^' => {
                self.both("^");
                self.at += 1;
            }
            b'$' => {
                self.at += 1;
                self.dollar();
            }
            b'.' => {
                self.both(".");
                self.at += 1;
            }
            b'*' | b'+' | b'?' => {
                self.at += 1;
                self.quantifier(quantifiable, &char::from(byte).to_string())?;
            }
            b'{' => match self.counted() {
                Some((text, next)) => {
                    self.at = next;
                    let highest = text
                        .trim_matches(['{', '}', ','])
                        .rsplit(',')
                        .next()
                        .and_then(|count| count.parse().ok())
                        .unwrap_or(0);
                    self.out.counted = self.out.counted.saturating_add(highest);
                    self.quantifier(quantifiable, &text)?;
                }
                None => self.literal(b'{'),
            },
            byte => self.literal(byte),
        }
        Ok(())
    }

    fn skip_blank(&mut self, byte: u8) -> bool {
        if byte.is_ascii_whitespace() || byte == 0x0b {
            self.at += 1;
            return true;
        }
        if byte == b'#' {
            let rest = self.pattern.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            return true;
        }
        false
    }

    fn literal(&mut self, byte: u8) {
        self.at += 1;
        self.character(byte);
    }

    fn character(&mut self, byte: u8) {
        if byte >= 0x80 {
            if self.flags.ignore_case
                && let Some(other) = class::other_case(byte)
            {
                return self.set(&ByteSet::of([byte, other]));
            }
        } else if byte.is_ascii_alphanumeric() {
            return self.both(char::from(byte).encode_utf8(&mut [0; 4]));
        }
        let mut text = String::new();
        let _ = write!(text, "\\x{byte:02x}");
        self.both(&text);
    }

    fn set(&mut self, set: &ByteSet) {
        let mut text = String::new();
        set.write(&mut text);
        self.both(&text);
    }

    /// `$` matches at the end and before a last newline. Where nothing can follow, taking that newline in comes to the same.
    fn dollar(&mut self) {
        if self.flags.multi_line {
            return self.both("$");
        }
        self.end_of_text("$");
    }

    fn end_of_text(&mut self, perl: &str) {
        if matches!(self.peek(0), None | Some(b')' | b'|')) {
            self.out.backtracking.push_str(perl);
            self.linear("(?:\\n?\\z)");
        } else {
            self.special(perl, "(?:)");
        }
    }

    /// The text of `{2}`, `{2,}`, `{,3}` or `{2,3}` and the place after it; `None`: the brace stands for itself.
    fn counted(&self) -> Option<(String, usize)> {
        let rest = self.pattern.get(self.at + 1..)?;
        let end = rest.iter().take(16).position(|&byte| byte == b'}')?;
        let inner = std::str::from_utf8(rest.get(..end)?).ok()?;
        let (low, high) = inner.split_once(',').map_or((inner, None), |(low, high)| (low, Some(high)));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(low) || !high.is_none_or(digits) || (low.is_empty() && high.is_none_or(str::is_empty)) {
            return None;
        }
        let low = if low.is_empty() { "0" } else { low };
        let text = high.map_or_else(|| format!("{{{low}}}"), |high| format!("{{{low},{high}}}"));
        Some((text, self.at + 1 + end + 1))
    }

    fn quantifier(&mut self, quantifiable: bool, text: &str) -> Result<(), Error> {
        if !quantifiable {
            return Err(Error::NothingToRepeat);
        }
        self.both(text);
        match self.peek(0) {
            Some(b'?') => {
                self.at += 1;
                self.both("?");
            }
            Some(b'+') => {
                self.at += 1;
                self.special("+", "");
            }
            _ => {}
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Error> {
        let letter = self.peek(1).ok_or(Error::TrailingBackslash)?;
        match letter {
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'b' | b'B' | b'A' | b'z' => {
                self.at += 2;
                let text = [b'\\', letter];
                self.both(std::str::from_utf8(&text).unwrap_or_default());
            }
            b'h' | b'H' | b'v' | b'V' | b'N' => {
                self.at += 2;
                if let Some(set) = class::shorthand(letter) {
                    self.set(&set);
                }
            }
            b'R' => {
                self.at += 2;
                self.both("(?:\\r\\n|[\\x0a-\\x0d\\x85])");
            }
            b'Z' => {
                self.at += 2;
                self.end_of_text("\\Z");
            }
            b'G' | b'K' => {
                self.at += 2;
                self.special(if letter == b'G' { "\\G" } else { "\\K" }, "(?:)");
            }
            b'1'..=b'9' => self.number(),
            b'0' => {
                let (byte, next) = class::octal(self.pattern, self.at + 1);
                self.at = next;
                self.character(byte);
            }
            b'g' | b'k' => self.reference()?,
            _ => match class::character(self.pattern, self.at)? {
                (Some(byte), next) => {
                    self.at = next;
                    self.character(byte);
                }
                (None, next) => {
                    self.at = next;
                    self.set(&ByteSet::of([]));
                }
            },
        }
        Ok(())
    }

    /// `\1` is a back reference; `\12` is one only when there are so many groups, else a character in octal.
    fn number(&mut self) {
        let rest = self.pattern.get(self.at + 1..).unwrap_or_default();
        let digits = rest.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(rest.get(..digits).unwrap_or_default()).unwrap_or_default();
        let number: u32 = text.parse().unwrap_or(0);
        if number < 10 || number <= self.groups {
            let text = format!("\\g{{{number}}}");
            self.at += 1 + digits;
            self.special(&text, "(?s:.)*?");
            self.wrap_reference();
        } else {
            let (byte, next) = class::octal(self.pattern, self.at + 1);
            self.at = next;
            self.character(byte);
        }
    }

    /// A reference may be repeated: its stand-in becomes a group.
    fn wrap_reference(&mut self) {
        if self.hidden == 0 {
            let start = self.out.linear.len() - "(?s:.)*?".len();
            self.out.linear.insert_str(start, "(?:");
            self.out.linear.push(')');
        }
    }

    /// `\g1`, `\g{-1}`, `\k<name>` and the like are passed on as they are.
    fn reference(&mut self) -> Result<(), Error> {
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        let close = match rest.get(2) {
            Some(b'{') => b'}',
            Some(b'<') => b'>',
            Some(b'\'') => b'\'',
            _ => 0,
        };
        let length = if close == 0 {
            2 + rest.iter().skip(2).take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count()
        } else {
            4 + rest.iter().skip(3).position(|&byte| byte == close).ok_or(Error::Escape('g'))?
        };
        let text =
            std::str::from_utf8(rest.get(..length).unwrap_or_default()).map_err(|_| Error::Escape('g'))?.to_owned();
        self.at += length;
        self.special(&text, "(?s:.)*?");
        self.wrap_reference();
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.quantifiable = false;
        if self.starts(b"(?#") {
            let rest = self.pattern.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|&byte| byte == b')').ok_or(Error::Unclosed('('))? + 1;
            return Ok(());
        }
        for (perl, hides) in
            [("(?=", true), ("(?!", true), ("(?<=", true), ("(?<!", true), ("(?>", false), ("(?|", false)]
        {
            if self.starts(perl.as_bytes()) {
                self.at += perl.len();
                self.special(perl, "(?:");
                self.stack.push((self.flags, hides));
                self.hidden += usize::from(hides);
                return Ok(());
            }
        }
        if self.starts(b"(*") || self.starts(b"(?{") || self.starts(b"(??") {
            return Err(Error::Construct);
        }
        if self.starts(b"(?") { self.extended_group() } else { self.plain_group() }
    }

    fn plain_group(&mut self) -> Result<(), Error> {
        self.at += 1;
        self.stack.push((self.flags, false));
        self.out.backtracking.push_str(if self.flags.no_capture { "(?:" } else { "(" });
        self.linear(if self.flags.numbered && !self.flags.no_capture { "(" } else { "(?:" });
        Ok(())
    }

    fn extended_group(&mut self) -> Result<(), Error> {
        let name_at = [&b"(?<"[..], b"(?P<", b"(?'"].iter().find(|start| self.starts(start)).map(|start| start.len());
        if let Some(length) = name_at {
            return self.named_group(length);
        }
        self.at += 2;
        let outer = self.flags;
        let mut on = true;
        loop {
            match self.peek(0).ok_or(Error::Unclosed('('))? {
                b'^' => self.flags = Flags { numbered: outer.numbered, ..Flags::default() },
                b'-' => on = false,
                b':' => {
                    self.at += 1;
                    self.stack.push((outer, false));
                    self.both("(?:");
                    let flags = self.flags;
                    self.flags_text(outer, flags);
                    return Ok(());
                }
                b')' => {
                    self.at += 1;
                    let flags = self.flags;
                    self.flags_text(outer, flags);
                    return Ok(());
                }
                letter => self.flags.set(letter, on).map_err(|_| Error::Construct)?,
            }
            self.at += 1;
        }
    }

    fn named_group(&mut self, length: usize) -> Result<(), Error> {
        let close = if self.peek(length - 1) == Some(b'\'') { b'\'' } else { b'>' };
        let rest = self.pattern.get(self.at + length..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == close).ok_or(Error::Unclosed('<'))?;
        let name = std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| Error::Construct)?.to_owned();
        if name.is_empty()
            || name.starts_with(|letter: char| letter.is_ascii_digit())
            || !name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        {
            return Err(Error::Construct);
        }
        self.at += length + end + 1;
        self.stack.push((self.flags, false));
        self.both("(?P<");
        self.both(&name);
        self.both(">");
        self.out.names.push(name);
        Ok(())
    }

    /// Writes the change from one set of flags to another. `x` and `n` are resolved here and never passed on.
    fn flags_text(&mut self, from: Flags, to: Flags) {
        let changes = [
            (from.ignore_case, to.ignore_case, 'i'),
            (from.multi_line, to.multi_line, 'm'),
            (from.dot_all, to.dot_all, 's'),
        ];
        let on: String = changes.iter().filter(|(was, is, _)| !was && *is).map(|(.., letter)| letter).collect();
        let off: String = changes.iter().filter(|(was, is, _)| *was && !is).map(|(.., letter)| letter).collect();
        if on.is_empty() && off.is_empty() {
            return;
        }
        let minus = if off.is_empty() { "" } else { "-" };
        self.both(&format!("(?{on}{minus}{off})"));
    }

    fn close(&mut self) -> Result<(), Error> {
        let (flags, hides) = self.stack.pop().ok_or(Error::Unopened)?;
        self.at += 1;
        self.flags = flags;
        self.hidden -= usize::from(hides);
        self.both(")");
        Ok(())
    }
}

/// How many capturing groups a pattern has: good enough to tell `\12` from a back reference.
fn count_groups(pattern: &[u8]) -> u32 {
    let mut count = 0u32;
    let mut bytes = pattern.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'(' if bytes.peek() != Some(&&b'?') => count = count.saturating_add(1),
            _ => {}
        }
    }
    count
}
