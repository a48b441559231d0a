// SPDX-License-Identifier: GPL-3.0-or-later
//! `[[banned.rule]]`: ordered rules that allow, deny or rename attachments, for some recipients or all, in the message or in archives. Pure.
//!
//! The first rule that fits a part decides about it; where none fits, the lists of `[banned]` do. All conditions of a rule must hold,
//! each by one of its values; every spelling of a name and every type is looked at.

use super::banned::{self, PatternError};
use crate::findings::Part;
use common::config::{Listed, Mistake, Mistakes, Source};
use common::lookup::AddressTable;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// What a rule does with a part that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// It is not banned, whatever comes behind.
    Allow,
    /// It is banned.
    Deny,
    /// It gets another name; where that cannot be done, it is banned.
    Rename,
}

impl RuleAction {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            RuleAction::Allow => "allow",
            RuleAction::Deny => "deny",
            RuleAction::Rename => "rename",
        }
    }
}

/// Where a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inside {
    /// Everywhere.
    Anything,
    /// At parts of the message and of attached messages.
    Message,
    /// At members of archives and documents.
    Archives,
}

/// One `[[banned.rule]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BannedRule {
    /// For replies, log and metrics.
    pub name: String,
    /// What it does.
    pub action: RuleAction,
    /// Whom it is for, as in a list of recipients; nobody named: everybody.
    pub recipients: Vec<String>,
    /// Where it looks.
    pub inside: Inside,
    /// Extensions without the dot, in any case.
    pub extensions: Vec<String>,
    /// Whether the name must end in two extensions of which the first pretends to be the type: `invoice.pdf.exe`.
    pub double_extension: bool,
    /// Regular expressions searched for in names, without regard to case.
    pub names: Vec<String>,
    /// Types, declared or seen in the content; `image/*` stands for all of one kind.
    pub types: Vec<String>,
    /// Types as declared.
    pub declared_types: Vec<String>,
    /// Types as seen in the content.
    pub detected_types: Vec<String>,
    /// Regular expressions searched for in the path of the part, `2/invoice.zip/a.js`.
    pub paths: Vec<String>,
    /// The new name; `{name}` stands for the present one.
    pub to: String,
}

impl Default for BannedRule {
    fn default() -> BannedRule {
        BannedRule {
            name: String::new(),
            action: RuleAction::Deny,
            recipients: Vec::new(),
            inside: Inside::Anything,
            extensions: Vec::new(),
            double_extension: false,
            names: Vec::new(),
            types: Vec::new(),
            declared_types: Vec::new(),
            detected_types: Vec::new(),
            paths: Vec::new(),
            to: "{name}.renamed".to_owned(),
        }
    }
}

/// Extensions that people trust: what stands before the last one to deceive.
const TRUSTED: &str = "pdf doc docx odt rtf txt csv xls xlsx ods ppt pptx odp jpg jpeg png gif bmp tif tiff mp3 mp4 avi mov htm html xml eml msg";

impl BannedRule {
    /// The rules of all files, in their order; every mistake goes to `mistakes`.
    pub fn read_all(source: &Source, mistakes: &mut Mistakes) -> Vec<BannedRule> {
        let rules: Vec<Listed<BannedRule>> = source.list("banned.rule", mistakes);
        for (place, rule) in rules.iter().enumerate() {
            let twice = rules[..place].iter().any(|other| other.value.name == rule.value.name);
            if twice {
                mistakes.push(rule.mistake("name", format!("{:?} is the name of another rule", rule.value.name)));
            }
            for (key, message) in rule.value.mistakes() {
                mistakes.push(rule.mistake(key, message));
            }
        }
        rules.into_iter().map(|rule| rule.value).collect()
    }

    fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong: Vec<(&'static str, String)> = Vec::new();
        let mut add = |key, found: bool, message: &str| {
            if found {
                wrong.push((key, message.to_owned()));
            }
        };
        let sign = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        add(
            "name",
            self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(sign),
            "must be a word of up to 40 letters, digits, - _ .",
        );
        let lists =
            [&self.extensions, &self.names, &self.types, &self.declared_types, &self.detected_types, &self.paths];
        let empty = !self.double_extension && lists.iter().all(|list| list.is_empty());
        add("name", empty, "has no condition: it would fit the text of every message, too");
        let renames = self.action == RuleAction::Rename;
        let rest = self.to.replacen("{name}", "", 1);
        let good =
            rest.len() <= 30 && rest != self.to && rest.chars().all(|c| c.is_ascii_graphic() && !"\"\\/{}".contains(c));
        add("to", renames && !good, "must hold {name} and at most 30 other letters, digits and signs");
        add("to", renames && rest.is_empty(), "is the present name");
        if let Err(error) = Rule::new(self) {
            wrong.extend(error);
        }
        wrong
    }
}

