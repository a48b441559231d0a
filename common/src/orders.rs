// SPDX-License-Identifier: GPL-3.0-or-later
//! What policyd can order contentd to do with a message, and the words for it. Behind a proxy filter Postfix itself does not carry
//! out HOLD, REDIRECT, BCC and DISCARD (it logs them and lets the mail go on), so contentd does.
//!
//! Pure. How an order gets from one daemon to the other is in `handover`. access(5) for what Postfix means by the same words.

use std::fmt;
use std::str::FromStr;

/// The longest address that an order may name: a path of RFC 5321 section 4.5.3.1.3.
const MAX_ADDRESS: usize = 254;

/// One order. Like the actions of access(5) it is about the whole message, whichever recipient it was given for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// Accept the message and do not pass it on.
    Discard,
    /// Refuse the message when it has an attachment.
    NoAttachments,
    /// Put the message into Postfix's hold queue.
    Hold,
    /// Send the message to this address in place of all its recipients.
    Redirect(OrderAddress),
    /// Send the message to this address, too.
    Bcc(OrderAddress),
}

impl Order {
    /// The words of all orders.
    pub const WORDS: [&str; 5] = ["discard", "no_attachments", "hold", "redirect", "bcc"];

    /// The word for configuration, log and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::NoAttachments => "no_attachments",
            Self::Hold => "hold",
            Self::Redirect(_) => "redirect",
            Self::Bcc(_) => "bcc",
        }
    }

    /// The address that the order names.
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::Redirect(address) | Self::Bcc(address) => Some(address.as_str()),
            Self::Discard | Self::NoAttachments | Self::Hold => None,
        }
    }
}

/// `hold`, `redirect=box@example.org`: what [`Order::from_str`] reads.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            None => f.write_str(self.word()),
            Some(address) => write!(f, "{}={address}", self.word()),
        }
    }
}

/// Why a text is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A word that does not exist.
    #[error("{0:?} is no order; there are {words}", words = Order::WORDS.join(", "))]
    Unknown(String),
    /// `redirect` or `bcc` without an address.
    #[error("{0} needs an address: {0}=someone@example.org")]
    AddressMissing(&'static str),
    /// An order that takes no address has one.
    #[error("{0} takes no address")]
    AddressTooMuch(&'static str),
    /// What is given is no address that we pass on.
    #[error("{0:?} is not a plain address such as someone@example.org")]
    Address(String),
}

impl FromStr for Order {
    type Err = OrderError;

    /// Reads `hold`, `redirect someone@example.org` or `redirect=someone@example.org`.
    fn from_str(text: &str) -> Result<Self, OrderError> {
        let text = text.trim();
        let (word, argument) = match text.split_once(|c: char| c == '=' || c.is_whitespace()) {
            Some((word, argument)) => (word, Some(argument.trim())),
            None => (text, None),
        };
        let plain = |order: Self| match argument {
            None => Ok(order),
            Some(_) => Err(OrderError::AddressTooMuch(order.word())),
        };
        let address = |word| argument.ok_or(OrderError::AddressMissing(word)).and_then(str::parse);
        match word {
            "discard" => plain(Self::Discard),
            "no_attachments" => plain(Self::NoAttachments),
            "hold" => plain(Self::Hold),
            "redirect" => address("redirect").map(Self::Redirect),
            "bcc" => address("bcc").map(Self::Bcc),
            _ => Err(OrderError::Unknown(word.to_owned())),
        }
    }
}

/// An address that can stand in a header line, in a reply to Postfix and in RCPT without any quoting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderAddress(String);

impl OrderAddress {
    /// The address, without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OrderAddress {
    type Err = OrderError;

    fn from_str(text: &str) -> Result<Self, OrderError> {
        let wrong = || OrderError::Address(text.to_owned());
        // An atom each (RFC 5321 section 4.1.2): nothing that would have to be quoted anywhere.
        let atoms = |part: &str, more: &[u8]| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
            part.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(good))
        };
        let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
        let good = atoms(local, b"!#$%&'*+-/=?^_`{|}~") && atoms(domain, b"-") && text.len() <= MAX_ADDRESS;
        if good { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_are_read_and_written() {
        for (text, written) in [
            ("hold", "hold"),
            (" discard ", "discard"),
            ("no_attachments", "no_attachments"),
            ("redirect box@example.org", "redirect=box@example.org"),
            ("redirect=box+a=b@example.org", "redirect=box+a=b@example.org"),
            ("bcc  archive@mx-1.example", "bcc=archive@mx-1.example"),
        ] {
            assert_eq!(text.parse::<Order>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_order_is_told() {
        for (text, told) in [
            ("", "\"\" is no order; there are discard, no_attachments, hold, redirect, bcc"),
            ("hold now", "hold takes no address"),
            ("redirect", "redirect needs an address: redirect=someone@example.org"),
            ("bcc someone", "\"someone\" is not a plain address such as someone@example.org"),
            ("filter x", "\"filter\" is no order; there are discard, no_attachments, hold, redirect, bcc"),
        ] {
            assert_eq!(text.parse::<Order>().unwrap_err().to_string(), told);
        }
        for address in ["<a@b>", "a b@c", "a@b;c", "\"a\"@b", "@b", "a@", "a@b@", "a..b@c", "jörg@b", "a@[192.0.2.1]"]
        {
            assert!(address.parse::<OrderAddress>().is_err(), "{address}");
        }
        assert!(format!("{}@b", "a".repeat(300)).parse::<OrderAddress>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "(hold|bcc|redirect|x)?[ =]?[ -~]{0,40}") {
            if let Ok(order) = text.parse::<Order>() {
                prop_assert_eq!(order.to_string().parse::<Order>(), Ok(order.clone()));
                prop_assert!(order.to_string().bytes().all(|byte| byte.is_ascii_graphic() && byte != b';'));
            }
        }
    }
}
