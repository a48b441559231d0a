// SPDX-License-Identifier: GPL-3.0-or-later
//! Rules of postfwd 1.x and 2.x as ours: items about attributes of the request, days and times, macros, negation; the actions that have an
//! equal here. As its manual describes them ("CONFIGURATION", "ITEMS", "ACTIONS"), and as its program compares: `=` searches a pattern in
//! texts, means "at least" for numbers and "in" for networks; several items of one name are alternatives.

use std::collections::HashMap;

use policyd::rules::attribute::{Attribute, Reading, Unit};

use super::import::{Made, quoted, reply, rule_name};

/// Comparisons, longer ones first.
const OPERATORS: [&str; 13] = ["==", "=~", "~=", "=<", "<=", "=>", ">=", "!=", "!~", "!<", "!>", "<", ">"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One `item = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    name: String,
    operator: String,
    value: String,
}

/// The rules of a file.
pub(super) fn rules(text: &str) -> Vec<Made> {
    let (mut macros, mut made) = (HashMap::new(), Vec::new());
    for (number, entry) in (1..).zip(entries(text)) {
        if let Some((name, body)) = entry.strip_prefix("&&").and_then(|entry| entry.split_once('{')) {
            let body = body.trim_end().trim_end_matches(';').trim_end().trim_end_matches('}');
            macros.insert(name.trim().to_owned(), body.to_owned());
            continue;
        }
        made.push(rule(&expanded(&entry, &macros, 0), number));
    }
    made
}

/// The entries of a file: a line and those that continue it, by a blank or a bracket at their beginning or a `\` before them.
fn entries(text: &str) -> Vec<String> {
    let (mut entries, mut goes_on): (Vec<String>, bool) = (Vec::new(), false);
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let continues = goes_on || line.starts_with([' ', '\t', '}']);
        let bare = line.trim_end().trim_end_matches('\\').trim();
        if !line.trim().is_empty() {
            goes_on = line.trim_end().ends_with('\\');
        }
        match entries.last_mut() {
            _ if bare.is_empty() => {}
            Some(last) if continues => {
                last.push(';');
                last.push_str(bare);
            }
            _ => entries.push(bare.to_owned()),
        }
    }
    entries
}

/// The items of an entry, macros put in their place.
fn expanded(entry: &str, macros: &HashMap<String, String>, depth: usize) -> Vec<String> {
    let mut items = Vec::new();
    for item in entry.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        match item.strip_prefix("&&").and_then(|name| macros.get(name.trim())) {
            Some(body) if depth < 8 => items.extend(expanded(body, macros, depth + 1)),
            _ => items.push(item.to_owned()),
        }
    }
    items
}

fn rule(items: &[String], number: usize) -> Made {
    let (mut name, mut action) = (format!("postfwd-{number}"), None);
    // Alternatives by item, in the order of their first.
    let mut tests: Vec<(String, Vec<String>)> = Vec::new();
    for text in items {
        let Some(item) = item(text) else {
            return nothing(&name, format!("{text:?} is not understood"));
        };
        match item.name.as_str() {
            "id" => name = rule_name(&item.value),
            "action" => action = Some(item.value),
            _ => match test(&item) {
                Ok(test) => match tests.iter_mut().find(|(known, _)| *known == item.name) {
                    Some((_, alternatives)) => alternatives.push(test),
                    None => tests.push((item.name, vec![test])),
                },
                Err(why) => return nothing(&name, format!("{text}: {why}")),
            },
        }
    }
    let Some(action) = action else { return nothing(&name, "there is no action".to_owned()) };
    let (then, left_out) = match actions(&action) {
        Ok(actions) => actions,
        Err(why) => return nothing(&name, format!("action {action}: {why}")),
    };
    let when = tests.into_iter().map(|(_, mut alternatives)| match alternatives.len() {
        1 => alternatives.swap_remove(0),
        _ => format!("({})", alternatives.join(" || ")),
    });
    Made::Rule { name, when: when.collect(), then, left_out }
}

fn nothing(name: &str, why: String) -> Made {
    Made::Nothing { what: format!("rule {name}"), why }
}

fn item(text: &str) -> Option<Item> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "_-&$.%".contains(c)))?;
    let (name, rest) = (&text[..end], text[end..].trim_start());
    let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)).unwrap_or("=");
    let value = rest.strip_prefix(operator)?.trim();
    Some(Item { name: name.to_owned(), operator: operator.to_owned(), value: value.to_owned() })
}

/// An item as an expression.
fn test(item: &Item) -> Result<String, String> {
    let (negated, value) = match item.value.strip_prefix("!!") {
        Some(value) => (true, without_brackets(value.trim())),
        None => (false, item.value.as_str()),
    };
    let test = match item.name.as_str() {
        name if name.starts_with("HIT_") => tag_test(name, item, value)?,
        "days" => days(value)?,
        "time" => time(value)?,
        "date" => date(value)?,
        name => attribute_test(name, &item.operator, value)?,
    };
    let reversed = item.operator.starts_with('!') != negated;
    Ok(if reversed { format!("!({test})") } else { test })
}

fn without_brackets(value: &str) -> &str {
    value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).map_or(value, str::trim)
}

/// Our name of an attribute.
fn our_name(name: &str) -> &str {
    match name {
        "sender_localpart" => "sender_local",
        "recipient_localpart" => "recipient_local",
        name => name,
    }
}

fn attribute_test(name: &str, operator: &str, value: &str) -> Result<String, String> {
    let name = our_name(name);
    let attribute = Attribute::find(name).ok_or("there is no such attribute here")?;
    if let Some(other) = value.strip_prefix("$$") {
        let other = our_name(without_brackets(other));
        return match Attribute::find(other) {
            Some(_) => Ok(format!("{name} == {other}")),
            None => Err(format!("there is no attribute {other:?} here")),
        };
    }
    if ["file:", "lfile:", "table:", "ltable:"].iter().any(|kind| value.starts_with(kind)) {
        return Err("a list in a file; make it a list file of ours and use in_list()".to_owned());
    }
    match attribute.reading {
        Reading::Address(_) => {
            let networks = value.split([',', ' ', '\t']).filter(|network| !network.is_empty());
            let networks: Vec<String> = networks.map(|network| quoted(&trunc(network))).collect();
            Ok(format!("in_network({name}, {})", networks.join(", ")))
        }
        Reading::Number(unit, _) => number_test(name, unit, operator, value),
        Reading::Flag(_) => match value {
            "yes" => Ok(name.to_owned()),
            "" => Ok(format!("!{name}")),
            _ => Err("it is \"yes\" or nothing".to_owned()),
        },
        Reading::Text(..) | Reading::Word(..) => text_test(name, operator, value),
        Reading::Time | Reading::Date | Reading::Weekday => Err("there is no such attribute there".to_owned()),
    }
}

/// A network without the bits beyond its prefix, which postfwd passes over.
fn trunc(network: &str) -> String {
    network.parse::<ipnet::IpNet>().map_or_else(|_| network.to_owned(), |network| network.trunc().to_string())
}

fn number_test(name: &str, unit: Unit, operator: &str, value: &str) -> Result<String, String> {
    let number: i64 = value.parse().map_err(|_| "it is compared with a number".to_owned())?;
    let sign = match operator {
        "==" | "!=" => "==",
        "=<" | "<=" | "!<" => "<=",
        "<" => "<",
        ">" => ">",
        _ => ">=",
    };
    match unit {
        Unit::Plain | Unit::Bytes => Ok(format!("{name} {sign} {number}")),
        Unit::Time | Unit::Date => Err("there is no such attribute there".to_owned()),
    }
}

fn text_test(name: &str, operator: &str, value: &str) -> Result<String, String> {
    // An unknown name is an empty text here.
    let unknown = name.ends_with("client_name") && ["unknown", "^unknown$", "^unknown"].contains(&value);
    match operator {
        _ if unknown => Ok(format!("{name} == \"\"")),
        "==" | "!=" => Ok(format!("{name} == {}", quoted(value))),
        "=" | "=~" | "~=" | "!~" => {
            let pattern = value.strip_prefix('/').and_then(|inner| inner.strip_suffix('/')).unwrap_or(value);
            Ok(format!("matches({name}, {})", quoted(pattern)))
        }
        other => Err(format!("texts are not ordered by {other}")),
    }
}

/// `HIT_x==1`, which `set(HIT_x=1)` of an earlier rule made true.
fn tag_test(name: &str, item: &Item, value: &str) -> Result<String, String> {
    match (item.operator.as_str(), value) {
        ("==" | "=" | ">=" | "=>", "1") => Ok(format!("tagged({})", quoted(&rule_name(name)))),
        _ => Err("of variables only \"is 1\" is carried over; use score for sums".to_owned()),
    }
}

fn days(value: &str) -> Result<String, String> {
    let day = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let number = text.parse::<usize>().ok().filter(|number| *number < 7);
        number.or_else(|| DAYS.iter().position(|day| text.starts_with(day))).ok_or(format!("{text:?} is no day"))
    };
    let (first, last) = match value.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(value)?, day(value)?),
    };
    let count = (last + 7 - first) % 7;
    let list: Vec<String> = (0..=count).map(|step| quoted(DAYS[(first + step) % 7])).collect();
    Ok(format!("weekday in [{}]", list.join(", ")))
}

fn time(value: &str) -> Result<String, String> {
    let minutes = |text: &str| text.trim().splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
    let (from, to) = value.split_once('-').ok_or("it is a range of times")?;
    let (from, to) = (minutes(from), minutes(to));
    let from = if from.is_empty() { "00:00".to_owned() } else { from };
    let to = if to.is_empty() || to == "23:59" { "24:00".to_owned() } else { to };
    Ok(format!("time_between({}, {})", quoted(&from), quoted(&to)))
}

fn date(value: &str) -> Result<String, String> {
    let iso = |text: &str| match text.trim().split('.').collect::<Vec<_>>()[..] {
        [day, month, year] => Ok(format!("{year}-{month:0>2}-{day:0>2}")),
        _ => Err(format!("{text:?} is no date")),
    };
    match value.split_once('-') {
        None => Ok(format!("date == {}", quoted(&iso(value)?))),
        Some((from, "")) => Ok(format!("date >= {}", quoted(&iso(from)?))),
        Some(("", to)) => Ok(format!("date <= {}", quoted(&iso(to)?))),
        Some((from, to)) => Ok(format!("(date >= {} && date <= {})", quoted(&iso(from)?), quoted(&iso(to)?))),
    }
}

type Actions = (Vec<String>, Vec<String>);

/// An action as ours, and what of it is left out.
fn actions(action: &str) -> Result<Actions, String> {
    let one = |action: String| Ok((vec![action], Vec::new()));
    if let Some((command, argument)) =
        action.split_once('(').and_then(|(command, rest)| Some((command.trim(), rest.trim().strip_suffix(')')?)))
    {
        match command.to_ascii_lowercase().as_str() {
            "jump" => return one(format!("skip_to {}", rule_name(argument))),
            "score" => return score(argument),
            "set" => return set(argument),
            "note" => return Err("rules that match are in the log anyway".to_owned()),
            "rate" | "size" | "rcpt" | "rate5321" | "size5321" | "rcpt5321" => {
                return Err("a limit; write a [[limit]]".to_owned());
            }
            "wait" | "mail" | "sendmail" | "quit" | "debug" => return Err("there is nothing like it here".to_owned()),
            _ => {}
        }
    }
    let (word, text) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
    let text = our_text(text);
    match word.to_ascii_lowercase().as_str() {
        "dunno" => one("stop".to_owned()),
        "ok" | "permit" => one("accept".to_owned()),
        "reject" => one(format!("reject {}", reply("5.7.1", &text))),
        "defer" => one(format!("defer {}", reply("4.7.1", &text))),
        "defer_if_permit" => one(format!("defer_if_permit {}", reply("4.7.1", &text))),
        "prepend" => Ok((vec![format!("prepend {text}"), "stop".to_owned()], Vec::new())),
        "check_postgrey" | "greylist" => Ok((vec!["greylist".to_owned(), "stop".to_owned()], Vec::new())),
        code if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) => {
            let left = vec![format!("the reply code {code}")];
            match code.as_bytes()[0] {
                b'4' => Ok((vec![format!("defer {}", reply("4.7.1", &text))], left)),
                b'5' => Ok((vec![format!("reject {}", reply("5.7.1", &text))], left)),
                _ => Err("there is nothing like it here".to_owned()),
            }
        }
        _ => Err("there is nothing like it here".to_owned()),
    }
}

fn score(argument: &str) -> Result<Actions, String> {
    let points: f64 = argument.trim().parse().map_err(|_| "only points that are added are carried over".to_owned())?;
    let whole = points.round();
    let left = if whole == points { Vec::new() } else { vec![format!("{points} points are {whole} here")] };
    Ok((vec![format!("score {whole:+}")], left))
}

fn set(argument: &str) -> Result<Actions, String> {
    let tag = |part: &str| match part.split_once('=') {
        Some((name, "1")) if name.trim().starts_with("HIT_") => Ok(format!("tag {}", rule_name(name.trim()))),
        _ => Err("of variables only HIT_name=1 is carried over".to_owned()),
    };
    Ok((argument.split(',').map(|part| tag(part.trim())).collect::<Result<Vec<_>, _>>()?, Vec::new()))
}

/// A text with our names in braces in place of `$$name`.
fn our_text(text: &str) -> String {
    let text = text.replace(['{', '}'], "");
    let mut parts = text.split("$$");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        match Attribute::find(our_name(name)) {
            Some(_) => out.push_str(&format!("{{{}}}", our_name(name))),
            None => out.push_str(name),
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::import::printed;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_become_ours() {
        for (rule, when, then) in [
            (
                "id=R1; client_address=192.168.1.1; sender==no@bad.local; action=REJECT",
                "in_network(client_address, \"192.168.1.1\") && sender == \"no@bad.local\"",
                "reject 5.7.1 Access denied",
            ),
            (
                "id=R1; client_address=10.1.1.1/8, 172.16.0.0/12; action=dunno",
                "in_network(client_address, \"10.0.0.0/8\", \"172.16.0.0/12\")",
                "stop",
            ),
            (
                "id=R1; size=1000; recipient_count>5; action=421 4.3.2 later $$sender",
                "size >= 1000 && recipient_count > 5",
                "defer 4.3.2 later {sender}",
            ),
            (
                "id=R1; client_name~=\\.a$; client_name=^b; action=OK",
                "(matches(client_name, \"\\\\.a$\") || matches(client_name, \"^b\"))",
                "accept",
            ),
            (
                "id=R1; client_name=^unknown$; helo_name=!!\\.; action=score(2.5)",
                "client_name == \"\" && !(matches(helo_name, \"\\\\.\"))",
                "score +3",
            ),
            ("id=R1; client_name=!!($$(helo_name)); action=WARN x", "", ""),
            (
                "id=R1; sender_localpart!=joe; stress==yes; action=DEFER busy",
                "!(sender_local == \"joe\") && stress",
                "defer 4.7.1 busy",
            ),
            (
                "id=R1; days=Sat-Mon; time=22:00:00-06:00:00; date=24.12.2026-26.12.2026; action=554 no",
                "weekday in [\"sat\", \"sun\", \"mon\"] && time_between(\"22:00\", \"06:00\") && (date >= \"2026-12-24\" && date <= \"2026-12-26\")",
                "reject 5.7.1 no",
            ),
            ("id=R1; rbl=zen.example; action=REJECT", "", ""),
            ("id=R1; sender=file:/etc/x; action=REJECT", "", ""),
            ("id=R1; action=rate(sender/200/600/REJECT x)", "", ""),
        ] {
            match &rules(rule)[..] {
                [Made::Rule { when: made, then: actions, .. }] => {
                    assert_eq!((made.join(" && ").as_str(), actions.join("; ").as_str()), (when, then), "{rule}");
                }
                [Made::Nothing { .. }] => assert_eq!((when, then), ("", ""), "{rule}"),
                other => panic!("{rule}: {other:?}"),
            }
        }
    }

    #[test]
    fn macros_variables_and_lines_are_read() {
        let text = "&&NETS {\n\tclient_address=192.168.1.0/24 # ours\n\tclient_address=10.0.0.1\n}\n\
            id=SET; \\\n  client_name=^unknown$; \\\n  action=set(HIT_nodns=1)\n\n\
            id=SKIP\n\t&&NETS\n\taction=jump(LAST)\n\
            id=HIT; HIT_nodns==1; helo_name=[0-9.-]{7}; action=REJECT no [$$client_address]\n\
            id=BAD; helo_name=(?<!x)y; action=REJECT\n\
            id=LOST; action=jump(NOWHERE)\n\
            id=LAST; action=PREPEND X-Seen: $$helo_name\n";
        let (out, count, notes) = printed(rules(text));
        assert_eq!((count, notes), (5, 2), "{out}");
        assert!(out.contains("# not carried over: rule BAD: rule \"BAD\": character 20, at "), "{out}");
        assert!(out.contains("# rule LOST: not carried over: jump to NOWHERE\n#[[rule]]\n"), "{out}");
        assert!(
            out.contains("then = ['skip_to LAST']") && out.contains("'prepend X-Seen: {helo_name}', 'stop'"),
            "{out}"
        );
        assert!(
            out.contains("when = 'in_network(client_address, \"192.168.1.0/24\") || ") || out.contains("(in_network("),
            "{out}"
        );
        let source = common::config::Source::from_text("imported", &out).unwrap();
        let settings = policyd::config::Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}\n{out}"));
        assert_eq!(settings.rules.len(), 4);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([&!$a-z=~<>;{}()#\\\\ \n]|id|action|client_address|size|time|date|days|\\PC){0,60}") {
            let _ = printed(rules(&text));
        }
    }
}
