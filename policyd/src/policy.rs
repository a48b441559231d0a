// SPDX-License-Identifier: GPL-3.0-or-later
//! The policy in force: settings with their lists loaded and their texts cut, replaced as a whole when the daemon is reloaded.
//! Whoever decides takes one snapshot and keeps it for that decision.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use common::config::{Mistake, Mistakes};
use common::dns::Resolver;
use common::handover::Secret;

use crate::checks::limits::Limits;
use crate::checks::protected::Protected;
use crate::checks::rules::Counts;
use crate::checks::shield::Shield;
use crate::config::Settings;
use crate::lists::Lists;
use crate::perimeter::Plan;
use crate::recipients::book::Recipients;
use crate::rules::Rules;
use crate::store::greylist::Times;
use crate::store::never::Never;
use crate::template::Template;

/// Everything that decisions depend on, read-only.
#[derive(Debug)]
pub struct Policy {
    /// The settings as read.
    pub settings: Settings,
    /// The lists in force.
    pub lists: Lists,
    /// The perimeter.
    pub perimeter: Plan,
    /// The rate limits.
    pub limits: Limits,
    /// Greylist times in milliseconds.
    pub times: Times,
    /// Which triplets never came again.
    pub never: Never,
    /// Text for a triplet that must wait.
    pub text: Template,
    /// Header for a triplet that has waited; none when it is switched off.
    pub header: Option<Template>,
    /// Name of that header.
    pub header_name: String,
    /// The administrator's rules.
    pub rules: Rules,
    /// How often they match.
    pub rule_counts: Counts,
    /// Against clients that ask far too often; none when it is off.
    pub shield: Option<Arc<Shield>>,
    /// Signs what is handed over to contentd; none when nothing is.
    pub secret: Option<Secret>,
    /// Whose recipients are looked up, and where; none: nobody's.
    pub recipients: Option<Arc<Recipients>>,
    /// Recipients to whom only insiders may write.
    pub protected: Vec<Protected>,
}

impl Policy {
    /// Loads the lists that the settings name.
    pub fn load(settings: Settings) -> Result<Self, Mistakes> {
        Self::load_after(None, settings)
    }

    /// The same, with what goes on as it is of the policy before: directories whose settings have not changed.
    pub fn load_after(before: Option<&Self>, settings: Settings) -> Result<Self, Mistakes> {
        let lists = Lists::load(&settings)?;
        let rules = Rules::compile(&settings.rules, &settings.names(), true)?;
        let greylist = &settings.greylist;
        let header = Some(&greylist.header).filter(|header| !header.is_empty());
        Ok(Self {
            lists,
            limits: Limits::load(&settings)?,
            perimeter: Plan::new(&settings.perimeter)?,
            times: Times {
                delay: greylist.delay.as_millis(),
                retry_window: greylist.retry_window.as_millis(),
                keep_passed: greylist.keep_passed.as_millis(),
            },
            never: Never { after: greylist.never_after.as_millis(), period: greylist.never_period.as_millis() },
            text: template("greylist.text", &greylist.text)?,
            header_name: greylist.header.split(':').next().unwrap_or_default().to_owned(),
            recipients: Recipients::open(
                &settings.recipients,
                &settings.directories,
                before.and_then(|before| before.recipients.as_deref()),
            )?,
            protected: (settings.protected.iter())
                .map(|(origin, protected)| Protected::load(origin, protected))
                .collect::<Result<_, _>>()?,
            header: header.map(|header| template("greylist.header", header)).transpose()?,
            shield: shield(before, &settings)?,
            rule_counts: Counts::new(&rules),
            rules,
            secret: settings.handover.secret().map_err(|message| mistake("handover.secret_file", message))?,
            settings,
        })
    }

    /// Whether networks may be trapped.
    pub fn has_traps(&self) -> bool {
        self.settings.greylist.trap_never > 0 || !self.lists.now().has_none(|tables| &tables.traps)
    }
}

/// The shield, with what it remembers where its settings have not changed.
fn shield(before: Option<&Policy>, settings: &Settings) -> Result<Option<Arc<Shield>>, Mistakes> {
    match before.filter(|before| before.settings.policyd.shield == settings.policyd.shield) {
        Some(before) => Ok(before.shield.clone()),
        None => Ok(Shield::load(&settings.policyd.shield)?.map(Arc::new)),
    }
}

