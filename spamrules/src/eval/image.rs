// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of images: how many, how large, under which names (SpamAssassin's plugin ImageInfo). Only headers of images are read.

use std::rc::Rc;

use super::html::{number, text};
use super::{Argument, Eval};
use crate::context::Context;
use crate::message::Part;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "image_count" => image_count,
        "pixel_coverage" => pixel_coverage,
        "image_size_exact" => image_size_exact,
        "image_size_range" => image_size_range,
        "image_named" => image_named,
        "image_name_regex" => image_name_regex,
        "image_to_text_ratio" => image_to_text_ratio,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gif,
    Png,
    Jpeg,
}

/// One image: its size in pixels where it could be read, and its name.
#[derive(Debug)]
struct Image {
    format: Format,
    size: Option<(u32, u32)>,
    name: Option<Vec<u8>>,
}

/// The images of a message.
struct Images(Vec<Image>);

impl Images {
    fn of(context: &Context<'_>) -> Rc<Images> {
        context.memo(|context| Images(context.message.leaves().filter_map(image).collect()))
    }

    /// The images of a format; `all` are all.
    fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Image> {
        self.0.iter().filter(move |image| match kind {
            "all" => true,
            "gif" => image.format == Format::Gif,
            "png" => image.format == Format::Png,
            "jpeg" => image.format == Format::Jpeg,
            _ => false,
        })
    }

    fn pixels(&self, kind: &str) -> f64 {
        self.kind(kind).filter_map(|image| image.size).map(|(height, width)| f64::from(height) * f64::from(width)).sum()
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(|image| image.size.is_some()).filter_map(|image| image.name.as_deref())
    }
}

fn is_kind(kind: &str) -> bool {
    matches!(kind, "all" | "gif" | "png" | "jpeg")
}

/// The image in a part, if it is one in base64.
fn image(part: &Part) -> Option<Image> {
    let format = match part.kind.as_str() {
        "image/gif" => Format::Gif,
        "image/png" => Format::Png,
        "image/jpeg" | "image/jpg" => Format::Jpeg,
        _ => return None,
    };
    if part.encoding() != b"base64" {
        return None;
    }
    let octets = part.decoded();
    let size = match format {
        Format::Gif => gif_size(octets),
        Format::Png => png_size(octets),
        Format::Jpeg => jpeg_size(octets),
    };
    let size = size.filter(|&(height, width)| height > 0 && width > 0);
    Some(Image { format, size, name: part.name.clone().filter(|name| !name.is_empty()) })
}

fn big(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn big_short(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

/// Height and width of a GIF (version 89a, section 18).
fn gif_size(octets: &[u8]) -> Option<(u32, u32)> {
    let rest = octets.strip_prefix(b"GIF87a").or(octets.strip_prefix(b"GIF89a"))?;
    let &[a, b, c, d, ..] = rest else { return None };
    Some((u16::from_le_bytes([c, d]).into(), u16::from_le_bytes([a, b]).into()))
}

/// Height and width of a PNG (ISO 15948, section 11.2.2): the first chunk that is as long as a header should be. Chunks are not skipped, so
/// that one that lies about its length hides nothing.
fn png_size(octets: &[u8]) -> Option<(u32, u32)> {
    let mut rest = octets.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    loop {
        let (len, kind) = (big(rest, 0)?, rest.get(4..8)?);
        rest = rest.get(8..)?;
        match kind {
            b"IEND" => return None,
            b"IHDR" if len == 13 => return Some((big(rest, 4)?, big(rest, 0)?)),
            _ => {}
        }
    }
}

/// Height and width of a JPEG (ITU T.81, B.2.2): the first frame header.
fn jpeg_size(octets: &[u8]) -> Option<(u32, u32)> {
    let mut rest = octets.strip_prefix(b"\xff\xd8")?;
    loop {
        let &[0xff, marker, ..] = rest else { return None };
        let len = usize::from(big_short(rest, 2)?);
        if matches!(marker, 0xda | 0xd9) || len < 2 {
            return None;
        }
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return Some((big_short(rest, 5)?.into(), big_short(rest, 7)?.into()));
        }
        rest = rest.get(2 + len..)?;
    }
}

/// Within [min, max]; without a max there is none.
fn in_range(value: f64, arguments: &[Argument], min: usize, max: usize) -> bool {
    value >= number(arguments, min) && arguments.get(max).is_none_or(|max| value <= max.number())
}

fn image_count(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let kind = text(arguments, 0);
    #[allow(clippy::cast_precision_loss)] // a count of one message
    let count = Images::of(context).kind(kind).count() as f64;
    u32::from(arguments.len() > 1 && is_kind(kind) && in_range(count, arguments, 1, 2))
}

fn pixel_coverage(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let kind = text(arguments, 0);
    u32::from(arguments.len() > 1 && is_kind(kind) && in_range(Images::of(context).pixels(kind), arguments, 1, 2))
}

/// An image of exactly that height and width.
fn image_size_exact(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let wanted = (number(arguments, 1), number(arguments, 2));
    let images = Images::of(context);
    let mut sizes = images.kind(text(arguments, 0)).filter_map(|image| image.size);
    u32::from(sizes.any(|(height, width)| (f64::from(height), f64::from(width)) == wanted))
}

/// An image of at least that height and width, and at most of the other two.
fn image_size_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let images = Images::of(context);
    let mut sizes = images.kind(text(arguments, 0)).filter_map(|image| image.size);
    let fits = |(height, width): (u32, u32)| {
        in_range(f64::from(height), arguments, 1, 3) && in_range(f64::from(width), arguments, 2, 4)
    };
    u32::from(arguments.len() > 2 && sizes.any(fits))
}

