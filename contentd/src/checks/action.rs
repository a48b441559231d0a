// SPDX-License-Identifier: GPL-3.0-or-later
//! Actions of Postfix' header_checks(5): the words, what may stand behind them, and which cannot be carried out here.

use common::orders::Order;

/// What is done with a line that a pattern fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The message is refused.
    Reject {
        /// Enhanced status code (RFC 3463).
        status: String,
        /// What the client is told.
        text: String,
    },
    /// The message is accepted and goes nowhere.
    Discard(String),
    /// An order about the whole message: hold, redirect, bcc.
    Order(Order),
    /// The line goes; logged when there is a text.
    Remove(Option<String>),
    /// The line is replaced.
    Replace(String),
    /// A line is put before it.
    Prepend(String),
    /// Something is logged: the word, and the text.
    Log(&'static str, String),
    /// No more checks of this message; logged.
    Pass(String),
    /// Nothing.
    Dunno,
}

/// Why a text is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// A word that header_checks(5) does not know.
    #[error("{0:?} is no action of header_checks(5)")]
    Unknown(String),
    /// Nothing stands behind the pattern.
    #[error("there is no action behind the pattern")]
    Missing,
    /// The message goes back to Postfix in the same session; another filter cannot be put in between.
    #[error("FILTER cannot be carried out by contentd; use it in Postfix, on the smtpd behind contentd")]
    Filter,
    /// REDIRECT or BCC without a usable address.
    #[error("{0}")]
    Address(String),
    /// REPLACE and PREPEND of headers need a name and a colon.
    #[error("{0} needs a text")]
    TextMissing(&'static str),
}

impl Action {
    /// Reads an action, its word in any case.
    pub fn parse(text: &str) -> Result<Action, ActionError> {
        let text = text.trim();
        let (word, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
        let rest = rest.trim_start();
        let own = || rest.to_owned();
        let needed = |word| if rest.is_empty() { Err(ActionError::TextMissing(word)) } else { Ok(own()) };
        let address = |word: &str| format!("{word} {rest}").parse().map(Action::Order);
        Ok(match word.to_ascii_uppercase().as_str() {
            "" => return Err(ActionError::Missing),
            "REJECT" => {
                let (status, text) = status(rest);
                let text = if text.is_empty() { "message content rejected" } else { text };
                Action::Reject { status: status.to_owned(), text: text.to_owned() }
            }
            "DISCARD" => Action::Discard(own()),
            "HOLD" => Action::Order(Order::Hold),
            "REDIRECT" => address("redirect").map_err(|error| ActionError::Address(error.to_string()))?,
            "BCC" => address("bcc").map_err(|error| ActionError::Address(error.to_string()))?,
            "IGNORE" => Action::Remove(None),
            "STRIP" => Action::Remove(Some(own())),
            "REPLACE" => Action::Replace(needed("REPLACE")?),
            "PREPEND" => Action::Prepend(needed("PREPEND")?),
            "WARN" => Action::Log("warn", own()),
            "INFO" => Action::Log("info", own()),
            "PASS" => Action::Pass(own()),
            "DUNNO" | "OK" => Action::Dunno,
            "FILTER" => return Err(ActionError::Filter),
            _ => return Err(ActionError::Unknown(word.chars().take(60).collect())),
        })
    }
}

/// An enhanced status code of class 4 or 5 at the start of a text, else 5.7.1; and the rest.
fn status(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
    let fields: Vec<&str> = first.split('.').collect();
    let numbers =
        fields.iter().all(|field| (1..=3).contains(&field.len()) && field.bytes().all(|b| b.is_ascii_digit()));
    let is_status = fields.len() == 3 && numbers && matches!(fields[0], "4" | "5");
    if is_status { (first, rest.trim_start()) } else { ("5.7.1", text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_and_what_stands_behind_them() {
        let reject = |status: &str, text: &str| Action::Reject { status: status.into(), text: text.into() };
        for (text, action) in [
            ("REJECT", reject("5.7.1", "message content rejected")),
            ("reject 5.7.9 No thanks", reject("5.7.9", "No thanks")),
            ("REJECT 4.7.1 later", reject("4.7.1", "later")),
            ("REJECT 2.0.0 x", reject("5.7.1", "2.0.0 x")),
            ("DISCARD spam", Action::Discard("spam".into())),
            ("HOLD look at it", Action::Order(Order::Hold)),
            ("IGNORE", Action::Remove(None)),
            ("STRIP  gone", Action::Remove(Some("gone".into()))),
            ("REPLACE X: y", Action::Replace("X: y".into())),
            ("PREPEND X: y", Action::Prepend("X: y".into())),
            ("WARN a b", Action::Log("warn", "a b".into())),
            ("Info", Action::Log("info", String::new())),
            ("PASS", Action::Pass(String::new())),
            ("DUNNO", Action::Dunno),
            ("OK", Action::Dunno),
        ] {
            assert_eq!(Action::parse(text), Ok(action), "{text}");
        }
        assert_eq!(
            Action::parse("REDIRECT a@b.test").map(|action| format!("{action:?}").contains("a@b.test")),
            Ok(true)
        );
    }

    #[test]
    fn what_is_no_action() {
        assert_eq!(Action::parse("FILTER smtp:[127.0.0.1]:10027"), Err(ActionError::Filter));
        assert_eq!(Action::parse(""), Err(ActionError::Missing));
        assert_eq!(Action::parse("REPLACE"), Err(ActionError::TextMissing("REPLACE")));
        assert!(matches!(Action::parse("REJCT x"), Err(ActionError::Unknown(_))));
        assert!(matches!(Action::parse("BCC nobody"), Err(ActionError::Address(_))));
    }
}
