// SPDX-License-Identifier: GPL-3.0-or-later
//! The spam rules that a sub-command is about: those of `[spam] rules`, or others that are named. They are read as contentd reads them.

use std::path::{Path, PathBuf};

use common::config::Source;
use contentd::config::Settings;
use contentd::spam::set::{RuleSet, Rules};

use crate::session::Failure;

/// Which rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// A folder or file of rules instead of those of the configuration; may be given several times
    #[arg(long = "rules", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Which {
    /// Loads them, with the settings of contentd; none when none are configured and none are named.
    pub(super) fn load(&self, config: Option<&Path>) -> Result<(Settings, Option<RuleSet>), Failure> {
        let read = Source::load(config).and_then(|source| Settings::read(&source));
        let mut settings = read.map_err(Failure::Config)?;
        if !self.paths.is_empty() {
            settings.spam.rules.clone_from(&self.paths);
        }
        let set =
            Rules::default().read(&settings.spam).map_err(|error| Failure::Data(format!("spam rules: {error}")))?;
        Ok((settings, set))
    }

    /// The same where there is nothing to do without rules.
    pub(super) fn need(&self, config: Option<&Path>) -> Result<(Settings, RuleSet), Failure> {
        match self.load(config)? {
            (settings, Some(set)) => Ok((settings, set)),
            _ => Err(Failure::Data("no spam rules: [spam] rules is empty, and there is no --rules".to_owned())),
        }
    }
}
