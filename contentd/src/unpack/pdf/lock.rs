// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a PDF is encrypted, and what opens it (ISO 32000-1 section 7.6.1): descriptions of encryption wherever a trailer may point to them, tried
//! without a password first, as every reader does, then with words of the message. The keys are made in `security`.

use super::objects::{Dictionary, Reader, Value};
use super::security::Handler;
use crate::budget::Over;
use crate::message::codec;
use crate::unpack::members::Members;
use crate::unpack::passwords::Tries;
use memchr::memmem;

/// Descriptions of encryption that are looked at, and identifiers of the document.
const HANDLERS: usize = 4;
const IDS: usize = 4;
/// Places where one of them may be.
const OCCURRENCES: usize = 200;

/// What is known of a document's encryption. Mostly there is one description of it, and it is opened or not; of several it is not known which one
/// counts to whom.
#[derive(Default)]
pub(super) struct Lock {
    /// What opens it.
    pub(super) opened: Vec<Opened>,
    /// There is something that no password opens that is known.
    pub(super) shut: bool,
}

/// A description of encryption and the key that fits.
pub(super) struct Opened {
    pub(super) handler: Handler,
    pub(super) key: Vec<u8>,
    /// Objects that are not encrypted: the descriptions themselves.
    pub(super) except: Vec<u32>,
    /// It is a word of the message that opened it.
    pub(super) by_word: bool,
}

/// Whether the name `/Encrypt` is there with the number of a character in it: `/Encr#79pt`.
pub(super) fn is_spelled_out(data: &[u8]) -> bool {
    /// Its length with all characters as numbers.
    const LONGEST: usize = 3 * b"/Encrypt".len();
    memchr::memchr_iter(b'#', data).any(|at| {
        data.get(at + 1..at + 3).is_some_and(|digits| codec::hex_pair(digits).is_some())
            && memchr::memrchr(b'/', &data[at.saturating_sub(LONGEST)..at]).is_some_and(|slash| {
                let from = at.saturating_sub(LONGEST) + slash;
                super::unescaped(&data[from..data.len().min(from + LONGEST)]).starts_with(b"/Encrypt")
            })
    })
}

/// Looks for descriptions of encryption in `said`, and for the passwords. None: nothing is encrypted, whatever is said of it.
pub(super) fn unlock(said: &[u8], out: &Members<'_, '_>) -> Result<Option<Lock>, Over> {
    let (mut dictionaries, except) = dictionaries(said);
    let ids = identifiers(said);
    let opens = |handler: &Handler, word: &str| {
        let latin: Option<Vec<u8>> = word.chars().map(|c| u8::try_from(c).ok()).collect();
        let latin = latin.filter(|latin| latin != word.as_bytes());
        let forms = [Some(word.as_bytes()), latin.as_deref()];
        forms.into_iter().flatten().find_map(|form| ids.iter().find_map(|id| handler.key(form, id)))
    };
    let mut lock = Lock { shut: dictionaries.len() > HANDLERS, ..Lock::default() };
    let found = !dictionaries.is_empty();
    dictionaries.truncate(HANDLERS);
    for dictionary in dictionaries {
        out.clock()?;
        let Some(handler) = dictionary.as_ref().and_then(Handler::read) else {
            lock.shut = true;
            continue;
        };
        let without = opens(&handler, "");
        let by_word = without.is_none();
        match without.or_else(|| with_words(&handler, out, |word| opens(&handler, word))) {
            Some(key) => lock.opened.push(Opened { handler, key, except: except.clone(), by_word }),
            None => lock.shut = true,
        }
    }
    Ok(found.then_some(lock))
}

fn with_words(handler: &Handler, out: &Members<'_, '_>, opens: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut key = None;
    let mut fits = |word: &str| {
        key = opens(word);
        key.is_some()
    };
    if handler.is_slow() {
        Tries::default().first_that(out, fits);
    } else {
        let mut words = out.passwords().iter();
        words.find(|word| out.clock().is_ok() && fits(word));
    }
    key
}

/// The descriptions that trailers point to, none for what is not found, the last ones first, and the numbers of the objects that they stand in. One more
/// than are tried tells that there are more.
fn dictionaries(data: &[u8]) -> (Vec<Option<Dictionary>>, Vec<u32>) {
    let (mut found, mut numbers): (Vec<Option<Dictionary>>, Vec<u32>) = (Vec::new(), Vec::new());
    for rest in last(super::keys(data, b"/Encrypt")) {
        match Reader::new(rest, 0).value() {
            Some(Value::Dictionary(dictionary)) => found.push(Some(dictionary)),
            Some(Value::Reference(number, _)) if !numbers.contains(&number) && numbers.len() <= HANDLERS => {
                numbers.push(number);
            }
            _ => {}
        }
    }
    let mut places: Vec<(u32, usize)> = Vec::new();
    for at in memmem::find_iter(data, b"obj") {
        let object = header(&data[..at]).map(|(number, _)| number).filter(|number| numbers.contains(number));
        places.extend(object.map(|number| (number, at + 3)));
    }
    for number in &numbers {
        let own = places.iter().rev().filter(|(other, _)| other == number).take(OCCURRENCES);
        let before = found.len();
        for (_, place) in own {
            if let Some(Value::Dictionary(dictionary)) = Reader::new(data, *place).value() {
                found.push(Some(dictionary));
            }
        }
        if found.len() == before {
            found.push(None);
        }
    }
    let mut different: Vec<Option<Dictionary>> = Vec::new();
    for dictionary in found {
        if !different.contains(&dictionary) && different.len() <= HANDLERS {
            different.push(dictionary);
        }
    }
    (different, numbers)
}

/// The last ones of many, the very last first.
fn last<'d>(all: impl Iterator<Item = &'d [u8]>) -> impl Iterator<Item = &'d [u8]> {
    let all: Vec<&[u8]> = all.collect();
    all.into_iter().rev().take(OCCURRENCES)
}

/// What may be the identifier of the document.
fn identifiers(data: &[u8]) -> Vec<Vec<u8>> {
    let mut ids: Vec<Vec<u8>> = Vec::new();
    for rest in last(super::keys(data, b"/ID")) {
        let Some(Value::List(list)) = Reader::new(rest, 0).value() else { continue };
        if let Some(Value::Text(id)) = list.into_iter().next()
            && !ids.contains(&id)
            && ids.len() < IDS
        {
            ids.push(id);
        }
    }
    ids.push(Vec::new());
    ids
}

/// Number and generation in `12 0 obj`, before its last word.
pub(super) fn header(before: &[u8]) -> Option<(u32, u16)> {
    let number = |text: &[u8]| {
        let text = text.trim_ascii_end();
        let digits = text.iter().rev().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        let (rest, digits) = text.split_at(text.len() - digits);
        Some((rest.len(), std::str::from_utf8(digits).ok()?.parse::<u32>().ok()?))
    };
    let (rest, generation) = number(before)?;
    let (_, number) = number(&before[..rest])?;
    Some((number, u16::try_from(generation).unwrap_or_default()))
}
