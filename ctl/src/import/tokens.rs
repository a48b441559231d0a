// SPDX-License-Identifier: GPL-3.0-or-later
//! The words of a dump in SQL, as mysqldump, `sqlite3 .dump` and `pg_dump --inserts` write it, from a reader of any length.
//!
//! Words and strings are bounded. Backslashes escape, as MySQL writes them; the two other programs do not escape with them, and
//! addresses hardly ever hold one.

use std::io::{self, BufRead};

/// Longest name or string that is kept, in bytes; longer ones are read and given as too long.
const LONGEST: usize = 4096;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, number or name without quotes.
    Word(String),
    /// A name in backticks or double quotes.
    Name(String),
    /// A string.
    Text(String),
    /// A name or string that was not kept.
    TooLong,
    /// Any other single character.
    Mark(u8),
    /// The file ends inside quotes or a comment.
    Broken,
}

/// The words of a reader.
#[derive(Debug)]
pub(super) struct Tokens<R> {
    reader: R,
    line: u64,
}

impl<R: BufRead> Tokens<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: 1 }
    }

    /// The line of what has been read last.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next word; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Token>> {
        loop {
            let Some(byte) = self.take()? else { return Ok(None) };
            let second = self.peek()?;
            return Ok(Some(match byte {
                _ if byte.is_ascii_whitespace() => continue,
                b'#' => {
                    self.skip_line()?;
                    continue;
                }
                b'-' if second == Some(b'-') => {
                    self.skip_line()?;
                    continue;
                }
                b'/' if second == Some(b'*') => match self.skip_comment()? {
                    true => continue,
                    false => Token::Broken,
                },
                b'\'' => self.quoted(b'\'', Token::Text)?,
                b'`' | b'"' => self.quoted(byte, Token::Name)?,
                _ if is_word(byte) => self.word(byte)?,
                _ => Token::Mark(byte),
            }));
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    fn take(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.reader.consume(1);
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    fn skip_line(&mut self) -> io::Result<()> {
        while !matches!(self.take()?, None | Some(b'\n')) {}
        Ok(())
    }

    /// False when the comment has no end. What MySQL calls executable comments holds nothing that is needed here.
    fn skip_comment(&mut self) -> io::Result<bool> {
        self.take()?;
        let mut before = b' ';
        while let Some(byte) = self.take()? {
            if (before, byte) == (b'*', b'/') {
                return Ok(true);
            }
            before = byte;
        }
        Ok(false)
    }

    fn word(&mut self, first: u8) -> io::Result<Token> {
        let mut bytes = vec![first];
        while let Some(byte) = self.peek()?.filter(|byte| is_word(*byte)) {
            self.take()?;
            keep(&mut bytes, byte);
        }
        Ok(kept(bytes, Token::Word))
    }

    fn quoted(&mut self, quote: u8, token: fn(String) -> Token) -> io::Result<Token> {
        let mut bytes = Vec::new();
        loop {
            match self.take()? {
                None => return Ok(Token::Broken),
                Some(b'\\') if quote == b'\'' => match self.take()? {
                    None => return Ok(Token::Broken),
                    Some(escaped) => keep(&mut bytes, unescaped(escaped)),
                },
                Some(byte) if byte == quote => match self.peek()? {
                    // A doubled quote stands for itself.
                    Some(next) if next == quote => {
                        self.take()?;
                        keep(&mut bytes, quote);
                    }
                    _ => return Ok(kept(bytes, token)),
                },
                Some(byte) => keep(&mut bytes, byte),
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'+' | b'-' | b'@') || byte >= 0x80
}

/// Escapes of a MySQL string literal; any other character stands for itself.
fn unescaped(byte: u8) -> u8 {
    match byte {
        b'0' => 0,
        b'b' => 8,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'Z' => 26,
        other => other,
    }
}

fn keep(bytes: &mut Vec<u8>, byte: u8) {
    if bytes.len() <= LONGEST {
        bytes.push(byte);
    }
}

fn kept(bytes: Vec<u8>, token: fn(String) -> Token) -> Token {
    match bytes.len() > LONGEST {
        true => Token::TooLong,
        false => token(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Token> {
        let mut tokens = Tokens::new(text.as_bytes());
        std::iter::from_fn(|| tokens.next().unwrap()).collect()
    }

    fn word(text: &str) -> Token {
        Token::Word(text.to_owned())
    }

    fn text(text: &str) -> Token {
        Token::Text(text.to_owned())
    }

    #[test]
    fn words_names_and_strings_are_told_apart() {
        let dump =
            "-- a 'comment'\n/*!40101 SET x='y;' */; INSERT INTO `a``b` VALUES (-1.5,NULL,'it''s \\'\\\\\\n');# end";
        assert_eq!(
            all(dump),
            [
                Token::Mark(b';'),
                word("INSERT"),
                word("INTO"),
                Token::Name("a`b".to_owned()),
                word("VALUES"),
                Token::Mark(b'('),
                word("-1.5"),
                Token::Mark(b','),
                word("NULL"),
                Token::Mark(b','),
                text("it's '\\\n"),
                Token::Mark(b')'),
                Token::Mark(b';'),
            ]
        );
    }

    #[test]
    fn an_end_inside_quotes_is_told() {
        for dump in ["'abc", "`abc", "/* abc", "'abc\\"] {
            assert_eq!(all(dump), [Token::Broken], "{dump}");
        }
    }

    #[test]
    fn long_strings_are_not_kept() {
        let dump = format!("'{}' next", "x".repeat(10 * LONGEST));
        assert_eq!(all(&dump), [Token::TooLong, word("next")]);
    }

    #[test]
    fn lines_are_counted() {
        let mut tokens = Tokens::new("a\n'x\ny'\n b".as_bytes());
        let lines = std::iter::from_fn(|| tokens.next().unwrap().map(|_| tokens.line())).collect::<Vec<_>>();
        assert_eq!(lines, [1, 3, 4]);
    }
}
