// SPDX-License-Identifier: GPL-3.0-or-later
//! The categories of messages, in the order of amavis (CC_VIRUS 9 … CC_CLEAN 1). Pure words; what follows from them is `verdict`.

/// What a message is, the gravest first. A message may be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// A scanner found a virus.
    Virus,
    /// An attachment is on the list of banned files.
    Banned,
    /// Not everything could be looked at.
    Unchecked,
    /// Over the level at which spam is refused.
    Spam,
    /// Over the level at which spam is marked.
    Spammy,
    /// The header section breaks the rules.
    BadHeader,
    /// Larger than allowed.
    Oversized,
    /// The next hop has trouble.
    Mta,
    /// Nothing of the above.
    Clean,
}

impl Category {
    /// All of them, the gravest first.
    pub const ALL: [Category; 9] = [
        Category::Virus,
        Category::Banned,
        Category::Unchecked,
        Category::Spam,
        Category::Spammy,
        Category::BadHeader,
        Category::Oversized,
        Category::Mta,
        Category::Clean,
    ];

    /// The word for it in the log, metrics and `scan --json`.
    pub fn word(self) -> &'static str {
        match self {
            Category::Virus => "virus",
            Category::Banned => "banned",
            Category::Unchecked => "unchecked",
            Category::Spam => "spam",
            Category::Spammy => "tagged",
            Category::BadHeader => "bad-header",
            Category::Oversized => "oversized",
            Category::Mta => "mta",
            Category::Clean => "clean",
        }
    }
}
