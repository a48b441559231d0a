// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[perimeter]`: what signs against a client weigh, which DNS lists are asked, and from which score on mail is refused or greylisted.
//! As long as nothing of it is set, nothing is looked up.

use std::time::Duration;

use common::config::{Listed, Mistakes, Source};
use common::dns::ReplyMask;
use common::units::Period;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::is_zone;
use super::signs::{GeoSettings, HeloSettings, ReverseNameSettings, SenderSettings, SpfSettings};
use crate::refusal::RefusalText;

/// Largest weight of one sign.
pub const MAX_WEIGHT: i32 = 1000;

/// Section `[perimeter]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerimeterSettings {
    /// False: what would be refused or greylisted is logged and counted, and goes on.
    pub enforce: bool,
    /// From this score on mail is refused; 0: never.
    pub reject_score: i32,
    /// From this score on mail is greylisted, whatever greylist.mode says; 0: never.
    pub greylist_score: i32,
    /// Down from this score, which is below zero, mail is not greylisted; 0: never.
    pub whitelist_score: i32,
    /// Reply text of a refusal: an enhanced status code 5.x.x and words; {client}, {why}, {host} and {id} are filled in.
    pub text: String,
    /// Whether something is looked up while Postfix is short of processes (stress=yes); otherwise only what is remembered counts.
    pub lookups_under_stress: bool,
    /// Questions in a row without an answer after which a DNS list is set aside.
    pub failures: u32,
    /// For how long a DNS list is set aside that gives answers which no working list gives.
    pub pause: Period,
    /// How often each DNS list is tested.
    pub self_test: Period,
    /// `[perimeter.helo]`.
    pub helo: HeloSettings,
    /// `[perimeter.reverse_name]`.
    pub reverse_name: ReverseNameSettings,
    /// `[perimeter.sender]`.
    pub sender: SenderSettings,
    /// `[perimeter.spf]`.
    pub spf: SpfSettings,
    /// `[perimeter.geo]`.
    pub geo: GeoSettings,
    /// `[[perimeter.dnsbl]]`: lists of clients to keep out.
    #[serde(deserialize_with = "later")]
    pub dnsbl: Vec<AddressList>,
    /// `[[perimeter.dnswl]]`: lists of clients to let in.
    #[serde(deserialize_with = "later")]
    pub dnswl: Vec<AddressList>,
    /// `[[perimeter.rhsbl]]`: lists of domains to keep out.
    #[serde(deserialize_with = "later")]
    pub rhsbl: Vec<DomainList>,
}

impl Default for PerimeterSettings {
    fn default() -> Self {
        Self {
            enforce: true,
            reject_score: 8,
            greylist_score: 4,
            whitelist_score: 0,
            text: "5.7.1 Client [{client}] refused: {why}; id {id}".to_owned(),
            lookups_under_stress: false,
            failures: 5,
            pause: Period::seconds(300),
            self_test: Period::seconds(3600),
            helo: HeloSettings::default(),
            reverse_name: ReverseNameSettings::default(),
            sender: SenderSettings::default(),
            spf: SpfSettings::default(),
            geo: GeoSettings::default(),
            dnsbl: Vec::new(),
            dnswl: Vec::new(),
            rhsbl: Vec::new(),
        }
    }
}

/// Entries are read one by one, each with its line, by [`Source::list`].
fn later<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| Vec::new())
}

/// `[[perimeter.dnsbl]]` and `[[perimeter.dnswl]]`. Several entries may name one zone with different replies; it is asked once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressList {
    /// Its zone, such as `zen.spamhaus.org`.
    pub zone: String,
    /// What log, metrics and replies call it, when the zone should not be seen; empty: the zone.
    #[serde(default)]
    pub name: String,
    /// Answers that count.
    #[serde(default = "ReplyMask::any_listing")]
    pub reply: ReplyMask,
    /// What an entry adds to the score; of a dnswl: what it takes off.
    #[serde(default = "one")]
    pub weight: i32,
    /// Answers by which the list says that it does not answer us.
    #[serde(default)]
    pub errors: Option<Vec<ReplyMask>>,
    /// Self test: this must be listed; empty: no test.
    #[serde(default)]
    pub listed: Option<String>,
    /// Self test: this must not be listed; empty: no test.
    #[serde(default)]
    pub not_listed: Option<String>,
}

/// Which names are looked for in a list of domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// The sender's domain.
    Sender,
    /// What the client said in HELO.
    Helo,
    /// The name of the client's address, confirmed or not.
    ReverseName,
}

/// `[[perimeter.rhsbl]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainList {
    /// Its zone, such as `dbl.spamhaus.org`.
    pub zone: String,
    /// What log, metrics and replies call it, when the zone should not be seen; empty: the zone.
    #[serde(default)]
    pub name: String,
    /// Answers that count.
    #[serde(default = "ReplyMask::any_listing")]
    pub reply: ReplyMask,
    /// What an entry adds to the score, once however many of the names are listed.
    #[serde(default = "one")]
    pub weight: i32,
    /// Which names are asked about.
    #[serde(default = "all_names")]
    pub on: Vec<NamedBy>,
    /// Ask about whole names instead of the domains below the public suffix.
    #[serde(default)]
    pub whole_name: bool,
    /// Answers by which the list says that it does not answer us.
    #[serde(default)]
    pub errors: Option<Vec<ReplyMask>>,
    /// Self test: this must be listed; empty: no test.
    #[serde(default)]
    pub listed: Option<String>,
    /// Self test: this must not be listed; empty: no test.
    #[serde(default)]
    pub not_listed: Option<String>,
}

