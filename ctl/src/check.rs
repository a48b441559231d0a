// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi check`: every mistake of the configuration, of both daemons, with file, line and key; with `--postfix` also how the Postfix of
//! this host is wired to both. Nothing is changed.

use std::path::Path;
use std::process::ExitCode;

use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use contentd::scan::clamd_conf;

use crate::session::say;

/// `postfix`: look at Postfix, at the one configured in this folder.
pub(crate) fn run(config: Option<&Path>, postfix: Option<Option<&Path>>) -> ExitCode {
    match check(config) {
        Ok((policyd, contentd)) => {
            for gap in clamd_conf::check(&contentd.antivirus, &contentd.unpack.limits(), contentd.contentd.max_size) {
                say(format_args!("warning: {gap}"));
            }
            postfix.map_or(ExitCode::from(exit::OK), |folder| wiring(&policyd, &contentd, folder))
        }
        Err(mistakes) => fail(crate::NAME, exit::CONFIG, mistakes),
    }
}

/// Reads the configuration as each daemon does, list files included. What both find wrong is told once.
fn check(config: Option<&Path>) -> Result<(policyd::config::Settings, contentd::config::Settings), Mistakes> {
    let source = Source::load(config)?;
    let mut mistakes = Mistakes::new();
    let policyd = policyd::config::Settings::read(&source);
    let contentd = contentd::config::Settings::read(&source);
    let policy = policyd.clone().and_then(policyd::policy::Policy::load);
    let daemon = contentd.clone().and_then(contentd::daemon::Daemon::new);
    for wrong in [policy.err(), daemon.err()].into_iter().flatten() {
        mistakes.extend(wrong);
    }
    mistakes.into_result(())?;
    Ok((policyd?, contentd?))
}

/// What `policyd check --postfix` and `contentd check --postfix` find.
fn wiring(
    policyd: &policyd::config::Settings,
    contentd: &contentd::config::Settings,
    folder: Option<&Path>,
) -> ExitCode {
    let found = policyd::postfix::wiring_of(policyd, folder)
        .and_then(|wiring| Ok((wiring, contentd::postfix::check(contentd, folder)?)));
    let (wiring, mut problems) = match found {
        Ok(found) => found,
        Err(error) => return fail(crate::NAME, exit::UNAVAILABLE, error),
    };
    wiring.asked_by.iter().for_each(|list| say(format_args!("postfix: policyd is asked by {list}")));
    wiring.hints.iter().for_each(|hint| say(format_args!("postfix: {hint}")));
    if wiring.asked_by.is_empty() {
        problems.insert(0, "postfix: no check_policy_service points at policyd.listen".to_owned());
    }
    match problems.is_empty() {
        true => ExitCode::from(exit::OK),
        false => fail(crate::NAME, exit::CONFIG, problems.join("\n")),
    }
}
