// SPDX-License-Identifier: GPL-3.0-or-later
//! The envelope of one message: who sent it, to whom, and through which client, as Postfix told us.
//!
//! Pure data. MAIL and RCPT are kept byte for byte, because whatever parameters Postfix sent (RFC 1870, 6152,
//! 6531, 3461, 4954) must reach the next hop unchanged; the decoded address beside them is for checks, headers
//! and the log only. Syntax of paths: RFC 5321 4.1.2. Client attributes: Postfix XFORWARD_README.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use common::spf::SpfResult;

use crate::smtp::xforward::{self, Attribute};

/// What the SMTP dialogue says about a message, apart from its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id under which replies, headers and the log name this message.
    pub id: MessageId,
    /// The reverse path of MAIL FROM.
    pub sender: Path,
    /// The forward paths which the next hop has accepted, in order.
    pub recipients: Vec<Path>,
    /// The SMTP client in front of Postfix.
    pub client: Client,
    /// The SIZE= parameter of MAIL (RFC 1870), in bytes: a claim, not a fact.
    pub size_declared: Option<u64>,
    /// What policyd says of SPF, where it hands that over: of the sender's domain, or of the client's name where there is no sender.
    pub spf: Option<SpfResult>,
}

impl Envelope {
    /// An envelope without recipients yet; the declared size is read from the sender's parameters.
    pub fn new(id: MessageId, sender: Path, client: Client) -> Envelope {
        let size_declared = sender.size();
        Envelope { id, sender, recipients: Vec::new(), client, size_declared, spf: None }
    }
}

/// A short printable name of one message, unique over the hosts of a farm: 13 letters and digits.
///
/// The first six grow with time (seconds), so that ids sort roughly by age; the rest is random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(String);

/// Letters that cannot be mistaken for a digit, so that an id survives being read out on the telephone.
const ID_LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl MessageId {
    /// A new id from the clock and the process' random hash keys (seeded by the operating system).
    pub fn generate() -> MessageId {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let random = KEYS.hash_one((now.as_nanos(), std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        MessageId::compose(now.as_secs(), random)
    }

    fn compose(seconds: u64, random: u64) -> MessageId {
        let letter = |bits: u64| ID_LETTERS[(bits & 31) as usize] as char;
        let time = (0..6).rev().map(|place| letter(seconds >> (5 * place)));
        let rest = (0..7).rev().map(|place| letter(random >> (5 * place)));
        MessageId(time.chain(rest).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The path of a MAIL or RCPT command with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The address without angle brackets and source route; bytes that are not UTF-8 are replaced. Empty: the
    /// null sender.
    pub address: String,
    /// Everything after `MAIL FROM:` or `RCPT TO:`, byte for byte, without the line end.
    pub verbatim: Vec<u8>,
}

/// Why the text after `MAIL FROM:` or `RCPT TO:` is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing where an address should be.
    #[error("no address given")]
    Missing,
    /// `<` without `>`, or a quoted string without its end.
    #[error("address not terminated")]
    Unterminated,
    /// Text glued to the closing `>`.
    #[error("no blank between address and parameters")]
    Junk,
    /// A control character; it could break the line we send to the next hop.
    #[error("control character in address or parameters")]
    Control,
}

impl Path {
    /// Reads the text after the colon. Only what is needed to find the address is checked: the next hop judges
    /// the rest.
    pub fn parse(verbatim: &[u8]) -> Result<Path, PathError> {
        if verbatim.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(PathError::Control);
        }
        let (address, _) = split(verbatim)?;
        Ok(Path { address: String::from_utf8_lossy(without_route(address)).into_owned(), verbatim: verbatim.to_vec() })
    }

    /// A path made from a bare address, for messages that did not come by SMTP.
    pub fn from_address(address: &str) -> Path {
        Path { address: address.to_owned(), verbatim: format!("<{address}>").into_bytes() }
    }

    /// Whether this is the null sender `<>`.
    pub fn is_null(&self) -> bool {
        self.address.is_empty()
    }

    /// The value of a parameter, its name compared without case; None when it is absent. `Some("")`: present
    /// without a value.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        let (_, rest) = split(&self.verbatim).ok()?;
        rest.split(|byte| byte.is_ascii_whitespace()).find_map(|word| {
            let (key, value) = match memchr::memchr(b'=', word) {
                Some(at) => (&word[..at], &word[at + 1..]),
                None => (word, &word[word.len()..]),
            };
            key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
    }

    /// The SIZE= parameter of MAIL in bytes, when it is a number.
    pub fn size(&self) -> Option<u64> {
        std::str::from_utf8(self.parameter("SIZE")?).ok()?.parse().ok()
    }
}

/// Splits "blank* path parameters" into the address without brackets and the parameters.
fn split(text: &[u8]) -> Result<(&[u8], &[u8]), PathError> {
    let text = text.trim_ascii_start();
    let bracketed = text.first() == Some(&b'<');
    let body = if bracketed { &text[1..] } else { text };
    let (mut quoted, mut escaped) = (false, false);
    let end = body.iter().position(|&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if bracketed && !quoted => return true,
            b' ' | b'\t' if !bracketed && !quoted => return true,
            _ => {}
        }
        false
    });
    match end {
        Some(at) if bracketed => match body.get(at + 1) {
            None | Some(b' ' | b'\t') => Ok((&body[..at], &body[at + 1..])),
            Some(_) => Err(PathError::Junk),
        },
        Some(0) => Err(PathError::Missing),
        Some(at) => Ok((&body[..at], &body[at..])),
        None if bracketed || quoted => Err(PathError::Unterminated),
        None if body.is_empty() => Err(PathError::Missing),
        None => Ok((body, &[])),
    }
}

/// Removes a source route `@one,@two:` (RFC 5321 4.1.2, appendix C: to be ignored).
fn without_route(address: &[u8]) -> &[u8] {
    match (address.first(), memchr::memchr(b':', address)) {
        (Some(b'@'), Some(colon)) => &address[colon + 1..],
        _ => address,
    }
}

/// The SMTP client in front of Postfix, as XFORWARD told us. Every value is None when Postfix did not know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Verified host name.
    pub name: Option<String>,
    /// IP address as text, without the `IPV6:` tag.
    pub addr: Option<String>,
    /// TCP port of the client.
    pub port: Option<String>,
    /// HELO or EHLO argument.
    pub helo: Option<String>,
    /// Local message id, usually a queue id.
    pub ident: Option<String>,
    /// SMTP or ESMTP.
    pub proto: Option<String>,
    /// LOCAL or REMOTE.
    pub source: Option<String>,
    /// The same attributes as received (xtext), to be passed on untouched.
    pub forwarded: Vec<(Attribute, Vec<u8>)>,
}

