// SPDX-License-Identifier: GPL-3.0-or-later
//! Limits that cannot work because Postfix does not ask at the stage where their unit is known: noticed before the start from
//! the configuration of Postfix ([`hints`]), and at run time from the requests that come ([`Seen`]).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::plan::Limit;
use super::unit::Stage;
use crate::request::ProtocolState;

/// Requests after which a stage that was never asked counts as missing: of so many recipients some message would have come so far.
const ENOUGH: u32 = 1000;

/// Which stages were asked since the start.
#[derive(Debug, Default)]
pub struct Seen {
    stages: [AtomicBool; 3],
    requests: AtomicU32,
}

fn place(stage: Stage) -> usize {
    match stage {
        Stage::Rcpt => 0,
        Stage::Data => 1,
        Stage::EndOfMessage => 2,
    }
}

impl Seen {
    /// Notes a request. True once: when enough have come to tell what is missing.
    pub fn saw(&self, state: ProtocolState) -> bool {
        let stage = [Stage::Rcpt, Stage::Data, Stage::EndOfMessage].into_iter().find(|stage| stage.state() == state);
        if let Some(seen) = stage.map(|stage| &self.stages[place(stage)])
            && !seen.load(Ordering::Relaxed)
        {
            seen.store(true, Ordering::Relaxed);
        }
        // Only read once it has been told.
        self.requests.load(Ordering::Relaxed) < ENOUGH && self.requests.fetch_add(1, Ordering::Relaxed) + 1 == ENOUGH
    }

    /// Limits at a stage that was never asked.
    pub fn without<'l>(&self, limits: &'l [Limit]) -> Vec<(&'l Limit, Stage)> {
        let missing = |stage: &Stage| !self.stages[place(*stage)].load(Ordering::Relaxed);
        limits.iter().filter_map(|limit| Some((limit, limit.stage.filter(missing)?))).collect()
    }
}

/// What hinders limits in the restriction lists of Postfix, one sentence each. `main` and `master` are the output of `postconf -nx`
/// and `-Px`, `asked_by` the lists that ask us.
pub fn hints(main: &str, master: &str, asked_by: &[String], limits: &[Limit]) -> Vec<String> {
    let mut hints = Vec::new();
    for limit in limits {
        let Some(stage) = limit.stage else { continue };
        let lists: Vec<&String> = asked_by.iter().filter(|list| is_asked_at(list, stage)).collect();
        if lists.is_empty() {
            let (name, list) = (&limit.name, stage.list());
            hints.push(format!(
                "limit {name:?}: no list asks at {}, so it limits nothing; add us to {list}",
                stage.state().word()
            ));
            continue;
        }
        let value = |list: &str| {
            let lines = main.lines().chain(master.lines()).filter_map(|line| line.split_once(" = "));
            lines.filter(|(name, _)| *name == list).map(|(_, value)| value).next_back()
        };
        let hidden = |list: &&String| value(list).is_some_and(|value| is_behind(value, "permit_sasl_authenticated"));
        if limit.needs_login() && lists.iter().all(hidden) {
            hints.push(format!(
                "limit {:?}: counts log-ins, but permit_sasl_authenticated stands before us in {}, so it limits nothing",
                limit.name,
                lists.iter().map(|list| list.as_str()).collect::<Vec<_>>().join(" and ")
            ));
        }
    }
    hints
}

/// With `smtpd_delay_reject = yes`, the default, the lists of earlier stages are asked at RCPT.
fn is_asked_at(list: &str, stage: Stage) -> bool {
    let lists: &[&str] = match stage {
        Stage::Rcpt => &["client", "helo", "sender", "relay", "recipient"],
        Stage::Data => &["data"],
        Stage::EndOfMessage => &["end_of_data"],
    };
    lists.iter().any(|name| list.ends_with(&format!("smtpd_{name}_restrictions")))
}

/// Whether `word` stands before the first policy service of a list.
fn is_behind(value: &str, word: &str) -> bool {
    let before = value.split("check_policy_service").next().unwrap_or_default();
    before.split([' ', ',', '\t']).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LimitSettings;
    use crate::limits::key::Basis;

    fn limits(text: &[(&str, &str)]) -> Vec<Limit> {
        let limit = |(key, unit): &(&str, &str)| {
            let unit = serde::Deserialize::deserialize(
                serde::de::value::StrDeserializer::<serde::de::value::Error>::new(unit),
            );
            let settings = LimitSettings {
                name: "x".to_owned(),
                key: vec![(*key).to_owned()],
                unit: unit.unwrap(),
                ..LimitSettings::default()
            };
            settings.compile(Basis { network: (24, 64), ..Basis::default() }).unwrap().0
        };
        text.iter().map(limit).collect()
    }

    #[test]
    fn a_stage_that_is_never_asked_is_told_once() {
        let seen = Seen::default();
        let limits = limits(&[("sender", "recipients"), ("sender", "messages"), ("sender", "connections")]);
        let told = (0..3 * ENOUGH).filter(|_| seen.saw(ProtocolState::Rcpt)).count();
        assert_eq!(told, 1);
        assert_eq!(seen.without(&limits).iter().map(|(_, stage)| *stage).collect::<Vec<_>>(), [Stage::Data]);
        seen.saw(ProtocolState::Data);
        assert!(seen.without(&limits).is_empty());
    }

    #[test]
    fn lists_that_do_not_ask_are_told() {
        let main = "smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, check_policy_service inet:127.0.0.1:10023\n";
        let asked = ["smtpd_recipient_restrictions".to_owned()];
        let told = |text: &[(&str, &str)]| hints(main, "", &asked, &limits(text));
        assert!(told(&[("client_address", "recipients"), ("client_address", "rejects")]).is_empty());
        let data = told(&[("client_address", "messages")]);
        assert!(
            data.len() == 1 && data[0].contains("no list asks at DATA") && data[0].contains("smtpd_data_restrictions"),
            "{data:?}"
        );
        let login = told(&[("sasl_username", "recipients")]);
        assert!(login.len() == 1 && login[0].contains("permit_sasl_authenticated stands before us"), "{login:?}");
        let submission = "submission/inet/smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10023, permit_sasl_authenticated\n";
        let both =
            ["smtpd_recipient_restrictions".to_owned(), "submission/inet/smtpd_recipient_restrictions".to_owned()];
        assert!(hints(main, submission, &both, &limits(&[("sasl_username", "recipients")])).is_empty());
    }
}
