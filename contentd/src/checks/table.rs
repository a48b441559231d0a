// SPDX-License-Identifier: GPL-3.0-or-later
//! Postfix' `regexp:` and `pcre:` tables as files (regexp_table(5), pcre_table(5)): read whole, every mistake with its line, and searched.
//!
//! `/pattern/flags result`, negation, `/pattern/!/pattern/`, `if` and `endif` nested, continued lines, comments, `$1`, `${1}`, `$(1)`.

use super::pattern::{Dialect, Flags, Pattern};
use common::config::{Mistake, Mistakes};
use metrics::counter;

/// Longest file and most rules; Postfix knows no limit, and no honest table comes near.
const MOST_BYTES: usize = 16 << 20;
const MOST_RULES: usize = 100_000;

/// One rule. `if` and `endif` are rules too, as in Postfix.
#[derive(Debug)]
enum Rule {
    /// The result of the first line whose patterns all fit.
    Result { patterns: Vec<Pattern>, result: Vec<Piece>, line: usize },
    /// Goes on behind the rule with this number when the pattern does not fit.
    If { pattern: Pattern, end: usize },
    /// The end of one.
    EndIf,
}

/// A piece of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

/// A table.
#[derive(Debug)]
pub struct Table {
    name: String,
    rules: Vec<Rule>,
}

/// What a search found: the text of the result, and the line of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The result with `$1` and its like filled in.
    pub result: String,
    /// Line of the rule in its file.
    pub line: usize,
}

impl Table {
    /// Reads a table. `name` is for mistakes. Errors: every line that is none, with its number.
    pub fn parse(name: &str, text: &str, dialect: Dialect) -> Result<Table, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut table = Table { name: name.to_owned(), rules: Vec::new() };
        let mut wrong = |line: usize, message: String| {
            mistakes.push(Mistake { origin: format!("{name}:{line}"), key: String::new(), message });
        };
        if text.len() > MOST_BYTES {
            wrong(1, format!("is larger than {MOST_BYTES} bytes"));
            return mistakes.into_result(table);
        }
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (line, text) in logical_lines(text) {
            match parse_line(&text, line, dialect) {
                Ok(Rule::EndIf) if open.is_empty() => wrong(line, "endif without if".to_owned()),
                Ok(rule) => {
                    let number = table.rules.len();
                    match rule {
                        Rule::If { .. } => open.push((number, line)),
                        Rule::EndIf => {
                            if let Some((begun, _)) = open.pop()
                                && let Some(Rule::If { end, .. }) = table.rules.get_mut(begun)
                            {
                                *end = number;
                            }
                        }
                        Rule::Result { .. } => {}
                    }
                    table.rules.push(rule);
                }
                Err(message) => wrong(line, message),
            }
            if table.rules.len() > MOST_RULES {
                wrong(line, format!("there are more than {MOST_RULES} rules"));
                break;
            }
        }
        for (_, line) in open {
            wrong(line, "if without endif".to_owned());
        }
        mistakes.into_result(table)
    }

    /// Results of rules, with `$1` and its like as written, and their lines: for checks when the table is read.
    pub fn results(&self) -> impl Iterator<Item = (String, usize)> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Result { result, line, .. } => Some((result.iter().map(Piece::shown).collect(), *line)),
            _ => None,
        })
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The result of the first rule that fits. Empty text fits nothing, as in Postfix.
    pub fn find(&self, text: &[u8]) -> Option<Found> {
        if text.is_empty() {
            return None;
        }
        let mut number = 0;
        while let Some(rule) = self.rules.get(number) {
            number += 1;
            match rule {
                Rule::If { pattern, end } if !fits(pattern, text) => number = end + 1,
                Rule::If { .. } | Rule::EndIf => {}
                Rule::Result { patterns, result, line } => {
                    if patterns.iter().all(|pattern| fits(pattern, text)) {
                        return Some(Found { result: filled(result, patterns, text), line: *line });
                    }
                }
            }
        }
        None
    }
}

fn fits(pattern: &Pattern, text: &[u8]) -> bool {
    pattern.is_match(text).unwrap_or_else(|| {
        counter!("octroi_contentd_check_limits_total").increment(1);
        false
    })
}

impl Piece {
    fn shown(&self) -> String {
        match self {
            Piece::Text(text) => text.clone(),
            Piece::Group(number) => format!("${{{number}}}"),
        }
    }
}

/// The result with groups filled in. They may hold anything; what would end a line becomes a blank.
fn filled(pieces: &[Piece], patterns: &[Pattern], text: &[u8]) -> String {
    let wanted = pieces.iter().any(|piece| matches!(piece, Piece::Group(_)));
    let captures = if wanted { patterns.first().and_then(|pattern| pattern.captures(text)) } else { None };
    let group =
        |number: usize| captures.as_ref().and_then(|captures| captures.get(number)).map(|found| found.as_bytes());
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Group(number) => out.push_str(&String::from_utf8_lossy(group(*number).unwrap_or_default())),
        }
    }
    out
}

/// Lines with those that continue them, each with the number of its first one. Comments and blank lines may stand in between.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let begun = line.trim_start();
        if begun.is_empty() || begun.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, whole)) if line.starts_with(|c: char| c.is_ascii_whitespace()) => whole.push_str(line),
            _ => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}

