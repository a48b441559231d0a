// SPDX-License-Identifier: GPL-3.0-or-later
//! What follows from SPF (RFC 7208): an effect per result, and a header that tells of it: `Received-SPF` (section 9.1) or `Authentication-Results`
//! (RFC 8601).
//!
//! HELO is asked about first (section 2.3); only its fail counts, and then the sender is not asked about. For the null sender HELO is the
//! identity anyway (section 2.4). Whether the client is authorised is evaluated by `common::spf`, once for greylisting, rules and this.

use std::net::IpAddr;
use std::sync::Arc;

use common::mail;
use common::spf::{Outcome, SpfResult};
use tokio::time::Instant;

use super::perimeter::Sign;
use super::pool::Pools;
use crate::config::{SpfHeader, SpfIdentity, SpfSettings};
use crate::request::PolicyRequest;
use crate::verdict::Reason;

/// Longest value in a header: five of them must fit into a line of 998 characters (RFC 5322 section 2.1.1).
const VALUE: usize = 150;

/// What SPF came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spf {
    /// What was asked about.
    pub identity: SpfIdentity,
    /// The answer.
    pub outcome: Arc<Outcome>,
}

/// Asks about the identities of a request. None when there is nothing to ask about.
pub async fn evaluate(
    pools: &Pools,
    settings: &SpfSettings,
    request: &PolicyRequest<'_>,
    host: &str,
    until: Instant,
) -> Option<Spf> {
    let client = request.client_address?;
    let about = async |identity: SpfIdentity, sender: &str| {
        let outcome = pools.evaluate(client, &request.helo_name, sender, host, until).await?;
        Some(Spf { identity, outcome })
    };
    let wants = |identity: SpfIdentity| settings.identities.contains(&identity);
    let null = mail::split(&request.sender).1.is_empty();
    if wants(SpfIdentity::Helo) || null {
        let helo = about(SpfIdentity::Helo, "").await?;
        if null || helo.outcome.result == SpfResult::Fail {
            return Some(helo);
        }
    }
    if wants(SpfIdentity::MailFrom) { about(SpfIdentity::MailFrom, &request.sender).await } else { None }
}

/// The sign in a result, when it leads to something.
pub fn sign(settings: &SpfSettings, request: &PolicyRequest<'_>, spf: &Spf) -> Option<Sign> {
    let (effect, code) = match spf.outcome.result {
        SpfResult::Pass => (settings.pass, "7.1"),
        SpfResult::None => (settings.none, "7.1"),
        SpfResult::Neutral => (settings.neutral, "7.23"),
        SpfResult::Softfail => (settings.softfail, "7.23"),
        SpfResult::Fail => (settings.fail, "7.23"),
        SpfResult::Temperror => (settings.temperror, "7.24"),
        SpfResult::Permerror => (settings.permerror, "7.24"),
    };
    let (result, domain) = (spf.outcome.result.word(), domain(spf, request));
    let fact = format!("SPF {result} for {domain}");
    Sign::new(effect, Reason::SpfRefused, code, fact, format!("SPF {result} of {domain}"))
}

fn domain<'a>(spf: &Spf, request: &'a PolicyRequest<'_>) -> &'a str {
    match spf.identity {
        SpfIdentity::Helo => &request.helo_name,
        SpfIdentity::MailFrom => mail::split(&request.sender).1,
    }
}

/// The header line of the settings, if one is wanted.
pub fn header(settings: &SpfSettings, request: &PolicyRequest<'_>, spf: &Spf, host: &str) -> Option<String> {
    match settings.header {
        SpfHeader::None => None,
        SpfHeader::ReceivedSpf => Some(received_spf(request, spf, host)),
        SpfHeader::AuthenticationResults => Some(authentication_results(request, spf, host)),
    }
}