impl Client {
    /// Takes over one XFORWARD attribute; a repeated one replaces the earlier value.
    pub fn set(&mut self, attribute: Attribute, xtext: &[u8]) {
        self.forwarded.retain(|(known, _)| *known != attribute);
        self.forwarded.push((attribute, xtext.to_vec()));
        let value = xforward::decode(xtext);
        match attribute {
            Attribute::Name => self.name = value,
            Attribute::Addr => self.addr = value.map(without_family),
            Attribute::Port => self.port = value,
            Attribute::Proto => self.proto = value,
            Attribute::Helo => self.helo = value,
            Attribute::Ident => self.ident = value,
            Attribute::Source => self.source = value,
        }
    }

    /// The client's address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addr.as_deref()?.parse().ok()
    }
}

fn without_family(addr: String) -> String {
    match addr.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => addr[5..].to_owned(),
        _ => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Path {
        Path::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn address_is_found_and_the_text_is_kept() {
        for (text, address) in [
            ("<a@example.org> SIZE=10 BODY=8BITMIME", "a@example.org"),
            ("<>", ""),
            (" <a@b> RET=HDRS", "a@b"),
            ("<\"a >b\"@c> NOTIFY=NEVER", "\"a >b\"@c"),
            ("<\"a\\\">\"@c>", "\"a\\\">\"@c"),
            ("<@r1,@r2:a@b>", "a@b"),
            ("a@b SIZE=1", "a@b"),
            ("<postmaster>", "postmaster"),
            ("<a@[IPv6:::1]>", "a@[IPv6:::1]"),
            ("<jörg@müller.example> SMTPUTF8", "jörg@müller.example"),
        ] {
            let found = path(text);
            assert_eq!(found.address, address);
            assert_eq!(found.verbatim, text.as_bytes());
        }
    }

    #[test]
    fn broken_paths_are_refused() {
        assert_eq!(Path::parse(b""), Err(PathError::Missing));
        assert_eq!(Path::parse(b"   "), Err(PathError::Missing));
        assert_eq!(Path::parse(b"<a@b"), Err(PathError::Unterminated));
        assert_eq!(Path::parse(b"<\"a@b>"), Err(PathError::Unterminated));
        assert_eq!(Path::parse(b"<a@b>SIZE=1"), Err(PathError::Junk));
        assert_eq!(Path::parse(b"<a\rb@c>"), Err(PathError::Control));
        assert_eq!(Path::parse(b"<a@c> X=\0"), Err(PathError::Control));
    }

    #[test]
    fn parameters_are_found_without_regard_to_case() {
        let sender = path("<a@b> size=123 SMTPUTF8 ENVID=QQ+3D1");
        assert_eq!(sender.size(), Some(123));
        assert_eq!(sender.parameter("smtputf8"), Some(&b""[..]));
        assert_eq!(sender.parameter("ENVID"), Some(&b"QQ+3D1"[..]));
        assert_eq!(sender.parameter("RET"), None);
        assert_eq!(path("<size=5@b>").size(), None);
        assert_eq!(path("<a@b> SIZE=99999999999999999999999").size(), None);
    }

    #[test]
    fn ids_are_short_and_differ() {
        let many: std::collections::HashSet<_> = (0..10_000).map(|_| MessageId::generate()).collect();
        assert_eq!(many.len(), 10_000);
        assert!(many.iter().all(|id| id.as_str().len() == 13 && id.as_str().bytes().all(|b| ID_LETTERS.contains(&b))));
        assert!(MessageId::compose(1_000, u64::MAX) < MessageId::compose(1_001, 0));
    }

    #[test]
    fn client_values_are_decoded_and_kept_raw() {
        let mut client = Client::default();
        client.set(Attribute::Addr, b"IPV6:2001:db8::1");
        client.set(Attribute::Helo, b"a+20b");
        client.set(Attribute::Name, b"[unavailable]");
        client.set(Attribute::Helo, b"again");
        assert_eq!(client.ip(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(client.helo.as_deref(), Some("again"));
        assert_eq!(client.name, None);
        assert_eq!(client.forwarded.len(), 3);
        assert!(client.forwarded.contains(&(Attribute::Addr, b"IPV6:2001:db8::1".to_vec())));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(path) = Path::parse(&bytes) {
                prop_assert_eq!(&path.verbatim, &bytes);
                let _ = path.parameter("SIZE");
            }
        }
    }
}
