// SPDX-License-Identifier: GPL-3.0-or-later
//! Files that are not wanted, by extension, type and name. Pure.
//!
//! Every spelling of a name counts (`filename`, `filename*`, `name`, encoded words), the declared type as well as
//! the one that the content shows, because clients differ in which of them they act upon.

use super::banned_rules::{BannedRule, Rule, RuleAction};
use crate::findings::{Banned, Part};
use crate::message::rename::Renamed;
use common::config::{Mistake, Mistakes, Source};
use metrics::counter;
use regex::{Regex, RegexBuilder};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// Extensions that Windows, a mail client or an Office program runs or opens without a question.
const EXTENSIONS: &str = "ade adp app appx bas bat chm cmd com cpl dll exe fxp gadget hlp hta inf ins isp jar jnlp js jse lnk mda mdb \
    mde mdt mdw mdz msc msh msh1 msh2 msi msix msp mst ocx ops pcd pif prg ps1 ps1xml ps2 psc1 psc2 psm1 reg scf scr \
    sct settingcontent-ms shb shs sys url vb vbe vbs vxd wsc wsf wsh xll";

/// Types of programs, declared or seen in the content.
const TYPES: [&str; 8] = [
    "application/x-msdownload",
    "application/x-msdos-program",
    "application/x-dosexec",
    "application/vnd.microsoft.portable-executable",
    "application/hta",
    "application/x-ms-shortcut",
    "application/x-ms-installer",
    "application/java-archive",
];

/// A class id as extension: Windows hides it and opens the file with that class.
const CLASS_ID: &str = r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?$";

/// Section `[banned]`: attachments that are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BannedSettings {
    /// Extensions without the dot, in any case.
    pub extensions: Vec<String>,
    /// Media types; `image/*` stands for all of one kind.
    pub types: Vec<String>,
    /// Regular expressions, without regard to case, searched for in file names.
    pub names: Vec<String>,
    /// What holds for all recipients of a message when not the same rules are for each.
    pub mixed: Mixed,
    /// `[[banned.rule]]`, asked before the lists above.
    #[serde(deserialize_with = "later")]
    pub rule: Vec<BannedRule>,
}

/// The rules of all files count and are read by themselves.
fn later<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<BannedRule>, D::Error> {
    IgnoredAny::deserialize(input).map(|_| Vec::new())
}

/// What becomes of a message to several recipients for whom different rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mixed {
    /// What is banned for one is banned for all.
    Strictest,
    /// What is allowed for one is allowed for all.
    Lenient,
    /// At RCPT, whoever has other rules than the first is asked to come in a message of his own.
    Split,
}

impl Default for BannedSettings {
    fn default() -> BannedSettings {
        BannedSettings {
            extensions: EXTENSIONS.split_whitespace().map(str::to_owned).collect(),
            types: TYPES.map(str::to_owned).to_vec(),
            names: vec![CLASS_ID.to_owned()],
            mixed: Mixed::Strictest,
            rule: Vec::new(),
        }
    }
}

impl BannedSettings {
    /// Takes the section and its rules out of the layers. Every mistake goes to `mistakes`.
    pub fn read(source: &Source, mistakes: &mut Mistakes) -> BannedSettings {
        let mut settings: BannedSettings = source.section("banned", mistakes);
        settings.rule = BannedRule::read_all(source, mistakes);
        settings
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let wrong = self.names.iter().filter_map(|text| pattern(text).err());
        wrong.map(|error| ("names", error.to_string())).collect()
    }
}

/// A name pattern that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a regular expression: {reason}")]
pub struct PatternError {
    /// The pattern as configured.
    pub pattern: String,
    /// The first line of the compiler's message.
    pub reason: String,
}

/// The list of banned files, ready for use.
#[derive(Debug)]
pub struct BannedFiles {
    rules: Vec<Rule>,
    mixed: Mixed,
    extensions: Vec<String>,
    types: Vec<String>,
    names: Vec<Regex>,
}

/// What the rules and lists say of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Parts that are banned.
    pub banned: Vec<Banned>,
    /// Parts that get another name.
    pub renamed: Vec<Renamed>,
}

/// What is said of one part.
enum Said {
    Nothing,
    Banned(Banned),
    Renamed(Renamed),
}

