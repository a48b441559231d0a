// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of expressions: names, numbers and types of their arguments. `f(a, b)` and `a.f(b)` are the same.
//!
//! Pure. Those of CEL have its names (`matches`, `contains`, `size`, `startsWith` and `endsWith`); the last two are also understood in
//! the spelling of all our other names.

use std::sync::Arc;

use super::attribute::{Nature, Unit, Words, read_number};
use super::compile::{Compiler, Value, meant, networks};
use super::expression::{Known, Number, Test, Text};
use super::list::List;
use super::need::{Count, KeyPart, Need, Word};
use super::sets::Pattern;
use super::syntax::{Node, What, Wrong};

/// Longest text that `contains()` looks for.
const MAX_INNER: usize = 256;

type Make = fn(&mut Compiler<'_>, &[Node], usize) -> Result<Value, Wrong>;

/// One function.
struct Function {
    name: &'static str,
    /// Fewest and most arguments.
    count: (usize, usize),
    /// How it is written, for a message.
    usage: &'static str,
    make: Make,
}

static FUNCTIONS: &[Function] = &[
    Function {
        name: "in_network",
        count: (2, usize::MAX),
        usage: "in_network(client_address, \"192.0.2.0/24\", ...)",
        make: in_network,
    },
    Function { name: "in_list", count: (2, 2), usage: "in_list(sender, \"name\")", make: in_list },
    Function { name: "matches", count: (2, 2), usage: "matches(helo_name, \"pattern\")", make: matches_pattern },
    Function { name: "starts_with", count: (2, 2), usage: "starts_with(helo_name, \"text\")", make: starts_with },
    Function { name: "startsWith", count: (2, 2), usage: "startsWith(helo_name, \"text\")", make: starts_with },
    Function { name: "ends_with", count: (2, 2), usage: "ends_with(client_name, \"text\")", make: ends_with },
    Function { name: "endsWith", count: (2, 2), usage: "endsWith(client_name, \"text\")", make: ends_with },
    Function { name: "contains", count: (2, 2), usage: "contains(client_name, \"text\")", make: contains },
    Function { name: "size", count: (1, 1), usage: "size(helo_name)", make: length },
    Function { name: "domain", count: (1, 1), usage: "domain(sasl_username)", make: domain },
    Function { name: "local_part", count: (1, 1), usage: "local_part(sasl_username)", make: local_part },
    Function { name: "org_domain", count: (1, 1), usage: "org_domain(client_name)", make: org_domain },
    Function { name: "time_between", count: (2, 2), usage: "time_between(\"22:00\", \"06:00\")", make: time_between },
    Function { name: "tagged", count: (1, 1), usage: "tagged(\"name\")", make: tagged },
    Function { name: "known", count: (1, 1), usage: "known(spf())", make: known },
    Function { name: "spf", count: (0, 0), usage: "spf()", make: spf },
    Function { name: "rdns_class", count: (0, 0), usage: "rdns_class()", make: rdns_class },
    Function { name: "country", count: (0, 0), usage: "country()", make: country },
    Function { name: "asn", count: (0, 0), usage: "asn()", make: asn },
    Function { name: "dnsbl", count: (1, 1), usage: "dnsbl(\"list\")", make: dnsbl },
    Function { name: "dnsbl_score", count: (0, 0), usage: "dnsbl_score()", make: dnsbl_score },
    Function { name: "count", count: (1, usize::MAX), usage: "count(\"limit\")", make: count },
    Function { name: "greylist_known", count: (0, 0), usage: "greylist_known()", make: greylist_known },
];

/// True when there is such a function.
pub fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == name)
}

/// Compiles a call.
pub fn call(compiler: &mut Compiler<'_>, name: &str, arguments: &[Node], at: usize) -> Result<Value, Wrong> {
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        let hint = meant(name, FUNCTIONS.iter().map(|function| function.name));
        return Err(Wrong::new(at, format!("there is no function {name:?}{hint}")));
    };
    let (least, most) = function.count;
    if !(least..=most).contains(&arguments.len()) {
        let given = arguments.len();
        return Err(Wrong::new(at, format!("{name} is given {given} values; it is written {}", function.usage)));
    }
    (function.make)(compiler, arguments, at)
}

fn text(compiler: &mut Compiler<'_>, node: &Node) -> Result<(Text, Nature), Wrong> {
    match compiler.value(node)? {
        Value::Text(text, nature, _) => Ok((text, nature)),
        other => Err(Wrong::new(node.at, format!("this is {}; here stands a text", other.kind()))),
    }
}

fn constant<'n>(node: &'n Node, what: &str) -> Result<&'n str, Wrong> {
    match &node.what {
        What::Text(text) => Ok(text),
        _ => Err(Wrong::new(node.at, format!("{what} is written in quotes"))),
    }
}

