// SPDX-License-Identifier: GPL-3.0-or-later
//! Compiled expressions and their value for a request. Every node knows its type, so nothing can go wrong here but a look-up that
//! failed: then the value cannot be told, and a whole is told all the same where its other parts decide it (`false && ?` is false).
//!
//! Pure, and nothing is allocated: texts are borrowed from the request. A value that has to be looked up first cannot be told yet,
//! and is noted as missing; whoever evaluates looks it up and evaluates again.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use common::mail;

use super::attribute::{ReadText, WEEKDAYS};
use super::list::List;
use super::prefilter::{Place, Scans};
use super::sets::{self, Networks, Pattern, TextSet};
use crate::request::PolicyRequest;

/// The local time of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Minutes since midnight.
    pub minutes: i64,
    /// Year * 10000 + month * 100 + day.
    pub date: i64,
    /// Days since Monday.
    pub weekday: usize,
}

/// What was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It failed.
    Untold,
    /// A text or word.
    Text(String),
    /// A number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl Fact {
    /// For the trace.
    pub fn told(&self) -> String {
        match self {
            Self::Untold => "not to be told".to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

/// What an expression is evaluated for.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The request.
    pub request: &'a PolicyRequest<'a>,
    /// The time.
    pub moment: Moment,
    /// What was looked up, by number; none: not yet.
    pub known: &'a [Option<Fact>],
    /// Tags that earlier rules gave, a bit each.
    pub tags: u64,
    /// Which patterns can match.
    pub scans: &'a Scans<'a>,
    /// The first fact that was missing.
    pub missing: &'a Cell<Option<usize>>,
}

impl<'a> Scene<'a> {
    fn fact(&self, number: usize) -> Option<&'a Fact> {
        let known = self.known.get(number).and_then(Option::as_ref);
        if known.is_none() && self.missing.get().is_none() {
            self.missing.set(Some(number));
        }
        known
    }
}

/// True, false, or not to be told (None). As in SQL.
pub type Truth = Option<bool>;

