// SPDX-License-Identifier: GPL-3.0-or-later
//! Texts of the configuration with names in braces, such as `Greylisted, try again in {left}`: checked and cut when
//! the configuration is read, filled in per request.
//!
//! Pure. Also holds what a reply text (RFC 3463) and a header line (RFC 5322 section 2.2) must look like.

use std::fmt::Write;

/// What can stand in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Left,
    Delay,
    Seconds,
    Host,
    Id,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "left" => Self::Left,
            "delay" => Self::Delay,
            "seconds" => Self::Seconds,
            "host" => Self::Host,
            "id" => Self::Id,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(Name),
}

/// A text with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// What is filled in.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Seconds: what is left for `{left}`, what has been waited for `{delay}`, the bare number for `{seconds}`.
    pub seconds: u64,
    /// Name of this host.
    pub host: &'a str,
    /// Id of the decision.
    pub id: &'a str,
}

impl Template {
    /// Cuts a text at its braces; the error says which name does not exist.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| "\"{\" without \"}\"".to_owned())?;
            let name = Name::parse(name).ok_or_else(|| {
                format!("{{{name}}} does not exist; there are {{left}}, {{delay}}, {{seconds}}, {{host}} and {{id}}")
            })?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Name(name));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text with its gaps filled.
    pub fn fill(&self, values: Values<'_>) -> String {
        let mut out = String::with_capacity(96);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(Name::Left) => push_left(&mut out, values.seconds),
                // Writing to a String cannot fail.
                Part::Name(Name::Delay) => drop(write!(out, "{} seconds", values.seconds)),
                Part::Name(Name::Seconds) => drop(write!(out, "{}", values.seconds)),
                Part::Name(Name::Host) => out.push_str(values.host),
                Part::Name(Name::Id) => out.push_str(values.id),
            }
        }
        out
    }
}

/// A waiting time for people: whole minutes, rounded up, from one minute on.
fn push_left(out: &mut String, seconds: u64) {
    let minutes = seconds.div_ceil(60);
    // Writing to a String cannot fail.
    let _ = match seconds {
        1 => write!(out, "1 second"),
        0..60 => write!(out, "{seconds} seconds"),
        60 => write!(out, "1 minute"),
        _ => write!(out, "{minutes} minutes"),
    };
}

/// What is wrong with the text of a temporary refusal, if anything: it must begin with an enhanced status code of
/// class 4 and be printable.
pub fn reply_mistake(text: &str) -> Option<String> {
    reply_mistake_of(text, '4')
}

/// The same for a refusal whose code is of this class: 4 for now, 5 for good.
pub fn reply_mistake_of(text: &str, class: char) -> Option<String> {
    let code = text.split(' ').next().unwrap_or_default();
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers: Vec<&str> = code.split('.').collect();
    let right_class = numbers[0].len() == 1 && numbers[0].starts_with(class);
    if numbers.len() != 3 || !right_class || !numbers.iter().all(|part| is_number(part)) {
        return Some(format!("must begin with an enhanced status code such as \"{class}.7.1\""));
    }
    unprintable(text)
}

/// What is wrong with a header line, if anything; an empty one is none at all.
pub fn header_mistake(header: &str) -> Option<String> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b":{}".contains(&byte));
    match header.split_once(':') {
        _ if header.is_empty() => None,
        Some((name, value)) if is_name(name) && value.starts_with(' ') && !value.trim().is_empty() => {
            unprintable(header)
        }
        _ => Some("must be a header line, \"Name: value\", or empty for none".to_owned()),
    }
}

fn unprintable(text: &str) -> Option<String> {
    text.chars()
        .any(|c| !(c == ' ' || c.is_ascii_graphic()))
        .then(|| "must be of printable ASCII characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, seconds: u64) -> String {
        Template::new(text).unwrap().fill(Values { seconds, host: "mx1.example.org", id: "0123456789" })
    }

    #[test]
    fn gaps_are_filled() {
        assert_eq!(fill("4.7.1 in {left} ({seconds}); id {id}", 240), "4.7.1 in 4 minutes (240); id 0123456789");
        assert_eq!(fill("X: delayed {delay} by {host}", 301), "X: delayed 301 seconds by mx1.example.org");
        assert_eq!(fill("none", 1), "none");
        for (seconds, left) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (61, "2 minutes"),
            (3600, "60 minutes"),
        ] {
            assert_eq!(fill("{left}", seconds), left);
        }
    }

    #[test]
    fn wrong_names_are_refused() {
        for text in ["{when}", "{", "a {left", "{}"] {
            assert!(Template::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn replies_and_headers_are_checked() {
        for (text, good) in [
            ("4.7.1 x", true),
            ("4.2.0", true),
            ("5.7.1 x", false),
            ("450 x", false),
            ("", false),
            ("4.7.1 a\nb", false),
            ("4.7.1 é", false),
            ("4.7.1.1 x", false),
        ] {
            assert_eq!(reply_mistake(text).is_none(), good, "{text:?}");
        }
        for (text, good) in [
            ("", true),
            ("X-Greylist: a", true),
            ("X-Greylist:a", false),
            ("X Greylist: a", false),
            (": a", false),
            ("X: ", false),
            ("X: a\r\nY: b", false),
        ] {
            assert_eq!(header_mistake(text).is_none(), good, "{text:?}");
        }
    }
}
