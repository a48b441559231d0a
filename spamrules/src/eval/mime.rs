// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the MIME structure, of encodings and charsets (SpamAssassin's plugin MIMEEval).

use std::rc::Rc;

use super::html::{number, text};
use super::locales;
use super::matching::has;
use super::{Argument, Eval};
use crate::context::Context;
use crate::message::{ContentType, Part, is_blank, is_space};

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_for_mime" => check_for_mime,
        "check_for_mime_html" => check_for_mime_html,
        "check_for_mime_html_only" => check_for_mime_html_only,
        "check_mime_multipart_ratio" => check_mime_multipart_ratio,
        "check_msg_parse_flags" => check_msg_parse_flags,
        "check_for_ascii_text_illegal" => |context, _| u32::from(Survey::of(context).illegal_ascii > 0),
        "check_abundant_unicode_ratio" => check_abundant_unicode_ratio,
        "check_for_faraway_charset" => check_for_faraway_charset,
        "check_for_uppercase" => check_for_uppercase,
        "check_ma_non_text" => check_ma_non_text,
        "check_base64_length" => check_base64_length,
        "check_qp_ratio" => check_qp_ratio,
        _ => return None,
    })
}

/// What one walk over all parts counts.
#[derive(Debug, Default)]
struct Survey {
    base64: u32,
    base64_text: bool,
    html: u32,
    plain: u32,
    attachments: u32,
    /// Parts that declare quoted-printable, needlessly encoded octets in them, and all octets.
    quoted_parts: u32,
    quoted: u64,
    quoted_octets: u64,
    quoted_long_line: bool,
    bad_iso_charset: bool,
    faraway_charset: bool,
    charsets: Vec<String>,
    alternative: bool,
    /// Octets of plain text by octets of HTML, where there are both.
    ratio: Option<f64>,
    illegal_ascii: u32,
    /// Plain characters, and characters written as `&#x0000;`, in plain text.
    normal: u64,
    references: u64,
}

impl Survey {
    fn of(context: &Context<'_>) -> Rc<Survey> {
        context.memo(Survey::make)
    }

    fn make(context: &Context<'_>) -> Survey {
        let mut survey = Survey::default();
        let mut sizes: Vec<(String, u64)> = Vec::new();
        for part in context.message.typed_parts() {
            let content_type = part.content_type();
            let encoding = part.encoding();
            let disposition =
                part.headers.last("content-disposition").map(|field| field.decoded().to_ascii_lowercase());
            let disposition = disposition.unwrap_or_default();
            survey.alternative |= content_type.kind == "multipart/alternative";
            survey.header(context, &content_type, &encoding, &disposition);
            if part.is_leaf() {
                let attached = contains(&disposition, b"attachment");
                let size = survey.content(part, &content_type, &encoding, attached);
                if !attached {
                    sizes.push((content_type.kind, size));
                }
            }
        }
        survey.compare(&sizes);
        survey
    }

    fn header(&mut self, context: &Context<'_>, content_type: &ContentType, encoding: &[u8], disposition: &[u8]) {
        let is_text = content_type.kind.starts_with("text");
        if content_type.kind == "text/html" {
            self.html += 1;
        } else if is_text {
            self.plain += 1;
        }
        let base64 = contains(encoding, b"base64");
        if base64 {
            self.base64 += 1;
        } else if contains(encoding, b"quoted-printable") {
            self.quoted_parts += 1;
        }
        self.attachments += u32::from(contains(disposition, b"attachment"));
        let charset = content_type.charset.as_deref().unwrap_or_default().to_ascii_lowercase();
        let shown = !disposition.starts_with(b"attachment") && !disposition.starts_with(b"inline");
        self.base64_text |= is_text && base64 && shown && is_ascii_charset(&charset);
        self.bad_iso_charset |= has!(r"iso-\S+-\S+\b", charset.as_bytes())
            && !has!(r"iso-(?:8859-\d{1,2}|2022-(?:jp|kr))\b", charset.as_bytes());
        if charset.bytes().any(|byte| byte.is_ascii_lowercase()) {
            self.faraway_charset |= locales::is_faraway(&charset, &context.settings.text.ok_locales);
            self.charsets.push(charset);
        }
    }

