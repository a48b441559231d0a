// SPDX-License-Identifier: GPL-3.0-or-later
//! The sections below `[perimeter]`: what each sign leads to. A sign that leads to nothing, the default of all, is not looked for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use common::config::{Mistakes, Source};
use common::units::Period;
use ipnet::IpNet;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::perimeter::MAX_WEIGHT;

/// What a sign leads to. Text form: a number, or `"greylist"`, `"defer"`, `"reject"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// This is added to the score; 0: nothing, and the sign is not looked for.
    Score(i32),
    /// The mail is greylisted, whatever the mode.
    Greylist,
    /// The mail is refused for now.
    Defer,
    /// The mail is refused.
    Reject,
}

impl Effect {
    /// Nothing.
    pub const NONE: Self = Self::Score(0);
}

impl Default for Effect {
    fn default() -> Self {
        Self::NONE
    }
}

struct EffectVisitor;

impl Visitor<'_> for EffectVisitor {
    type Value = Effect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from -{MAX_WEIGHT} to {MAX_WEIGHT}, \"greylist\", \"defer\" or \"reject\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Effect, E> {
        let weight = i32::try_from(number).ok().filter(|weight| (-MAX_WEIGHT..=MAX_WEIGHT).contains(weight));
        weight.map(Effect::Score).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Effect, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Effect, E> {
        match word {
            "greylist" => Ok(Effect::Greylist),
            "defer" => Ok(Effect::Defer),
            "reject" => Ok(Effect::Reject),
            // A variable of the environment is a text.
            _ => match word.parse() {
                Ok(number) => self.visit_i64(number),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Effect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EffectVisitor)
    }
}

impl Serialize for Effect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Score(weight) => serializer.serialize_i32(*weight),
            Self::Greylist => serializer.serialize_str("greylist"),
            Self::Defer => serializer.serialize_str("defer"),
            Self::Reject => serializer.serialize_str("reject"),
        }
    }
}

/// Section `[perimeter.helo]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeloSettings {
    /// Names that are ours alone, besides that of this host: `mx.example.org`; `.example.org` for all below it.
    pub own_names: Vec<String>,
    /// HELO is one of our names, or our address.
    pub own: Effect,
    /// HELO is an address, in brackets or not.
    pub literal: Effect,
    /// HELO is no host name at all.
    pub invalid: Effect,
    /// HELO is a host name without a domain.
    pub unqualified: Effect,
    /// HELO has neither address nor MX in DNS.
    pub unresolvable: Effect,
    /// The client calls itself by more than `random_after` names within `random_period`.
    pub random: Effect,
    /// See `random`.
    pub random_after: usize,
    /// See `random`.
    pub random_period: Period,
}

impl Default for HeloSettings {
    fn default() -> Self {
        Self {
            own_names: Vec::new(),
            own: Effect::NONE,
            literal: Effect::NONE,
            invalid: Effect::NONE,
            unqualified: Effect::NONE,
            unresolvable: Effect::NONE,
            random: Effect::NONE,
            random_after: 5,
            random_period: Period::seconds(3600),
        }
    }
}

/// Section `[perimeter.reverse_name]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReverseNameSettings {
    /// The client's address has no name.
    pub none: Effect,
    /// It has one, which does not lead back to the address.
    pub unmatched: Effect,
    /// It has a confirmed one that looks like a line of a customer.
    pub dynamic: Effect,
}

/// Section `[perimeter.sender]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SenderSettings {
    /// The domain has neither MX nor address: nobody can answer.
    pub no_mail_host: Effect,
    /// The domain says that it has no mail (RFC 7505).
    pub null_mx: Effect,
    /// A mail host of the domain has an address where no host of the Internet can be (RFC 6890).
    pub bogus_mx: Effect,
    /// A name server of the domain has.
    pub bogus_ns: Effect,
    /// Networks of RFC 6890 in which we do reach mail hosts.
    pub reachable: Vec<IpNet>,
}

/// Which identities SPF is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpfIdentity {
    /// HELO, before MAIL FROM; only a fail counts.
    Helo,
    /// The sender; HELO for the null sender.
    MailFrom,
}

/// The header that tells of SPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpfHeader {
    /// None.
    #[default]
    None,
    /// `Received-SPF` (RFC 7208 section 9.1).
    ReceivedSpf,
    /// `Authentication-Results` (RFC 8601).
    AuthenticationResults,
}

/// Section `[perimeter.spf]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpfSettings {
    /// Which identities are asked about when a result leads to something, or a header is wanted.
    pub identities: Vec<SpfIdentity>,
    /// Header of the message.
    pub header: SpfHeader,
    /// The client is authorised.
    pub pass: Effect,
    /// The domain has no record.
    pub none: Effect,
    /// The domain says nothing about the client.
    pub neutral: Effect,
    /// The client is probably not authorised.
    pub softfail: Effect,
    /// The client is not authorised.
    pub fail: Effect,
    /// DNS gave no answer.
    pub temperror: Effect,
    /// The record cannot be understood.
    pub permerror: Effect,
}

impl Default for SpfSettings {
    fn default() -> Self {
        Self {
            identities: vec![SpfIdentity::Helo, SpfIdentity::MailFrom],
            header: SpfHeader::None,
            pass: Effect::NONE,
            none: Effect::NONE,
            neutral: Effect::NONE,
            softfail: Effect::NONE,
            fail: Effect::NONE,
            temperror: Effect::NONE,
            permerror: Effect::NONE,
        }
    }
}

