// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules import`: rules of another program, printed as ours. What is not carried over is named where it stood, as a comment, and
//! counted on standard error. What is printed is compiled first, so that no rule comes out that the daemon would refuse.

use std::collections::HashSet;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use policyd::config::RuleSettings;
use policyd::rules::{Names, Rules};

use super::{milter_greylist, postfwd, rate_limit};
use crate::session::say;

/// Largest file read, in bytes.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Whose rules are read.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Program {
    /// A ruleset of postfwd
    Postfwd,
    /// The access lists (racl, dacl, acl) of a greylist.conf
    MilterGreylist,
    /// The limits of a policyd-rate-limit.yaml
    PolicydRateLimit,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    /// A rule of ours, and what of the old one is not in it.
    Rule { name: String, when: Vec<String>, then: Vec<String>, left_out: Vec<String> },
    /// Not carried over: which, and why.
    Nothing { what: String, why: String },
}

pub(super) fn run(program: Program, file: &Path) -> ExitCode {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => return fail(crate::NAME, exit::DATA, format!("{}: {error}", file.display())),
    };
    let (out, what, missing) = match program {
        Program::Postfwd => of_rules(postfwd::rules(&text)),
        Program::MilterGreylist => of_rules(milter_greylist::rules(&text)),
        Program::PolicydRateLimit => match rate_limit::converted(&text) {
            Ok(made) => (made.text, format!("{} limits", made.limits), made.notes),
            Err(error) => return fail(crate::NAME, exit::DATA, format!("{}: {error}", file.display())),
        },
    };
    say(format_args!("{}", out.trim_end()));
    // Whoever redirects what is printed sees this.
    fail(crate::NAME, exit::OK, format!("{what}, {missing} notes on what is not carried over"))
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes)?,
        false => std::fs::File::open(file)?.take(MAX_INPUT).read_to_end(&mut bytes)?,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn of_rules(made: Vec<Made>) -> (String, String, usize) {
    let (out, count, missing) = printed(made);
    (out, format!("{count} rules"), missing)
}

/// The rules as TOML, how many there are, and how many notes.
pub(super) fn printed(made: Vec<Made>) -> (String, usize, usize) {
    let made = unique(made);
    // Rules that others go on with must be there to compile; what is wrong for itself is found first.
    let made: Vec<Made> = made.into_iter().map(checked).collect();
    let names: HashSet<&str> = made.iter().filter_map(name).collect();
    let (mut out, mut count, mut notes) = (String::new(), 0, 0);
    for item in &made {
        // Writing to a String cannot fail.
        match item {
            Made::Nothing { what, why } => {
                notes += 1;
                let _ = writeln!(out, "# not carried over: {}: {}\n", one_line(what), one_line(why));
            }
            Made::Rule { name, when, then, left_out } => {
                count += 1;
                let target = then.iter().find_map(|action| action.strip_prefix("skip_to "));
                let lost = target.filter(|target| !names.contains(target)).map(|target| format!("jump to {target}"));
                for left in left_out.iter().chain(&lost) {
                    notes += 1;
                    let _ = writeln!(out, "# rule {name}: not carried over: {}", one_line(left));
                }
                let comment = if lost.is_some() { "#" } else { "" };
                out.extend(rule_text(name, when, then).lines().map(|line| format!("{comment}{line}\n")));
                out.push('\n');
            }
        }
    }
    (out, count, notes)
}

fn name(made: &Made) -> Option<&str> {
    match made {
        Made::Rule { name, .. } => Some(name),
        Made::Nothing { .. } => None,
    }
}

fn rule_text(name: &str, when: &[String], then: &[String]) -> String {
    let mut text = format!("[[rule]]\nname = {}\n", toml_text(name));
    if !when.is_empty() {
        let _ = writeln!(text, "when = {}", toml_text(&when.join(" && ")));
    }
    let actions: Vec<String> = then.iter().map(|action| toml_text(action)).collect();
    let _ = writeln!(text, "then = [{}]", actions.join(", "));
    text
}

/// A text of TOML, the readable form where it can be.
pub(super) fn toml_text(text: &str) -> String {
    match text.contains('\'') || text.chars().any(char::is_control) {
        false => format!("'{text}'"),
        true => {
            let escaped: String = text.chars().map(escaped).collect();
            format!("\"{escaped}\"")
        }
    }
}

fn escaped(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    }
}

/// A text of an expression.
pub(super) fn quoted(text: &str) -> String {
    let escaped: String =
        text.chars().map(|c| if matches!(c, '"' | '\\') { format!("\\{c}") } else { c.to_string() }).collect();
    format!("\"{escaped}\"")
}

/// A rule that compiles, or what is wrong with it.
fn checked(made: Made) -> Made {
    let Made::Rule { name, when, then, left_out } = made else { return made };
    // Where it goes on is looked at when all rules are there.
    let alone: Vec<String> = then
        .iter()
        .map(|action| if action.starts_with("skip_to ") { "stop".to_owned() } else { action.clone() })
        .collect();
    let tags = when.iter().filter_map(|test| test.strip_prefix("tagged(\"")?.strip_suffix("\")")).enumerate();
    let given: String =
        tags.map(|(at, tag)| format!("[[rule]]\nname = 'before{at}'\nthen = ['tag {tag}']\n")).collect();
    let text = format!("{given}{}", rule_text(&name, &when, &alone));
    let compiled = Source::from_text("", &text).and_then(|source| {
        let mut mistakes = Mistakes::new();
        let entries = source.list::<RuleSettings>("rule", &mut mistakes);
        mistakes.into_result(())?;
        Rules::compile(&entries, &Names::default(), false)
    });
    match compiled {
        Ok(_) => Made::Rule { name, when, then, left_out },
        Err(mistakes) => {
            let why = mistakes.iter().map(|mistake| mistake.message.clone()).collect::<Vec<_>>().join("; ");
            Made::Nothing { what: format!("rule {name}"), why }
        }
    }
}

/// Names are there once: the second gets a number.
fn unique(made: Vec<Made>) -> Vec<Made> {
    let mut seen = HashSet::new();
    let rename = |made: Made| match made {
        Made::Rule { name, when, then, left_out } => {
            let mut free = name.clone();
            let mut number = 1;
            while !seen.insert(free.clone()) {
                number += 1;
                free = format!("{name}-{number}");
            }
            Made::Rule { name: free, when, then, left_out }
        }
        nothing => nothing,
    };
    made.into_iter().map(rename).collect()
}

/// A name of ours.
pub(super) fn rule_name(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
    text.chars().take(56).map(good).collect()
}

/// A reply of ours: with a code, printable, without our braces.
pub(super) fn reply(code: &str, text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let text: String = text.trim().chars().map(printable).collect();
    let begins_with_code = text.split(' ').next().is_some_and(|word| {
        word.split('.').count() == 3
            && word.starts_with([code.as_bytes()[0] as char])
            && word.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit())
    });
    match (begins_with_code, text.is_empty()) {
        (true, _) => text,
        (false, true) => format!("{code} Access denied"),
        (false, false) => format!("{code} {text}"),
    }
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
