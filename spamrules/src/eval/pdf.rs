// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of PDF attachments: how many, their images, names, digests and properties (SpamAssassin's plugin PDFInfo). What is known of them
//! is read by [`super::pdf_facts`].

use std::rc::Rc;

use super::html::{number, text};
use super::pdf_facts::Facts;
use super::{Argument, Eval};
use crate::context::Context;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "pdf_count" => |context, arguments| u32::from(in_range(arguments, count(facts(context).count))),
        "pdf_image_count" => |context, arguments| u32::from(in_range(arguments, count(facts(context).images))),
        "pdf_pixel_coverage" => pdf_pixel_coverage,
        "pdf_image_size_exact" => pdf_image_size_exact,
        "pdf_image_size_range" => pdf_image_size_range,
        "pdf_image_to_text_ratio" => pdf_image_to_text_ratio,
        "pdf_named" => pdf_named,
        "pdf_name_regex" => pdf_name_regex,
        "pdf_match_md5" => |context, arguments| digest(arguments, &facts(context).digests),
        "pdf_match_fuzzy_md5" => |context, arguments| digest(arguments, &facts(context).fuzzy),
        "pdf_match_details" => pdf_match_details,
        "pdf_is_encrypted" => |context, _| u32::from(facts(context).encrypted),
        "pdf_is_empty_body" => pdf_is_empty_body,
        _ => return None,
    })
}

fn facts(context: &Context<'_>) -> Rc<Facts> {
    context.memo(|context| Facts::of(context.message))
}

#[allow(clippy::cast_precision_loss)] // counts and lengths of one message
fn count(number: usize) -> f64 {
    number as f64
}

/// `(min, max)`: within both; without a max there is none.
fn in_range(arguments: &[Argument], value: f64) -> bool {
    !arguments.is_empty() && value >= number(arguments, 0) && arguments.get(1).is_none_or(|max| value <= max.number())
}

/// Pixels of all images of a document are within `(min, max)`.
fn pdf_pixel_coverage(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    u32::from(facts(context).pixels.is_some_and(|pixels| in_range(arguments, pixels)))
}

/// `(height, width)` of an image, or of all images of a document together.
fn pdf_image_size_exact(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let wanted = (number(arguments, 0), number(arguments, 1));
    #[allow(clippy::float_cmp)] // whole numbers
    let hit = arguments.len() > 1 && facts(context).sizes.contains(&wanted);
    u32::from(hit)
}

/// `(min height, min width, max height, max width)`.
fn pdf_image_size_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let most = |place: usize, value: f64| arguments.get(place).is_none_or(|max| value <= max.number());
    let fits = |&(height, width): &(f64, f64)| {
        height >= number(arguments, 0) && width >= number(arguments, 1) && most(2, height) && most(3, width)
    };
    u32::from(arguments.len() > 1 && facts(context).sizes.iter().any(fits))
}

/// `(min, max)`: bytes of text per pixel; the max itself does not count.
fn pdf_image_to_text_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(pixels) = facts(context).pixels.filter(|_| arguments.len() > 1) else { return 0 };
    let length: usize = shown(context).iter().map(Vec::len).sum();
    let ratio = count(length) / pixels;
    u32::from(length > 0 && ratio >= number(arguments, 0) && ratio < number(arguments, 1))
}

/// The texts that the rule reads.
fn shown<'c>(context: &'c Context<'_>) -> &'c [Vec<u8>] {
    let texts = context.texts();
    if context.reads_source() { &texts.rawbody } else { &texts.body }
}

fn pdf_named(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let name = text(arguments, 0).as_bytes();
    u32::from(!arguments.is_empty() && facts(context).names.iter().any(|known| known == name))
}

fn pdf_name_regex(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(pattern) = arguments.first().and_then(Argument::pattern) else { return 0 };
    u32::from(facts(context).names.iter().any(|name| pattern.is_match(name)))
}

fn digest(arguments: &[Argument], known: &[String]) -> u32 {
    let wanted = text(arguments, 0);
    u32::from(known.iter().any(|digest| digest.eq_ignore_ascii_case(wanted)))
}

