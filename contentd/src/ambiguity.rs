// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[ambiguity]`: what follows when programs may read a message in different ways. Pure.
//!
//! All readings are scanned in any case. Besides, each kind of ambiguity adds to a score or is what an action says. Which
//! findings are ambiguities is one list here; the option of each is its word with `_` for `-`.

use crate::findings::{FindingKind, Findings};
use crate::points::{self, Points, PointsOrWord};
use crate::verdict::Destiny;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What one kind of ambiguity leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// So much is added to the score of the message; nothing for a mere note.
    Score(Points),
    /// The message is in category "bad-header".
    BadHeader,
    /// The message is in category "unchecked" and `destiny.ambiguous` holds.
    Unchecked,
    /// The message is in category "unchecked" and this becomes of it.
    Destiny(Destiny),
}

impl Treatment {
    const fn score(thousandths: i64) -> Treatment {
        Treatment::Score(Points(thousandths))
    }
}

impl PointsOrWord for Treatment {
    const EXPECTED: &'static str = "a score from 0 to 1000, \"bad-header\", \"unchecked\", \"reject\", \"tempfail\", \"quarantine\" or \"discard\"";

    fn points(points: Points) -> Treatment {
        Treatment::Score(points)
    }

    fn word(word: &str) -> Option<Treatment> {
        Some(match word {
            "bad-header" => Treatment::BadHeader,
            "unchecked" => Treatment::Unchecked,
            "reject" => Treatment::Destiny(Destiny::Reject),
            "tempfail" => Treatment::Destiny(Destiny::Tempfail),
            "quarantine" => Treatment::Destiny(Destiny::Quarantine),
            "discard" => Treatment::Destiny(Destiny::Discard),
            _ => return None,
        })
    }
}

impl Serialize for Treatment {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Treatment::Score(points) => points::write(points, out),
            Treatment::BadHeader => out.serialize_str("bad-header"),
            Treatment::Unchecked => out.serialize_str("unchecked"),
            Treatment::Destiny(destiny) => destiny.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for Treatment {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Treatment, D::Error> {
        points::read(input)
    }
}

/// The kinds, their options, and what they lead to when nothing is configured.
macro_rules! ambiguities {
    ($($name:ident $kind:ident = $default:expr;)+) => {
        /// Section `[ambiguity]`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct AmbiguitySettings {
            /// From this score on the message is in category "unchecked" and `destiny.ambiguous` holds; 0: never.
            #[serde(deserialize_with = "limit", serialize_with = "points::write")]
            pub limit: Points,
            $(#[doc = concat!("What [`FindingKind::", stringify!($kind), "`] leads to.")] pub $name: Treatment,)+
        }

        impl Default for AmbiguitySettings {
            fn default() -> AmbiguitySettings {
                AmbiguitySettings { limit: Points(6000), $($name: $default,)+ }
            }
        }

        impl AmbiguitySettings {
            /// What a finding of this kind leads to; none when the kind is no ambiguity.
            pub fn of(&self, kind: FindingKind) -> Option<Treatment> {
                match kind {
                    $(FindingKind::$kind => Some(self.$name),)+
                    _ => None,
                }
            }
        }

        /// The kinds with their options.
        #[cfg(test)]
        const OPTIONS: &[(&str, FindingKind)] = &[$((stringify!($name), FindingKind::$kind),)+];
    };
}

const BAD: Treatment = Treatment::BadHeader;
const NOTE: Treatment = Treatment::score(0);

ambiguities! {
    readings_differ ReadingsDiffer = Treatment::Unchecked;
    duplicate_content_type DuplicateContentType = BAD;
    duplicate_content_transfer_encoding DuplicateEncoding = BAD;
    duplicate_content_disposition DuplicateDisposition = BAD;
    several_boundaries SeveralBoundaries = BAD;
    boundary_missing BoundaryMissing = BAD;
    boundary_unused BoundaryUnused = BAD;
    guessed_boundary GuessedBoundary = Treatment::score(3000);
    longer_delimiter LongerDelimiter = Treatment::score(1000);
    lone_cr_delimiter LoneCrDelimiter = Treatment::score(4000);
    unclosed_multipart Unclosed = NOTE;
    parts_after_close PartsAfterClose = Treatment::score(2000);
    encoded_multipart EncodedMultipart = Treatment::score(4000);
    data_in_preamble DataInPreamble = Treatment::score(3000);
    data_in_epilogue DataInEpilogue = Treatment::score(3000);
    header_syntax HeaderSyntax = BAD;
    header_blank_line HeaderBlankLine = BAD;
    header_unfinished HeaderUnfinished = NOTE;
    blank_before_colon BlankBeforeColon = Treatment::score(1000);
    odd_parameter OddParameter = Treatment::score(1000);
    names_differ NamesDiffer = Treatment::score(4000);
    encoding_junk EncodingJunk = Treatment::score(500);
    data_after_padding DataAfterPadding = Treatment::score(1000);
    undeclared_encoding UndeclaredEncoding = Treatment::score(2000);
}

fn limit<'de, D: Deserializer<'de>>(input: D) -> Result<Points, D::Error> {
    match Treatment::deserialize(input)? {
        Treatment::Score(points) => Ok(points),
        _ => Err(D::Error::custom("must be a number; 0: never")),
    }
}

impl AmbiguitySettings {
    /// The scores of the ambiguities that a message has, each kind once, in their order.
    pub fn scores(&self, findings: &Findings) -> Vec<(FindingKind, Points)> {
        let mut scores: Vec<(FindingKind, Points)> = Vec::new();
        for finding in &findings.found {
            if let Some(Treatment::Score(points)) = self.of(finding.kind)
                && points > Points(0)
                && !scores.iter().any(|(kind, _)| *kind == finding.kind)
            {
                scores.push((finding.kind, points));
            }
        }
        scores
    }

