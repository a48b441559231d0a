// SPDX-License-Identifier: GPL-3.0-or-later
//! How policyd's orders and findings reach contentd: in a header line that policyd has Postfix prepend to the message (PREPEND of
//! access(5)), and that contentd takes out again, whoever wrote it. A line counts only with a message authentication code (HMAC-SHA-256,
//! RFC 2104, cut to 128 bits) of a secret that both know, and for the client and the recipient that it was written for.
//!
//! Apart from reading the secret pure. docs/decisions says why it is no row in the store; Postfix's SMTPD_POLICY_README and
//! SMTPD_PROXY_README for the way of the header.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::config::{Mistakes, Source};
use crate::orders::Order;

/// Name of the header line with orders. A message may have many: one per recipient with an order.
pub const ORDER_HEADER: &str = "X-Octroi-Order";
/// Name of the header line with what policyd found out about the client. A message has at most one.
pub const RESULTS_HEADER: &str = "X-Octroi-Results";

/// From RCPT to the final dot: longer than any session that goes about its business.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// How far the clocks of two hosts may differ.
const MAX_SKEW: Duration = Duration::from_secs(600);
/// Bytes of the authentication code.
const CODE: usize = 16;
/// The shortest secret: 128 bits in hexadecimal digits.
const MIN_SECRET: usize = 32;
/// Lists of one line of results.
const MAX_LISTS: usize = 16;
/// Longest line that is read, name and value.
const MAX_LINE: usize = 2000;

/// Section `[handover]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandoverSettings {
    /// A file with the secret that policyd and contentd share; without it nothing is handed over.
    pub secret_file: Option<PathBuf>,
    /// Whether contentd is told what SPF and DNS lists say of each client.
    pub results: bool,
    /// The smtpd that puts what it gets into the hold queue.
    pub hold: Address,
}

impl Default for HandoverSettings {
    fn default() -> Self {
        Self { secret_file: None, results: false, hold: Address::tcp("127.0.0.1", 10026) }
    }
}

impl HandoverSettings {
    /// Reads the section and the secret. Errors: a secret that cannot be read or is too short, results without a secret.
    pub fn read(source: &Source, mistakes: &mut Mistakes) -> Self {
        let settings: Self = source.section("handover", mistakes);
        if let Err(error) = settings.secret() {
            mistakes.push(source.mistake("handover.secret_file", error));
        }
        if settings.results && !settings.is_on() {
            mistakes.push(source.mistake("handover.results", "needs handover.secret_file"));
        }
        settings
    }

    /// Whether orders can be given.
    pub fn is_on(&self) -> bool {
        self.secret_file.is_some()
    }

    /// Reads the secret; none when nothing is handed over.
    pub fn secret(&self) -> Result<Option<Secret>, String> {
        let Some(path) = &self.secret_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Secret::parse(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// What signs and what is accepted. The first line signs; every line is accepted, so that a secret can be changed host by host.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    signs: Vec<u8>,
    others: Vec<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Takes the text of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| line.as_bytes().to_vec());
        let signs = lines.next().ok_or("is empty; make it with: openssl rand -hex 32")?;
        let others: Vec<Vec<u8>> = lines.collect();
        if others.iter().chain([&signs]).any(|line| line.len() < MIN_SECRET) {
            return Err(format!("a secret needs {MIN_SECRET} characters at least; make it with: openssl rand -hex 32"));
        }
        Ok(Self { signs, others })
    }

    fn code(&self, text: &str) -> String {
        hexadecimal(&mac(&self.signs, text).finalize().into_bytes()[..CODE])
    }

    fn accepts(&self, text: &str, code: &[u8]) -> bool {
        let keys = self.others.iter().chain([&self.signs]);
        code.len() == CODE && keys.into_iter().any(|key| mac(key, text).verify_truncated_left(code).is_ok())
    }
}

fn mac(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"octroi handover 1\n");
    mac.update(text.as_bytes());
    mac
}

/// The SMTP client, as policyd (client_address, client_port) and contentd (XFORWARD ADDR, PORT) both know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its port; 0 when it is not known.
    pub port: u16,
}

impl Peer {
    fn mark(self) -> String {
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        mark(format!("{address} {}", self.port).as_bytes())
    }
}

/// What is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// Orders for the message.
    pub orders: Vec<Order>,
    /// What SPF says of client and sender: a result word of RFC 8601.
    pub spf: Option<String>,
    /// Score of the DNS lists that the client is in.
    pub dnsbl: Option<i32>,
    /// These lists.
    pub lists: Vec<String>,
    /// Id of policyd's decision.
    pub decision: String,
}

/// What a note is written for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The client.
    pub peer: Peer,
    /// The recipient that it is about; empty when it is about the message.
    pub recipient: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