fn one() -> i32 {
    1
}

fn all_names() -> Vec<NamedBy> {
    vec![NamedBy::Sender, NamedBy::Helo, NamedBy::ReverseName]
}

impl PerimeterSettings {
    /// Takes the section and its lists out of the layers and checks them.
    pub fn read(source: &Source, mistakes: &mut Mistakes) -> Self {
        let mut settings: Self = source.section("perimeter", mistakes);
        settings.check(source, mistakes);
        settings.helo.check(source, mistakes);
        settings.spf.check(source, mistakes);
        settings.geo.check(source, mistakes);
        settings.dnsbl = entries(source, "perimeter.dnsbl", check_address_list, mistakes);
        settings.dnswl = entries(source, "perimeter.dnswl", check_whitelist, mistakes);
        settings.rhsbl = entries(source, "perimeter.rhsbl", check_domain_list, mistakes);
        for (name, zones) in settings.names() {
            if zones.len() > 1 {
                let message = format!("{name:?} is the name of several lists: {}", zones.join(", "));
                mistakes.push(source.mistake("perimeter", message));
            }
        }
        settings
    }

    fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong =
            |key: &str, message: String| mistakes.push(source.mistake(&format!("perimeter.{key}"), message));
        for (key, score) in [("reject_score", self.reject_score), ("greylist_score", self.greylist_score)] {
            if score < 0 {
                wrong(key, format!("{score} is below 0; 0 means never"));
            }
        }
        if self.reject_score > 0 && self.greylist_score >= self.reject_score {
            wrong(
                "greylist_score",
                format!("{} is not below reject_score ({})", self.greylist_score, self.reject_score),
            );
        }
        if self.whitelist_score > 0 {
            wrong("whitelist_score", format!("{} is above 0; 0 means never", self.whitelist_score));
        }
        if let Err(message) = RefusalText::new(&self.text) {
            wrong("text", message);
        }
        if self.failures == 0 {
            wrong("failures", "must be at least 1".to_owned());
        }
        for (key, period, least) in [("pause", self.pause, 1), ("self_test", self.self_test, 60)] {
            if period.0 < Duration::from_secs(least) {
                wrong(key, format!("{period} is shorter than {least}s"));
            }
        }
    }

    /// Every name that lists have, and the zones it stands for.
    fn names(&self) -> Vec<(&str, Vec<&str>)> {
        let addresses = self.dnsbl.iter().chain(&self.dnswl).map(|list| (shown(&list.name, &list.zone), &list.zone));
        let domains = self.rhsbl.iter().map(|list| (shown(&list.name, &list.zone), &list.zone));
        let mut names: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, zone) in addresses.chain(domains) {
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, zones)) if !zones.contains(&zone.as_str()) => zones.push(zone),
                Some(_) => {}
                None => names.push((name, vec![zone])),
            }
        }
        names
    }
}

/// What a list is called where people see it.
pub fn shown<'a>(name: &'a str, zone: &'a str) -> &'a str {
    if name.is_empty() { zone } else { name }
}