fn parse_line(text: &str, line: usize, dialect: Dialect) -> Result<Rule, String> {
    let text = text.trim();
    let behind = |word: &str| {
        let start = text.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word))?;
        let rest = &text[start.len()..];
        (!rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| rest.trim_start())
    };
    if let Some(rest) = behind("endif") {
        return if rest.is_empty() { Ok(Rule::EndIf) } else { Err("there is something behind endif".to_owned()) };
    }
    if let Some(rest) = behind("if") {
        let (pattern, rest) = parse_pattern(rest, dialect)?;
        let nothing = rest.trim().is_empty();
        return if nothing {
            Ok(Rule::If { pattern, end: 0 })
        } else {
            Err("there is something behind the pattern of if".to_owned())
        };
    }
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("is no rule: a pattern between slashes, if or endif is expected".to_owned());
    }
    let (first, mut rest) = parse_pattern(text, dialect)?;
    let mut patterns = vec![first];
    if dialect == Dialect::Regexp && rest.starts_with('!') {
        let second;
        (second, rest) = parse_pattern(rest, dialect)?;
        patterns.push(second);
    }
    let result = parse_result(rest.trim_start())?;
    let most = result.iter().map(|piece| if let Piece::Group(number) = piece { *number } else { 0 }).max();
    if most.unwrap_or(0) > patterns[0].groups() {
        return Err("the result names a group that the pattern does not have".to_owned());
    }
    Ok(Rule::Result { patterns, result, line })
}

/// `!/pattern/flags` and what follows it.
fn parse_pattern(text: &str, dialect: Dialect) -> Result<(Pattern, &str), String> {
    let mut text = text;
    let mut negated = false;
    while let Some(rest) = text.strip_prefix('!') {
        (negated, text) = (!negated, rest.trim_start());
    }
    let mut chars = text.char_indices();
    let (_, delimiter) = chars.next().ok_or("there is no pattern")?;
    if delimiter.is_ascii_alphanumeric() || delimiter == '\\' {
        return Err("a pattern begins with a slash or another sign".to_owned());
    }
    let start = delimiter.len_utf8();
    let mut end = None;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            _ if c == delimiter => {
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let end = end.ok_or_else(|| format!("the pattern has no closing {delimiter}"))?;
    let mut flags = Flags::new(dialect);
    let rest = &text[end + delimiter.len_utf8()..];
    let length = rest.find(|c: char| c.is_ascii_whitespace() || c == '!').unwrap_or(rest.len());
    for letter in rest[..length].chars() {
        if !flags.toggle(dialect, letter) {
            return Err(format!("{letter:?} is no flag of a pattern"));
        }
    }
    let pattern = Pattern::new(&text[start..end], dialect, flags, negated)
        .map_err(|error| format!("the pattern is wrong: {error}"))?;
    Ok((pattern, &rest[length..]))
}

/// Takes a result apart at `$1`, `${1}`, `$(1)`; `$$` is a dollar sign.
fn parse_result(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            plain.push('$');
            rest = behind;
            continue;
        }
        let close = match rest.chars().next() {
            Some('{') => Some('}'),
            Some('(') => Some(')'),
            _ => None,
        };
        let (name, behind) = match close {
            Some(close) => rest[1..].split_once(close).ok_or("a bracket behind $ does not end")?,
            None => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        };
        let number = name
            .parse()
            .map_err(|_| format!("{name:?} behind $ is no number of a group; write $$ for a dollar sign"))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Group(number));
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> Table {
        Table::parse("f", text, Dialect::Regexp).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn result(table: &Table, text: &str) -> Option<String> {
        table.find(text.as_bytes()).map(|found| found.result)
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let table = table(
            "# comment\n\n/^Subject: (.*) free/ REJECT $1 is not ${1}\n  # in between\n\n  and $$5\n\
             !/^(Subject|From):/ DUNNO\n/^From: (a)?b/!/boss/ WARN [$(1)]\n\"x/y\" INFO\n",
        );
        assert_eq!(result(&table, "Subject: beer free").as_deref(), Some("REJECT beer is not beer  and $5"));
        assert_eq!(result(&table, "To: x").as_deref(), Some("DUNNO"));
        assert_eq!(result(&table, "From: b").as_deref(), Some("WARN []"));
        assert_eq!(result(&table, "From: b the boss"), None);
        assert_eq!(table.find(b"Subject: x/y"), Some(Found { result: "INFO".into(), line: 9 }));
        assert_eq!(result(&table, ""), None);
    }

    #[test]
    fn conditions_nest() {
        let table = table("if /a/\nif !/b/\n/./ one\nendif\n/c/ two\nENDIF\n/./ three\n");
        for (text, found) in [("a", "one"), ("ab", "three"), ("abc", "two"), ("x", "three")] {
            assert_eq!(result(&table, text).as_deref(), Some(found), "{text}");
        }
    }

    #[test]
    fn every_mistake_has_its_line() {
        let text = "/a/ ok\n/b\nnonsense x\n/c/z ok\n/(/ ok\n/d/ $1\n!/(e)/ $1\nendif\nif /f/\n/g/ ${1\n/h/ $x\n";
        let told = Table::parse("f", text, Dialect::Pcre).unwrap_err().to_string();
        let lines: Vec<&str> = told.lines().filter_map(|line| line.split(':').nth(1)).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "6", "7", "8", "10", "11", "9"], "{told}");
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused(text in "((if |endif|/|!|a|\\(|\\)|\\$1| |\n|\n ){0,12}\n){0,6}", line: Vec<u8>) {
            if let Ok(table) = Table::parse("f", &text, Dialect::Regexp) {
                table.find(&line);
            }
        }
    }
}
