// SPDX-License-Identifier: GPL-3.0-or-later
//! Postfix' tables and what is looked up in them: a table is read or refused with the numbers of its lines, and a search ends, whatever the
//! patterns. The first line of the input is looked up in the table of the rest.

#![no_main]

use contentd::checks::{Action, Dialect, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let at = rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (line, text) = rest.split_at(at);
    let text = String::from_utf8_lossy(text);
    let dialect = if first % 2 == 0 { Dialect::Regexp } else { Dialect::Pcre };
    match Table::parse("table", &text, dialect) {
        Ok(table) => {
            for (result, number) in table.results() {
                assert!((1..=text.lines().count()).contains(&number), "line {number}");
                let _ = Action::parse(&result);
            }
            if let Some(found) = table.find(line) {
                assert!(table.results().any(|(_, number)| number == found.line), "{found:?}");
            }
        }
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                let number = mistake.origin.strip_prefix("table:").and_then(|number| number.parse().ok());
                assert!(number.is_some_and(|number| (1..=text.lines().count().max(1)).contains(&number)), "{mistake}");
            }
        }
    }
});
