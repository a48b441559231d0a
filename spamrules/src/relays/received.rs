// SPDX-License-Identifier: GPL-3.0-or-later
//! One `Received` field, understood: from whom, by whom, what was claimed and what was looked up.
//!
//! Not the walk over all fields ([`super::walk`]) and not the formats ([`super::formats`]). Reads what SpamAssassin 4.0.1 reads, because
//! rules were written for its `X-Spam-Relays-*` strings.

use super::formats::{FORMATS, Format, Outcome};
use super::shape::{Field, Found};
use super::{Relay, auth, ip};

/// Longest line that is looked at, in bytes: what is kept of a field's value.
const LONGEST: usize = 8192;

/// What a `Received` field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handover {
    /// A handover between two hosts.
    Relay(Box<Relay>),
    /// A handover within a host, or one that cannot say between whom; `sender` is what qmail-scanner tells of the next one.
    Ignored { sender: Option<String> },
    /// A program fetched the mail.
    Fetched,
    /// Not understood.
    Unparseable,
}

/// Reads the value of a field.
pub(super) fn read(value: &[u8]) -> Handover {
    let line = normalised(value);
    if !begins_with(&line, "from ") && !begins_with(&line, "(from ") {
        return Handover::Ignored { sender: None };
    }
    if with_local_for(&line) || names_two_hosts_only(&line) {
        return Handover::Ignored { sender: None };
    }
    let line = without_date(&line).replacen(")by ", ") by ", 1);
    let mut draft = Draft::new(&line);
    let (rest, end) = if let Some(rest) = line.strip_prefix("from ") {
        draft.sender = sender(rest);
        (rest, draft.read(rest))
    } else if let Some(rest) = line.strip_prefix("FROM ") {
        (rest, draft.try_all(&FORMATS.upper, rest))
    } else if let Some(rest) = line.strip_prefix("(from ") {
        (rest, draft.try_all(&FORMATS.parenthesis, rest))
    } else {
        (line.as_str(), None)
    };
    match end {
        Some(Outcome::Ignore) => Handover::Ignored { sender: None },
        Some(Outcome::Scanner) => Handover::Ignored { sender: draft.sender.map(|s| clean_sender(&s)) },
        Some(Outcome::Fetched) => Handover::Fetched,
        Some(_) => Handover::Relay(Box::new(draft.finish())),
        None => draft.last_resort(rest),
    }
}

fn begins_with(line: &str, prefix: &str) -> bool {
    line.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix))
}

/// One space for each run of white space, none at the ends, no semicolons at the end; bytes that are not UTF-8 are replaced.
fn normalised(value: &[u8]) -> String {
    let value = value.get(..LONGEST).unwrap_or(value);
    let mut line = Vec::with_capacity(value.len());
    for &byte in value {
        match (ip::is_space(byte), line.last()) {
            (true, Some(b' ') | None) => {}
            (true, _) => line.push(b' '),
            (false, _) => line.push(byte),
        }
    }
    let mut line = String::from_utf8_lossy(&line).into_owned();
    let end = line.trim_end_matches([' ', ';']).len();
    // A blank that stands alone at the end goes; with semicolons all that is before them goes too.
    if line[end..].contains(';') || line.ends_with(' ') {
        line.truncate(end);
    }
    line
}

/// Local submission, as Exim writes it.
fn with_local_for(line: &str) -> bool {
    const SIGN: &str = "with local for";
    line.match_indices(SIGN).any(|(at, _)| {
        let bytes = line.as_bytes();
        !at.checked_sub(1).is_some_and(|i| ip::is_word(bytes[i]))
            && !bytes.get(at + SIGN.len()).is_some_and(|b| ip::is_word(*b))
    })
}

/// `from a by b ; date`: no address in it, unless `a` is one in brackets.
fn names_two_hosts_only(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(from), Some(host), Some(by), Some(server)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let by_name = server.find(';').map_or(server.len(), |at| at);
    let ended = server.contains(';') || words.next().is_some_and(|w| w.starts_with(';'));
    let literal = host.len() > 2
        && host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1].bytes().all(|b| b.is_ascii_digit() || b == b'.');
    from.eq_ignore_ascii_case("from") && by.eq_ignore_ascii_case("by") && by_name > 0 && ended && !literal
}

/// The line without the date at its end.
fn without_date(line: &str) -> &str {
    date_begins(line).map_or(line, |at| line[..at].trim_end_matches([' ', ';']))
}

