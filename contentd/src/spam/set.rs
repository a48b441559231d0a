// SPDX-License-Identifier: GPL-3.0-or-later
//! The rules in force: loaded from their files, taken once per message, replaced whole or not at all.
//!
//! Loading takes about a second of the processor for a full set; callers keep it off the threads that serve.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use metrics::{counter, gauge};
use spamrules::{Options, Ruleset, Severity};

use super::folder::{self, FolderError, Stamp};
use super::off::SwitchedOff;
use super::settings::SpamSettings;

/// So many wrong lines are no reason to refuse a set, nor is one for each ten rules.
const MAX_ERRORS: usize = 20;
/// Wrong lines that are told one by one.
const MAX_TOLD: usize = 5;

/// Why a set of rules cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files cannot be read.
    #[error(transparent)]
    Files(#[from] FolderError),
    /// There is no rule in any of the files.
    #[error("no rule in {files} files")]
    NoRules {
        /// How many files were read.
        files: usize,
    },
    /// More is wrong with it than can be a slip.
    #[error("{errors} errors in {rules} rules, first: {first}")]
    Broken {
        /// Lines that are wrong.
        errors: usize,
        /// Rules that are left.
        rules: usize,
        /// The first of the errors.
        first: String,
    },
}

/// One set of rules, as loaded.
#[derive(Debug)]
pub struct RuleSet {
    /// The rules.
    pub rules: Ruleset,
    /// Counts the sets of this process, from 1.
    pub generation: u64,
    /// When it was loaded.
    pub loaded: SystemTime,
    /// How long that took.
    pub took: Duration,
    /// How many files it was read from, included ones too.
    pub files: usize,
    /// Lines of them that are wrong.
    pub errors: usize,
    /// Rules of it that cannot run.
    pub idle: usize,
    /// How the files looked.
    stamp: Stamp,
    /// How many of these were not included by others.
    named: usize,
}

impl RuleSet {
    /// How its files look now, when they have changed since. Blocks.
    pub fn change(&self, settings: &SpamSettings) -> Option<Stamp> {
        self.stamp.change(&settings.rules, self.named)
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let RuleSet { files, errors, idle, .. } = self;
        format!("{} spam rules of {files} files, {errors} lines are wrong, {idle} rules cannot run", self.rules.len())
    }

    /// The first few wrong lines.
    pub fn wrong_lines(&self) -> impl Iterator<Item = String> {
        let wrong = self.rules.lint().iter().filter(|remark| remark.severity == Severity::Error);
        wrong.take(MAX_TOLD).map(ToString::to_string)
    }

    /// What speaks against putting it in the place of another one: more is wrong than a slip can be, a page of a web server for a rule file
    /// for one.
    fn refused(self) -> Result<RuleSet, LoadError> {
        if self.errors <= MAX_ERRORS.max(self.rules.len() / 10) {
            return Ok(self);
        }
        let first = self.wrong_lines().next().unwrap_or_default();
        Err(LoadError::Broken { errors: self.errors, rules: self.rules.len(), first })
    }

    /// Reads a set from its files.
    fn read(settings: &SpamSettings, generation: u64) -> Result<RuleSet, LoadError> {
        let begun = Instant::now();
        let paths = folder::files(&settings.rules)?;
        // Before they are read: what changes meanwhile is read again.
        let stamp = RefCell::new(folder::stamp(&paths));
        let texts: Result<Vec<_>, FolderError> = paths.iter().map(|path| folder::read(path)).collect();
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        // The library makes a rule's mistake of a file that is missing.
        let include = |path: &str| {
            let path = PathBuf::from(path);
            stamp.borrow_mut().add(path.clone());
            folder::read(&path).ok()
        };
        let texts = texts?;
        let files = names.iter().map(String::as_str).zip(texts.iter().map(Vec::as_slice));
        let rules = Ruleset::load(files, options(settings), &include);
        let stamp = stamp.into_inner();
        if rules.is_empty() {
            return Err(LoadError::NoRules { files: stamp.len() });
        }
        let count = |severity| rules.lint().iter().filter(|remark| remark.severity == severity).count();
        Ok(RuleSet {
            generation,
            loaded: SystemTime::now(),
            took: begun.elapsed(),
            files: stamp.len(),
            errors: count(Severity::Error),
            idle: count(Severity::Warning),
            stamp,
            named: paths.len(),
            rules,
        })
    }
}

#[cfg(test)]
impl RuleSet {
    /// A set of these rules.
    pub(crate) fn for_tests(text: &str) -> Arc<RuleSet> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.cf"), text).expect("written");
        let settings = SpamSettings { rules: vec![folder.path().to_owned()], ..SpamSettings::default() };
        Arc::new(RuleSet::read(&settings, 1).expect("good rules"))
    }
}

/// Which rules run. Those on SPF do so in any case: policyd may hand over what it has found.
fn options(settings: &SpamSettings) -> Options {
    Options { network: settings.network, spf: true, ..Options::default() }
}

/// The holder of the set in force.
#[derive(Debug, Default)]
pub struct Rules {
    current: ArcSwapOption<RuleSet>,
    generations: AtomicU64,
    off: SwitchedOff,
}

