// SPDX-License-Identifier: GPL-3.0-or-later
//! What of a message lists of hashes are asked for, and the directives that say what is left out; asking is [`super::hashbl`]'s.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::emails;
use super::hashbl::{Choice, pattern};
use super::matching::has;
use crate::context::Context;
use crate::domains;
use crate::headers::{list, senders};
use crate::message::Part;
use crate::regexes::Pattern;
use crate::relays::ip;

/// Matches of a pattern in one text that are looked at.
const MOST_MATCHES: usize = 1_000;

/// A value, and what is asked for in its place once it is hashed.
pub(super) struct Found {
    pub(super) shown: String,
    pub(super) octets: Vec<u8>,
}

impl Found {
    pub(super) fn text(text: String) -> Found {
        Found { octets: text.clone().into_bytes(), shown: text }
    }

    pub(super) fn octets(octets: Vec<u8>) -> Found {
        Found { shown: String::from_utf8_lossy(&octets).into_owned(), octets }
    }
}

/// Directives that begin with `hashbl_`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Values, hashes, file names and types that no list is asked for, in small letters.
    ignored: HashSet<String>,
    /// Lists of domains, by their names: those to be asked for, and exceptions.
    lists: HashMap<String, HashMap<String, bool>>,
    /// Domains that are another one under a second name.
    aliases: HashMap<String, String>,
    /// What an address is, where the built-in reading is not wanted: the address, and the address with marks of a quotation.
    address: Option<(Pattern, Pattern)>,
    welcome: Option<Pattern>,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        if let Some(name) = key.strip_prefix("hashbl_acl_") {
            return Some(self.add_list(name, value));
        }
        Some(match key {
            "hashbl_ignore" => {
                self.ignored.extend(value.split_whitespace().map(str::to_ascii_lowercase));
                Ok(())
            }
            "hashbl_email_domain_alias" => self.add_alias(value),
            "hashbl_email_regex" => self.set_address(value),
            "hashbl_email_welcomelist" | "hashbl_email_whitelist" => {
                pattern(value).map(|pattern| self.welcome = Some(pattern))
            }
            _ => return None,
        })
    }

    fn add_list(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name.is_empty() || name.len() > 32 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("{name:?} is not a name for a list"));
        }
        let list = self.lists.entry(name.to_owned()).or_default();
        for word in value.to_ascii_lowercase().split_whitespace() {
            match word.strip_prefix('!') {
                Some(domain) => {
                    list.insert(domain.to_owned(), false);
                }
                None => {
                    list.entry(word.to_owned()).or_insert(true);
                }
            }
        }
        Ok(())
    }

    fn add_alias(&mut self, value: &str) -> Result<(), String> {
        let value = value.to_ascii_lowercase();
        let mut words = value.split_whitespace();
        match (words.next(), words.next()) {
            (Some(domain), Some(first)) if !value.contains('@') => {
                for alias in std::iter::once(first).chain(words) {
                    self.aliases.insert(alias.to_owned(), domain.to_owned());
                }
                Ok(())
            }
            _ => Err("a domain and its other names are to be given".into()),
        }
    }

    fn set_address(&mut self, value: &str) -> Result<(), String> {
        let text = value.trim().replace("_TLDS_", "(?i:[a-z]{2,63}|xn--[a-z0-9-]{2,59})");
        let quoted = format!(
            r"<?(?<!mailto:)(?:{text})(?:>|\s{{1,10}}(?!(?i:fa(?:x|csi)|tel|phone|e?-?mail))(?i:[a-z]){{2,11}}:)"
        );
        self.address = Some((pattern(&text)?, pattern(&quoted)?));
        Ok(())
    }

    pub(super) fn is_ignored(&self, text: &str) -> bool {
        !self.ignored.is_empty() && self.ignored.contains(&text.to_ascii_lowercase())
    }

    /// Whether a list of domains has a domain; `all` has every one, a list that nobody gave none.
    fn lists(&self, name: &str, domain: &str) -> bool {
        match self.lists.get(name) {
            Some(list) => list.get(domain).copied().unwrap_or(name == "all"),
            None => name == "all",
        }
    }

    /// Whether an address is that of a role or of a list, or was made by a program.
    fn is_welcome(&self, address: &str) -> bool {
        match &self.welcome {
            Some(pattern) => pattern.is_match(address.as_bytes()),
            None => has!(
                r"(?xi)^(?: abuse | support | sales | info | helpdesk | contact | kontakt | (?:post|host|domain)master | undisclosed.*
                   | request-[a-f0-9]{16} | bounced?- | .+=.+=.+
                   | [a-f0-9]{8}(?: \.[a-f0-9]{8} | (?:-[a-f0-9]{4}){3}-[a-f0-9]{12} ) )@",
                address
            ),
        }
    }
}

