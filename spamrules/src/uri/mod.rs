// SPDX-License-Identifier: GPL-3.0-or-later
//! The URIs of a message, found in text and HTML, in all the forms that rules see. Nothing is looked up.

mod canonical;
mod encode;
mod find;
pub(crate) mod host;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::context::Context;
use crate::domains;
use crate::message::Message;
use crate::regexes::Pattern;
use crate::text::Texts;
use crate::text::html::links::MAX_URI;

/// Most URIs of one message that are kept.
const MAX_URIS: usize = 10_000;

/// Directives about URIs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Patterns whose first group is where a redirector leads.
    redirectors: Vec<Pattern>,
    /// Whether the domains of signatures count as URIs.
    parse_dkim_uris: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { redirectors: Vec::new(), parse_dkim_uris: true }
    }
}

impl Settings {
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        Some(match key {
            "redirector_pattern" => match Pattern::with_groups(value.trim()) {
                Ok(pattern) => {
                    self.redirectors.push(pattern);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            "parse_dkim_uris" => match value.trim().to_ascii_lowercase().as_str() {
                "1" | "yes" => {
                    self.parse_dkim_uris = true;
                    Ok(())
                }
                "0" | "no" => {
                    self.parse_dkim_uris = false;
                    Ok(())
                }
                _ => Err(format!("parse_dkim_uris takes 0 or 1, not {value:?}")),
            },
            _ => return None,
        })
    }
}

/// One URI with what is known about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uri {
    /// As it was found.
    pub(crate) raw: Vec<u8>,
    /// All canonical forms, and where redirectors lead; empty for the domain of a signature.
    pub(crate) cleaned: Vec<Vec<u8>>,
    /// Where it was found: elements of HTML, `parsed`, `unlinked`, `schemeless`, `domainkeys`.
    pub(crate) types: Vec<&'static str>,
    /// Texts of anchors that name it.
    pub(crate) anchors: Vec<Vec<u8>>,
    /// Its hosts, each with the registered domain.
    pub(crate) hosts: Vec<(String, String)>,
}

impl Uri {
    /// The registered domains, each once.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &str> {
        let earlier = |place: usize, domain: &str| self.hosts.iter().take(place).any(|(_, other)| other == domain);
        self.hosts
            .iter()
            .enumerate()
            .filter(move |(place, (_, domain))| !earlier(*place, domain))
            .map(|(_, (_, domain))| domain.as_str())
    }
}

/// The URIs of one message.
#[derive(Debug, Default)]
pub(crate) struct Uris {
    /// What uri rules read.
    pub(crate) list: Vec<Vec<u8>>,
    /// All URIs with what is known about them.
    pub(crate) details: Vec<Uri>,
    /// A URI was too long and has been cut.
    pub(crate) truncated: bool,
    /// There were too many, in the message or inside one another, or redirectors would have cost too much: some are missing.
    pub(crate) limited: bool,
}

impl Uris {
    pub(crate) fn new(context: &Context<'_>) -> Uris {
        Uris::of(context.message, context.texts(), &context.settings.uri, &context.settings.domains)
    }

    /// Gathers the URIs of a message.
    pub(crate) fn of(message: &Message, texts: &Texts, settings: &Settings, domains: &domains::Settings) -> Uris {
        let mut collector = Collector::new(settings, domains);
        let mut seen = HashSet::new();
        for paragraph in &texts.body {
            find::in_text(paragraph, domains, |found| {
                if !seen.contains(found.text) {
                    seen.insert(found.text.to_vec());
                    collector.add_from_text(&found);
                }
            });
        }
        for facts in &texts.html {
            collector.uris.truncated |= facts.links.truncated;
            collector.uris.limited |= facts.links.limited;
            for link in facts.links.iter() {
                let types: &[&'static str] = if link.types.is_empty() { &["parsed"] } else { &link.types };
                let place = collector.add(link.uri.octets(), types, false);
                if let Some(uri) = place.and_then(|place| collector.uris.details.get_mut(place)) {
                    add_anchors(uri, link.anchors.iter().map(crate::text::chars::Chars::octets));
                }
            }
        }
        if settings.parse_dkim_uris {
            collector.add_signers(message);
        }
        collector.finish()
    }
}

fn add_anchors<'a>(uri: &mut Uri, anchors: impl Iterator<Item = &'a [u8]>) {
    let mut seen = HashSet::new();
    for anchor in anchors {
        if seen.insert(anchor) {
            uri.anchors.push(anchor.to_vec());
        }
    }
}

