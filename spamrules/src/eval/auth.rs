// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of SPF, DKIM, ARC, ADSP and DMARC, and of lists whose senders must show one of them. The caller verifies; these compare.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Argument, Eval, received_spf};
use crate::answers::{Adsp, Dmarc, Signature, SpfIdentity, SpfQuestion, SpfResult};
use crate::context::Context;
use crate::headers::{list, text};

/// Directives about signatures.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Policies for unsigned mail that the administrator knows better: by domain, or `*.domain` for those below it.
    policies: HashMap<Box<str>, char>,
    /// Smallest key that lists and dependable signatures ask for, in bits.
    least_bits: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { policies: HashMap::new(), least_bits: 1024 }
    }
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        Some(match key {
            "adsp_override" => self.add_policy(value),
            "dkim_minimum_key_bits" => {
                value.trim().parse().map(|bits| self.least_bits = bits).map_err(|_| "not a number".to_string())
            }
            _ => return None,
        })
    }

    fn add_policy(&mut self, value: &str) -> Result<(), String> {
        let mut words = value.split_whitespace();
        let domain = words.next().ok_or("no domain given")?.trim_start_matches('@').to_ascii_lowercase();
        let policy = match words.next().unwrap_or("discardable").to_ascii_lowercase().as_str() {
            "nxdomain" => 'N',
            "unknown" => 'U',
            "all" => 'A',
            "discardable" => 'D',
            "custom_low" => '1',
            "custom_med" => '2',
            "custom_high" => '3',
            other => return Err(format!("{other} is no signing practice")),
        };
        self.policies.insert(domain.into_boxed_str(), policy);
        Ok(())
    }

    /// The policy given for a domain or the nearest domain above it.
    fn policy(&self, domain: &str) -> Option<char> {
        let above = std::iter::successors(domain.split_once('.'), |(_, rest)| rest.split_once('.'));
        let wild = above.map(|(_, rest)| format!("*.{rest}")).chain(std::iter::once("*".to_string()));
        self.policies
            .get(domain)
            .copied()
            .or_else(|| wild.take(20).find_map(|key| self.policies.get(key.as_str()).copied()))
    }
}

pub(crate) fn find(name: &str) -> Option<Eval> {
    let name = name.replace("whitelist", "welcomelist");
    spf_function(&name).or_else(|| dkim_function(&name)).or_else(|| dmarc_function(&name))
}

fn spf_function(name: &str) -> Option<Eval> {
    use SpfIdentity::{Helo, MailFrom};
    Some(match name {
        "check_for_spf_pass" => |context, _| spf(context, MailFrom, SpfResult::Pass),
        "check_for_spf_fail" => |context, _| spf(context, MailFrom, SpfResult::Fail),
        "check_for_spf_softfail" => |context, _| spf(context, MailFrom, SpfResult::SoftFail),
        "check_for_spf_neutral" => |context, _| spf(context, MailFrom, SpfResult::Neutral),
        "check_for_spf_none" => |context, _| spf(context, MailFrom, SpfResult::None),
        "check_for_spf_temperror" => |context, _| spf(context, MailFrom, SpfResult::TempError),
        "check_for_spf_permerror" => |context, _| spf(context, MailFrom, SpfResult::PermError),
        "check_for_spf_helo_pass" => |context, _| spf(context, Helo, SpfResult::Pass),
        "check_for_spf_helo_fail" => |context, _| spf(context, Helo, SpfResult::Fail),
        "check_for_spf_helo_softfail" => |context, _| spf(context, Helo, SpfResult::SoftFail),
        "check_for_spf_helo_neutral" => |context, _| spf(context, Helo, SpfResult::Neutral),
        "check_for_spf_helo_none" => |context, _| spf(context, Helo, SpfResult::None),
        "check_for_spf_helo_temperror" => |context, _| spf(context, Helo, SpfResult::TempError),
        "check_for_spf_helo_permerror" => |context, _| spf(context, Helo, SpfResult::PermError),
        "check_spf_skipped_noenvfrom" => |context, _| u32::from(text(context, "EnvelopeFrom:addr").is_empty()),
        "check_for_spf_welcomelist_from" => {
            |context, _| spf_listed(context, ["welcomelist_from_spf", "welcomelist_auth"])
        }
        "check_for_def_spf_welcomelist_from" => {
            |context, _| spf_listed(context, ["def_welcomelist_from_spf", "def_welcomelist_auth"])
        }
        _ => return None,
    })
}

/// Whether a function compares what SPF says, and asks nobody else.
pub(crate) fn asks_spf(function: &str) -> bool {
    function.starts_with("check_for_spf_") || function.starts_with("check_for_def_spf_")
}