/// The header line, name and value, that carries a note.
pub fn write(secret: &Secret, note: &Note, scope: Scope<'_>) -> String {
    let name = if note.orders.is_empty() { RESULTS_HEADER } else { ORDER_HEADER };
    let mut value = format!("t={}; c={}; id={}", scope.now, scope.peer.mark(), note.decision);
    if !scope.recipient.is_empty() {
        value.push_str(&format!("; r={}", recipient_mark(scope.recipient)));
    }
    if let Some(spf) = &note.spf {
        value.push_str(&format!("; spf={spf}"));
    }
    if let Some(score) = note.dnsbl {
        value.push_str(&format!("; dnsbl={score}"));
    }
    for list in note.lists.iter().take(MAX_LISTS) {
        // Its name is the administrator's choice.
        let plain: String = list.chars().filter(|c| c.is_ascii_graphic() && *c != ';').take(80).collect();
        value.push_str(&format!("; list={plain}"));
    }
    for order in &note.orders {
        value.push_str(&format!("; {order}"));
    }
    let code = secret.code(&value);
    format!("{name}: {value}; s={code}")
}

/// Why a line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not signed with our secret: somebody else wrote it.
    #[error("forged")]
    Forged,
    /// Ours, but for another client.
    #[error("for another client")]
    OtherClient,
    /// Ours, but of another day.
    #[error("too old or from the future")]
    Age,
    /// Ours, with an order that this version does not know.
    #[error("with an order that is not known here")]
    Unknown,
}

/// A note as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub note: Note,
    recipient: Option<String>,
}

impl Received {
    /// Whether it is about a message for these recipients: a recipient that was refused after all takes its orders along.
    pub fn is_about<'a>(&self, mut recipients: impl Iterator<Item = &'a str>) -> bool {
        let Some(mark) = &self.recipient else { return true };
        recipients.any(|recipient| recipient_mark(recipient) == *mark)
    }
}

/// Reads the value of a header line.
pub fn read(secret: &Secret, value: &str, peer: Peer, now: u64) -> Result<Received, Refusal> {
    let value = value.trim();
    let (signed, code) = value.rsplit_once("; s=").filter(|_| value.len() <= MAX_LINE).ok_or(Refusal::Forged)?;
    let code = bytes(code).ok_or(Refusal::Forged)?;
    if !secret.accepts(signed, &code) {
        return Err(Refusal::Forged);
    }
    let mut received = Received { note: Note::default(), recipient: None };
    let note = &mut received.note;
    for item in signed.split("; ") {
        match item.split_once('=').unwrap_or((item, "")) {
            ("t", written) => in_time(written, now)?,
            ("c", mark) if mark == peer.mark() => {}
            ("c", _) => return Err(Refusal::OtherClient),
            ("id", id) => note.decision = id.to_owned(),
            ("r", mark) => received.recipient = Some(mark.to_owned()),
            ("spf", word) => note.spf = Some(word.to_owned()),
            ("dnsbl", score) => note.dnsbl = score.parse().ok(),
            ("list", list) => note.lists.push(list.to_owned()),
            _ => note.orders.push(item.parse().map_err(|_| Refusal::Unknown)?),
        }
    }
    Ok(received)
}

fn in_time(written: &str, now: u64) -> Result<(), Refusal> {
    let written: u64 = written.parse().map_err(|_| Refusal::Age)?;
    let good = written <= now.saturating_add(MAX_SKEW.as_secs()) && now <= written.saturating_add(MAX_AGE.as_secs());
    if good { Ok(()) } else { Err(Refusal::Age) }
}

/// An address without its quoting, and whatever its case. A mark and not the address, so that a message that misses contentd tells nobody
/// who else got it.
fn recipient_mark(address: &str) -> String {
    let plain = match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{domain}", unquoted(local)),
        None => unquoted(address),
    };
    mark(plain.to_lowercase().as_bytes())
}

