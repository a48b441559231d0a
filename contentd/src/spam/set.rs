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
use spamrules::{Options, Ruleset, Severity};

use super::folder::{self, FolderError, Stamp};
use super::settings::SpamSettings;

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
}

impl RuleSet {
    /// Whether its files have changed since.
    pub fn is_stale(&self, settings: &SpamSettings) -> bool {
        !self.stamp.holds(&settings.rules)
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
        let rules = Ruleset::load(files, Options::default(), &include);
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
            rules,
        })
    }
}

/// The holder of the set in force.
#[derive(Debug, Default)]
pub struct Rules {
    current: ArcSwapOption<RuleSet>,
    generations: AtomicU64,
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

    /// Reads a set without putting it in force; none when no rules are configured. Blocks.
    pub fn read(&self, settings: &SpamSettings) -> Result<Option<RuleSet>, LoadError> {
        if settings.rules.is_empty() {
            return Ok(None);
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        RuleSet::read(settings, generation).map(Some)
    }

    /// Puts a set in force for the messages to come.
    pub fn put(&self, set: Option<RuleSet>) {
        self.current.store(set.map(Arc::new));
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
    fn no_rules_are_none_and_an_empty_folder_is_a_mistake() {
        assert!(Rules::load(&SpamSettings::default()).unwrap().current().is_none());
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Rules::load(&settings(&folder)), Err(LoadError::NoRules { .. })));
    }
}
