// SPDX-License-Identifier: GPL-3.0-or-later
//! What a caller adds to the rule language: eval functions, header fields that no message has, features that rule files may ask for.
//! It takes the place of SpamAssassin's plugins, which are written in Perl and never run here.
//!
//! An extension is code of the program that uses this library: rules can call it, but never bring any. What it is shown of a message
//! is [`crate::View`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::context::Context;
use crate::eval::{Argument, Eval};
use crate::view::View;

/// Code behind an eval function: it gets the message and the arguments of the rule, and says how often the rule hits; 0 is not at all.
type Code = dyn Fn(&View<'_>, &[&str]) -> u32 + Send + Sync;
/// Code behind a header field: its value, if the message is to have it.
type Make = dyn Fn(&View<'_>) -> Option<Vec<u8>> + Send + Sync;

/// Functions, header fields and features of the caller's own, under the name by which `ifplugin` knows them.
///
/// ```
/// use spamrules::{Budget, Environment, Extension, Message, NoAnswers, Options, Ruleset};
///
/// let languages = Extension::new("Mail::SpamAssassin::Plugin::TextCat")
///     .header("X-Languages", |view| view.body().any(|text| text.starts_with(b"Bonjour")).then(|| b"fr".to_vec()))
///     .function("body_longer_than", |view, arguments| {
///         let most: usize = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(0);
///         u32::from(view.raw_body().len() > most)
///     });
/// let rules: &[u8] = b"
/// ifplugin Mail::SpamAssassin::Plugin::TextCat
///   header FRENCH X-Languages =~ /\\bfr\\b/
///   body   LONG   eval:body_longer_than('5')
/// endif
/// ";
/// let options = Options { extensions: vec![languages], ..Options::default() };
/// let set = Ruleset::load([("local.cf", rules)], options, &|_| None);
/// let message = Message::parse(b"Subject: hello\n\nBonjour\n");
/// let report = set.check(&message, &Environment::default(), &NoAnswers, Budget::default());
/// assert_eq!(report.hits.len(), 2);
/// ```
#[derive(Clone)]
pub struct Extension {
    name: String,
    features: BTreeMap<String, bool>,
    functions: BTreeMap<String, Arc<Code>>,
    headers: BTreeMap<String, Arc<Make>>,
}

impl Extension {
    /// An extension by the name that `ifplugin` and `plugin()` ask for, such as `Mail::SpamAssassin::Plugin::TextCat`. It counts as
    /// loaded, with or without a `loadplugin` line.
    pub fn new(name: impl Into<String>) -> Extension {
        Extension { name: name.into(), features: BTreeMap::new(), functions: BTreeMap::new(), headers: BTreeMap::new() }
    }

    /// Adds a function that rules call as `eval:name(…)`. It takes precedence over one of this library with the same name; of two
    /// extensions that have it, the one given last counts. `has(NAME::name)` holds from then on.
    ///
    /// It may run on several threads at once, and should be quick: its time counts as that of the rule.
    #[must_use]
    pub fn function(
        mut self,
        name: impl Into<String>,
        code: impl Fn(&View<'_>, &[&str]) -> u32 + Send + Sync + 'static,
    ) -> Extension {
        self.functions.insert(name.into(), Arc::new(code));
        self
    }

    /// Adds a header field that header rules can read (`header X Name =~ /…/`) and that no message needs to have. A field of the message
    /// by that name comes first. It is made at most once for a message, when something asks for it; the code may read fields of other
    /// extensions, and does not find its own.
    #[must_use]
    pub fn header(
        mut self,
        name: impl AsRef<str>,
        make: impl Fn(&View<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Extension {
        self.headers.insert(name.as_ref().to_ascii_lowercase(), Arc::new(make));
        self
    }

    /// Adds a feature: `has(NAME::feature)` holds, and `can(NAME::feature)` if it is `on`.
    #[must_use]
    pub fn feature(mut self, name: impl Into<String>, on: bool) -> Extension {
        self.features.insert(name.into(), on);
        self
    }

    /// The name of the extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a feature is there, and on; a function is a feature.
    pub(crate) fn has(&self, feature: &str) -> Option<bool> {
        self.features.get(feature).copied().or_else(|| self.functions.contains_key(feature).then_some(true))
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Extension")
            .field("name", &self.name)
            .field("features", &self.features)
            .field("functions", &self.functions.keys())
            .field("headers", &self.headers.keys())
            .finish()
    }
}

/// The function that rules call by this name, of the last extension that has it.
pub(crate) fn function(extensions: &[Extension], name: &str) -> Option<Function> {
    extensions.iter().rev().find_map(|extension| extension.functions.get(name)).cloned().map(Function::Foreign)
}

/// The value of a header field, by its name in lower case.
pub(crate) fn header(context: &Context<'_>, extensions: &[Extension], name: &str) -> Option<Vec<u8>> {
    let make = extensions.iter().rev().find_map(|extension| extension.headers.get(name))?;
    make(&View::new(context))
}

/// What an eval rule calls.
#[derive(Clone)]
pub(crate) enum Function {
    /// One of this library.
    Own(Eval),
    /// One of the caller's.
    Foreign(Arc<Code>),
}

impl Function {
    /// How often it hits.
    pub(crate) fn call(&self, context: &Context<'_>, arguments: &[Argument]) -> u32 {
        match self {
            Function::Own(eval) => eval(context, arguments),
            Function::Foreign(code) => {
                let arguments: Vec<&str> = arguments.iter().map(Argument::as_str).collect();
                code(&View::new(context), &arguments)
            }
        }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Function::Own(_) => "Own",
            Function::Foreign(_) => "Foreign",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, Environment, Message, NoAnswers, Options, Report, Ruleset};

    fn check(extensions: Vec<Extension>, rules: &str) -> Report {
        let options = Options { extensions, ..Options::default() };
        let set = Ruleset::load([("local.cf", rules.as_bytes())], options, &|_| None);
        assert!(set.lint().is_empty(), "{:?}", set.lint());
        let text = "From: \"A\" <a@example.com>\nSubject: =?UTF-8?Q?caf=C3=A9?=\nContent-Type: multipart/mixed; boundary=x\n\n\
            --x\n\nSome text http://example.com/\n--x\nContent-Type: text/html; name=b.html\n\n<b>bold</b>\n--x--\n";
        set.check(&Message::parse(text.as_bytes()), &Environment { now: 7 }, &NoAnswers, Budget::default())
    }

    fn names(report: &Report) -> Vec<&str> {
        report.hits.iter().map(|hit| hit.rule.as_str()).collect()
    }

    #[test]
    fn a_function_sees_the_message() {
        let extension = Extension::new("Mine").function("look", |view, arguments| {
            assert_eq!(arguments, ["a", "2"]);
            assert_eq!(view.rule(), "LOOK");
            assert_eq!(view.header("From:addr").as_deref(), Some(&b"a@example.com"[..]));
            assert_eq!(view.header("Subject").as_deref(), Some("café\n".as_bytes()));
            assert_eq!(view.header("No-Such"), None);
            assert!(view.raw().starts_with(view.raw_header()) && view.raw().ends_with(view.raw_body()));
            assert!(view.body().any(|text| text.windows(4).any(|four| four == b"bold")));
            assert!(view.rawbody().any(|text| text.windows(3).any(|three| three == b"<b>")));
            let parts: Vec<_> = view.parts().filter(|part| part.is_leaf()).collect();
            assert_eq!(parts.iter().map(|part| part.kind()).collect::<Vec<_>>(), ["text/plain", "text/html"]);
            assert_eq!(parts[1].name(), Some(&b"b.html"[..]));
            assert_eq!(parts[1].content().trim_ascii(), b"<b>bold</b>");
            assert_eq!(parts[1].header("content-type"), Some(&b"text/html; name=b.html"[..]));
            assert_eq!(view.now(), 7);
            view.note("seen");
            3
        });
        let report = check(vec![extension], "header LOOK eval:look('a', 2)\nmeta MANY LOOK == 3\n");
        assert_eq!(names(&report), ["LOOK", "MANY"]);
        assert_eq!(report.hits[0].details, ["seen"]);
        assert!(report.hits[1].details.is_empty());
    }

    #[test]
    fn the_last_one_counts() {
        let one = |hits| Extension::new("Mine").function("check_for_missing_to_header", move |_, _| hits);
        let rules = "header X eval:check_for_missing_to_header()\n";
        assert_eq!(check(vec![], rules).hits.len(), 1);
        assert_eq!(check(vec![one(0)], rules).hits.len(), 0);
        assert_eq!(check(vec![one(0), one(1)], rules).hits.len(), 1);
    }

    #[test]
    fn fields_are_made_once_and_may_use_each_other() {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let one = Extension::new("One").header("X-One", move |view| {
            count.fetch_add(1, Relaxed);
            assert_eq!(view.header("X-One"), None);
            Some(b"one".to_vec())
        });
        let two = Extension::new("Two").header("X-Two", |view| Some([&view.header("X-One")?[..], b" two"].concat()));
        let report =
            check(vec![two, one], "header A x-one =~ /^one$/\nheader B X-Two =~ /^one two$/\nheader C exists:X-One\n");
        assert_eq!(names(&report), ["A", "B", "C"]);
        assert_eq!(made.load(Relaxed), 1);
    }

    #[test]
    fn conditions() {
        let extension = Extension::new("Mail::SpamAssassin::Plugin::Mine")
            .function("check_it", |_, _| 0)
            .feature("has_it", true)
            .feature("no_longer", false);
        let rules = "ifplugin Mail::SpamAssassin::Plugin::Mine\nfull A /./\nendif\n\
            if has(Mail::SpamAssassin::Plugin::Mine::check_it)\nfull B /./\nendif\n\
            if has(Mail::SpamAssassin::Plugin::Mine::no_longer)\nfull C /./\nendif\n\
            if can(Mail::SpamAssassin::Plugin::Mine::no_longer)\nfull NO /./\nendif\n\
            if can(Mail::SpamAssassin::Plugin::Mine::has_it)\nfull D /./\nendif\n\
            if has(Mail::SpamAssassin::Plugin::Mine::other)\nfull NO /./\nendif\n";
        assert_eq!(names(&check(vec![extension], rules)), ["A", "B", "C", "D"]);
        let named = Extension::new("AnyName").feature("x", true);
        assert_eq!(names(&check(vec![named], "if plugin(AnyName) && can(AnyName::x)\nfull A /./\nendif\n")), ["A"]);
    }
}
