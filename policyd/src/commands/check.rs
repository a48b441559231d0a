// SPDX-License-Identifier: GPL-3.0-or-later
//! `policyd check`: the configuration and its list files; with `--postfix` also whether Postfix on this host asks us.
//! Nothing is changed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::exit::{self, fail};
use common::postconf::postconf;
use policyd::config::Settings;
use policyd::limits::stages;
use policyd::postfix::wiring;

use super::say;
use crate::{PROGRAM, read};

pub(crate) fn run(config: Option<PathBuf>, postfix: Option<Option<&Path>>) -> ExitCode {
    let live = match read(config) {
        Ok(live) => live,
        Err(mistakes) => return fail(PROGRAM, exit::CONFIG, mistakes),
    };
    let policy = live.current();
    for notice in policy.lists.notices().into_iter().chain(policy.rules.notices()) {
        say(format_args!("notice: {notice}"));
    }
    if !policy.rules.is_empty() {
        let rules = policy.rules.list();
        let shadows = rules.iter().filter(|rule| rule.shadow).count();
        say(format_args!("rules: {}, of these shadows: {shadows}", rules.len()));
    }
    say(format_args!("configuration: good; {} list entries", policy.lists.len()));
    postfix.map_or(ExitCode::from(exit::OK), |folder| check_postfix(&policy.settings, folder))
}

fn check_postfix(settings: &Settings, folder: Option<&Path>) -> ExitCode {
    let (main, master) = match (postconf(folder, &["-nx"]), postconf(folder, &["-Px"])) {
        (Ok(main), Ok(master)) => (main, master),
        (Err(error), _) | (_, Err(error)) => return fail(PROGRAM, exit::UNAVAILABLE, error),
    };
    let listen = &settings.policyd.listen;
    let wiring = wiring(&main, &master, listen);
    for list in &wiring.asked_by {
        say(format_args!("postfix: asked by {list}"));
    }
    let network = (settings.greylist.ipv4_prefix, settings.greylist.ipv6_prefix);
    // What does not compile was told before.
    let limits: Vec<_> = settings.limit.iter().filter_map(|entry| entry.compile(network).ok()).map(|(limit, _)| limit).collect();
    let of_limits = stages::hints(&main, &master, &wiring.asked_by, &limits);
    for hint in wiring.hints.iter().chain(&of_limits) {
        say(format_args!("postfix: {hint}"));
    }
    if wiring.asked_by.is_empty() {
        let places = listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        return fail(PROGRAM, exit::CONFIG, format!("postfix: no check_policy_service points at {places}"));
    }
    ExitCode::from(exit::OK)
}
