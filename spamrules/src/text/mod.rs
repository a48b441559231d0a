// SPDX-License-Identifier: GPL-3.0-or-later
//! The texts that body and rawbody rules read: parts decoded, HTML rendered, paragraphs folded and cut the way rules expect.

pub(crate) mod chars;
pub(crate) mod charset;
mod fold;
pub(crate) mod html;
#[cfg(test)]
mod tests;

pub(crate) use self::fold::chunks;

use self::chars::Chars;
use self::html::{Facts, Pieces};
use crate::context::Context;
use crate::message::{Message, Part};

/// Directives about texts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How much of a part body rules read, in characters.
    pub(crate) body_part_scan_size: usize,
    /// How much of a part rawbody rules read, in bytes.
    pub(crate) rawbody_part_scan_size: usize,
    /// Whether charsets are decoded.
    pub(crate) normalize_charset: bool,
    /// Languages in which mail is expected; their charsets are none that is far away.
    pub(crate) ok_locales: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            body_part_scan_size: 50_000,
            rawbody_part_scan_size: 500_000,
            normalize_charset: true,
            ok_locales: vec!["all".to_owned()],
        }
    }
}

impl Settings {
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let size = |size: &mut usize| match value.trim().parse() {
            Ok(number) => {
                *size = number;
                Ok(())
            }
            Err(_) => Err(format!("{key} takes a number of bytes, not {value:?}")),
        };
        Some(match key {
            "body_part_scan_size" => size(&mut self.body_part_scan_size),
            "rawbody_part_scan_size" => size(&mut self.rawbody_part_scan_size),
            "normalize_charset" => match value.trim().to_ascii_lowercase().as_str() {
                "1" | "yes" => {
                    self.normalize_charset = true;
                    Ok(())
                }
                "0" | "no" => {
                    self.normalize_charset = false;
                    Ok(())
                }
                _ => Err(format!("normalize_charset takes 0 or 1, not {value:?}")),
            },
            "ok_locales" => {
                self.ok_locales = value.split_whitespace().map(str::to_owned).collect();
                Ok(())
            }
            _ => return None,
        })
    }
}

/// What one part shows.
#[derive(Debug)]
pub(crate) enum Shown {
    Plain(Chars),
    /// HTML, with the place of its facts in [`Texts::html`].
    Html(Pieces, usize),
}

impl Shown {
    /// The text, and whether it is wide.
    pub(crate) fn text(&self) -> (&[u8], bool) {
        match self {
            Shown::Plain(text) => (text.octets(), text.is_wide()),
            Shown::Html(pieces, _) => pieces.all(),
        }
    }
}

/// The texts of one message.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// What body rules read, one paragraph each; the subject is the first.
    pub(crate) body: Vec<Vec<u8>>,
    /// What rawbody rules read: chunks of decoded text with its line ends and tags.
    pub(crate) rawbody: Vec<Vec<u8>>,
    /// What each part shows, in the order of [`Message::parts`]; `None` for parts that show nothing.
    shown: Vec<Option<Shown>>,
    /// Facts about each HTML part.
    pub(crate) html: Vec<Facts>,
}

impl Texts {
    pub(crate) fn new(context: &Context<'_>) -> Texts {
        Texts::of(context.message, &context.settings.text)
    }

    /// Makes the texts of a message.
    pub(crate) fn of(message: &Message, settings: &Settings) -> Texts {
        let mut texts = Texts::default();
        for part in message.parts() {
            let shown = if part.is_leaf() && !part.kind.is_empty() { texts.show(part, settings) } else { None };
            texts.shown.push(shown);
            texts.rawbody.extend(rawbody(part, settings));
        }
        let mut subject = message.headers().last("subject").map(|field| field.decoded().to_vec()).unwrap_or_default();
        subject.push(b'\n');
        let leaves =
            message.parts().iter().zip(&texts.shown).filter(|(part, _)| part.is_leaf() && !part.kind.is_empty());
        let parts: Vec<_> = leaves.map(|(_, shown)| shown.as_ref().map(Shown::text)).collect();
        texts.body = if parts.is_empty() {
            Vec::new()
        } else {
            fold::paragraphs(&subject, &parts, settings.body_part_scan_size)
        };
        texts
    }

    fn show(&mut self, part: &Part, settings: &Settings) -> Option<Shown> {
        let html = match part.effective_kind() {
            "text/html" => true,
            "text/plain" => false,
            _ => return None,
        };
        let octets = part.decoded();
        let declared = part.charset.as_deref().unwrap_or("us-ascii");
        let text = if settings.normalize_charset {
            charset::decode(octets, declared, false)
        } else if ["us-ascii", "utf-8"].iter().any(|name| name.eq_ignore_ascii_case(declared)) && !octets.is_ascii() {
            std::str::from_utf8(octets).ok().map(str::to_owned)
        } else {
            None
        };
        let text = text.map_or_else(|| Chars::from_octets(octets), Chars::from_text);
        if !html || octets.is_empty() {
            return Some(Shown::Plain(text));
        }
        let rendered = html::render(&text, octets.len());
        self.html.push(rendered.facts);
        Some(Shown::Html(rendered.pieces, self.html.len() - 1))
    }

    /// What a part shows, by its place in [`Message::parts`].
    pub(crate) fn shown(&self, place: usize) -> Option<&Shown> {
        self.shown.get(place).and_then(Option::as_ref)
    }
}

/// The chunks of one part that rawbody rules read.
fn rawbody(part: &Part, settings: &Settings) -> Vec<Vec<u8>> {
    let kind = part.effective_kind();
    let readable = ["text", "message"].iter().any(|start| {
        let rest = kind.strip_prefix(start);
        rest.is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_'))
    });
    if !part.is_leaf() || part.kind.is_empty() || !readable || part.kind == "text/calendar" {
        return Vec::new();
    }
    fold::chunks(fold::window(part.decoded(), settings.rawbody_part_scan_size))
}
