// SPDX-License-Identifier: GPL-3.0-or-later
//! The file that a witness leaves: one line per fact, appended and on the disk before it counts. Lines are pure; the file is locked by its witness
//! for as long as that may still write.
//!
//! `sent ID KEY...` the dot may have been sent; `delivered ID REPLY`, `refused ID` how that ended; `inspected ID KEY` was under inspection;
//! A line that was cut off by a crash of the machine is ignored.

use std::collections::HashMap;

use crate::identity::Key;
use crate::quarantine::file::hex;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The final dot may have been sent.
    Sent {
        /// The message's id.
        id: String,
        /// Of the message for each of its recipients.
        keys: Vec<Key>,
    },
    /// The next hop has it.
    Delivered {
        /// The message's id.
        id: String,
        /// What the next hop said.
        reply: String,
    },
    /// The next hop does not have it.
    Refused {
        /// The message's id.
        id: String,
    },
    /// The message was being inspected.
    Inspected {
        /// The message's id.
        id: String,
        /// Of the message.
        key: Key,
    },
}

impl Fact {
    /// As a line.
    pub fn line(&self) -> String {
        match self {
            Fact::Sent { id, keys } => {
                let keys: String = keys.iter().map(|key| format!(" {}", hex(key))).collect();
                format!("sent {id}{keys}\n")
            }
            Fact::Delivered { id, reply } => {
                let reply: String = reply.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                format!("delivered {id} {reply}\n")
            }
            Fact::Refused { id } => format!("refused {id}\n"),
            Fact::Inspected { id, key } => format!("inspected {id} {}\n", hex(key)),
        }
    }

    /// Reads a line without its end.
    pub fn read(line: &str) -> Option<Fact> {
        let (word, rest) = line.split_once(' ')?;
        let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let id = id.to_owned();
        Some(match word {
            "sent" => Fact::Sent { id, keys: rest.split_whitespace().map(key).collect::<Option<_>>()? },
            "delivered" => Fact::Delivered { id, reply: rest.to_owned() },
            "refused" => Fact::Refused { id },
            "inspected" => Fact::Inspected { id, key: key(rest)? },
            _ => return None,
        })
    }
}

/// A key from its hexadecimal digits.
pub fn key(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

/// What a file says in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The next hop has these: id, keys, reply.
    pub delivered: Vec<(String, Vec<Key>, String)>,
    /// Nobody knows, or not yet: id and keys.
    pub open: Vec<(String, Vec<Key>)>,
    /// Were under inspection: id and key.
    pub inspected: Vec<(String, Key)>,
}

/// Reads a file.
pub fn findings(text: &str) -> Findings {
    let (mut findings, mut sent) = (Findings::default(), HashMap::new());
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for fact in whole.lines().filter_map(Fact::read) {
        match fact {
            Fact::Sent { id, keys } => drop(sent.insert(id, keys)),
            Fact::Delivered { id, reply } => {
                if let Some(keys) = sent.remove(&id) {
                    findings.delivered.push((id, keys, reply));
                }
            }
            Fact::Refused { id } => drop(sent.remove(&id)),
            Fact::Inspected { id, key } => findings.inspected.push((id, key)),
        }
    }
    findings.open = sent.into_iter().collect();
    findings.open.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_come_back_and_add_up() {
        let id = |id: &str| id.to_owned();
        let facts = [
            Fact::Sent { id: id("1A"), keys: vec![[1; 16], [0xab; 16]] },
            Fact::Sent { id: id("1B"), keys: vec![[2; 16]] },
            Fact::Sent { id: id("1C"), keys: vec![] },
            Fact::Inspected { id: id("1D"), key: [9; 16] },
            Fact::Delivered { id: id("1A"), reply: id("250 2.0.0 Ok: queued as 4X") },
            Fact::Refused { id: id("1C") },
        ];
        let text: String = facts.iter().map(Fact::line).collect();
        assert_eq!(text.lines().filter_map(Fact::read).collect::<Vec<_>>(), facts);
        let expected = Findings {
            delivered: vec![(id("1A"), vec![[1; 16], [0xab; 16]], id("250 2.0.0 Ok: queued as 4X"))],
            open: vec![(id("1B"), vec![[2; 16]])],
            inspected: vec![(id("1D"), [9; 16])],
        };
        assert_eq!(findings(&text), expected);
        assert_eq!(findings(&format!("{text}delivered 1B 25")), expected, "a line without its end does not count");
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC*\n?", more in "(sent|delivered|inspected) [0-9a-f ]*\n") {
            findings(&text);
            findings(&more);
        }

        #[test]
        fn a_reply_cannot_make_a_line(reply: String) {
            let line = Fact::Delivered { id: "1".into(), reply }.line();
            prop_assert_eq!(line.matches('\n').count(), 1);
        }
    }
}
