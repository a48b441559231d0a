// SPDX-License-Identifier: GPL-3.0-or-later
//! What a rule does when it matches: each entry of its `then`, such as `"score +2"` or `"reject 5.7.1 Not from here"`.
//!
//! Pure. Words, numbers and reply texts are checked when the configuration is read. Whether the list ends with an action is said here
//! ([`Action::is_last`]); carrying out is for `checks::rules`.

use common::address::Address;
use common::orders::Order;
use common::units::Period;

use super::OrdersTo;
use super::compile::{Compiler, meant};
use super::text::Template;
use crate::template::{header_mistake, reply_mistake_of};

/// All words of actions.
const WORDS: [&str; 20] = [
    "accept",
    "reject",
    "defer",
    "defer_if_permit",
    "greylist",
    "no_greylist",
    "limit",
    "score",
    "prepend",
    "tag",
    "stop",
    "skip_to",
    "hold",
    "redirect",
    "bcc",
    "discard",
    "no_attachments",
    "filter",
    "ask",
    "compare",
];
/// Largest score of one action, up or down: a sum of all rules stays far from overflow.
const MAX_SCORE: i32 = 10_000;

/// One action.
#[derive(Debug, Clone)]
pub enum Action {
    /// The mail may go on, and no check after the rules is asked.
    Accept,
    /// Refused for good.
    Reject(Template),
    /// Refused for now.
    Defer(Template),
    /// Refused for now unless a later restriction of Postfix refuses for good.
    DeferIfPermit(Template),
    /// Greylisted whatever the mode, with a delay of its own.
    Greylist(Option<Period>),
    /// Not greylisted.
    NoGreylist,
    /// This limit must be met, too.
    Limit(String),
    /// Points against the client, or for it below zero.
    Score(i32),
    /// A header line for the message.
    Prepend(Template),
    /// A mark that later rules can ask for: its bit.
    Tag(u64),
    /// No more rules; the checks after them are asked.
    Stop,
    /// On with a later rule, by its place in the list.
    SkipTo(usize),
    /// What contentd, or Postfix, is to do with the message.
    Order(Order),
    /// To which content filter Postfix is to pass the message.
    Filter(String),
    /// Another policy server is asked, and a refusal of it is ours.
    Ask(Address),
    /// Another policy server is asked behind our answer, and what it says is compared with that.
    Compare(Address),
}

impl Action {
    /// Reads an action. `find` gives the place of a later rule.
    pub fn parse(
        text: &str,
        compiler: &mut Compiler<'_>,
        find: &dyn Fn(&str) -> Result<usize, String>,
    ) -> Result<Self, String> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()));
        let alone = |action: Self| match rest {
            "" => Ok(action),
            _ => Err(format!("{word} stands alone")),
        };
        match word {
            "accept" => alone(Self::Accept),
            "reject" => reply(rest, '5').map(Self::Reject),
            "defer" => reply(rest, '4').map(Self::Defer),
            "defer_if_permit" => reply(rest, '4').map(Self::DeferIfPermit),
            "greylist" if rest.is_empty() => Ok(Self::Greylist(None)),
            "greylist" => delay(rest).map(|delay| Self::Greylist(Some(delay))),
            "no_greylist" => alone(Self::NoGreylist),
            "limit" => limit(rest, compiler).map(Self::Limit),
            "score" => score(rest).map(Self::Score),
            "prepend" => header(rest).map(Self::Prepend),
            "tag" => tag_name(rest).and_then(|name| compiler.tag(name)).map(Self::Tag),
            "stop" => alone(Self::Stop),
            "skip_to" => find(rest).map(Self::SkipTo),
            "ask" => rest.parse().map(Self::Ask),
            "compare" => rest.parse().map(Self::Compare),
            "filter" => filter(rest, compiler).map(Self::Filter),
            word if Order::WORDS.contains(&word) => order(text, compiler).map(Self::Order),
            _ => Err(format!("there is no action {word:?}{}", meant(word, WORDS.into_iter()))),
        }
    }

    /// True when no rule is asked after it.
    pub fn is_last(&self) -> bool {
        self.decides() || matches!(self, Self::Stop)
    }

    /// True when it decides the request.
    pub fn decides(&self) -> bool {
        matches!(self, Self::Accept | Self::Reject(_) | Self::Defer(_) | Self::DeferIfPermit(_))
    }

    /// The word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject(_) => "reject",
            Self::Defer(_) => "defer",
            Self::DeferIfPermit(_) => "defer_if_permit",
            Self::Greylist(_) => "greylist",
            Self::NoGreylist => "no_greylist",
            Self::Limit(_) => "limit",
            Self::Score(_) => "score",
            Self::Prepend(_) => "prepend",
            Self::Tag(_) => "tag",
            Self::Stop => "stop",
            Self::SkipTo(_) => "skip_to",
            Self::Order(order) => order.word(),
            Self::Filter(_) => "filter",
            Self::Ask(_) => "ask",
            Self::Compare(_) => "compare",
        }
    }
}

