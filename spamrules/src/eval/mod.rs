// SPDX-License-Identifier: GPL-3.0-or-later
//! Eval functions: tests written in code, which rules call by name. One file per plugin of SpamAssassin that brings them.

pub(crate) mod auth;
mod body;
mod dates;
mod dns;
mod emails;
mod forged;
pub(crate) mod freemail;
pub(crate) mod from_name;
mod hash_values;
pub(crate) mod hashbl;
mod header;
mod html;
mod image;
pub(crate) mod lists;
pub(crate) mod locales;
mod matching;
mod mime;
mod pdf;
mod pdf_facts;
pub(crate) mod received_spf;
mod relay;
#[cfg(test)]
mod tests;
mod uri;
pub(crate) mod uri_detail;
mod vbounce;
mod verdicts;
mod wlbl;
pub(crate) mod zones;

use std::sync::OnceLock;

use crate::context::Context;
use crate::regexes::Pattern;

/// An eval function: how often it hits, 0 when it does not.
pub(crate) type Eval = fn(&Context<'_>, &[Argument]) -> u32;

/// One argument of an eval rule, as written between the parentheses, without its quotes.
#[derive(Debug, Clone)]
pub(crate) struct Argument {
    text: String,
    pattern: OnceLock<Option<Pattern>>,
    grouped: OnceLock<Option<Box<Pattern>>>,
}

impl Argument {
    pub(crate) fn new(text: impl Into<String>) -> Argument {
        Argument { text: text.into(), pattern: OnceLock::new(), grouped: OnceLock::new() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The argument as a number, the way Perl reads one: the leading digits count, anything else is 0.
    pub(crate) fn number(&self) -> f64 {
        let text = self.text.trim_start();
        let end = text
            .char_indices()
            .find(|&(at, letter)| {
                !(letter.is_ascii_digit() || letter == '.' || (at == 0 && matches!(letter, '-' | '+')))
            })
            .map_or(text.len(), |(at, _)| at);
        text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0.0)
    }

    /// The argument as a regular expression, `/…/i` or bare; compiled once. `None` when it is not one.
    pub(crate) fn pattern(&self) -> Option<&Pattern> {
        self.pattern.get_or_init(|| Pattern::new(&self.text).ok()).as_ref()
    }

    /// The same for a pattern of which a numbered group is wanted.
    pub(super) fn grouped(&self) -> Option<&Pattern> {
        self.grouped.get_or_init(|| Pattern::with_groups(&self.text).ok().map(Box::new)).as_deref()
    }
}

/// Where eval functions are looked up, one entry per file of this folder.
const FILES: &[fn(&str) -> Option<Eval>] = &[
    auth::find,
    body::find,
    dns::find,
    freemail::find,
    from_name::find,
    hashbl::find,
    header::find,
    html::find,
    image::find,
    mime::find,
    pdf::find,
    relay::find,
    uri::find,
    uri_detail::find,
    vbounce::find,
    verdicts::find,
    wlbl::find,
];

/// The function that a rule calls `name`.
pub(crate) fn find(name: &str) -> Option<Eval> {
    FILES.iter().find_map(|find| find(name))
}
