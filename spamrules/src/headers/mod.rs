// SPDX-License-Identifier: GPL-3.0-or-later
//! What a header rule reads: a field or a pseudo field, whole or a part of it.

use std::borrow::Cow;

use crate::context::Context;

/// Which value a header rule reads: `From:addr`, `ALL`, `X-Spam-Relays-External` …
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    name: String,
}

impl Selector {
    /// Reads a selector as written in a rule.
    pub(crate) fn parse(text: &str) -> Result<Selector, String> {
        Ok(Selector { name: text.to_owned() })
    }
}

/// The value of a selector; `None` when the message has no such field.
pub(crate) fn get<'a>(context: &'a Context<'_>, selector: &Selector) -> Option<Cow<'a, [u8]>> {
    context.message.headers().first(&selector.name).map(|field| Cow::Borrowed(field.decoded()))
}
