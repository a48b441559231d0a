// SPDX-License-Identifier: GPL-3.0-or-later
//! The text of a refusal by the perimeter: `5.7.1 Client [{client}] refused: {why}; id {id}`.
//!
//! Pure. What is filled in is made printable and short: names of lists and words of ours, and an address.

use std::net::IpAddr;

/// What can stand in braces.
const NAMES: [&str; 4] = ["client", "why", "host", "id"];
/// Longest text that is filled in; SMTP wants lines of 512 bytes at most (RFC 5321 section 4.5.3.1.5).
const WHY: usize = 250;

/// A text with gaps, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalText(String);

/// What is filled in.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The client.
    pub client: Option<IpAddr>,
    /// What is held against it.
    pub why: &'a str,
    /// Name of this host.
    pub host: &'a str,
    /// Id of the decision.
    pub id: &'a str,
}

impl RefusalText {
    /// Checks a text; the error says what it must be.
    pub fn new(text: &str) -> Result<Self, String> {
        let code = text.split(' ').next().unwrap_or_default();
        let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = code.split('.').collect();
        if parts.len() != 3 || parts[0] != "5" || !parts.iter().all(|part| number(part)) {
            return Err("must begin with an enhanced status code such as \"5.7.1\"".to_owned());
        }
        if text.len() > 400 || !text.chars().all(|c| c.is_ascii() && !c.is_ascii_control()) {
            return Err("must be printable ASCII of 400 characters at most".to_owned());
        }
        for gap in text.split('{').skip(1) {
            let (name, _) = gap.split_once('}').ok_or_else(|| "\"{\" without \"}\"".to_owned())?;
            if !NAMES.contains(&name) {
                return Err(format!("{{{name}}} does not exist; there are {{client}}, {{why}}, {{host}} and {{id}}"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text with its gaps filled.
    pub fn fill(&self, filling: Filling<'_>) -> String {
        let mut out = String::with_capacity(self.0.len() + filling.why.len().min(WHY) + 40);
        for (at, piece) in self.0.split('{').enumerate() {
            let rest = match piece.split_once('}') {
                Some((name, rest)) if at > 0 => {
                    push(&mut out, name, filling);
                    rest
                }
                _ => piece,
            };
            out.push_str(rest);
        }
        out
    }
}

fn push(out: &mut String, name: &str, filling: Filling<'_>) {
    match name {
        "client" => out.push_str(&filling.client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string())),
        "why" => out.extend(filling.why.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(WHY)),
        "host" => out.push_str(filling.host),
        _ => out.push_str(filling.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_nothing_breaks_out() {
        let filling = |why| Filling { client: "192.0.2.1".parse().ok(), why, host: "mx", id: "0000000001" };
        let text = RefusalText::new("5.7.1 Client [{client}] refused: {why}; id {id} at {host}}").unwrap();
        assert_eq!(
            text.fill(filling("listed by bl.test")),
            "5.7.1 Client [192.0.2.1] refused: listed by bl.test; id 0000000001 at mx}"
        );
        let filled = text.fill(filling("a\r\nb {id}é"));
        assert!(filled.contains("refused: ab {id}; id"), "{filled}");
        assert!(text.fill(filling(&"x".repeat(9999))).len() < 400);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("refused", "enhanced status code"),
            ("4.7.1 x", "enhanced status code"),
            ("5.7.1 {left}", "does not exist"),
            ("5.7.1 {id", "without"),
            ("5.7.1 a\nb", "printable"),
        ] {
            let error = RefusalText::new(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
