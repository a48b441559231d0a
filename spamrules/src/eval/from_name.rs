// SPDX-License-Identifier: GPL-3.0-or-later
//! A display name that holds another address than the sender's own: `"boss@example.org" <someone@elsewhere.example>`.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::matching::{AddressList, pattern};
use super::{Argument, Eval, lists};
use crate::context::Context;
use crate::domains;
use crate::headers::{recipients, text};
use crate::relays::ip;

/// Directives that begin with `fns_`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Addresses that belong to one owner, by owner.
    owners: BTreeMap<String, AddressList>,
    /// How much else the name may hold.
    extra: i64,
    /// Signing domains whose mail is not looked at.
    signers: HashSet<String>,
    /// Fields whose presence means that mail is not looked at.
    fields: Vec<String>,
    /// What counts as spoofed: 0 another address, 1 another owner too, 2 another domain too.
    level: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { owners: BTreeMap::new(), extra: 50, signers: HashSet::new(), fields: Vec::new(), level: 1 }
    }
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        Some(match key {
            "fns_add_addrlist" => lists::named(value.trim()).map(|(owner, addresses)| {
                let list = self.owners.entry(owner.to_ascii_lowercase()).or_default();
                addresses.split_whitespace().for_each(|address| list.add(address, ()));
            }),
            "fns_remove_addrlist" => lists::named(value.trim()).map(|(owner, addresses)| {
                if let Some(list) = self.owners.get_mut(&owner.to_ascii_lowercase()) {
                    addresses.split_whitespace().for_each(|address| list.remove(address));
                }
            }),
            "fns_extrachars" => {
                value.trim().parse().map(|number| self.extra = number).map_err(|_| "not a number".into())
            }
            "fns_ignore_dkim" => {
                self.signers.extend(value.split_whitespace().map(str::to_ascii_lowercase));
                Ok(())
            }
            "fns_ignore_headers" => {
                self.fields.extend(value.split_whitespace().map(str::to_string));
                Ok(())
            }
            "fns_check" => match value.trim().parse() {
                Ok(level @ 0..=2) => {
                    self.level = level;
                    Ok(())
                }
                _ => Err("0, 1 or 2 is to be given".into()),
            },
            _ => return None,
        })
    }

    fn owner(&self, address: &str, domain: &str) -> String {
        let listed =
            |address: &str| self.owners.iter().find(|(_, list)| list.holds(address)).map(|(owner, _)| owner.clone());
        listed(address)
            .or_else(|| {
                let (user, host) = address.split_once('@')?;
                (host != domain).then(|| listed(&format!("{user}@{domain}"))).flatten()
            })
            .unwrap_or_else(|| domain.split('.').next().unwrap_or(domain).to_string())
    }
}

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_fromname_spoof" => check_fromname_spoof,
        "check_fromname_different" => |context, _| u32::from(facts(context).address),
        "check_fromname_domain_differ" => |context, _| u32::from(facts(context).domain),
        "check_fromname_owners_differ" => |context, _| u32::from(facts(context).owner),
        "check_fromname_contains_email" => |context, _| u32::from(facts(context).found),
        "check_fromname_equals_to" => |context, _| u32::from(facts(context).is_recipient),
        "check_fromname_equals_replyto" => |context, _| u32::from(facts(context).is_reply),
        _ => return None,
    })
}

/// What the address in a display name is, compared with the sender's own.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked for by a rule of its own")]
struct Facts {
    found: bool,
    address: bool,
    domain: bool,
    owner: bool,
    is_reply: bool,
    is_recipient: bool,
}

fn facts(context: &Context<'_>) -> Rc<Facts> {
    context.memo(|context| {
        let mut facts = Facts::default();
        compare(context, &mut facts);
        facts
    })
}

