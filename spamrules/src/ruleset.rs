// SPDX-License-Identifier: GPL-3.0-or-later
//! A set of rules: loaded from files, linted, given to messages, bent to the preferences of a user.

use std::sync::Arc;

use crate::answers::Answers;
use crate::check::{self, Budget, Checked, Report, Waiting};
use crate::conf::build::{self, Rules};
use crate::conf::draft::Gathered;
use crate::conf::{Options, Plugins, Reader, Resolver};
use crate::context::{Context, Environment};
use crate::learnt::Learnt;
use crate::lint::Remark;
use crate::listed::Listed;
use crate::message::Message;
use crate::plan::Plan;
use crate::scores::{self, Scores};
use crate::settings::Settings;

/// The score from which a message is spam when no file says otherwise.
const REQUIRED: f64 = 5.0;

/// A set of rules, ready for any number of messages at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ruleset {
    options: Arc<Options>,
    rules: Arc<Rules>,
    remarks: Arc<Vec<Remark>>,
    settings: Arc<Settings>,
    all_scores: Arc<Vec<Scores>>,
    scores: Arc<Vec<f64>>,
    plan: Arc<Plan>,
    learnt: Arc<Learnt>,
    plugins: Arc<Vec<String>>,
    required: f64,
}

impl Ruleset {
    /// Loads rule files in the order given: `.pre` files first, then the `.cf` files of the distribution, then those of the site, each group
    /// in the order of names. Never fails: what is wrong is skipped and found in [`Ruleset::lint`].
    ///
    /// `resolver` gives the text of a file named by `include`; it gets the path as seen from the including file.
    pub fn load<'f>(
        files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
        options: Options,
        resolver: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Ruleset {
        let (mut gathered, plugins) = read(files, &options, resolver, Gathered::default());
        let rules = build::rules(&mut gathered, &options.extensions);
        gathered.note_inert();
        let remarks = std::mem::take(&mut gathered.remarks);
        let all_scores = build::scores_of(&gathered, &rules);
        let scores = chosen(&all_scores, &options);
        Ruleset {
            settings: Arc::new(gathered.settings),
            plan: Arc::new(Plan::new(&rules, &scores, &options)),
            learnt: Arc::new(Learnt::new(rules.rules.len(), options.strikes)),
            scores: Arc::new(scores),
            plugins: Arc::new(plugins.names()),
            required: gathered.required.unwrap_or(REQUIRED),
            options: Arc::new(options),
            rules: Arc::new(rules),
            remarks: Arc::new(remarks),
            all_scores: Arc::new(all_scores),
        }
    }

    /// The set with the preferences of a user on top: scores, lists of welcome and unwelcome senders, the required score. Rules in `text`
    /// are passed over, as by spamd without `allow_user_rules`. The second part of the answer is what is wrong with `text`.
    pub fn with_preferences(&self, name: &str, text: &[u8]) -> (Ruleset, Vec<Remark>) {
        let mut base = Gathered::default();
        base.settings = (*self.settings).clone();
        base.scores = self
            .rules
            .rules
            .iter()
            .zip(self.all_scores.iter())
            .map(|(rule, scores)| (rule.name.clone(), *scores))
            .collect();
        let (mut gathered, _) = read([(name, text)], &self.options, &|_| None, base);
        let all_scores = build::scores_of(&gathered, &self.rules);
        let remarks = std::mem::take(&mut gathered.remarks);
        let scores = chosen(&all_scores, &self.options);
        let set = Ruleset {
            settings: Arc::new(gathered.settings),
            plan: Arc::new(Plan::new(&self.rules, &scores, &self.options)),
            scores: Arc::new(scores),
            all_scores: Arc::new(all_scores),
            required: gathered.required.unwrap_or(self.required),
            ..self.clone()
        };
        (set, remarks)
    }

    /// What is to be said about the rule files: mistakes, rules that cannot run, directives without effect.
    pub fn lint(&self) -> &[Remark] {
        &self.remarks
    }

    /// The score from which the rule files call a message spam (`required_score`).
    pub fn required(&self) -> f64 {
        self.required
    }

    /// How many rules the set has.
    pub fn len(&self) -> usize {
        self.rules.rules.len()
    }

    /// Whether the set has no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.rules.is_empty()
    }

    /// The names of all rules, in the order of the files, with the score that each has now.
    pub fn rules(&self) -> impl Iterator<Item = (&str, f64)> {
        self.rules.rules.iter().map(|rule| rule.name.as_str()).zip(self.scores.iter().copied())
    }

    /// The rules that are switched off at `now`, in seconds since 1970, because too many messages have set them aside lately
    /// ([`Options::strikes`]).
    pub fn switched_off(&self, now: i64) -> Vec<&str> {
        self.learnt.off(now).filter_map(|rule| Some(self.rules.rules.get(rule)?.name.as_str())).collect()
    }

    /// The plugins that count as loaded, sorted by name: those of a fresh installation, those of `loadplugin` lines, and extensions.
    pub fn plugins(&self) -> &[String] {
        &self.plugins
    }

    /// What there is to know about each rule, in the order of [`Ruleset::rules`].
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        let rules = self.rules.rules.iter().zip(self.scores.iter());
        rules.map(|(rule, score)| Listed::of(rule, *score, &self.options))
    }

    /// Runs the rules over a message. What is not known does not hit; [`Ruleset::begin`] is for those who look it up.
    pub fn check(
        &self,
        message: &Message,
        environment: &Environment,
        answers: &dyn Answers,
        budget: Budget<'_>,
    ) -> Report {
        self.begin(message, environment, answers, budget).report
    }

    /// Runs the rules over a message for a caller who looks up what they ask ([`Answers::waiting`]): beside the report there is what it
    /// takes to go on, unless no answer can change between which levels the score lies.
    pub fn begin(
        &self,
        message: &Message,
        environment: &Environment,
        answers: &dyn Answers,
        budget: Budget<'_>,
    ) -> Checked {
        let context = self.context(message, environment, answers);
        check::run(self.setting(), &context, budget)
    }

    /// Goes on with answers that have come meanwhile. Only rules that waited for one run again, and may ask for more: who asks for the
    /// servers of a domain wants their addresses next. `waiting` is of the same set and message; the levels are those of the beginning.
    pub fn resume(
        &self,
        waiting: Waiting,
        message: &Message,
        environment: &Environment,
        answers: &dyn Answers,
        budget: Budget<'_>,
    ) -> Checked {
        let context = self.context(message, environment, answers);
        check::resume(self.setting(), &context, budget, waiting)
    }

    fn context<'c>(
        &'c self,
        message: &'c Message,
        environment: &'c Environment,
        answers: &'c dyn Answers,
    ) -> Context<'c> {
        Context::new(message, &self.settings, environment, answers).with_extensions(&self.options.extensions)
    }

    fn setting(&self) -> check::Setting<'_> {
        check::Setting {
            rules: &self.rules,
            scores: &self.scores,
            all_scores: &self.all_scores,
            options: &self.options,
            plan: &self.plan,
            learnt: &self.learnt,
            required: self.required,
        }
    }
}

fn read<'f>(
    files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    options: &Options,
    resolver: Resolver<'_>,
    gathered: Gathered,
) -> (Gathered, Plugins) {
    let mut reader = Reader::new(options, resolver, gathered);
    for (name, text) in files {
        reader.file(name, text);
    }
    (reader.gathered, reader.plugins)
}

fn chosen(scores: &[Scores], options: &Options) -> Vec<f64> {
    let set = scores::set(options.network, options.bayes);
    scores.iter().map(|scores| scores.get(set).copied().unwrap_or(0.0)).collect()
}