/// Addresses from these places (field names, `ALL`, `ALLFROM`, `body`, between slashes), bent to the options, each once.
pub(super) fn emails(context: &Context<'_>, choice: &Choice<'_>, sources: &str, list: Option<&str>) -> Vec<String> {
    let settings = &context.settings.hashes;
    let recipients = own_addresses(context);
    let mut seen: Vec<String> = Vec::new();
    let mut out: Vec<String> = Vec::new();
    for address in sources.split('/').flat_map(|source| addresses(context, choice, source.trim())) {
        let Some((user, domain)) = address.rsplit_once('@').filter(|(_, domain)| !domain.is_empty()) else { continue };
        let lower = domain.to_ascii_lowercase();
        let domain = settings.aliases.get(&lower).map_or(domain, String::as_str);
        let address = format!("{user}@{domain}");
        let wanted = list.is_none_or(|list| settings.lists(list, &domain.to_ascii_lowercase()));
        let skipped = list.is_none() && is_skipped(context, &domain.to_ascii_lowercase());
        if !wanted || skipped || seen.contains(&address) {
            continue;
        }
        if !recipients.contains(&address.to_ascii_lowercase()) && !settings.is_welcome(&address) {
            let asked = shortened(context, choice, user, domain);
            if !out.contains(&asked) {
                out.push(asked);
            }
        }
        seen.push(address);
    }
    out
}

/// The addresses of whoever gets the message, in small letters.
fn own_addresses(context: &Context<'_>) -> Vec<String> {
    let fields = ["X-Original-To:addr", "Apparently-To:addr", "Delivered-To:addr", "Envelope-To:addr"];
    fields.iter().flat_map(|field| list(context, field)).map(|address| address.to_ascii_lowercase()).collect()
}

/// The part of an address that the options ask for.
fn shortened(context: &Context<'_>, choice: &Choice<'_>, user: &str, domain: &str) -> String {
    let mut user = user.to_owned();
    if choice.has("nodot") {
        user.retain(|letter| letter != '.');
    }
    if choice.has("notag")
        && let Some(sign) = user.find('+')
    {
        user.truncate(sign);
    }
    if choice.has("domain") {
        context.settings.domains.registered(domain)
    } else if choice.has("host") {
        domain.to_owned()
    } else if choice.has("user") {
        user
    } else {
        format!("{user}@{domain}")
    }
}

fn addresses(context: &Context<'_>, choice: &Choice<'_>, source: &str) -> Vec<String> {
    let text = match source {
        "" => return Vec::new(),
        "ALLFROM" => return senders(context).to_vec(),
        "body" => body(context, choice),
        field => list(context, field).join("\n").into_bytes(),
    };
    match &context.settings.hashes.address {
        Some((address, _)) => {
            let found = address.groups(&text, 0, MOST_MATCHES).into_iter();
            found.map(|address| String::from_utf8_lossy(address).into_owned()).collect()
        }
        None => emails::all(&text, &context.settings.domains),
    }
}

