// SPDX-License-Identifier: GPL-3.0-or-later
//! `[[limit]]`, one entry per rate limit, and `[limits]`, what holds for all of them.

use common::config::{Listed, Mistakes, Source};
use common::units::Size;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::key::{Basis, Term, Who};
use crate::limits::plan::{Limit, RateOf};
use crate::limits::rate::{MOST, Rate, Span};
use crate::limits::unit::{Stage, Unit};
use crate::template::{Template, reply_mistake};

/// Longest name of a limit.
const LONGEST_NAME: usize = 32;
/// Most limits: each that applies is a row to lock.
const MOST_LIMITS: usize = 200;

/// Section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSettings {
    /// Hosts that share the store: while it is away each keeps to its share of every limit.
    pub hosts: u32,
    /// Time zone of calendar windows, a name of the IANA database.
    pub time_zone: String,
}

impl Default for LimitsSettings {
    fn default() -> Self {
        Self { hosts: 1, time_zone: "UTC".to_owned() }
    }
}

impl LimitsSettings {
    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        if self.hosts == 0 {
            mistakes.push(source.mistake("limits.hosts", "must be at least 1"));
        }
        if let Err(error) = self.zone() {
            mistakes.push(source.mistake("limits.time_zone", error));
        }
    }

    /// The time zone.
    pub fn zone(&self) -> Result<TimeZone, String> {
        let missing =
            |_| format!("{:?} is not a time zone that this host knows, such as \"Europe/Vienna\"", self.time_zone);
        match self.time_zone.as_str() {
            "UTC" => Ok(TimeZone::UTC),
            name => TimeZone::get(name).map_err(missing),
        }
    }
}

/// A number of units; bytes may be written with their unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Amount(pub u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, or a size with its unit such as \"10MB\"")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse::<Size>().map(|size| Self(size.0)).map_err(serde::de::Error::custom),
        }
    }
}

/// One text or several.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum Written {
        One(String),
        More(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::More(texts) => texts,
    })
}

/// One `[[limit]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// By which it is known in log, metrics, rules and the administrator's command.
    pub name: String,
    /// By what it counts: terms that together make one key. Empty: everybody together.
    #[serde(default, deserialize_with = "one_or_more")]
    pub key: Vec<String>,
    /// What it counts.
    pub unit: Unit,
    /// How much in which time: `"100/1h"`; several hold together.
    #[serde(deserialize_with = "one_or_more")]
    pub rate: Vec<String>,
    /// Units at once; the number of the rate when not given.
    #[serde(default)]
    pub burst: Option<Amount>,
    /// Where it is asked, when the unit leaves a choice.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// What is answered above it: `defer`, `defer_if_permit`, `reject` with a text, or `dunno`.
    #[serde(default = "default_action")]
    pub action: String,
    /// Above this number in the time of the rate a notice is sent.
    #[serde(default)]
    pub warn_at: Option<Amount>,
    /// Above this number, instead of that of the rate, the action is answered and a notice sent.
    #[serde(default)]
    pub block_at: Option<Amount>,
    /// Whom it concerns: anyone of these; empty: everybody.
    #[serde(default, deserialize_with = "one_or_more")]
    pub only: Vec<String>,
    /// Whom it does not concern.
    #[serde(default, deserialize_with = "one_or_more")]
    pub except: Vec<String>,
    /// It concerns only requests for which a rule asks for it.
    #[serde(default)]
    pub by_rule: bool,
}

fn default_action() -> String {
    "defer 4.7.1 Limit {limit} is reached, try again in {left}; id {id}".to_owned()
}

impl Default for LimitSettings {
    /// A limit for tests and for `deploy/octroi.toml`: what has no default is what a first limit would have.
    fn default() -> Self {
        Self {
            name: "user".to_owned(),
            key: vec!["sasl_username".to_owned()],
            unit: Unit::Recipients,
            rate: vec!["100/1h".to_owned()],
            burst: None,
            stage: None,
            action: default_action(),
            warn_at: None,
            block_at: None,
            only: Vec::new(),
            except: Vec::new(),
            by_rule: false,
        }
    }
}

/// How a request above a limit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverAction {
    /// For now.
    Defer,
    /// For now, unless a later restriction refuses for good.
    DeferIfPermit,
    /// For good.
    Reject,
    /// Not at all: it is only counted.
    Dunno,
}

/// The answer above a limit.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What Postfix is told.
    pub action: OverAction,
    /// In these words.
    pub text: Template,
    /// Whether a notice is sent at the first refusal.
    pub notice: bool,
}

