// SPDX-License-Identifier: GPL-3.0-or-later
//! Addresses at providers where anybody can have one: as sender, for replies, in the text.
//!
//! The lists come from `freemail_domains`. A reply address of another free mailbox than the sender's is how advance-fee fraud works.

use std::collections::HashSet;
use std::rc::Rc;

use super::matching::has;
use super::{Argument, Eval, emails};
use crate::context::Context;
use crate::headers::{found, list, senders};

/// Directives that begin with `freemail_`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    domains: HashSet<Box<str>>,
    /// With `*` (within a label) and `?`.
    patterns: Vec<String>,
    /// Addresses and domains that do not count.
    exempt: HashSet<Box<str>>,
    max_body_emails: usize,
    max_body_freemails: usize,
    skip_when_over_max: bool,
    skip_bulk_envfrom: bool,
    import_welcomelist_auth: bool,
    import_def_welcomelist_auth: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domains: HashSet::new(),
            patterns: Vec::new(),
            exempt: HashSet::new(),
            max_body_emails: 5,
            max_body_freemails: 3,
            skip_when_over_max: true,
            skip_bulk_envfrom: true,
            import_welcomelist_auth: false,
            import_def_welcomelist_auth: false,
        }
    }
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let key = key.replace("whitelist", "welcomelist");
        let value = value.trim();
        let number = || value.parse::<usize>().map_err(|_| "not a number".to_string());
        Some(match key.as_str() {
            "freemail_domains" => self.add_domains(value),
            "freemail_welcomelist" => {
                self.exempt.extend(value.split_whitespace().map(|w| w.to_ascii_lowercase().into_boxed_str()));
                Ok(())
            }
            "freemail_max_body_emails" => number().map(|n| self.max_body_emails = n),
            "freemail_max_body_freemails" => number().map(|n| self.max_body_freemails = n),
            "freemail_skip_when_over_max" => number().map(|n| self.skip_when_over_max = n > 0),
            "freemail_skip_bulk_envfrom" => number().map(|n| self.skip_bulk_envfrom = n > 0),
            "freemail_import_welcomelist_auth" => number().map(|n| self.import_welcomelist_auth = n > 0),
            "freemail_import_def_welcomelist_auth" => number().map(|n| self.import_def_welcomelist_auth = n > 0),
            "freemail_add_describe_email" => number().map(|_| ()),
            _ => return None,
        })
    }

    fn add_domains(&mut self, value: &str) -> Result<(), String> {
        for word in value.split_whitespace() {
            let domain = word.to_ascii_lowercase();
            if !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".*?-".contains(&b)) {
                return Err(format!("not a domain: {word}"));
            }
            if domain.contains(['*', '?']) {
                self.patterns.push(domain);
            } else {
                self.domains.insert(domain.into_boxed_str());
            }
        }
        Ok(())
    }

    fn is_on(&self) -> bool {
        !self.domains.is_empty() || !self.patterns.is_empty()
    }

    fn is_free(&self, context: &Context<'_>, email: &str) -> bool {
        let domain = email.rsplit_once('@').map_or(email, |(_, domain)| domain);
        let imported = |on: bool, name: &str| on && context.settings.lists.holds(name, email);
        if email.is_empty()
            || self.exempt.contains(email)
            || self.exempt.contains(domain)
            || is_no_person(email)
            || imported(self.import_welcomelist_auth, "welcomelist_auth")
            || imported(self.import_def_welcomelist_auth, "def_welcomelist_auth")
        {
            return false;
        }
        self.domains.contains(domain) || self.patterns.iter().any(|p| within_labels(p, domain))
    }
}

/// Whether a domain is what a pattern says; `*` does not reach over a dot.
fn within_labels(pattern: &str, domain: &str) -> bool {
    let (mut theirs, mut ours) = (domain.split('.'), pattern.split('.'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(p), Some(d)) if super::matching::glob(p.as_bytes(), d.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Mailboxes of roles and machines.
fn is_no_person(email: &str) -> bool {
    has!(
        r"(?ix)^(?: abuse|support|sales|info|helpdesk|contact|kontakt | (?:post|host|domain)master | undisclosed.*
            | request-[a-f0-9]{16} | bounced?- | [a-f0-9]{8}(?:\.[a-f0-9]{8}|-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12})
            | .+=.+=.+ )@",
        email
    )
}

/// Senders of the envelope that lists and machines have.
fn is_bulk(sender: &str) -> bool {
    has!(
        r"(?ix)(?: ^(?:post|host|domain)master | ^double-bounce | ^(?:sentto|owner|return|(?:gr)?bounced?)-.+
            | -(?:request|bounces?|admin|owner) | \b(?:do[._-t]?)?no[._-t]?repl(?:y|ies) | .+=.+ )@",
        sender
    )
}

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_freemail_from" => check_freemail_from,
        "check_freemail_header" => check_freemail_header,
        "check_freemail_body" => check_freemail_body,
        "check_freemail_replyto" => check_freemail_replyto,
        _ => return None,
    })
}

fn settings<'c>(context: &'c Context<'_>) -> &'c Settings {
    &context.settings.freemail
}

