// SPDX-License-Identifier: GPL-3.0-or-later
//! `[list.NAME]`: named lists that rules ask with `in_list(x, "NAME")`. Whether they are of addresses or of clients follows from what is
//! looked for in them, so their entries are checked where a rule uses them.

use std::collections::BTreeMap;

use common::config::{Mistakes, Source};
use common::lookup::ListFile;
use serde::{Deserialize, Serialize};

/// Most named lists.
const MOST: usize = 500;

/// One named list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListSettings {
    /// Its files, in the formats of the access lists.
    pub files: Vec<ListFile>,
    /// Its entries beside those of the files.
    pub entries: Vec<String>,
}

/// All named lists, by name.
pub(super) fn read(source: &Source, mistakes: &mut Mistakes) -> BTreeMap<String, ListSettings> {
    let lists: BTreeMap<String, ListSettings> = source.section("list", mistakes);
    // The environment can name lower case only, and so that everybody writes the same.
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    for (name, list) in &lists {
        let mut wrong = |message: &str| mistakes.push(source.mistake(&format!("list.{name}"), message));
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            wrong("the name of a list has up to 64 lower-case letters, digits, _ and -");
        }
        if list.files.is_empty() && list.entries.is_empty() {
            wrong("needs files or entries");
        }
    }
    if lists.len() > MOST {
        mistakes.push(source.mistake("list", format!("there are more than {MOST} named lists")));
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_names_files_and_entries() {
        let told = |text: &str| {
            let mut mistakes = Mistakes::new();
            let lists = read(&Source::from_text("f", text).unwrap(), &mut mistakes);
            (lists, mistakes.to_string())
        };
        let (lists, mistakes) =
            told("[list.partners]\nfiles = ['/etc/x']\n[list.own-hosts]\nentries = ['192.0.2.1']\n");
        assert_eq!((lists.len(), mistakes.as_str()), (2, ""));
        assert_eq!(lists["own-hosts"].entries, ["192.0.2.1"]);
        for (text, mistake) in [
            ("[list.Partners]\nentries = ['x.test']", "f:1: list.Partners: the name of a list"),
            ("[list.empty]", "f:1: list.empty: needs files or entries"),
            ("[list.x]\nentry = ['a']", "f:2: list.x.entry: unknown field"),
            ("[list.x]\nfiles = ['nowhere:/x']", "f:2: list.x.files: "),
        ] {
            let mistakes = told(text).1;
            assert!(mistakes.starts_with(mistake), "{text}: {mistakes}");
        }
    }
}
