// SPDX-License-Identifier: GPL-3.0-or-later
//! `policyd check`: the configuration and its list files; with `--postfix` also whether Postfix on this host asks us.
//! postconf is called with fixed arguments and only reads.

use std::path::PathBuf;
use std::process::ExitCode;

use common::exit::{self, fail};
use policyd::config::Settings;
use policyd::postfix::wiring;

use super::say;
use crate::{PROGRAM, read};

pub(crate) async fn run(config: Option<PathBuf>, postfix: bool) -> ExitCode {
    let live = match read(config) {
        Ok(live) => live,
        Err(mistakes) => return fail(PROGRAM, exit::CONFIG, mistakes),
    };
    let policy = live.current();
    say(format_args!("configuration: good; {} list entries", policy.lists.len()));
    if postfix { check_postfix(&policy.settings).await } else { ExitCode::from(exit::OK) }
}

async fn check_postfix(settings: &Settings) -> ExitCode {
    let (main, master) = match (postconf("-nx").await, postconf("-Px").await) {
        (Ok(main), Ok(master)) => (main, master),
        (Err(error), _) | (_, Err(error)) => return fail(PROGRAM, exit::UNAVAILABLE, error),
    };
    let listen = &settings.policyd.listen;
    let wiring = wiring(&main, &master, listen);
    for list in &wiring.asked_by {
        say(format_args!("postfix: asked by {list}"));
    }
    for hint in &wiring.hints {
        say(format_args!("postfix: {hint}"));
    }
    if wiring.asked_by.is_empty() {
        let places = listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        return fail(PROGRAM, exit::CONFIG, format!("postfix: no check_policy_service points at {places}"));
    }
    ExitCode::from(exit::OK)
}

/// What postconf prints for one option.
async fn postconf(option: &str) -> Result<String, String> {
    // Debian has it in a folder that is not in everybody's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = tokio::process::Command::new("postconf");
    command.arg(option).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run postconf: {error}"))?;
    if !output.status.success() {
        return Err(format!("postconf {option}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
