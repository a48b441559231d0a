// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the text: alternatives that differ, empty lines, lengths (SpamAssassin's plugin BodyEval).

use std::collections::{HashMap, HashSet};

use super::html::number;
use super::matching::pattern;
use super::{Argument, Eval};
use crate::context::Context;
use crate::message::{Lines, Part, is_blank};
use crate::text::chars::space_len;
use crate::text::{Shown, chunks};

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "multipart_alternative_difference" => multipart_alternative_difference,
        "multipart_alternative_difference_count" => multipart_alternative_difference_count,
        "check_blank_line_ratio" => check_blank_line_ratio,
        "tvd_vertical_words" => tvd_vertical_words,
        "check_stock_info" => check_stock_info,
        "check_body_length" => check_body_length,
        "plaintext_body_length" => |context, arguments| plaintext(context, arguments, |lengths| lengths.body),
        "plaintext_sig_length" => |context, arguments| plaintext(context, arguments, |lengths| lengths.signature),
        "plaintext_body_sig_ratio" => |context, arguments| plaintext(context, arguments, Lengths::ratio),
        _ => return None,
    })
}

#[allow(clippy::cast_precision_loss)] // counts of one message
fn count(number: usize) -> f64 {
    number as f64
}

/// How much alternatives differ.
#[derive(Debug, Default)]
struct Difference {
    /// Words of the HTML that the plain text lacks, in per cent.
    lacking: f64,
    /// Different words of both.
    html: usize,
    plain: usize,
}

/// The difference is within (min, max] per cent; a min of 0 takes 0, too.
fn multipart_alternative_difference(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let lacking = context.memo(difference).lacking;
    let (min, max) = (number(arguments, 0), arguments.get(1).filter(|max| max.as_str() != "undef"));
    u32::from((min == 0.0 || lacking > min) && max.is_none_or(|max| lacking <= max.number()))
}

/// The plain text has that many times more words than the HTML, which has more than `min`.
fn multipart_alternative_difference_count(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let found = context.memo(difference);
    let enough = found.html > 0 && count(found.html) > number(arguments, 1);
    u32::from(enough && count(found.plain) / count(found.html) > number(arguments, 0))
}

fn difference(context: &Context<'_>) -> Difference {
    let message = context.message;
    let mut found = Difference::default();
    if is_invitation(context) {
        return found;
    }
    for part in message.parts().iter().filter(|part| is_word_start(&part.kind, "multipart/alternative")) {
        compare(context, part, &mut found);
    }
    found
}

/// HTML and a calendar entry: there is no plain text to compare.
fn is_invitation(context: &Context<'_>) -> bool {
    let kinds: Vec<&str> = context.message.parts().iter().map(|part| part.kind.as_str()).collect();
    kinds == ["multipart/alternative", "text/html", "text/calendar"]
}

/// `word` at the start, not as the start of a longer word.
fn is_word_start(text: &str, word: &str) -> bool {
    let rest = text.strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_'))
}

/// Compares the alternatives in one part.
fn compare(context: &Context<'_>, part: &Part, found: &mut Difference) {
    let (mut html, mut plain) = (HashMap::new(), HashMap::new());
    for place in context.message.places_within(part) {
        let (Some(other), Some(shown)) = (context.message.parts().get(place), context.texts().shown(place)) else {
            continue;
        };
        if !is_word_start(&other.kind, "text") {
            continue;
        }
        let facts = match shown {
            Shown::Html(_, facts) => context.texts().html.get(*facts),
            Shown::Plain(_) => None,
        };
        let has_image = facts.is_some_and(|facts| facts.inside.contains_key(&b"img"[..]));
        let (octets, wide) = shown.text();
        if other.effective_kind() == "text/html" {
            words(octets, wide, &mut html);
            if html.is_empty() && has_image {
                html.insert(&b"\n"[..], 1);
            }
        } else {
            words(octets, wide, &mut plain);
        }
    }
    if html.is_empty() {
        return;
    }
    found.html = html.len();
    found.plain = plain.len();
    let lacking = html.iter().filter(|(word, times)| plain.get(*word).is_none_or(|known| *times > known)).count();
    found.lacking = found.lacking.max(count(lacking) / count(html.len()) * 100.0);
}

