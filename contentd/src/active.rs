// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[active]`: what follows when a document does something by itself. Pure.
//!
//! Each kind is a finding with a name. Its option, the word with `_` for `-`, says what it is worth: points, which make it a sign of spam, or
//! `"banned"`, which makes the document a banned file.

use crate::findings::{Banned, Finding, FindingKind, Symbol};
use crate::points::{self, Points, PointsOrWord};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What one kind of active content leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// A sign of spam with so many points; with none it is a mere note.
    Score(Points),
    /// The document is a banned file.
    Banned,
}

impl PointsOrWord for Worth {
    const EXPECTED: &'static str = "a score from 0 to 1000 or \"banned\"";

    fn points(points: Points) -> Worth {
        Worth::Score(points)
    }

    fn word(word: &str) -> Option<Worth> {
        (word == "banned").then_some(Worth::Banned)
    }
}

impl Serialize for Worth {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Worth::Score(points) => points::write(points, out),
            Worth::Banned => out.serialize_str("banned"),
        }
    }
}

impl<'de> Deserialize<'de> for Worth {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Worth, D::Error> {
        points::read(input)
    }
}

/// The kinds, their options, what they are worth when nothing is configured, and what they mean.
macro_rules! active {
    ($($name:ident $kind:ident = $thousandths:literal, $meaning:literal;)+) => {
        /// Section `[active]`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ActiveSettings {
            $(#[doc = concat!("What [`FindingKind::", stringify!($kind), "`] is worth.")] pub $name: Worth,)+
        }

        impl Default for ActiveSettings {
            fn default() -> ActiveSettings {
                ActiveSettings { $($name: Worth::Score(Points($thousandths)),)+ }
            }
        }

        impl ActiveSettings {
            /// What a finding of this kind is worth, and what it means; none when the kind is no active content.
            fn of(&self, kind: FindingKind) -> Option<(Worth, &'static str)> {
                match kind {
                    $(FindingKind::$kind => Some((self.$name, $meaning)),)+
                    _ => None,
                }
            }
        }

        /// The kinds with their options.
        #[cfg(test)]
        const OPTIONS: &[(&str, FindingKind)] = &[$((stringify!($name), FindingKind::$kind),)+];
    };
}

active! {
    macros Macros = 500, "a document has macros";
    macro_autorun MacroAutorun = 2000, "a macro runs by itself";
    macro_calls MacroCalls = 2000, "a macro reaches out of its document";
    excel4_macros Excel4Macros = 2000, "a workbook has Excel 4 macros";
    dde Dde = 3000, "a document starts or asks another program (DDE)";
    remote_template RemoteTemplate = 3000, "a document fetches a part of itself from elsewhere";
    pdf_javascript PdfJavascript = 500, "a PDF has scripts";
    pdf_open_action PdfOpenAction = 0, "a PDF does something when it is opened";
    pdf_launch PdfLaunch = 3000, "a PDF starts a program";
    pdf_links PdfLinks = 0, "a PDF has links";
}

impl ActiveSettings {
    /// The signs of spam, each kind once, and the banned files.
    pub fn judge(&self, found: &[Finding]) -> (Vec<Symbol>, Vec<Banned>) {
        let (mut symbols, mut banned): (Vec<Symbol>, Vec<Banned>) = (Vec::new(), Vec::new());
        for finding in found {
            let name = finding.kind.word();
            match self.of(finding.kind) {
                Some((Worth::Banned, _)) => banned.push(Banned {
                    rule: format!("active {name}"),
                    part: finding.part.clone(),
                    matched: finding.detail.clone(),
                }),
                Some((Worth::Score(points), meaning))
                    if points > Points(0) && !symbols.iter().any(|symbol| symbol.name == name) =>
                {
                    let (name, description) = (name.to_owned(), meaning.to_owned());
                    symbols.push(Symbol { name, score: points.value(), description });
                }
                _ => {}
            }
        }
        (symbols, banned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_the_word_of_its_finding() {
        for (option, kind) in OPTIONS {
            assert_eq!(option.replace('_', "-"), kind.word());
            assert!(!kind.is_ambiguity() && kind.category().is_none(), "{kind:?}");
        }
    }

    #[test]
    fn points_or_banned() {
        let settings: ActiveSettings = toml::from_str("macros = 0\nmacro_autorun = \"banned\"\ndde = 1.5").unwrap();
        let found = [
            FindingKind::Macros,
            FindingKind::MacroAutorun,
            FindingKind::Dde,
            FindingKind::Dde,
            FindingKind::Encrypted,
        ];
        let found = found.map(|kind| Finding::new(kind, "2", "x"));
        let (symbols, banned) = settings.judge(&found);
        let symbols: Vec<_> = symbols.iter().map(|symbol| (symbol.name.as_str(), symbol.score)).collect();
        assert_eq!(symbols, [("dde", 1.5)]);
        assert_eq!(banned, [Banned { rule: "active macro-autorun".into(), part: "2".into(), matched: "x".into() }]);
        for wrong in ["dde = -1", "dde = \"reject\"", "dde = true", "x = 1"] {
            assert!(toml::from_str::<ActiveSettings>(wrong).is_err(), "{wrong}");
        }
    }
}
