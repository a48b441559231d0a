// SPDX-License-Identifier: GPL-3.0-or-later
//! Words out of a message that may be the password of an archive in it: what stands beside "password" in one of many languages, what is in
//! quotes, and a configured list. Only few are tried, the likeliest first. Nothing of them is logged. The words are pure text work; the message
//! is taken apart once more for them, and only when an archive in it is encrypted.

use super::members::Members;
use super::pdf;
use crate::budget::{self, Budget};
use crate::message::parts;
use crate::message::{Limits, header, words};
use bytes::Bytes;
use std::time::Instant;

/// Words that are tried at most.
const MOST: usize = 60;
/// Words behind and before a cue.
const BEHIND: usize = 6;
const BEFORE: usize = 4;
/// Longest password in bytes.
const LONGEST: usize = 64;
/// Text of one part that is looked at.
const TEXT: usize = 256 * 1024;

/// PDFs whose text is looked at.
const DOCUMENTS: usize = 5;

/// Words tried on one archive of a format that makes every try expensive on purpose: 7z, RAR.
pub(super) const SLOW_TRIES: usize = 20;
/// Most doublings of the work for a key that are tried: twice what 7-Zip does, 32 times what RAR 5 does. More is there to waste our time.
pub(super) const ROUNDS: u8 = 20;

/// Beginnings of the words for it, in lower case.
const CUES: &[&str] = &[
    "password",
    "passwort",
    "passwd",
    "passcode",
    "passphrase",
    "pwd",
    "pw",
    "pass",
    "pin",
    "kennwort",
    "losung",
    "mot de passe",
    "mdp",
    "contraseña",
    "contrasena",
    "clave",
    "senha",
    "palavra-passe",
    "hasło",
    "haslo",
    "heslo",
    "jelszó",
    "parola",
    "lozinka",
    "wachtwoord",
    "lösenord",
    "adgangskode",
    "passord",
    "salasana",
    "şifre",
    "sifre",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
    "암호",
];

/// Words that lead from a cue to the password and are none.
const FILLERS: &[&str] = &[
    "is",
    "ist",
    "lautet",
    "est",
    "es",
    "la",
    "le",
    "der",
    "die",
    "das",
    "to",
    "jest",
    "for",
    "für",
    "fuer",
    "the",
    "of",
    "archive",
    "archiv",
    "file",
    "datei",
    "zip",
    "attachment",
    "anhang",
    "pour",
    "del",
    "and",
    "und",
];

/// Pairs of quotes.
const QUOTES: &[(char, char)] = &[
    ('"', '"'),
    ('\'', '\''),
    ('„', '“'),
    ('„', '”'),
    ('“', '”'),
    ('«', '»'),
    ('»', '«'),
    ('‘', '’'),
    ('`', '`'),
    ('[', ']'),
    ('<', '>'),
];

/// Tries left at one archive whose keys take long to derive.
#[derive(Default)]
pub(super) struct Tries {
    made: usize,
}

impl Tries {
    /// The first of the likeliest words that opens it.
    pub(super) fn first_that(&mut self, out: &Members<'_, '_>, mut opens: impl FnMut(&str) -> bool) -> Option<String> {
        let mut words = out.passwords().iter();
        words
            .find(|word| {
                self.made += 1;
                self.made <= SLOW_TRIES && out.clock().is_ok() && opens(word)
            })
            .cloned()
    }
}

/// The words of a message, the likeliest first; `common` are tried, too.
pub(crate) fn of(message: &Bytes, limits: &Limits, common: &[String], until: Instant) -> Vec<String> {
    let size = message.len() as u64;
    let mut budget = Budget::new(&budget::Limits::default(), size, limits.readings(size), until);
    let view = parts::walk(message, &Limits { texts: true, ..*limits }, &mut budget);
    let section = header::read(message, limits);
    let subjects = section.named(message, "Subject").take(2).map(|field| &message[field.value.clone()]);
    let subjects = subjects.map(|subject| words::decode(&readable(subject)));
    let written = view.texts.iter().map(|text| without_tags(&readable(text)));
    let watch = budget.watch();
    let documents = view.kept.iter().filter(|kept| pdf::text::is_pdf(&kept.bytes)).take(DOCUMENTS);
    let documents = documents.map(|kept| pdf::text::text(&kept.bytes, TEXT, &|| watch.over().is_none()));
    let texts: Vec<String> = subjects.chain(written).take(20).chain(documents).collect();
    choose(&texts, common)
}

/// UTF-8 where it is, else byte by byte.
fn readable(text: &[u8]) -> String {
    let text = &text[..text.len().min(TEXT)];
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        // The end may be cut within a character.
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(text).into_owned(),
        Err(_) => text.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// HTML without its tags; other text keeps what only looks like one as words.
fn without_tags(text: &str) -> String {
    let is_html = ["<html", "<body", "<div", "<p", "<br"]
        .iter()
        .any(|tag| text.contains(tag) || text.contains(&tag.to_uppercase()));
    if !is_html {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        plain.push_str(before);
        let (tag, behind) = tag.split_once('>').unwrap_or((tag, ""));
        // What makes a word bold does not part it.
        let block = ["p", "/p", "div", "/div", "br", "td", "/td", "tr", "li"];
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap_or_default().to_ascii_lowercase();
        if block.contains(&name.as_str()) {
            plain.push(' ');
        }
        rest = behind;
    }
    plain.push_str(rest);
    for (entity, character) in [("&nbsp;", " "), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")] {
        plain = plain.replace(entity, character);
    }
    plain
}

/// Picks the words, each once.
fn choose(texts: &[String], common: &[String]) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    let mut add = |word: &str| {
        if !word.is_empty() && word.len() <= LONGEST && chosen.len() < MOST && !chosen.iter().any(|other| other == word)
        {
            chosen.push(word.to_owned());
        }
    };
    for text in texts {
        beside_cues(text, &mut add);
    }
    common.iter().for_each(|word| add(word));
    for text in texts {
        quoted(text, &mut add);
    }
    chosen
}

