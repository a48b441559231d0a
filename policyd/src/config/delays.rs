// SPDX-License-Identifier: GPL-3.0-or-later
//! `greylist.delays`: other delays for some recipients.

use std::fmt;
use std::str::FromStr;

use common::lookup::{AddressTable, ListFile};
use common::units::Period;
use serde::{Deserialize, Serialize};

/// One delay, for these recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayRule {
    /// Domains, addresses, or list files of them.
    pub recipients: Vec<Recipients>,
    /// From the first try until a retry passes.
    pub delay: Period,
}

/// Some recipients: an entry as in a list file, or a file of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Recipients {
    /// One entry.
    Entry(String),
    /// A list file: begins with `/`, or names its format.
    File(ListFile),
}

impl DelayRule {
    /// The list files.
    pub fn files(&self) -> impl Iterator<Item = &ListFile> {
        self.recipients.iter().filter_map(|recipients| match recipients {
            Recipients::File(file) => Some(file),
            Recipients::Entry(_) => None,
        })
    }

    /// The entries that stand in the configuration itself.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.recipients.iter().filter_map(|recipients| match recipients {
            Recipients::Entry(entry) => Some(entry.as_str()),
            Recipients::File(_) => None,
        })
    }

    /// What is wrong with the entries, if anything.
    pub(super) fn mistake(&self) -> Option<String> {
        if self.recipients.is_empty() {
            return Some("needs recipients".to_owned());
        }
        let (_, wrong) = AddressTable::from_entries("", self.entries());
        wrong.iter().next().map(|mistake| mistake.message.clone())
    }
}

impl TryFrom<String> for Recipients {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_pattern = text.len() > 1 && text.starts_with('/') && text.ends_with('/');
        match text.contains('/') && !is_pattern {
            true => ListFile::from_str(&text).map(Self::File),
            false => Ok(Self::Entry(text)),
        }
    }
}

impl From<Recipients> for String {
    fn from(recipients: Recipients) -> Self {
        recipients.to_string()
    }
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(entry) => f.write_str(entry),
            Self::File(file) => file.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_entries_are_told_apart() {
        for (text, file) in [
            ("example.org", false),
            ("ann@example.org", false),
            ("/^list-/", false),
            ("/etc/octroi/slow", true),
            ("postgrey:/etc/postgrey/whitelist_recipients", true),
        ] {
            let recipients = Recipients::try_from(text.to_owned()).unwrap();
            assert_eq!(matches!(recipients, Recipients::File(_)), file, "{text}");
            assert_eq!(String::from(recipients), text);
        }
        assert!(Recipients::try_from("what:/x".to_owned()).is_err());
    }
}