impl BannedFiles {
    /// Compiles the patterns. Errors: all that are wrong.
    pub fn new(settings: &BannedSettings) -> Result<BannedFiles, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut wrong = |key: String, message: String| {
            mistakes.push(Mistake { origin: "configuration".to_owned(), key: format!("banned.{key}"), message });
        };
        let (mut names, mut rules) = (Vec::new(), Vec::new());
        for text in &settings.names {
            match pattern(text) {
                Ok(regex) => names.push(regex),
                Err(error) => wrong("names".to_owned(), error.to_string()),
            }
        }
        for rule in &settings.rule {
            match Rule::new(rule) {
                Ok(rule) => rules.push(rule),
                Err(errors) => {
                    errors.into_iter().for_each(|(key, message)| wrong(format!("rule {}.{key}", rule.name), message));
                }
            }
        }
        let files = BannedFiles {
            rules,
            mixed: settings.mixed,
            extensions: lower(&settings.extensions),
            types: lower(&settings.types),
            names,
        };
        mistakes.into_result(files)
    }

    /// Whether different rules are for these two recipients, and they are to come in messages of their own.
    pub fn separates(&self, one: &str, other: &str) -> bool {
        let mut personal = self.rules.iter().filter(|rule| rule.is_personal());
        self.mixed == Mixed::Split && personal.any(|rule| rule.is_for(one) != rule.is_for(other))
    }

    /// What the rules say of all parts, for these recipients together.
    pub fn judge(&self, parts: &[Part], recipients: &[String]) -> Judged {
        let mut judged = Judged::default();
        let classes = self.classes(recipients);
        for part in parts {
            match self.together(part, &classes) {
                Said::Nothing => {}
                Said::Banned(banned) => judged.banned.push(banned),
                Said::Renamed(renamed) => judged.renamed.push(renamed),
            }
        }
        judged
    }

    /// The different sets of rules that are for the recipients; one when no rule is for some of them only.
    fn classes(&self, recipients: &[String]) -> Vec<Vec<&Rule>> {
        if recipients.is_empty() || !self.rules.iter().any(Rule::is_personal) {
            return vec![self.rules.iter().filter(|rule| !rule.is_personal()).collect()];
        }
        let mut seen: Vec<Vec<bool>> = Vec::new();
        for recipient in recipients {
            let class: Vec<bool> = self.rules.iter().map(|rule| rule.is_for(recipient)).collect();
            if !seen.contains(&class) {
                seen.push(class);
            }
        }
        let rules =
            |class: &Vec<bool>| self.rules.iter().zip(class).filter_map(|(rule, on)| on.then_some(rule)).collect();
        seen.iter().map(rules).collect()
    }

    /// The strictest of what is said for all recipients, or the most lenient.
    fn together(&self, part: &Part, classes: &[Vec<&Rule>]) -> Said {
        let said = classes.iter().map(|rules| self.part(part, rules));
        let weight = |said: &Said| match said {
            Said::Nothing => 0,
            Said::Renamed(_) => 1,
            Said::Banned(_) => 2,
        };
        let chosen = match self.mixed {
            Mixed::Lenient => said.min_by_key(weight),
            Mixed::Strictest | Mixed::Split => said.max_by_key(weight),
        };
        chosen.unwrap_or(Said::Nothing)
    }

    /// The first rule that fits decides, else the lists.
    fn part(&self, part: &Part, rules: &[&Rule]) -> Said {
        let fitting = rules.iter().find_map(|rule| Some((rule, rule.fits(part)?)));
        let Some((rule, matched)) = fitting else {
            return self.listed(part).map_or(Said::Nothing, Said::Banned);
        };
        let (name, action) = (rule.name.clone(), rule.action.word());
        counter!("octroi_contentd_banned_rules_total", "rule" => name, "action" => action).increment(1);
        let banned = Banned { rule: rule.name.clone(), part: part.path.clone(), matched };
        match rule.action {
            RuleAction::Allow => Said::Nothing,
            RuleAction::Deny => Said::Banned(banned),
            RuleAction::Rename => Said::Renamed(Renamed { to: rule.renamed(&banned.matched), banned }),
        }
    }

    /// What the lists of the section say.
    fn listed(&self, part: &Part) -> Option<Banned> {
        let (rule, matched) = part.names.iter().find_map(|name| self.name(name)).or_else(|| self.kind(part))?;
        Some(Banned { rule, part: part.path.clone(), matched })
    }

    fn name(&self, name: &str) -> Option<(String, String)> {
        let plain = plain(name);
        let banned = |found: &&str| self.extensions.iter().any(|banned| banned == found);
        let extension = extensions(&plain).find(banned).map(|extension| format!("extension {extension}"));
        if let Some(rule) = extension {
            return Some((rule, plain));
        }
        let fitting = self.names.iter().find(|regex| regex.is_match(name) || regex.is_match(&plain))?;
        Some((format!("name {}", fitting.as_str()), plain))
    }

    fn kind(&self, part: &Part) -> Option<(String, String)> {
        let declared = part.types.iter().map(String::as_str);
        let found = declared
            .chain([part.detected_type.as_str()])
            .find(|kind| self.types.iter().any(|banned| fits(banned, kind)))?;
        let shown = part.names.first().map_or_else(|| found.to_owned(), |name| plain(name));
        Some((format!("type {found}"), shown))
    }
}