/// A mistake: key and message.
type Wrong = (&'static str, String);

impl LimitSettings {
    /// The limit, ready for use, and its answer.
    pub fn compile(&self, basis: Basis) -> Result<(Limit, Reply), Wrong> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || !self.name.chars().all(good) {
            return Err((
                "name",
                format!("{:?} is not a name of up to {LONGEST_NAME} letters, digits, _, - and .", self.name),
            ));
        }
        let term = |text: &String| Term::parse(text, basis);
        let key = self.key.iter().map(term).collect::<Result<_, _>>().map_err(|error| ("key", error))?;
        let who = |list: &[String]| list.iter().map(|text| text.parse()).collect::<Result<Vec<Who>, _>>();
        let limit = Limit {
            name: self.name.clone(),
            key,
            unit: self.unit,
            stage: self.stage()?,
            rates: self.rates()?,
            only: who(&self.only).map_err(|error| ("only", error))?,
            except: who(&self.except).map_err(|error| ("except", error))?,
            by_rule: self.by_rule,
        };
        Ok((limit, self.reply().map_err(|error| ("action", error))?))
    }

    fn stage(&self) -> Result<Option<Stage>, Wrong> {
        let possible = self.unit.stages();
        match self.stage {
            None => Ok(possible.first().copied()),
            Some(stage) if possible.contains(&stage) => Ok(Some(stage)),
            Some(_) => Err(("stage", format!("{} are not known at this stage", self.unit.word()))),
        }
    }

    fn rates(&self) -> Result<Vec<RateOf>, Wrong> {
        let mut rates = Vec::new();
        for text in &self.rate {
            let mut rate: Rate = text.parse().map_err(|error| ("rate", error))?;
            if rates.iter().any(|known: &RateOf| known.rate.span == rate.span) {
                return Err(("rate", format!("{text:?}: there is a rate for this time already")));
            }
            if let Some(Amount(number)) = self.block_at {
                rate.number = number;
            }
            let burst = self.burst.map_or(rate.number, |burst| burst.0);
            rates.push(RateOf { rate, burst, watch: false });
        }
        let [first] = rates.as_slice() else {
            let alone = [("burst", self.burst), ("warn_at", self.warn_at), ("block_at", self.block_at)];
            return match alone.iter().find(|(_, amount)| amount.is_some()) {
                _ if rates.is_empty() => Err(("rate", "needs at least one, such as \"100/1h\"".to_owned())),
                Some((key, _)) => Err((key, "is possible with one rate only; make it a limit of its own".to_owned())),
                None => Ok(rates),
            };
        };
        let first = first.clone();
        self.check_numbers(&first)?;
        if let Some(Amount(warn)) = self.warn_at {
            rates.push(RateOf { rate: Rate { number: warn, ..first.rate }, burst: warn, watch: true });
        }
        Ok(rates)
    }

    fn check_numbers(&self, first: &RateOf) -> Result<(), Wrong> {
        for (key, amount) in [("burst", self.burst), ("warn_at", self.warn_at), ("block_at", self.block_at)] {
            if amount.is_some_and(|amount| amount.0 == 0 || amount.0 > MOST) {
                return Err((key, format!("must be between 1 and {MOST}")));
            }
        }
        if self.burst.is_some() && matches!(first.rate.span, Span::Calendar(_)) {
            return Err(("burst", "a calendar window has none: all of it can be used at once".to_owned()));
        }
        if self.warn_at.is_some_and(|warn| warn.0 >= first.rate.number) {
            return Err(("warn_at", format!("must be below {}, where it is refused", first.rate.number)));
        }
        Ok(())
    }

    fn reply(&self) -> Result<Reply, String> {
        Ok(Reply { notice: self.block_at.is_some(), ..reply_of(&self.action, &self.name)? })
    }
}

/// The answer above the limit of this name: `defer`, `defer_if_permit` or `reject` with a text, or `dunno`.
pub(super) fn reply_of(written: &str, limit: &str) -> Result<Reply, String> {
    let (verb, text) = written.split_once(' ').unwrap_or((written, ""));
    let action = match verb.to_ascii_lowercase().as_str() {
        "defer" => OverAction::Defer,
        "defer_if_permit" => OverAction::DeferIfPermit,
        "reject" => OverAction::Reject,
        "dunno" => OverAction::Dunno,
        _ => return Err(format!("{verb:?} is not defer, defer_if_permit, reject or dunno")),
    };
    let mistake = match action {
        OverAction::Dunno if !text.is_empty() => Some("dunno has no text".to_owned()),
        OverAction::Dunno => None,
        // The same form, of class 5.
        OverAction::Reject => match text.strip_prefix('5') {
            Some(rest) => reply_mistake(&format!("4{rest}")),
            None => Some("reject needs an enhanced status code such as \"5.7.1\"".to_owned()),
        },
        OverAction::Defer | OverAction::DeferIfPermit => reply_mistake(text),
    };
    match mistake {
        Some(mistake) => Err(mistake),
        None => Ok(Reply { action, text: Template::new(&text.replace("{limit}", limit))?, notice: false }),
    }
}