/// Section `[perimeter.geo]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoSettings {
    /// MaxMind DB file with countries; empty for none.
    pub country_db: PathBuf,
    /// MaxMind DB file with autonomous systems; empty for none.
    pub asn_db: PathBuf,
    /// By country, ISO 3166-1 with two letters; `"??"` for clients of which it is not known.
    pub countries: BTreeMap<String, Effect>,
    /// By number of the autonomous system: `"64496"`.
    pub asns: BTreeMap<String, Effect>,
}

impl HeloSettings {
    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong =
            |key: &str, message: String| mistakes.push(source.mistake(&format!("perimeter.helo.{key}"), message));
        let is_name = |name: &&String| !super::is_zone(name.strip_prefix('.').unwrap_or(name));
        if let Some(name) = self.own_names.iter().find(is_name) {
            wrong("own_names", format!("{name:?} is not a domain name"));
        }
        if !(1..=50).contains(&self.random_after) {
            wrong("random_after", format!("{} is not between 1 and 50", self.random_after));
        }
        if self.random_period.0 < Duration::from_secs(60) || self.random_period.0 > Duration::from_secs(86_400) {
            wrong("random_period", format!("{} is not between 1m and 1d", self.random_period));
        }
    }
}

impl SpfSettings {
    /// True when nothing of SPF leads to anything.
    pub fn is_idle(&self) -> bool {
        let effects = [self.pass, self.none, self.neutral, self.softfail, self.fail, self.temperror, self.permerror];
        self.identities.is_empty()
            || (self.header == SpfHeader::None && effects.iter().all(|effect| *effect == Effect::NONE))
    }

    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        if super::repeats(&self.identities) {
            mistakes.push(source.mistake("perimeter.spf.identities", "must name each identity once"));
        }
    }
}

impl GeoSettings {
    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong =
            |key: &str, message: String| mistakes.push(source.mistake(&format!("perimeter.geo.{key}"), message));
        let is_country =
            |code: &str| code == "??" || (code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()));
        for code in self.countries.keys().filter(|code| !is_country(code)) {
            wrong(&format!("countries.{code}"), "is not a country code such as DE".to_owned());
        }
        for number in self.asns.keys().filter(|number| number.parse::<u32>().is_err()) {
            wrong(&format!("asns.{number}"), "is not the number of an autonomous system".to_owned());
        }
        for (list, empty, key, file) in [
            ("countries", self.countries.is_empty(), "country_db", &self.country_db),
            ("asns", self.asns.is_empty(), "asn_db", &self.asn_db),
        ] {
            if !empty && file.as_os_str().is_empty() {
                wrong(list, format!("needs {key}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PerimeterSettings;

    fn read(text: &str) -> (PerimeterSettings, String) {
        let mut mistakes = Mistakes::new();
        let settings = PerimeterSettings::read(&Source::from_text("f", text).unwrap(), &mut mistakes);
        (settings, mistakes.to_string())
    }

    #[test]
    fn effects_are_numbers_or_words() {
        let (settings, mistakes) = read(
            "[perimeter.helo]\nown = 'reject'\nliteral = 2\n[perimeter.spf]\nfail = 'defer'\npass = -1\nheader = 'received_spf'\n\
             [perimeter.geo]\ncountry_db = '/x'\ncountries = { DE = -1, '??' = 'greylist' }\n",
        );
        assert_eq!(mistakes, "");
        assert_eq!((settings.helo.own, settings.helo.literal), (Effect::Reject, Effect::Score(2)));
        assert_eq!((settings.spf.fail, settings.spf.pass), (Effect::Defer, Effect::Score(-1)));
        assert!(!settings.spf.is_idle() && SpfSettings::default().is_idle());
        assert_eq!(settings.geo.countries["??"], Effect::Greylist);
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_key() {
        for (text, told) in [
            ("[perimeter.helo]\nown = 'drop'", "f:2: perimeter.helo.own: "),
            ("[perimeter.helo]\nown = 1001", "f:2: perimeter.helo.own: "),
            ("[perimeter.helo]\nown = true", "f:2: perimeter.helo.own: "),
            ("[perimeter.helo]\nown_names = ['mx']", "f:2: perimeter.helo.own_names: "),
            ("[perimeter.helo]\nrandom_after = 0", "f:2: perimeter.helo.random_after: "),
            ("[perimeter.helo]\nrandom_period = '1s'", "f:2: perimeter.helo.random_period: "),
            ("[perimeter.reverse_name]\nname = 1", "f:2: perimeter.reverse_name.name: "),
            ("[perimeter.sender]\nreachable = ['10.0.0.0/33']", "f:2: perimeter.sender.reachable: "),
            ("[perimeter.spf]\nidentities = ['from']", "f:2: perimeter.spf.identities: "),
            ("[perimeter.spf]\nidentities = ['helo', 'helo']", "f:2: perimeter.spf.identities: "),
            ("[perimeter.spf]\nheader = 'x'", "f:2: perimeter.spf.header: "),
            (
                "[perimeter.geo]\ncountry_db = '/x'\n[perimeter.geo.countries]\nGermany = 1",
                "f:4: perimeter.geo.countries.Germany: ",
            ),
            ("[perimeter.geo]\nasn_db = '/x'\n[perimeter.geo.asns]\nAS1 = 1", "f:4: perimeter.geo.asns.AS1: "),
            ("[perimeter.geo]\nasns = { 1 = 1 }", "f:2: perimeter.geo.asns: needs asn_db"),
        ] {
            let (_, mistakes) = read(text);
            assert!(mistakes.starts_with(told), "{text:?} gave {mistakes}");
            assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        }
    }
}