/// Settings made by hand may hold a text that reading them would have refused.
fn template(key: &str, text: &str) -> Result<Template, Mistakes> {
    Template::new(text).map_err(|message| mistake(key, message))
}

fn mistake(key: &str, message: String) -> Mistakes {
    Mistake { origin: "settings".to_owned(), key: key.to_owned(), message }.into()
}

type Reader = Box<dyn Fn() -> Result<Settings, Mistakes> + Send + Sync>;

/// The policy in force, and how it is read anew.
pub struct Live {
    current: ArcSwap<Policy>,
    started: Settings,
    read: Reader,
    resolver: Option<Resolver>,
}

impl Live {
    /// Reads the policy for the first time; `read` is kept for reloads.
    pub fn new(read: impl Fn() -> Result<Settings, Mistakes> + Send + Sync + 'static) -> Result<Self, Mistakes> {
        let policy = Policy::load(read()?)?;
        let started = policy.settings.clone();
        Ok(Self { current: ArcSwap::from_pointee(policy), started, read: Box::new(read), resolver: None })
    }

    /// A policy that never changes.
    pub fn fixed(settings: Settings) -> Result<Self, Mistakes> {
        Self::new(move || Ok(settings.clone()))
    }

    /// The same with a resolver; without one nothing is looked up.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// The resolver that this daemon was started with.
    pub fn resolver(&self) -> Option<Resolver> {
        self.resolver.clone()
    }

    /// The policy for one decision.
    pub fn current(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Reads settings and lists anew and puts them in force together, or neither when anything is wrong. Blocks on files. Gives
    /// the keys that differ from those the daemon started with but need a restart.
    pub fn reload(&self) -> Result<Vec<&'static str>, Mistakes> {
        let mut policy = Policy::load_after(Some(&self.current()), (self.read)()?)?;
        policy.lists.share_stored(&self.current().lists);
        policy.perimeter.continuing(&policy.settings.perimeter, &self.current().perimeter);
        let waiting = self.started.unreloadable(&policy.settings);
        self.current.store(Arc::new(policy));
        Ok(waiting)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("current", &self.current).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Source;

    #[test]
    fn a_reload_is_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, list) = (folder.path().join("octroi.toml"), folder.path().join("clients"));
        let write = |delay: &str, entries: &str| {
            let text = format!("[greylist]\ndelay = '{delay}'\n[access]\nclient_whitelist = ['{}']\n", list.display());
            std::fs::write(&file, text).unwrap();
            std::fs::write(&list, entries).unwrap();
        };
        write("1m", "192.0.2.1\n");
        let path = file.clone();
        let live = Live::new(move || Settings::read(&Source::load(Some(&path))?)).unwrap();
        let seen = |live: &Live| (live.current().times.delay, live.current().lists.len());
        assert_eq!(seen(&live), (60_000, 1));

        write("2m", "192.0.2.1\nnot an entry\n");
        let told = live.reload().unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:2: ", list.display())), "{told}");
        assert_eq!(seen(&live), (60_000, 1), "the good list goes with the old settings");

        write("soon", "192.0.2.1\n192.0.2.2\n");
        let told = live.reload().unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:2: greylist.delay: ", file.display())), "{told}");
        assert_eq!(seen(&live), (60_000, 1));

        write("2m", "192.0.2.1\n192.0.2.2\n");
        assert_eq!(live.reload().unwrap(), Vec::<&str>::new());
        assert_eq!(seen(&live), (120_000, 2));
    }

    #[test]
    fn a_changed_listen_address_is_named() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let changed = Arc::new(AtomicBool::new(false));
        let later = changed.clone();
        let live = Live::new(move || {
            let mut settings = Settings::default();
            if later.load(Ordering::Relaxed) {
                settings.policyd.http = String::new();
            }
            Ok(settings)
        })
        .unwrap();
        changed.store(true, Ordering::Relaxed);
        assert_eq!(live.reload().unwrap(), ["policyd.http"]);
    }
}
