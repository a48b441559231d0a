// SPDX-License-Identifier: GPL-3.0-or-later
//! Patterns of Postfix' tables: `pcre:` as they are, POSIX extended and basic ones of `regexp:` in the words of PCRE2.
//!
//! Both are matched by PCRE2 on bytes, within a limit of steps. One difference from the C library stays: of several ways to match, POSIX
//! takes the longest and PCRE2 the first, which shows in `$1` only, never in whether a line matches. Pure.

use pcre2::bytes::{Captures, Regex, RegexBuilder};

/// Which language the patterns of a table are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `regexp:`, regexp_table(5).
    Regexp,
    /// `pcre:`, pcre_table(5).
    Pcre,
}

/// Flags behind a pattern. Each letter turns its flag around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    caseless: bool,
    multi_line: bool,
    dot_all: bool,
    /// For `regexp:` extended expressions, for `pcre:` blanks and comments in the pattern.
    extended: bool,
    anchored: bool,
    dollar_end_only: bool,
    ungreedy: bool,
}

impl Flags {
    /// What holds without letters.
    pub(super) fn new(dialect: Dialect) -> Flags {
        Flags {
            caseless: true,
            multi_line: false,
            dot_all: true,
            extended: dialect == Dialect::Regexp,
            anchored: false,
            dollar_end_only: false,
            ungreedy: false,
        }
    }

    /// Turns one around; false when the letter means nothing.
    pub(super) fn toggle(&mut self, dialect: Dialect, letter: char) -> bool {
        let flag = match (dialect, letter) {
            (_, 'i') => &mut self.caseless,
            (_, 'm') => &mut self.multi_line,
            (_, 'x') => &mut self.extended,
            (Dialect::Pcre, 's') => &mut self.dot_all,
            (Dialect::Pcre, 'A') => &mut self.anchored,
            (Dialect::Pcre, 'E') => &mut self.dollar_end_only,
            (Dialect::Pcre, 'U') => &mut self.ungreedy,
            // PCRE2 always does what this asked of PCRE.
            (Dialect::Pcre, 'X') => return true,
            _ => return false,
        };
        *flag = !*flag;
        true
    }
}

/// Steps of one match; a line that takes more does not match, and that is counted.
const STEPS: u32 = 200_000;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    negated: bool,
}

impl Pattern {
    /// Compiles. Errors: what PCRE2 says.
    pub(super) fn new(text: &str, dialect: Dialect, flags: Flags, negated: bool) -> Result<Pattern, String> {
        let pattern = match dialect {
            Dialect::Regexp => posix(text, flags),
            Dialect::Pcre => text.to_owned(),
        };
        let mut inner = String::new();
        if flags.ungreedy {
            inner.push_str("(?U)");
        }
        inner.push_str(&pattern);
        let start = if flags.anchored { "\\G" } else { "" };
        // A comment at the end of an extended pattern would swallow the bracket.
        let end = if flags.extended && dialect == Dialect::Pcre { "\n)" } else { ")" };
        let whole = format!("(*LIMIT_MATCH={STEPS})(*LIMIT_HEAP=8192){start}(?:{inner}{end}");
        let regex = RegexBuilder::new()
            .caseless(flags.caseless)
            .multi_line(flags.multi_line)
            .dotall(flags.dot_all && !(dialect == Dialect::Regexp && flags.multi_line))
            .extended(flags.extended && dialect == Dialect::Pcre)
            .build(&whole)
            .map_err(|error| error.to_string())?;
        Ok(Pattern { regex, negated })
    }

    /// Whether the text fits, or does not when the pattern is negated. None when that took too many steps.
    pub(super) fn is_match(&self, text: &[u8]) -> Option<bool> {
        self.regex.is_match(text).ok().map(|found| found != self.negated)
    }

    /// The groups of a match.
    pub(super) fn captures<'t>(&self, text: &'t [u8]) -> Option<Captures<'t>> {
        self.regex.captures(text).ok().flatten()
    }

    /// Groups in the pattern; none can be used of a negated one.
    pub(super) fn groups(&self) -> usize {
        if self.negated { 0 } else { self.regex.captures_len() - 1 }
    }
}

/// A POSIX expression in the words of PCRE2. What glibc adds to POSIX (`\<`, `\w`, back-references) stays.
fn posix(text: &str, flags: Flags) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    let mut at_start = true;
    while let Some(c) = chars.next() {
        match c {
            '[' => bracket(&mut chars, &mut out),
            '\\' => escape(chars.next(), flags.extended, &mut out),
            // At the start of an expression there is nothing to repeat.
            '*' if at_start => out.push_str("\\*"),
            '{' if flags.extended && up_to(chars.clone()) => out.push_str("{0"),
            '{' if flags.extended && !interval(chars.clone()) => out.push_str("\\{"),
            // In PCRE2 a sign behind a quantifier changes it; in POSIX it repeats again, which changes nothing.
            '*' | '+' | '?' if flags.extended => {
                out.push(c);
                while chars.next_if(|next| "*+?".contains(*next)).is_some() {}
            }
            '(' | ')' | '|' | '{' | '}' | '+' | '?' if !flags.extended => out.extend(['\\', c]),
            // `$` fits before a line end at the end of the text in PCRE2, nowhere else than at the end in POSIX.
            '$' if !flags.multi_line && (flags.extended || chars.peek().is_none()) => out.push_str("\\z"),
            '$' if !flags.multi_line => out.push_str("\\$"),
            _ => out.push(c),
        }
        at_start = matches!(c, '(' | '|') && flags.extended || c == '^';
    }
    out
}