/// A rule, ready for use.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) action: RuleAction,
    recipients: Option<AddressTable>,
    inside: Inside,
    extensions: Vec<String>,
    double_extension: bool,
    names: Vec<Regex>,
    types: Vec<String>,
    declared_types: Vec<String>,
    detected_types: Vec<String>,
    paths: Vec<Regex>,
    to: String,
}

impl Rule {
    /// Compiles a rule. Errors: what is wrong, by key.
    pub(super) fn new(rule: &BannedRule) -> Result<Rule, Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        let mut patterns = |key, list: &[String]| -> Vec<Regex> {
            let compiled = list.iter().map(|text| banned::pattern(text));
            let told = |error: PatternError| wrong.push((key, error.to_string()));
            let mut told = told;
            compiled.filter_map(|pattern| pattern.map_err(&mut told).ok()).collect()
        };
        let (names, paths) = (patterns("names", &rule.names), patterns("paths", &rule.paths));
        let entries = rule.recipients.iter().map(String::as_str);
        let (table, mistakes) = AddressTable::from_recipient_entries("recipients", entries);
        wrong.extend(mistakes.iter().map(|mistake: &Mistake| ("recipients", mistake.message.clone())));
        let rule = Rule {
            name: rule.name.clone(),
            action: rule.action,
            recipients: (!rule.recipients.is_empty()).then_some(table),
            inside: rule.inside,
            extensions: banned::lower(&rule.extensions),
            double_extension: rule.double_extension,
            names,
            types: banned::lower(&rule.types),
            declared_types: banned::lower(&rule.declared_types),
            detected_types: banned::lower(&rule.detected_types),
            paths,
            to: rule.to.clone(),
        };
        if wrong.is_empty() { Ok(rule) } else { Err(wrong) }
    }

    /// Whether it is for some recipients only.
    pub(super) fn is_personal(&self) -> bool {
        self.recipients.is_some()
    }

    /// Whether it is for this recipient.
    pub(super) fn is_for(&self, recipient: &str) -> bool {
        self.recipients.as_ref().is_none_or(|table| table.find(recipient).is_some())
    }

    /// What of the part the rule fits, for the log; none when it does not.
    pub(super) fn fits(&self, part: &Part) -> Option<String> {
        let in_archive = part.path.contains('/');
        let place = match self.inside {
            Inside::Anything => true,
            Inside::Message => !in_archive,
            Inside::Archives => in_archive,
        };
        let among =
            |list: &[String], kind: &str| list.is_empty() || list.iter().any(|wanted| banned::fits(wanted, kind));
        let detected = part.detected_type.as_str();
        let declared = |list: &[String]| list.is_empty() || part.types.iter().any(|kind| among(list, kind));
        let any_type = self.types.is_empty() || among(&self.types, detected) || declared(&self.types);
        let path = self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.is_match(&part.path));
        if !(place && any_type && declared(&self.declared_types) && among(&self.detected_types, detected) && path) {
            return None;
        }
        if self.extensions.is_empty() && self.names.is_empty() && !self.double_extension {
            let name = part.names.first().map(|name| banned::plain(name));
            return Some(name.unwrap_or_else(|| detected.to_owned()));
        }
        part.names.iter().find(|name| self.fits_name(name)).map(|name| banned::plain(name))
    }

    fn fits_name(&self, name: &str) -> bool {
        let plain = banned::plain(name);
        let extension = self.extensions.is_empty()
            || banned::extensions(&plain).any(|found| self.extensions.iter().any(|wanted| wanted == found));
        let pattern =
            self.names.is_empty() || self.names.iter().any(|regex| regex.is_match(name) || regex.is_match(&plain));
        extension && pattern && (!self.double_extension || is_double(&plain))
    }

    /// The new name of a part with this one. What is before it is cut, so that what makes it harmless is not.
    pub(super) fn renamed(&self, name: &str) -> String {
        const LONGEST: usize = 40;
        let name: String = name.chars().take(LONGEST).collect();
        self.to.replacen("{name}", &name, 1)
    }
}

