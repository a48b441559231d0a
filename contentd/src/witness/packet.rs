// SPDX-License-Identifier: GPL-3.0-or-later
//! What the daemon tells its witness, as packets. Pure.
//!
//! Both ends are the same program of the same version, so there is no version in it. A packet that cannot be read is a bug and is ignored.

use crate::identity::Key;

/// The largest packet: more recipients than one message should ever have.
pub(crate) const LARGEST: usize = 48 * 1024;

/// One thing that happens to a message. Numbers are given by the daemon and mean nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The final dot goes out on the socket that comes with the packet.
    Dot {
        /// By which the rest is told.
        number: u32,
        /// The message's id.
        id: String,
        /// Of the message for each of its recipients.
        keys: Vec<Key>,
    },
    /// The next hop has taken the message, and the client has not been told yet.
    Taken {
        /// That of the dot.
        number: u32,
        /// What the next hop said.
        reply: String,
    },
    /// It is over: the client has heard, or the next hop has not taken the message, or it is in the ledger.
    Settled {
        /// That of the dot.
        number: u32,
    },
    /// A message is being inspected.
    Inspecting {
        /// By which its end is told.
        number: u32,
        /// The message's id.
        id: String,
        /// Of the message.
        key: Key,
    },
    /// The inspection is over.
    Inspected {
        /// That of its beginning.
        number: u32,
    },
}

impl Packet {
    /// The bytes; none when they would be too many.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let (kind, number) = match self {
            Packet::Dot { number, .. } => (b'.', number),
            Packet::Taken { number, .. } => (b'2', number),
            Packet::Settled { number } => (b'x', number),
            Packet::Inspecting { number, .. } => (b'<', number),
            Packet::Inspected { number } => (b'>', number),
        };
        let mut out = vec![kind];
        out.extend_from_slice(&number.to_be_bytes());
        match self {
            Packet::Dot { id, keys, .. } => {
                text(&mut out, id);
                keys.iter().for_each(|key| out.extend_from_slice(key));
            }
            Packet::Taken { reply, .. } => text(&mut out, reply),
            Packet::Inspecting { id, key, .. } => {
                text(&mut out, id);
                out.extend_from_slice(key);
            }
            Packet::Settled { .. } | Packet::Inspected { .. } => {}
        }
        (out.len() <= LARGEST).then_some(out)
    }

    /// Reads one packet.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Packet> {
        let (kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u32::from_be_bytes(*number);
        Some(match kind {
            b'.' => {
                let (id, rest) = take_text(rest)?;
                let (keys, []) = rest.as_chunks::<16>() else { return None };
                Packet::Dot { number, id, keys: keys.to_vec() }
            }
            b'2' => Packet::Taken { number, reply: take_text(rest)?.0 },
            b'x' => Packet::Settled { number },
            b'<' => {
                let (id, rest) = take_text(rest)?;
                Packet::Inspecting { number, id, key: rest.try_into().ok()? }
            }
            b'>' => Packet::Inspected { number },
            _ => return None,
        })
    }
}

/// Text of up to 255 bytes; the rest is cut, at a character.
fn text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(255);
    out.push(u8::try_from(end).unwrap_or(u8::MAX));
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_come_back() {
        for packet in [
            Packet::Dot { number: 1, id: "1ABC".into(), keys: vec![[1; 16], [2; 16]] },
            Packet::Dot { number: 1, id: String::new(), keys: vec![] },
            Packet::Taken { number: u32::MAX, reply: "250 ok".into() },
            Packet::Settled { number: 7 },
            Packet::Inspecting { number: 7, id: "1ABC".into(), key: [3; 16] },
            Packet::Inspected { number: 0 },
        ] {
            assert_eq!(Packet::decode(&packet.encode().unwrap()), Some(packet));
        }
        assert_eq!(Packet::Dot { number: 1, id: String::new(), keys: vec![[0; 16]; 4000] }.encode(), None);
        let long = Packet::Taken { number: 1, reply: "é".repeat(200) };
        assert_eq!(Packet::decode(&long.encode().unwrap()), Some(Packet::Taken { number: 1, reply: "é".repeat(127) }));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.encode().is_some());
            }
        }
    }
}