fn spf(context: &Context<'_>, identity: SpfIdentity, wanted: SpfResult) -> u32 {
    u32::from(spf_result(context, identity) == Some(wanted))
}

/// What a host of ours has left in the message, or what SPF says of the relay that handed the message to the first host of ours. A client's name is asked about only where it can be one, the
/// sender only where it is known: behind trusted relays it may have changed.
fn spf_result(context: &Context<'_>, identity: SpfIdentity) -> Option<SpfResult> {
    if let Some(told) = received_spf::told(context, identity) {
        return Some(told);
    }
    let relays = context.relays();
    let relay = relays.external.first().filter(|relay| !relay.ip.is_empty())?;
    let sender = match &relay.sender {
        Some(sender) => sender.clone(),
        None if relays.trusted.is_empty() || context.settings.relays.trusts_sender => {
            text(context, "EnvelopeFrom:addr")
        }
        None => String::new(),
    };
    let is_name =
        relay.helo.contains('.') && !relay.helo.starts_with(['[', '!']) && relay.helo.parse::<IpAddr>().is_err();
    match identity {
        SpfIdentity::Helo if !is_name => return None,
        SpfIdentity::MailFrom if sender.is_empty() => return None,
        _ => {}
    }
    let sender = sender.to_lowercase();
    context.answers.spf(&SpfQuestion { identity, client: &relay.ip, helo: &relay.helo, sender: &sender })
}

fn spf_listed(context: &Context<'_>, lists: [&str; 2]) -> u32 {
    let sender = text(context, "EnvelopeFrom:addr");
    let listed = !sender.is_empty() && lists.iter().any(|list| context.settings.lists.holds(list, &sender));
    if listed { spf(context, SpfIdentity::MailFrom, SpfResult::Pass) } else { 0 }
}

fn dkim_function(name: &str) -> Option<Eval> {
    Some(match name {
        "check_dkim_signed" => |context, arguments| u32::from(signed_by(context, arguments, |_| true)),
        "check_dkim_valid" | "check_dkim_verified" => {
            |context, arguments| u32::from(signed_by(context, arguments, |s| s.valid))
        }
        "check_dkim_valid_author_sig" => check_dkim_valid_author_sig,
        "check_dkim_valid_envelopefrom" => check_dkim_valid_envelopefrom,
        "check_dkim_dependable" => {
            |context, _| u32::from(signatures(context).iter().any(|s| is_dependable(context, s)))
        }
        "check_dkim_testing" => |context, _| u32::from(signatures(context).iter().any(|s| s.testing)),
        "check_dkim_signsome" => |_, _| 0,
        "check_dkim_signall" => |context, _| adsp(context, "A", &[]),
        "check_dkim_adsp" => |context, arguments| {
            arguments.split_first().map_or(0, |(kinds, domains)| adsp(context, kinds.as_str(), domains))
        },
        "check_arc_signed" => |context, _| u32::from(context.answers.arc().is_some()),
        "check_arc_valid" => |context, _| u32::from(context.answers.arc().is_some_and(|arc| arc.valid)),
        "check_for_dkim_welcomelist_from" => {
            |context, _| dkim_listed(context, "welcomelist_from_dkim", "welcomelist_auth")
        }
        "check_for_def_dkim_welcomelist_from" => {
            |context, _| dkim_listed(context, "def_welcomelist_from_dkim", "def_welcomelist_auth")
        }
        _ => return None,
    })
}

fn signatures(context: &Context<'_>) -> Vec<Signature> {
    context.answers.dkim().unwrap_or_default()
}

fn is_dependable(context: &Context<'_>, signature: &Signature) -> bool {
    signature.valid && (signature.key_bits == 0 || signature.key_bits >= context.settings.auth.least_bits)
}

/// Whether a domain is the one named, or below it where it is named as `*.example.org` or `.example.org`.
fn is_domain(domain: &str, named: &str) -> bool {
    let named = named.to_ascii_lowercase();
    match named.strip_prefix('*').unwrap_or(&named).strip_prefix('.') {
        Some(parent) => domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        None => domain == named,
    }
}

/// `(domain, …)`: a signature of one of the domains, of any where none is named.
fn signed_by(context: &Context<'_>, domains: &[Argument], counts: fn(&Signature) -> bool) -> bool {
    let named = |s: &Signature| domains.is_empty() || domains.iter().any(|d| is_domain(&s.domain, d.as_str()));
    signatures(context).iter().any(|s| counts(s) && named(s))
}

fn authors(context: &Context<'_>) -> Vec<(String, String)> {
    let split = |address: String| {
        let address = address.to_ascii_lowercase();
        let domain = address.rsplit_once('@')?.1.to_string();
        Some((address, domain))
    };
    list(context, "From:addr").into_iter().filter_map(split).collect()
}