fn beside_cues(text: &str, add: &mut dyn FnMut(&str)) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut cues = 0;
    for (place, word) in words.iter().enumerate() {
        let Some(joined) = cue(word, words.get(place + 1..).unwrap_or_default()) else { continue };
        cues += 1;
        if cues > 20 {
            return;
        }
        // `pw:secret` and `password=secret`.
        if let Some((_, own)) = word.split_once([':', '=', '：']) {
            forms(own, add);
        }
        let behind = words.iter().skip(place + 1 + joined).take(BEHIND);
        let before = words[place.saturating_sub(BEFORE)..place].iter().rev();
        for word in behind.chain(before) {
            if !FILLERS.contains(&bare(word).to_lowercase().as_str()) {
                forms(word, add);
            }
        }
    }
}

/// Whether a word is a cue, and how many of the words behind it belong to it.
fn cue(word: &str, behind: &[&str]) -> Option<usize> {
    let lower = word.trim_start_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    for cue in CUES {
        let mut steps = cue.split(' ');
        let first = steps.next().unwrap_or_default();
        let Some(rest) = lower.strip_prefix(first) else { continue };
        // Short ones stand alone: `pin:` and not `pine`.
        let alone = !rest.starts_with(char::is_alphanumeric) || first.chars().count() > 4;
        let more: Vec<&str> = steps.collect();
        let same = more.iter().zip(behind).filter(|(step, word)| bare(word).to_lowercase() == **step).count();
        if alone && same == more.len() {
            return Some(same);
        }
    }
    None
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// The forms in which a word may be meant: without quotes and the dot of the sentence, bare, and as it stands.
fn forms(word: &str, add: &mut dyn FnMut(&str)) {
    let inner = word
        .trim_matches(|c: char| QUOTES.iter().any(|(open, close)| c == *open || c == *close) || c == '(' || c == ')');
    let sentence = inner.trim_end_matches(['.', ',', ';', ':']);
    let inner = sentence.trim_matches(|c: char| QUOTES.iter().any(|(open, close)| c == *open || c == *close));
    if bare(word).is_empty() {
        return;
    }
    for form in [inner, sentence, word, bare(word)] {
        add(form);
    }
}

/// What stands in quotes, without blanks.
fn quoted(text: &str, add: &mut dyn FnMut(&str)) {
    for (open, close) in QUOTES {
        let mut rest = text;
        for _ in 0..20 {
            let Some((_, from)) = rest.split_once(*open) else { break };
            let Some((inner, behind)) = from.split_once(*close) else { break };
            if inner.len() <= LONGEST && !inner.contains(char::is_whitespace) {
                add(inner);
            }
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(text: &str) -> Vec<String> {
        choose(&[without_tags(text)], &["infected".to_owned()])
    }

    #[test]
    fn what_stands_beside_a_cue() {
        for (text, word) in [
            ("The password is: Geheim7.", "Geheim7"),
            ("Password for the attachment: 4711", "4711"),
            ("pw:abc", "abc"),
            ("Das Passwort lautet \"Sommer!2026\".", "Sommer!2026"),
            ("Le mot de passe est xyz99", "xyz99"),
            ("La contraseña del archivo es Ñandú1", "Ñandú1"),
            ("Hasło: tajne", "tajne"),
            ("secret1 is the password", "secret1"),
            ("<p>Password: <b>1<i>2</i>34</b></p><br>", "1234"),
            ("Пароль - qwerty", "qwerty"),
            ("use `quoted_one` to open", "quoted_one"),
            ("nothing here", "infected"),
        ] {
            assert!(chosen(text).iter().any(|found| found == word), "{text}: {:?}", chosen(text));
        }
        assert_eq!(chosen("happy pine trees"), ["infected"]);
    }

    #[test]
    fn words_of_a_message() {
        let message = b"Subject: =?utf-8?q?Rechnung_pw=3Aaa11?=\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nUGFzc3dvcmQ6IGJiMjIK\r\n";
        let later = Instant::now() + std::time::Duration::from_secs(60);
        let found = of(&Bytes::from_static(message), &Limits::default(), &[], later);
        assert_eq!(found, ["aa11", "Rechnung", "bb22"]);
    }

    #[test]
    fn words_of_a_document() {
        let message = b"Subject: x\r\nContent-Type: application/pdf\r\n\r\n%PDF-1.4\r\n1 0 obj <</Type/Page/Contents 2 0 R>> endobj\r\n\
            2 0 obj << >> stream\r\nBT (Your password) Tj 0 -1 Td [(is) -500 (Geh) 5 (eim7.)] TJ ET\r\nendstream endobj\r\n";
        let later = Instant::now() + std::time::Duration::from_secs(60);
        let found = of(&Bytes::from_static(message), &Limits::default(), &[], later);
        assert!(found.contains(&"Geheim7".to_owned()), "{found:?}");
    }

    proptest! {
        #[test]
        fn few_and_short(text in "(pass|pw:|\"|'|«|»|<p|>| |\\PC){0,60}") {
            let found = chosen(&text);
            prop_assert!(found.len() <= MOST && found.iter().all(|word| word.len() <= LONGEST));
        }
    }
}
