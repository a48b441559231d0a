// SPDX-License-Identifier: GPL-3.0-or-later
//! Files that are not wanted, by extension, type and name. Pure.
//!
//! Every spelling of a name counts (`filename`, `filename*`, `name`, encoded words), the declared type as well as
//! the one that the content shows, because clients differ in which of them they act upon.

use crate::findings::{Banned, Part};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

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
}

impl Default for BannedSettings {
    fn default() -> BannedSettings {
        BannedSettings {
            extensions: EXTENSIONS.split_whitespace().map(str::to_owned).collect(),
            types: TYPES.map(str::to_owned).to_vec(),
            names: vec![CLASS_ID.to_owned()],
        }
    }
}

impl BannedSettings {
    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let wrong = BannedFiles::new(self).err().unwrap_or_default();
        wrong.into_iter().map(|error| ("names", error.to_string())).collect()
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
    extensions: Vec<String>,
    types: Vec<String>,
    names: Vec<Regex>,
}

impl BannedFiles {
    /// Compiles the patterns; all that are wrong are reported.
    pub fn new(settings: &BannedSettings) -> Result<BannedFiles, Vec<PatternError>> {
        let (names, wrong): (Vec<_>, Vec<_>) = settings.names.iter().map(|text| pattern(text)).partition(Result::is_ok);
        let wrong: Vec<_> = wrong.into_iter().filter_map(Result::err).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let lower = |list: &[String]| list.iter().map(|text| text.trim_start_matches('.').to_lowercase()).collect();
        Ok(BannedFiles {
            extensions: lower(&settings.extensions),
            types: lower(&settings.types),
            names: names.into_iter().filter_map(Result::ok).collect(),
        })
    }

    /// All parts that a rule fits, each with the first rule.
    pub fn check(&self, parts: &[Part]) -> Vec<Banned> {
        parts.iter().filter_map(|part| self.part(part)).collect()
    }

    fn part(&self, part: &Part) -> Option<Banned> {
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

fn pattern(text: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(text).case_insensitive(true).size_limit(1 << 20).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
        PatternError { pattern: text.to_owned(), reason }
    })
}

fn fits(banned: &str, kind: &str) -> bool {
    match banned.strip_suffix('*') {
        Some(start) => kind.starts_with(start),
        None => kind == banned,
    }
}

/// The name as a file system would show it: lower case, last component, without control and invisible characters
/// (a right-to-left override turns `exe.txt` around), without the blanks and dots at the end that Windows drops.
fn plain(name: &str) -> String {
    let invisible = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let name: String = name.chars().filter(invisible).flat_map(char::to_lowercase).collect();
    let last = name.rsplit(['/', '\\']).find(|component| !component.is_empty()).unwrap_or_default();
    last.trim_end_matches(|c: char| c == '.' || c.is_whitespace()).to_owned()
}

/// The extension, and the one in front of characters that hide it: a stream (`a.exe:x`), a semicolon, a blank run.
fn extensions(plain: &str) -> impl Iterator<Item = &str> {
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
            sha256: [0; 32],
            container: None,
            leaf: true,
        }
    }

    fn rule(names: &[&str], types: &[&str], detected_type: &str) -> String {
        files().check(&[part(names, types, detected_type)]).pop().map(|banned| banned.rule).unwrap_or_default()
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
        };
        let files = BannedFiles::new(&settings).unwrap();
        let parts = [
            part(&["a.iso"], &[], ""),
            part(&["a.exe"], &[], ""),
            part(&[], &["video/mp4"], ""),
            part(&["Invoice 1.pdf"], &[], ""),
        ];
        let rules: Vec<_> = files.check(&parts).into_iter().map(|banned| banned.rule).collect();
        assert_eq!(rules, ["extension iso", "type video/mp4", "name ^invoice"]);
    }

    #[test]
    fn wrong_patterns_are_all_named() {
        let settings = BannedSettings { names: vec!["(".into(), "ok".into(), "[".into()], ..BannedSettings::default() };
        let wrong = BannedFiles::new(&settings).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].to_string().contains("unclosed group"), "{}", wrong[0]);
    }

    proptest! {
        #[test]
        fn any_name_is_checked(name: String) {
            rule(&[&name], &[&name], "");
        }
    }
}
