// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the header of a message ends and its body begins, for whole messages (also those inside others). Headers of MIME parts follow other
//! rules: `mime.rs`.

use bytes::Bytes;

use super::headers::{Header, is_space};
use super::lines::{self, Lines};

/// Longest name and value of a field that are kept, in bytes.
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 8192;
/// This many lines of a header may be no fields; with the next one the body begins.
const MAX_ERRORS: u32 = 3;
/// Longest run of blank lines that is kept in a body.
const MAX_BLANK_LINES: usize = 20;

/// A message divided into header and body.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The mbox separator, where the message starts with one.
    pub(super) separator: Option<Bytes>,
    pub(super) fields: Vec<Header>,
    /// The header as it came, with the empty line.
    pub(super) header: Bytes,
    /// The body as it came.
    pub(super) body: Bytes,
    /// The body as it is parsed: line ends LF where the message's are CR LF, long runs of blank lines cut.
    pub(super) parsed: Bytes,
    pub(super) missing_separator: bool,
    pub(super) truncated: bool,
}

/// Divides a message.
pub(super) fn divide(message: &Bytes) -> Head {
    let mut head = Head::default();
    let mut rest = if message.is_empty() { Bytes::from_static(b"\n") } else { message.clone() };
    let first = Lines::new(&rest).next().unwrap_or_default();
    if is_separator(first) {
        head.separator = Some(rest.split_to(first.len()));
    }
    let crlf = ends_in_crlf(Lines::new(&rest).next()) || ends_in_crlf(Lines::new(&rest).last_line());
    let body = fields(&mut head, &rest, crlf);
    head.header = rest.slice(..body);
    if crlf && lines::has_bare_lf(&head.header) {
        head.header = lines::with_crlf(&head.header).into();
    }
    head.body = rest.slice(body..);
    head.parsed = if crlf || lines::has_long_blank_run(&head.body, MAX_BLANK_LINES) {
        lines::cut_blank_runs(&head.body, crlf, MAX_BLANK_LINES).into()
    } else {
        head.body.clone()
    };
    head
}

fn ends_in_crlf(line: Option<&[u8]>) -> bool {
    line.is_some_and(|line| line.ends_with(b"\r\n"))
}

/// `From ` of an mbox, but not a `From :` field; or the separator of an MBX file.
fn is_separator(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From") else { return lines::is_mbx_separator(line) };
    let blanks = rest.iter().take_while(|&&byte| is_space(byte)).count();
    blanks > 1 || (blanks == 1 && rest.get(1) != Some(&b':'))
}

/// Reads fields until the body begins; gives the place where it does.
fn fields(head: &mut Head, text: &Bytes, crlf: bool) -> usize {
    let end_line: &[u8] = if crlf { b"\r\n" } else { b"\n" };
    let mut errors = 0;
    let mut field: Option<usize> = None;
    let mut at = 0;
    for line in Lines::new(text) {
        let start = at;
        at += line.len();
        if matches!(line.first(), Some(b' ' | b'\t')) {
            field.get_or_insert(start);
            continue;
        }
        if let Some(from) = field.take() {
            add(head, text.slice(from..start), crlf);
        }
        if line == end_line || (crlf && line == b"\n") {
            return at;
        }
        if line.starts_with(b"--") {
            head.missing_separator = true;
            return start;
        }
        if !lines::is_field(line) {
            errors += 1;
            if errors > MAX_ERRORS {
                head.missing_separator = true;
                return start;
            }
        }
        field = Some(start);
    }
    if let Some(from) = field {
        add(head, text.slice(from..), crlf);
    }
    head.missing_separator = true;
    text.len()
}

/// Keeps a field, cut to size; what has no colon is none.
fn add(head: &mut Head, field: Bytes, crlf: bool) {
    let Some(colon) = memchr::memchr(b':', &field) else { return };
    let name = field.slice(..colon);
    let blanks = name.iter().rev().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
    let mut name = name.slice(..name.len() - blanks);
    let mut value = field.slice(colon + 1..);
    if crlf && memchr::memmem::find(&value, b"\r\n").is_some() {
        value = super::decode::unix_lines(value.to_vec()).into();
    }
    head.truncated |= name.len() > MAX_NAME || value.len() > MAX_VALUE;
    name.truncate(MAX_NAME);
    value.truncate(MAX_VALUE);
    head.fields.push(Header::new(name, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        divide(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn names(head: &Head) -> Vec<&str> {
        head.fields.iter().map(|field| std::str::from_utf8(&field.name).unwrap()).collect()
    }

    #[test]
    fn fields_and_body() {
        let head = head("From a@b Mon\nA: 1\nB : 2\n 3\n\nbody\n");
        assert_eq!(head.separator.as_deref(), Some(&b"From a@b Mon\n"[..]));
        assert_eq!(names(&head), ["A", "B"]);
        assert_eq!(head.fields[1].decoded(), b"2 3");
        assert_eq!(&head.header[..], b"A: 1\nB : 2\n 3\n\n");
        assert_eq!(&head.parsed[..], b"body\n");
        assert!(!head.missing_separator);
    }

    #[test]
    fn a_boundary_or_too_many_strange_lines_begin_the_body() {
        assert_eq!(&head("A: 1\n--x\ny").body[..], b"--x\ny");
        let head = head("A: 1\nx\nx\nx\nB: 2\nx\n\nbody");
        assert_eq!(names(&head), ["A", "B"]);
        assert_eq!(&head.body[..], b"x\n\nbody");
        assert!(head.missing_separator);
    }

    #[test]
    fn line_ends_are_made_lf() {
        let head = head("A: 1\r\n 2\r\n\r\nx\r\ny\r\n");
        assert_eq!(&head.fields[0].raw[..], b" 1\n 2\n");
        assert_eq!(&head.body[..], b"x\r\ny\r\n");
        assert_eq!(&head.parsed[..], b"x\ny\n");
    }

    #[test]
    fn a_header_alone_has_no_separator() {
        let head = head("A: 1");
        assert_eq!(names(&head), ["A"]);
        assert!(head.missing_separator && head.body.is_empty());
        assert!(!is_separator(b"From : x") && is_separator(b"From  : x"));
    }
}