impl Rules {
    /// Loads the rules of a configuration for the first time.
    pub fn load(settings: &SpamSettings) -> Result<Arc<Rules>, LoadError> {
        let rules = Rules::default();
        rules.put(rules.read(settings)?);
        Ok(Arc::new(rules))
    }

    /// The set in force; none when no rules are configured.
    pub fn current(&self) -> Option<Arc<RuleSet>> {
        self.current.load_full()
    }

    /// Reads a set without putting it in force; none when no rules are configured. One that is to take the place of another must be
    /// better than the first one. Blocks.
    pub fn read(&self, settings: &SpamSettings) -> Result<Option<RuleSet>, LoadError> {
        if settings.rules.is_empty() {
            return Ok(None);
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let set = RuleSet::read(settings, generation)?;
        if self.current.load().is_some() { set.refused().map(Some) } else { Ok(Some(set)) }
    }

    /// Puts a set in force for the messages to come.
    pub fn put(&self, set: Option<RuleSet>) {
        if let Some(set) = &set {
            let took_ms = u64::try_from(set.took.as_millis()).unwrap_or(u64::MAX);
            let (rules, RuleSet { generation, files, errors, idle, .. }) = (set.rules.len(), set);
            tracing::info!(generation, rules, files, errors, idle, took_ms, "spam rules loaded");
            set.wrong_lines().for_each(|line| tracing::warn!(line, "wrong line in a rule file"));
        }
        let set = set.map(Arc::new);
        // One that was begun earlier and took longer does not take the place of a newer one.
        self.current.rcu(|current| match (current, &set) {
            (Some(current), Some(set)) if current.generation > set.generation => Some(Arc::clone(current)),
            _ => set.clone(),
        });
        self.show();
    }

    /// Reads the rules again and puts them in force. What is wrong is logged and counted, and the last good set stays. Blocks.
    pub fn reload(&self, settings: &SpamSettings) -> Result<(), LoadError> {
        match self.read(settings) {
            Ok(set) => {
                self.put(set);
                counter!("octroi_contentd_spam_reloads_total", "outcome" => "loaded").increment(1);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "spam rules not reloaded, the last good ones stay");
                counter!("octroi_contentd_spam_reloads_total", "outcome" => "failed").increment(1);
                Err(error)
            }
        }
    }

    /// Shows on the metrics page what is in force.
    pub fn show(&self) {
        let current = self.current();
        let number = |of: fn(&RuleSet) -> f64| current.as_deref().map_or(0.0, of);
        gauge!("octroi_contentd_spam_generation").set(number(|set| set.generation as f64));
        gauge!("octroi_contentd_spam_rules").set(number(|set| set.rules.len() as f64));
        gauge!("octroi_contentd_spam_rule_errors").set(number(|set| set.errors as f64));
        self.look_for_switched_off();
    }

    /// Tells which rules have been switched off, or are tried again.
    pub fn look_for_switched_off(&self) {
        self.off.look(self.current().as_deref(), Timestamp::now().as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir) -> SpamSettings {
        SpamSettings { rules: vec![folder.path().to_owned()], ..SpamSettings::default() }
    }

    #[test]
    fn a_channel_is_read_with_what_it_includes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("chan")).unwrap();
        std::fs::write(folder.path().join("chan.cf"), "include chan/10.cf\ninclude chan/20.cf\n").unwrap();
        std::fs::write(folder.path().join("chan/10.cf"), "body A /a/\nbody B /b/\n").unwrap();
        std::fs::write(folder.path().join("chan/20.cf"), "score A 2\nnonsense\n").unwrap();
        let rules = Rules::load(&settings(&folder)).unwrap();
        let set = rules.current().unwrap();
        assert_eq!((set.rules.len(), set.files, set.errors, set.generation), (2, 3, 1, 1));
        assert!(set.rules.rules().any(|rule| rule == ("A", 2.0)));
    }

    #[test]
    fn the_last_good_set_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.cf");
        std::fs::write(&file, "body A /a/\n").unwrap();
        let settings = settings(&folder);
        let rules = Rules::load(&settings).unwrap();
        let first = rules.current().unwrap();
        assert_eq!(first.change(&settings), None);
        for wrong in ["", &format!("body A /a/\n{}", "<html>\n".repeat(21))] {
            std::fs::write(&file, wrong).unwrap();
            assert!(first.change(&settings).is_some());
            rules.reload(&settings).unwrap_err();
            assert!(Arc::ptr_eq(&rules.current().unwrap(), &first));
        }
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(first.change(&settings).is_some());
        rules.reload(&settings).unwrap_err();
        std::fs::create_dir(folder.path()).unwrap();
        std::fs::write(&file, "body B /b/\noops\n").unwrap();
        rules.reload(&settings).unwrap();
        let second = rules.current().unwrap();
        assert!(second.generation > first.generation && second.errors == 1);
        assert_eq!(second.wrong_lines().count(), 1);
    }

    #[test]
    fn no_rules_are_none_and_an_empty_folder_is_a_mistake() {
        assert!(Rules::load(&SpamSettings::default()).unwrap().current().is_none());
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Rules::load(&settings(&folder)), Err(LoadError::NoRules { .. })));
    }
}