/// The text in which addresses are looked for: links first, without URIs and quoted senders where the options say so.
fn body(context: &Context<'_>, choice: &Choice<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    for link in emails::mail_links(context) {
        text.extend_from_slice(link);
        text.push(b'\n');
    }
    let mut shown = context.texts().body.concat();
    if choice.has("nouri") {
        shown = emails::without_links(&shown);
    }
    if choice.has("noquote") {
        shown = match &context.settings.hashes.address {
            Some((_, quoted)) => without(&shown, quoted),
            None => emails::without_quoted(&shown, &context.settings.domains),
        };
    }
    text.extend_from_slice(&shown);
    text
}

/// A text with what a pattern finds taken out.
fn without(text: &[u8], pattern: &Pattern) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    for found in pattern.groups(text, 0, MOST_MATCHES) {
        let Some(at) = memchr::memmem::find(rest, found).filter(|_| !found.is_empty()) else { continue };
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.push(b' ');
        rest = rest.get(at + found.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn is_skipped(context: &Context<'_>, host: &str) -> bool {
    let zones = &context.settings.zones;
    zones.is_skipped(host) || zones.is_skipped(&context.settings.domains.registered(host))
}

/// All forms of the URIs that have a host nobody has excepted.
pub(super) fn uris<'c>(context: &'c Context<'_>) -> Vec<&'c [u8]> {
    let zones = &context.settings.zones;
    let uris = context.uris().details.iter().filter(|uri| {
        let linked = uri.types.contains(&"a") || uri.types.contains(&"parsed");
        let mail = uri.raw.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"mailto:"));
        let skipped = uri.hosts.iter().any(|(host, domain)| zones.is_skipped(host) || zones.is_skipped(domain));
        linked && !mail && !skipped && !uri.hosts.is_empty()
    });
    uris.flat_map(|uri| &uri.cleaned).map(Vec::as_slice).collect()
}

/// What the first group of a pattern finds in the text that the rule reads.
pub(super) fn texts(context: &Context<'_>, pattern: &Pattern) -> Vec<String> {
    let texts = context.texts();
    let texts = if context.reads_source() { &texts.rawbody } else { &texts.body };
    let found = texts.iter().flat_map(|text| pattern.groups(text, 1, MOST_MATCHES));
    found.take(MOST_MATCHES).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// The value of a tag as the options want it; `None` when they do not.
pub(super) fn of_tag(context: &Context<'_>, choice: &Choice<'_>, value: String) -> Option<String> {
    if let Ok(address) = value.parse::<IpAddr>() {
        let wanted = (!choice.has("ipv4") || address.is_ipv4()) && (!choice.has("ipv6") || address.is_ipv6());
        let value = if choice.has("revip") { ip::reversed(&value)? } else { value };
        return wanted.then_some(value);
    }
    if ["ip", "ipv4", "ipv6"].iter().any(|word| choice.has(word)) {
        return None;
    }
    let well_formed = domains::is_well_formed(&value);
    let (name, top) = (choice.has("fqdn") || choice.has("trim"), choice.has("tld") || choice.has("trim"));
    let lower = value.to_ascii_lowercase();
    if (name && !well_formed)
        || (top && !context.settings.domains.has_tld(&lower))
        || (well_formed && is_skipped(context, &lower))
    {
        return None;
    }
    Some(if choice.has("trim") { context.settings.domains.registered(&value) } else { value })
}

/// The decoded contents of parts that are neither ignored nor too small or too large, shown by their names or types.
pub(super) fn attachments(context: &Context<'_>, choice: &Choice<'_>) -> Vec<Found> {
    let settings = &context.settings.hashes;
    let name = |part: &Part| part.name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned());
    let fits = |length: usize| {
        choice.number("minsize").is_none_or(|least| length >= least)
            && choice.number("maxsize").is_none_or(|most| length <= most)
    };
    let parts = context.message.leaves().filter(|part| {
        let octets = part.decoded();
        let ignored = settings.is_ignored(&part.kind) || name(part).is_some_and(|name| settings.is_ignored(&name));
        !octets.is_empty() && !ignored && fits(octets.len())
    });
    parts
        .map(|part| Found { shown: name(part).unwrap_or_else(|| part.kind.clone()), octets: part.decoded().to_vec() })
        .collect()
}
