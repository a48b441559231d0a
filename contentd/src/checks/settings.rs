// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[checks]`: which of Postfix' tables are applied, named as in main.cf.

use super::Dialect;
use common::units::Size;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// A table: `regexp:/etc/postfix/header_checks` or `pcre:/...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The language of its patterns.
    pub dialect: Dialect,
    /// The file.
    pub path: PathBuf,
}

impl Serialize for TableFile {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let word = if self.dialect == Dialect::Pcre { "pcre" } else { "regexp" };
        out.serialize_str(&format!("{word}:{}", self.path.display()))
    }
}

impl<'de> Deserialize<'de> for TableFile {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<TableFile, D::Error> {
        let text = String::deserialize(input)?;
        let wrong = || serde::de::Error::custom(format!("{text:?} is not regexp:/path or pcre:/path"));
        let (word, path) = text.split_once(':').ok_or_else(wrong)?;
        let dialect = match word {
            "regexp" => Dialect::Regexp,
            "pcre" => Dialect::Pcre,
            _ => return Err(wrong()),
        };
        if !path.starts_with('/') {
            return Err(wrong());
        }
        Ok(TableFile { dialect, path: PathBuf::from(path) })
    }
}

/// Section `[checks]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckSettings {
    /// For the headers of the message.
    pub header_checks: Vec<TableFile>,
    /// For MIME headers everywhere; absent: those of `header_checks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_header_checks: Option<Vec<TableFile>>,
    /// For the headers of attached messages; absent: those of `header_checks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested_header_checks: Option<Vec<TableFile>>,
    /// For all other lines.
    pub body_checks: Vec<TableFile>,
    /// How much of each part `body_checks` sees.
    pub body_checks_size_limit: Size,
}

impl Default for CheckSettings {
    fn default() -> CheckSettings {
        CheckSettings {
            header_checks: Vec::new(),
            mime_header_checks: None,
            nested_header_checks: None,
            body_checks: Vec::new(),
            body_checks_size_limit: Size(51_200),
        }
    }
}