/// What stands behind a backslash.
fn escape(next: Option<char>, extended: bool, out: &mut String) {
    match next {
        None => out.push_str("\\\\"),
        Some('<') => out.push_str("\\b(?=\\w)"),
        Some('>') => out.push_str("\\b(?<=\\w)"),
        Some('`') => out.push_str("\\A"),
        Some('\'') => out.push_str("\\z"),
        // In basic expressions these are special with the backslash.
        Some(c @ ('(' | ')' | '{' | '}' | '|' | '+' | '?')) if !extended => out.push(c),
        Some(c @ ('w' | 'W' | 's' | 'S' | 'b' | 'B' | '1'..='9')) => out.extend(['\\', c]),
        Some(c) if c.is_ascii_alphanumeric() => out.push(c),
        Some(c) => out.extend(['\\', c]),
    }
}

/// A bracket expression behind its `[`: a backslash is a character like others, `[:class:]` stays.
fn bracket(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return;
            }
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            // An equivalence class or a collating symbol of one character is that character.
            '[' if matches!(chars.peek(), Some('=' | '.')) => {
                chars.next();
                match chars.next() {
                    Some(c) if c.is_alphanumeric() => out.push(c),
                    Some(c) => out.extend(['\\', c]),
                    None => {}
                }
                chars.next();
                chars.next();
            }
            '\\' | '[' | ']' => out.extend(['\\', c]),
            _ => out.push(c),
        }
        first = false;
    }
}

/// Whether what stands behind a `{` is `,most}`: glibc takes it for `0,most}`.
fn up_to(mut chars: impl Iterator<Item = char>) -> bool {
    let most: String = if chars.next() == Some(',') { chars.by_ref().take(8).collect() } else { String::new() };
    let digits = most.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && most[digits..].starts_with('}')
}

/// Whether `{` begins `n}`, `n,}` or `n,m}`.
fn interval(chars: impl Iterator<Item = char>) -> bool {
    let inside: String = chars.take_while(|c| *c != '}').take(10).collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
        None => number(&inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, dialect: Dialect, letters: &str, text: &str) -> bool {
        let mut flags = Flags::new(dialect);
        assert!(letters.chars().all(|letter| flags.toggle(dialect, letter)));
        Pattern::new(pattern, dialect, flags, false).unwrap().is_match(text.as_bytes()).unwrap()
    }

    #[test]
    fn posix_expressions() {
        for (pattern, letters, text, fits) in [
            ("^Subject: .*FREE", "", "subject: all free", true),
            ("^Subject: .*FREE", "i", "Subject: all free", false),
            (r"[\.]exe", "", r"a\exe", true),
            (r"[[:space:]]{2,}x", "", "a  x", true),
            ("a{b", "", "a{b", true),
            ("^a{,2}b", "", "aab", true),
            ("^a{,2}b", "", "aaab", false),
            ("a{,x}", "", "a{,x}", true),
            ("(*a|*b)", "", "*b", true),
            (r"\<free\>", "", "for free!", true),
            (r"\<free\>", "", "freedom", false),
            ("(a)\\1", "", "aa", true),
            ("a.b", "", "a\nb", true),
            ("a.b", "m", "a\nb", false),
            ("^b$", "m", "a\nb\nc", true),
            ("^b$", "", "a\nb\nc", false),
            ("a(b)", "x", "a(b)", true),
            (r"a\(b\)*c", "x", "abbc", true),
            ("[]a]x", "", "]x", true),
            ("[^]a]x", "", "]x", false),
            ("^[[=a=]b]*[[.-.]]$", "", "ab-", true),
            (r"a\d", "", "ad", true),
            ("a**b", "", "aab", true),
        ] {
            assert_eq!(matches(pattern, Dialect::Regexp, letters, text), fits, "{pattern} {letters} {text:?}");
        }
    }

    #[test]
    fn perl_expressions() {
        for (pattern, letters, text, fits) in [
            (r"^From: (?!boss).*@x\.test", "", "from: me@X.test", true),
            (r"^From: (?!boss).*@x\.test", "", "From: boss@x.test", false),
            ("a.b", "s", "a\nb", false),
            ("b", "A", "ab", false),
            ("a  b # comment", "x", "ab", true),
            (r"\Qa.b\E", "", "a.b", true),
            (r"(\d)\h+\1", "", "1 \t1", true),
            ("(a+)", "U", "aa", true),
        ] {
            assert_eq!(matches(pattern, Dialect::Pcre, letters, text), fits, "{pattern} {letters} {text:?}");
        }
        assert!(!Flags::new(Dialect::Regexp).toggle(Dialect::Regexp, 's'));
    }

    #[test]
    fn steps_are_bounded() {
        let flags = Flags::new(Dialect::Pcre);
        let pattern = Pattern::new("^(a+)+$", Dialect::Pcre, flags, false).unwrap();
        assert_eq!(pattern.is_match(format!("{}!", "a".repeat(5000)).as_bytes()), None);
        assert!(Pattern::new("(", Dialect::Pcre, flags, false).is_err());
    }

    proptest! {
        #[test]
        fn any_expression_is_compiled_or_refused(text in "[]\\[a^$*+?{}()|\\\\.,:=0-2<>-]{0,20}", line: Vec<u8>, dialect in 0..2) {
            let dialect = [Dialect::Regexp, Dialect::Pcre][dialect as usize];
            if let Ok(pattern) = Pattern::new(&text, dialect, Flags::new(dialect), false) {
                pattern.is_match(&line);
            }
        }
    }
}