    /// Looks at the lines of a part; gives its size where that counts.
    fn content(&mut self, part: &Part, content_type: &ContentType, encoding: &[u8], attached: bool) -> u64 {
        let kind = content_type.kind.as_str();
        let counted = self.alternative && !attached && matches!(kind, "text/plain" | "text/html");
        let quoted = encoding == b"quoted-printable";
        let plain = kind == "text/plain";
        let ascii = content_type.charset.as_deref().is_none_or(|charset| charset.eq_ignore_ascii_case("us-ascii"));
        let unencoded = matches!(encoding, b"" | b"7bit" | b"8bit");
        if !quoted && !plain {
            return if counted { length(part.raw()) } else { 0 };
        }
        for line in part.raw_lines() {
            if quoted && !line.starts_with(b"SPAM: ") {
                self.quoted_line(line);
            }
            if plain && ascii && line.iter().any(|&byte| matches!(byte, 0 | b'\r' | 0x80..)) {
                self.illegal_ascii += 1;
            }
            if plain && unencoded {
                let references = references(line);
                self.references += references;
                self.normal += length(line) - references * 8;
            }
        }
        if counted { length(part.raw()) } else { 0 }
    }

    fn quoted_line(&mut self, line: &[u8]) {
        self.quoted_long_line |= line.len() > 79;
        self.quoted_octets += length(line);
        self.quoted += needless(line);
    }

    fn compare(&mut self, sizes: &[(String, u64)]) {
        let last = |kind: &str| sizes.iter().rev().find(|(known, _)| known == kind).map(|&(_, size)| size);
        if self.alternative
            && let (Some(plain), Some(html)) = (last("text/plain"), last("text/html"))
        {
            self.ratio = divided(plain, html);
        }
    }

    fn quoted_ratio(&self) -> f64 {
        divided(self.quoted, self.quoted_octets).unwrap_or(0.0)
    }
}

fn length(octets: &[u8]) -> u64 {
    u64::try_from(octets.len()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss)] // counts of one message