/// `(property, pattern)`: author, creator, created, modified, producer or title.
fn pdf_match_details(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(pattern) = arguments.get(1).and_then(Argument::pattern) else { return 0 };
    let facts = facts(context);
    let mut values = facts.properties.iter().filter(|(name, _)| *name == text(arguments, 0));
    u32::from(values.any(|(_, value)| pattern.is_match(value)))
}

/// `(most)`: beside a PDF there is hardly any text, the subject aside.
fn pdf_is_empty_body(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    if facts(context).count == 0 {
        return 0;
    }
    let paragraphs = shown(context).iter().skip(1).filter(|text| !text.trim_ascii().is_empty());
    u32::from(count(paragraphs.map(Vec::len).sum()) <= number(arguments, 0))
}

#[cfg(test)]
mod tests {
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(pdf: &str, name: &str, arguments: &[&str]) -> bool {
        let message = format!(
            "Subject: x\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nshort\n--x\nContent-Type: application/pdf; name=a.pdf\n\n\
             {pdf}\n--x--\n"
        );
        with(&message, &[], &NoAnswers, name, arguments) > 0
    }

    const PDF: &str = "%PDF-1.4\n1 0 obj\n/Type /XObject /Subtype /Image\n3 0 0 2 0 0 cm\n/Producer(Some \\(old\\) tool)\n/Title<FEFF00410042>\n\
        /CreationDate(D:20070703144220)\n/Encrypt 5 0 R\n";

    #[test]
    fn counts_and_images() {
        assert!(
            hits(PDF, "pdf_count", &["1"])
                && hits(PDF, "pdf_count", &["1", "1"])
                && !hits(PDF, "pdf_count", &["2", "3"])
        );
        assert!(hits(PDF, "pdf_image_count", &["1", "1"]) && !hits("%PDF-1.4\n", "pdf_image_count", &["1"]));
        assert!(hits(PDF, "pdf_pixel_coverage", &["6", "6"]) && !hits(PDF, "pdf_pixel_coverage", &["7"]));
        assert!(!hits("%PDF-1.4\n", "pdf_pixel_coverage", &["0"]), "nothing is known of it");
        assert!(hits(PDF, "pdf_image_size_exact", &["2", "3"]) && !hits(PDF, "pdf_image_size_exact", &["3", "2"]));
        assert!(hits(PDF, "pdf_image_size_range", &["1", "3"]) && !hits(PDF, "pdf_image_size_range", &["1", "1", "1"]));
        assert!(
            hits(PDF, "pdf_image_to_text_ratio", &["0", "100"]) && !hits(PDF, "pdf_image_to_text_ratio", &["0", "0"])
        );
    }

    #[test]
    fn names_properties_and_text() {
        assert!(hits(PDF, "pdf_named", &["a.pdf"]) && !hits(PDF, "pdf_named", &["b.pdf"]));
        assert!(hits(PDF, "pdf_name_regex", &["/^A/i"]) && !hits("no document", "pdf_name_regex", &["/^A/i"]));
        assert!(hits(PDF, "pdf_match_details", &["producer", "/^Some \\(old\\) tool$/"]));
        assert!(
            hits(PDF, "pdf_match_details", &["title", "/^AB$/"])
                && hits(PDF, "pdf_match_details", &["created", "/^2007/"])
        );
        assert!(!hits(PDF, "pdf_match_details", &["author", "/./"]));
        assert!(hits(PDF, "pdf_is_encrypted", &[]) && !hits("%PDF-1.4\n", "pdf_is_encrypted", &[]));
        assert!(hits(PDF, "pdf_is_empty_body", &["20"]) && !hits(PDF, "pdf_is_empty_body", &[]));
        let digest = crate::digest::md5(PDF.as_bytes());
        assert!(
            hits(PDF, "pdf_match_md5", &[&digest.to_ascii_uppercase()])
                && !hits(PDF, "pdf_match_fuzzy_md5", &[&digest])
        );
    }
}
