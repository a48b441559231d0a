// SPDX-License-Identifier: GPL-3.0-or-later
//! Access lists of milter-greylist (`racl`, `dacl`, `acl` of greylist.conf(5)) as rules: named lists and the clauses addr, domain, from, rcpt,
//! helo, auth, tls, spf and rcptcount, `not`, a delay and a reply of their own. The first entry that matches decides there, so each
//! rule ends the list here.

use std::collections::HashMap;

use super::import::{Made, quoted, reply, rule_name};

/// One word of the file: a text in quotes, a bracket, or anything between blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
    Open,
    Close,
}

impl Word {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Quoted(text) => text,
            Self::Open => "{",
            Self::Close => "}",
        }
    }
}

/// The rules of a file.
pub(super) fn rules(text: &str) -> Vec<Made> {
    let (mut lists, mut made) = (HashMap::new(), Vec::new());
    let mut number = 0;
    for line in lines(text) {
        number += usize::from(line.first().is_some_and(|word| word.text().ends_with("acl")));
        match line.first().map(Word::text) {
            Some("list") => match list(&line) {
                Ok((name, test)) => drop(lists.insert(name, test)),
                Err(why) => {
                    let name = line.get(1).map_or("", Word::text).to_owned();
                    lists.insert(name.clone(), Err(why.clone()));
                    made.push(Made::Nothing { what: format!("list {name:?}"), why });
                }
            },
            Some("acl" | "racl") => made.push(entry(&line[1..], number, false, &lists)),
            Some("dacl") => made.push(entry(&line[1..], number, true, &lists)),
            Some(
                "geoipdb" | "peer" | "dumpfile" | "socket" | "user" | "pidfile" | "quiet" | "verbose" | "nodetach",
            )
            | None => {}
            Some(other) => made.push(Made::Nothing {
                what: line.iter().map(Word::text).collect::<Vec<_>>().join(" "),
                why: format!("{other:?} is no access list; see [greylist] for delays, prefixes and times"),
            }),
        }
    }
    made
}

type Lists = HashMap<String, Result<String, String>>;

