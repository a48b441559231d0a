// SPDX-License-Identifier: GPL-3.0-or-later
//! What ICAP servers answer (RFC 3507 section 4) and how they name viruses. Pure.
//!
//! The header fields are those of draft-stecher-icap-subid: X-Infection-Found, X-Violations-Found, X-Virus-ID.

use super::engine::{Failure, shown};

/// Status line and header of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Names in lower case, values with their further lines behind line ends.
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads the lines before the empty one.
    pub(super) fn read(lines: &[Vec<u8>]) -> Result<Head, Failure> {
        let garbage = || Failure::Garbage(lines.first().map(|line| shown(line)).unwrap_or_default());
        let (first, rest) = lines.split_first().ok_or_else(garbage)?;
        let mut head = Head { status: status(first, b"ICAP/1.").ok_or_else(garbage)?, fields: Vec::new() };
        for line in rest {
            let text = String::from_utf8_lossy(line);
            if text.starts_with([' ', '\t']) {
                if let Some((_, value)) = head.fields.last_mut() {
                    value.push('\n');
                    value.push_str(text.trim());
                }
            } else if let Some((name, value)) = text.split_once(':') {
                head.fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        Ok(head)
    }

    /// The value of a field; its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// Names of viruses. What says that there is one without a name gets one.
    pub(super) fn viruses(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, value) in &self.fields {
            let found = match name.as_str() {
                "x-infection-found" => vec![threat(value).to_owned()],
                "x-virus-id" | "x-virus-name" => vec![value.clone()],
                "x-violations-found" => violations(value),
                _ => continue,
            };
            for name in found.into_iter().map(|name| shown(name.as_bytes())) {
                let name = if name.is_empty() { "unnamed".to_owned() } else { name };
                if !names.contains(&name) && names.len() < 20 {
                    names.push(name);
                }
            }
        }
        names
    }

    /// What the encapsulated part consists of: how many header sections, and whether a body follows.
    pub(super) fn encapsulated(&self) -> (usize, bool) {
        let list = self.field("encapsulated").unwrap_or_default();
        let names = || list.split(',').filter_map(|entry| entry.split('=').next()).map(str::trim);
        let headers = names().filter(|name| name.ends_with("-hdr")).count();
        (headers, names().any(|name| name.ends_with("-body") && name != "null-body"))
    }

    /// Whether the connection stays open.
    pub(super) fn keeps(&self) -> bool {
        !self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The status in a status line of a protocol.
pub(super) fn status(line: &[u8], protocol: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(protocol)?;
    let text = std::str::from_utf8(rest.get(1..)?).ok()?;
    let code = text.strip_prefix(' ')?.split(' ').next()?;
    code.parse().ok().filter(|code| (100..600).contains(code))
}

/// `Type=0; Resolution=2; Threat=EICAR;`
fn threat(value: &str) -> &str {
    value.split(';').find_map(|entry| entry.trim().strip_prefix("Threat=")).unwrap_or("")
}

/// A count, then four lines for each: file, name, number, what was done.
fn violations(value: &str) -> Vec<String> {
    let mut lines = value.split('\n').map(str::trim);
    let count: usize = lines.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let rest: Vec<&str> = lines.collect();
    (0..count.min(20)).map(|place| rest.get(place * 4 + 1).copied().unwrap_or("").to_owned()).collect()
}

/// The length in a line before a chunk (RFC 9112 section 7.1); extensions behind a semicolon.
pub(super) fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty() && text.len() <= 15)?;
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Result<Head, Failure> {
        Head::read(&text.split('/').map(|line| line.replace('|', "/").into_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn names_in_all_three_fields() {
        for (fields, names) in [
            ("X-Infection-Found: Type=0; Resolution=2; Threat=EICAR Test;", vec!["EICAR Test"]),
            ("X-Infection-Found: Type=0", vec!["unnamed"]),
            ("X-Virus-ID: Eicar_test_file", vec!["Eicar_test_file"]),
            ("X-Violations-Found: 2/\ta.txt/\tEICAR/\t1/\t0/\tb.txt/\tOther/\t2/\t0", vec!["EICAR", "Other"]),
            ("X-Violations-Found: 0", vec![]),
            ("X-Infection-Found: Threat=A;/X-Virus-ID: A", vec!["A"]),
            ("Service: x", vec![]),
        ] {
            assert_eq!(head(&format!("ICAP|1.0 200 OK/{fields}")).unwrap().viruses(), names, "{fields}");
        }
    }

    #[test]
    fn heads() {
        let read =
            head("ICAP|1.0 200 OK/Encapsulated: res-hdr=0, res-body=137/Preview: 1024/Connection: Close").unwrap();
        assert_eq!(
            (read.status, read.encapsulated(), read.number("preview"), read.keeps()),
            (200, (1, true), Some(1024), false)
        );
        assert_eq!(head("ICAP|1.0 204 No/Encapsulated: null-body=0").unwrap().encapsulated(), (0, false));
        for strange in ["", "HTTP|1.0 200 OK", "ICAP|1.0", "ICAP|1.0 abc", "ICAP|1.0 999 x", "ICAP|1.0200"] {
            assert!(head(strange).is_err(), "{strange}");
        }
    }

    #[test]
    fn sizes_of_chunks() {
        assert_eq!(chunk_size(b"1f; ieof"), Some(31));
        assert_eq!(chunk_size(b"0"), Some(0));
        for strange in [&b""[..], b"x", b"-1", b"+1", b"fffffffffffffffff"] {
            assert_eq!(chunk_size(strange), None);
        }
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines: Vec<Vec<u8>>) {
            if let Ok(head) = Head::read(&lines) {
                head.viruses();
            }
            lines.iter().for_each(|line| { chunk_size(line); });
        }
    }
}