fn in_network(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    match compiler.value(&arguments[0])? {
        Value::Address(address) => networks(address, &arguments[1..]).map(Value::Test),
        other => {
            let message = format!("this is {}; here stands client_address or server_address", other.kind());
            Err(Wrong::new(arguments[0].at, message))
        }
    }
}

fn in_list(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    let name = constant(&arguments[1], "the name or path of a list")?;
    Ok(Value::Test(match compiler.value(&arguments[0])? {
        Value::Text(text, nature, _) => Test::TextListed(text, list(compiler, nature, name, arguments[1].at)?),
        Value::Address(address) => Test::AddressListed(address, list(compiler, Nature::Name, name, arguments[1].at)?),
        other => return Err(Wrong::new(arguments[0].at, format!("this is {}, which no list holds", other.kind()))),
    }))
}

/// The list of this name, or in this file.
fn list(compiler: &mut Compiler<'_>, nature: Nature, name: &str, at: usize) -> Result<Arc<List>, Wrong> {
    let names = compiler.names;
    let found = match names.lists.iter().find(|(known, _)| *known == name) {
        Some((_, settings)) => compiler.lists.get(nature, name, settings),
        None if name.contains('/') => compiler.lists.file(nature, name),
        None => {
            let hint = meant(name, names.lists.iter().map(|(known, _)| *known));
            Err(format!("there is no [list.{name}]{hint}; the path of a list file begins with /"))
        }
    };
    found.map_err(|message| Wrong::new(at, message))
}

fn matches_pattern(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    let (text, _) = text(compiler, &arguments[0])?;
    let written = constant(&arguments[1], "a pattern")?;
    let pattern = Pattern::new(written).map_err(|message| Wrong::new(arguments[1].at, message))?;
    // What is made of an attribute has no value of its own to be scanned once.
    let place = match (&arguments[0].what, &pattern) {
        (What::Name(attribute), Pattern::Regex(_)) => compiler.filters.add(attribute, written),
        _ => None,
    };
    Ok(Value::Test(Test::Matches(text, pattern, place)))
}

/// A text, and a constant one of at least one character to look for in it.
fn text_and_part(compiler: &mut Compiler<'_>, arguments: &[Node]) -> Result<(Text, Box<str>), Wrong> {
    let (text, _) = text(compiler, &arguments[0])?;
    let part = constant(&arguments[1], "what is looked for")?;
    match part.len() {
        0 => Err(Wrong::new(arguments[1].at, "every text has an empty one in it")),
        1..=MAX_INNER => Ok((text, part.into())),
        _ => Err(Wrong::new(arguments[1].at, format!("is longer than {MAX_INNER} bytes"))),
    }
}

fn starts_with(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text_and_part(compiler, arguments).map(|(text, part)| Value::Test(Test::Starts(text, part)))
}

fn ends_with(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text_and_part(compiler, arguments).map(|(text, part)| Value::Test(Test::Ends(text, part)))
}

fn contains(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text_and_part(compiler, arguments).map(|(text, part)| Value::Test(Test::Contains(text, part)))
}

fn length(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text(compiler, &arguments[0]).map(|(text, _)| Value::Number(Number::Length(text), Unit::Plain))
}

fn domain(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text(compiler, &arguments[0]).map(|(text, _)| Value::Text(Text::Domain(Box::new(text)), Nature::Name, None))
}

fn local_part(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text(compiler, &arguments[0]).map(|(text, _)| Value::Text(Text::Local(Box::new(text)), Nature::Name, None))
}

fn org_domain(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    text(compiler, &arguments[0]).map(|(text, _)| Value::Text(Text::Organisation(Box::new(text)), Nature::Name, None))
}

fn time_between(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    compiler.looks_at_time = true;
    let time = |node: &Node| {
        let text = constant(node, "a time of day")?;
        read_number(Unit::Time, text).map_err(|message| Wrong::new(node.at, message))
    };
    Ok(Value::Test(Test::Between(time(&arguments[0])?, time(&arguments[1])?)))
}

fn tagged(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    let name = constant(&arguments[0], "a tag")?;
    // Tags of earlier rules only: a later one could not have given it yet.
    match compiler.tags.iter().position(|tag| tag == name) {
        Some(index) => Ok(Value::Test(Test::Tagged(1 << index))),
        None => Err(Wrong::new(arguments[0].at, format!("no rule before this one gives the tag {name:?}"))),
    }
}

fn known(compiler: &mut Compiler<'_>, arguments: &[Node], _: usize) -> Result<Value, Wrong> {
    let before = compiler.needs.asked();
    let known = match compiler.value(&arguments[0])? {
        Value::Test(test) => Known::Test(test),
        Value::Text(text, ..) => Known::Text(text),
        Value::Number(number, _) => Known::Number(number),
        Value::Address(_) => Known::Test(Test::Always(true)),
    };
    match compiler.needs.asked() > before {
        true => Ok(Value::Test(Test::Known(Box::new(known)))),
        false => Err(Wrong::new(arguments[0].at, "nothing is looked up here, so it is always known")),
    }
}

