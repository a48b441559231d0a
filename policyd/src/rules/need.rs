// SPDX-License-Identifier: GPL-3.0-or-later
//! What expressions ask for that is not in the request and has to be looked up.
//!
//! Pure: what it is, not how it is found; that is in `checks::rules`. A look-up is made when a rule cannot be decided without it, once
//! per request.

use super::attribute::{Nature, Words};
use super::expression::{Address, Text};
use crate::limits::key::mail_value;
use crate::request::PolicyRequest;

/// Most different look-ups in all rules together.
pub const MAX_NEEDS: usize = 64;

/// A word that is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The result of SPF. temperror is none: it says that the look-up failed.
    Spf,
    /// What the name of the client's address is worth.
    ReverseName,
}

impl Word {
    /// The words that it can be.
    pub fn words(self) -> Words {
        match self {
            Self::Spf => &["none", "neutral", "pass", "fail", "softfail", "permerror"],
            Self::ReverseName => &["none", "unmatched", "dynamic", "confirmed"],
        }
    }
}

/// A part of a key that a rule gives.
#[derive(Debug, Clone)]
pub enum KeyPart {
    /// A text of the request or a constant.
    Text(Text, Nature),
    /// An address of the request.
    Address(Address),
}

impl KeyPart {
    /// Its value for a request, as it stands in keys; none when there is none.
    pub fn value(&self, request: &PolicyRequest<'_>) -> Option<String> {
        match self {
            Self::Text(text, nature) => match text.of_request(request)? {
                "" => None,
                text if *nature == Nature::Mail => mail_value(text),
                text => Some(text.to_owned()),
            },
            Self::Address(address) => address.of_request(request).map(|address| address.to_string()),
        }
    }
}

/// How many units a bucket of a limit holds.
#[derive(Debug, Clone)]
pub struct Count {
    /// Name of the limit.
    pub limit: String,
    /// The key, where it is not that of the request.
    pub key: Option<Vec<KeyPart>>,
    /// As it is written: the same text asks the same.
    pub told: String,
}

impl PartialEq for Count {
    fn eq(&self, other: &Self) -> bool {
        self.told == other.told
    }
}

/// Something to look up.
#[derive(Debug, Clone, PartialEq)]
pub enum Need {
    /// A word.
    Word(Word),
    /// The country of the client: two letters, empty when it is not known.
    Country,
    /// The number of the client's autonomous system; 0 when it is not known.
    Asn,
    /// What the DNS lists weigh together.
    DnsScore,
    /// Whether this DNS list has the client or one of its names.
    DnsList(String),
    /// How many units a bucket of a limit holds.
    Count(Count),
    /// Whether a triplet of the client has passed greylisting before.
    GreylistKnown,
}

impl Need {
    /// How it is written, for log and trace.
    pub fn told(&self) -> String {
        match self {
            Self::Word(Word::Spf) => "spf()".to_owned(),
            Self::Word(Word::ReverseName) => "rdns_class()".to_owned(),
            Self::Country => "country()".to_owned(),
            Self::Asn => "asn()".to_owned(),
            Self::DnsScore => "dnsbl_score()".to_owned(),
            Self::DnsList(name) => format!("dnsbl({name:?})"),
            Self::Count(count) => count.told.clone(),
            Self::GreylistKnown => "greylist_known()".to_owned(),
        }
    }
}

/// All look-ups that a list of rules may make, each once; facts have their numbers.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    list: Vec<Need>,
    asked: usize,
}

impl Needs {
    /// The number of a look-up.
    pub fn number(&mut self, need: Need) -> Result<usize, String> {
        self.asked += 1;
        if let Some(at) = self.list.iter().position(|known| *known == need) {
            return Ok(at);
        }
        if self.list.len() == MAX_NEEDS {
            return Err(format!("there are {MAX_NEEDS} different look-ups already"));
        }
        self.list.push(need);
        Ok(self.list.len() - 1)
    }

    /// How often one was asked for.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// All of them, by number.
    pub fn into_list(self) -> Vec<Need> {
        self.list
    }
}