/// Where `Tue, 23 May 2006 13:06:35 -0400` begins, if the line ends with such.
fn date_begins(line: &str) -> Option<usize> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Mon,", "Tue,", "Wed,", "Thu,", "Fri,", "Sat,", "Sun,"];
    let (rest, _zone) = line.rsplit_once(' ')?;
    let (rest, time) = rest.rsplit_once(' ')?;
    let (rest, year) = rest.rsplit_once(' ')?;
    let (rest, month) = rest.rsplit_once(' ')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let clock = time.split(':').count();
    if !(2..=3).contains(&clock) || !time.split(':').all(digits) || !digits(year) || !MONTHS.contains(&month) {
        return None;
    }
    let day = rest.len() - rest.bytes().rev().take_while(u8::is_ascii_digit).count();
    let separated =
        |at: usize| at.checked_sub(1).and_then(|i| line.as_bytes().get(i)).is_some_and(|b| matches!(b, b' ' | b';'));
    if day == rest.len() || !separated(day) {
        return None;
    }
    let week_day =
        day.checked_sub(5).filter(|at| line.get(*at..day - 1).is_some_and(|w| DAYS.contains(&w)) && separated(*at));
    Some(week_day.unwrap_or(day))
}

/// The sender of the envelope, where the line has it.
fn sender(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let begins =
        ["return-path: ", "return-path ", "envelope-sender ", "envelope-sender=", "envelope-from ", "envelope-from="];
    let mut found: Vec<(usize, usize)> =
        begins.iter().flat_map(|sign| lower.match_indices(sign).map(|(at, s)| (at, at + s.len()))).collect();
    found.sort_unstable();
    found.into_iter().find_map(|(_, at)| {
        let rest = line.get(at..)?;
        let word = &rest[..rest.find(' ').unwrap_or(rest.len())];
        // up to the last boundary of a word
        let end = word.bytes().rposition(ip::is_word)? + 1;
        word.get(..end).map(str::to_string)
    })
}

/// A sender without angle brackets and with harmless bytes.
fn clean_sender(text: &str) -> String {
    harmless(text.trim_start().trim_start_matches('<').trim_end().trim_end_matches('>'))
}

/// Bytes that the format of `X-Spam-Relays-*` needs for itself become `!`.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_whitespace() || "\u{0}\u{b}#[]()<>|".contains(c) { '!' } else { c }).collect()
}

/// A relay while the line is being read.
#[derive(Debug, Default)]
struct Draft {
    ip: String,
    helo: String,
    rdns: String,
    by: String,
    id: String,
    ident: String,
    auth: String,
    sender: Option<String>,
    looked_up: bool,
}

impl Draft {
    /// What can be said without knowing the format.
    fn new(line: &str) -> Self {
        Self {
            id: id(line),
            helo: claimed(line),
            by: word_after(line, " by "),
            auth: auth::method(line),
            ..Self::default()
        }
    }

    /// Tries all formats of a line that began with `from`.
    fn read(&mut self, rest: &str) -> Option<Outcome> {
        if let Some(end) = self.try_all(&FORMATS.web, rest) {
            return Some(end);
        }
        let family = FORMATS.families.iter().find(|f| f.mark.find(rest.as_bytes()).is_some());
        if let Some(end) = family.and_then(|f| self.try_all(&f.formats, rest)) {
            return Some(end);
        }
        let end = self.try_all(&FORMATS.general, rest);
        if end.is_none() && (self.helo.is_empty() || self.helo == "0") {
            self.helo = guessed_name(rest).unwrap_or_default();
        }
        end
    }

    fn try_all(&mut self, formats: &[Format], line: &str) -> Option<Outcome> {
        for format in formats {
            if let Some(found) = format.find(line) {
                self.take(&found, line);
                if self.apply(format.outcome, line) {
                    return Some(format.outcome);
                }
            }
        }
        None
    }

    fn take(&mut self, found: &Found, line: &str) {
        let fields: [(Field, &mut String); 6] = [
            (Field::Ip, &mut self.ip),
            (Field::Helo, &mut self.helo),
            (Field::Rdns, &mut self.rdns),
            (Field::By, &mut self.by),
            (Field::Id, &mut self.id),
            (Field::Ident, &mut self.ident),
        ];
        for (field, place) in fields {
            if let Some(text) = found.get(field, line) {
                *place = text.to_string();
            }
        }
        if let Some(notes) = found.get(Field::Notes, line) {
            self.notes(notes);
        }
    }

    /// `helo=name ident=name` in a comment.
    fn notes(&mut self, notes: &str) {
        let word = |sign: &str| {
            notes.find(sign).map(|at| notes[at + sign.len()..].split(' ').next().unwrap_or_default().to_string())
        };
        if let Some(helo) = word("helo=").filter(|h| !h.is_empty()) {
            self.helo = helo;
        }
        if let Some(ident) = word("ident=") {
            self.ident = ident;
        }
    }

    /// What the outcome means for the draft; whether the line is done.
    fn apply(&mut self, outcome: Outcome, line: &str) -> bool {
        match outcome {
            Outcome::LookedUp => self.looked_up = true,
            Outcome::LookedUpIfKnown => self.looked_up = !matches!(self.rdns.as_str(), "unknown" | "UNKNOWN"),
            Outcome::LookedUpWithIdent => {
                self.looked_up = true;
                self.split_ident();
            }
            Outcome::LookedUpUnlessFailed if self.rdns == "softdnserr" => self.rdns.clear(),
            Outcome::LookedUpUnlessFailed => self.looked_up = true,
            Outcome::RelayWithoutId => self.id.clear(),
            Outcome::Mailer => self.mailer(line),
            Outcome::WithoutHelo => {
                self.helo.clear();
                self.looked_up = self.rdns != "UNKNOWN";
            }
            Outcome::Note => return false,
            Outcome::Relay | Outcome::Ignore | Outcome::Fetched | Outcome::Scanner => {}
        }
        true
    }