    /// Their sum, when it reaches the limit.
    pub fn over_limit(&self, findings: &Findings) -> Option<Points> {
        let sum = Points(self.scores(findings).iter().map(|(_, points)| points.0).sum());
        (self.limit > Points(0) && sum >= self.limit).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Finding;

    #[test]
    fn each_option_is_the_word_of_its_finding() {
        for (option, kind) in OPTIONS {
            assert_eq!(option.replace('_', "-"), kind.word());
            assert!(kind.is_ambiguity(), "{kind:?}");
        }
    }

    #[test]
    fn options_are_scores_or_actions() {
        let settings: AmbiguitySettings =
            toml::from_str("limit = 2.5\nunclosed_multipart = 1\nnames_differ = \"reject\"\nheader_syntax = 0")
                .unwrap();
        assert_eq!(settings.limit, Points(2500));
        assert_eq!(settings.of(FindingKind::Unclosed), Some(Treatment::Score(Points(1000))));
        assert_eq!(settings.of(FindingKind::NamesDiffer), Some(Treatment::Destiny(Destiny::Reject)));
        assert_eq!(settings.of(FindingKind::HeaderSyntax), Some(NOTE));
        assert_eq!(settings.of(FindingKind::OverLimits), None);
        for wrong in
            ["names_differ = -1", "names_differ = \"maybe\"", "names_differ = true", "limit = \"reject\"", "x = 1"]
        {
            assert!(toml::from_str::<AmbiguitySettings>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_kind_counts_once() {
        let mut findings = Findings::default();
        for part in ["1", "2"] {
            findings.add(Finding::new(FindingKind::NamesDiffer, part, ""));
        }
        findings.add(Finding::new(FindingKind::Unclosed, "", ""));
        let settings = AmbiguitySettings::default();
        assert_eq!(settings.scores(&findings), [(FindingKind::NamesDiffer, Points(4000))]);
        assert_eq!(settings.over_limit(&findings), None);
        findings.add(Finding::new(FindingKind::PartsAfterClose, "", ""));
        assert_eq!(settings.over_limit(&findings), Some(Points(6000)));
        assert_eq!(AmbiguitySettings { limit: Points(0), ..settings }.over_limit(&findings), None);
    }
}
