// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi check`: every mistake of the configuration, of both daemons, with file, line and key.

use std::path::Path;
use std::process::ExitCode;

use common::config::{Mistakes, Source};
use common::exit::{self, fail};

pub(crate) fn run(config: Option<&Path>) -> ExitCode {
    match check(config) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(mistakes) => fail(crate::NAME, exit::CONFIG, mistakes),
    }
}

/// Reads the configuration as each daemon does, list files included. What both find wrong is told once.
fn check(config: Option<&Path>) -> Result<(), Mistakes> {
    let source = Source::load(config)?;
    let mut mistakes = Mistakes::new();
    let policyd = policyd::config::Settings::read(&source).and_then(policyd::policy::Policy::load);
    let contentd = contentd::config::Settings::read(&source).and_then(contentd::daemon::Daemon::new);
    for wrong in [policyd.err(), contentd.err()].into_iter().flatten() {
        mistakes.extend(wrong);
    }
    mistakes.into_result(())
}
