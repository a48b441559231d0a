// SPDX-License-Identifier: GPL-3.0-or-later
//! The official SPF test suites of RFC 7208 and RFC 4408, against canned DNS.

use crate::Collection;
use common::dns::canned::Record;
use common::dns::{Mx, Resolver, Zone};
use common::spf::{Query, check_host};
use serde::Deserialize;
use serde_yaml_ng::Value;
use std::collections::BTreeMap;

/// One document of a suite: tests that share a zone.
#[derive(Deserialize)]
struct Scenario {
    description: String,
    tests: BTreeMap<String, Case>,
    zonedata: BTreeMap<String, Vec<Value>>,
}

#[derive(Deserialize)]
struct Case {
    helo: String,
    host: String,
    mailfrom: String,
    result: Value,
    explanation: Option<String>,
}

impl Case {
    /// The suites allow several results where the RFC does.
    fn results(&self) -> Vec<&str> {
        match &self.result {
            Value::Sequence(several) => several.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        }
    }

    async fn run(&self, resolver: &Resolver) -> Result<(), String> {
        let ip = self.host.parse().expect("an address");
        let query = Query { ip, helo: &self.helo, sender: &self.mailfrom, receiver: "receiver.example", now: 1 };
        let outcome = check_host(resolver, &query).await;
        let explained = match self.explanation.as_deref() {
            None => true,
            // The suites' word for an explanation of the receiver's own.
            Some("DEFAULT") => outcome.explanation.is_none(),
            Some(text) => outcome.explanation.as_deref() == Some(text),
        };
        match self.results().contains(&outcome.result.word()) && explained {
            true => Ok(()),
            false => Err(format!("wanted {:?} {:?}, got {outcome:?}", self.results(), self.explanation)),
        }
    }
}

/// Characters below 256 are bytes in the suites.
fn text(value: &Value) -> Vec<u8> {
    match value {
        Value::Sequence(strings) => strings.iter().flat_map(text).collect(),
        one => one.as_str().expect("a text").chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect(),
    }
}

/// Records of type SPF stand for TXT where there is no TXT, as the suites' introduction says.
fn zone(names: &BTreeMap<String, Vec<Value>>) -> Zone {
    let mut records = Vec::new();
    for (name, entries) in names {
        let has_txt = entries.iter().any(|entry| entry.get("TXT").is_some());
        for entry in entries {
            let Value::Mapping(entry) = entry else {
                assert_eq!(entry.as_str(), Some("TIMEOUT"), "{name}");
                records.push((name.clone(), Record::Fail));
                continue;
            };
            for (kind, value) in entry {
                let host = || value.as_str().expect("a name").to_owned();
                let record = match kind.as_str().expect("a type") {
                    "A" => Record::A(host().parse().expect("IPv4")),
                    "AAAA" => Record::Aaaa(host().parse().expect("IPv6")),
                    "MX" => Record::Mx(Mx {
                        preference: value[0]
                            .as_u64()
                            .and_then(|number| u16::try_from(number).ok())
                            .expect("a preference"),
                        exchange: value[1].as_str().expect("a host").to_owned(),
                    }),
                    "PTR" => Record::Ptr(host()),
                    "CNAME" => Record::Cname(host()),
                    "TXT" if value.as_str() == Some("NONE") => continue,
                    "TXT" => Record::Txt(text(value)),
                    "SPF" if has_txt => continue,
                    "SPF" => Record::Txt(text(value)),
                    other => panic!("{name}: type {other}"),
                };
                records.push((name.clone(), record));
            }
        }
    }
    records.into_iter().collect()
}

#[tokio::test]
async fn the_official_suites_pass() {
    let collection = Collection::unpack("conformance");
    let (mut passed, mut failed) = (0, Vec::new());
    for suite in ["rfc7208-tests.yml", "rfc4408-tests.yml"] {
        let file = std::fs::read_to_string(collection.path("conformance/spf").join(suite)).expect("the suite is there");
        for document in serde_yaml_ng::Deserializer::from_str(&file) {
            let Some(scenario) = Option::<Scenario>::deserialize(document).expect("a scenario") else { continue };
            let resolver = Resolver::Canned(zone(&scenario.zonedata));
            for (name, case) in &scenario.tests {
                match case.run(&resolver).await {
                    Ok(()) => passed += 1,
                    Err(why) => failed.push(format!("{suite}, {}, {name}: {why}", scenario.description)),
                }
            }
        }
    }
    println!("SPF: {passed} of {} cases", passed + failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(passed > 390, "only {passed} cases were run");
}