fn check_dkim_valid_author_sig(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let authors = authors(context);
    let named = |domain: &str| arguments.is_empty() || arguments.iter().any(|d| is_domain(domain, d.as_str()));
    let own = |s: &Signature| s.valid && named(&s.domain) && authors.iter().any(|(_, domain)| *domain == s.domain);
    u32::from(signatures(context).iter().any(own))
}

fn check_dkim_valid_envelopefrom(context: &Context<'_>, _: &[Argument]) -> u32 {
    let sender = text(context, "EnvelopeFrom:addr").to_ascii_lowercase();
    let domain = sender.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| !domain.is_empty());
    u32::from(domain.is_some_and(|domain| signatures(context).iter().any(|s| s.valid && s.domain == domain)))
}

/// A listed author whose mail is signed by his own domain, or by the one that the list names.
fn dkim_listed(context: &Context<'_>, with_signer: &str, plain: &str) -> u32 {
    let lists = &context.settings.lists;
    let signatures: Vec<Signature> = signatures(context).into_iter().filter(|s| is_dependable(context, s)).collect();
    let fits = |signer: &str, domain: &str| {
        let wanted = if signer.is_empty() { domain } else { signer };
        signatures.iter().any(|s| is_domain(&s.domain, wanted))
    };
    let listed = |(address, domain): &(String, String)| {
        lists.proofs(with_signer, address).any(|signer| fits(signer, domain))
            || (lists.holds(plain, address) && fits("", domain))
    };
    u32::from(!signatures.is_empty() && authors(context).iter().any(listed))
}

/// No signature of the author's domain, and the domain's policy is one of the kinds: N no such domain, A all is signed, D discard;
/// 1, 2 and 3 are given by `adsp_override` only.
fn adsp(context: &Context<'_>, kinds: &str, domains: &[Argument]) -> u32 {
    let kinds = if kinds == "*" { "NAD123" } else { kinds };
    // Without a verifier nobody can say that a signature is missing.
    let Some(signatures) = context.answers.dkim() else { return 0 };
    let asked = |domain: &str| match context.answers.adsp(domain) {
        Some(Adsp::NoDomain) => 'N',
        Some(Adsp::All) => 'A',
        Some(Adsp::Discardable) => 'D',
        Some(Adsp::Unknown) | None => 'U',
    };
    let policy = |domain: &str| context.settings.auth.policy(domain).unwrap_or_else(|| asked(domain));
    let named = |domain: &str| domains.is_empty() || domains.iter().any(|d| is_domain(domain, d.as_str()));
    let signed = |domain: &str| signatures.iter().any(|s| s.valid && s.domain == domain);
    let hit =
        authors(context).iter().any(|(_, domain)| !signed(domain) && named(domain) && kinds.contains(policy(domain)));
    u32::from(hit)
}

