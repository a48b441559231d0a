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

/// What is known of a document's encryption.
pub(super) enum Lock {
    /// Nothing is encrypted, whatever is said of it.
    None,
    /// No password that is known opens it.
    Shut,
    /// What opens it: mostly one.
    Open(Vec<Opened>),
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

/// Looks for descriptions of encryption in `said`, and for the passwords.
pub(super) fn unlock(said: &[u8], out: &Members<'_, '_>) -> Result<Lock, Over> {
    let (dictionaries, except) = dictionaries(said);
    let handlers: Vec<Handler> = dictionaries.iter().flatten().filter_map(Handler::read).collect();
    if dictionaries.is_empty() {
        return Ok(Lock::None);
    }
    let ids = identifiers(said);
    let opens = |handler: &Handler, word: &str| {
        let latin: Option<Vec<u8>> = word.chars().map(|c| u8::try_from(c).ok()).collect();
        let latin = latin.filter(|latin| latin != word.as_bytes());
        let forms = [Some(word.as_bytes()), latin.as_deref()];
        forms.into_iter().flatten().find_map(|form| ids.iter().find_map(|id| handler.key(form, id)))
    };
    let mut opened: Vec<Opened> = Vec::new();
    for handler in &handlers {
        out.clock()?;
        let mut by_word = false;
        let mut key = opens(handler, "");
        if key.is_none() && opened.is_empty() {
            by_word = true;
            key = with_words(handler, out, |word| opens(handler, word));
        }
        if let Some(key) = key
            && !opened.iter().any(|other| other.key == key && other.handler == *handler)
        {
            opened.push(Opened { handler: handler.clone(), key, except: except.clone(), by_word });
        }
    }
    // A word is no news where the document opens without one.
    if opened.iter().any(|opened| !opened.by_word) {
        opened.retain(|opened| !opened.by_word);
    }
    Ok(if opened.is_empty() { Lock::Shut } else { Lock::Open(opened) })
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

/// The descriptions that trailers point to, none for what is not found, and the numbers of the objects that they stand in.
fn dictionaries(data: &[u8]) -> (Vec<Option<Dictionary>>, Vec<u32>) {
    let (mut found, mut numbers): (Vec<Option<Dictionary>>, Vec<u32>) = (Vec::new(), Vec::new());
    for rest in super::keys(data, b"/Encrypt").take(100) {
        match Reader::new(rest, 0).value() {
            Some(Value::Dictionary(dictionary)) => found.push(Some(dictionary)),
            Some(Value::Reference(number, _)) if !numbers.contains(&number) && numbers.len() < HANDLERS => {
                numbers.push(number)
            }
            _ => {}
        }
    }
    for number in &numbers {
        let before = found.len();
        for at in
            memmem::find_iter(data, b"obj").filter(|at| header(&data[..*at]).is_some_and(|object| object.0 == *number))
        {
            if let Some(Value::Dictionary(dictionary)) = Reader::new(data, at + 3).value() {
                found.push(Some(dictionary));
            }
        }
        if found.len() == before {
            found.push(None);
        }
    }
    // Of many, the last ones count.
    found.reverse();
    let mut different: Vec<Option<Dictionary>> = Vec::new();
    for dictionary in found {
        if !different.contains(&dictionary) && different.len() < HANDLERS {
            different.push(dictionary);
        }
    }
    (different, numbers)
}

/// What may be the identifier of the document.
fn identifiers(data: &[u8]) -> Vec<Vec<u8>> {
    let mut ids: Vec<Vec<u8>> = Vec::new();
    for rest in super::keys(data, b"/ID").take(100) {
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