/// What a later action of the same rule would change of an earlier one, or what never comes to pass.
pub fn contradiction(actions: &[Action]) -> Option<String> {
    let last = actions.iter().position(|action| action.is_last() || matches!(action, Action::SkipTo(_)));
    if let Some(after) = last.and_then(|at| actions.get(at + 1)) {
        return Some(format!(
            "{} stands after {}, which ends the rule",
            after.word(),
            actions[last.unwrap_or_default()].word()
        ));
    }
    let has = |word: &str| actions.iter().any(|action| action.word() == word);
    (has("greylist") && has("no_greylist")).then(|| "greylist and no_greylist contradict each other".to_owned())
}

fn reply(text: &str, class: char) -> Result<Template, String> {
    match reply_mistake_of(text, class) {
        Some(message) => Err(format!("the text {message}")),
        None => Template::new(text),
    }
}

fn limit(name: &str, compiler: &Compiler<'_>) -> Result<String, String> {
    let mut names = compiler.names.limits.iter().map(|limit| limit.name);
    match names.clone().any(|known| known == name) {
        true => Ok(name.to_owned()),
        false => Err(format!("there is no limit {name:?}{}", meant(name, &mut names))),
    }
}

fn order(text: &str, compiler: &Compiler<'_>) -> Result<Order, String> {
    let order = text.parse::<Order>().map_err(|error| error.to_string())?;
    match compiler.names.orders {
        OrdersTo::Nobody => Err("needs handover.secret_file: contentd would not hear of it".to_owned()),
        OrdersTo::Postfix if order == Order::NoAttachments => {
            Err("only contentd sees attachments, and policyd.orders is \"postfix\"".to_owned())
        }
        OrdersTo::Contentd | OrdersTo::Postfix => Ok(order),
    }
}

/// `transport:destination`, as content_filter(5) of Postfix has it.
fn filter(text: &str, compiler: &Compiler<'_>) -> Result<String, String> {
    let good = text.split_once(':').is_some_and(|(transport, _)| !transport.is_empty())
        && text.len() <= 200
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match compiler.names.orders {
        _ if !good => Err(format!("{text:?} is not transport:destination, such as smtp:[127.0.0.1]:10024")),
        OrdersTo::Postfix => Ok(text.to_owned()),
        OrdersTo::Nobody | OrdersTo::Contentd => {
            Err("only Postfix itself can pass mail to a filter; needs policyd.orders = \"postfix\"".to_owned())
        }
    }
}

fn header(text: &str) -> Result<Template, String> {
    match header_mistake(text) {
        Some(message) => Err(message),
        None if text.is_empty() => Err("prepend needs a header line, \"Name: value\"".to_owned()),
        None => Template::new(text),
    }
}

fn delay(text: &str) -> Result<Period, String> {
    let period: Period = text.parse()?;
    match period.0.as_secs() {
        1..=604_800 => Ok(period),
        _ => Err("a delay of greylisting is between 1s and 7d".to_owned()),
    }
}

fn score(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(0) => Err("a score of 0 changes nothing".to_owned()),
        Ok(points) if (-MAX_SCORE..=MAX_SCORE).contains(&points) => Ok(points),
        _ => Err(format!("{text:?} is not a score; write a whole number such as +2 or -1, at most {MAX_SCORE}")),
    }
}

/// The name of a rule or a tag: it stands in metrics and log lines.
pub fn tag_name(name: &str) -> Result<&str, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match (1..=64).contains(&name.len()) && name.bytes().all(good) {
        true => Ok(name),
        false => Err(format!("{name:?} is not a name; use letters, digits, \"_\", \"-\" and \".\", at most 64")),
    }
}
