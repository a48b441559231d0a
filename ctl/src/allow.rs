// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi allow ID`: the next try of the mail that got this id passes, on every host, without waiting for the delay.
//!
//! It is let through once: from then on it has passed, and is known like any other that has waited.

use std::path::Path;
use std::process::ExitCode;

use common::store::Store;
use policyd::config::Settings;
use policyd::explain::Key;
use policyd::store::{Connection, explain};
use policyd::verdict::DecisionId;

use crate::session::{self, Failure, moment, printable, say};
use crate::why;

pub(crate) fn run(config: Option<&Path>, id: DecisionId) -> ExitCode {
    session::run(config, async |settings, store| allow(settings, store, id).await)
}

async fn allow(settings: &Settings, store: &Store, id: DecisionId) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    let (found, now) = why::find(&mut connection, id).await?;
    if found.key == Key::default() {
        let told = format!("{} was not greylisted ({}): there is nothing to let through", id.as_str(), found.reason);
        return Err(Failure::Data(told));
    }
    let delay = found.delay.unwrap_or(settings.greylist.delay.as_millis());
    let window = settings.greylist.retry_window.as_millis();
    explain::allow(&mut connection, &found.key, now, delay, window).await?;
    let Key { client, sender, recipient } = &found.key;
    say(printable(&format!(
        "the next try from {client}, sender <{sender}>, recipient <{recipient}>, passes until {}",
        moment(now.saturating_add(window))
    )));
    Ok(())
}
