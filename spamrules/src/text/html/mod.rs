// SPDX-License-Identifier: GPL-3.0-or-later
//! HTML as rules see it: the text that is rendered, and facts about structure, colours and links. Not a browser.

mod attributes;
mod color;
mod entities;
mod facts;
pub(crate) mod links;
mod pieces;
mod render;
mod style;
mod tokens;
mod words;

pub(crate) use facts::Facts;
pub(crate) use links::Link;
pub(crate) use pieces::Pieces;
pub(crate) use render::render;

#[cfg(test)]
mod tests;