/// The content of a quoted local part (RFC 5321 section 4.1.2); Postfix gives policyd the content, contentd sees the quotes.
fn unquoted(local: &str) -> String {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local.to_owned();
    };
    let mut escaped = false;
    inner
        .chars()
        .filter(|&c| {
            escaped = c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

fn mark(text: &[u8]) -> String {
    hexadecimal(&Sha256::digest(text)[..8])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let good = digits.len() == 2 * CODE && digits.iter().all(u8::is_ascii_hexdigit);
    good.then(|| digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_795_324_438;

    fn secret(text: &str) -> Secret {
        Secret::parse(&text.repeat(32)).unwrap()
    }

    fn peer() -> Peer {
        Peer { address: "192.0.2.77".parse().ok(), port: 4711 }
    }

    fn note() -> Note {
        Note {
            orders: vec![Order::Hold, "redirect=box@example.org".parse().unwrap()],
            decision: "7ae7231z83".into(),
            ..Note::default()
        }
    }

    fn value(line: &str) -> &str {
        line.split_once(": ").unwrap().1
    }

    #[test]
    fn a_note_arrives_as_it_was_written() {
        let scope = Scope { peer: peer(), recipient: "x y@Example.test", now: NOW };
        let line = write(&secret("a"), &note(), scope);
        assert!(line.starts_with("X-Octroi-Order: t=1795324438; c=") && line.len() < 300, "{line}");
        assert!(!line.contains("xample.test"), "{line}");
        let received = read(&secret("a"), value(&line), peer(), NOW + 60).unwrap();
        assert_eq!(received.note, note());
        assert!(received.is_about(["a@b", "\"x y\"@example.test"].into_iter()));
        assert!(received.is_about(["\"x\\ y\"@example.TEST"].into_iter()));
        assert!(!received.is_about(["xy@example.test", "a@b"].into_iter()));

        let results = Note {
            spf: Some("pass".into()),
            dnsbl: Some(-3),
            lists: vec!["a.test".into(), "b.test".into()],
            ..Note::default()
        };
        let line = write(&secret("a"), &results, Scope { recipient: "", ..scope });
        assert!(line.starts_with("X-Octroi-Results: "), "{line}");
        let received = read(&secret("a"), value(&line), peer(), NOW).unwrap();
        assert_eq!(received.note, results);
        assert!(received.is_about(std::iter::empty()));
    }

    #[test]
    fn what_others_write_does_not_count() {
        let line = write(&secret("a"), &note(), Scope { peer: peer(), recipient: "", now: NOW });
        let line = value(&line);
        let read = |value: &str, peer, now| super::read(&secret("a"), value, peer, now).map(|received| received.note);
        assert_eq!(read(line, peer(), NOW), Ok(note()));
        assert_eq!(super::read(&secret("b"), line, peer(), NOW), Err(Refusal::Forged));
        for forged in [
            "",
            "; s=",
            "hold",
            "hold; s=00",
            &line.replace("hold", "bcc=a@b"),
            &line[..line.len() - 1],
            &line[..line.len() - 2],
        ] {
            assert_eq!(read(forged, peer(), NOW), Err(Refusal::Forged), "{forged}");
        }
        assert_eq!(read(line, Peer { port: 4712, ..peer() }, NOW), Err(Refusal::OtherClient));
        assert_eq!(read(line, Peer { address: None, ..peer() }, NOW), Err(Refusal::OtherClient));
        assert_eq!(read(line, peer(), NOW + 86_401), Err(Refusal::Age));
        assert_eq!(read(line, peer(), NOW - 601), Err(Refusal::Age));
    }

    #[test]
    fn an_order_of_a_newer_version_is_told() {
        let signed = format!("t={NOW}; c={}; teleport", peer().mark());
        let value = format!("{signed}; s={}", secret("a").code(&signed));
        assert_eq!(read(&secret("a"), &value, peer(), NOW), Err(Refusal::Unknown));
    }

    #[test]
    fn a_secret_can_be_changed_host_by_host() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let [only_old, only_new] = [&old, &new].map(|text| Secret::parse(text).unwrap());
        let [first_old, first_new] =
            [format!("{old}\n{new}\n"), format!("\n{new}\n{old}")].map(|text| Secret::parse(&text).unwrap());
        for (writer, reader) in
            [(&only_old, &first_old), (&first_old, &first_new), (&first_new, &first_old), (&first_new, &only_new)]
        {
            let line = write(writer, &note(), Scope { peer: peer(), recipient: "", now: NOW });
            assert!(read(reader, value(&line), peer(), NOW).is_ok());
        }
        assert!(Secret::parse("\n").is_err() && Secret::parse("short").is_err());
        assert_eq!(format!("{only_old:?}"), "Secret");
    }

    #[test]
    fn settings_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let told = |text: &str| {
            let mut mistakes = Mistakes::new();
            HandoverSettings::read(&Source::from_text("f", text).unwrap(), &mut mistakes);
            mistakes.to_string()
        };
        assert_eq!(told(""), "");
        assert!(told("[handover]\nresults = true").starts_with("f:2: handover.results: needs"));
        let with = format!("[handover]\nsecret_file = '{}'", file.display());
        assert!(told(&with).starts_with("f:2: handover.secret_file: cannot read "));
        std::fs::write(&file, "short").unwrap();
        assert!(told(&with).contains("a secret needs 32 characters"));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(told(&with), "");
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text: String, tail in "[0-9a-fA-F+]{30,34}") {
            let _ = read(&secret("a"), &text, peer(), NOW);
            let forged = format!("{text}; s={tail}");
            prop_assert!(read(&secret("a"), &forged, peer(), NOW).is_err());
            let _ = recipient_mark(&text);
        }
    }
}
