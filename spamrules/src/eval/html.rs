// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of HTML: elements, lengths, ratios, texts (SpamAssassin's plugin HTMLEval). The facts were gathered while the text was rendered.

use super::{Argument, Eval};
use crate::context::Context;
use crate::headers;
use crate::text::html::Facts;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "html_tag_balance" => html_tag_balance,
        "html_image_only" => html_image_only,
        "html_image_ratio" => html_image_ratio,
        // the charsets that it asks about are never filled in
        "html_charset_faraway" => |_, _| 0,
        "html_tag_exists" => html_tag_exists,
        "html_test" => html_test,
        "html_eval" => html_eval,
        "html_text_match" => |context, arguments| html_text(context, arguments, true),
        "html_text_not_match" => |context, arguments| html_text(context, arguments, false),
        "html_title_subject_ratio" => html_title_subject_ratio,
        "html_range" => html_range,
        "check_iframe_src" => check_iframe_src,
        _ => return None,
    })
}

/// Whether some HTML part is as wanted.
fn any(context: &Context<'_>, wanted: impl Fn(&Facts) -> bool) -> u32 {
    u32::from(context.texts().html.iter().any(wanted))
}

/// The text of an argument; the empty one where there is none.
pub(super) fn text(arguments: &[Argument], place: usize) -> &str {
    arguments.get(place).map_or("", Argument::as_str)
}

pub(super) fn number(arguments: &[Argument], place: usize) -> f64 {
    arguments.get(place).map_or(0.0, Argument::number)
}

/// A comparison with a number, as rules write it: `!= 0`, `< 384`.
fn compares(value: f64, expression: &str) -> bool {
    let expression = expression.trim();
    let digits = expression.trim_start_matches(['<', '>', '=', '!']);
    let operator = expression.strip_suffix(digits).unwrap_or_default();
    let Ok(number) = digits.trim().parse::<f64>() else { return false };
    #[allow(clippy::float_cmp)] // whole numbers
    match operator {
        "<" => value < number,
        ">" => value > number,
        "<=" => value <= number,
        ">=" => value >= number,
        "==" => value == number,
        "!=" => value != number,
        _ => false,
    }
}

/// Elements left open compare like this: `(tag, expression)`.
fn html_tag_balance(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (tag, expression) = (text(arguments, 0), text(arguments, 1));
    #[allow(clippy::cast_precision_loss)] // counts of one message
    any(context, |facts| facts.inside.get(tag.as_bytes()).is_some_and(|&open| compares(open as f64, expression)))
}

/// There are images and the source is of a length within (min, max].
fn html_image_only(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (min, max) = (number(arguments, 0), number(arguments, 1));
    any(context, |facts| {
        let length = facts.number("length").unwrap_or(0.0);
        facts.inside.contains_key(&b"img"[..]) && length > min && length <= max
    })
}

/// The ratio of text to images, in characters per pixel, is within (min, max].
fn html_image_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (min, max) = (number(arguments, 0), number(arguments, 1));
    any(context, |facts| {
        let ratio = facts.number("non_space_len").unwrap_or(0.0) / facts.image_area;
        facts.image_area > 0.0 && ratio > min && ratio <= max
    })
}

fn html_tag_exists(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let tag = text(arguments, 0);
    any(context, |facts| facts.inside.contains_key(tag.as_bytes()))
}

fn html_test(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let name = text(arguments, 0);
    any(context, |facts| facts.number(name).is_some_and(|value| value != 0.0))
}

fn html_eval(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (name, expression) = (text(arguments, 0), text(arguments, 1));
    any(context, |facts| facts.number(name).is_some_and(|value| compares(value, expression)))
}

/// Some text of that kind matches a pattern, or does not.
fn html_text(context: &Context<'_>, arguments: &[Argument], wanted: bool) -> u32 {
    let Some(pattern) = arguments.get(1).and_then(Argument::pattern) else { return 0 };
    let kind = text(arguments, 0);
    any(context, |facts| facts.texts(kind).iter().any(|text| pattern.is_match(text.octets()) == wanted))
}

/// The title is that many times longer than the subject.
fn html_title_subject_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let subject = headers::found(context, "Subject").map_or(0, |subject| subject.len());
    if subject == 0 {
        return 0;
    }
    #[allow(clippy::cast_precision_loss)] // lengths of one message
    any(context, |facts| {
        let longest = facts.titles.iter().map(|title| title.count()).max().unwrap_or(0);
        longest as f64 / subject as f64 > number(arguments, 0)
    })
}

/// A fact is within (min, max].
fn html_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (name, min) = (text(arguments, 0), number(arguments, 1));
    let max = arguments.get(2).filter(|max| max.as_str() != "inf").map(Argument::number);
    any(context, |facts| facts.number(name).is_some_and(|value| value > min && max.is_none_or(|max| value <= max)))
}

fn check_iframe_src(context: &Context<'_>, _: &[Argument]) -> u32 {
    any(context, |facts| facts.links.iter().any(|link| link.types.contains(&"iframe")))
}

#[cfg(test)]
mod tests {
    use super::compares;
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(html: &str, name: &str, arguments: &[&str]) -> bool {
        let message = format!("Subject: hello\nContent-Type: text/html\n\n{html}");
        with(&message, &[], &NoAnswers, name, arguments) > 0
    }

    #[test]
    fn elements_and_lengths() {
        let html = "<html><body><center><img width=100 height=10 src=x>abcde</body></html>";
        assert!(hits(html, "html_tag_exists", &["center"]) && !hits(html, "html_tag_exists", &["b"]));
        assert!(
            hits(html, "html_tag_balance", &["center", "!= 0"]) && !hits(html, "html_tag_balance", &["body", "!= 0"])
        );
        assert!(hits(html, "html_image_only", &["0", "400"]) && !hits(html, "html_image_only", &["400", "800"]));
        assert!(
            hits(html, "html_image_ratio", &["0.004", "0.005"]) && !hits(html, "html_image_ratio", &["0.005", "0.006"])
        );
        assert!(hits(html, "html_eval", &["length", "< 384"]) && hits(html, "html_range", &["length", "0", "inf"]));
        assert!(hits(html, "html_test", &["html"]) && !hits(html, "html_test", &["embeds"]));
    }

    #[test]
    fn texts() {
        let html = "<!-- saved from url=(0022)http://x --><title>0123456789012345678901</title><a href=x><img></a><iframe src=y>";
        assert!(hits(html, "html_text_match", &["comment", r"<!-- saved from url=\(\d{4}\)"]));
        assert!(
            hits(html, "html_text_match", &["anchor", "<img>"]) && hits(html, "html_text_not_match", &["anchor", "x"])
        );
        assert!(hits(html, "html_title_subject_ratio", &["3"]) && !hits(html, "html_title_subject_ratio", &["4.5"]));
        assert!(hits(html, "check_iframe_src", &[]));
    }

    #[test]
    fn comparisons() {
        assert!(
            compares(1.0, "!= 0")
                && compares(2.0, ">=2")
                && compares(-1.0, "<0")
                && !compares(1.0, "x")
                && !compares(1.0, "")
        );
    }
}