/// Counts the words of a text.
fn words<'t>(text: &'t [u8], wide: bool, into: &mut HashMap<&'t [u8], u32>) {
    let mut start = 0;
    let mut at = 0;
    while at <= text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let blank = space_len(rest, wide);
        if blank > 0 || rest.is_empty() {
            let word = text.get(start..at).unwrap_or_default();
            if has_letter(word, wide) {
                *into.entry(word).or_default() += 1;
            }
            start = at + blank;
        }
        at += blank.max(1);
    }
}

/// Perl's `\w` somewhere in a word.
fn has_letter(word: &[u8], wide: bool) -> bool {
    word.iter().any(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        || (wide && !word.is_ascii() && String::from_utf8_lossy(word).chars().any(char::is_alphanumeric))
}

/// Lines of the text and blank ones among them.
struct Blank {
    lines: usize,
    blank: usize,
}

/// Blank lines are within (min, max] per cent of at least `lines` lines; a min of 0 takes 0, too.
fn check_blank_line_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let counted = context.memo(blank_lines);
    let least = number(arguments, 2).max(1.0);
    let ratio = if count(counted.lines) < least { -1.0 } else { 100.0 * count(counted.blank) / count(counted.lines) };
    let (min, max) = (number(arguments, 0), number(arguments, 1));
    u32::from((min == 0.0 || ratio > min) && ratio <= max)
}

fn blank_lines(context: &Context<'_>) -> Blank {
    let lines = || context.texts().rawbody.iter().flat_map(|chunk| Lines::new(chunk));
    Blank { lines: lines().count(), blank: lines().filter(|line| is_blank(line)).count() }
}

/// Spaces between single letters: the greatest share of spaces in a paragraph, in per cent of the rest.
struct Spaced(f64);

fn tvd_vertical_words(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let max = number(arguments, 1);
    let max = if max >= 100.0 { 101.0 } else { max };
    let share = context.memo(spaced).0;
    u32::from(share >= number(arguments, 0) && share < max)
}

fn spaced(context: &Context<'_>) -> Spaced {
    let share = |line: &Vec<u8>| {
        let spaces = memchr::memchr_iter(b' ', line).count();
        let others = line.len() - spaces;
        if spaces > others { 100 } else { 100 * spaces / others.max(1) }
    };
    let longer = context.texts().body.iter().filter(|line| line.len() > 5);
    Spaced(longer.map(share).max().map_or(-1.0, count))
}

/// How many kinds of words on shares stand before colons.
struct Stock(usize);

fn check_stock_info(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let min = number(arguments, 0);
    u32::from(min == 0.0 || count(context.memo(stock).0) >= min)
}

fn stock(context: &Context<'_>) -> Stock {
    let place = context.message.parts().iter().position(|part| part.kind == "text/plain");
    let Some(shown) = place.and_then(|place| context.texts().shown(place)) else { return Stock(0) };
    let label = pattern!(r"(?m)^\s*([^:\s][^:\n]{2,29})\s*:\s*\S");
    let word = pattern!(
        r"(?x)(
            ^trad(?:e|ing)date
            | (?:company|companyname)
            | (?:(?:year|week|month|day|price)(?:target|estimates?))
            | (?:opening|current)(?:p|price)
            | p(?:osition|rojected)
            | r(?:ating|ecommendation)
            | t(?:arget|icker)
            | s\w?(?:t\w?o\w?c\w?k | y\w?m(?:\w?b\w?o\w?l)?)
            | expectations | marketperformance | sector | weeks?high
        )$"
    );
    let mut kinds = HashSet::new();
    let (octets, _) = shown.text();
    for chunk in chunks(octets) {
        for found in label.captures_iter(&chunk) {
            let letters: Vec<u8> = found
                .get(1)
                .map_or(&b""[..], |label| label.as_bytes())
                .iter()
                .filter(|byte| byte.is_ascii_alphabetic())
                .map(u8::to_ascii_lowercase)
                .collect();
            kinds.extend(word.find(&letters).map(|word| word.as_bytes().to_vec()));
        }
    }
    Stock(kinds.len())
}

