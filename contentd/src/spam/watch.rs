// SPDX-License-Identifier: GPL-3.0-or-later
//! Looks at the rule files now and then, and reads them again when they have changed. What is wrong changes nothing. It looks, too, which
//! rules that were switched off are tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::folder::Stamp;
use super::set::Rules;
use super::settings::SpamSettings;

/// How often it is looked whether a look is due, while looking is switched off.
const IDLE: Duration = Duration::from_secs(60);
/// Files are read when they have not changed for so long: sa-update writes many.
const QUIET: Duration = Duration::from_secs(1);

/// Keeps looking until `stop`. `settings` gives those in force.
pub async fn keep(rules: Arc<Rules>, settings: impl Fn() -> SpamSettings, stop: CancellationToken) {
    rules.show();
    let mut refused = None;
    loop {
        let watch = settings().watch.0;
        let pause = if watch.is_zero() { IDLE } else { watch };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        rules.look_for_switched_off();
        if watch.is_zero() {
            continue;
        }
        tokio::select! {
            () = look(&rules, settings(), &mut refused) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One look. `refused` is how the files looked that were last found wrong: they are not read again until something about them changes.
async fn look(rules: &Arc<Rules>, settings: SpamSettings, refused: &mut Option<Stamp>) {
    let Some(current) = rules.current() else { return };
    let settings = Arc::new(settings);
    let mut last = None;
    loop {
        let (set, known) = (Arc::clone(&current), Arc::clone(&settings));
        let now = tokio::task::spawn_blocking(move || set.change(&known)).await;
        match now {
            Ok(None) | Err(_) => return,
            Ok(now) if now == *refused => return,
            // Nothing has moved since the last look: they are whole.
            Ok(now) if now == last => break,
            Ok(now) => last = now,
        }
        tokio::time::sleep(QUIET).await;
    }
    let (rules, settings) = (Arc::clone(rules), Arc::clone(&settings));
    match tokio::task::spawn_blocking(move || rules.reload(&settings)).await {
        Ok(Ok(())) => *refused = None,
        Ok(Err(_)) => *refused = last,
        Err(error) => {
            tracing::error!(%error, "reading the spam rules broke off; this is a bug");
            *refused = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.cf");
        std::fs::write(&file, "body A /a/\n").unwrap();
        let settings = SpamSettings { rules: vec![folder.path().to_owned()], ..SpamSettings::default() };
        let rules = Rules::load(&settings).unwrap();
        let mut refused = None;
        std::fs::write(&file, "").unwrap();
        look(&rules, settings.clone(), &mut refused).await;
        let first = refused.clone();
        assert!(first.is_some());
        // Each reading takes a number, so the next good set tells how often they were read.
        look(&rules, settings.clone(), &mut refused).await;
        assert_eq!(refused, first);
        std::fs::write(&file, "body B /b/\nbody C /c/\n").unwrap();
        look(&rules, settings, &mut refused).await;
        assert_eq!((rules.current().unwrap().generation, refused), (3, None));
    }
}