fn dmarc_function(name: &str) -> Option<Eval> {
    Some(match name {
        "check_dmarc_pass" => |context, _| u32::from(context.answers.dmarc() == Some(Dmarc::Pass)),
        "check_dmarc_none" => |context, _| u32::from(context.answers.dmarc() == Some(Dmarc::None)),
        "check_dmarc_quarantine" => |context, _| u32::from(context.answers.dmarc() == Some(Dmarc::Quarantine)),
        "check_dmarc_reject" => |context, _| u32::from(context.answers.dmarc() == Some(Dmarc::Reject)),
        "check_dmarc_missing" => |context, _| u32::from(context.answers.dmarc() == Some(Dmarc::Missing)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use super::*;
    use crate::answers::{Answers, Arc};

    struct Signed(&'static str, bool);

    impl Answers for Signed {
        fn spf(&self, question: &SpfQuestion<'_>) -> Option<SpfResult> {
            assert_eq!((question.client, question.helo), ("203.0.113.7", "mail.example.org"));
            assert_eq!(question.sender, "a@bounce.example.org");
            Some(if question.identity == SpfIdentity::Helo { SpfResult::None } else { SpfResult::Pass })
        }

        fn dkim(&self) -> Option<Vec<Signature>> {
            Some(vec![Signature { domain: self.0.into(), valid: self.1, key_bits: 2048, testing: false }])
        }

        fn adsp(&self, _: &str) -> Option<Adsp> {
            Some(Adsp::Discardable)
        }

        fn arc(&self) -> Option<Arc> {
            Some(Arc { valid: false })
        }

        fn dmarc(&self) -> Option<Dmarc> {
            Some(Dmarc::Quarantine)
        }
    }

    const MESSAGE: &str = "Return-Path: <A@bounce.example.org>\n\
        Received: from mail.example.org (unknown [203.0.113.7]) by mx (Postfix) with ESMTP id 1111\nFrom: a@example.org\n\nx\n";

    fn hit(answers: &Signed, name: &str, arguments: &[&str]) -> u32 {
        with(MESSAGE, &[], answers, name, arguments)
    }

    #[test]
    fn spf_and_dmarc() {
        let own = Signed("example.org", true);
        assert_eq!((hit(&own, "check_for_spf_pass", &[]), hit(&own, "check_for_spf_fail", &[])), (1, 0));
        assert_eq!((hit(&own, "check_for_spf_helo_none", &[]), hit(&own, "check_for_spf_helo_pass", &[])), (1, 0));
        assert_eq!((hit(&own, "check_dmarc_quarantine", &[]), hit(&own, "check_dmarc_pass", &[])), (1, 0));
        assert_eq!((hit(&own, "check_arc_signed", &[]), hit(&own, "check_arc_valid", &[])), (1, 0));
    }

    #[test]
    fn spf_is_asked_only_for_what_can_be_known() {
        struct Any;
        impl Answers for Any {
            fn spf(&self, _: &SpfQuestion<'_>) -> Option<SpfResult> {
                Some(SpfResult::Fail)
            }
        }
        let hits = |message: &str| {
            ["check_for_spf_fail", "check_for_spf_helo_fail"].map(|name| with(message, &[], &Any, name, &[]))
        };
        let relay = |helo: &str| {
            format!("Received: from {helo} (a.example.org [203.0.113.7]) by mx (Postfix) with SMTP id 1111\n")
        };
        let sender = "Return-Path: <a@example.org>\n";
        assert_eq!(hits(&format!("{sender}{}\nx\n", relay("mail.example.org"))), [1, 1]);
        assert_eq!(hits(&format!("Return-Path: <>\n{}\nx\n", relay("mail.example.org"))), [0, 1]);
        for helo in ["localhost", "[203.0.113.7]", "203.0.113.7"] {
            assert_eq!(hits(&format!("{sender}{}\nx\n", relay(helo))), [1, 0], "{helo}");
        }
        assert_eq!(hits(&format!("{sender}\nx\n")), [0, 0], "no client");
        assert!(asks_spf("check_for_spf_helo_pass") && asks_spf("check_for_def_spf_whitelist_from"));
        assert!(!asks_spf("check_spf_skipped_noenvfrom") && !asks_spf("check_rbl"));
    }

    #[test]
    fn signatures() {
        let (own, other, broken) =
            (Signed("example.org", true), Signed("lists.example.net", true), Signed("example.org", false));
        assert_eq!(
            (hit(&own, "check_dkim_valid_author_sig", &[]), hit(&other, "check_dkim_valid_author_sig", &[])),
            (1, 0)
        );
        assert_eq!((hit(&broken, "check_dkim_signed", &[]), hit(&broken, "check_dkim_valid", &[])), (1, 0));
        assert_eq!(
            (hit(&other, "check_dkim_valid", &["*.example.net"]), hit(&other, "check_dkim_valid", &["example.net"])),
            (1, 0)
        );
        assert_eq!((hit(&own, "check_dkim_adsp", &["D"]), hit(&other, "check_dkim_adsp", &["D"])), (0, 1));
        assert_eq!(
            (hit(&other, "check_dkim_adsp", &["N"]), hit(&other, "check_dkim_adsp", &["*", "example.com"])),
            (0, 0)
        );
    }

    #[test]
    fn known_policies() {
        let other = Signed("lists.example.net", true);
        let known =
            |directive, kind| with(MESSAGE, &[("adsp_override", directive)], &other, "check_dkim_adsp", &[kind]);
        assert_eq!((known("example.org custom_low", "1"), known("*.org all", "A"), known("* unknown", "D")), (1, 1, 0));
        assert_eq!((known("*.example.org all", "A"), known("*.example.org all", "D")), (0, 1));
        assert!(Settings::default().set("adsp_override", "example.org sometimes").unwrap().is_err());
    }

    #[test]
    fn lists_that_want_a_proof() {
        let other = Signed("lists.example.net", true);
        let listed = |directive, name| with(MESSAGE, &[directive], &other, name, &[]);
        assert_eq!(
            listed(("welcomelist_from_dkim", "a@example.org lists.example.net"), "check_for_dkim_whitelist_from"),
            1
        );
        assert_eq!(listed(("welcomelist_from_dkim", "a@example.org"), "check_for_dkim_welcomelist_from"), 0);
        assert_eq!(listed(("def_whitelist_auth", "a@bounce.example.org"), "check_for_def_spf_welcomelist_from"), 1);
        assert_eq!(listed(("def_whitelist_auth", "x@bounce.example.org"), "check_for_def_spf_welcomelist_from"), 0);
    }
}