/// Reads all limits.
pub(super) fn read(source: &Source, basis: Basis, mistakes: &mut Mistakes) -> Vec<LimitSettings> {
    let entries: Vec<Listed<LimitSettings>> = source.list("limit", mistakes);
    for (at, entry) in entries.iter().enumerate() {
        if let Err((key, message)) = entry.value.compile(basis) {
            mistakes.push(entry.mistake(key, message));
        }
        if entries[..at].iter().any(|other| other.value.name == entry.value.name) {
            mistakes.push(entry.mistake("name", format!("there is a limit {:?} already", entry.value.name)));
        }
        if at == MOST_LIMITS {
            mistakes.push(entry.mistake("name", format!("there can be {MOST_LIMITS} limits")));
        }
    }
    entries.into_iter().map(|entry| entry.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIS: Basis = Basis { network: (24, 64), countries: false, asns: true };

    fn read_text(text: &str) -> (Vec<LimitSettings>, String) {
        let mut mistakes = Mistakes::new();
        let limits = read(&Source::from_text("f", text).unwrap(), BASIS, &mut mistakes);
        (limits, mistakes.to_string())
    }

    #[test]
    fn four_lines_are_a_limit() {
        let (limits, mistakes) =
            read_text("[[limit]]\nname = 'user'\nkey = 'sasl_username'\nunit = 'recipients'\nrate = '100/1h'\n");
        assert_eq!(mistakes, "");
        assert_eq!(limits, [LimitSettings::default()]);
        let (limit, reply) = limits[0].compile(BASIS).unwrap();
        assert_eq!((limit.stage, limit.rates[0].burst, limit.rates.len()), (Some(Stage::Rcpt), 100, 1));
        assert_eq!((reply.action, reply.notice), (OverAction::Defer, false));
    }

    #[test]
    fn warning_and_blocking_have_numbers_of_their_own() {
        let (limits, mistakes) = read_text(
            "[[limit]]\nname = 'c'\nkey = ['client_address']\nunit = 'connections'\nrate = '500/1h'\nwarn_at = 500\nblock_at = 2500\n",
        );
        assert_eq!(mistakes, "");
        let (limit, reply) = limits[0].compile(BASIS).unwrap();
        let rates: Vec<_> = limit.rates.iter().map(|rate| (rate.rate.number, rate.burst, rate.watch)).collect();
        assert_eq!(rates, [(2500, 2500, false), (500, 500, true)]);
        assert!(reply.notice);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let head = "[[limit]]\nname = 'x'\nunit = 'bytes'\nrate = '1GB/1d'\n";
        for (line, told) in [
            ("key = 'user'", "f:5: limit.key: \"user\" is not an attribute"),
            ("key = ['asn', 'country']", "f:5: limit.key: \"country\" needs perimeter.geo.country_db"),
            ("stage = 'rcpt'", "f:5: limit.stage: bytes are not known"),
            ("stage = 'helo'", "f:5: limit.stage: "),
            ("burst = 0", "f:5: limit.burst: must be between"),
            ("burst = '10'", "f:5: limit.burst: "),
            ("action = 'defer 5.7.1 x'", "f:5: limit.action: must begin with"),
            ("action = 'reject 4.7.1 x'", "f:5: limit.action: reject needs"),
            ("action = 'drop'", "f:5: limit.action: \"drop\" is not"),
            ("action = 'defer 4.7.1 {who}'", "f:5: limit.action: {who} does not exist"),
            ("warn_at = '2GB'", "f:5: limit.warn_at: must be below"),
            ("only = 'everybody'", "f:5: limit.only: "),
            ("rates = 1", "f:5: limit.rates: unknown field"),
            ("[[limit]]\nname = 'x'\nunit = 'auth'\nrate = '1/day'\nburst = 2", "f:9: limit.burst: a calendar window"),
            ("[[limit]]\nname = 'x'\nunit = 'auth'\nrate = '1/day'", "f:6: limit.name: there is a limit"),
            ("[[limit]]\nname = 'y'\nunit = 'auth'\nrate = ['1/1m', '2/60s']", "f:8: limit.rate: \"2/60s\": there is"),
            ("[[limit]]\nname = 'y'\nunit = 'auth'\nrate = []", "f:8: limit.rate: needs at least one"),
            ("[[limit]]\nname = 'y y'\nunit = 'auth'\nrate = '1/1m'", "f:6: limit.name: "),
        ] {
            let mistakes = read_text(&format!("{head}{line}\n")).1;
            assert!(mistakes.contains(told), "{line}: {mistakes}");
        }
    }

    #[test]
    fn time_zones_are_checked() {
        let zone = |name: &str| LimitsSettings { time_zone: name.to_owned(), ..LimitsSettings::default() }.zone();
        assert!(zone("UTC").is_ok() && zone("Europe/Vienna").is_ok() && zone("Middle/Earth").is_err());
    }
}