fn received_spf(request: &PolicyRequest<'_>, spf: &Spf, host: &str) -> String {
    let outcome = &*spf.outcome;
    let client = request.client_address.map(|ip: IpAddr| ip.to_string()).unwrap_or_default();
    let identity = if spf.identity == SpfIdentity::Helo { "helo" } else { "mailfrom" };
    let mut line = format!(
        "Received-SPF: {} ({}) receiver={}; identity={identity}; client-ip={}; envelope-from={}; helo={}",
        outcome.result.word(),
        comment(spf, request, &client),
        value(host),
        value(&client),
        quoted(&request.sender),
        value(&request.helo_name),
    );
    for (key, text) in [("mechanism", Some(outcome.mechanism.as_str())), ("problem", outcome.problem.as_deref())] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            line.push_str(&format!("; {key}={}", quoted(text)));
        }
    }
    line
}

/// Words for people. A comment may hold no parentheses of strangers.
fn comment(spf: &Spf, request: &PolicyRequest<'_>, client: &str) -> String {
    let domain: String =
        domain(spf, request).chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).take(VALUE).collect();
    match spf.outcome.result {
        SpfResult::Pass => format!("{domain} authorises {client}"),
        SpfResult::Fail => format!("{domain} does not authorise {client}"),
        SpfResult::Softfail => format!("{domain} probably does not authorise {client}"),
        SpfResult::Neutral => format!("{domain} says nothing about {client}"),
        SpfResult::None => format!("{domain} has no record"),
        SpfResult::Temperror => format!("no answer about {domain} now"),
        SpfResult::Permerror => format!("the record of {domain} cannot be understood"),
    }
}

fn authentication_results(request: &PolicyRequest<'_>, spf: &Spf, host: &str) -> String {
    let (property, of) = match spf.identity {
        SpfIdentity::Helo => ("smtp.helo", &request.helo_name),
        SpfIdentity::MailFrom => ("smtp.mailfrom", &request.sender),
    };
    let reason = spf.outcome.problem.as_ref().map(|problem| format!(" reason={}", quoted(problem))).unwrap_or_default();
    format!(
        "Authentication-Results: {}; spf={}{reason} {property}={}",
        value(host),
        spf.outcome.result.word(),
        value(of)
    )
}

/// A dot-atom (RFC 5322 section 3.2.3) as it is, anything else in quotes. An address may have its `@` (RFC 8601 section 2.2).
fn value(text: &str) -> String {
    let atom = |c: char| c.is_ascii_alphanumeric() || "-_.+@".contains(c);
    let plain = !text.is_empty() && text.len() <= VALUE && text.chars().all(atom) && text.matches('@').count() < 2;
    if plain && !text.starts_with(['.', '@']) && !text.ends_with(['.', '@']) { text.to_owned() } else { quoted(text) }
}

/// A quoted string (RFC 5322 section 3.2.4): printable ASCII, cut to a length.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().take(VALUE) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

