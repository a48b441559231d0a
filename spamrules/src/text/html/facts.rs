// SPDX-License-Identifier: GPL-3.0-or-later
//! What rules can ask about an HTML text.

use std::collections::HashMap;

use super::links::Links;
use crate::text::chars::Chars;

/// Facts about one HTML text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// How many of each element are open at the end; an element that was never seen is not in it.
    pub(crate) inside: HashMap<Vec<u8>, i64>,
    /// Characters of the source.
    pub(crate) length: usize,
    /// Characters of the rendered text.
    pub(crate) text_length: usize,
    /// Those that are no white space.
    pub(crate) solid_length: usize,
    /// Share of the source that is no text.
    pub(crate) ratio: Option<f64>,
    /// Sum of the areas of images with sizes, in pixels.
    pub(crate) image_area: f64,
    pub(crate) smallest_font: f64,
    pub(crate) largest_font: f64,
    /// Tags, and those of them that HTML defines.
    pub(crate) tags: u64,
    pub(crate) elements: u64,
    /// The same, counted while an element of the name was new.
    pub(crate) tags_seen: u64,
    pub(crate) elements_seen: u64,
    /// End tags of what was not open.
    pub(crate) closed_extra: u64,
    /// Tags in the middle of words.
    pub(crate) obfuscation: u64,
    /// Different lengths of the two halves of such words; `None` when there are none.
    pub(crate) backhair: Option<usize>,
    pub(crate) embeds: bool,
    pub(crate) font_face_bad: bool,
    pub(crate) font_low_contrast: bool,
    pub(crate) font_invalid_color: bool,
    pub(crate) form_action_mailto: bool,
    pub(crate) comments: Vec<Chars>,
    pub(crate) titles: Vec<Chars>,
    pub(crate) scripts: Vec<Chars>,
    /// Texts of all anchors.
    pub(crate) anchors: Vec<Chars>,
    pub(crate) links: Links,
}

impl Facts {
    /// A number by the name under which rules ask for it; `None` when there is nothing to count.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // counts of one message
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        #[allow(clippy::cast_precision_loss)]
        let count = |number: usize| number as f64;
        match name {
            "length" => Some(count(self.length)),
            "html_length" => Some(count(self.text_length)),
            "non_space_len" => Some(count(self.solid_length)),
            "ratio" => self.ratio,
            "image_area" => Some(self.image_area),
            "min_size" => Some(self.smallest_font),
            "max_size" => Some(self.largest_font),
            "backhair_count" => self.backhair.map(count),
            "bad_tag_ratio" => ratio(self.tags.saturating_sub(self.elements), self.tags).filter(|_| self.elements > 0),
            "non_element_ratio" => {
                let strange = self.tags_seen.saturating_sub(self.elements_seen);
                ratio(strange, self.tags_seen).filter(|_| self.elements_seen > 0)
            }
            "closed_extra_ratio" => ratio(self.closed_extra, self.tags),
            "obfuscation_ratio" => ratio(self.obfuscation, self.tags).filter(|_| self.obfuscation > 0),
            _ => self.flag(name).map(|flag| f64::from(u8::from(flag))),
        }
    }

    /// A yes or no by the name under which rules ask for it; `None`: there is no such fact.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match name {
            "html" => Some(true),
            "embeds" => Some(self.embeds),
            "font_face_bad" => Some(self.font_face_bad),
            "font_low_contrast" => Some(self.font_low_contrast),
            "font_invalid_color" => Some(self.font_invalid_color),
            "form_action_mailto" => Some(self.form_action_mailto),
            "uri_truncated" => Some(self.links.truncated),
            _ => None,
        }
    }

    /// Texts by the name under which rules ask for them.
    pub(crate) fn texts(&self, name: &str) -> &[Chars] {
        match name {
            "comment" => &self.comments,
            "title" => &self.titles,
            "script" => &self.scripts,
            "anchor" => &self.anchors,
            _ => &[],
        }
    }
}