fn divided(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

/// US-ASCII by any of its names, or none at all.
fn is_ascii_charset(charset: &str) -> bool {
    charset.is_empty()
        || has!(r"us|ascii|ansi_x3\.4-19(?:68|86)|iso-ir-6|iso_646\.irv:1991|(?:ibm|cp)367", charset.as_bytes())
}

/// How many octets of a line are encoded though they need not be; blanks at its end are.
fn needless(line: &[u8]) -> u64 {
    let mut count = 0;
    let mut at = 0;
    let mut blanks = 0;
    while let Some(next) = memchr::memchr(b'=', line.get(at..).unwrap_or_default()).map(|len| at + len) {
        let code = line.get(next + 1..next + 3).unwrap_or_default();
        let plain = match *code {
            [b'0', b'9'] => true,
            [b'3', digit] => matches!(digit, b'0'..=b'9' | b'A'..=b'C' | b'E' | b'F'),
            [b'2' | b'4' | b'5' | b'6', digit] => digit.is_ascii_digit() || matches!(digit, b'A'..=b'F'),
            [b'7', digit] => digit.is_ascii_digit() || matches!(digit, b'A'..=b'E'),
            _ => false,
        };
        let joined = at == next && blanks > 0;
        at = next + if plain { 3 } else { 1 };
        count += u64::from(plain);
        blanks = match code {
            b"09" | b"20" if plain => {
                if joined {
                    blanks + 1
                } else {
                    1
                }
            }
            _ => 0,
        };
    }
    if line.get(at..).is_some_and(is_blank) { count - blanks } else { count }
}

/// How many `&#x0000;` a line holds.
fn references(line: &[u8]) -> u64 {
    let mut count = 0;
    let mut rest = line;
    while let Some(at) = memchr::memmem::find(rest, b"&#x") {
        let body = rest.get(at + 3..at + 8).unwrap_or_default();
        let found = body.len() == 5
            && body.iter().take(4).all(|byte| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F'))
            && body.last() == Some(&b';');
        count += u64::from(found);
        rest = rest.get(at + if found { 8 } else { 1 }..).unwrap_or_default();
    }
    count
}

/// A count or sign by name.
fn check_for_mime(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let survey = Survey::of(context);
    u32::from(match text(arguments, 0) {
        "mime_base64_count" => survey.base64 > 0,
        "mime_base64_encoded_text" => survey.base64_text,
        "mime_body_html_count" => survey.html > 0,
        "mime_body_text_count" => survey.plain > 0,
        "mime_attachment" => survey.attachments > 0,
        // as SpamAssassin has it: where there is such content, what counts is how much of it is needlessly encoded
        "mime_qp_count" if survey.quoted_octets > 0 => survey.quoted > 0,
        "mime_qp_count" => survey.quoted_parts > 0,
        "mime_qp_bytes" => survey.quoted_octets > 0,
        "mime_qp_long_line" => survey.quoted_long_line,
        "mime_qp_ratio" => survey.quoted_ratio() > 0.0,
        "mime_bad_iso_charset" => survey.bad_iso_charset,
        "mime_faraway_charset" => survey.faraway_charset,
        "mime_multipart_alternative" => survey.alternative,
        "mime_multipart_ratio" => survey.ratio.unwrap_or(1.0) > 0.0,
        "mime_ascii_text_illegal" => survey.illegal_ascii > 0,
        "mime_text_unicode_ratio" => survey.references > 0 && survey.normal > 0,
        "mime_missing_boundary" => context.message.flags().unbalanced_boundary,
        "mime_html_charsets" => !survey.charsets.is_empty(),
        _ => false,
    })
}

/// The message itself is HTML.
fn is_html(context: &Context<'_>) -> bool {
    let value = context.message.headers().first("content-type").map(|field| field.decoded()).unwrap_or_default();
    value.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

fn check_for_mime_html(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(is_html(context) || Survey::of(context).html > 0)
}

fn check_for_mime_html_only(context: &Context<'_>, _: &[Argument]) -> u32 {
    let survey = Survey::of(context);
    u32::from(is_html(context) || (survey.html > 0 && survey.plain == 0))
}

/// Plain text by HTML is within [min, max).
fn check_mime_multipart_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let ratio = Survey::of(context).ratio.unwrap_or(1.0);
    u32::from(ratio >= number(arguments, 0) && ratio < number(arguments, 1))
}

/// What the parser noticed, by name.
fn check_msg_parse_flags(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let flags = context.message.flags();
    u32::from(match text(arguments, 0) {
        "missing_head_body_separator" => flags.missing_head_body_separator,
        "truncated_header" => flags.truncated_header || context.message.headers().text(false).1,
        "missing_mime_headers" => flags.missing_mime_headers,
        "missing_mime_head_body_separator" => flags.missing_mime_head_body_separator,
        "mime_epilogue_exists" => flags.mime_epilogue_exists,
        "mimepart_limit_exceeded" => flags.mimepart_limit_exceeded,
        _ => false,
    })
}

fn check_abundant_unicode_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let survey = Survey::of(context);
    let written = has!(r"^\d{0,3}\.\d{1,3}$", text(arguments, 0).as_bytes());
    u32::from(written && divided(survey.references, survey.normal).unwrap_or(0.0) >= number(arguments, 0))
}

/// The charset that the message declares, as loosely as rules need it.
fn declared_charset(context: &Context<'_>) -> Option<String> {
    let value = String::from_utf8_lossy(context.message.headers().first("content-type")?.decoded()).into_owned();
    let at = value.to_ascii_lowercase().find("charset=")?;
    let rest = value.get(at + "charset=".len()..)?;
    let quoted = ['"', '\''].iter().find_map(|&quote| rest.strip_prefix(quote)?.split(quote).next());
    let word = quoted.filter(|word| !word.is_empty()).or_else(|| rest.split_ascii_whitespace().next());
    word.map(str::to_owned)
}

/// The declared charset is of a language that is not expected, and the text makes use of it.
fn check_for_faraway_charset(context: &Context<'_>, _: &[Argument]) -> u32 {
    let faraway = declared_charset(context)
        .is_some_and(|charset| locales::is_faraway(&charset, &context.settings.text.ok_locales));
    if !faraway {
        return 0;
    }
    let octets = context.texts().body.iter().flatten();
    let (high, low) =
        octets.fold((0u64, 0u64), |(high, low), byte| if byte.is_ascii() { (high, low + 1) } else { (high + 1, low) });
    let ends = length(&[]) + u64::try_from(context.texts().body.len().saturating_sub(1)).unwrap_or(0);
    u32::from(low + ends <= high && high > 3)
}

/// Share of capital letters, made once.
struct Capitals(f64);

/// Capital letters are within (min, max] per cent of letters and digits.
fn check_for_uppercase(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let share = context.memo(capitals).0;
    u32::from(share > number(arguments, 0) && share <= number(arguments, 1))
}

fn capitals(context: &Context<'_>) -> Capitals {
    if writes_in_capitals(context) {
        return Capitals(0.0);
    }
    let (mut all, mut lower, mut upper) = (0, 0, 0);
    for line in &context.texts().body {
        if !has_two_words(line) || has!(r"^(?:[A-Za-z0-9+/=]{60,76} ){2}", line) {
            continue;
        }
        // text in ISO 2022 is written with capital letters
        let line = super::matching::pattern!(r"(?s)\x1b\$B.*\x1b\(B").replace_all(line, &b""[..]);
        all += line.len();
        lower += line.iter().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
        upper += line.iter().filter(|byte| byte.is_ascii_uppercase()).count();
    }
    if all < 200 || upper + lower == 0 {
        return Capitals(0.0);
    }
    #[allow(clippy::cast_precision_loss)] // counts of one message
    Capitals(upper as f64 / (upper + lower) as f64 * 100.0)
}

/// White space with something on both sides.
fn has_two_words(line: &[u8]) -> bool {
    let words = line.split(|&byte| is_space(byte)).filter(|word| !word.is_empty());
    words.take(2).count() == 2
}

/// Charsets whose encoded form is full of capital letters.
fn writes_in_capitals(context: &Context<'_>) -> bool {
    let survey = Survey::of(context);
    let listed = survey.charsets.iter().flat_map(|charsets| charsets.split_whitespace().map(str::to_owned));
    declared_charset(context).into_iter().chain(listed).any(|charset| {
        has!(
            r"(?i)^[-_a-z0-9]*(?:koi|jp|jis|euc|gb|big5|isoir|cp1251|windows-1251|georgianps|pt154|tis)[-_a-z0-9]*\n?$",
            charset.as_bytes()
        )
    })
}

/// Something that is no text stands beside the alternatives.
fn check_ma_non_text(context: &Context<'_>, _: &[Argument]) -> u32 {
    let message = context.message;
    let strange = |part: &Part| {
        part.is_leaf()
            && !part.kind.is_empty()
            && !matches!(part.kind.as_str(), "multipart/related" | "application/rtf")
            && !part.kind.starts_with("text/")
    };
    let alternatives = message.parts().iter().filter(|part| part.kind == "multipart/alternative");
    u32::from(alternatives.flat_map(|part| message.children(part)).any(strange))
}

/// The longest line in base64.
struct Longest(f64);

fn check_base64_length(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let longest = context.memo(longest_line).0;
    let fits = arguments.get(1).is_none_or(|max| longest <= max.number());
    u32::from(fits && longest >= number(arguments, 0))
}

fn longest_line(context: &Context<'_>) -> Longest {
    let parts = context
        .message
        .leaves()
        .filter(|part| part.encoding() == b"base64" && part.content_type().kind != "application/ics");
    let longest = parts.flat_map(|part| part.raw_lines()).map(<[u8]>::len).max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss)] // a length
    Longest(longest as f64)
}

