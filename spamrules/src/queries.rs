// SPDX-License-Identifier: GPL-3.0-or-later
//! Which questions to DNS the rule files permit: `dns_query_restriction`, `skip_rbl_checks`, `skip_uribl_checks` (Mail::SpamAssassin::Conf).
//! What is not permitted is "not known", as if nobody could be asked.

use std::collections::HashMap;
use std::ops::Deref;

use crate::answers::{Answers, Record};

/// Directives about questions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Domains and whether names in them are not to be asked for; `*` is any.
    restricted: HashMap<Box<str>, bool>,
    /// Lists of relays and senders are not asked.
    pub(crate) skip_relays: bool,
    /// Lists of URIs are not asked.
    pub(crate) skip_uris: bool,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        Some(match key {
            "dns_query_restriction" => self.restrict(value),
            "clear_dns_query_restriction" | "clear_dns_query_restrictions" => {
                self.restricted.clear();
                Ok(())
            }
            "skip_rbl_checks" => switch(value).map(|skip| self.skip_relays = skip),
            "skip_uribl_checks" => switch(value).map(|skip| self.skip_uris = skip),
            _ => return None,
        })
    }

    fn restrict(&mut self, value: &str) -> Result<(), String> {
        let mut words = value.split_whitespace();
        let deny = match words.next().map(str::to_ascii_lowercase).as_deref() {
            Some("deny") => true,
            Some("allow") => false,
            _ => return Err("allow or deny is to be given, then domains".into()),
        };
        let domains = words.map(|domain| domain.strip_prefix('.').unwrap_or(domain));
        let domains = domains.map(|domain| domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase());
        self.restricted.extend(domains.map(|domain| (domain.into_boxed_str(), deny)));
        Ok(())
    }

    /// Whether a name may be asked for: the nearest domain that is named decides.
    fn permits(&self, name: &str) -> bool {
        if self.restricted.is_empty() {
            return true;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let domains = std::iter::successors(Some(name.as_str()), |name| name.split_once('.').map(|(_, above)| above));
        let deny = domains.chain(["*"]).find_map(|domain| self.restricted.get(domain));
        !deny.copied().unwrap_or(false)
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        other => Err(format!("{other} is neither 0 nor 1")),
    }
}

/// The caller's answers, as far as the settings permit to ask for them.
#[derive(Clone, Copy)]
pub(crate) struct Permitted<'a> {
    answers: &'a dyn Answers,
    settings: &'a Settings,
}

impl<'a> Permitted<'a> {
    pub(crate) fn new(answers: &'a dyn Answers, settings: &'a Settings) -> Permitted<'a> {
        Permitted { answers, settings }
    }

    /// The answers without a look at what is permitted, for code of the caller's.
    pub(crate) fn all(&self) -> &'a dyn Answers {
        self.answers
    }

    /// [`Answers::dns`] for names that are permitted.
    pub(crate) fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
        if self.settings.permits(name) { self.answers.dns(name, record) } else { None }
    }
}

impl<'a> Deref for Permitted<'a> {
    type Target = dyn Answers + 'a;

    fn deref(&self) -> &Self::Target {
        self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_domain_decides() {
        let mut settings = Settings::default();
        assert!(settings.permits("a.surbl.org"));
        for value in ["deny surbl.org .Spamhaus.org.", "allow zen.spamhaus.org"] {
            settings.set("dns_query_restriction", value).unwrap().unwrap();
        }
        for (name, permitted) in [
            ("2.0.0.127.multi.SURBL.org.", false),
            ("surbl.org", false),
            ("notsurbl.org", true),
            ("2.0.0.127.zen.spamhaus.org", true),
            ("dbl.spamhaus.org", false),
            ("org", true),
        ] {
            assert_eq!(settings.permits(name), permitted, "{name}");
        }
        settings.set("dns_query_restriction", "deny *").unwrap().unwrap();
        assert!(!settings.permits("example.org") && settings.permits("zen.spamhaus.org"));
        assert!(settings.set("dns_query_restriction", "surbl.org").unwrap().is_err());
        settings.set("clear_dns_query_restriction", "").unwrap().unwrap();
        assert!(settings.permits("surbl.org"));
        assert!(settings.set("skip_rbl_checks", "2").unwrap().is_err() && settings.set("dns_server", "::1").is_none());
    }
}