/// Whether one of the addresses is free and fits the pattern.
fn any(context: &Context<'_>, addresses: &[String], wanted: Option<&Argument>) -> u32 {
    let fits = |email: &String| match wanted {
        None => true,
        Some(argument) => argument.pattern().is_some_and(|p| p.is_match(email.as_bytes())),
    };
    let hit = settings(context).is_on()
        && addresses.iter().any(|email| settings(context).is_free(context, email) && fits(email));
    u32::from(hit)
}

fn lower(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|a| a.to_ascii_lowercase()).collect()
}

fn addresses(context: &Context<'_>, field: &str) -> Vec<String> {
    lower(&list(context, &format!("{field}:addr")))
}

/// `(pattern)`, optional.
fn check_freemail_from(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    any(context, &lower(&senders(context)), arguments.first())
}

/// `(field, pattern)`, the second optional.
fn check_freemail_header(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    arguments.first().map_or(0, |field| any(context, &addresses(context, field.as_str()), arguments.get(1)))
}

/// `(pattern)`, optional.
fn check_freemail_body(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    if !settings(context).is_on() {
        return 0;
    }
    body(context).0.as_deref().map_or(0, |emails| any(context, emails, arguments.first()))
}

/// Free addresses in the text; `None` when there are so many that it is a list of people.
struct Body(Option<Vec<String>>);

fn body(context: &Context<'_>) -> Rc<Body> {
    context.memo(|context| {
        let settings = settings(context);
        let mut free = Vec::new();
        for (count, email) in (1..).zip(emails::of_text(context)) {
            if count == settings.max_body_emails && settings.skip_when_over_max {
                return Body(None);
            }
            if settings.is_free(context, &email) {
                free.push(email);
                if free.len() == settings.max_body_freemails && settings.skip_when_over_max {
                    return Body(None);
                }
            }
        }
        Body(Some(free))
    })
}

/// `('replyto')`: replies go to another free mailbox than the sender's; `('reply')`: or to one named in the text.
fn check_freemail_replyto(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let reply = match arguments.first().map(Argument::as_str) {
        None | Some("replyto") => false,
        Some("reply") => true,
        Some(_) => return 0,
    };
    let settings = settings(context);
    let bulk = || settings.skip_bulk_envfrom && found(context, "EnvelopeFrom").is_some_and(|sender| is_bulk(&sender));
    if !settings.is_on() || bulk() {
        return 0;
    }
    let (from, to) = (addresses(context, "From"), addresses(context, "Reply-To"));
    let free = |all: &[String]| all.iter().any(|email| settings.is_free(context, email));
    let (from_free, to_free) = (free(&from), free(&to));
    if from_free && to_free && !from.iter().any(|email| to.contains(email)) {
        return 1;
    }
    let asked = if reply { from_free && (to.is_empty() || to_free) } else { to_free };
    if !asked {
        return 0;
    }
    let answers_go_to = if !reply || to_free { &to } else { &from };
    let body = body(context);
    let others = body.0.as_deref().unwrap_or_default();
    u32::from(others.iter().any(|email| answers_go_to.iter().any(|to| to != email)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use crate::answers::NoAnswers;

    fn hit(message: &str, name: &str, arguments: &[&str]) -> u32 {
        with(
            message,
            &[("freemail_domains", "free.com f*.example.org"), ("freemail_welcomelist", "ok@free.com")],
            &NoAnswers,
            name,
            arguments,
        )
    }

    #[test]
    fn senders_and_fields() {
        assert_eq!(hit("From: Joe <Joe@Free.com>\n\nx\n", "check_freemail_from", &[]), 1);
        assert_eq!(hit("From: joe@fun.example.org\n\nx\n", "check_freemail_from", &[]), 1);
        assert_eq!(hit("From: joe@f.un.example.org\n\nx\n", "check_freemail_from", &[]), 0);
        assert_eq!(hit("From: ok@free.com\n\nx\n", "check_freemail_from", &[]), 0);
        assert_eq!(hit("From: postmaster@free.com\n\nx\n", "check_freemail_from", &[]), 0);
        assert_eq!(hit("Reply-To: joe1@free.com\n\nx\n", "check_freemail_header", &["Reply-To", r"\d@"]), 1);
        assert_eq!(hit("Reply-To: joe@free.com\n\nx\n", "check_freemail_header", &["Reply-To", r"\d@"]), 0);
    }

    #[test]
    fn replies() {
        assert_eq!(hit("From: a@free.com\nReply-To: b@free.com\n\nx\n", "check_freemail_replyto", &["replyto"]), 1);
        assert_eq!(hit("From: a@free.com\nReply-To: a@free.com\n\nx\n", "check_freemail_replyto", &["replyto"]), 0);
        assert_eq!(hit("From: a@free.com\n\nwrite to b@free.com now\n", "check_freemail_replyto", &["reply"]), 1);
        assert_eq!(hit("From: a@free.com\n\nwrite to b@other.com now\n", "check_freemail_replyto", &["reply"]), 0);
        let list = "Return-Path: <x-bounces@l.example.org>\nFrom: a@free.com\nReply-To: b@free.com\n\nx\n";
        assert_eq!(hit(list, "check_freemail_replyto", &["replyto"]), 0);
    }
}
