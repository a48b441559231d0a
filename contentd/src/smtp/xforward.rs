// SPDX-License-Identifier: GPL-3.0-or-later
//! XFORWARD: the attributes of the original client, in from Postfix and out to the next hop.
//!
//! Pure. Values travel as xtext (RFC 3461 section 4); we decode a copy for ourselves and pass the received text
//! on untouched, only the attributes that the next hop announces, in commands of at most 512 bytes. Postfix
//! XFORWARD_README.

use std::fmt;

/// The longest command, with its CR LF (RFC 5321 4.5.3.1.4).
const COMMAND_LIMIT: usize = 512;
/// The longest value that Postfix takes or sends.
const VALUE_LIMIT: usize = 255;

/// The seven attributes, in the order in which Postfix sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Verified client host name.
    Name,
    /// Client address.
    Addr,
    /// Client port.
    Port,
    /// HELO or EHLO argument.
    Helo,
    /// Local message id.
    Ident,
    /// SMTP or ESMTP.
    Proto,
    /// LOCAL or REMOTE. Announced last: Postfix before November 2022 misread the last attribute of the list.
    Source,
}

impl Attribute {
    /// All attributes, in sending order.
    pub const ALL: [Attribute; 7] = [
        Attribute::Name,
        Attribute::Addr,
        Attribute::Port,
        Attribute::Helo,
        Attribute::Ident,
        Attribute::Proto,
        Attribute::Source,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Name => "NAME",
            Attribute::Addr => "ADDR",
            Attribute::Port => "PORT",
            Attribute::Helo => "HELO",
            Attribute::Ident => "IDENT",
            Attribute::Proto => "PROTO",
            Attribute::Source => "SOURCE",
        }
    }

    /// The attribute of that name, compared without case.
    pub fn find(name: &[u8]) -> Option<Attribute> {
        Attribute::ALL.into_iter().find(|attribute| name.eq_ignore_ascii_case(attribute.name().as_bytes()))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Why an XFORWARD command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XforwardError {
    /// No `name=value` at all, or a word without `=`.
    #[error("bad XFORWARD syntax")]
    Syntax,
    /// An attribute that we did not announce.
    #[error("unknown XFORWARD attribute")]
    Attribute,
    /// A value that is too long or holds a control character.
    #[error("bad XFORWARD value")]
    Value,
}

/// Reads the words after `XFORWARD`; the values stay xtext.
pub fn parse(arguments: &[u8]) -> Result<Vec<(Attribute, Vec<u8>)>, XforwardError> {
    let pairs = arguments
        .split(|byte| *byte == b' ' || *byte == b'\t')
        .filter(|word| !word.is_empty())
        .map(pair)
        .collect::<Result<Vec<_>, _>>()?;
    if pairs.is_empty() { Err(XforwardError::Syntax) } else { Ok(pairs) }
}

fn pair(word: &[u8]) -> Result<(Attribute, Vec<u8>), XforwardError> {
    let equals = memchr::memchr(b'=', word).ok_or(XforwardError::Syntax)?;
    let attribute = Attribute::find(&word[..equals]).ok_or(XforwardError::Attribute)?;
    let value = &word[equals + 1..];
    // An encoded byte takes three, so a value of 255 bytes may come as 765.
    if value.len() > 3 * VALUE_LIMIT || value.iter().any(u8::is_ascii_control) {
        return Err(XforwardError::Value);
    }
    Ok((attribute, value.to_vec()))
}

/// Decodes an xtext value; None for an empty one, `[UNAVAILABLE]` and `[TEMPUNAVAIL]`. A broken `+XX` is kept as it is;
/// control characters become `?`, because the result ends in headers and log lines.
pub fn decode(xtext: &[u8]) -> Option<String> {
    if xtext.is_empty() || xtext.eq_ignore_ascii_case(b"[UNAVAILABLE]") || xtext.eq_ignore_ascii_case(b"[TEMPUNAVAIL]")
    {
        return None;
    }
    let mut bytes = Vec::with_capacity(xtext.len());
    let mut rest = xtext;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, hex_pair(tail)) {
            (b'+', Some(value)) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    for byte in &mut bytes {
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let (high, low) = (digit(*text.first()?)?, digit(*text.get(1)?)?);
    Some((high * 16 + low) as u8)
}

/// The commands, without line ends, that pass `values` on to a next hop which announced `announced`.
pub fn commands(values: &[(Attribute, Vec<u8>)], announced: &[Attribute]) -> Vec<Vec<u8>> {
    const VERB: &[u8] = b"XFORWARD";
    let mut ordered: Vec<_> = values.iter().filter(|(attribute, _)| announced.contains(attribute)).collect();
    ordered.sort_by_key(|(attribute, _)| *attribute);
    let mut commands: Vec<Vec<u8>> = Vec::new();
    for (attribute, value) in ordered {
        let word = [b" ", attribute.name().as_bytes(), b"=", value].concat();
        match commands.last_mut() {
            Some(open) if open.len() + word.len() + 2 <= COMMAND_LIMIT => open.extend_from_slice(&word),
            // A single value over the limit goes alone: shortening xtext could cut an escape in two.
            _ => commands.push([VERB, &word].concat()),
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seven_attributes_in_any_case() {
        let line = b"NAME=spike.example addr=192.0.2.1 PORT=1234 HELO=a+20b IDENT=4X PROTO=ESMTP source=REMOTE";
        let pairs = parse(line).unwrap();
        assert_eq!(pairs.iter().map(|(attribute, _)| *attribute).collect::<Vec<_>>(), Attribute::ALL);
        assert_eq!(pairs[3].1, b"a+20b");
        assert_eq!(parse(b"LOGIN=x"), Err(XforwardError::Attribute));
        assert_eq!(parse(b"NAME"), Err(XforwardError::Syntax));
        assert_eq!(parse(b"  "), Err(XforwardError::Syntax));
        assert_eq!(parse(b"NAME=a\rb"), Err(XforwardError::Value));
        assert_eq!(parse(&[&b"NAME="[..], &[b'a'; 800]].concat()), Err(XforwardError::Value));
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(decode(b"a+20b+2B"), Some("a b+".into()));
        assert_eq!(decode(b"a+zz+4"), Some("a+zz+4".into()));
        assert_eq!(decode(b"x+0D+0Ay"), Some("x??y".into()));
        assert_eq!(decode(b"[Unavailable]"), None);
        assert_eq!(decode(b""), None);
    }

    #[test]
    fn commands_carry_only_what_is_announced_and_stay_short() {
        let values: Vec<_> = Attribute::ALL.into_iter().rev().map(|attribute| (attribute, vec![b'v'; 200])).collect();
        let lines = commands(&values, &Attribute::ALL);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() + 2 <= COMMAND_LIMIT));
        let joined: Vec<_> = lines.iter().flat_map(|line| parse(&line["XFORWARD".len()..]).unwrap()).collect();
        assert_eq!(joined.iter().map(|(attribute, _)| *attribute).collect::<Vec<_>>(), Attribute::ALL);
        assert_eq!(commands(&values[6..], &[Attribute::Name])[0][..14], *b"XFORWARD NAME=");
        assert!(commands(&values, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            if let Ok(pairs) = parse(&bytes) {
                prop_assert!(commands(&pairs, &Attribute::ALL).iter().all(|line| line.iter().all(|byte| !byte.is_ascii_control())));
            }
        }
    }
}
