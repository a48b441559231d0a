// SPDX-License-Identifier: GPL-3.0-or-later
//! What a rule sees while one message is checked: the message, its texts, URIs and relays (each made once, when first asked for),
//! the settings, the caller's answers, and what other rules have left: tags and captures.

use std::any::{Any, TypeId};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::answers::Answers;
use crate::extension::{self, Extension};
use crate::message::Message;
use crate::queries::Permitted;
use crate::relays::Relays;
use crate::settings::Settings;
use crate::text::Texts;
use crate::uri::Uris;

/// What the caller knows about the circumstances of a message.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Now, in seconds since 1970-01-01 UTC: for rules on dates, and for the time that a rule is switched off ([`crate::Options::strikes`]).
    pub now: i64,
}

/// The facts about one message while its rules are evaluated.
pub(crate) struct Context<'a> {
    pub(crate) message: &'a Message,
    pub(crate) settings: &'a Settings,
    pub(crate) environment: &'a Environment,
    pub(crate) answers: Permitted<'a>,
    extensions: &'a [Extension],
    texts: OnceCell<Texts>,
    uris: OnceCell<Uris>,
    relays: OnceCell<Relays>,
    rule: RefCell<String>,
    reads_source: Cell<bool>,
    tags: RefCell<BTreeMap<String, Vec<String>>>,
    memos: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    /// Header fields that extensions have made, by their names in lower case.
    made: RefCell<HashMap<String, Option<Vec<u8>>>>,
    /// What rules have found, by their names.
    notes: RefCell<Vec<(String, String)>>,
}

/// Notes of one message; more would help nobody.
const MAX_NOTES: usize = 1_000;
/// Longest note, in bytes.
const MAX_NOTE: usize = 300;

impl<'a> Context<'a> {
    pub(crate) fn new(
        message: &'a Message,
        settings: &'a Settings,
        environment: &'a Environment,
        answers: &'a dyn Answers,
    ) -> Context<'a> {
        Context {
            message,
            settings,
            environment,
            answers: Permitted::new(answers, &settings.queries),
            extensions: &[],
            texts: OnceCell::new(),
            uris: OnceCell::new(),
            relays: OnceCell::new(),
            rule: RefCell::default(),
            reads_source: Cell::new(false),
            tags: RefCell::default(),
            memos: RefCell::default(),
            made: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// The same with extensions of the caller's.
    pub(crate) fn with_extensions(mut self, extensions: &'a [Extension]) -> Context<'a> {
        self.extensions = extensions;
        self
    }

    /// A header field that an extension makes; made once, and not there while it is being made.
    pub(crate) fn made_header(&self, name: &str) -> Option<Vec<u8>> {
        if self.extensions.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        if let Some(known) = self.made.borrow().get(&name) {
            return known.clone();
        }
        self.made.borrow_mut().insert(name.clone(), None);
        let value = extension::header(self, self.extensions, &name);
        self.made.borrow_mut().insert(name, value.clone());
        value
    }

    /// Says what the rule that is being evaluated has found.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < MAX_NOTES {
            let text: String = text.into();
            let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.truncate((0..=MAX_NOTE.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0));
            notes.push((self.rule(), text));
        }
    }

    /// What all rules have found, by their names.
    pub(crate) fn notes(&self) -> Vec<(String, String)> {
        self.notes.borrow().clone()
    }

    pub(crate) fn set_notes(&self, notes: Vec<(String, String)>) {
        self.notes.replace(notes);
    }

    /// What a rule has found, each thing once.
    pub(crate) fn notes_of(&self, rule: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (_, text) in self.notes.borrow().iter().filter(|(by, _)| by == rule) {
            if !found.contains(text) {
                found.push(text.clone());
            }
        }
        found
    }

    /// The texts that body and rawbody rules read.
    pub(crate) fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| Texts::new(self))
    }

    /// The URIs of the message.
    pub(crate) fn uris(&self) -> &Uris {
        self.uris.get_or_init(|| Uris::new(self))
    }

    /// Whether URIs of the message are missing; `false` when none were asked for.
    pub(crate) fn misses_uris(&self) -> bool {
        self.uris.get().is_some_and(|uris| uris.limited)
    }

    /// The `Received:` lines, understood and divided into trusted and untrusted, internal and external.
    pub(crate) fn relays(&self) -> &Relays {
        self.relays.get_or_init(|| Relays::new(self))
    }

    /// A fact that several eval functions share, made once per message. `T` is a type of the asking module's own.
    pub(crate) fn memo<T: 'static>(&self, make: impl FnOnce(&Context<'a>) -> T) -> Rc<T> {
        let key = TypeId::of::<T>();
        let known = self.memos.borrow().get(&key).cloned();
        if let Some(known) = known.and_then(|known| known.downcast::<T>().ok()) {
            return known;
        }
        let made = Rc::new(make(self));
        self.memos.borrow_mut().insert(key, made.clone());
        made
    }

    /// The name of the rule that is being evaluated: for evals whose arguments are kept under the name of the rule.
    pub(crate) fn rule(&self) -> String {
        self.rule.borrow().clone()
    }

    /// Whether the rule that is being evaluated reads the source of the text (rawbody) and not what is shown.
    pub(crate) fn reads_source(&self) -> bool {
        self.reads_source.get()
    }

    pub(crate) fn set_reads_source(&self, reads: bool) {
        self.reads_source.set(reads);
    }

    pub(crate) fn set_rule(&self, name: &str) {
        let mut rule = self.rule.borrow_mut();
        rule.clear();
        rule.push_str(name);
    }

    /// The values of a tag (`_NAME_` in templates and in some directives), in the order in which they were set.
    pub(crate) fn tag(&self, name: &str) -> Vec<String> {
        self.tags.borrow().get(name).cloned().unwrap_or_default()
    }

    /// All tags.
    pub(crate) fn tags(&self) -> BTreeMap<String, Vec<String>> {
        self.tags.borrow().clone()
    }

    /// Sets all tags, as they were in an earlier part of the same check.
    pub(crate) fn set_tags(&self, tags: BTreeMap<String, Vec<String>>) {
        *self.tags.borrow_mut() = tags;
    }

    /// Sets the values of a tag.
    pub(crate) fn set_tag(&self, name: &str, values: Vec<String>) {
        self.tags.borrow_mut().insert(name.to_owned(), values);
    }
}
