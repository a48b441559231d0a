// SPDX-License-Identifier: GPL-3.0-or-later
//! The scanners: what looks into a message for viruses and unwanted files.
//!
//! `engines` asks all that are configured, `engine` is the frame that each one runs in, and there is one file per protocol.
//! A scanner answers with an [`crate::findings::Outcome`]; what that means for the message is decided in `verdict`.

pub mod banned;
pub mod banned_rules;
mod breaker;
pub mod clamd;
mod clamd_answer;
pub mod clamd_conf;
mod clamd_session;
mod command;
mod dialogue;
pub mod engine;
pub mod engines;
#[cfg(fuzzing)]
pub mod fuzzing;
mod icap;
mod icap_answer;
mod idle;
mod line;
pub mod originals;
pub mod probe;
pub mod sample;
pub(crate) mod scores;
mod scratch;
pub mod settings;
mod sssp;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use common::units::Period;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::findings::PARSER;
use crate::verdict::OnFailure;
use originals::Original;
use scores::VirusScore;
use settings::EngineSettings;

/// Section `[antivirus]`, with a section `[antivirus.NAME]` for each engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AntivirusSettings {
    /// What an engine that gives no answer means for the message, unless its own section says otherwise.
    pub on_failure: OnFailure,
    /// Signatures older than this are a finding; 0s: never.
    pub max_signature_age: Period,
    /// Names of viruses that are none but a sign of spam; the first pattern that fits holds.
    pub virus_scores: Vec<VirusScore>,
    /// What engines get besides what is decoded from it.
    pub originals: Vec<Original>,
    /// The engines by name; none is asked when there is no section.
    #[serde(flatten)]
    pub engines: BTreeMap<String, EngineSettings>,
}

impl Default for AntivirusSettings {
    fn default() -> AntivirusSettings {
        AntivirusSettings {
            on_failure: OnFailure::Tempfail,
            max_signature_age: Period::seconds(7 * 86_400),
            virus_scores: Vec::new(),
            originals: Original::ALL.to_vec(),
            engines: BTreeMap::new(),
        }
    }
}

impl AntivirusSettings {
    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for score in &self.virus_scores {
            wrong.extend(score.mistake().map(|message| ("virus_scores".to_owned(), message)));
        }
        if Original::ALL.iter().any(|original| self.originals.iter().filter(|other| *other == original).count() > 1) {
            wrong.push(("originals".to_owned(), "names the same twice".to_owned()));
        }
        for (name, engine) in &self.engines {
            if !is_name(name) || name == PARSER {
                wrong.push((
                    name.clone(),
                    "a name of an engine has letters, digits, - and _ only, and is not parser".to_owned(),
                ));
            }
            wrong.extend(engine.mistakes(name).into_iter().map(|(key, message)| (format!("{name}.{key}"), message)));
        }
        let primary = |engine: &EngineSettings| engine.group == settings::Group::Primary;
        if !self.engines.is_empty() && !self.engines.values().any(primary) {
            wrong.extend(self.engines.keys().map(|name| {
                (format!("{name}.group"), "there is no primary engine that it could be the backup of".to_owned())
            }));
        }
        wrong
    }

    /// What the failure of an engine means.
    pub fn on_failure(&self, engine: &str) -> OnFailure {
        self.engines.get(engine).and_then(|engine| engine.on_failure).unwrap_or(self.on_failure)
    }
}

/// Names stand in metrics, headers and log fields.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= 40 && name.bytes().all(plain)
}

/// Reads the section key by key, so that each mistake keeps its place in the file: what is no option is an engine.
impl<'de> Deserialize<'de> for AntivirusSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AntivirusSettings, D::Error> {
        deserializer.deserialize_map(Section)
    }
}

struct Section;

impl<'de> Visitor<'de> for Section {
    type Value = AntivirusSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section [antivirus]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AntivirusSettings, A::Error> {
        let mut settings = AntivirusSettings::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "on_failure" => settings.on_failure = map.next_value()?,
                "max_signature_age" => settings.max_signature_age = map.next_value()?,
                "originals" => settings.originals = map.next_value()?,
                "virus_scores" => settings.virus_scores = map.next_value()?,
                _ => {
                    let engine = map.next_value()?;
                    if settings.engines.insert(key, engine).is_some() {
                        return Err(de::Error::custom("the same engine twice"));
                    }
                }
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::{Mistakes, Source};

    fn read(text: &str) -> Result<AntivirusSettings, String> {
        let source = Source::from_text("f", text).map_err(|mistakes| mistakes.to_string())?;
        let mut mistakes = Mistakes::new();
        let settings: AntivirusSettings = source.section("antivirus", &mut mistakes);
        if mistakes.is_empty() {
            for (key, message) in settings.mistakes() {
                mistakes.push(source.mistake(&format!("antivirus.{key}"), message));
            }
        }
        mistakes.into_result(settings).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn engines_have_names() {
        let text = "[antivirus]\non_failure = \"next\"\nvirus_scores = [{ name = \"Heuristics.*\", score = 2.5 }]\n\
            [antivirus.clamd]\n[antivirus.far]\nkind = \"clamd\"\naddress = \"192.0.2.1:3310\"\ngroup = \"backup\"\n\
            on_failure = \"unchecked\"\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.engines.keys().collect::<Vec<_>>(), ["clamd", "far"]);
        assert_eq!(settings.on_failure("clamd"), OnFailure::Next);
        assert_eq!(settings.on_failure("far"), OnFailure::Unchecked);
        assert_eq!(settings.on_failure("parser"), OnFailure::Next);
    }

    #[test]
    fn mistakes_have_their_place() {
        for (lines, told) in [
            ("colour = 1", "f:2: antivirus.colour: "),
            ("[antivirus.clamd]\ncolour = 1", "f:3: antivirus.clamd.colour: unknown field"),
            ("[antivirus.clamd]\nscan_timeout = 5", "f:3: antivirus.clamd.scan_timeout: "),
            ("[antivirus.x]\ngroup = \"primary\"", "f:2: antivirus.x.kind: "),
            ("[antivirus.x]\nkind = \"magic\"", "f:3: antivirus.x.kind: "),
            ("[antivirus.clamd]\ngroup = \"backup\"", "f:3: antivirus.clamd.group: there is no primary"),
            ("originals = [\"letters\"]", "f:2: antivirus.originals"),
            ("originals = \"mail\"", "f:2: antivirus.originals"),
            ("originals = [\"mail\", \"mail\"]", "f:2: antivirus.originals: names the same twice"),
            ("virus_scores = [{ name = \"\", score = 1.0 }]", "f:2: antivirus.virus_scores: "),
            ("[antivirus.\"a b\"]\nkind = \"clamd\"", "f:2: antivirus.a b: a name of an engine"),
        ] {
            let mistakes = read(&format!("[antivirus]\n{lines}\n")).unwrap_err();
            assert!(mistakes.starts_with(told), "{lines}: {mistakes}");
        }
    }
}