/// True when SPF is asked about this request at all.
pub fn concerns(settings: &SpfSettings, request: &PolicyRequest<'_>) -> bool {
    !settings.is_idle() && request.state.has_sender()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Effect;
    use common::dns::{Resolver, Zone};
    use proptest::prelude::*;
    use std::time::Duration;

    const ZONE: &str = "
        good.example TXT \"v=spf1 ip4:198.31.7.0/24 ip6:2001:db8::/32 -all\"
        bad.example TXT \"v=spf1 -all\"
        soft.example TXT \"v=spf1 ~all\"
        broken.example TXT \"v=spf1 ip4:x\"
        slow.example TIMEOUT
        mx.bad.example TXT \"v=spf1 -all\"
    ";

    fn request<'a>(client: &str, helo: &'a str, sender: &'a str) -> PolicyRequest<'a> {
        PolicyRequest {
            client_address: client.parse().ok(),
            helo_name: helo.into(),
            sender: sender.into(),
            ..PolicyRequest::default()
        }
    }

    async fn asked(settings: &SpfSettings, request: &PolicyRequest<'_>) -> Option<Spf> {
        let pools = Pools::new(Some(Resolver::Canned(Zone::parse(ZONE).unwrap())));
        evaluate(&pools, settings, request, "mx.our.example", Instant::now() + Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn each_result_has_its_effect() {
        let settings = SpfSettings { fail: Effect::Reject, softfail: Effect::Score(2), ..SpfSettings::default() };
        for (helo, sender, fact, effect) in [
            ("mx.good.example", "a@good.example", "", None),
            ("mx.good.example", "a@bad.example", "SPF fail for bad.example", Some(Effect::Reject)),
            ("mx.good.example", "a@soft.example", "SPF softfail for soft.example", Some(Effect::Score(2))),
            ("mx.good.example", "a@broken.example", "", None),
            ("mx.good.example", "a@slow.example", "", None),
            ("mx.bad.example", "a@good.example", "SPF fail for mx.bad.example", Some(Effect::Reject)),
            ("mx.bad.example", "", "SPF fail for mx.bad.example", Some(Effect::Reject)),
            ("mx.good.example", "", "", None),
        ] {
            let request = request("198.31.7.5", helo, sender);
            let spf = asked(&settings, &request).await.unwrap();
            let sign = sign(&settings, &request, &spf);
            assert_eq!(sign.as_ref().map(|sign| sign.effect), effect, "{helo} {sender}");
            assert_eq!(sign.map_or(String::new(), |sign| sign.fact), fact, "{helo} {sender}");
        }
        let helo_alone = SpfSettings { identities: vec![SpfIdentity::Helo], ..settings };
        assert_eq!(asked(&helo_alone, &request("198.31.7.5", "mx.good.example", "a@bad.example")).await, None);
    }

    #[tokio::test]
    async fn headers_are_as_their_documents_have_them() {
        let received = SpfSettings { header: SpfHeader::ReceivedSpf, ..SpfSettings::default() };
        let results = SpfSettings { header: SpfHeader::AuthenticationResults, ..SpfSettings::default() };
        for (client, sender, first, second) in [
            (
                "198.31.7.5",
                "a@good.example",
                "Received-SPF: pass (good.example authorises 198.31.7.5) receiver=mx.our.example; identity=mailfrom; \
                 client-ip=198.31.7.5; envelope-from=\"a@good.example\"; helo=mx.good.example; mechanism=\"ip4:198.31.7.0/24\"",
                "Authentication-Results: mx.our.example; spf=pass smtp.mailfrom=a@good.example",
            ),
            (
                "2001:db8::1",
                "o\"(x@good.example",
                "Received-SPF: pass (good.example authorises 2001:db8::1) receiver=mx.our.example; identity=mailfrom; \
                 client-ip=\"2001:db8::1\"; envelope-from=\"o\\\"(x@good.example\"; helo=mx.good.example; \
                 mechanism=\"ip6:2001:db8::/32\"",
                "Authentication-Results: mx.our.example; spf=pass smtp.mailfrom=\"o\\\"(x@good.example\"",
            ),
            (
                "198.31.7.5",
                "",
                "Received-SPF: none (mx.good.example has no record) receiver=mx.our.example; identity=helo; \
                 client-ip=198.31.7.5; envelope-from=\"\"; helo=mx.good.example",
                "Authentication-Results: mx.our.example; spf=none smtp.helo=mx.good.example",
            ),
        ] {
            let request = request(client, "mx.good.example", sender);
            let spf = asked(&received, &request).await.unwrap();
            assert_eq!(header(&received, &request, &spf, "mx.our.example").as_deref(), Some(first));
            assert_eq!(header(&results, &request, &spf, "mx.our.example").as_deref(), Some(second));
            assert_eq!(header(&SpfSettings::default(), &request, &spf, "mx.our.example"), None);
        }
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_a_header(helo in any::<String>(), sender in any::<String>(), problem in any::<String>()) {
            let outcome = Outcome { result: SpfResult::Permerror, mechanism: helo.clone(), explanation: None, problem: Some(problem), lookups: 0 };
            let spf = Spf { identity: SpfIdentity::MailFrom, outcome: Arc::new(outcome) };
            let request = request("192.0.2.1", &helo, &sender);
            for line in [received_spf(&request, &spf, "mx"), authentication_results(&request, &spf, "mx")] {
                prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
                prop_assert!(line.replace("\\\\", "").replace("\\\"", "").matches('"').count() % 2 == 0, "{line}");
            }
        }
    }
}