fn check_qp_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    u32::from(Survey::of(context).quoted_ratio() >= number(arguments, 0))
}

#[cfg(test)]
mod tests {
    use super::{needless, references};
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(message: &str, name: &str, arguments: &[&str]) -> bool {
        with(message, &[], &NoAnswers, name, arguments) > 0
    }

    const ALTERNATIVE: &str = "Content-Type: multipart/alternative; boundary=x\n\n--x\n\nab\n--x\nContent-Type: text/html\n\n\
        <p>0123456789\n--x\nContent-Type: image/gif\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment\n\nR0lG\n--x--\n";

    #[test]
    fn structure() {
        for name in [
            "mime_base64_count",
            "mime_body_html_count",
            "mime_body_text_count",
            "mime_attachment",
            "mime_multipart_alternative",
        ] {
            assert!(hits(ALTERNATIVE, "check_for_mime", &[name]), "{name}");
        }
        assert!(!hits(ALTERNATIVE, "check_for_mime", &["mime_base64_encoded_text"]));
        assert!(!hits(ALTERNATIVE, "check_for_mime", &["mime_missing_boundary"]));
        assert!(hits(ALTERNATIVE, "check_for_mime_html", &[]) && !hits(ALTERNATIVE, "check_for_mime_html_only", &[]));
        assert!(hits("Content-Type: text/html\n\nx", "check_for_mime_html_only", &[]));
        assert!(hits(ALTERNATIVE, "check_ma_non_text", &[]));
        assert!(hits(ALTERNATIVE, "check_mime_multipart_ratio", &["0.1", "0.2"]));
        assert!(
            hits(ALTERNATIVE, "check_base64_length", &["4", "5"]) && !hits(ALTERNATIVE, "check_base64_length", &["6"])
        );
        assert!(hits("A: b\n", "check_msg_parse_flags", &["missing_head_body_separator"]));
    }