/// An expression that is true or false.
#[derive(Debug, Clone)]
pub enum Test {
    /// A constant.
    Always(bool),
    /// An attribute.
    Flag(fn(&PolicyRequest<'_>) -> bool),
    /// A fact.
    Fact(usize),
    /// An earlier rule gave this tag.
    Tagged(u64),
    /// `!`
    Not(Box<Test>),
    /// `&&`
    All(Box<[Test]>),
    /// `||`
    Any(Box<[Test]>),
    /// `? :`
    If(Box<[Test; 3]>),
    /// Both are true or both are false.
    Same(Box<[Test; 2]>),
    /// `==` of two texts.
    SameText(Text, Text),
    /// `in` a list of texts.
    OneOf(Text, TextSet),
    /// `starts_with()`
    Starts(Text, Box<str>),
    /// `ends_with()`
    Ends(Text, Box<str>),
    /// `contains()`
    Contains(Text, Box<str>),
    /// `matches()`; where the pattern is in the filter of its attribute.
    Matches(Text, Pattern, Option<Place>),
    /// `in_list()` of a text.
    TextListed(Text, Arc<List>),
    /// Comparison of two numbers.
    Compare(Number, Comparison, Number),
    /// `in` a list of numbers.
    NumberIn(Number, Box<[i64]>),
    /// The time is between these, over midnight when the second is earlier.
    Between(i64, i64),
    /// `==` of two addresses; unknown ones are equal to nothing.
    SameAddress(Address, Address),
    /// `in_network()`
    InNetworks(Address, Networks),
    /// `in_list()` of an address.
    AddressListed(Address, Arc<List>),
    /// `known()` of something that is looked up.
    Known(Box<Known>),
}

/// What `known()` asks about.
#[derive(Debug, Clone)]
pub enum Known {
    /// A truth.
    Test(Test),
    /// A text.
    Text(Text),
    /// A number.
    Number(Number),
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
}

/// An expression that is a text.
#[derive(Debug, Clone)]
pub enum Text {
    /// A constant.
    Constant(Box<str>),
    /// An attribute.
    Read(ReadText),
    /// The day of the week.
    Weekday,
    /// A fact.
    Fact(usize),
    /// `domain()`
    Domain(Box<Text>),
    /// `local_part()`
    Local(Box<Text>),
    /// `org_domain()`
    Organisation(Box<Text>),
    /// `? :`
    If(Box<(Test, Text, Text)>),
}

/// An expression that is a number.
#[derive(Debug, Clone)]
pub enum Number {
    /// A constant.
    Constant(i64),
    /// An attribute.
    Read(fn(&PolicyRequest<'_>) -> i64),
    /// Minutes since midnight.
    Minutes,
    /// The date.
    Date,
    /// A fact.
    Fact(usize),
    /// Number of characters.
    Length(Text),
    /// Arithmetic.
    Of(Arithmetic, Box<[Number; 2]>),
    /// `? :`
    If(Box<(Test, Number, Number)>),
}

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

/// An expression that is an IP address.
#[derive(Debug, Clone, Copy)]
pub enum Address {
    /// A constant.
    Constant(IpAddr),
    /// An attribute.
    Read(fn(&PolicyRequest<'_>) -> Option<IpAddr>),
}

impl Test {
    /// True, false, or none when a look-up failed or is missing.
    pub fn holds(&self, scene: &Scene<'_>) -> Truth {
        match self {
            Self::Always(flag) => Some(*flag),
            Self::Flag(read) => Some(read(scene.request)),
            Self::Fact(number) => match scene.fact(*number)? {
                Fact::Flag(flag) => Some(*flag),
                _ => None,
            },
            Self::Tagged(tag) => Some(scene.tags & tag != 0),
            Self::Not(inner) => inner.holds(scene).map(|flag| !flag),
            Self::All(tests) => all(tests, scene, false),
            Self::Any(tests) => all(tests, scene, true),
            Self::If(parts) => {
                let [condition, yes, no] = &**parts;
                if condition.holds(scene)? { yes.holds(scene) } else { no.holds(scene) }
            }
            Self::Same(sides) => Some(sides[0].holds(scene)? == sides[1].holds(scene)?),
            Self::Compare(left, how, right) => Some(how.holds(left.value(scene)?, right.value(scene)?)),
            Self::NumberIn(number, list) => number.value(scene).map(|number| list.contains(&number)),
            Self::Between(from, to) => Some(between(*from, *to, scene.moment.minutes)),
            Self::SameAddress(left, right) => {
                Some(left.value(scene).is_some_and(|address| right.value(scene) == Some(address)))
            }
            Self::InNetworks(address, networks) => {
                Some(address.value(scene).is_some_and(|address| networks.contain(address)))
            }
            Self::AddressListed(address, list) => {
                Some(address.value(scene).is_some_and(|address| list.has_address(address)))
            }
            Self::Known(what) => what.holds(scene),
            about_text => about_text.text_holds(scene),
        }
    }

    /// The tests that look at a text.
    fn text_holds(&self, scene: &Scene<'_>) -> Truth {
        Some(match self {
            Self::SameText(left, right) => left.value(scene)?.eq_ignore_ascii_case(right.value(scene)?),
            Self::OneOf(text, set) => set.contains(text.value(scene)?),
            Self::Starts(text, start) => sets::starts_with(text.value(scene)?, start),
            Self::Ends(text, end) => sets::ends_with(text.value(scene)?, end),
            Self::Contains(text, inner) => sets::contains(text.value(scene)?, inner),
            Self::Matches(text, pattern, place) => {
                let text = text.value(scene)?;
                place.is_none_or(|place| scene.scans.may_match(place, text)) && pattern.is_in(text)
            }
            Self::TextListed(text, list) => list.has_text(text.value(scene)?),
            _ => return None,
        })
    }

    /// The constant that it is, if it is one.
    pub fn constant(&self) -> Option<bool> {
        match self {
            Self::Always(flag) => Some(*flag),
            _ => None,
        }
    }
}

/// The first test that is `decisive` decides; else one that cannot be told leaves the whole untold.
fn all(tests: &[Test], scene: &Scene<'_>, decisive: bool) -> Truth {
    let mut told = Some(!decisive);
    for test in tests {
        match test.holds(scene) {
            Some(flag) if flag == decisive => return Some(decisive),
            Some(_) => {}
            None => told = None,
        }
    }
    told
}

fn between(from: i64, to: i64, now: i64) -> bool {
    if from <= to { (from..to).contains(&now) } else { now >= from || now < to }
}

impl Known {
    /// None while it is missing.
    fn holds(&self, scene: &Scene<'_>) -> Truth {
        let before = scene.missing.take();
        let told = match self {
            Self::Test(test) => test.holds(scene).is_some(),
            Self::Text(text) => text.value(scene).is_some(),
            Self::Number(number) => number.value(scene).is_some(),
        };
        let missing = scene.missing.get();
        scene.missing.set(before.or(missing));
        if told || missing.is_none() { Some(told) } else { None }
    }
}

impl Comparison {
    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
        }
    }
}

impl Text {
    /// True when it is made of the request alone, or a constant.
    pub fn is_of_request(&self) -> bool {
        match self {
            Self::Constant(_) | Self::Read(_) => true,
            Self::Domain(inner) | Self::Local(inner) | Self::Organisation(inner) => inner.is_of_request(),
            Self::Weekday | Self::Fact(_) | Self::If(_) => false,
        }
    }

    /// The text, where it is made of the request alone.
    pub fn of_request<'s>(&'s self, request: &'s PolicyRequest<'_>) -> Option<&'s str> {
        Some(match self {
            Self::Constant(text) => text,
            Self::Read(read) => read(request),
            Self::Domain(address) => mail::split(address.of_request(request)?).1,
            Self::Local(address) => mail::split(address.of_request(request)?).0,
            Self::Organisation(name) => organisation(name.of_request(request)?),
            Self::Weekday | Self::Fact(_) | Self::If(_) => return None,
        })
    }

    /// The text, or none when it cannot be told.
    fn value<'s>(&'s self, scene: &Scene<'s>) -> Option<&'s str> {
        Some(match self {
            Self::Constant(text) => text,
            Self::Read(read) => read(scene.request),
            Self::Weekday => WEEKDAYS.get(scene.moment.weekday).copied().unwrap_or_default(),
            Self::Fact(number) => match scene.fact(*number)? {
                Fact::Text(text) => text,
                _ => return None,
            },
            Self::Domain(address) => mail::split(address.value(scene)?).1,
            Self::Local(address) => mail::split(address.value(scene)?).0,
            Self::Organisation(name) => organisation(name.value(scene)?),
            Self::If(parts) => {
                let (condition, yes, no) = &**parts;
                return if condition.holds(scene)? { yes.value(scene) } else { no.value(scene) };
            }
        })
    }
}

/// The organisational domain of a name or an address; empty when it has none.
fn organisation(name: &str) -> &str {
    let host = name.rsplit_once('@').map_or(name, |(_, domain)| domain);
    common::dns::organisational_part(host).unwrap_or_default()
}

impl Number {
    /// The number, or none when it cannot be told or there is no such number (division by zero).
    fn value(&self, scene: &Scene<'_>) -> Option<i64> {
        Some(match self {
            Self::Constant(number) => *number,
            Self::Read(read) => read(scene.request),
            Self::Minutes => scene.moment.minutes,
            Self::Date => scene.moment.date,
            Self::Fact(number) => match scene.fact(*number)? {
                Fact::Number(number) => *number,
                _ => return None,
            },
            Self::Length(text) => i64::try_from(text.value(scene)?.chars().count()).unwrap_or(i64::MAX),
            Self::Of(how, sides) => return how.apply(sides[0].value(scene)?, sides[1].value(scene)?),
            Self::If(parts) => {
                let (condition, yes, no) = &**parts;
                return if condition.holds(scene)? { yes.value(scene) } else { no.value(scene) };
            }
        })
    }
}

impl Arithmetic {
    /// None where there is no such number.
    pub fn apply(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
        }
    }
}

impl Address {
    /// The address, as far as the request has it.
    pub fn of_request(&self, request: &PolicyRequest<'_>) -> Option<IpAddr> {
        match self {
            Self::Constant(address) => Some(*address),
            Self::Read(read) => read(request),
        }
    }

    fn value(&self, scene: &Scene<'_>) -> Option<IpAddr> {
        self.of_request(scene.request)
    }
}