/// The body has at most that many bytes.
fn check_body_length(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    u32::from(count(context.message.raw_body().len()) <= number(arguments, 0))
}

/// Lengths of a plain text and of the signature below it, in bytes.
struct Lengths {
    known: bool,
    body: f64,
    signature: f64,
}

impl Lengths {
    fn ratio(&self) -> f64 {
        if self.signature > 0.0 { self.body / self.signature } else { 1e6 }
    }
}

fn plaintext(context: &Context<'_>, arguments: &[Argument], length: impl Fn(&Lengths) -> f64) -> u32 {
    let lengths = context.memo(lengths);
    let value = length(&lengths);
    u32::from(
        lengths.known && value >= number(arguments, 0) && arguments.get(1).is_none_or(|max| value <= max.number()),
    )
}

fn lengths(context: &Context<'_>) -> Lengths {
    let Some(part) = context.message.parts().iter().find(|part| part.kind.starts_with("text/plain")) else {
        return Lengths { known: false, body: 0.0, signature: 0.0 };
    };
    let text = part.decoded();
    let marks = pattern!(r"(?m)^-- ?\r?$").find_iter(text).filter(|mark| text.len() - mark.end() > 4);
    match marks.last() {
        Some(mark) => Lengths { known: true, body: count(mark.start()), signature: count(text.len() - mark.end()) },
        None => Lengths { known: true, body: count(text.len()), signature: 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(message: &str, name: &str, arguments: &[&str]) -> bool {
        with(message, &[], &NoAnswers, name, arguments) > 0
    }

    fn alternative(plain: &str, html: &str) -> String {
        format!(
            "Content-Type: multipart/alternative; boundary=x\n\n--x\nContent-Type: text/plain\n\n{plain}\n--x\n\
             Content-Type: text/html\n\n{html}\n--x--\n"
        )
    }

    #[test]
    fn alternatives() {
        let same = alternative("one two three", "<b>one</b> two <i>three</i>");
        assert!(!hits(&same, "multipart_alternative_difference", &["99", "100"]));
        assert!(hits(&same, "multipart_alternative_difference", &["0", "0"]));
        let other = alternative("one two three four five six seven", "<b>eight</b> nine");
        assert!(hits(&other, "multipart_alternative_difference", &["99", "100"]));
        assert!(hits(&other, "multipart_alternative_difference_count", &["3", "1"]));
        assert!(hits(&alternative("x", "<img src=y>"), "multipart_alternative_difference", &["99", "100"]));
    }

    #[test]
    fn lines_and_lengths() {
        assert!(hits("A: b\n\na\n\n\n\n\n", "check_blank_line_ratio", &["70", "90", "4"]));
        assert!(
            !hits("A: b\n\na\n\n", "check_blank_line_ratio", &["0", "90", "4"])
                || hits("A: b\n\na\n", "check_blank_line_ratio", &["0", "0", "1"])
        );
        assert!(hits("A: b\n\na b c d e f g\n", "tvd_vertical_words", &["80", "100"]));
        assert!(
            hits("A: b\n\n12345\n", "check_body_length", &["6"])
                && !hits("A: b\n\n12345\n", "check_body_length", &["5"])
        );
        let signed = "A: b\n\ntext\n-- \nsignature\n";
        assert!(hits(signed, "plaintext_body_length", &["5", "5"]) && hits(signed, "plaintext_sig_length", &["11"]));
        assert!(
            hits(signed, "plaintext_body_sig_ratio", &["0", "1"])
                && hits("A: b\n\nx\n", "plaintext_body_sig_ratio", &["1000000"])
        );
    }

    #[test]
    fn words_on_shares() {
        let message = "A: b\n\nCompany Name: Foo\nTicker: FOO\nCurrent price: 1\n";
        assert!(hits(message, "check_stock_info", &["3"]) && !hits(message, "check_stock_info", &["4"]));
    }
}