fn compare(context: &Context<'_>, facts: &mut Facts) -> Option<()> {
    let settings = &context.settings.from_name;
    let signed =
        || context.answers.dkim().unwrap_or_default().iter().any(|s| s.valid && settings.signers.contains(&s.domain));
    let named = |field: &String| !text(context, field).is_empty();
    if (!settings.signers.is_empty() && signed()) || settings.fields.iter().any(named) {
        return None;
    }
    let own = text(context, "From:addr").to_ascii_lowercase();
    let own_domain = domain_of(context, &own)?;
    let name = text(context, "From:name").to_ascii_lowercase();
    let claimed = address_in(&name)?;
    let claimed_domain = domain_of(context, claimed)?;
    facts.found = true;
    if distance(&name, claimed) > settings.extra {
        return None;
    }
    facts.address = claimed != own;
    facts.domain = claimed_domain != own_domain;
    facts.owner = settings.owner(claimed, &claimed_domain) != settings.owner(&own, &own_domain);
    facts.is_reply = claimed == text(context, "Reply-To:addr").to_ascii_lowercase();
    facts.is_recipient = recipients(context).iter().any(|to| to == claimed);
    if facts.address || facts.owner {
        for (tag, value) in [
            ("FNSFNAMEADDR", claimed),
            ("FNSFNAMEDOMAIN", &claimed_domain),
            ("FNSFADDRADDR", &own),
            ("FNSFADDRDOMAIN", &own_domain),
        ] {
            context.set_tag(tag, vec![value.to_string()]);
        }
    }
    Some(())
}

/// The first address of a name.
fn address_in(name: &str) -> Option<&str> {
    let found = pattern!(r"\b[\w.!#$%&'*+/=?^_`{|}~-]+@\w[\w-]*\.\w[\w.-]+").find_iter(name.as_bytes());
    found.filter(|m| m.as_bytes().last().is_some_and(|b| ip::is_word(*b))).find_map(|m| name.get(m.range()))
}

/// How much of a name is not the address: its other bytes, those that are neither letter nor digit twice.
fn distance(name: &str, address: &str) -> i64 {
    let signs = |text: &str| text.bytes().filter(|b| !b.is_ascii_lowercase() && !b.is_ascii_digit()).count();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX / 4);
    count(name.len()) + count(signs(name)) - count(signs(address)) - count(address.len())
}

/// The registered domain of an address, if it can be one; an IP address is its own.
pub(super) fn domain_of(context: &Context<'_>, address: &str) -> Option<String> {
    let address = address.split('?').next().unwrap_or_default();
    let (user, host) = address.rsplit_once('@')?;
    if user.contains('@') {
        return None;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Some(host.to_string());
    }
    let domains = &context.settings.domains;
    (domains::is_well_formed(host) && domains.has_tld(host.trim_end_matches('.'))).then(|| domains.registered(host))
}

/// `(level)`: see [`Settings::level`].
fn check_fromname_spoof(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let facts = facts(context);
    let level = match arguments.first().map(Argument::as_str) {
        Some("0") => 0,
        Some("1") => 1,
        Some("2") => 2,
        _ => context.settings.from_name.level,
    };
    u32::from(facts.address && (level == 0 || (level == 1 && facts.owner) || (level == 2 && facts.domain)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{eval, with};
    use crate::answers::NoAnswers;

    const SPOOF: &str = "From: \"boss@example.org\" <x@other.com>\nTo: boss@example.org\nReply-To: boss@example.org\n";

    #[test]
    fn another_address_in_the_name() {
        for name in [
            "check_fromname_spoof",
            "check_fromname_different",
            "check_fromname_equals_to",
            "check_fromname_equals_replyto",
        ] {
            assert_eq!(eval(SPOOF, name, &[]), 1, "{name}");
            assert_eq!(eval("From: \"The Boss\" <x@other.com>\n", name, &[]), 0, "{name}");
            assert_eq!(eval("From: \"x@other.com\" <x@other.com>\n", name, &[]), 0, "{name}");
        }
        assert_eq!(eval("From: \"x@other.com\" <x@other.com>\n", "check_fromname_contains_email", &[]), 1);
    }

    #[test]
    fn owners_and_exceptions() {
        let message = format!("{SPOOF}X-List: y\n\nbody\n");
        let same = [("fns_add_addrlist", "(us) *@example.org *@other.com")];
        assert_eq!(with(&message, &same, &NoAnswers, "check_fromname_spoof", &[]), 0);
        assert_eq!(with(&message, &[("fns_ignore_headers", "X-List")], &NoAnswers, "check_fromname_spoof", &[]), 0);
        assert_eq!(with(&message, &[("fns_check", "2")], &NoAnswers, "check_fromname_spoof", &[]), 1);
        let long = "From: \"a long name in which an address like boss@example.org is not the point of it at all\" <x@other.com>\n";
        assert_eq!(eval(long, "check_fromname_spoof", &[]), 0);
    }
}