    fn split_ident(&mut self) {
        if let Some((ident, name)) = self.rdns.split_once('@') {
            self.ident = ident.strip_prefix("IDENT:").unwrap_or(ident).to_string();
            self.rdns = name.to_string();
            if let Some((ident, name)) = self.rdns.clone().split_once('@') {
                self.ident = ident.to_string();
                self.rdns = name.to_string();
            }
        }
    }

    /// XMail: `id <…>` and `from <…>`.
    fn mailer(&mut self, line: &str) {
        let inside = |sign: &str| {
            let rest = &line[line.find(sign)? + sign.len()..];
            let word = &rest[..rest.find(' ').unwrap_or(rest.len())];
            word.rfind('>').filter(|end| *end > 0).map(|end| word[..end].to_string())
        };
        if let Some(id) = inside(" id <") {
            self.id = id;
        }
        if let Some(sender) = inside(" from <") {
            self.sender = Some(sender);
        }
    }

    /// No format fits: an address in brackets and the name of the server are enough.
    fn last_resort(mut self, line: &str) -> Handover {
        if self.ip.is_empty() {
            let bytes = line.as_bytes();
            let found = line.match_indices('[').find_map(|(at, _)| {
                let length = ip::length_at(bytes, at + 1)?;
                (bytes.get(at + 1 + length) == Some(&b']')).then(|| line[at + 1..at + 1 + length].to_string())
            });
            self.ip = found.unwrap_or_default();
        }
        if self.ip.is_empty() || self.by.is_empty() || self.by == "0" {
            Handover::Unparseable
        } else {
            Handover::Relay(Box::new(self.finish()))
        }
    }

    fn finish(self) -> Relay {
        let mut rdns = self.rdns.trim_end_matches('.').to_string();
        if rdns.eq_ignore_ascii_case("unknown") || rdns.starts_with('[') {
            rdns.clear();
        }
        let ip = harmless(&ip::clean(&self.ip));
        Relay {
            private: ip::is_private(&ip),
            ip,
            no_rdns: rdns.is_empty() && self.looked_up,
            rdns_unknown: rdns.is_empty() && !self.looked_up,
            rdns: harmless(&rdns),
            helo: harmless(&self.helo),
            by: harmless(self.by.strip_suffix(';').unwrap_or(&self.by)),
            id: self.id,
            ident: harmless(&self.ident),
            sender: self.sender.map(|s| clean_sender(&s)),
            auth: self.auth,
            internal: false,
            msa: false,
        }
    }
}

/// Where each occurrence of an ASCII sign ends; occurrences may overlap.
pub(super) fn ends_of<'l>(line: &'l str, sign: &'l str) -> impl Iterator<Item = usize> + 'l {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + line.get(from..)?.find(sign)?;
        from = at + 1;
        Some(at + sign.len())
    })
}

/// The id of the message at that server: at least three bytes.
fn id(line: &str) -> String {
    ends_of(line, " id ")
        .find_map(|at| {
            let rest = &line[at..];
            let rest = rest.strip_prefix('<').unwrap_or(rest);
            let word = &rest[..rest.find([' ', '<', '>', ';']).unwrap_or(rest.len())];
            (word.len() >= 3).then(|| word.to_string())
        })
        .unwrap_or_default()
}

/// The name that the client claimed, where the line marks it as such.
fn claimed(line: &str) -> String {
    let after = |signs: &[&str]| {
        let mut places: Vec<usize> = signs
            .iter()
            .flat_map(|s| line.match_indices(s).map(|(at, sign)| (at, at + sign.len())))
            .filter_map(|(at, end)| {
                let boundary = !at.checked_sub(1).is_some_and(|i| ip::is_word(line.as_bytes()[i]));
                boundary.then_some(end)
            })
            .collect();
        places.sort_unstable();
        places.into_iter().find_map(|at| {
            let rest = &line[at..];
            let name = &rest[..rest.find(|c: char| !in_name(c)).unwrap_or(rest.len())];
            (!name.is_empty()).then(|| name.to_string())
        })
    };
    after(&["helo="]).or_else(|| after(&["HELO ", "EHLO "])).unwrap_or_default()
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.^+_&:=?!@%*$\\/".contains(c)
}

fn word_after(line: &str, sign: &str) -> String {
    line.find(sign)
        .map_or_else(String::new, |at| line[at + sign.len()..].split(' ').next().unwrap_or_default().to_string())
}

/// The first word, up to the last byte that a name cannot hold.
fn guessed_name(line: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let word = line.bytes().position(|b| b == b' ').unwrap_or(line.len());
    let end = if word < line.len() { word } else { line.bytes().rposition(|b| !plain(b))? };
    (end > 0).then(|| line.get(..end).map(str::to_string)).flatten()
}