/// Adds what is new to a list that is short.
fn add_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

struct Collector<'a> {
    settings: &'a Settings,
    domains: &'a domains::Settings,
    uris: Uris,
    places: HashMap<Vec<u8>, usize>,
    work: canonical::Work,
}

impl<'a> Collector<'a> {
    fn new(settings: &'a Settings, domains: &'a domains::Settings) -> Collector<'a> {
        Collector { settings, domains, uris: Uris::default(), places: HashMap::new(), work: canonical::Work::default() }
    }

    /// A URI that was found in text, if it is one after all.
    fn add_from_text(&mut self, found: &find::Found<'_>) {
        if let Some((uri, types)) = find::judge(found, self.domains) {
            self.add(&uri, &types, true);
        }
    }

    /// Adds a URI in all its forms; gives its place. `valid`: only with a domain that exists.
    fn add(&mut self, raw: &[u8], types: &[&'static str], valid: bool) -> Option<usize> {
        // The same again has the same forms.
        if let Some(&place) = self.places.get(raw) {
            let known = self.uris.details.get_mut(place).filter(|known| !valid || !known.hosts.is_empty())?;
            types.iter().for_each(|kind| add_new(&mut known.types, *kind));
            return Some(place);
        }
        let cleaned = canonical::forms(raw, &self.settings.redirectors, self.domains, &mut self.work);
        let mut uri = Uri { types: types.to_vec(), ..Uri::default() };
        for mut form in cleaned {
            if form.len() > MAX_URI {
                self.uris.truncated = true;
                form.truncate(MAX_URI);
            }
            if let Some((domain, host)) = host::of_uri(&form, self.domains) {
                add_new(&mut uri.hosts, (host, domain));
            }
            add_new(&mut uri.cleaned, form);
        }
        if valid && uri.hosts.is_empty() {
            return None;
        }
        self.merge(raw, uri)
    }

    fn merge(&mut self, raw: &[u8], uri: Uri) -> Option<usize> {
        let next = self.uris.details.len();
        let place = match self.places.get(raw) {
            Some(&place) => place,
            None if next >= MAX_URIS => {
                self.uris.limited = true;
                return None;
            }
            None => {
                self.places.insert(raw.to_vec(), next);
                self.uris.details.push(Uri { raw: raw.to_vec(), ..Uri::default() });
                next
            }
        };
        let known = self.uris.details.get_mut(place)?;
        uri.cleaned.into_iter().for_each(|form| add_new(&mut known.cleaned, form));
        uri.types.into_iter().for_each(|kind| add_new(&mut known.types, kind));
        uri.hosts.into_iter().for_each(|host| add_new(&mut known.hosts, host));
        Some(place)
    }

    /// The domains of DKIM and DomainKeys signatures.
    fn add_signers(&mut self, message: &Message) {
        for name in ["domainkey-signature", "dkim-signature"] {
            for field in message.headers().all(name) {
                for domain in signers(field.decoded()) {
                    let raw = [b"domainkeys:", domain.as_slice()].concat();
                    let hosts: Vec<_> =
                        host::of_uri(&raw, self.domains).into_iter().map(|(domain, host)| (host, domain)).collect();
                    if !hosts.is_empty() {
                        let types = vec!["domainkeys", "nocanon", "noclean"];
                        self.merge(&raw, Uri { types, hosts, ..Uri::default() });
                    }
                }
            }
        }
    }

    fn finish(mut self) -> Uris {
        let mut seen = HashSet::new();
        let forms = self.uris.details.iter().flat_map(|uri| &uri.cleaned);
        self.uris.list = forms.filter(|form| seen.insert(form.as_slice())).cloned().collect();
        self.uris.limited |= self.work.is_over();
        self.uris
    }
}

/// The values of the `d=` tags of a signature, without blanks.
fn signers(signature: &[u8]) -> Vec<Vec<u8>> {
    static DOMAIN: std::sync::LazyLock<regex::bytes::Regex> = std::sync::LazyLock::new(|| {
        regex::bytes::Regex::new(r"(?-u)\bd\s*=\s*([^;]+)").expect("a pattern written here")
    });
    let value = |found: regex::bytes::Captures<'_>| {
        found
            .get(1)
            .map(|value| value.as_bytes().iter().copied().filter(|&byte| !crate::message::is_space(byte)).collect())
    };
    DOMAIN.captures_iter(signature).filter_map(value).collect()
}