/// Extensions and types as they are compared.
pub(super) fn lower(list: &[String]) -> Vec<String> {
    list.iter().map(|text| text.trim_start_matches('.').to_lowercase()).collect()
}

/// A pattern for names, in any case.
pub(super) fn pattern(text: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(text).case_insensitive(true).size_limit(1 << 20).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
        PatternError { pattern: text.to_owned(), reason }
    })
}

/// Whether a type is the one that is wanted, or of its kind.
pub(super) fn fits(banned: &str, kind: &str) -> bool {
    match banned.strip_suffix('*') {
        Some(start) => kind.starts_with(start),
        None => kind == banned,
    }
}

/// The name as a file system would show it: lower case, last component, without control and invisible characters
/// (a right-to-left override turns `exe.txt` around), without the blanks and dots at the end that Windows drops.
pub(super) fn plain(name: &str) -> String {
    let invisible = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let name: String = name.chars().filter(invisible).flat_map(char::to_lowercase).collect();
    let last = name.rsplit(['/', '\\']).find(|component| !component.is_empty()).unwrap_or_default();
    last.trim_end_matches(|c: char| c == '.' || c.is_whitespace()).to_owned()
}

/// The extension, and the one in front of characters that hide it: a stream (`a.exe:x`), a semicolon, a blank run.
pub(super) fn extensions(plain: &str) -> impl Iterator<Item = &str> {
    let last = plain.rsplit_once('.').map(|(_, extension)| extension.trim());
    let cut = plain.split([':', ';', '?', '"', '\'']).map(str::trim_end).filter_map(|piece| piece.rsplit_once('.'));
    last.into_iter().chain(cut.map(|(_, extension)| extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files() -> BannedFiles {
        BannedFiles::new(&BannedSettings::default()).unwrap()
    }

    fn part(names: &[&str], types: &[&str], detected_type: &str) -> Part {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Part {
            path: "2".into(),
            names: own(names),
            types: own(types),
            detected_type: detected_type.to_owned(),
            size: 1,
            digest: Default::default(),
            container: None,
            leaf: true,
        }
    }

    fn rule(names: &[&str], types: &[&str], detected_type: &str) -> String {
        files()
            .judge(&[part(names, types, detected_type)], &[])
            .banned
            .pop()
            .map(|banned| banned.rule)
            .unwrap_or_default()
    }

    #[test]
    fn names_that_are_banned() {
        for name in [
            "setup.exe",
            "SETUP.EXE",
            "invoice.pdf.scr",
            "invoice.pdf      .exe",
            "a.exe.",
            "a.exe . ",
            "a.exe\0",
            "a.ex\u{200b}e",
            "x\\y\\a.vbs",
            "../a.js",
            "a.exe:stream",
            "a.exe;",
            "photo.{00020C01-0000-0000-C000-000000000046}",
            "cod\u{202e}txt.exe",
        ] {
            assert_ne!(rule(&[name], &[], ""), "", "{name}");
        }
    }

    #[test]
    fn names_that_are_not() {
        for name in ["readme.txt", "exe", "my.exe.pdf", "a.docx", "no extension", "", "...", "version 1.2", "l'été.pdf"]
        {
            assert_eq!(rule(&[name], &[], "application/pdf"), "", "{name}");
        }
    }

    #[test]
    fn every_spelling_and_every_type_counts() {
        assert_eq!(rule(&["a.txt", "a.exe"], &[], "text/plain"), "extension exe");
        assert_eq!(rule(&["a.txt"], &["application/hta"], "text/plain"), "type application/hta");
        assert_eq!(rule(&["a.txt"], &["text/plain"], "application/x-dosexec"), "type application/x-dosexec");
        assert_eq!(rule(&["a.txt"], &["text/plain"], "text/plain"), "");
    }

    #[test]
    fn lists_are_the_administrators() {
        let settings = BannedSettings {
            extensions: vec![".ISO".into()],
            types: vec!["Video/*".into()],
            names: vec!["^invoice".into()],
            ..BannedSettings::default()
        };
        let files = BannedFiles::new(&settings).unwrap();
        let parts = [
            part(&["a.iso"], &[], ""),
            part(&["a.exe"], &[], ""),
            part(&[], &["video/mp4"], ""),
            part(&["Invoice 1.pdf"], &[], ""),
        ];
        let rules: Vec<_> = files.judge(&parts, &[]).banned.into_iter().map(|banned| banned.rule).collect();
        assert_eq!(rules, ["extension iso", "type video/mp4", "name ^invoice"]);
    }

    #[test]
    fn wrong_patterns_are_all_named() {
        let settings = BannedSettings { names: vec!["(".into(), "ok".into(), "[".into()], ..BannedSettings::default() };
        let wrong = BannedFiles::new(&settings).unwrap_err().to_string();
        assert_eq!(wrong.lines().count(), 2);
        assert!(wrong.contains("unclosed group"), "{wrong}");
    }

    fn with_rules(mixed: Mixed, rules: &str) -> BannedFiles {
        #[derive(Deserialize)]
        struct File {
            rule: Vec<BannedRule>,
        }
        let File { rule } = toml::from_str(rules).unwrap();
        BannedFiles::new(&BannedSettings { mixed, rule, ..BannedSettings::default() }).unwrap()
    }

    const RULES: &str = "[[rule]]\nname = 'dev'\naction = 'allow'\nrecipients = ['dev@x.test', 'y.test']\nextensions = ['js']\n\
        [[rule]]\nname = 'ren'\naction = 'rename'\nextensions = ['bat']\nto = '{name}.txt'\n\
        [[rule]]\nname = 'zip'\ndouble_extension = true\n";

    /// What is said of a name for recipients: `-`, the rule, or the new name.
    fn said(files: &BannedFiles, name: &str, recipients: &[&str]) -> String {
        let recipients: Vec<String> = recipients.iter().map(|address| (*address).to_owned()).collect();
        let judged = files.judge(&[part(&[name], &[], "")], &recipients);
        let renamed = judged.renamed.into_iter().map(|renamed| renamed.to);
        judged.banned.into_iter().map(|banned| banned.rule).chain(renamed).next().unwrap_or_else(|| "-".to_owned())
    }

    #[test]
    fn the_first_rule_that_fits_decides_before_the_lists() {
        let files = with_rules(Mixed::Strictest, RULES);
        for (name, recipients, expected) in [
            ("a.js", vec!["dev@x.test"], "-"),
            ("a.js", vec!["Dev+tag@X.test"], "-"),
            ("a.js", vec!["a@y.test"], "-"),
            ("a.js", vec!["a@z.test"], "extension js"),
            ("a.js", vec![], "extension js"),
            ("a.BAT ", vec!["a@z.test"], "a.bat.txt"),
            ("a.pdf.zip", vec!["a@z.test"], "zip"),
            ("a.zip", vec!["a@z.test"], "-"),
        ] {
            assert_eq!(said(&files, name, &recipients), expected, "{name} {recipients:?}");
        }
    }

    #[test]
    fn several_recipients_share_one_answer() {
        let both = ["dev@x.test", "a@z.test"];
        assert_eq!(said(&with_rules(Mixed::Strictest, RULES), "a.js", &both), "extension js");
        assert_eq!(said(&with_rules(Mixed::Lenient, RULES), "a.js", &both), "-");
        assert!(!with_rules(Mixed::Strictest, RULES).separates(both[0], both[1]));
        let split = with_rules(Mixed::Split, RULES);
        assert!(split.separates(both[0], both[1]));
        assert!(!split.separates("dev@x.test", "b@y.test"));
        assert!(!split.separates("b@z.test", "a@z.test"));
    }

    proptest! {
        #[test]
        fn any_name_is_checked(name: String) {
            rule(&[&name], &[&name], "");
        }
    }
}