    #[test]
    fn encodings() {
        let message = "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nYQ==\n";
        assert!(hits(message, "check_for_mime", &["mime_base64_encoded_text"]));
        let message = "Content-Transfer-Encoding: quoted-printable\n\na=41=20\n";
        assert!(hits(message, "check_for_mime", &["mime_qp_count"]) && hits(message, "check_qp_ratio", &["0.1"]));
        assert_eq!((needless(b"a=41=20=09 \n"), needless(b"=3D=20x\n"), needless(b"=20=41=09\n")), (1, 1, 2));
        assert!(hits("A: b\n\na\x01\u{e9}", "check_for_ascii_text_illegal", &[]));
        assert!(hits("A: b\n\na&#x04AB;", "check_abundant_unicode_ratio", &["0.5"]));
        assert_eq!(references(b"&#x&#x0000;&#xabcd;"), 1);
    }

    #[test]
    fn capital_letters() {
        let message = format!("A: b\n\n{}{}\n", "AB CD ".repeat(30), "ab ".repeat(20));
        assert!(
            hits(&message, "check_for_uppercase", &["50", "75"])
                && !hits(&message, "check_for_uppercase", &["75", "100"])
        );
        assert!(!hits("A: b\n\nAB CD\n", "check_for_uppercase", &["50", "100"]));
        let message = format!("Content-Type: text/plain; charset=koi8-r\n\n{}\n", "AB CD ".repeat(50));
        assert!(!hits(&message, "check_for_uppercase", &["50", "100"]));
    }

    #[test]
    fn charsets_that_are_far_away() {
        let message = "Content-Type: text/plain; charset=\"koi8-r\"\n\nпривет мир привет\n";
        let far = |locales: &str, name: &str, arguments: &[&str]| {
            with(message, &[("ok_locales", locales)], &NoAnswers, name, arguments) > 0
        };
        assert!(far("en", "check_for_faraway_charset", &[]) && !far("en ru", "check_for_faraway_charset", &[]));
        assert!(
            far("en", "check_for_mime", &["mime_faraway_charset"])
                && !far("all", "check_for_mime", &["mime_faraway_charset"])
        );
    }
}