fn entries<T: DeserializeOwned>(
    source: &Source,
    name: &'static str,
    check: impl Fn(&T) -> Vec<(&'static str, String)>,
    mistakes: &mut Mistakes,
) -> Vec<T> {
    let listed: Vec<Listed<T>> = source.list(name, mistakes);
    for entry in &listed {
        for (key, message) in check(&entry.value) {
            mistakes.push(entry.mistake(key, message));
        }
    }
    listed.into_iter().map(|entry| entry.value).collect()
}

fn check_address_list(list: &AddressList) -> Vec<(&'static str, String)> {
    let mut wrong = check_list(&list.zone, &list.name, list.weight);
    for (key, test) in [("listed", &list.listed), ("not_listed", &list.not_listed)] {
        if let Some(test) = test.as_ref().filter(|test| !test.is_empty() && test.parse::<std::net::IpAddr>().is_err()) {
            wrong.push((key, format!("{test:?} is not an IP address")));
        }
    }
    wrong
}

fn check_whitelist(list: &AddressList) -> Vec<(&'static str, String)> {
    let mut wrong = check_address_list(list);
    if list.weight < 0 {
        wrong.push(("weight", format!("{} is below 0: the weight of a dnswl is taken off the score", list.weight)));
    }
    wrong
}

fn check_domain_list(list: &DomainList) -> Vec<(&'static str, String)> {
    let mut wrong = check_list(&list.zone, &list.name, list.weight);
    if list.on.is_empty() || super::repeats(&list.on) {
        wrong.push(("on", "must name each of sender, helo and reverse_name at most once, and one at least".to_owned()));
    }
    for (key, test) in [("listed", &list.listed), ("not_listed", &list.not_listed)] {
        if let Some(test) = test.as_ref().filter(|test| !test.is_empty() && !is_zone(&format!("{test}.test"))) {
            wrong.push((key, format!("{test:?} is not a domain name")));
        }
    }
    wrong
}

fn check_list(zone: &str, name: &str, weight: i32) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if !is_zone(zone) {
        wrong.push(("zone", format!("{zone:?} is not a domain name")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.len() > 100 || !name.chars().all(good) {
        wrong.push((
            "name",
            format!("{name:?} has more than 100 characters, or others than letters, digits, - . and _"),
        ));
    }
    if !(-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
        wrong.push(("weight", format!("{weight} is not between -{MAX_WEIGHT} and {MAX_WEIGHT}")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (PerimeterSettings, String) {
        let mut mistakes = Mistakes::new();
        let settings = PerimeterSettings::read(&Source::from_text("f", text).unwrap(), &mut mistakes);
        (settings, mistakes.to_string())
    }

    #[test]
    fn lists_are_read_with_their_defaults() {
        let (settings, mistakes) = read(
            "[perimeter]\nreject_score = 5\n[[perimeter.dnsbl]]\nzone = 'zen.test'\nreply = '127.0.0.[2..11]'\nweight = 3\n\
             [[perimeter.dnsbl]]\nzone = 'key.zen.test'\nname = 'zen'\n[[perimeter.rhsbl]]\nzone = 'dbl.test'\non = ['helo']\n",
        );
        assert_eq!(mistakes, "");
        assert_eq!(settings.reject_score, 5);
        let [first, second] = settings.dnsbl.as_slice() else { panic!("{settings:?}") };
        assert_eq!((first.weight, first.reply.to_string().as_str()), (3, "127.0.0.[2..11]"));
        assert_eq!((second.weight, shown(&second.name, &second.zone)), (1, "zen"));
        assert_eq!(settings.rhsbl[0].on, [NamedBy::Helo]);
        assert!(settings.dnswl.is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_key() {
        let list = |kind: &str, rest: &str| format!("[[perimeter.{kind}]]\nzone = 'bl.test'\n{rest}");
        for (text, told) in [
            ("[perimeter]\nreject_score = -1".to_owned(), "f:2: perimeter.reject_score: "),
            ("[perimeter]\ngreylist_score = 8".to_owned(), "f:2: perimeter.greylist_score: "),
            ("[perimeter]\nwhitelist_score = 1".to_owned(), "f:2: perimeter.whitelist_score: "),
            ("[perimeter]\ntext = '4.7.1 no'".to_owned(), "f:2: perimeter.text: "),
            ("[perimeter]\ntext = '5.7.1 {what}'".to_owned(), "f:2: perimeter.text: "),
            ("[perimeter]\nfailures = 0".to_owned(), "f:2: perimeter.failures: "),
            ("[perimeter]\npause = '10ms'".to_owned(), "f:2: perimeter.pause: "),
            ("[perimeter]\nself_test = '1s'".to_owned(), "f:2: perimeter.self_test: "),
            ("[perimeter]\ndnsbls = []".to_owned(), "f:2: perimeter.dnsbls: "),
            ("[[perimeter.dnsbl]]\nzone = 'bl'".to_owned(), "f:2: perimeter.dnsbl.zone: "),
            ("[[perimeter.dnsbl]]\nweight = 2".to_owned(), "f:1: perimeter.dnsbl: missing"),
            (list("dnsbl", "reply = '127.0.0.300'"), "f:3: perimeter.dnsbl.reply: "),
            (list("dnsbl", "weight = 2000"), "f:3: perimeter.dnsbl.weight: "),
            (list("dnsbl", "name = 'a b'"), "f:3: perimeter.dnsbl.name: "),
            (list("dnsbl", "listed = 'test'"), "f:3: perimeter.dnsbl.listed: "),
            (list("dnsbl", "on = ['helo']"), "f:3: perimeter.dnsbl.on: "),
            (list("dnswl", "weight = -2"), "f:3: perimeter.dnswl.weight: "),
            (list("rhsbl", "on = []"), "f:3: perimeter.rhsbl.on: "),
            (list("rhsbl", "on = ['mail']"), "f:3: perimeter.rhsbl.on: "),
            (list("rhsbl", "not_listed = 'a b'"), "f:3: perimeter.rhsbl.not_listed: "),
            (list("rhsbl", "errors = ['127.0.0']"), "f:3: perimeter.rhsbl.errors: "),
            ("[perimeter]\ndnsbl = { zone = 'bl.test' }".to_owned(), "f:2: perimeter.dnsbl: must be written"),
            (
                "[[perimeter.dnsbl]]\nzone = 'a.test'\nname = 'x'\n[[perimeter.rhsbl]]\nzone = 'b.test'\nname = 'x'"
                    .to_owned(),
                "f:1: perimeter: \"x\" is the name of several lists: a.test, b.test",
            ),
        ] {
            let (_, mistakes) = read(&text);
            assert!(mistakes.starts_with(told), "{text:?} gave {mistakes}");
            assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        }
    }
}
