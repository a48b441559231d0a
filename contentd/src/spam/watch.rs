// SPDX-License-Identifier: GPL-3.0-or-later
//! Looks at the rule files now and then, and reads them again when they have changed. What is wrong changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::set::Rules;
use super::settings::SpamSettings;

/// How often it is looked whether a look is due, while looking is switched off.
const IDLE: Duration = Duration::from_secs(60);
/// Files are read when they have not changed for so long: sa-update writes many.
const QUIET: Duration = Duration::from_secs(1);

/// Keeps looking until `stop`. `settings` gives those in force.
pub async fn keep(rules: Arc<Rules>, settings: impl Fn() -> SpamSettings, stop: CancellationToken) {
    rules.show();
    loop {
        let watch = settings().watch.0;
        let pause = if watch.is_zero() { IDLE } else { watch };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        if watch.is_zero() {
            continue;
        }
        tokio::select! {
            () = look(&rules, settings()) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One look.
async fn look(rules: &Arc<Rules>, settings: SpamSettings) {
    let Some(current) = rules.current() else { return };
    let settings = Arc::new(settings);
    let mut last = None;
    loop {
        let (set, known) = (Arc::clone(&current), Arc::clone(&settings));
        let now = tokio::task::spawn_blocking(move || set.change(&known)).await;
        match now {
            Ok(None) | Err(_) => return,
            // Nothing has moved since the last look: they are whole.
            Ok(now) if now == last => break,
            Ok(now) => last = now,
        }
        tokio::time::sleep(QUIET).await;
    }
    let (rules, settings) = (Arc::clone(rules), Arc::clone(&settings));
    let reloaded = tokio::task::spawn_blocking(move || rules.reload(&settings)).await;
    if let Err(error) = reloaded {
        tracing::error!(%error, "reading the spam rules broke off; this is a bug");
    }
}