/// The statements of a file: a line, with those to which a `\` or an open bracket leads.
fn lines(text: &str) -> Vec<Vec<Word>> {
    let (mut lines, mut line, mut depth) = (Vec::new(), Vec::new(), 0usize);
    for raw in text.lines() {
        let mut found = words(raw);
        let goes_on = found.last().is_some_and(|word| matches!(word, Word::Plain(text) if text == "\\"));
        if goes_on {
            found.pop();
        }
        for word in found {
            match word {
                Word::Open => depth += 1,
                Word::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            line.push(word);
        }
        if !goes_on && depth == 0 && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
    }
    lines.extend(Some(line).filter(|line| !line.is_empty()));
    lines
}

fn words(line: &str) -> Vec<Word> {
    let (mut words, mut rest) = (Vec::new(), line.trim_start());
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '#' => return words,
            '{' => (Word::Open, &rest[1..]),
            '}' => (Word::Close, &rest[1..]),
            '"' => {
                let (text, after) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
                (Word::Quoted(text.to_owned()), after)
            }
            // A regular expression may have blanks in it; without a second stroke it is a prefix such as /24.
            '/' if rest[1..].contains('/') => {
                let (text, after) = rest[1..].split_once('/').unwrap_or((&rest[1..], ""));
                (Word::Plain(format!("/{text}/")), after)
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "{}\"".contains(c)).unwrap_or(rest.len());
                (Word::Plain(rest[..end].to_owned()), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// `list "name" addr { a b }`
fn list(line: &[Word]) -> Result<(String, Result<String, String>), String> {
    let [_, name, kind, Word::Open, items @ .., Word::Close] = line else {
        return Err("it is not written: list \"name\" kind { item ... }".to_owned());
    };
    let tests: Result<Vec<String>, String> = items.iter().map(|item| clause(kind.text(), item.text())).collect();
    let test = tests.map(|tests| match &tests[..] {
        [] => "false".to_owned(),
        [one] => one.clone(),
        many => format!("({})", many.join(" || ")),
    })?;
    Ok((name.text().to_owned(), Ok(test)))
}

/// One clause as an expression.
fn clause(kind: &str, value: &str) -> Result<String, String> {
    let pattern = value.strip_prefix('/').and_then(|inner| inner.strip_suffix('/'));
    let part_of = |attribute: &str| match pattern {
        Some(pattern) => format!("matches({attribute}, {})", quoted(pattern)),
        None => format!("contains({attribute}, {})", quoted(value)),
    };
    Ok(match kind {
        "addr" => format!("in_network(client_address, {})", quoted(&network(value))),
        "from" if value == "<>" => "null_sender".to_owned(),
        "from" => part_of("sender"),
        "rcpt" => part_of("recipient"),
        "helo" => part_of("helo_name"),
        // The end of a name, whether a dot is before it or not; with "domainexact" whole labels. As it was there.
        "domain" => match pattern {
            Some(pattern) => format!("matches(client_name, {})", quoted(pattern)),
            None => format!("ends_with(client_name, {})", quoted(value)),
        },
        "auth" => match pattern {
            Some(pattern) => format!("(authenticated && matches(sasl_username, {}))", quoted(pattern)),
            None => format!("(authenticated && sasl_username == {})", quoted(value)),
        },
        "tls" => match pattern {
            Some(pattern) => format!("matches(ccert_subject, {})", quoted(pattern)),
            None => format!("ccert_subject == {}", quoted(value)),
        },
        "spf" => spf(value)?,
        other => return Err(format!("there is nothing like the clause {other:?} here")),
    })
}

/// A network without the bits beyond its prefix, which milter-greylist passes over.
fn network(value: &str) -> String {
    value.parse::<ipnet::IpNet>().map_or_else(|_| value.to_owned(), |network| network.trunc().to_string())
}

fn spf(value: &str) -> Result<String, String> {
    match value {
        "pass" | "fail" | "softfail" | "neutral" | "none" => Ok(format!("spf() == {}", quoted(value))),
        "error" | "unknown" => Ok("!known(spf())".to_owned()),
        other => Err(format!("there is nothing like spf {other:?} here")),
    }
}

/// What an entry does, collected from its words.
#[derive(Debug, Default)]
struct Entry {
    name: Option<String>,
    action: String,
    tests: Vec<String>,
    delay: Option<String>,
    code: Option<String>,
    text: Option<String>,
    left_out: Vec<String>,
}

fn entry(words: &[Word], number: usize, at_data: bool, lists: &Lists) -> Made {
    let what = || format!("entry {number}: {}", words.iter().map(Word::text).collect::<Vec<_>>().join(" "));
    match read(words, lists).and_then(|entry| finished(entry, number, at_data)) {
        Ok(made) => made,
        Err(why) => Made::Nothing { what: what(), why },
    }
}

fn read(words: &[Word], lists: &Lists) -> Result<Entry, String> {
    let (mut entry, mut rest, mut negated) = (Entry::default(), words.iter(), false);
    while let Some(word) = rest.next() {
        // Without a word behind it: what passes.
        let bare_spf = rest.clone().next().is_none_or(|next| spf(next.text()).is_err());
        let mut argument =
            || rest.next().map(|word| word.text().to_owned()).ok_or(format!("{} stands alone", word.text()));
        let test = match (word, word.text()) {
            (Word::Quoted(name), _) if entry.action.is_empty() => {
                entry.name = Some(rule_name(name));
                continue;
            }
            (_, "not") => {
                negated = !negated;
                continue;
            }
            (_, "whitelist" | "greylist" | "blacklist" | "continue") if entry.action.is_empty() => {
                entry.action = word.text().to_owned();
                continue;
            }
            (_, "default") => continue,
            (_, "delay") => {
                entry.delay = Some(argument()?);
                continue;
            }
            (_, "ecode") => {
                entry.code = Some(argument()?);
                continue;
            }
            (_, "msg") => {
                entry.text = Some(argument()?);
                continue;
            }
            (
                _,
                name @ ("autowhite" | "code" | "report" | "addheader" | "addfooter" | "ratelimit" | "maxpeek"
                | "subject"),
            ) => {
                entry.left_out.push(format!("{name} {}", argument()?));
                continue;
            }
            (_, name @ ("flushaddr" | "nolog" | "log" | "tarpit")) => {
                entry.left_out.push(name.to_owned());
                continue;
            }
            (_, "list") => match lists.get(&argument()?) {
                Some(test) => test.clone()?,
                None => return Err("it names a list that is not there".to_owned()),
            },
            (_, "rcptcount") => {
                let sign = argument()?;
                let sign = if sign == "=" { "==".to_owned() } else { sign };
                format!("recipient_count {sign} {}", argument()?)
            }
            (_, "spf") if bare_spf => "spf() == \"pass\"".to_owned(),
            (_, kind) => clause(kind, &argument()?)?,
        };
        entry.tests.push(if std::mem::take(&mut negated) { format!("!({test})") } else { test });
    }
    Ok(entry)
}

fn finished(entry: Entry, number: usize, at_data: bool) -> Result<Made, String> {
    let Entry { name, action, mut tests, delay, code, text, mut left_out } = entry;
    if at_data {
        tests.insert(0, "protocol_state in [\"DATA\", \"END-OF-MESSAGE\"]".to_owned());
    }
    let then = match action.as_str() {
        "whitelist" => vec!["no_greylist".to_owned(), "stop".to_owned()],
        "greylist" => {
            let delay = delay.map_or("greylist".to_owned(), |delay| format!("greylist {}", period(&delay)));
            left_out.extend(text.map(|text| format!("msg {text}")));
            vec![delay, "stop".to_owned()]
        }
        "blacklist" => {
            let code = code.filter(|code| code.starts_with("5.")).unwrap_or("5.7.1".to_owned());
            // Its own names stand behind a percent sign.
            let text = text.unwrap_or_default().replace(['{', '}', '%'], "");
            vec![format!("reject {}", reply(&code, &text))]
        }
        "continue" => return Err("it decides nothing".to_owned()),
        _ => return Err("there is no action".to_owned()),
    };
    Ok(Made::Rule { name: name.unwrap_or(format!("acl-{number}")), when: tests, then, left_out })
}

/// A bare number is seconds there.
fn period(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::import::printed;
    use super::*;
    use proptest::prelude::*;

    const CONF: &str = "\
        # A file as its documents show it.\n\
        pidfile \"/var/run/milter-greylist.pid\"\n\
        subnetmatch /24\n\
        list \"my network\" addr { 127.0.0.1/8 10.0.0.0/8 192.0.2.1/24 }\n\
        list \"broken mta\" addr {   \\\n\t12.5.136.141/32    \\ # Southwest\n\t12.5.136.142/32 \\\n}\n\
        list \"grey users\" rcpt {  user1@example.com user2@example.com }\n\
        list \"bad\" dnsrbl { X }\n\
        racl whitelist list \"my network\"\n\
        racl whitelist list \"broken mta\"\n\
        racl \"spammers\" blacklist from /spam[0-9]*@/ not helo example.org ecode \"5.7.9\" msg \"Go away\" # comment\n\
        racl blacklist dnsrbl \"SORBS\"\n\
        racl greylist list \"grey users\" delay 30m autowhite 3d\n\
        racl whitelist spf self\n\
        racl whitelist spf\n\
        racl greylist domain dyn.example rcptcount >= 5 delay 90\n\
        dacl blacklist from <>\n\
        racl whitelist list \"bad\"\n\
        racl whitelist default\n";

    #[test]
    fn access_lists_become_rules() {
        let (out, count, notes) = printed(rules(CONF));
        for line in [
            "when = '(in_network(client_address, \"127.0.0.0/8\") || in_network(client_address, \"10.0.0.0/8\") || in_network(client_address, \"192.0.2.0/24\"))'",
            "name = 'spammers'",
            "when = 'matches(sender, \"spam[0-9]*@\") && !(contains(helo_name, \"example.org\"))'",
            "then = ['reject 5.7.9 Go away']",
            "then = ['greylist 30m', 'stop']",
            "when = 'ends_with(client_name, \"dyn.example\") && recipient_count >= 5'",
            "then = ['greylist 90s', 'stop']",
            "when = 'protocol_state in [\"DATA\", \"END-OF-MESSAGE\"] && null_sender'",
            "when = 'spf() == \"pass\"'",
            "# not carried over: list \"bad\": there is nothing like the clause \"dnsrbl\" here",
            "# not carried over: subnetmatch /24: \"subnetmatch\" is no access list; see [greylist] for delays, prefixes and times",
        ] {
            assert!(out.lines().any(|told| told == line), "{line} missing in\n{out}");
        }
        assert!(out.contains("not carried over: autowhite 3d\n"), "{out}");
        assert_eq!((count, notes), (8, 6), "{out}");
        let source = common::config::Source::from_text("imported", &out).unwrap();
        let settings = policyd::config::Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}\n{out}"));
        assert_eq!(settings.rules.len(), 8);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([a-z \"{}/\\\\#\n]|racl|list|greylist|addr|from|not|delay|spf|\\PC){0,60}") {
            let _ = printed(rules(&text));
        }
    }
}
