// SPDX-License-Identifier: GPL-3.0-or-later
//! What a rule is: its test, its flags, and where it was written.

use crate::eval::Argument;
use crate::extension::Function;
use crate::headers::Selector;
use crate::meta::Formula;
use crate::regexes::{Pattern, Source};

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: std::sync::Arc<str>,
    pub(crate) line: u32,
}

/// Which kind of text an eval function was written for: it fixes the order, and which functions are asked only with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EvalKind {
    Dns,
    Header,
    Body,
    Rawbody,
    Full,
}

/// A test as it is written, before anything is compiled.
#[derive(Debug, Clone)]
pub(crate) enum Draft {
    Header { selector: String, pattern: Source, negated: bool, unset: Option<Vec<u8>> },
    Exists { selector: String },
    Body(Source),
    Rawbody(Source),
    Uri(Source),
    Full(Source),
    MimeHeader { selector: String, pattern: Source, negated: bool, unset: Vec<u8> },
    Eval { kind: EvalKind, function: String, arguments: Vec<String> },
    Meta(String),
}

impl Draft {
    /// The pattern, for those that have one.
    pub(crate) fn pattern_mut(&mut self) -> Option<&mut Source> {
        match self {
            Draft::Header { pattern, .. } | Draft::MimeHeader { pattern, .. } => Some(pattern),
            Draft::Body(pattern) | Draft::Rawbody(pattern) | Draft::Uri(pattern) | Draft::Full(pattern) => {
                Some(pattern)
            }
            Draft::Exists { .. } | Draft::Eval { .. } | Draft::Meta(_) => None,
        }
    }

    /// The pattern, for those that have one.
    pub(crate) fn pattern(&self) -> Option<&Source> {
        match self {
            Draft::Header { pattern, .. } | Draft::MimeHeader { pattern, .. } => Some(pattern),
            Draft::Body(pattern) | Draft::Rawbody(pattern) | Draft::Uri(pattern) | Draft::Full(pattern) => {
                Some(pattern)
            }
            Draft::Exists { .. } | Draft::Eval { .. } | Draft::Meta(_) => None,
        }
    }
}

/// `tflags`: how a rule counts and when it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "words of a directive, independent of each other")]
pub(crate) struct Flags {
    pub(crate) multiple: bool,
    /// 0: no limit.
    pub(crate) max_hits: u32,
    pub(crate) no_subject: bool,
    pub(crate) network: bool,
    pub(crate) learn: bool,
    /// It asks SPF and nobody else; no word of `tflags`.
    pub(crate) spf: bool,
    pub(crate) nice: bool,
    pub(crate) concat: bool,
    /// `userconf`: it hits because of what a user or an administrator has set.
    pub(crate) user: bool,
    pub(crate) no_autolearn: bool,
    pub(crate) autolearn_force: bool,
    /// Its points count as those of the header, or of the body.
    pub(crate) autolearn_head: bool,
    pub(crate) autolearn_body: bool,
    /// First and last part that a mimeheader rule reads, counted from 1.
    pub(crate) range: (u32, u32),
}

impl Flags {
    /// Reads the words of a `tflags` line; those that say nothing about hits are passed over.
    pub(crate) fn parse(text: &str) -> Flags {
        let mut flags = Flags { range: (0, 1000), ..Flags::default() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("maxhits", number)) => flags.max_hits = number.parse().unwrap_or(0),
                Some(("range", range)) => flags.range = range_of(range),
                _ => match word {
                    "multiple" => flags.multiple = true,
                    "nosubject" => flags.no_subject = true,
                    "net" => flags.network = true,
                    "learn" => flags.learn = true,
                    "nice" => flags.nice = true,
                    "concat" => flags.concat = true,
                    "userconf" => flags.user = true,
                    "noautolearn" => flags.no_autolearn = true,
                    "autolearn_force" => flags.autolearn_force = true,
                    "autolearn_header" => flags.autolearn_head = true,
                    "autolearn_body" => flags.autolearn_body = true,
                    _ => {}
                },
            }
        }
        flags
    }

    /// How many hits count in all.
    pub(crate) fn limit(&self) -> u32 {
        match (self.multiple, self.max_hits) {
            (false, _) => 1,
            (true, 0) => u32::MAX,
            (true, max) => max,
        }
    }
}

fn range_of(text: &str) -> (u32, u32) {
    match text.split_once('-') {
        None => text.parse().map_or((0, 1000), |number| (number, number)),
        Some((first, last)) => (first.parse().unwrap_or(0), last.parse().unwrap_or(1000)),
    }
}

/// A pattern ready to be searched for, or one that waits for what another rule captures from the same message.
#[derive(Debug)]
pub(crate) enum Matcher {
    Fixed(Pattern),
    Template(Template),
}

/// A pattern with names for what other rules capture.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) source: Source,
    /// The pattern with anything in place of the names: where it does not match, nothing needs to be filled in.
    pub(crate) superset: Option<Pattern>,
}

/// A test ready to run.
#[derive(Debug)]
pub(crate) enum Test {
    Header {
        selector: Selector,
        written: String,
        matcher: Matcher,
        negated: bool,
        unset: Option<Vec<u8>>,
    },
    Exists {
        selector: Selector,
        written: String,
    },
    Body(Matcher),
    Rawbody(Matcher),
    Uri(Matcher),
    Full(Matcher),
    MimeHeader {
        selector: String,
        pattern: Pattern,
        negated: bool,
        unset: Vec<u8>,
    },
    Eval {
        kind: EvalKind,
        function: Function,
        arguments: Vec<Argument>,
    },
    Meta(Formula),
    /// It loaded but cannot run; lint says why. It never hits.
    Idle,
}

/// A rule ready to run.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) priority: i32,
    pub(crate) flags: Flags,
    pub(crate) test: Test,
    pub(crate) place: Place,
}

impl Rule {
    /// Whether an eval rule is to be asked: some only with a network or with Bayes.
    pub(crate) fn is_asked(&self, kind: EvalKind, options: &crate::Options) -> bool {
        let network = self.flags.network || kind == EvalKind::Dns;
        let known = options.network || (options.spf && self.flags.spf);
        (!network || known) && (!self.flags.learn || options.bayes)
    }

    /// Whether each hit adds the score: of rules with a pattern that count. A meta's value or an eval's count does not multiply its score.
    pub(crate) fn adds_each_hit(&self) -> bool {
        self.flags.multiple && self.pattern().is_some()
    }

    /// The pattern of a rule that has one and needs no captures of others.
    pub(crate) fn pattern(&self) -> Option<&Pattern> {
        match &self.test {
            Test::Header { matcher: Matcher::Fixed(pattern), .. }
            | Test::Body(Matcher::Fixed(pattern))
            | Test::Rawbody(Matcher::Fixed(pattern))
            | Test::Uri(Matcher::Fixed(pattern))
            | Test::Full(Matcher::Fixed(pattern))
            | Test::MimeHeader { pattern, .. } => Some(pattern),
            _ => None,
        }
    }
}
