// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests that pass on what other systems say of the message: Bayes, Razor, Pyzor, DCC, an access table of the mail server.
//!
//! Reputation of senders (AWL, TxRep) changes the score, not the hits; a caller that keeps one adds a symbol of its own, and the
//! rules that stand for it never hit. Nor does a rule that only says that others ended the evaluation early.

use super::{Argument, Eval};
use crate::context::Context;
use crate::headers::senders;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_bayes" => check_bayes,
        "check_razor2" => |context, _| u32::from(context.answers.razor().is_some_and(|razor| razor.listed)),
        "check_razor2_range" => check_razor2_range,
        "check_pyzor" => |context, _| u32::from(context.answers.pyzor() == Some(true)),
        "check_dcc" => |context, _| u32::from(context.answers.dcc().is_some_and(|dcc| dcc.bulk)),
        "check_dcc_reputation_range" => check_dcc_reputation_range,
        "check_access_database" => check_access_database,
        "check_senders_reputation"
        | "check_from_in_auto_welcomelist"
        | "check_from_in_auto_whitelist"
        | "check_shortcircuit" => |_, _| 0,
        _ => return None,
    })
}

fn number(arguments: &[Argument], at: usize, otherwise: f64) -> f64 {
    arguments.get(at).filter(|a| a.as_str() != "undef").map_or(otherwise, Argument::number)
}

/// `(above, up to)`.
fn check_bayes(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (above, most) = (number(arguments, 0, 0.0), number(arguments, 1, 1.0));
    u32::from(context.answers.bayes().is_some_and(|p| (above <= 0.0 || p > above) && p <= most))
}

/// `(engine, least, most)` in percent; all engines are one.
fn check_razor2_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (least, most) = (number(arguments, 1, 0.0), number(arguments, 2, 100.0));
    u32::from(context.answers.razor().is_some_and(|razor| (least..=most).contains(&f64::from(razor.confidence))))
}

/// `(least, most)` in percent.
fn check_dcc_reputation_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let (least, most) = (number(arguments, 0, 0.0), number(arguments, 1, 100.0));
    let reputation = context.answers.dcc().and_then(|dcc| dcc.reputation);
    u32::from(reputation.is_some_and(|share| (least..=most).contains(&f64::from(share))))
}

/// `(table)`: the first key that the table knows says REJECT, ERROR or DISCARD.
fn check_access_database(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let Some(table) = arguments.first() else { return 0 };
    let mut refused = false;
    for key in access_keys(context) {
        let Some(value) = context.answers.access(table.as_str(), &key) else { continue };
        let word =
            value.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "OK" | "SKIP" => return 0,
            "REJECT" | "ERROR" | "DISCARD" => refused = true,
            _ => {}
        }
    }
    u32::from(refused)
}

/// Senders, their users and domains with parents, then the first untrusted relay's name and address, shortened from either end.
fn access_keys(context: &Context<'_>) -> Vec<String> {
    let parents = |name: &str| {
        let all = std::iter::successors(Some(name.to_string()), |name| {
            name.split_once('.').map(|(_, rest)| rest.to_string())
        });
        all.take(20).collect::<Vec<_>>()
    };
    let mut keys = Vec::new();
    for sender in senders(context).iter() {
        keys.push(sender.clone());
        if let Some((user, domain)) = sender.split_once('@') {
            keys.push(format!("{user}@"));
            keys.extend(parents(domain));
        }
    }
    if let Some(relay) = context.relays().untrusted.first() {
        if !relay.rdns.is_empty() {
            keys.extend(parents(&relay.rdns));
        }
        let shorter = |address: &String| address.rsplit_once('.').map(|(rest, _)| rest.to_string());
        keys.extend(std::iter::successors(Some(relay.ip.clone()), shorter));
    }
    keys.into_iter().filter(|key| !key.is_empty()).flat_map(|key| [format!("From:{key}"), key]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use crate::answers::{Answers, Dcc, NoAnswers, Razor};

    struct Known;

    impl Answers for Known {
        fn bayes(&self) -> Option<f64> {
            Some(0.99)
        }

        fn razor(&self) -> Option<Razor> {
            Some(Razor { listed: true, confidence: 80 })
        }

        fn pyzor(&self) -> Option<bool> {
            Some(true)
        }

        fn dcc(&self) -> Option<Dcc> {
            Some(Dcc { bulk: false, reputation: Some(99) })
        }

        fn access(&self, _: &str, key: &str) -> Option<String> {
            (key == "example.org").then(|| "error:5.7.1 no".into())
        }
    }

    #[test]
    fn verdicts_of_others() {
        let message = "From: a@mail.example.org\n\nx\n";
        let cases: [(&str, &[&str], u32); 9] = [
            ("check_bayes", &["0.95", "0.99"], 1),
            ("check_bayes", &["0.99", "1.00"], 0),
            ("check_razor2", &[], 1),
            ("check_razor2_range", &["", "51", "100"], 1),
            ("check_pyzor", &[], 1),
            ("check_dcc", &[], 0),
            ("check_dcc_reputation_range", &["99"], 1),
            ("check_access_database", &["/etc/mail/access.db"], 1),
            ("check_senders_reputation", &[], 0),
        ];
        for (name, arguments, expected) in cases {
            assert_eq!(with(message, &[], &Known, name, arguments), expected, "{name}");
            assert_eq!(with(message, &[], &NoAnswers, name, arguments), 0, "{name}");
        }
    }
}
