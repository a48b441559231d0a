// SPDX-License-Identifier: GPL-3.0-or-later
//! Names of hosts: which top-level domains exist, where the registered domain of a name begins, which names are well formed.
//!
//! The lists come from the rule files (`util_rb_tld`, `util_rb_2tld`, `util_rb_3tld`), not from the public suffix list: rules were
//! written for them. Names are compared in ASCII; names in other scripts are left as they are.

use std::collections::HashSet;

/// The lists of registries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    tlds: HashSet<Box<str>>,
    /// `co.uk` and the like, below which domains are registered.
    second: HashSet<Box<str>>,
    /// `demon.co.uk` and the like.
    third: HashSet<Box<str>>,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let list = match key {
            "util_rb_tld" => &mut self.tlds,
            "util_rb_2tld" => &mut self.second,
            "util_rb_3tld" => &mut self.third,
            "clear_util_rb" => {
                *self = Self::default();
                return Some(Ok(()));
            }
            _ => return None,
        };
        list.extend(value.split_whitespace().map(|name| name.to_ascii_lowercase().into_boxed_str()));
        Some(if value.trim().is_empty() { Err("no domain named".into()) } else { Ok(()) })
    }

    /// Whether a label is a top-level domain.
    pub(crate) fn is_tld(&self, label: &str) -> bool {
        if label.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.tlds.contains(label.to_ascii_lowercase().as_str());
        }
        self.tlds.contains(label)
    }

    /// Whether a name has at least two labels and ends with a known top-level domain.
    pub(crate) fn has_tld(&self, name: &str) -> bool {
        !name.contains(char::is_whitespace) && name.rsplit_once('.').is_some_and(|(_, tld)| self.is_tld(tld))
    }

    /// The registered domain of a name, in lower case: `www.example.co.uk` gives `example.co.uk`.
    pub(crate) fn registered(&self, name: &str) -> String {
        let lower = name.trim_matches('.').to_ascii_lowercase();
        let mut labels = if lower.contains("..") {
            lower.split('.').filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".")
        } else {
            lower
        };
        // From the whole name down to its last label; the registered domain has one label more than its registry.
        let (mut rest, mut registered) = (labels.as_str(), labels.as_str());
        while let Some((_, below)) = rest.split_once('.')
            && !self.is_registry(rest)
        {
            (registered, rest) = (rest, below);
        }
        labels.drain(..labels.len() - registered.len());
        labels
    }

    /// Whether domains are registered directly below this name.
    fn is_registry(&self, name: &str) -> bool {
        let mut from_last = name.rsplit('.');
        let last = [(); 5].map(|()| from_last.next());
        match last {
            [Some(_), Some(_), None, ..] => self.second.contains(name),
            [Some("us"), Some(state), Some(_), None, _] => is_state(state),
            [Some(_), Some(_), Some(_), None, _] => self.third.contains(name),
            [Some("us"), Some(state), Some("k12"), Some("pvt"), None]
            | [Some("us"), Some(state), Some(_), Some("ci" | "co"), None] => is_state(state),
            _ => false,
        }
    }
}

/// States and territories with their own registries below `us` (RFC 1480).
fn is_state(label: &str) -> bool {
    const STATES: &str = " ak al ar az ca co ct dc de fl ga gu hi ia id il in ks ky la ma md me mi mn mo ms mt nc nd ne nh nj nm nv ny oh ok or pa pr ri sc sd tn tx ut va vi vt wa wi wv wy ";
    label.len() == 2 && STATES.split_ascii_whitespace().any(|state| state == label)
}

/// Whether a name is a well-formed host name of at least two labels (RFC 1123, underscores allowed below the domain).
pub(crate) fn is_well_formed(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    if name.len() > 253 {
        return false;
    }
    name.contains('.') && name.rsplit('.').enumerate().all(|(level, label)| is_label(label, level > 1))
}

fn is_label(label: &str, underscores: bool) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && (underscores || !label.contains('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        for (key, value) in
            [("util_rb_tld", "com org uk us de"), ("util_rb_2tld", "co.uk fed.us"), ("util_rb_3tld", "demon.co.uk")]
        {
            settings.set(key, value).unwrap().unwrap();
        }
        settings
    }

    #[test]
    fn registered_domains() {
        let settings = settings();
        for (name, domain) in [
            ("www.example.com", "example.com"),
            ("WWW.Example.co.uk", "example.co.uk"),
            ("a.b.demon.co.uk", "b.demon.co.uk"),
            ("fire.ci.los-angeles.ca.us", "fire.ci.los-angeles.ca.us"),
            ("x.fire.ci.los-angeles.ca.us", "fire.ci.los-angeles.ca.us"),
            ("x.town.ca.us", "x.town.ca.us"),
            ("..example..com.", "example.com"),
            ("com", "com"),
            ("", ""),
        ] {
            assert_eq!(settings.registered(name), domain, "{name}");
        }
    }

    #[test]
    fn names() {
        for good in ["example.com", "a_b.example.com", "1.example.com", "example.com."] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["com", "exa_mple.com", "-a.com", "a-.com", "a..com", "a b.com", "ä.com", ""] {
            assert!(!is_well_formed(bad), "{bad}");
        }
        assert!(settings().has_tld("x.COM") && !settings().has_tld("com") && !settings().has_tld("x.invalid"));
    }

    proptest! {
        #[test]
        fn any_name_has_a_registered_domain(name in "[a-z.us]{0,30}|.{0,30}") {
            let _ = settings().registered(&name);
            let _ = is_well_formed(&name);
        }
    }
}