fn image_named(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let name = text(arguments, 0).as_bytes();
    u32::from(!arguments.is_empty() && Images::of(context).names().any(|known| known == name))
}

fn image_name_regex(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(pattern) = arguments.first().and_then(Argument::pattern) else { return 0 };
    u32::from(Images::of(context).names().any(|name| pattern.is_match(name)))
}

/// Bytes of text per pixel are within [min, max): of the source for rawbody rules, of what is shown for others.
fn image_to_text_ratio(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let pixels = Images::of(context).pixels(text(arguments, 0));
    let texts = context.texts();
    let list = if context.reads_source() { &texts.rawbody } else { &texts.body };
    let len: usize = list.iter().map(Vec::len).sum();
    if pixels <= 0.0 || len == 0 {
        return 0;
    }
    #[allow(clippy::cast_precision_loss)] // a length of one message
    let ratio = len as f64 / pixels;
    u32::from(arguments.len() > 2 && ratio >= number(arguments, 1) && ratio < number(arguments, 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    // a GIF header: 3 wide, 2 high
    const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=x\n\n--x\n\ntext\n--x\nContent-Type: image/gif; name=a.gif\n\
        Content-Transfer-Encoding: base64\n\nR0lGODlhAwACAAAAAA==\n--x--\n";

    fn hits(name: &str, arguments: &[&str]) -> bool {
        with(MESSAGE, &[], &NoAnswers, name, arguments) > 0
    }

    #[test]
    fn counts_and_sizes() {
        assert!(
            hits("image_count", &["gif", "1"])
                && hits("image_count", &["all", "1", "1"])
                && !hits("image_count", &["png", "1"])
        );
        assert!(hits("image_count", &["png", "0", "0"]) && !hits("image_count", &["bmp", "0"]));
        assert!(hits("pixel_coverage", &["gif", "6", "6"]) && !hits("pixel_coverage", &["all", "7"]));
        assert!(hits("image_size_exact", &["all", "2", "3"]) && !hits("image_size_exact", &["gif", "3", "2"]));
        assert!(
            hits("image_size_range", &["gif", "2", "3"]) && !hits("image_size_range", &["gif", "1", "1", "1", "9"])
        );
        assert!(
            hits("image_named", &["a.gif"])
                && hits("image_name_regex", &["/^A\\.gif$/i"])
                && !hits("image_named", &["b.gif"])
        );
        assert!(
            hits("image_to_text_ratio", &["all", "1.0", "1.1"]) && !hits("image_to_text_ratio", &["all", "0.9", "1.0"])
        );
    }

    #[test]
    fn headers_of_images() {
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &[0, 0, 1, 0, 0, 0, 0, 2, 8]].concat();
        assert_eq!(png_size(&png), Some((2, 256)));
        let jpeg = [&b"\xff\xd8\xff\xe0\0\x04ab"[..], &[0xff, 0xc0, 0, 17, 8, 0, 5, 1, 0]].concat();
        assert_eq!(jpeg_size(&jpeg), Some((5, 256)));
        assert_eq!(jpeg_size(b"\xff\xd8\xff\xda\0\x04"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            for start in [&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff", b"GIF89a", b""] {
                let octets = [start, &octets].concat();
                let _ = (gif_size(&octets), png_size(&octets), jpeg_size(&octets));
            }
        }
    }
}