fn spf(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    word(compiler, Need::Word(Word::Spf), Word::Spf.words(), at)
}

fn rdns_class(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    word(compiler, Need::Word(Word::ReverseName), Word::ReverseName.words(), at)
}

fn country(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    if !compiler.names.countries {
        return Err(Wrong::new(at, "there is no perimeter.geo.country_db"));
    }
    let number = fact(compiler, Need::Country, at)?;
    Ok(Value::Text(Text::Fact(number), Nature::Name, None))
}

fn asn(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    if !compiler.names.asns {
        return Err(Wrong::new(at, "there is no perimeter.geo.asn_db"));
    }
    fact(compiler, Need::Asn, at).map(|number| Value::Number(Number::Fact(number), Unit::Plain))
}

fn dnsbl(compiler: &mut Compiler<'_>, arguments: &[Node], at: usize) -> Result<Value, Wrong> {
    let name = constant(&arguments[0], "the name of a DNS list")?;
    if !compiler.names.dns_lists.contains(&name) {
        let hint = meant(name, compiler.names.dns_lists.iter().copied());
        let message = format!("there is no DNS list {name:?} in [perimeter]{hint}");
        return Err(Wrong::new(arguments[0].at, message));
    }
    fact(compiler, Need::DnsList(name.to_owned()), at).map(|number| Value::Test(Test::Fact(number)))
}

fn dnsbl_score(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    if compiler.names.dns_lists.is_empty() {
        return Err(Wrong::new(at, "there is no DNS list in [perimeter]"));
    }
    fact(compiler, Need::DnsScore, at).map(|number| Value::Number(Number::Fact(number), Unit::Plain))
}

fn fact(compiler: &mut Compiler<'_>, need: Need, at: usize) -> Result<usize, Wrong> {
    compiler.needs.number(need).map_err(|message| Wrong::new(at, message))
}

fn word(compiler: &mut Compiler<'_>, need: Need, words: Words, at: usize) -> Result<Value, Wrong> {
    let number = fact(compiler, need, at)?;
    Ok(Value::Text(Text::Fact(number), Nature::Name, Some(words)))
}

/// `count("limit")` for the key of the request, `count("limit", value, ...)` for another one.
fn count(compiler: &mut Compiler<'_>, arguments: &[Node], at: usize) -> Result<Value, Wrong> {
    let name = constant(&arguments[0], "the name of a limit")?;
    let names = compiler.names;
    let Some(limit) = names.limits.iter().find(|limit| limit.name == name) else {
        let hint = meant(name, names.limits.iter().map(|limit| limit.name));
        return Err(Wrong::new(arguments[0].at, format!("there is no limit {name:?}{hint}")));
    };
    let given = &arguments[1..];
    if !given.is_empty() && given.len() != limit.terms {
        let message = format!("the key of limit {name:?} has {} terms, and {} are given", limit.terms, given.len());
        return Err(Wrong::new(at, message));
    }
    let parts = given.iter().map(|node| key_part(compiler, node)).collect::<Result<Vec<_>, _>>()?;
    let told: Vec<String> = arguments.iter().filter_map(written).collect();
    let key = (!parts.is_empty()).then_some(parts);
    let count = Count { limit: name.to_owned(), key, told: format!("count({})", told.join(", ")) };
    let unit = if limit.bytes { Unit::Bytes } else { Unit::Plain };
    fact(compiler, Need::Count(count), at).map(|number| Value::Number(Number::Fact(number), unit))
}

/// A value that may stand in a key: something of the request or a constant.
fn key_part(compiler: &mut Compiler<'_>, node: &Node) -> Result<KeyPart, Wrong> {
    let wrong = || {
        Wrong::new(
            node.at,
            "in a key stand a text in quotes, an attribute, or domain(), local_part(), org_domain() of one",
        )
    };
    if written(node).is_none() {
        return Err(wrong());
    }
    match compiler.value(node)? {
        Value::Text(text, nature, _) if text.is_of_request() => Ok(KeyPart::Text(text, nature)),
        Value::Address(address) => Ok(KeyPart::Address(address)),
        _ => Err(wrong()),
    }
}

/// A simple expression as it is written; none for one with operators.
fn written(node: &Node) -> Option<String> {
    match &node.what {
        What::Text(text) => Some(format!("{text:?}")),
        What::Name(name) => Some(name.clone()),
        What::Call(name, arguments) => {
            let arguments = arguments.iter().map(written).collect::<Option<Vec<_>>>()?;
            Some(format!("{name}({})", arguments.join(", ")))
        }
        _ => None,
    }
}

fn greylist_known(compiler: &mut Compiler<'_>, _: &[Node], at: usize) -> Result<Value, Wrong> {
    if !compiler.names.trust {
        return Err(Wrong::new(at, "greylist.trust_after is 0, so who has passed is not kept"));
    }
    fact(compiler, Need::GreylistKnown, at).map(|number| Value::Test(Test::Fact(number)))
}