/// Whether a name ends in two extensions, of which the first is one that people trust.
fn is_double(plain: &str) -> bool {
    let mut pieces = plain.rsplit('.').map(str::trim);
    let (Some(last), Some(before), Some(_)) = (pieces.next(), pieces.next(), pieces.next()) else { return false };
    let extension = |text: &str| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    extension(last) && last != before && TRUSTED.split(' ').any(|trusted| trusted == before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str, name: &str, declared: &str, detected: &str) -> Part {
        Part {
            path: path.into(),
            names: vec![name.into()],
            types: vec![declared.into()],
            detected_type: detected.into(),
            size: 1,
            digest: Default::default(),
            container: None,
            leaf: true,
        }
    }

    fn rule(lines: &str) -> Rule {
        let text = format!("name = 'r'\n{lines}");
        Rule::new(&toml::from_str(&text).unwrap()).unwrap()
    }

    #[test]
    fn all_conditions_must_hold() {
        let outer = part("2", "a.js", "text/plain", "application/javascript");
        let inner = part("2/x.zip/a.js", "a.js", "text/plain", "text/plain");
        for (lines, fits) in [
            ("extensions = ['JS']", [true, true]),
            ("extensions = ['js']\ninside = 'archives'", [false, true]),
            ("extensions = ['js']\ninside = 'message'", [true, false]),
            ("extensions = ['exe']", [false, false]),
            ("names = ['^A']\ntypes = ['application/*']", [true, false]),
            ("declared_types = ['application/*']", [false, false]),
            ("detected_types = ['application/javascript']", [true, false]),
            ("types = ['text/plain']", [true, true]),
            ("paths = ['\\.zip/.*\\.js$']", [false, true]),
        ] {
            let rule = rule(lines);
            assert_eq!([&outer, &inner].map(|part| rule.fits(part).is_some()), fits, "{lines}");
        }
    }

    #[test]
    fn double_extensions() {
        for (name, double) in [
            ("invoice.pdf.exe", true),
            ("invoice.pdf   .exe", true),
            ("photo.JPG.zip . ", true),
            ("invoice.exe", false),
            ("1.2.exe", false),
            ("a.tar.gz", false),
            ("pdf.exe", false),
            ("scan.pdf.pdf", false),
        ] {
            let found = rule("double_extension = true").fits(&part("1", name, "", ""));
            assert_eq!(found.is_some(), double, "{name}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let read = |text: &str| {
            let mut mistakes = Mistakes::new();
            let source = Source::from_text("f", text).unwrap();
            BannedRule::read_all(&source, &mut mistakes);
            mistakes.to_string()
        };
        assert_eq!(read("[[banned.rule]]\nname = 'a'\nextensions = ['x']\n"), "");
        for (lines, told) in [
            ("name = 'a'", "f:2: banned.rule.name: has no condition"),
            ("name = 'a b'\nextensions = ['x']", "f:2: banned.rule.name: must be a word"),
            ("name = 'a'\nnames = ['(']", "f:3: banned.rule.names: \"(\" is not a regular expression"),
            ("name = 'a'\nextensions = ['x']\nrecipients = ['a b@c']", "f:4: banned.rule.recipients: "),
            ("name = 'a'\nextensions = ['x']\naction = 'rename'\nto = 'x'", "f:5: banned.rule.to: must hold"),
            ("name = 'a'\nextensions = ['x']\naction = 'rename'\nto = '{name}'", "f:5: banned.rule.to: is the present"),
            ("name = 'a'\nextensions = ['x']\ncolour = 1", "f:4: banned.rule.colour: "),
        ] {
            let mistakes = read(&format!("[[banned.rule]]\n{lines}\n"));
            assert!(mistakes.starts_with(told), "{lines}: {mistakes}");
        }
        let twice = "[[banned.rule]]\nname = 'a'\nextensions = ['x']\n".repeat(2);
        assert_eq!(read(&twice), "f:5: banned.rule.name: \"a\" is the name of another rule");
    }
}
